//! Many rows on a machine with tile registers: bf16 activations meet bf16 weights, products and sums in f32.
//!
//! Rows are packed as tiles of 16 rows × 32 inputs. A task's panels are bf16 already or are unpacked once, a block of inputs at a
//! time that stays in the second-level cache; pairs of row tiles pass over them, a few hundred inputs at a time, so that the
//! activations of a pair stay in the first-level cache while the panels stream out of the second.

use super::blocks::{Blocks, Scales, quants, weight, with_format};
use super::weights::offset_of_input;
use super::{Columns, GemmArgs, Segment, segment_stride, tiles_take};
use crate::pool::Worker;
use crate::prefetch::LINE;
use crate::tiers::Tier;
use crate::tiers::amx::{self, Narrow, NarrowKernel, Prefetch, Product, Tiles, multiply_ahead};
use llamac_formats::panel::blocks::{PART, group};
use llamac_formats::{BlockFormat, DType, PANEL_WIDTH, program, q8};
use std::marker::PhantomData;

/// How a GEMM is cut. No result depends on it.
#[derive(Clone, Copy)]
struct Cut {
    /// Panels of a task.
    panels: usize,
    /// Inputs of a block, whose panels are in the second-level cache.
    block: usize,
    /// Inputs of a pass: those of two row tiles stay in the first-level cache, whatever number of panels streams by.
    depth: usize,
}

/// The most panels of a task.
const MOST_PANELS: usize = 16;

/// Panels of a task whose activations stay in the second-level cache.
const TASK_PANELS: usize = 8;

/// Inputs of a block whose panels are unpacked: those of a task (512 KiB) fit the second-level cache.
const UNPACKED_BLOCK: usize = 2048;
const WIDE_UNPACKED_BLOCK: usize = UNPACKED_BLOCK * TASK_PANELS / MOST_PANELS;

/// Inputs of a block whose panels are read where they lie. Those of a task are 128 KiB: of more, the second-level cache keeps little
/// until they are read for the second time, though it has room for them.
const BLOCK: usize = 512;

/// Up to so many rows, blocks whose panels are unpacked are short as well: with few row tiles to pass over them, the weights' way from
/// memory is not hidden, and the sooner unpacked panels are used again, the better.
const SHORT_ROWS: usize = 128;

/// Bytes of packed rows that the second-level cache keeps beside the panels.
const KEPT_ROWS: usize = 1 << 20;

/// The fewest wide tasks of a thread: the last ones end at different times.
const LEAST_WIDE_TASKS: usize = 8;

/// Whether the rows of a task come from the third-level cache for every task, so that there should be few of those.
fn may_be_wide(rows: usize, k: usize) -> bool {
    2 * rows.next_multiple_of(2 * amx::ROWS).min(TASK_ROWS) * k > KEPT_ROWS
}

impl Cut {
    fn new(args: &GemmArgs, rows: Rows, threads: usize) -> Cut {
        let (segments, threads) = (args.tile_segments(), threads.div_ceil(rows.parts));
        // At most so many panels leave every thread some tasks.
        let spread = |tasks: usize| args.column_tasks(1) / (threads * tasks) / 2 * 2;
        let of_segment = |panels: usize| (panels / segments / 2 * 2).max(2);
        let wide = may_be_wide(rows.part, args.k) && spread(LEAST_WIDE_TASKS) >= of_segment(MOST_PANELS);
        let panels = of_segment(if wide { MOST_PANELS } else { TASK_PANELS }).min(spread(4).max(2));
        let short = args.act == DType::BF16 || args.m <= SHORT_ROWS;
        let block = match (short, wide) {
            (true, _) => BLOCK,
            (false, true) => WIDE_UNPACKED_BLOCK,
            (false, false) => UNPACKED_BLOCK,
        };
        Cut { panels, block, depth: if wide { 512 } else { 256 } }
    }
}

/// The most rows of a task: where the inputs are more than a block, the sums of all of them stay in the second-level cache.
const TASK_ROWS: usize = 512;

/// The fewest rows for which a thread reads, and unpacks, all weights for itself.
const LEAST_PART_ROWS: usize = 192;

/// Bytes from input to input of a bf16 panel.
const INPUT_BYTES: usize = 2 * PANEL_WIDTH;

