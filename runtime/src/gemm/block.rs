//! Many rows: panels are widened once, to f32 that stays in the caches, and meet tiles of packed rows there.

use super::blocks::{UnpackBlocks, with_format};
use super::pack::RowBlocks;
use super::registers::{Sums, add_products, load, store, zero};
use super::weights::{BF16, F16, Unpack, bytes_of_input, offset_of_input};
use super::{Columns, GemmArgs, Segment, segment_stride};
use crate::pool::Worker;
use crate::tiers::{Kernel, Simd, Tier};
use llamac_formats::program;
use llamac_formats::{DType, PANEL_WIDTH};
use std::marker::PhantomData;

/// The most rows of a register tile.
const MAX_ROWS: usize = 14;

/// Inputs of a block, whole groups of every format: two panels of them (32 KiB) fit the first-level cache.
const DEPTH: usize = 256;

/// The most rows of a task, but for the last block's: their sums stay in the second-level cache, with the packed rows of
/// one block of inputs.
const TASK_ROWS: usize = 512;

/// Panels of a task.
const TASK_PANELS: usize = 8;

/// Rows of a register tile, by the number of registers.
pub(super) fn rows_of(tier: Tier) -> usize {
    match tier.lanes() {
        16 => 14,
        8 => 6,
        _ => 3,
    }
}

/// Panels of a register tile.
fn panels_of(tier: Tier) -> usize {
    if tier.lanes() == 16 { 2 } else { 1 }
}

/// Panels of each segment in a task with this many segments; even, because register tiles are up to two panels wide.
fn panels_per_segment(segments: usize) -> usize {
    (TASK_PANELS / segments / 2 * 2).max(2)
}

/// The most rows that a task of a step with `m` rows may have: tasks are whole blocks.
fn rows_of_sums(m: usize) -> usize {
    m.min(TASK_ROWS + 2 * MAX_ROWS)
}

/// f32 elements of scratch for the sums and the widened panels of a task with at most `m` rows and this many segments.
pub(super) fn thread_scratch(m: usize, segments: usize) -> usize {
    // As many as the least favourable number of segments up to this one.
    let panels = TASK_PANELS.max(2 * segments);
    panels * PANEL_WIDTH * (DEPTH + rows_of_sums(m))
}

/// Widens the panels of each task block by block, and multiplies each block with all rows of the task.
///
/// # Safety
/// As [`super::gemm`]; `a` are the rows in blocks, and `scratch` holds [`thread_scratch`] elements.
pub(super) unsafe fn many_rows(worker: &Worker, args: &GemmArgs, a: *const f32, blocks: RowBlocks, scratch: *mut f32) {
    // Wide tasks read the rows less often, narrow ones spread better; no result depends on the width.
    let spread = args.column_tasks(1) / (worker.threads() * 4) / 2 * 2;
    let panels = spread.clamp(2, panels_per_segment(args.tile_segments()));
    let column_tasks = args.column_tasks(panels);
    let task_blocks = blocks.count().div_ceil(args.m.div_ceil(TASK_ROWS));
    let row_tasks = blocks.count().div_ceil(task_blocks);
    worker.share(row_tasks * column_tasks, |task| {
        let first = task / column_tasks * task_blocks;
        let columns = args.columns(panels, task % column_tasks);
        let row_stride = panels * PANEL_WIDTH;
        let sums_step = rows_of_sums(args.m) * row_stride;
        let task = Task {
            args,
            a,
            blocks,
            first,
            last: (first + task_blocks).min(blocks.count()),
            columns,
            sums: scratch,
            row_stride,
            // SAFETY: the scratch holds the sums of all segments and, after them, the panels of one.
            widened: unsafe { scratch.add(columns.segments.len() * sums_step) },
            sums_step,
        };
        // SAFETY: the caller vouches for the operands.
        unsafe { task.run() };
    });
}

/// Some blocks of rows times some panels of one or more segments.
struct Task<'a> {
    args: &'a GemmArgs<'a>,
    /// Packed rows.
    a: *const f32,
    blocks: RowBlocks,
    /// The first block of rows.
    first: usize,
    /// Past the last block of rows.
    last: usize,
    columns: Columns<'a>,
    /// The segments' sums, each `[rows][row_stride]`.
    sums: *mut f32,
    row_stride: usize,
    /// Elements from segment to segment of the sums.
    sums_step: usize,
    /// Room for a segment's widened panels.
    widened: *mut f32,
}

