//! Activations times a packed weight: `out[m, n] = Σ_k a[m, k] · w[n, k]`, f32 activations and accumulation.
//!
//! Every result is one chain of multiplications and additions in the order of the inputs, whichever kernel computes it.
//! So it depends neither on the number of threads nor on how many rows the step has.

mod block;
mod pack;
mod stream;
pub(crate) mod weights;

use crate::pool::Worker;
use crate::strided::View;
use crate::tiers::Tier;
use llamac_formats::program::{KernelArgs, Tile};
use llamac_formats::{DType, PANEL_WIDTH};
use pack::RowBlocks;
use weights::panel_bytes;

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
        /// Whether the same columns of every segment come in one tile; all segments then have the same `n`.
        paired: bool,
    },
}

/// One GEMM. Every worker passes the same values (but for the epilogue's scratch).
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

/// Rows above which panels are widened into a buffer. Below it the weights' way from memory takes longer than widening
/// them again for every dozen rows.
const STREAM_ROWS: usize = 24;

/// The most rows of a task that has many: their sums stay in the second-level cache.
const TASK_ROWS: usize = 512;

/// Panels of a task that has many rows.
const TASK_PANELS: usize = 4;

/// f32 elements of a cache line, at which the scratch begins: vectors across two lines are loaded twice.
const ALIGN: usize = 16;

/// The most panels of a task that has few rows.
const STREAM_PANELS: usize = 16;

/// f32 elements of private scratch that a thread needs for [`gemm`] with at most `m` rows and this many segments.
pub fn thread_scratch(m: usize, segments: usize) -> usize {
    let segments = segments.max(1);
    let stream = segments * stream::MAX_ROWS * stream::MAX_PANELS * PANEL_WIDTH;
    let panels = segments * panels_per_segment(segments);
    let block = panels * PANEL_WIDTH * (block::DEPTH + rows_of_sums(m));
    let elements = if m > STREAM_ROWS { stream.max(block) } else { stream };
    elements + ALIGN
}

/// The most rows that a task of a step with `m` rows may have: tasks are whole blocks.
fn rows_of_sums(m: usize) -> usize {
    m.min(TASK_ROWS + 2 * block::MAX_ROWS)
}

/// Panels of each segment in a task that has many rows and this many segments in its tiles; even, because register
/// tiles are two panels wide.
fn panels_per_segment(segments: usize) -> usize {
    (TASK_PANELS / segments).max(2)
}

/// A rectangle of columns: the same panels of one or more segments.
#[derive(Clone, Copy)]
struct Columns<'a> {
    segments: &'a [Segment],
    /// Panels, within each segment.
    begin: usize,
    end: usize,
    /// The column of the first segment's first panel, over the concatenation of segments.
    origin: usize,
}

impl Columns<'_> {
    /// The columns of panels `begin..end`, without those that only fill the last panel.
    fn range(&self, begin: usize, end: usize) -> (usize, usize) {
        let n = self.segments[0].n;
        (self.origin + begin * PANEL_WIDTH, self.origin + n.min(end * PANEL_WIDTH))
    }
}

impl<'a> GemmArgs<'a> {
    /// Segments that a tile holds.
    fn tile_segments(&self) -> usize {
        match self.output {
            Output::Epilogue { paired: true, .. } => self.segments.len(),
            _ => 1,
        }
    }

    /// How many tasks the columns make, at `panels` panels of a segment each.
    fn column_tasks(&self, panels: usize) -> usize {
        let of = |s: &Segment| s.n.div_ceil(PANEL_WIDTH).div_ceil(panels);
        self.segments.chunks(self.tile_segments()).map(|tile| of(&tile[0])).sum()
    }

