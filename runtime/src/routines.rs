//! The runtime's routines that compiled kernels may call.

use crate::tiers::Tier;
use crate::{exp, gate, narrow, quantise};
use llamac_formats::program::Routine;

/// The routine table of a tier: `KernelArgs::routines` points at its first element, which is indexed by `Routine`.
pub fn routines(tier: Tier) -> [usize; Routine::COUNT] {
    let mut table = [0; Routine::COUNT];
    table[Routine::Exp as usize] = exp::routine(tier) as usize;
    table[Routine::QuantizeQ8 as usize] = quantise::routine(tier) as usize;
    table[Routine::SiluMul as usize] = gate::routine(tier) as usize;
    table[Routine::RoundBf16 as usize] = narrow::routine(tier) as usize;
    table
}
