//! A contraction of two strided operands.

use crate::strided::View;
use crate::tiers::Tier;
use crate::pool::Worker;

/// The most batch axes.
pub const BATCH_AXES: usize = 4;

/// `out[b…, m, n] = Σ_k lhs[b…, m, k] · rhs[b…, n, k]`. Every worker passes the same values.
#[derive(Clone, Copy, Debug)]
pub struct DotArgs {
    /// The instruction set.
    pub tier: Tier,
    /// Sizes of the batch axes, outermost first; 1 for those that are not used.
    pub batch: [usize; BATCH_AXES],
    /// Rows.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// Contraction length.
    pub k: usize,
    /// Axes (batch × 4, m, k).
    pub lhs: View<6>,
    /// Axes (batch × 4, n, k).
    pub rhs: View<6>,
    /// Axes (batch × 4, m, n).
    pub out: View<6>,
}

/// Computes one dot together with the other workers of a run; complete after the next barrier.
///
/// # Safety
/// All addresses must be valid for the sizes given, on every worker, until the next barrier; `out` overlaps no operand.
pub unsafe fn dot(worker: &Worker, args: &DotArgs) {
    let _ = (worker, args);
    unimplemented!()
}