    /// The columns of one of them.
    fn columns(&self, panels: usize, mut task: usize) -> Columns<'a> {
        let mut origin = 0;
        for tile in self.segments.chunks(self.tile_segments()) {
            let all = tile[0].n.div_ceil(PANEL_WIDTH);
            let tasks = all.div_ceil(panels);
            if task < tasks {
                let begin = task * panels;
                return Columns { segments: tile, begin, end: (begin + panels).min(all), origin };
            }
            task -= tasks;
            origin += tile[0].n;
        }
        unreachable!("a task beyond the last column")
    }

    /// Address of a panel, and bytes from it to the next of its segment.
    ///
    /// # Safety
    /// The panel must exist.
    unsafe fn panel(&self, segment: &Segment, panel: usize) -> (*const u8, usize) {
        let bytes = panel_bytes(segment.dtype, self.k);
        // SAFETY: the caller vouches for the panel.
        (unsafe { segment.panels.add((segment.first + panel * segment.step) * bytes) }, segment.step * bytes)
    }

    /// Hands finished sums on.
    ///
    /// # Safety
    /// The tile must be valid; the output must have its rows and columns.
    unsafe fn emit(&self, tile: &Tile) {
        match self.output {
            // SAFETY: the caller vouches for the tile, whoever made the arguments for the kernel.
            Output::Epilogue { kernel, args, .. } => unsafe { kernel(args, tile) },
            Output::Rows { out, stride } => {
                let columns = (tile.col_end - tile.col_begin) as usize;
                for row in tile.row_begin..tile.row_end {
                    // SAFETY: the caller vouches for the tile and the output.
                    unsafe {
                        let from = tile.acc.add((row - tile.row_begin) as usize * tile.row_stride as usize);
                        let to = out.add(row as usize * stride + tile.col_begin as usize);
                        std::ptr::copy_nonoverlapping(from, to, columns);
                    }
                }
            }
        }
    }
}

/// Computes one GEMM together with the other workers of a run. The workers meet inside where `m > 1`;
/// the results are complete after the next barrier.
///
/// # Safety
/// The machine must have the tier. All addresses must be valid for the sizes given, on every worker, until the next
/// barrier; outputs must not overlap inputs.
///
/// # Panics
/// If `scratch` is shorter than [`thread_scratch`] says.
pub unsafe fn gemm(worker: &Worker, args: &GemmArgs, scratch: &mut [f32]) {
    if args.m == 0 || args.segments.is_empty() {
        return;
    }
    assert!(scratch.len() >= thread_scratch(args.m, args.tile_segments()), "the scratch is too small for the step");
    // Without inputs there is no block to widen, and the sums are 0.
    let few = args.m <= STREAM_ROWS || args.k == 0;
    let most = if few { stream::rows_of(args.tier) } else { block::rows_of(args.tier) };
    let blocks = RowBlocks::new(args.m, most);
    let scratch = scratch.as_mut_ptr().wrapping_add(scratch.as_ptr().align_offset(4 * ALIGN));
    // SAFETY: the caller vouches for the operands.
    unsafe {
        let mut a = args.a.at([0, 0]).cast_const();
        if args.m > 1 {
            pack::pack(worker, &args.a, args.k, blocks, args.packed);
            worker.barrier();
            a = args.packed;
        }
        if few {
            few_rows(worker, args, a, blocks, scratch);
        } else {
            many_rows(worker, args, a, blocks, scratch);
        }
    }
}

/// Streams the panels of each task past all rows.
///
/// # Safety
/// As [`gemm`]; `a` are the rows in blocks.
unsafe fn few_rows(worker: &Worker, args: &GemmArgs, a: *const f32, blocks: RowBlocks, scratch: *mut f32) {
    // A task is small enough to spread, and large enough for its panels to be one long read.
    let panels = (args.column_tasks(1) / (worker.threads() * 4)).clamp(1, STREAM_PANELS);
    worker.share(args.column_tasks(panels), |task| {
        let columns = args.columns(panels, task);
        let mut begin = columns.begin;
        while begin < columns.end {
            let widest = stream::panels_of(args.tier, blocks.rows);
            let width = if columns.end - begin >= widest { widest } else { 1 };
            let (col_begin, col_end) = columns.range(begin, begin + width);
            let row_stride = width * PANEL_WIDTH;
            for block in 0..blocks.count() {
                let (row, rows) = blocks.block(block);
                for (s, segment) in columns.segments.iter().enumerate() {
                    // SAFETY: the caller vouches for the operands; the sums of all segments fit the scratch.
                    unsafe {
                        let (at, panel_step) = args.panel(segment, begin);
                        let a = a.add(row * args.k);
                        let out = scratch.add(s * rows * row_stride);
                        let pass = stream::Pass { a, k: args.k, panels: at, panel_step, out, row_stride };
                        stream::stream(args.tier, segment.dtype, rows, width, pass);
                    }
                }
                let tile = Tile {
                    acc: scratch,
                    row_begin: row as u64,
                    row_end: (row + rows) as u64,
                    col_begin: col_begin as u64,
                    col_end: col_end as u64,
                    row_stride: row_stride as u64,
                    segment_stride: segment_stride(columns.segments, rows * row_stride),
                };
                // SAFETY: the kernels have filled the tile.
                unsafe { args.emit(&tile) };
            }
            begin += width;
        }
    });
}