/// Rows from which tiles are faster than vectors: they take as long for a few rows as for sixteen or thirty-two, and unpacking a panel of a
/// block format costs as much as some rows of bytes.
const ROWS_OF_BF16: usize = 8;
const ROWS_OF_BLOCKS: usize = 26;
const ROWS_OF_Q8_0: usize = 36;

/// Whether a GEMM runs on tiles: bf16 by bf16, which is exact, or bytes by a block format, whose rounding to bf16 is small beside
/// that of the activations. Rounding block weights for bf16 activations would double their error.
pub(super) fn take(args: &GemmArgs) -> bool {
    let (least, weights): (usize, fn(&Segment) -> bool) = match args.act {
        DType::BF16 => (ROWS_OF_BF16, |s| s.dtype == DType::BF16),
        _ => {
            let widest = args.segments.iter().all(|s| s.dtype == DType::Block(BlockFormat::Q8_0));
            (if widest { ROWS_OF_Q8_0 } else { ROWS_OF_BLOCKS }, |s| matches!(s.dtype, DType::Block(_)))
        }
    };
    // Panels of all segments go into one task; more than these go to the vectors.
    let fits = args.rows_like >= least && tiles_take(args.act, args.k) && args.tile_segments() <= TASK_PANELS;
    args.tier == Tier::Amx && fits && args.segments.iter().all(weights)
}

/// Rows whose sums are kept at a time: all of a task, or one pair of row tiles where each is finished at once.
fn rows_of_sums(m: usize, k: usize, block: usize) -> usize {
    if k > block { m.min(TASK_ROWS).next_multiple_of(2 * amx::ROWS) } else { 2 * amx::ROWS }
}

/// f32 elements of scratch for the sums and the unpacked panels of a task with at most `m` rows, `k` inputs and this many
/// segments.
pub(super) fn thread_scratch(m: usize, k: usize, segments: usize) -> usize {
    let narrow = TASK_PANELS.max(2 * segments);
    let wide = if may_be_wide(m, k) { MOST_PANELS } else { narrow };
    let unpacked = (narrow * k.min(UNPACKED_BLOCK)).max(wide * k.min(WIDE_UNPACKED_BLOCK));
    PANEL_WIDTH * (unpacked / 2 + wide * rows_of_sums(m, k, BLOCK))
}

/// How the rows are divided: into parts, among which the threads are divided, and each part into tasks.
#[derive(Clone, Copy)]
struct Rows {
    /// All rows.
    m: usize,
    parts: usize,
    /// Rows of a part, a multiple of 32 (the last part may have fewer).
    part: usize,
}

impl Rows {
    /// Each part reads all weights for itself, and unpacks them. That costs less than what it saves: fewer activations go through
    /// a second-level cache for each panel, or they even stay there.
    fn new(m: usize, threads: usize) -> Rows {
        let parts = (m / LEAST_PART_ROWS).clamp(1, threads);
        let part = m.div_ceil(parts).next_multiple_of(2 * amx::ROWS);
        Rows { m, parts: m.div_ceil(part), part }
    }

    /// Tasks of a part.
    fn tasks(&self) -> usize {
        self.part.div_ceil(TASK_ROWS)
    }

    /// The rows of a task of a part, from the first to past the last; none where the last part is shorter.
    fn of(&self, part: usize, task: usize) -> (usize, usize) {
        let end = self.m.min((part + 1) * self.part);
        let first = end.min(part * self.part + task * TASK_ROWS);
        (first, end.min(first + TASK_ROWS))
    }
}

