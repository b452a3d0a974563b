//! Few rows: the weights are read once, straight from memory, and widened in registers.

use super::ahead::{Ahead, prefetch};
use super::dequantise::dequantise;
use super::pack::RowBlocks;
use super::registers::{Sums, add_products, store, zero};
use super::weights::{BF16, F16, F32, Weights, panel_bytes};
use super::{GemmArgs, segment_stride};
use crate::pool::Worker;
use crate::tiers::{Kernel, Simd, Tier};
use llamac_formats::program::Tile;
use llamac_formats::{DType, PANEL_WIDTH};
use std::marker::PhantomData;

/// The most rows of one pass.
const MAX_ROWS: usize = 12;

/// The most panels of one pass.
const MAX_PANELS: usize = 4;

/// f32 elements of scratch for the tile of one pass with this many segments.
pub(super) fn thread_scratch(segments: usize) -> usize {
    segments * MAX_ROWS * MAX_PANELS * PANEL_WIDTH
}

/// The most rows that a tier holds in registers with at least one panel.
pub(super) fn rows_of(tier: Tier) -> usize {
    match tier.lanes() {
        16 => 12,
        8 => 5,
        _ => 3,
    }
}

/// How many panels go side by side: several streams hide the latency of memory, as far as there are registers.
fn panels_of(tier: Tier, rows: usize) -> usize {
    match (tier.lanes(), rows) {
        (16, 1..=4) | (8, 1) => 4,
        (16, _) | (8, 2..=3) | (_, 1) => 2,
        _ => 1,
    }
}

