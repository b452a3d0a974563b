//! Rows of a packed weight, widened to f32.

use crate::pool::Worker;
use llamac_formats::{DType, PANEL_WIDTH, PanelLayout};

/// `out[i, :] = f32(weight[ids[i], :])`. Every worker passes the same values.
#[derive(Clone, Copy, Debug)]
pub struct GatherArgs {
    /// The packed weight's first byte.
    pub panels: *const u8,
    /// Its element type: f32, f16, bf16 or a block format.
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

/// Elements of a row that a task copies: the elements of one row lie a cache line apart, so even one row is worth
/// dividing. Whole blocks.
const PIECE: usize = 512;

/// Gathers together with the other workers of a run; complete after the next barrier.
///
/// # Safety
/// All addresses must be valid for the sizes given and every id within the weight's rows.
pub unsafe fn gather(worker: &Worker, args: &GatherArgs) {
    let layout = PanelLayout { dtype: args.dtype, k: args.width };
    let pieces = args.width.div_ceil(PIECE);
    worker.share(args.count * pieces, |task| {
        let (i, begin) = (task / pieces, task % pieces * PIECE);
        let end = (begin + PIECE).min(args.width);
        // SAFETY: the caller vouches for the ids, the panels and the output.
        unsafe {
            let row = *args.ids.add(i) as usize;
            let bytes = layout.panel_bytes();
            let panel = std::slice::from_raw_parts(args.panels.add(row / PANEL_WIDTH * bytes), bytes);
            let out = std::slice::from_raw_parts_mut(args.out.add(i * args.width + begin), end - begin);
            layout.decode_row(row % PANEL_WIDTH, panel, begin..end, out);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;
    use crate::testing::{Buffer, Matrix, Numbers, bits};
    use llamac_formats::BlockFormat;

    #[test]
    fn rows_come_back_to_the_bit() {
        let mut numbers = Numbers::new(1);
        let blocks = BlockFormat::ALL.map(|format| (DType::Block(format), [format.elements(), 768]));
        let scalars = [DType::F32, DType::F16, DType::BF16].map(|dtype| [(dtype, [1, 7]), (dtype, [512, 1025])]);
        for (dtype, widths) in scalars.into_iter().flatten().chain(blocks) {
            for width in widths {
                let matrix = Matrix::new(dtype, 43, width, &mut numbers);
                let ids = [42i32, 0, 15, 16, 16, 31];
                let want: Vec<f32> = ids.iter().flat_map(|i| matrix.row(*i as usize).to_vec()).collect();
                for threads in 1..=3 {
                    let out = Buffer::new(ids.len() * width);
                    let (panels, ids) = (matrix.panels() as usize, ids.as_ptr() as usize);
                    Pool::new(threads).unwrap().run(&|worker| {
                        let (panels, ids) = (panels as *const u8, ids as *const i32);
                        let args = GatherArgs { panels, dtype, width, ids, count: 6, out: out.get() };
                        // SAFETY: the ids are rows of the matrix; the output has room.
                        unsafe { gather(worker, &args) };
                    });
                    assert_eq!(bits(&out.values()), bits(&want), "{dtype} {width}");
                }
            }
        }
    }
}
