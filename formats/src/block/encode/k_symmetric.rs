//! `q6_k`: sixteen parts of 16 whose scales are signed bytes times one f16.

use super::super::Fields;
use super::{fit, inverse, storable, symmetric};
use half::f16;

const PARTS: usize = 16;
const PART: usize = 16;
/// Quants are −32 to 31.
const H: f32 = 32.0;
/// What the part's scale of greatest magnitude may become, as a signed byte.
const ENDS: [f32; 8] = [-128.0, -127.0, -126.0, -125.0, 127.0, 126.0, 125.0, 124.0];

/// Encodes one block.
pub fn encode(x: &[f32; 256], fields: &mut Fields) {
    let parts: &[[f32; PART]] = x.as_chunks().0;
    let (mut scales, mut ll, mut xl) = ([0.0; PARTS], [0.0; PARTS], [0.0; PARTS]);
    let mut extreme = 0.0f32;
    for (p, x) in parts.iter().enumerate() {
        scales[p] = symmetric::search(x, H);
        let sums = fit::sums(x, inverse(scales[p]), 0.0, -H, H - 1.0);
        (ll[p], xl[p]) = (sums.ll, sums.xl);
        if scales[p].abs() > extreme.abs() {
            extreme = scales[p];
        }
    }
    let (mut best, mut d, mut steps) = (f32::INFINITY, f16::ZERO, [0.0; PARTS]);
    for end in ENDS {
        let candidate = storable(extreme / end);
        let (scale, inverse) = (candidate.to_f32(), inverse(candidate.to_f32()));
        let integers: [f32; PARTS] = std::array::from_fn(|p| fit::nearest(scales[p] * inverse, -128.0, 127.0));
        let mut error = 0.0;
        for p in 0..PARTS {
            let s = scale * integers[p];
            error += s * (s * ll[p] - 2.0 * xl[p]);
        }
        if error < best {
            (best, d, steps) = (error, candidate, integers);
        }
    }
    let scale = d.to_f32();
    let candidates = |step: f32| [step, step - 1.0, step + 1.0, step - 2.0, step + 2.0, step + 3.0, step - 3.0];
    fields.d = d.to_bits();
    for (p, (x, quants)) in parts.iter().zip(fields.quants.chunks_exact_mut(PART)).enumerate() {
        let (mut best, mut step) = (f32::INFINITY, 0.0);
        for candidate in candidates(steps[p]) {
            let candidate = candidate.clamp(-128.0, 127.0);
            let s = scale * candidate;
            let error = fit::error(x, s, 0.0, inverse(s), -H, H - 1.0);
            if error < best {
                (best, step) = (error, candidate);
            }
        }
        fit::quantise(x, inverse(scale * step), 0.0, -H, H - 1.0, H, quants);
        fields.scales[p] = step as i8;
    }
}
