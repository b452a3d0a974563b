//! The runtime's routines that compiled kernels may call.

use crate::tiers::Tier;
use crate::{exp, gate, narrow, quantise};
use llamac_formats::program::Routine;

/// A routine of the table: its type, a function for each instruction set that runs the [`Kernel`](crate::tiers::Kernel) compiled for it, and
/// `routine`, which picks one.
macro_rules! routine {
    ($(#[$doc:meta])* $routine:ident($($name:ident: $of:ty),*) => $kernel:expr) => {
        $(#[$doc])*
        pub type $routine = unsafe extern "C" fn($($name: $of),*);

        /// # Safety
        /// As the routine asks in the contract.
        unsafe extern "C" fn portable($($name: $of),*) {
            // SAFETY: every machine has the tier; the caller vouches for the rest.
            unsafe { $crate::tiers::Tier::Portable.dispatch($kernel) }
        }

        /// # Safety
        /// As [`portable`], and the machine must have AVX2.
        unsafe extern "C" fn avx2($($name: $of),*) {
            // SAFETY: the caller vouches for it.
            unsafe { $crate::tiers::Tier::Avx2.dispatch($kernel) }
        }

        /// # Safety
        /// As [`portable`], and the machine must have AVX-512.
        unsafe extern "C" fn avx512($($name: $of),*) {
            // SAFETY: the caller vouches for it.
            unsafe { $crate::tiers::Tier::Avx512.dispatch($kernel) }
        }

        /// The routine of a tier. It may be called only on a machine that has the tier.
        pub fn routine(tier: $crate::tiers::Tier) -> $routine {
            use $crate::tiers::Tier;
            match tier {
                Tier::Portable => portable,
                Tier::Avx2 => avx2,
                Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512,
            }
        }
    };
}
pub(crate) use routine;

/// The routine table of a tier: `KernelArgs::routines` points at its first element, which is indexed by `Routine`.
pub fn routines(tier: Tier) -> [usize; Routine::COUNT] {
    let mut table = [0; Routine::COUNT];
    table[Routine::Exp as usize] = exp::routine(tier) as usize;
    table[Routine::QuantizeQ8 as usize] = quantise::routine(tier) as usize;
    table[Routine::SiluMul as usize] = gate::routine(tier) as usize;
    table[Routine::RoundBf16 as usize] = narrow::routine(tier) as usize;
    table[Routine::SiluMulBf16 as usize] = gate::rounded::routine(tier) as usize;
    table
}
