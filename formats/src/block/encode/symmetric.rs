//! One scale: `q8_0`, `q4_0`, `q5_0`, and the parts of `q6_k`.

use super::super::Fields;
use super::{fit, inverse, storable};

/// How far, in steps, the element of greatest magnitude may be from the end of the range that it is mapped to.
const REACH: [f32; 11] = [-1.2, -0.95, -0.7, -0.45, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0];

/// The best scale for quants of `-H..H` by least squares, not yet rounded; 0 if all of `x` is.
///
/// The range has one more integer on its negative side: either sign of the scale is tried.
pub fn search<const N: usize>(x: &[f32; N], h: f32) -> f32 {
    let (least, greatest) = fit::extremes(x);
    let extreme = if -least > greatest { least } else { greatest };
    if extreme == 0.0 {
        return 0.0;
    }
    let (mut best, mut scale) = (0.0, 0.0);
    for end in [-h, h - 1.0] {
        for reach in REACH {
            let inverse = (end + reach * end.signum()) / extreme;
            let sums = fit::sums(x, inverse, 0.0, -h, h - 1.0);
            // With the best scale Σxl/Σl² the error is Σx² less this.
            let explained = sums.xl * sums.xl;
            if explained > best * sums.ll {
                best = explained / sums.ll;
                scale = sums.xl / sums.ll;
            }
        }
    }
    for _ in 0..2 {
        let sums = fit::sums(x, inverse(scale), 0.0, -h, h - 1.0);
        if sums.ll > 0.0 {
            scale = sums.xl / sums.ll;
        }
    }
    scale
}

/// `q4_0` (H = 8) and `q5_0` (H = 16).
pub fn encode<const H: u8>(x: &[f32; 32], fields: &mut Fields) {
    let h = f32::from(H);
    let (least, greatest) = fit::extremes(x);
    let extreme = if -least > greatest { least } else { greatest };
    choose(x, [search(x, h), extreme / -h], -h, h - 1.0, h, fields);
}

/// `q8_0`: the range is symmetric, −127 to 127, and its steps so fine that the plain scale is nearly the best one; some
/// smaller ranges are luckier.
pub fn encode_8(x: &[f32; 32], fields: &mut Fields) {
    let (least, greatest) = fit::extremes(x);
    let amax = greatest.max(-least);
    let mut scales = [0.0; 12];
    for (i, scale) in scales.iter_mut().enumerate() {
        *scale = amax / (127.0 - 0.5 * i as f32);
    }
    choose(x, scales, -127.0, 127.0, 128.0, fields);
}

/// Rounds the scales to what can be stored, takes the one with the least error and quantises with it.
fn choose<const N: usize>(x: &[f32; 32], scales: [f32; N], lo: f32, hi: f32, zero: f32, fields: &mut Fields) {
    let (mut best, mut d) = (f32::INFINITY, storable(0.0));
    for scale in scales {
        let candidate = storable(scale);
        let scale = candidate.to_f32();
        let error = fit::error(x, scale, 0.0, inverse(scale), lo, hi);
        if error < best {
            (best, d) = (error, candidate);
        }
    }
    fields.d = d.to_bits();
    fit::quantise(x, inverse(d.to_f32()), 0.0, lo, hi, zero, &mut fields.quants[..32]);
}
