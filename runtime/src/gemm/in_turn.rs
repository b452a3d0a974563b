//! Three rows of bytes and more: the weights of a few parts are unpacked to bytes once, and blocks of rows take turns over them.
//!
//! A turn is [`TURN`] parts of a pair of panels. They are read from the first-level cache by every block of rows, whose sums wait meanwhile
//! where the results go. Two panels share each activation that is spread over a vector, so that there are fewer loads than
//! products. The weights come from memory once, asked for in equal shares during all of the turns: asked for in one go they would stop the
//! processor, which keeps track of few lines at a time.

use super::ahead::Ahead;
use super::blocks::{Blocks, Scales, quants, with_format};
use super::byte_rows::{self, INTEGERS, Layout, SCALE};
use super::bytes::{KEPT_BYTES, MAX_PANELS};
use super::pack::RowBlocks;
use super::registers::{load, store, unrolled, unrolled_rows, zero};
use super::weights::panel_bytes;
use super::{GemmArgs, Segment, segment_stride};
use crate::pool::Worker;
use crate::prefetch::LINE;
use crate::tiers::{Kernel, Simd, Tier};
use llamac_formats::panel::blocks::{PART, VECTOR};
use llamac_formats::program::Tile;
use llamac_formats::{BlockFormat, DType, PANEL_WIDTH};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// The most rows of a block: with two panels as many sums as there are registers for, beside the integer sums of a part.
const MAX_BLOCK: usize = 7;

/// The most blocks of a pass: their sums and the inputs of a turn, some 30 KiB, stay in the first-level cache.
const MAX_BLOCKS: usize = 10;

/// Parts of a turn, for formats whose groups are shorter; whole groups.
const TURN: usize = 4;

/// The most parts of a turn.
const MAX_TURN: usize = 8;

/// Bytes of a part's quants, unpacked.
const BYTES: usize = PART * PANEL_WIDTH;

/// f32 elements of scratch for the tile of one pass with this many segments.
pub(super) fn thread_scratch(segments: usize) -> usize {
    segments * MAX_BLOCKS * MAX_BLOCK * MAX_PANELS * PANEL_WIDTH
}

/// Whether so many rows take turns: on vectors of sixteen lanes, which have the registers.
pub(super) fn take(tier: Tier, m: usize) -> bool {
    tier.lanes() == 16 && m > 2
}

/// The most rows of a block. What has no dot products of bytes needs registers for more steps; two scales in a part need some
/// as well.
fn rows_of(args: &GemmArgs) -> usize {
    let two_scales = |s: &Segment| matches!(s.dtype, DType::Block(format) if format.part() < PART);
    match args.tier {
        Tier::Avx512 => 4,
        _ if args.segments.iter().any(two_scales) => MAX_BLOCK - 1,
        _ => MAX_BLOCK,
    }
}

/// Computes the panels of each task for all rows.
///
/// # Safety
/// As [`super::gemm`]; all segments are of block formats, the rows [`take`] turns, and `scratch` holds [`thread_scratch`] elements.
pub(super) unsafe fn run(worker: &Worker, args: &GemmArgs, scratch: *mut f32) {
    let blocks = RowBlocks::new(args.m, rows_of(args));
    let layout = Layout::of(args.segments);
    // SAFETY: the caller vouches for the rows and the room.
    unsafe { byte_rows::pack(worker, args, blocks, &layout) };
    worker.barrier();
    let passes = blocks.count().div_ceil(MAX_BLOCKS);
    let largest = args.segments.iter().map(|s| panel_bytes(s.dtype, args.k)).max().unwrap_or(0);
    let kept = (KEPT_BYTES / largest.max(1)).max(2) / 2 * 2;
    let most = if passes > 1 { MAX_PANELS.min(kept) } else { MAX_PANELS };
    args.passes(worker, most, |columns, after| {
        let (begin, width) = (columns.begin, columns.end - columns.begin);
        let (col_begin, col_end) = columns.range(begin, columns.end);
        let row_stride = width.next_multiple_of(2) * PANEL_WIDTH;
        for pass in 0..passes {
            let [first, last] = [pass, pass + 1].map(|pass| pass * blocks.count() / passes);
            let (row, row_end) = (blocks.begin(first), blocks.begin(last));
            let sums_step = (row_end - row) * row_stride;
            for (s, segment) in columns.segments.iter().enumerate() {
                let DType::Block(format) = segment.dtype else { unreachable!("{} is no block format", segment.dtype) };
                // SAFETY: the caller vouches for the operands; the sums of all segments fit the scratch.
                unsafe {
                    let (panels, panel_step) = args.panel(segment, begin);
                    let ahead = if passes == 1 {
                        let bytes = panel_bytes(segment.dtype, args.k);
                        let after = || args.first_panel(after, 0);
                        let next = columns.segments.get(s + 1).map_or_else(after, |next| args.panel(next, begin).0);
                        Ahead::of_one_pass(panels, bytes, next)
                    } else {
                        Ahead::of_passes(panels, args.first_panel(after, s), pass, passes)
                    };
                    let pass = Pass {
                        tier: args.tier,
                        a: args.packed.cast(),
                        layout: &layout,
                        extra: layout.of_format(format),
                        blocks,
                        range: [first, last],
                        sharers: if passes == 1 { [0, blocks.count()] } else { [first, blocks.count()] },
                        parts: args.k / PART,
                        panels,
                        panel_step,
                        width,
                        ahead,
                        out: scratch.add(s * sums_step),
                        row_stride,
                    };
                    multiply(format, pass);
                }
            }
            let tile = Tile {
                acc: scratch,
                row_begin: row as u64,
                row_end: row_end as u64,
                col_begin: col_begin as u64,
                col_end: col_end as u64,
                row_stride: row_stride as u64,
                segment_stride: segment_stride(columns.segments, sums_step),
            };
            // SAFETY: the kernels have filled the tile.
            unsafe { args.emit(&tile) };
        }
    });
}

