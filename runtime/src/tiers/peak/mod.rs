//! The peak of each kind of arithmetic: independent chains in registers, nothing loaded.

#[cfg(target_arch = "x86_64")]
mod x86;

use super::{Kernel, Simd, Tier};
use std::hint::black_box;

/// A kind of arithmetic whose peak can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32 multiply-add in a tier's vectors; separate multiplications and additions in the portable one.
    F32(Tier),
    /// f32 fused multiply-add in 128-bit vectors: what compiled row kernels use where the machine has it.
    F32Fused128,
    /// Pairs of bf16 multiplied and added to f32, 512 bits: `vdpbf16ps`.
    Bf16Pairs,
    /// Fours of int8 multiplied and added to int32, 512 bits: `vpdpbusd`.
    Int8Fours,
    /// Tiles of bf16: AMX.
    Bf16Tiles,
    /// Tiles of int8: AMX.
    Int8Tiles,
}

impl Arithmetic {
    /// Every kind, slowest first.
    pub const ALL: [Arithmetic; 8] = [
        Arithmetic::F32(Tier::Portable),
        Arithmetic::F32Fused128,
        Arithmetic::F32(Tier::Avx2),
        Arithmetic::F32(Tier::Avx512),
        Arithmetic::Bf16Pairs,
        Arithmetic::Int8Fours,
        Arithmetic::Bf16Tiles,
        Arithmetic::Int8Tiles,
    ];

    /// `f32 avx512`, `bf16 amx`, …
    pub const fn name(self) -> &'static str {
        match self {
            Arithmetic::F32(Tier::Portable) => "f32 portable",
            Arithmetic::F32(Tier::Avx2) => "f32 avx2",
            Arithmetic::F32(_) => "f32 avx512",
            Arithmetic::F32Fused128 => "f32 fma128",
            Arithmetic::Bf16Pairs => "bf16 avx512",
            Arithmetic::Int8Fours => "int8 avx512",
            Arithmetic::Bf16Tiles => "bf16 amx",
            Arithmetic::Int8Tiles => "int8 amx",
        }
    }

    /// Whether this machine and its system have it.
    pub fn available(self) -> bool {
        match self {
            Arithmetic::F32(tier) => tier.available(),
            #[cfg(target_arch = "x86_64")]
            other => x86::available(other),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Does a number of rounds on the calling thread; gives how many operations those were (a multiply-add is two).
    ///
    /// # Panics
    /// If it is not available.
    pub fn work(self, rounds: usize) -> f64 {
        assert!(self.available(), "this machine has no {}", self.name());
        let each = match self {
            Arithmetic::F32(tier) => {
                // SAFETY: the tier is available.
                black_box(unsafe { tier.dispatch(Chains(rounds)) });
                CHAINS * tier.lanes() * 2
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: it is available.
            other => unsafe { x86::work(other, rounds) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => 0,
        };
        each as f64 * rounds as f64
    }
}

/// Independent chains: enough to hide the latency of two units, few enough for sixteen registers.
const CHAINS: usize = 12;

/// Rounds of one multiply-add on each chain.
struct Chains(usize);

impl Kernel for Chains {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        // SAFETY: the caller vouches for the instruction set; nothing is loaded.
        unsafe {
            let (a, b) = (S::splat(black_box(0.999)), S::splat(black_box(0.001)));
            let mut sums = [S::splat(black_box(1.0)); CHAINS];
            for _ in 0..self.0 {
                let mut i = 0;
                while i < CHAINS {
                    sums[i] = S::fma(sums[i], a, b);
                    i += 1;
                }
            }
            let mut sum = S::zero();
            let mut i = 0;
            while i < CHAINS {
                sum = S::add(sum, sums[i]);
                i += 1;
            }
            S::sum(sum)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_is_there_works() {
        for kind in Arithmetic::ALL {
            if kind.available() {
                assert!(kind.work(3) > 0.0, "{}", kind.name());
            } else {
                eprintln!("skipped: this machine has no {}", kind.name());
            }
        }
        assert_eq!(Arithmetic::F32(Tier::Portable).work(10), 10.0 * 12.0 * 4.0 * 2.0);
    }
}
