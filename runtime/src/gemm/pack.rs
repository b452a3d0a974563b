//! Activations as f32 in blocks of rows, `[block][k][rows]`, so that a kernel reads them in one stream.

use super::GemmArgs;
use crate::pool::Worker;
use half::bf16;
use llamac_formats::{DType, q8};

/// How `m` rows are cut into blocks whose heights differ by one row at most.
#[derive(Clone, Copy)]
pub(super) struct RowBlocks {
    m: usize,
    count: usize,
}

impl RowBlocks {
    /// As few blocks of at most `most` rows as hold `m ≥ 1` rows.
    pub(super) fn new(m: usize, most: usize) -> RowBlocks {
        RowBlocks { m, count: m.div_ceil(most) }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The rows of the tallest.
    pub(super) fn rows(&self) -> usize {
        self.m.div_ceil(self.count)
    }

    /// The first row of a block, or past the last one of all where `i` is their number.
    pub(super) fn begin(&self, i: usize) -> usize {
        i * self.m / self.count
    }

    /// The first row of a block and how many it has.
    pub(super) fn block(&self, i: usize) -> (usize, usize) {
        let begin = self.begin(i);
        (begin, self.begin(i + 1) - begin)
    }
}

/// Inputs that a task packs.
const DEPTH: usize = 512;

/// Inputs that are read from one row before the next row's turn: two cache lines of f32, or a block.
const LINE: usize = 32;

/// Widens `out.len()` elements of a row from input `first` on (a whole number of blocks).
///
/// # Safety
/// The row must hold the elements; the type must be f32, bf16 or q8.
pub(super) unsafe fn widen(act: DType, row: *const u8, first: usize, out: &mut [f32]) {
    match act {
        DType::F32 => {
            for (i, out) in out.iter_mut().enumerate() {
                // SAFETY: the caller vouches for the elements.
                *out = unsafe { *row.cast::<f32>().add(first + i) };
            }
        }
        DType::BF16 => {
            for (i, out) in out.iter_mut().enumerate() {
                // SAFETY: the caller vouches for the elements.
                *out = bf16::from_bits(unsafe { *row.cast::<u16>().add(first + i) }).to_f32();
            }
        }
        _ => {
            for (i, out) in out.chunks_mut(q8::ELEMENTS).enumerate() {
                let at = (first / q8::ELEMENTS + i) * q8::BYTES;
                // SAFETY: the caller vouches for the elements.
                let block = unsafe { &*row.add(at).cast::<[u8; q8::BYTES]>() };
                out.copy_from_slice(&q8::decode(block)[..out.len()]);
            }
        }
    }
}

/// Packs all rows together with the other workers; complete after the next barrier.
///
/// # Safety
/// As [`super::gemm`]: the activations must be there, and room for as many f32.
pub(super) unsafe fn pack(worker: &Worker, args: &GemmArgs, blocks: RowBlocks) {
    let (k, to) = (args.k, args.packed);
    let depths = k.div_ceil(DEPTH);
    worker.share(blocks.count() * depths, |task| {
        let (begin, rows) = blocks.block(task / depths);
        let first = task % depths * DEPTH;
        let last = (first + DEPTH).min(k);
        for line in (first..last).step_by(LINE) {
            let mut values = [0.0; LINE];
            let values = &mut values[..LINE.min(last - line)];
            for r in 0..rows {
                // SAFETY: the caller vouches for the rows and the room at `to`.
                unsafe {
                    widen(args.act, args.row(begin + r), line, values);
                    let to = to.add(begin * k + line * rows + r);
                    for (i, value) in values.iter().enumerate() {
                        *to.add(i * rows) = *value;
                    }
                }
            }
        }
    });
}
