//! Attention over a cache with a running maximum.

use crate::strided::View;
use crate::tiers::Tier;
use crate::pool::Worker;

/// Rows `row_begin..row_end` of a step, all of one slot, with ascending positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The cache slot.
    pub slot: usize,
    /// First row.
    pub row_begin: usize,
    /// Past the last row.
    pub row_end: usize,
}

/// One attention step; the cache is f32 `[slot][kv head][token][head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// The instruction set.
    pub tier: Tier,
    /// Queries, axes (row, kv head, group, head_dim); the last stride is 1.
    pub q: View<4>,
    /// Results, the same axes; the last stride is 1.
    pub out: View<4>,
    /// The key cache.
    pub keys: *const f32,
    /// The value cache.
    pub values: *const f32,
    /// Tokens that a slot of the cache has room for.
    pub tokens: usize,
    /// `i32[rows]`: each row sees the tokens `0..=position`; all are below `tokens`.
    pub positions: *const i32,
    /// The rows, grouped by slot.
    pub segments: &'a [Segment],
    /// Key-value heads.
    pub kv_heads: usize,
    /// Query heads per key-value head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Shared scratch of [`shared_scratch`] f32 elements for contexts that are split.
    pub partials: *mut f32,
}

/// f32 elements of private scratch that a thread needs for [`attention`].
pub fn thread_scratch(head_dim: usize) -> usize {
    let _ = head_dim;
    unimplemented!()
}

/// f32 elements of shared scratch that all workers of one [`attention`] together need.
///
/// `rows` is the most rows of a step, `tokens` the most tokens of a slot.
pub fn shared_scratch(rows: usize, tokens: usize, kv_heads: usize, group: usize, head_dim: usize) -> usize {
    let _ = (rows, tokens, kv_heads, group, head_dim);
    unimplemented!()
}

/// Computes one attention step together with the other workers of a run; complete after the next barrier.
///
/// # Safety
/// All addresses must be valid for the sizes given, on every worker, until the next barrier.
pub unsafe fn attention(worker: &Worker, args: &AttentionArgs, scratch: &mut [f32]) {
    let _ = (worker, args, scratch);
    unimplemented!()
}