impl Task<'_> {
    /// # Safety
    /// As [`many_rows`].
    unsafe fn run(&self) {
        for k in (0..self.args.k).step_by(DEPTH) {
            for (s, segment) in self.columns.segments.iter().enumerate() {
                // SAFETY: the caller vouches for the operands; the sums lie in the scratch.
                unsafe { self.multiply_segment(segment, k, self.sums.add(s * self.sums_step)) };
            }
        }
        let (first_row, _) = self.blocks.block(self.first);
        let (col_begin, col_end) = self.columns.range(self.columns.begin, self.columns.end);
        for block in self.first..self.last {
            let (row, rows) = self.blocks.block(block);
            let tile = program::Tile {
                // SAFETY: the sums of the task's rows lie in the scratch.
                acc: unsafe { self.sums.add((row - first_row) * self.row_stride) },
                row_begin: row as u64,
                row_end: (row + rows) as u64,
                col_begin: col_begin as u64,
                col_end: col_end as u64,
                row_stride: self.row_stride as u64,
                segment_stride: segment_stride(self.columns.segments, self.sums_step),
            };
            // SAFETY: the kernels have filled the tile.
            unsafe { self.args.emit(&tile) };
        }
    }

    /// Adds one block of inputs, from `k` on, to the sums of a segment.
    ///
    /// # Safety
    /// As [`many_rows`]; `sums` must be those of the segment.
    unsafe fn multiply_segment(&self, segment: &Segment, k: usize, sums: *mut f32) {
        let args = self.args;
        let depth = DEPTH.min(args.k - k);
        let count = self.columns.end - self.columns.begin;
        let (first_row, _) = self.blocks.block(self.first);
        let mut from = [std::ptr::null(); TASK_PANELS];
        for (panel, from) in from.iter_mut().enumerate().take(count) {
            // SAFETY: the caller vouches for the panels; each has its room in the scratch.
            unsafe {
                let (at, _) = args.panel(segment, self.columns.begin + panel);
                *from = widen(args.tier, segment.dtype, at, k, depth, self.widened.add(panel * DEPTH * PANEL_WIDTH));
            }
        }
        // Panels outside, rows inside: the panels of a register tile stay in the first-level cache.
        let mut panel = 0;
        while panel < count {
            let width = panels_of(args.tier).min(count - panel);
            for block in self.first..self.last {
                let (row, rows) = self.blocks.block(block);
                // SAFETY: the caller vouches for the rows; sums and panels lie in the scratch.
                unsafe {
                    let a = self.a.add(row * args.k + k * rows);
                    let tile = Tile {
                        a,
                        b: from[panel],
                        panel_step: if width > 1 { from[panel + 1].offset_from(from[panel]) } else { 0 },
                        depth,
                        sums: sums.add((row - first_row) * self.row_stride + panel * PANEL_WIDTH),
                        row_stride: self.row_stride,
                        fresh: k == 0,
                        next: self.next_rows(block, k).unwrap_or((a.cast(), 0)),
                        later: if block - self.first < width && k + depth < args.k {
                            let (at, _) = args.panel(segment, self.columns.begin + panel + block - self.first);
                            (at.add(offset_of_input(segment.dtype, k + depth)), bytes_of_input(segment.dtype))
                        } else {
                            (a.cast(), 0)
                        },
                    };
                    multiply(args.tier, rows, width, tile);
                }
            }
            panel += width;
        }
    }

    /// The packed rows that follow those of a block of rows and inputs, and the bytes of one input of them.
    fn next_rows(&self, block: usize, k: usize) -> Option<(*const u8, usize)> {
        let (block, k) = if block + 1 < self.last { (block + 1, k) } else { (self.first, k + DEPTH) };
        let (row, rows) = self.blocks.block(block);
        (k < self.args.k).then(|| (self.a.wrapping_add(row * self.args.k + k * rows).cast(), 4 * rows))
    }
}

