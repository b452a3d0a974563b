//! Filling panels: sixteen rows become columns.
//!
//! A block of inputs of all sixteen rows is staged first, row by row, so that memory is read in long runs and the strided
//! reads of the transposition hit the first-level cache. Pairs of bf16 inputs stay together, so a bf16 panel is the
//! transposition of 4-byte elements just as an f32 panel is.

use llamac_formats::{DType, PANEL_WIDTH};
use std::ops::Range;

/// Bytes of each row that are staged at a time.
const BLOCK_BYTES: usize = 1024;
/// Bytes between staged rows. No power of two: their columns would all fall into the same cache sets.
const STRIDE: usize = BLOCK_BYTES + 64;

/// Space for a block of inputs of sixteen rows.
pub(super) struct Staging {
    bytes: Box<[u8; PANEL_WIDTH * STRIDE]>,
    /// A row in blocks.
    row: Vec<u8>,
}

impl Staging {
    pub(super) fn new() -> Staging {
        Staging { bytes: Box::new([0; PANEL_WIDTH * STRIDE]), row: vec![] }
    }

    /// Space for a row of so many bytes. It grows to the longest row that is asked for.
    pub(super) fn row(&mut self, bytes: usize) -> &mut [u8] {
        self.row.resize(bytes.max(self.row.len()), 0);
        &mut self.row[..bytes]
    }

    /// Fills one panel of `k` inputs. `fetch(lane, inputs, out)` writes those inputs of one output, as elements of a float `dtype`,
    /// or returns false if there is no such output.
    pub(super) fn fill_panel(
        &mut self,
        dtype: DType,
        k: usize,
        panel: &mut [u8],
        mut fetch: impl FnMut(usize, Range<usize>, &mut [u8]) -> bool,
    ) {
        // A multiple of 2: no pair of bf16 inputs is cut.
        let block = BLOCK_BYTES / dtype.bytes();
        for (start, out) in (0..k).step_by(block).zip(panel.chunks_mut(PANEL_WIDTH * BLOCK_BYTES)) {
            let inputs = start..k.min(start + block);
            let bytes = inputs.len() * dtype.bytes();
            let padded = out.len() / PANEL_WIDTH;
            for (lane, row) in self.bytes.chunks_exact_mut(STRIDE).enumerate() {
                let end = if fetch(lane, inputs.clone(), &mut row[..bytes]) { bytes } else { 0 };
                row[end..padded].fill(0);
            }
            match dtype {
                DType::F16 => transpose::<2, 32>(&self.bytes, out),
                _ => transpose::<4, 16>(&self.bytes, out),
            }
        }
    }
}

/// `out[k][n] = staged[n][k]` for elements of `B` bytes, a cache line of each row (`T` elements) at a time.
fn transpose<const B: usize, const T: usize>(staged: &[u8; PANEL_WIDTH * STRIDE], out: &mut [u8]) {
    let (columns, _) = out.as_chunks_mut::<B>().0.as_chunks_mut::<PANEL_WIDTH>();
    for (tile, columns) in columns.chunks_mut(T).enumerate() {
        let rows: [&[[u8; B]]; PANEL_WIDTH] = std::array::from_fn(|n| {
            let at = n * STRIDE + tile * T * B;
            &staged[at..at + T * B].as_chunks::<B>().0[..T]
        });
        for (k, column) in columns.iter_mut().enumerate() {
            for n in 0..PANEL_WIDTH {
                column[n] = rows[n][k];
            }
        }
    }
}
