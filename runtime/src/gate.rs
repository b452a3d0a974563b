//! The gate of a feed-forward block, `silu(g) · u`: the routines `Routine::SiluMul` and `Routine::SiluMulBf16`.

use crate::exp::exp;
use crate::routines::routine;
use crate::tiers::{Kernel, Simd};

/// `silu(gate) · up` over lines.
struct SiluMul {
    out: *mut f32,
    gate: *const f32,
    up: *const f32,
    n: usize,
}

impl Kernel for SiluMul {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let SiluMul { out, gate, up, n } = self;
        let mut i = 0;
        // SAFETY: the caller vouches for the instruction set and `n` elements at each address; those written are read already.
        unsafe {
            while i + S::LANES <= n {
                S::store(out.add(i), silu_mul::<S>(S::load(gate.add(i)), S::load(up.add(i))));
                i += S::LANES;
            }
            if i < n {
                let (gate, up) = (S::load_first(gate.add(i), n - i), S::load_first(up.add(i), n - i));
                S::store_first(out.add(i), silu_mul::<S>(gate, up), n - i);
            }
        }
    }
}

/// `gate / (1 + exp(−gate)) · up` in each lane.
///
/// # Safety
/// The machine must have the instruction set of `S`.
#[inline(always)]
unsafe fn silu_mul<S: Simd>(gate: S::F, up: S::F) -> S::F {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let below = S::add(S::splat(1.0), exp::<S>(S::sub(S::zero(), gate)));
        S::mul(S::div(gate, below), up)
    }
}

routine! {
    /// The type of the routine `Routine::SiluMul`.
    SiluMulRoutine(out: *mut f32, gate: *const f32, up: *const f32, n: u64) => SiluMul { out, gate, up, n: n as usize }
}

/// The same, rounded to bf16.
pub mod rounded {
    use super::SiluMul;
    use crate::narrow::Round;
    use crate::routines::routine;
    use crate::tiers::{Kernel, Simd};

    /// Elements that are rounded at a time: a line of four panels, whose number is known when this is compiled.
    const WAITING: usize = 64;

    struct SiluMulBf16 {
        out: *mut u16,
        gate: *const f32,
        up: *const f32,
        n: usize,
    }

    impl Kernel for SiluMulBf16 {
        type Output = ();

        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let SiluMulBf16 { out, gate, up, n } = self;
            let mut waiting = [0.0; WAITING];
            let mut i = 0;
            // SAFETY: the caller vouches for the instruction set and `n` elements at each address.
            unsafe {
                while i + WAITING <= n {
                    SiluMul { out: waiting.as_mut_ptr(), gate: gate.add(i), up: up.add(i), n: WAITING }.run::<S>();
                    Round { out: out.add(i), input: waiting.as_ptr(), n: WAITING }.run::<S>();
                    i += WAITING;
                }
                SiluMul { out: waiting.as_mut_ptr(), gate: gate.add(i), up: up.add(i), n: n - i }.run::<S>();
                Round { out: out.add(i), input: waiting.as_ptr(), n: n - i }.run::<S>();
            }
        }
    }

    routine! {
        /// The type of the routine `Routine::SiluMulBf16`.
        SiluMulBf16Routine(out: *mut u16, gate: *const f32, up: *const f32, n: u64) => SiluMulBf16 { out, gate, up, n: n as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Numbers;
    use crate::tiers::Tier;

    /// The products, apart from or over one of their factors.
    fn run(tier: Tier, gate: &[f32], up: &[f32], over: usize) -> Vec<f32> {
        let mut lines = [vec![7.0; gate.len() + 1], gate.to_vec(), up.to_vec()];
        let [apart, gate, up] = &mut lines;
        let n = gate.len() as u64;
        let out = [apart.as_mut_ptr(), gate.as_mut_ptr(), up.as_mut_ptr()][over];
        // SAFETY: all have `n` elements and the tier is available.
        unsafe { routine(tier)(out, gate.as_ptr(), up.as_ptr(), n) };
        assert_eq!(apart[gate.len()], 7.0, "{tier}: written past the end");
        lines[over][..n as usize].to_vec()
    }

    #[test]
    fn close_to_f64_for_any_length_and_in_place() {
        let mut numbers = Numbers::new(5);
        for tier in crate::tiers::tests::available() {
            for n in [0, 1, 3, 4, 7, 8, 15, 16, 17, 33, 64, 200] {
                let gate: Vec<f32> = (0..n).map(|_| 30.0 * numbers.real()).collect();
                let up: Vec<f32> = (0..n).map(|_| numbers.real()).collect();
                let got = run(tier, &gate, &up, 0);
                for i in 0..n {
                    let (g, u) = (f64::from(gate[i]), f64::from(up[i]));
                    let want = g / (1.0 + (-g).exp()) * u;
                    // Four roundings and the error of the exponential.
                    assert!(
                        (f64::from(got[i]) - want).abs() <= 4e-7 * want.abs(),
                        "{tier}: silu({g})·{u} = {}",
                        got[i]
                    );
                }
                assert_eq!(run(tier, &gate, &up, 1), got, "{tier}: over the gate");
                assert_eq!(run(tier, &gate, &up, 2), got, "{tier}: over the other factor");
                let mut narrow = vec![7; n + 1];
                // SAFETY: all have `n` elements and the tier is available.
                unsafe { rounded::routine(tier)(narrow.as_mut_ptr(), gate.as_ptr(), up.as_ptr(), n as u64) };
                assert_eq!(narrow.pop(), Some(7), "{tier}: written past the end");
                let want: Vec<u16> = got.iter().map(|x| half::bf16::from_f32(*x).to_bits()).collect();
                assert_eq!(narrow, want, "{tier}: rounded");
            }
        }
    }

    #[test]
    fn limits() {
        let gate = [0.0, -0.0, 100.0, -100.0, f32::INFINITY, f32::NAN, 1.0];
        let up = [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, f32::NAN];
        for tier in crate::tiers::tests::available() {
            let got = run(tier, &gate, &up, 0);
            assert_eq!(got[..5], [0.0, -0.0, 200.0, 0.0, f32::INFINITY], "{tier}");
            assert!(got[5].is_nan() && got[6].is_nan(), "{tier}");
        }
    }
}
