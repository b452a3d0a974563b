//! `q4_k` and `q5_k`: eight parts of 32 whose scales and minima are 6-bit multiples of two f16.

use super::super::Fields;
use super::affine::{self, Line};
use super::{fit, inverse, storable};
use half::f16;

const PARTS: usize = 8;
const PART: usize = 32;
/// The greatest 6-bit integer.
const TOP6: f32 = 63.0;
/// What the greatest scale and the greatest minimum of a block may become, as 6-bit integers.
const ENDS: [f32; 8] = [63.0, 62.5, 62.0, 61.5, 61.0, 60.5, 60.0, 63.5];

/// Per part and for fixed quants: all that the squared error depends on.
#[derive(Default)]
struct Model {
    l: [f32; PARTS],
    ll: [f32; PARTS],
    xl: [f32; PARTS],
    x: [f32; PARTS],
}

/// The integers of the parts.
#[derive(Clone, Copy, Default)]
struct Steps {
    scale: [f32; PARTS],
    min: [f32; PARTS],
}

impl Model {
    fn set(&mut self, part: usize, sums: fit::Sums) {
        (self.l[part], self.ll[part], self.xl[part]) = (sums.l, sums.ll, sums.xl);
    }

    /// The best integers near `scale` (real multiples of `d`) and the error, less Σx², that they leave.
    #[inline(always)]
    fn steps(&self, scale: &[f32; PARTS], offsets: &[f32], d: f32, dmin: f32) -> (Steps, f32) {
        let inverse_min = inverse(dmin);
        let mut best = [f32::INFINITY; PARTS];
        let mut steps = Steps::default();
        for &offset in offsets {
            // Two plain loops: compilers make vectors of these, not of one.
            let (mut integers, mut mins, mut errors) = ([0.0; PARTS], [0.0; PARTS], [0.0; PARTS]);
            for p in 0..PARTS {
                integers[p] = fit::nearest(scale[p] + offset, 0.0, TOP6);
                let s = d * integers[p];
                let free = (s * self.l[p] - self.x[p]) * (1.0 / PART as f32);
                mins[p] = fit::nearest(free * inverse_min, 0.0, TOP6);
                let b = -dmin * mins[p];
                errors[p] =
                    s * (s * self.ll[p] + 2.0 * (b * self.l[p] - self.xl[p])) + b * (b * PART as f32 - 2.0 * self.x[p]);
            }
            for p in 0..PARTS {
                let better = errors[p] < best[p];
                best[p] = if better { errors[p] } else { best[p] };
                steps.scale[p] = if better { integers[p] } else { steps.scale[p] };
                steps.min[p] = if better { mins[p] } else { steps.min[p] };
            }
        }
        (steps, best.iter().sum())
    }
}

/// `q4_k` (TOP = 15) and `q5_k` (TOP = 31).
pub fn encode<const TOP: u8>(x: &[f32; 256], fields: &mut Fields) {
    let top = f32::from(TOP);
    let parts: &[[f32; PART]] = x.as_chunks().0;
    let mut model = Model::default();
    let mut lines = [Line::default(); PARTS];
    for (p, x) in parts.iter().enumerate() {
        let line = affine::search(x, top, true);
        lines[p] = line;
        model.x[p] = fit::sum(x);
        let inverse = inverse(line.scale);
        model.set(p, fit::sums(x, inverse, -line.base * inverse, 0.0, top));
    }
    let greatest = lines.iter().fold(0.0f32, |a, l| a.max(l.scale));
    let deepest = lines.iter().fold(0.0f32, |a, l| a.max(-l.base));

    let mut best = f32::INFINITY;
    let (mut d, mut dmin, mut steps) = (f16::ZERO, f16::ZERO, Steps::default());
    for scale_end in ENDS {
        let d_candidate = storable(greatest / scale_end);
        let multiples = lines.map(|l| l.scale * inverse(d_candidate.to_f32()));
        for min_end in ENDS {
            let m_candidate = storable(deepest / min_end);
            let (candidate, error) =
                model.steps(&multiples, &[-0.25, 0.25], d_candidate.to_f32(), m_candidate.to_f32());
            if error < best {
                (best, d, dmin, steps) = (error, d_candidate, m_candidate, candidate);
            }
        }
    }

    let (scale, min) = (d.to_f32(), dmin.to_f32());
    for (p, line) in lines.iter().enumerate() {
        // A part that is not constant keeps a step, however coarse: quants that fit it can only gain.
        if steps.scale[p] == 0.0 && line.scale > 0.0 {
            steps.scale[p] = 1.0;
            steps.min[p] = fit::nearest(-line.base * inverse(min), 0.0, TOP6);
        }
    }
    for _ in 0..2 {
        for (p, x) in parts.iter().enumerate() {
            let inverse = inverse(scale * steps.scale[p]);
            model.set(p, fit::sums(x, inverse, min * steps.min[p] * inverse, 0.0, top));
        }
        let (again, _) = model.steps(&steps.scale, &[0.0, -1.0, 1.0], scale, min);
        steps = again;
    }
    (fields.d, fields.m) = (d.to_bits(), dmin.to_bits());
    for (p, (x, quants)) in parts.iter().zip(fields.quants.chunks_exact_mut(PART)).enumerate() {
        let inverse = inverse(scale * steps.scale[p]);
        fit::quantise(x, inverse, min * steps.min[p] * inverse, 0.0, top, 0.0, quants);
        fields.scales[p] = steps.scale[p] as i8;
        fields.mins[p] = steps.min[p] as u8;
    }
}
