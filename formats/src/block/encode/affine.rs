//! A scale and a minimum: `q4_1`, `q5_1`, and the parts of `q4_k` and `q5_k`.

use super::super::Fields;
use super::{F16_MAX, fit, inverse, storable};
use half::f16;

/// How far, in steps, either end of the range may be drawn in (or out) from the extremes.
const INSETS: [f32; 5] = [-0.3, 0.0, 0.35, 0.7, 1.05];

/// Where a part lies: an element is `scale · l + base`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// The step; not negative.
    pub scale: f32,
    /// What quant 0 stands for.
    pub base: f32,
}

impl Line {
    /// The line with the least squared error for the quants behind `sums`, and how much of Σx² it explains. With
    /// `below`, the base may not be positive.
    fn fit(n: f32, x: f32, sums: &fit::Sums, below: bool) -> (Line, f32) {
        let determinant = n * sums.ll - sums.l * sums.l;
        if determinant > 0.0 {
            let scale = (n * sums.xl - x * sums.l) / determinant;
            let base = (sums.ll * x - sums.l * sums.xl) / determinant;
            if !(below && base > 0.0) {
                return (Line { scale, base }, scale * sums.xl + base * x);
            }
        } else if !(below && x > 0.0) {
            return (Line { scale: 0.0, base: x / n }, x * x / n);
        }
        if sums.ll > 0.0 {
            let scale = sums.xl / sums.ll;
            return (Line { scale, base: 0.0 }, scale * sums.xl);
        }
        (Line::default(), 0.0)
    }
}

/// The best line for quants of `0..=top`, not yet rounded. With `below`, its base is not positive.
pub fn search<const N: usize>(x: &[f32; N], top: f32, below: bool) -> Line {
    let (mut least, greatest) = fit::extremes(x);
    if below && least > 0.0 {
        least = 0.0;
    }
    let range = greatest - least;
    if range <= 0.0 {
        return Line { scale: 0.0, base: least };
    }
    let (n, sum) = (N as f32, fit::sum(x));
    let (mut best, mut line) = (0.0, Line { scale: range / top, base: least });
    for low in INSETS {
        for high in INSETS {
            // The range without the insets is `top − low − high` steps.
            let inverse = (top + low + high) / range;
            let sums = fit::sums(x, inverse, -least * inverse - low, 0.0, top);
            let (candidate, explained) = Line::fit(n, sum, &sums, below);
            if explained > best && candidate.scale > 0.0 {
                (best, line) = (explained, candidate);
            }
        }
    }
    for _ in 0..2 {
        let inverse = 1.0 / line.scale;
        let sums = fit::sums(x, inverse, -line.base * inverse, 0.0, top);
        let (candidate, _) = Line::fit(n, sum, &sums, below);
        if candidate.scale > 0.0 {
            line = candidate;
        }
    }
    line
}

/// `q4_1` (TOP = 15) and `q5_1` (TOP = 31).
pub fn encode<const TOP: u8>(x: &[f32; 32], fields: &mut Fields) {
    let top = f32::from(TOP);
    let (least, greatest) = fit::extremes(x);
    // A search about the middle: far from zero, the sums would drown what tells candidates apart.
    let middle = 0.5 * least + 0.5 * greatest;
    let found = search(&x.map(|x| x - middle), top, false);
    let plain = Line { scale: (greatest - least) / top, base: least };
    let (mut best, mut chosen) = (f32::INFINITY, (f16::ZERO, f16::ZERO));
    for line in [Line { base: found.base + middle, ..found }, plain] {
        let (d, m) = (storable(line.scale), f16::from_f32(line.base.clamp(-F16_MAX, F16_MAX)));
        let error = fit::error(x, d.to_f32(), m.to_f32(), inverse(d.to_f32()), 0.0, top);
        if error < best {
            (best, chosen) = (error, (d, m));
        }
    }
    let (d, m) = chosen;
    (fields.d, fields.m) = (d.to_bits(), m.to_bits());
    let inverse = inverse(d.to_f32());
    fit::quantise(x, inverse, -m.to_f32() * inverse, 0.0, top, 0.0, &mut fields.quants[..32]);
}
