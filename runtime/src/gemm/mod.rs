//! Activations times a packed weight.

use crate::pool::Worker;
use crate::strided::View;
use crate::tiers::Tier;
use llamac_formats::DType;
use llamac_formats::program::{KernelArgs, Tile};

/// A compiled epilogue.
pub type EpilogueFn = unsafe extern "C" fn(*const KernelArgs, *const Tile);

/// Outputs that come from one packed weight: panel `p` of the segment is panel `first + p·step` of the weight.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The packed weight's first byte.
    pub panels: *const u8,
    /// Its element type: f32, f16 or bf16.
    pub dtype: DType,
    /// The segment's first panel.
    pub first: usize,
    /// From one panel to the next.
    pub step: usize,
    /// Outputs.
    pub n: usize,
}

/// Where the results go.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    /// Row-major f32, segment after segment of columns.
    Rows {
        /// Address of row 0, column 0.
        out: *mut f32,
        /// Elements from row to row.
        stride: usize,
    },
    /// A compiled kernel that is given each finished tile.
    Epilogue {
        /// The kernel.
        kernel: EpilogueFn,
        /// Its arguments, with the calling thread's own scratch.
        args: *const KernelArgs,
        /// Whether the same columns of every segment come in one tile.
        paired: bool,
    },
}

/// One GEMM: `out[m, n] = epilogue(Σ_k a[m, k] · w[n, k])`. Every worker passes the same values (but for the
/// epilogue's scratch).
#[derive(Clone, Copy, Debug)]
pub struct GemmArgs<'a> {
    /// The instruction set.
    pub tier: Tier,
    /// Activations, axes (m, k); the stride of k is 1 and no fetched index depends on k.
    pub a: View<2>,
    /// Rows.
    pub m: usize,
    /// Inputs.
    pub k: usize,
    /// The outputs.
    pub segments: &'a [Segment],
    /// Where they go.
    pub output: Output,
    /// Room for `m × k` packed activations, shared by the workers; unused for one row.
    pub packed: *mut f32,
}

/// f32 elements of private scratch that a thread needs for [`gemm`] with at most `m` rows and this many segments.
pub fn thread_scratch(m: usize, segments: usize) -> usize {
    let _ = (m, segments);
    unimplemented!()
}

/// Computes one GEMM together with the other workers of a run. The workers meet inside where `m > 1`;
/// the results are complete after the next barrier.
///
/// # Safety
/// All addresses must be valid for the sizes given, on every worker, until the next barrier; outputs must not overlap inputs.
pub unsafe fn gemm(worker: &Worker, args: &GemmArgs, scratch: &mut [f32]) {
    let _ = (worker, args, scratch);
    unimplemented!()
}