/// Where the f32 of `depth` inputs of a panel, from input `k`, are: in the panel itself, or widened into `room`.
///
/// # Safety
/// The machine must have the tier; the panel must hold the inputs; `room` must hold `depth`, rounded up to even, times
/// sixteen elements.
unsafe fn widen(tier: Tier, dtype: DType, panel: *const u8, k: usize, depth: usize, room: *mut f32) -> *const f32 {
    // SAFETY: the caller vouches for the panel and the room.
    unsafe {
        let from = panel.add(offset_of_input(dtype, k));
        match dtype {
            DType::F32 => return from.cast(),
            DType::F16 => tier.dispatch(Unpack::<F16> { weights: PhantomData, from, k: depth, to: room }),
            DType::BF16 => tier.dispatch(Unpack::<BF16> { weights: PhantomData, from, k: depth, to: room }),
            DType::Block(format) => with_format!(format, B => {
                tier.dispatch(UnpackBlocks::<B> { format: PhantomData, from, k: depth, to: room })
            }),
            DType::I32 | DType::Bool | DType::Q8 => unreachable!("{dtype} has no packed layout"),
        }
        room
    }
}

/// The operands of a register tile.
#[derive(Clone, Copy)]
struct Tile {
    /// Activations, `[depth][rows]`.
    a: *const f32,
    /// The first panel, `[depth][16]`.
    b: *const f32,
    /// Elements from panel to panel.
    panel_step: isize,
    /// Inputs.
    depth: usize,
    /// Sums, `[rows][16·panels]`.
    sums: *mut f32,
    /// Elements from row to row of the sums.
    row_stride: usize,
    /// Whether the sums start at 0 (and not at what they are).
    fresh: bool,
    /// What is wanted next: with every input, the line at this address, which then moves on by so many bytes.
    next: (*const u8, usize),
    /// What is wanted after that, likewise.
    later: (*const u8, usize),
}

/// `sums += a · b` over one block of inputs, in the order of the inputs.
struct Multiply<const ROWS: usize, const PANELS: usize>(Tile);

impl<const ROWS: usize, const PANELS: usize> Kernel for Multiply<ROWS, PANELS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Tile { mut a, mut b, panel_step, depth, sums: out, row_stride, fresh, mut next, mut later } = self.0;
        // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
        unsafe {
            let mut sums: Sums<S, ROWS, PANELS> = zero::<S, ROWS, PANELS>();
            if !fresh {
                load::<S, ROWS, PANELS>(&mut sums, out, row_stride);
            }
            let mut i = 0;
            while i < depth {
                S::prefetch_far(next.0);
                S::prefetch_far(later.0);
                next.0 = next.0.wrapping_add(next.1);
                later.0 = later.0.wrapping_add(later.1);
                let mut weights = [[S::zero(); 4]; PANELS];
                let mut p = 0;
                while p < PANELS {
                    let mut v = 0;
                    while v < PANEL_WIDTH / S::LANES {
                        weights[p][v] = S::load(b.offset(p as isize * panel_step).add(v * S::LANES));
                        v += 1;
                    }
                    p += 1;
                }
                add_products::<S, ROWS, PANELS>(&mut sums, a, &weights);
                a = a.add(ROWS);
                b = b.add(PANEL_WIDTH);
                i += 1;
            }
            store::<S, ROWS, PANELS>(&sums, out, row_stride);
        }
    }
}

/// Multiplies one register tile.
///
/// # Safety
/// The machine must have the tier; the operands must be valid for `rows ≤ 14` rows and `panels ≤ 2` panels.
unsafe fn multiply(tier: Tier, rows: usize, panels: usize, tile: Tile) {
    macro_rules! choose {
        ($($rows:literal)*) => {
            match (rows, panels) {
                $(
                    // SAFETY: the caller vouches for the tier and the operands.
                    ($rows, 1) => unsafe { tier.dispatch(Multiply::<$rows, 1>(tile)) },
                    // SAFETY: as above.
                    ($rows, 2) => unsafe { tier.dispatch(Multiply::<$rows, 2>(tile)) },
                )*
                _ => unreachable!("no kernel for {rows} rows and {panels} panels"),
            }
        };
    }
    choose!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}
