//! Activations to bf16: the routine `Routine::RoundBf16`.
//!
//! To nearest, ties to even, by integer arithmetic that all machines do alike: all tiers equal each other to the bit, subnormals
//! too. What the machines' own conversions make of subnormals is 0.

use crate::quantise::INFINITE;
use crate::routines::routine;
use crate::tiers::{Kernel, Simd};

/// Rounds a line.
pub(crate) struct Round {
    pub(crate) out: *mut u16,
    pub(crate) input: *const f32,
    pub(crate) n: usize,
}

impl Kernel for Round {
    type Output = ();

    /// Plain loops: compilers turn them into the vectors of each instruction set.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller vouches for `n` elements at both addresses, which do not overlap.
        let (out, input) = unsafe {
            (std::slice::from_raw_parts_mut(self.out, self.n), std::slice::from_raw_parts(self.input, self.n))
        };
        for (out, x) in out.iter_mut().zip(input) {
            let bits = x.to_bits();
            let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
            // A quiet one, so that no lower bits are needed.
            let none = bits | 0x0040_0000;
            *out = (if bits & 0x7fff_ffff > INFINITE { none } else { nearest } >> 16) as u16;
        }
    }
}

routine! {
    /// The type of the routine `Routine::RoundBf16`.
    RoundRoutine(out: *mut u16, input: *const f32, n: u64) => Round { out, input, n: n as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_equals_the_codec_to_the_bit() {
        // Every 397th f32 of either sign, halves between two bf16, and what is no number.
        let every = (0..=u32::MAX).step_by(397);
        let halves = (0..1u32 << 16).map(|high| high << 16 | 0x8000);
        let bits: Vec<u32> = every.chain(halves).chain([0x7f80_0001, 0xffff_ffff, 0x7fbf_ffff]).collect();
        let x: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
        let want: Vec<u16> = x.iter().map(|x| half::bf16::from_f32(*x).to_bits()).collect();
        for tier in crate::tiers::tests::available() {
            for n in [0, 1, 15, 33, x.len()] {
                let mut got = vec![0x5a5a; x.len() + 1];
                // SAFETY: both have `n` elements and the tier is available.
                unsafe { routine(tier)(got.as_mut_ptr(), x.as_ptr(), n as u64) };
                assert!(got[..n] == want[..n], "{tier}: {n} elements");
                assert!(got[n..].iter().all(|x| *x == 0x5a5a), "{tier}: written past the end");
            }
        }
    }
}