/// Packs the rows and multiplies them by the panels of each task; the workers meet in between.
///
/// # Safety
/// As [`super::gemm`], and the GEMM must be one that tiles [`take`]; `scratch` holds [`thread_scratch`] elements.
pub(super) unsafe fn many_rows(worker: &Worker, args: &GemmArgs, scratch: *mut f32) {
    let a = args.packed.cast::<u8>();
    let rows = Rows::new(args.m, worker.threads());
    // SAFETY: the caller vouches for the activations and the room: two bytes for each element where four are given.
    unsafe { pack(worker, args, rows, a) };
    worker.barrier();
    let a = a.cast_const();
    let cut = Cut::new(args, rows, worker.threads());
    let panels = cut.panels;
    let column_tasks = args.column_tasks(panels);
    let (row_stride, segments) = (panels * PANEL_WIDTH, args.tile_segments());
    let sums_step = rows_of_sums(args.m, args.k, cut.block) * row_stride;
    let used = segments * (sums_step + row_stride * cut.block.min(args.k) / 2);
    debug_assert!(used <= thread_scratch(args.m, args.k, segments), "{used} elements of scratch");
    // SAFETY: the caller vouches for the machine.
    let mut tiles = unsafe { Tiles::new() };
    let mut backwards = false;
    worker.share_parts(rows.parts, rows.tasks() * column_tasks, |part, task| {
        let columns = args.columns(panels, task % column_tasks);
        // Where the threads of a part keep step, this is the thread's next task.
        let next = task + worker.threads().div_ceil(rows.parts);
        let (first, last) = rows.of(part, task / column_tasks);
        if first == last {
            return;
        }
        let task = Task {
            args,
            a,
            cut,
            first,
            last,
            columns,
            next: args.columns(panels, next % column_tasks),
            sums: scratch,
            row_stride,
            sums_step,
            // SAFETY: the scratch holds the sums of all segments and, after them, their panels.
            unpacked: unsafe { scratch.add(columns.segments.len() * sums_step) }.cast(),
        };
        // SAFETY: the caller vouches for the operands.
        unsafe { task.run(&mut tiles, &mut backwards) };
    });
}

/// Inputs that a task packs.
const PACK: usize = 512;

/// Packs all rows as `[row tile][k / 32][rows of the tile][32]` bf16, together with the other workers; complete after the next
/// barrier. Who multiplies a part packs it.
///
/// # Safety
/// The activations must be there, and room for as many bf16.
unsafe fn pack(worker: &Worker, args: &GemmArgs, rows: Rows, to: *mut u8) {
    let depths = args.k.div_ceil(PACK);
    worker.share_parts(rows.parts, rows.part.div_ceil(amx::ROWS) * depths, |part, task| {
        let begin = part * rows.part + task / depths * amx::ROWS;
        let rows = amx::ROWS.min(args.m.saturating_sub(begin));
        let first = task % depths * PACK;
        let last = args.k.min(first + PACK);
        for row in 0..rows {
            // SAFETY: the caller vouches for the rows and the room.
            unsafe {
                let to = to.add(2 * (begin * args.k + first * rows + row * amx::INPUTS)).cast();
                let step = rows * amx::INPUTS;
                amx::enter(PackRow { act: args.act, row: args.row(begin + row), first, last, to, step });
            }
        }
    });
}

/// Some inputs of one row as bf16, 32 at a time.
struct PackRow {
    act: DType,
    row: *const u8,
    first: usize,
    last: usize,
    /// Where the first 32 go.
    to: *mut u16,
    /// Elements from there to the next 32.
    step: usize,
}

impl NarrowKernel for PackRow {
    #[inline(always)]
    unsafe fn run<S: Narrow>(self) {
        let PackRow { act, row, first, last, mut to, step } = self;
        for k in (first..last).step_by(amx::INPUTS) {
            // SAFETY: the caller vouches for the row and the room.
            unsafe {
                if act == DType::Q8 {
                    let block = row.add(k / q8::ELEMENTS * q8::BYTES);
                    let (scale, q) = (S::splat(*block.cast::<f32>()), block.add(q8::QUANTS).cast::<i8>());
                    S::store_two(to, S::mul(S::i8(q), scale), S::mul(S::i8(q.add(16)), scale));
                } else {
                    to.copy_from_nonoverlapping(row.cast::<u16>().add(k), amx::INPUTS);
                }
                to = to.add(step);
            }
        }
    }
}

/// Unpacks inputs of one panel of a block format to bf16 `[k / 2][16][2]`.
struct Unpack<B, const ASK: bool> {
    format: PhantomData<B>,
    /// The first group.
    from: *const u8,
    /// Inputs, whole blocks.
    k: usize,
    /// Room for `k · 16`.
    to: *mut u16,
    /// What to ask for meanwhile, and how many of its cache lines for each part.
    ask: *const u8,
    lines: usize,
}