/// The operands of a pass.
#[derive(Clone, Copy)]
struct Pass<'a> {
    tier: Tier,
    /// Packed rows.
    a: *const u8,
    layout: &'a Layout,
    /// Where the words are that only some formats need.
    extra: usize,
    blocks: RowBlocks,
    /// The first block of rows, and past the last one.
    range: [usize; 2],
    /// The number of the first block among all that share in asking memory for weights, and how many those are.
    sharers: [usize; 2],
    /// Parts of a row.
    parts: usize,
    /// The first panel.
    panels: *const u8,
    /// Bytes from panel to panel.
    panel_step: usize,
    /// Panels.
    width: usize,
    /// What to ask memory for meanwhile.
    ahead: Ahead,
    /// Results, `[rows][row_stride]`.
    out: *mut f32,
    row_stride: usize,
}

/// Runs one pass.
///
/// # Safety
/// The machine must have the tier; the operands must be valid.
unsafe fn multiply(format: BlockFormat, pass: Pass) {
    with_format!(format, B => {
        let weights = Weights {
            group_parts: B::PARTS,
            header: B::HEADER,
            group_bytes: B::GROUP_BYTES,
            unpack: unpack::<B>,
        };
        let kernel = InTurn::<{ B::BITS == 8 }, { B::SCALES }, { B::MINIMUM }> { pass, weights };
        // SAFETY: the caller vouches for the tier and the operands.
        unsafe { pass.tier.dispatch(kernel) }
    });
}

/// What the kernels need to know about a format of weights.
#[derive(Clone, Copy)]
struct Weights {
    /// Parts of a group.
    group_parts: usize,
    header: usize,
    group_bytes: usize,
    /// [`unpack`] for the format.
    unpack: unsafe fn(Tier, *const u8, usize, *mut Unpacked),
}

/// The row of a table where the minima begin: formats that have them have one scale for a part.
const MINIMA: usize = MAX_TURN;

/// Some parts of a panel, of which only what the format has is filled.
#[repr(C, align(64))]
struct Unpacked {
    /// A factor for each part, or each half of one; from [`MINIMA`] on the parts' minima, where there are any.
    table: [[f32; PANEL_WIDTH]; 2 * MAX_TURN],
    /// Quants of fewer than eight bits; those of eight are used where they are.
    quants: [u8; MAX_TURN * BYTES],
}

/// Unpacks some parts of a panel, from the first of a group on.
///
/// # Safety
/// The machine must have the tier; the parts must be there, and the room.
unsafe fn unpack<B: Blocks>(tier: Tier, from: *const u8, parts: usize, to: *mut Unpacked) {
    // SAFETY: the caller vouches for all of it.
    unsafe { tier.dispatch(Unpack::<B> { format: PhantomData, from, parts, to }) }
}

/// The kernel of [`unpack`].
struct Unpack<B> {
    format: PhantomData<B>,
    from: *const u8,
    parts: usize,
    to: *mut Unpacked,
}

