//! The exponential, on vectors and over a slice.
//!
//! The error is at most 1.5 units in the last place of the result (the tests measure it over all exponents), also where the
//! result is subnormal. −∞ gives 0, what exceeds the largest f32 gives ∞, no number gives no number.

use crate::routines::routine;
use crate::tiers::{Kernel, Simd};

/// Below this the result rounds to 0.
const LOWEST: f32 = -104.0;
/// Above this the result is ∞.
const HIGHEST: f32 = 89.0;
/// Adding and subtracting it rounds to a whole number where |x| < 2²².
const ROUND: f32 = 12_582_912.0;
/// ln 2, in two parts: products of the first with a whole number below 2⁹ are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Coefficients of (eʳ − 1 − r) / r² for |r| ≤ ln 2 / 2, highest power first (Cephes).
const POLYNOMIAL: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// `exp(x)` in each lane.
///
/// # Safety
/// The machine must have the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        // `min` and `max` return their second operand where one is no number.
        let x = S::max(S::splat(LOWEST), S::min(S::splat(HIGHEST), x));
        let n = S::sub(S::fma(x, S::splat(std::f32::consts::LOG2_E), S::splat(ROUND)), S::splat(ROUND));
        let r = S::fma(n, S::splat(-LN2_HIGH), x);
        let r = S::fma(n, S::splat(-LN2_LOW), r);
        let mut p = S::splat(POLYNOMIAL[0]);
        let mut i = 1;
        while i < POLYNOMIAL.len() {
            p = S::fma(p, r, S::splat(POLYNOMIAL[i]));
            i += 1;
        }
        let p = S::add(S::fma(p, S::mul(r, r), r), S::splat(1.0));
        S::scale(p, n)
    }
}

/// `exp` over a slice.
struct Exp {
    out: *mut f32,
    input: *const f32,
    n: usize,
}

impl Kernel for Exp {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let whole = self.n / S::LANES * S::LANES;
        // SAFETY: the caller vouches for `n` elements at both addresses, which are the same or do not overlap.
        unsafe {
            let mut i = 0;
            while i < whole {
                S::store(self.out.add(i), exp::<S>(S::load(self.input.add(i))));
                i += S::LANES;
            }
            if i < self.n {
                let x = S::load_first(self.input.add(i), self.n - i);
                S::store_first(self.out.add(i), exp::<S>(x), self.n - i);
            }
        }
    }
}

routine! {
    /// The type of the routine `Routine::Exp`.
    ExpRoutine(out: *mut f32, input: *const f32, n: u64) => Exp { out, input, n: n as usize }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::Tier;

    /// The exponential of `from`, tier by tier.
    fn run(tier: Tier, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        // SAFETY: both have the same length and the tier is available.
        unsafe { routine(tier)(out.as_mut_ptr(), x.as_ptr(), x.len() as u64) };
        out
    }

    /// The distance from an exact value in units of the last place of the f32 nearest to it.
    fn ulps(got: f32, exact: f64) -> f64 {
        let near = exact as f32;
        if near.is_infinite() || got.is_infinite() {
            return if got == near { 0.0 } else { f64::INFINITY };
        }
        let exponent = (near.abs().to_bits() >> 23).max(1) as i32;
        (f64::from(got) - exact).abs() / 2f64.powi(exponent - 150)
    }

    #[test]
    fn error_over_all_exponents() {
        for tier in available() {
            let mut worst = (0.0, 0.0);
            // Every 397th f32 of either sign: all exponents, each with 21 000 mantissas.
            for sign in [0u32, 1 << 31] {
                let all: Vec<u32> = (0..0x7f80_0000u32).step_by(397).collect();
                for some in all.chunks(1 << 14) {
                    let x: Vec<f32> = some.iter().map(|b| f32::from_bits(b | sign)).collect();
                    for (x, y) in x.iter().zip(run(tier, &x)) {
                        let e = ulps(y, f64::from(*x).exp());
                        if e > worst.0 {
                            worst = (e, *x);
                        }
                    }
                }
            }
            assert!(worst.0 <= 1.5, "{tier}: {} ulp at {}", worst.0, worst.1);
        }
    }

    #[test]
    fn limits() {
        for tier in available() {
            let x =
                [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 0.0, -0.0, -1e30, 1e30, f32::MIN, f32::MAX, 88.8, -103.98];
            let y = run(tier, &x);
            assert_eq!(y[0].to_bits(), 0);
            assert_eq!(y[1], f32::INFINITY);
            assert!(y[2].is_nan());
            assert_eq!(&y[3..5], &[1.0, 1.0]);
            assert_eq!(&y[5..9], &[0.0, f32::INFINITY, 0.0, f32::INFINITY]);
            assert_eq!(&y[9..], &[f32::INFINITY, 0.0]);
        }
    }

    #[test]
    fn any_length_in_place_and_nothing_beyond() {
        for tier in available() {
            for n in 0..40usize {
                let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.37 - 5.0).collect();
                let mut room = x.clone();
                room.push(7.0);
                // SAFETY: `n` elements, in place.
                unsafe { routine(tier)(room.as_mut_ptr(), room.as_ptr(), n as u64) };
                assert_eq!(room[..n], run(tier, &x));
                assert_eq!(room[n], 7.0);
            }
        }
    }

    fn available() -> impl Iterator<Item = Tier> {
        crate::tiers::tests::available()
    }
}
