//! A contraction of two strided operands: a dot whose right side is no packed weight.
//!
//! Two layouts have kernels: contiguous inputs on both sides (scores: queries times keys) and contiguous columns
//! (probabilities times values), also with the sides exchanged. Everything else is computed element by element.

mod kernels;

use crate::pool::Worker;
use crate::strided::View;
use crate::tiers::Tier;
use kernels::{MAX_ROWS, columns, inputs};

/// The most batch axes.
pub const BATCH_AXES: usize = 4;

/// Axes of an operand: batch, then (m, k), (n, k) or (m, n).
const AXES: usize = BATCH_AXES + 2;
const ROW: usize = BATCH_AXES;
const COLUMN: usize = BATCH_AXES + 1;

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

/// Rows of a task.
const TASK_ROWS: usize = 16;

/// Columns of a task.
const TASK_COLUMNS: usize = 256;

/// Which kernel fits the layout.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Inputs are contiguous on both sides.
    Inputs,
    /// Columns are contiguous in the right side and the output.
    Columns,
    /// Anything else.
    Any,
}

impl DotArgs {
    fn layout(&self) -> Layout {
        let contiguous = |view: &View<AXES>, axis: usize| view.strides[axis] == 1 && view.is_plain(axis);
        if contiguous(&self.rhs, ROW) && contiguous(&self.out, COLUMN) && self.rhs.is_plain(COLUMN) {
            if self.lhs.is_plain(COLUMN) { Layout::Columns } else { Layout::Any }
        } else if contiguous(&self.lhs, COLUMN) && contiguous(&self.rhs, COLUMN) {
            Layout::Inputs
        } else {
            Layout::Any
        }
    }

    /// The same dot with its sides exchanged.
    fn exchanged(&self) -> DotArgs {
        let mut out = self.out;
        out.strides.swap(ROW, COLUMN);
        for fetch in out.indirects.iter_mut().flatten() {
            fetch.strides.swap(ROW, COLUMN);
        }
        DotArgs { m: self.n, n: self.m, lhs: self.rhs, rhs: self.lhs, out, ..*self }
    }
}

/// Computes one dot together with the other workers of a run; complete after the next barrier.
///
/// # Safety
/// The machine must have the tier. All addresses must be valid for the sizes given, on every worker, until the next
/// barrier; `out` overlaps no operand.
pub unsafe fn dot(worker: &Worker, args: &DotArgs) {
    let mut args = *args;
    let mut layout = args.layout();
    if layout == Layout::Any {
        let exchanged = args.exchanged();
        if exchanged.layout() == Layout::Columns {
            (args, layout) = (exchanged, Layout::Columns);
        }
    }
    let row_tasks = args.m.div_ceil(TASK_ROWS);
    let column_tasks = args.n.div_ceil(TASK_COLUMNS);
    let batches: usize = args.batch.iter().product();
    worker.share(batches * row_tasks * column_tasks, |task| {
        let m = task / column_tasks % row_tasks * TASK_ROWS;
        let n = task % column_tasks * TASK_COLUMNS;
        let mut batch = task / column_tasks / row_tasks;
        let mut at = [0; AXES];
        for axis in (0..BATCH_AXES).rev() {
            at[axis] = batch % args.batch[axis];
            batch /= args.batch[axis];
        }
        let part = Part { args: &args, at, m: (m, args.m.min(m + TASK_ROWS)), n: (n, args.n.min(n + TASK_COLUMNS)) };
        // SAFETY: the caller vouches for the operands.
        unsafe {
            match layout {
                Layout::Inputs => part.inputs(),
                Layout::Columns => part.columns(),
                Layout::Any => part.any(),
            }
        }
    });
}

/// A rectangle of the output, of one batch.
struct Part<'a> {
    args: &'a DotArgs,
    /// The batch.
    at: [usize; AXES],
    m: (usize, usize),
    n: (usize, usize),
}

impl Part<'_> {
    /// The address of an element of this batch.
    ///
    /// # Safety
    /// As [`View::at`].
    unsafe fn of(&self, view: &View<AXES>, row: usize, column: usize) -> *mut f32 {
        let mut at = self.at;
        (at[ROW], at[COLUMN]) = (row, column);
        // SAFETY: the caller vouches for the element.
        unsafe { view.at(at) }
    }

    /// The rows from `row` on that go into one tile, at most `most`; a tile that is not full repeats its last row.
    ///
    /// # Safety
    /// As [`View::at`].
    unsafe fn rows<const N: usize>(&self, view: &View<AXES>, row: usize, column: usize, end: usize) -> [*mut f32; N] {
        // SAFETY: the caller vouches for the rows before `end`.
        std::array::from_fn(|i| unsafe { self.of(view, (row + i).min(end - 1), column) })
    }

    /// # Safety
    /// As [`dot`]; inputs are contiguous on both sides.
    unsafe fn inputs(&self) {
        let args = self.args;
        for m in (self.m.0..self.m.1).step_by(inputs::ROWS) {
            for n in (self.n.0..self.n.1).step_by(inputs::COLUMNS) {
                // SAFETY: the caller vouches for the operands.
                unsafe {
                    let lhs = self.rows(&args.lhs, m, 0, self.m.1);
                    let rhs = self.rows(&args.rhs, n, 0, self.n.1);
                    let sums = args.tier.dispatch(inputs::Tile { lhs, rhs, k: args.k });
                    for (i, sums) in sums.iter().enumerate().take(self.m.1 - m) {
                        for (j, sum) in sums.iter().enumerate().take(self.n.1 - n) {
                            *self.of(&args.out, m + i, n + j) = *sum;
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`dot`]; columns are contiguous in the right side and the output, and the rest is plain.
    unsafe fn columns(&self) {
        let args = self.args;
        for m in (self.m.0..self.m.1).step_by(MAX_ROWS) {
            // SAFETY: the caller vouches for the operands.
            unsafe {
                let tile = columns::Tile {
                    lhs: self.rows(&args.lhs, m, 0, self.m.1),
                    lhs_step: args.lhs.strides[COLUMN],
                    rhs: self.of(&args.rhs, self.n.0, 0),
                    rhs_step: args.rhs.strides[COLUMN],
                    out: self.rows(&args.out, m, self.n.0, self.m.1),
                    n: self.n.1 - self.n.0,
                    k: args.k,
                };
                columns::multiply(args.tier, (self.m.1 - m).min(MAX_ROWS), tile);
            }
        }
    }

    /// # Safety
    /// As [`dot`].
    unsafe fn any(&self) {
        let args = self.args;
        for m in self.m.0..self.m.1 {
            for n in self.n.0..self.n.1 {
                // SAFETY: the caller vouches for the operands.
                unsafe {
                    let mut sum = 0.0;
                    for k in 0..args.k {
                        sum += *self.of(&args.lhs, m, k) * *self.of(&args.rhs, n, k);
                    }
                    *self.of(&args.out, m, n) = sum;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