impl<B: Blocks> Kernel for Unpack<B> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if S::LANES != PANEL_WIDTH {
            unreachable!("turns are for vectors of sixteen lanes");
        }
        // SAFETY: the caller vouches for the parts and the room.
        unsafe {
            let table = (&raw mut (*self.to).table).cast::<f32>();
            let bytes = (&raw mut (*self.to).quants).cast::<u8>();
            // The parts are those of one group where scales have scales of their own.
            Scales::write::<S, B>(table, self.from);
            for part in 0..self.parts {
                let (group, in_group) = (self.from.add(part / B::PARTS * B::GROUP_BYTES), part % B::PARTS);
                if !B::NESTED {
                    let scale = Scales::EMPTY.scale::<S, B>(group, in_group, 0, 0);
                    S::store(table.add(part * PANEL_WIDTH), scale);
                    if B::MINIMUM {
                        let minimum = Scales::EMPTY.minimum::<S, B>(group, in_group, 0);
                        S::store(table.add((MINIMA + part) * PANEL_WIDTH), minimum);
                    }
                }
                if B::BITS < 8 {
                    let at = group.add(B::HEADER + in_group * B::PART_BYTES);
                    unrolled!(half < 2 => {
                        let q = quants::<S, B>(at, half, 0);
                        unrolled!(i < 4 => S::store_bytes(bytes.add(part * BYTES + (half * 4 + i) * VECTOR), q[i]));
                    });
                }
            }
        }
    }
}

/// One pass of several blocks of rows over some panels of a format with quants of eight bits or fewer, one or two scales for a part, and
/// with minima or without.
struct InTurn<'a, const EIGHT: bool, const SCALES: usize, const MINIMUM: bool> {
    pass: Pass<'a>,
    weights: Weights,
}

impl<const EIGHT: bool, const SCALES: usize, const MINIMUM: bool> Kernel for InTurn<'_, EIGHT, SCALES, MINIMUM> {
    type Output = ();
    const BYTES: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if S::LANES != PANEL_WIDTH {
            unreachable!("turns are for vectors of sixteen lanes");
        }
        let InTurn { pass, weights } = self;
        let Pass { blocks, range: [first, last], out, row_stride, .. } = pass;
        let mut room = [const { MaybeUninit::<Unpacked>::uninit() }; 2];
        // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
        unsafe {
            let first_row = blocks.begin(first);
            std::slice::from_raw_parts_mut(out, (blocks.begin(last) - first_row) * row_stride).fill(0.0);
            let mut panels = pass.panels;
            let mut part = 0;
            while part < pass.parts {
                let parts = (pass.parts - part).min(TURN.max(weights.group_parts));
                let bytes = parts.div_ceil(weights.group_parts) * weights.group_bytes;
                let offset = pass.ahead.from(panels);
                let mut pair = 0;
                while pair < pass.width {
                    let from = panels.add(pair * pass.panel_step);
                    // The last panel of an odd number is computed twice.
                    let panel_step = if pair + 1 < pass.width { pass.panel_step } else { 0 };
                    let mut quants = [from.add(weights.header), from.add(panel_step + weights.header)];
                    let mut tables = [std::ptr::null(); 2];
                    for p in 0..2 {
                        let to = room[p].as_mut_ptr();
                        (weights.unpack)(pass.tier, from.add(p * panel_step), parts, to);
                        tables[p] = to.cast_const();
                        if !EIGHT {
                            quants[p] = (&raw const (*to).quants).cast();
                        }
                    }
                    let sharers = pass.sharers[1];
                    let share = (bytes / LINE).div_ceil(sharers * parts);
                    for block in first..last {
                        let (row, rows) = blocks.block(block);
                        let asked = (block - first + pass.sharers[0]) * parts * share;
                        let turn = Turn {
                            a: byte_rows::block(pass.a, pass.parts, row, pass.layout)
                                .add(part * pass.layout.bytes(rows)),
                            part_bytes: pass.layout.bytes(rows),
                            extra: pass.extra,
                            quants,
                            gap: if EIGHT { weights.header } else { 0 },
                            group_parts: weights.group_parts,
                            tables,
                            parts,
                            ask: from.wrapping_offset(offset).wrapping_add(LINE * asked),
                            ask_step: panel_step,
                            share,
                            out: out.add((row - first_row) * row_stride + pair * PANEL_WIDTH),
                            row_stride,
                        };
                        match rows {
                            7 => turn.run::<S, EIGHT, SCALES, MINIMUM, 7>(),
                            6 => turn.run::<S, EIGHT, SCALES, MINIMUM, 6>(),
                            5 => turn.run::<S, EIGHT, SCALES, MINIMUM, 5>(),
                            4 => turn.run::<S, EIGHT, SCALES, MINIMUM, 4>(),
                            3 => turn.run::<S, EIGHT, SCALES, MINIMUM, 3>(),
                            _ => turn.run::<S, EIGHT, SCALES, MINIMUM, 2>(),
                        }
                    }
                    pair += 2;
                }
                part += parts;
                panels = panels.add(bytes);
            }
        }
    }
}

