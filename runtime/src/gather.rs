//! Rows of a packed weight, widened to f32.

use crate::pool::Worker;
use llamac_formats::DType;

/// `out[i, :] = f32(weight[ids[i], :])`. Every worker passes the same values.
#[derive(Clone, Copy, Debug)]
pub struct GatherArgs {
    /// The packed weight's first byte.
    pub panels: *const u8,
    /// Its element type: f32, f16 or bf16.
    pub dtype: DType,
    /// Width of a row (the inputs K of the packed matrix).
    pub width: usize,
    /// `i32[count]`, all within the weight's rows.
    pub ids: *const i32,
    /// How many rows.
    pub count: usize,
    /// Row-major f32 `[count, width]`.
    pub out: *mut f32,
}

/// Gathers together with the other workers of a run; complete after the next barrier.
///
/// # Safety
/// All addresses must be valid for the sizes given and every id within the weight's rows.
pub unsafe fn gather(worker: &Worker, args: &GatherArgs) {
    let _ = (worker, args);
    unimplemented!()
}
