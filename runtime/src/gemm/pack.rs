//! Activations in blocks of rows, `[block][k][rows]`, so that a kernel reads them in one stream.

use crate::pool::Worker;
use crate::strided::View;

/// How `m` rows are cut into blocks of `rows`, the last of which may be shorter.
#[derive(Clone, Copy)]
pub(super) struct RowBlocks {
    pub(super) m: usize,
    pub(super) rows: usize,
}

impl RowBlocks {
    /// Blocks of at most `most` rows, as equal as can be.
    pub(super) fn new(m: usize, most: usize) -> RowBlocks {
        RowBlocks { m, rows: m.div_ceil(m.div_ceil(most)) }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.m.div_ceil(self.rows)
    }

    /// The first row of a block and how many it has.
    pub(super) fn block(&self, i: usize) -> (usize, usize) {
        let begin = i * self.rows;
        (begin, self.rows.min(self.m - begin))
    }
}

/// Inputs that a task packs.
const DEPTH: usize = 512;

/// Inputs that are read from one row before the next row's turn: a cache line.
const LINE: usize = 16;

/// Packs all rows together with the other workers; complete after the next barrier.
///
/// # Safety
/// `a` must hold `m × k` elements, `to` have room for as many.
pub(super) unsafe fn pack(worker: &Worker, a: &View<2>, k: usize, blocks: RowBlocks, to: *mut f32) {
    let depths = k.div_ceil(DEPTH);
    worker.share(blocks.count() * depths, |task| {
        let (begin, rows) = blocks.block(task / depths);
        let first = task % depths * DEPTH;
        let last = (first + DEPTH).min(k);
        for line in (first..last).step_by(LINE) {
            for r in 0..rows {
                // SAFETY: the caller vouches for the rows of `a` and the room at `to`.
                unsafe {
                    let from = a.at([begin + r, 0]);
                    let to = to.add(begin * k + r);
                    for i in line..last.min(line + LINE) {
                        *to.add(i * rows) = *from.add(i);
                    }
                }
            }
        }
    });
}