/// A block of rows and some parts of a pair of panels.
struct Turn {
    /// The rows' first part.
    a: *const u8,
    /// Bytes from part to part.
    part_bytes: usize,
    /// The first of the words that the format needs beside the integers and the scale.
    extra: usize,
    quants: [*const u8; 2],
    /// Bytes between the quants of one group and those of the next.
    gap: usize,
    /// Parts of a group.
    group_parts: usize,
    tables: [*const Unpacked; 2],
    parts: usize,
    /// What is asked for first, and where that is in the second panel.
    ask: *const u8,
    ask_step: usize,
    /// Lines of each panel that a part asks for, perhaps a few more in all than there are.
    share: usize,
    /// Sums, `[rows][row_stride]`.
    out: *mut f32,
    row_stride: usize,
}

impl Turn {
    /// Asks for a line of each panel.
    ///
    /// # Safety
    /// The machine must have the instruction set.
    #[inline(always)]
    unsafe fn ask<S: Simd>(&mut self) {
        // SAFETY: the caller vouches for the instruction set; prefetched addresses need not be valid.
        unsafe {
            S::prefetch(self.ask);
            S::prefetch(self.ask.wrapping_add(self.ask_step));
        }
        self.ask = self.ask.wrapping_add(LINE);
    }

    /// Adds the products of `ROWS` rows to their sums.
    ///
    /// # Safety
    /// The machine must have the instruction set; the operands must be valid.
    #[inline(always)]
    unsafe fn run<S: Simd, const EIGHT: bool, const SCALES: usize, const MINIMUM: bool, const ROWS: usize>(mut self) {
        // SAFETY: the caller vouches for all of it.
        unsafe {
            let mut sums = zero::<S, ROWS, 2>();
            load::<S, ROWS, 2>(&mut sums, self.out, self.row_stride);
            let mut scales = self.tables.map(|t| (&raw const (*t).table).cast::<f32>());
            let mut minima = scales.map(|t| t.add(MINIMA * PANEL_WIDTH));
            let mut left = self.group_parts;
            for _ in 0..self.parts {
                // Mostly one or two lines: then there is no loop whose end the processor could mistake.
                self.ask::<S>();
                if self.share > 1 {
                    self.ask::<S>();
                    for _ in 2..self.share {
                        self.ask::<S>();
                    }
                }
                // Registers that the compiler cannot derive from others: then every operand is a register and a constant, which
                // the processor takes as one step with the product.
                let a = S::opaque(self.a);
                let extra = S::opaque(self.a.add(4 * ROWS * self.extra));
                let word = |i: usize, r: usize| a.add(4 * (i * ROWS + r));
                let extra = |i: usize, r: usize| extra.add(4 * (i * ROWS + r));
                let mut set = 0;
                while set < SCALES {
                    let mut dots = [[S::splat_word(0); 2]; ROWS];
                    if !MINIMUM {
                        unrolled_rows!(r < ROWS => dots[r] = [S::splat_word(extra(set, r).cast::<i32>().read()); 2]);
                    }
                    let vectors = 8 / SCALES;
                    let mut i = 0;
                    while i < vectors {
                        let at = set * vectors + i;
                        let q = [
                            S::load_bytes(self.quants[0].add(at * VECTOR)),
                            S::load_bytes(self.quants[1].add(at * VECTOR)),
                        ];
                        unrolled_rows!(r < ROWS => {
                            let x = S::splat_word(word(INTEGERS + at, r).cast::<i32>().read());
                            unrolled!(p < 2 => {
                                dots[r][p] = if EIGHT {
                                    S::dot(dots[r][p], q[p], x)
                                } else {
                                    S::dot_small(dots[r][p], q[p], x)
                                };
                            });
                        });
                        i += 1;
                    }
                    unrolled!(p < 2 => {
                        let scale = S::load(scales[p]);
                        unrolled_rows!(r < ROWS => {
                            let factor = S::mul(scale, S::splat(word(SCALE, r).cast::<f32>().read()));
                            sums[r][p][0] = S::fma(factor, S::float(dots[r][p]), sums[r][p][0]);
                        });
                        scales[p] = scales[p].add(PANEL_WIDTH);
                        if MINIMUM {
                            let minimum = S::load(minima[p]);
                            unrolled_rows!(r < ROWS => {
                                let offset = S::splat(extra(0, r).cast::<f32>().read());
                                sums[r][p][0] = S::fma(minimum, offset, sums[r][p][0]);
                            });
                            minima[p] = minima[p].add(PANEL_WIDTH);
                        }
                    });
                    set += 1;
                }
                left -= 1;
                let step = if left == 0 { BYTES + self.gap } else { BYTES };
                left = if left == 0 { self.group_parts } else { left };
                self.quants = self.quants.map(|q| q.wrapping_add(step));
                self.a = self.a.wrapping_add(self.part_bytes);
            }
            store::<S, ROWS, 2>(&sums, self.out, self.row_stride);
        }
    }
}