/// Streams the panels of each task past all rows.
///
/// # Safety
/// As [`super::gemm`]; `a` are the rows in blocks, and `scratch` holds [`thread_scratch`] elements.
pub(super) unsafe fn few_rows(worker: &Worker, args: &GemmArgs, a: *const f32, blocks: RowBlocks, scratch: *mut f32) {
    let most = panels_of(args.tier, blocks.rows());
    args.passes(worker, most, |columns, after| {
        let after = args.first_panel(after, 0);
        let mut begin = columns.begin;
        while begin < columns.end {
            let mut width = most;
            while width > columns.end - begin {
                width /= 2;
            }
            let (col_begin, col_end) = columns.range(begin, begin + width);
            let row_stride = width * PANEL_WIDTH;
            for block in 0..blocks.count() {
                let (row, rows) = blocks.block(block);
                for (s, segment) in columns.segments.iter().enumerate() {
                    // SAFETY: the caller vouches for the operands; the sums of all segments fit the scratch.
                    unsafe {
                        let (at, panel_step) = args.panel(segment, begin);
                        let bytes = panel_bytes(segment.dtype, args.k);
                        let next = columns.segments.get(s + 1).map_or(after, |next| args.panel(next, begin).0);
                        let ahead = Ahead::of_one_pass(at, bytes, next);
                        let a = a.add(row * args.k);
                        let out = scratch.add(s * rows * row_stride);
                        let pass = Pass { a, k: args.k, panels: at, panel_step, ahead, out, row_stride };
                        stream(args.tier, segment.dtype, rows, width, pass);
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

/// The operands of a pass.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    /// Activations, `[k][rows]`.
    pub(super) a: *const f32,
    /// Inputs.
    pub(super) k: usize,
    /// The first panel.
    pub(super) panels: *const u8,
    /// Bytes from panel to panel.
    pub(super) panel_step: usize,
    /// What to ask memory for meanwhile.
    pub(super) ahead: Ahead,
    /// Results, `[rows][16·panels]`.
    pub(super) out: *mut f32,
    /// Elements from row to row of the results.
    pub(super) row_stride: usize,
}

/// One pass: `ROWS` rows times `PANELS` panels, every product added in the order of the inputs.
struct Stream<W, const ROWS: usize, const PANELS: usize> {
    weights: PhantomData<W>,
    pass: Pass,
}

impl<W: Weights, const ROWS: usize, const PANELS: usize> Kernel for Stream<W, ROWS, PANELS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Pass { mut a, k, panels, panel_step, ahead, out, row_stride } = self.pass;
        // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
        unsafe {
            let mut sums: Sums<S, ROWS, PANELS> = zero::<S, ROWS, PANELS>();
            let mut pair = panels;
            let mut i = 0;
            while i + 2 <= k {
                let offset = ahead.from(pair);
                let mut p = 0;
                while p < PANELS {
                    prefetch::<S>(pair.wrapping_add(p * panel_step).wrapping_offset(offset), W::PAIR_BYTES);
                    p += 1;
                }
                add_products::<S, ROWS, PANELS>(
                    &mut sums,
                    a,
                    &one_input::<S, W, PANELS>(pair, panel_step, Input::First),
                );
                add_products::<S, ROWS, PANELS>(
                    &mut sums,
                    a.add(ROWS),
                    &one_input::<S, W, PANELS>(pair, panel_step, Input::Second),
                );
                a = a.add(2 * ROWS);
                pair = pair.add(W::PAIR_BYTES);
                i += 2;
            }
            if i < k {
                add_products::<S, ROWS, PANELS>(
                    &mut sums,
                    a,
                    &one_input::<S, W, PANELS>(pair, panel_step, Input::Last),
                );
            }
            store::<S, ROWS, PANELS>(&sums, out, row_stride);
        }
    }
}

/// Which input of a pair.
#[derive(Clone, Copy)]
enum Input {
    First,
    Second,
    /// The first of an incomplete pair.
    Last,
}

/// The weights of one input in each panel.
///
/// # Safety
/// The machine must have the instruction set; the panels must hold the input.
#[inline(always)]
unsafe fn one_input<S: Simd, W: Weights, const PANELS: usize>(
    pair: *const u8,
    panel_step: usize,
    input: Input,
) -> [[S::F; 4]; PANELS] {
    // SAFETY: the caller vouches for both.
    unsafe {
        let mut weights = [[S::zero(); 4]; PANELS];
        let mut p = 0;
        while p < PANELS {
            let at = pair.add(p * panel_step);
            let mut v = 0;
            while v < PANEL_WIDTH / S::LANES {
                weights[p][v] = match input {
                    Input::First => W::pair::<S>(at, v).0,
                    Input::Second => W::pair::<S>(at, v).1,
                    Input::Last => W::single::<S>(at, v),
                };
                v += 1;
            }
            p += 1;
        }
        weights
    }
}

/// Runs one pass.
///
/// # Safety
/// The machine must have the tier; the operands must be valid for `rows` rows and `panels` panels, which must be
/// [`panels_of`] the rows, or a half or a quarter of it.
unsafe fn stream(tier: Tier, dtype: DType, rows: usize, panels: usize, pass: Pass) {
    // SAFETY: the caller vouches for everything.
    unsafe {
        match dtype {
            DType::F32 => stream_of::<F32>(tier, rows, panels, pass),
            DType::F16 => stream_of::<F16>(tier, rows, panels, pass),
            DType::BF16 => stream_of::<BF16>(tier, rows, panels, pass),
            DType::Block(format) => dequantise(tier, format, rows, panels, pass),
            DType::I32 | DType::Bool | DType::Q8 => unreachable!("{dtype} has no packed layout"),
        }
    }
}

/// As [`stream`], for one element type.
///
/// # Safety
/// As [`stream`].
unsafe fn stream_of<W: Weights>(tier: Tier, rows: usize, panels: usize, pass: Pass) {
    macro_rules! choose {
        ($($rows:literal x $panels:literal),*) => {
            match (rows, panels) {
                $(($rows, $panels) => {
                    let kernel = Stream::<W, $rows, $panels> { weights: PhantomData, pass };
                    // SAFETY: the caller vouches for the tier and the operands.
                    unsafe { tier.dispatch(kernel) }
                })*
                _ => unreachable!("no kernel for {rows} rows and {panels} panels"),
            }
        };
    }
    choose!(
        1 x 4, 1 x 2, 1 x 1, 2 x 4, 2 x 2, 2 x 1, 3 x 4, 3 x 2, 3 x 1, 4 x 4, 4 x 2, 4 x 1, 5 x 2, 5 x 1, 6 x 2, 6 x 1,
        7 x 2, 7 x 1, 8 x 2, 8 x 1, 9 x 2, 9 x 1, 10 x 2, 10 x 1, 11 x 2, 11 x 1, 12 x 2, 12 x 1
    )
}
