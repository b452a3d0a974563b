//! The runtime's routines that compiled kernels may call.

use crate::tiers::Tier;
use crate::{exp, quantise};
use llamac_formats::program::Routine;

/// The routine table of a tier: `KernelArgs::routines` points at its first element, which is indexed by `Routine`.
pub fn routines(tier: Tier) -> [usize; 2] {
    let mut table = [0; 2];
    table[Routine::Exp as usize] = exp::routine(tier) as usize;
    table[Routine::QuantizeQ8 as usize] = quantise::routine(tier) as usize;
    table
}
