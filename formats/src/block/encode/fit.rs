//! The inner loops: quants for given scales, and the sums from which the best scales for given quants follow.
//!
//! Sums run in eight lanes that are added in a fixed order, so a compiler may use vectors and cannot change a result.

const LANES: usize = 8;

/// Adding and subtracting this rounds a number below 2²² to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// The integer nearest to `v` within `lo..=hi`.
#[inline(always)]
pub fn nearest(v: f32, lo: f32, hi: f32) -> f32 {
    // Plain comparisons: what `f32::min` says about NaN would cost instructions.
    let v = if v > lo { v } else { lo };
    let v = if v < hi { v } else { hi };
    (v + ROUND) - ROUND
}

#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Sums over a part with quants `l`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Σ l.
    pub l: f32,
    /// Σ l².
    pub ll: f32,
    /// Σ x·l.
    pub xl: f32,
}

/// The sums of `x` with `l = nearest(x · inverse + offset)`.
#[inline(always)]
pub fn sums<const N: usize>(x: &[f32; N], inverse: f32, offset: f32, lo: f32, hi: f32) -> Sums {
    let (mut l, mut ll, mut xl) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    for x in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            let q = nearest(x[i] * inverse + offset, lo, hi);
            l[i] += q;
            ll[i] += q * q;
            xl[i] += x[i] * q;
        }
    }
    Sums { l: total(l), ll: total(ll), xl: total(xl) }
}

/// The squared error of `x` with `l = nearest(x · inverse + offset)` standing for `scale · l + base`.
#[inline(always)]
pub fn error<const N: usize>(x: &[f32; N], scale: f32, base: f32, inverse: f32, lo: f32, hi: f32) -> f32 {
    let offset = -base * inverse;
    let mut e = [0.0; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            let q = nearest(x[i] * inverse + offset, lo, hi);
            let d = x[i] - (scale * q + base);
            e[i] += d * d;
        }
    }
    total(e)
}

/// Writes the quants `nearest(x · inverse + offset) + zero`.
#[inline(always)]
pub fn quantise<const N: usize>(
    x: &[f32; N],
    inverse: f32,
    offset: f32,
    lo: f32,
    hi: f32,
    zero: f32,
    quants: &mut [u8],
) {
    for (q, x) in quants.iter_mut().zip(x) {
        *q = (nearest(x * inverse + offset, lo, hi) + zero) as u8;
    }
}

/// Σ x.
#[inline(always)]
pub fn sum<const N: usize>(x: &[f32; N]) -> f32 {
    let mut s = [0.0; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            s[i] += x[i];
        }
    }
    total(s)
}

/// The least and the greatest of `x`.
#[inline(always)]
pub fn extremes<const N: usize>(x: &[f32; N]) -> (f32, f32) {
    let (mut least, mut greatest) = (x[0], x[0]);
    for &x in x {
        least = if x < least { x } else { least };
        greatest = if x > greatest { x } else { greatest };
    }
    (least, greatest)
}