impl<B: Blocks, const ASK: bool> NarrowKernel for Unpack<B, ASK> {
    #[inline(always)]
    unsafe fn run<S: Narrow>(self) {
        let mut scales = Scales::EMPTY;
        for part in 0..self.k / PART {
            let in_group = part % B::PARTS;
            // SAFETY: the caller vouches for both addresses; the vectors are sixteen outputs wide.
            unsafe {
                let group = self.from.add(part / B::PARTS * B::GROUP_BYTES);
                if in_group == 0 {
                    scales.fill::<S, B>(group);
                }
                let at = group.add(B::HEADER + in_group * B::PART_BYTES);
                if ASK {
                    for line in part * self.lines..(part + 1) * self.lines {
                        S::prefetch_far(self.ask.wrapping_add(line * LINE));
                    }
                }
                let mut half = 0;
                while half < 2 {
                    let (scale, offset) = scales.line::<S, B>(group, in_group, half, 0);
                    let q = quants::<S, B>(at, half, 0);
                    let to = self.to.add((part * PART + half * 16) * PANEL_WIDTH);
                    let mut i = 0;
                    while i < 16 {
                        let first = weight::<S>(q[i / 4], i % 4, scale, offset);
                        let second = weight::<S>(q[i / 4], i % 4 + 1, scale, offset);
                        S::store_pairs(to.add(i * PANEL_WIDTH), first, second);
                        i += 2;
                    }
                    half += 1;
                }
            }
        }
    }
}

/// Some rows times some panels of one or more segments.
struct Task<'a> {
    args: &'a GemmArgs<'a>,
    /// Packed rows.
    a: *const u8,
    cut: Cut,
    /// The first row, a multiple of 32.
    first: usize,
    /// Past the last row.
    last: usize,
    columns: Columns<'a>,
    /// The columns that this thread probably has next.
    next: Columns<'a>,
    /// The segments' sums, each `[rows][row_stride]`.
    sums: *mut f32,
    row_stride: usize,
    /// Elements from segment to segment of the sums.
    sums_step: usize,
    /// Room for the unpacked panels of all segments.
    unpacked: *mut u8,
}

/// Weights to come. Unpacking asks for the first of them where there are few rows, and the products of a block for the rest in equal
/// shares: memory should never be idle, and the caches' queues never full.
struct Following {
    /// Where the first bytes of each panel are.
    panels: [*const u8; MOST_PANELS],
    /// Panels.
    all: usize,
    /// Bytes of each.
    bytes: usize,
    /// Cache lines that the unpacking of a part asks for.
    part_lines: usize,
    /// Bytes of a panel that all its parts ask for.
    by_parts: usize,
    /// Bytes of a product.
    share: usize,
    /// Bytes given to products.
    at: usize,
}

/// The most lines of a step of a product: the loads wait behind them. With few rows, steps are few, and it is memory that they wait for.
const STEP_LINES: usize = 4;
const STEP_LINES_OF_FEW_ROWS: usize = 12;

impl Following {
    /// What the unpacking of a panel asks for, and how many lines of it for each part.
    fn during_unpacking(&self, panel: usize) -> (*const u8, usize) {
        if panel < self.all { (self.panels[panel], self.part_lines) } else { (std::ptr::null(), 0) }
    }

    /// The next product's share, in so many steps.
    fn share(&mut self, steps: usize) -> Prefetch {
        let rest = (self.bytes - self.by_parts).max(1);
        let (panel, at) = (self.at / rest, self.by_parts + self.at % rest);
        self.at += self.share;
        let from = if panel < self.all { self.panels[panel].wrapping_add(at) } else { self.panels[0] };
        let step = self.share / steps;
        // Half of many, because the machine's own prefetcher goes on from there.
        let lines = match self.part_lines {
            0 => step.div_ceil(2 * LINE).clamp(2, STEP_LINES),
            _ => step.div_ceil(LINE).clamp(1, STEP_LINES_OF_FEW_ROWS),
        };
        Prefetch { from, step, lines }
    }
}