/// Widens the panels of each task block by block, and multiplies each block with all rows of the task.
///
/// # Safety
/// As [`gemm`]; `a` are the rows in blocks.
unsafe fn many_rows(worker: &Worker, args: &GemmArgs, a: *const f32, blocks: RowBlocks, scratch: *mut f32) {
    let each = panels_per_segment(args.tile_segments());
    let row_stride = each * PANEL_WIDTH;
    let column_tasks = args.column_tasks(each);
    let task_blocks = blocks.count().div_ceil(args.m.div_ceil(TASK_ROWS));
    let row_tasks = blocks.count().div_ceil(task_blocks);
    let wide = block::panels_of(args.tier);
    worker.share(row_tasks * column_tasks, |task| {
        let columns = args.columns(each, task % column_tasks);
        let first = task / column_tasks * task_blocks;
        let last = (first + task_blocks).min(blocks.count());
        let (first_row, _) = blocks.block(first);
        let count = columns.end - columns.begin;
        let sums_of_segment = rows_of_sums(args.m) * row_stride;
        // SAFETY: the scratch holds the sums of all segments and, after them, their panels.
        let widened = unsafe { scratch.add(columns.segments.len() * sums_of_segment) };
        for k in (0..args.k).step_by(block::DEPTH) {
            let depth = block::DEPTH.min(args.k - k);
            for (s, segment) in columns.segments.iter().enumerate() {
                let mut panel = 0;
                let mut from = [std::ptr::null(); TASK_PANELS];
                while panel < count {
                    // SAFETY: the caller vouches for the panels; each has its room in the scratch.
                    unsafe {
                        let (at, _) = args.panel(segment, columns.begin + panel);
                        let room = widened.add((s * each + panel) * block::DEPTH * PANEL_WIDTH);
                        from[panel] = block::widen(args.tier, segment.dtype, at, k, depth, room);
                    }
                    panel += 1;
                }
                for block in first..last {
                    let (row, rows) = blocks.block(block);
                    let mut panel = 0;
                    while panel < count {
                        let width = wide.min(count - panel);
                        // SAFETY: the caller vouches for the rows; sums and panels lie in the scratch.
                        unsafe {
                            let b = from[panel];
                            let sums = scratch.add(s * sums_of_segment + (row - first_row) * row_stride);
                            let a = a.add(row * args.k + k * rows);
                            let tile = block::Tile {
                                a,
                                b,
                                panel_step: if width > 1 { from[panel + 1].offset_from(b) as usize } else { 0 },
                                depth,
                                sums: sums.add(panel * PANEL_WIDTH),
                                row_stride,
                                fresh: k == 0,
                                next: a.wrapping_add(args.k * rows).cast(),
                            };
                            block::multiply(args.tier, rows, width, tile);
                        }
                        panel += width;
                    }
                }
            }
        }
        let (col_begin, col_end) = columns.range(columns.begin, columns.end);
        for block in first..last {
            let (row, rows) = blocks.block(block);
            let tile = Tile {
                // SAFETY: the sums of the task's rows lie in the scratch.
                acc: unsafe { scratch.add((row - first_row) * row_stride) },
                row_begin: row as u64,
                row_end: (row + rows) as u64,
                col_begin: col_begin as u64,
                col_end: col_end as u64,
                row_stride: row_stride as u64,
                segment_stride: segment_stride(columns.segments, sums_of_segment),
            };
            // SAFETY: the kernels have filled the tile.
            unsafe { args.emit(&tile) };
        }
    });
}

/// A tile's segment stride: 0 where it holds one segment.
fn segment_stride(segments: &[Segment], stride: usize) -> u64 {
    if segments.len() > 1 { stride as u64 } else { 0 }
}

#[cfg(test)]
mod tests;