impl Task<'_> {
    /// Every other block visits the rows `backwards`: those of the block before that are still in the second-level cache first.
    ///
    /// # Safety
    /// As [`many_rows`].
    unsafe fn run(&self, tiles: &mut Tiles, backwards: &mut bool) {
        let k = self.args.k;
        let count = self.columns.end - self.columns.begin;
        for block in (0..k).step_by(self.cut.block) {
            let inputs = self.cut.block.min(k - block);
            let mut panels = [std::ptr::null(); MOST_PANELS];
            let all = self.columns.segments.len() * count;
            let pairs = (self.last - self.first).div_ceil(2 * amx::ROWS);
            let products = pairs * inputs.div_ceil(self.cut.depth) * all.div_ceil(2);
            // SAFETY: the caller vouches for the panels.
            let mut following = unsafe { self.following(block + inputs, inputs, products) };
            debug_assert!(all <= panels.len(), "a task has at most {MOST_PANELS} panels");
            for (i, panel) in panels.iter_mut().enumerate().take(all) {
                let segment = &self.columns.segments[i / count];
                // SAFETY: the caller vouches for the panels; each has its room in the scratch.
                unsafe {
                    let room = self.unpacked.add(i * self.cut.block.min(k) * INPUT_BYTES);
                    *panel = self.bf16(
                        segment,
                        self.columns.begin + i % count,
                        block,
                        inputs,
                        room,
                        following.during_unpacking(i),
                    );
                }
            }
            for i in 0..pairs {
                let row_of = |i: usize| self.first + 2 * amx::ROWS * if *backwards { pairs - 1 - i } else { i };
                let (row, next) = (row_of(i), row_of((i + 1).min(pairs - 1)));
                // SAFETY: the caller vouches for the operands.
                unsafe {
                    self.rows(tiles, [row, next], &panels[..all], block, inputs, &mut following);
                    if block + inputs == k {
                        self.emit(row);
                    }
                }
            }
            *backwards = !*backwards;
        }
    }

    /// The weights from input `k` of this task on, or of the next, to be fetched while so many inputs are unpacked and during so many
    /// products.
    ///
    /// # Safety
    /// As [`many_rows`].
    unsafe fn following(&self, k: usize, unpacked: usize, products: usize) -> Following {
        let (columns, k) = if k < self.args.k { (self.columns, k) } else { (self.next, 0) };
        let inputs = self.cut.block.min(self.args.k - k);
        let count = columns.end - columns.begin;
        let mut panels = [std::ptr::null(); MOST_PANELS];
        let mut bytes = 0;
        let all = (columns.segments.len() * count).min(panels.len());
        for (i, panel) in panels.iter_mut().enumerate().take(all) {
            let segment = &columns.segments[i / count];
            // SAFETY: the caller vouches for the panels.
            let (at, _) = unsafe { self.args.panel(segment, columns.begin + i % count) };
            *panel = at.wrapping_add(offset_of_input(segment.dtype, k));
            bytes = offset_of_input(segment.dtype, inputs);
        }
        let part_lines = if self.args.act == DType::Q8 && self.args.m <= SHORT_ROWS {
            // Unpacking takes about two thirds of the time.
            2 * (bytes / LINE).div_ceil(inputs.div_ceil(PART)) / 3
        } else {
            0
        };
        let by_parts = (part_lines * (unpacked / PART) * LINE).min(bytes);
        let share = (all * (bytes - by_parts)).div_ceil(products);
        Following { panels, all, bytes, part_lines, by_parts, share, at: 0 }
    }

    /// Where the bf16 of `inputs` inputs of a panel, from input `k`, are: in the panel itself, or unpacked into `room`.
    ///
    /// # Safety
    /// The panel must exist; `room` must hold the inputs.
    unsafe fn bf16(
        &self,
        segment: &Segment,
        panel: usize,
        k: usize,
        inputs: usize,
        room: *mut u8,
        (ask, lines): (*const u8, usize),
    ) -> *const u8 {
        // SAFETY: the caller vouches for both.
        unsafe {
            let (at, _) = self.args.panel(segment, panel);
            match segment.dtype {
                DType::Block(format) => {
                    with_format!(format, B => {
                        let from = at.add(k / group(format) * B::GROUP_BYTES);
                        let (k, to) = (inputs, room.cast());
                        if lines > 0 {
                            amx::enter(Unpack::<B, true> { format: PhantomData, from, k, to, ask, lines });
                        } else {
                            amx::enter(Unpack::<B, false> { format: PhantomData, from, k, to, ask, lines });
                        }
                    });
                    room
                }
                _ => at.add(k * INPUT_BYTES),
            }
        }
    }

    /// Up to two row tiles from `row` on times some inputs of all panels; those from `next` on come after.
    ///
    /// # Safety
    /// As [`many_rows`]; the panels hold `inputs` inputs from `block` on.
    unsafe fn rows(
        &self,
        tiles: &mut Tiles,
        [row, next]: [usize; 2],
        panels: &[*const u8],
        block: usize,
        inputs: usize,
        following: &mut Following,
    ) {
        let count = self.columns.end - self.columns.begin;
        let heights = [0, amx::ROWS].map(|r| (self.last - row).saturating_sub(r).min(amx::ROWS));
        let row_tiles = if heights[1] > 0 { 2 } else { 1 };
        // SAFETY: the caller vouches for the machine and the operands; sums lie in the scratch.
        unsafe {
            tiles.configure(heights.map(|h| if h > 0 { h } else { amx::ROWS }));
            let tile_bytes = |tile: usize| heights[tile] * 2 * amx::INPUTS;
            let first = self.a.add(row * self.args.k * 2);
            let second = if row_tiles == 2 { first.add(amx::ROWS * self.args.k * 2) } else { first };
            let depth = self.cut.depth;
            for k in (block..block + inputs).step_by(depth) {
                let steps = depth.min(block + inputs - k) / amx::INPUTS;
                let a = [
                    first.add(k / amx::INPUTS * tile_bytes(0)),
                    second.add(k / amx::INPUTS * tile_bytes(row_tiles - 1)),
                ];
                // The activations of the next inputs, or of the next rows.
                let to_come = if k + depth < block + inputs {
                    a.map(|a| a.wrapping_add(depth / amx::INPUTS * tile_bytes(0)))
                } else {
                    [0, amx::ROWS].map(|r| self.a.wrapping_add(2 * ((next + r) * self.args.k + block * amx::ROWS)))
                };
                for pair in (0..panels.len()).step_by(2) {
                    let at = |i: usize| panels[i].add((k - block) * INPUT_BYTES);
                    let width = 2.min(panels.len() - pair);
                    let last = pair + width - 1;
                    let product = Product {
                        a,
                        row_tiles,
                        b: [at(pair), at(last)],
                        panels: width,
                        steps,
                        sums: [self.sums_of(row, pair, count), self.sums_of(row, last, count)],
                        stride: 4 * self.row_stride,
                        fresh: k == 0,
                    };
                    let activations = Prefetch {
                        from: to_come[pair / 2 % 2].wrapping_add(pair / 4 * steps * 128),
                        step: 128,
                        lines: 2,
                    };
                    multiply_ahead(tiles, &product, [activations, following.share(steps)]);
                }
            }
        }
    }

    /// Elements from the first sums to those of a row.
    fn row_offset(&self, row: usize) -> usize {
        if self.args.k > self.cut.block { (row - self.first) * self.row_stride } else { 0 }
    }

    /// Where the sums of a row and a panel of all segments' panels begin.
    fn sums_of(&self, row: usize, panel: usize, count: usize) -> *mut f32 {
        let offset = panel / count * self.sums_step + self.row_offset(row) + panel % count * PANEL_WIDTH;
        self.sums.wrapping_add(offset)
    }

    /// Hands on the finished sums of up to two row tiles.
    ///
    /// # Safety
    /// As [`many_rows`].
    unsafe fn emit(&self, row: usize) {
        let (col_begin, col_end) = self.columns.range(self.columns.begin, self.columns.end);
        let tile = program::Tile {
            acc: self.sums.wrapping_add(self.row_offset(row)),
            row_begin: row as u64,
            row_end: self.last.min(row + 2 * amx::ROWS) as u64,
            col_begin: col_begin as u64,
            col_end: col_end as u64,
            row_stride: self.row_stride as u64,
            segment_stride: segment_stride(self.columns.segments, self.sums_step),
        };
        // SAFETY: the products have filled the tile.
        unsafe { self.args.emit(&tile) };
    }
}
