//! Activations in bytes against block formats: integer dot products of 32 inputs, scaled and added in f32.
//!
//! A result is one chain over the blocks of its inputs in their order, in every tier and for any number of rows. The products
//! of bytes are exact; what is rounded is the scaling and the addition of each block. One or two rows are read where they lie and the weights
//! unpacked in registers (again for every two, where vectors are short); more rows take turns ([`super::in_turn`]).

use super::ahead::{Ahead, prefetch};
use super::blocks::{Blocks, Scales, quants, with_format};
use super::byte_rows::Apart;
use super::registers::{Sums, store, unrolled, unrolled_rows, zero};
use super::weights::panel_bytes;
use super::{GemmArgs, in_turn, segment_stride};
use crate::pool::Worker;
use crate::tiers::{Kernel, Simd, Tier};
use llamac_formats::panel::blocks::PART;
use llamac_formats::program::Tile;
use llamac_formats::{BlockFormat, DType, PANEL_WIDTH};
use std::marker::PhantomData;

/// The most panels of one pass: one core gets more from memory in several streams.
pub(super) const MAX_PANELS: usize = 4;

/// The most rows of one pass.
const MAX_ROWS: usize = 2;

/// The most rows times panels that are added up at a time, in registers of sixteen lanes.
const MAX_REGISTERS: usize = 8;

/// f32 elements of scratch for the tile of one pass with this many segments.
pub(super) fn thread_scratch(segments: usize) -> usize {
    (segments * MAX_ROWS * MAX_PANELS * PANEL_WIDTH).max(in_turn::thread_scratch(segments))
}

/// Bytes of the panels of a pass, where several passes go over them: they stay in the second-level cache, and so do those of the next.
pub(super) const KEPT_BYTES: usize = 160 << 10;

/// Rows and panels of a pass where so many rows are left: as many sums as there are registers for, or four panels side by side,
/// because one core gets more from memory in several streams.
fn pass_of(tier: Tier, rows: usize) -> (usize, usize) {
    match (tier.lanes(), rows) {
        (16, 2..) => (2, 4),
        (16, _) => (1, 4),
        (8, 2..) => (2, 1),
        (8, _) => (1, 2),
        _ => (1, 1),
    }
}

/// Computes the panels of each task for all rows.
///
/// # Safety
/// As [`super::gemm`]; all segments are of block formats, and `scratch` holds [`thread_scratch`] elements.
pub(super) unsafe fn run(worker: &Worker, args: &GemmArgs, scratch: *mut f32) {
    if in_turn::take(args.tier, args.m) {
        // SAFETY: the caller vouches for the operands.
        return unsafe { in_turn::run(worker, args, scratch) };
    }
    let (most_rows, most) = pass_of(args.tier, args.m);
    let passes = args.m.div_ceil(most_rows);
    let largest = args.segments.iter().map(|s| panel_bytes(s.dtype, args.k)).max().unwrap_or(0);
    // A power of two, as the halves below need it.
    let kept = 1 << (KEPT_BYTES / largest.max(1)).max(1).ilog2();
    let most = if passes > 1 { most.min(kept) } else { most };
    args.passes(worker, most, |columns, after| {
        let mut begin = columns.begin;
        while begin < columns.end {
            let mut width = most;
            while width > columns.end - begin {
                width /= 2;
            }
            let (col_begin, col_end) = columns.range(begin, begin + width);
            let row_stride = width * PANEL_WIDTH;
            let mut row = 0;
            while row < args.m {
                let left = args.m - row;
                let rows = pass_of(args.tier, left).0;
                for (s, segment) in columns.segments.iter().enumerate() {
                    let DType::Block(format) = segment.dtype else {
                        unreachable!("{} is no block format", segment.dtype)
                    };
                    // SAFETY: the caller vouches for the operands; the sums of all segments fit the scratch.
                    unsafe {
                        let (at, panel_step) = args.panel(segment, begin);
                        let ahead = if passes == 1 {
                            let bytes = panel_bytes(segment.dtype, args.k);
                            let after = || args.first_panel(after, 0);
                            let next = columns.segments.get(s + 1).map_or_else(after, |next| args.panel(next, begin).0);
                            Ahead::of_one_pass(at, bytes, next)
                        } else {
                            Ahead::of_passes(at, args.first_panel(after, s), row / most_rows, passes)
                        };
                        let out = scratch.add(s * rows * row_stride);
                        let a = if rows == 1 {
                            Lines::One(args.row(row))
                        } else {
                            Lines::Two([args.row(row), args.row(row + 1)])
                        };
                        let pass = Pass { a, k: args.k, panels: at, panel_step, ahead, out, row_stride };
                        multiply(args.tier, format, rows, width, pass);
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
                row += rows;
            }
            begin += width;
        }
    });
}

/// Where the rows of a pass are.
#[derive(Clone, Copy)]
enum Lines {
    /// The only row.
    One(*const u8),
    /// Two rows.
    Two([*const u8; 2]),
}

/// The operands of a pass.
#[derive(Clone, Copy)]
struct Pass<A> {
    /// The rows.
    a: A,
    /// Inputs.
    k: usize,
    /// The first panel.
    panels: *const u8,
    /// Bytes from panel to panel.
    panel_step: usize,
    /// What to ask memory for meanwhile.
    ahead: Ahead,
    /// Results, `[rows][16·panels]`.
    out: *mut f32,
    /// Elements from row to row of the results.
    row_stride: usize,
}

impl<A> Pass<A> {
    /// The same pass with its rows as a kernel reads them.
    fn with<R>(self, a: R) -> Pass<R> {
        let Pass { a: _, k, panels, panel_step, ahead, out, row_stride } = self;
        Pass { a, k, panels, panel_step, ahead, out, row_stride }
    }
}

/// One pass: `ROWS` rows times `PANELS` panels.
struct Multiply<B, const ROWS: usize, const PANELS: usize> {
    format: PhantomData<B>,
    pass: Pass<Apart<ROWS>>,
}

impl<B: Blocks, const ROWS: usize, const PANELS: usize> Kernel for Multiply<B, ROWS, PANELS> {
    type Output = ();
    const BYTES: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Tiers do not all have registers for all shapes; they are never asked for those.
        if ROWS * PANELS * (PANEL_WIDTH / S::LANES) > MAX_PANELS.max(MAX_REGISTERS * S::LANES / PANEL_WIDTH) {
            unreachable!("too few registers for {ROWS} rows and {PANELS} panels");
        }
        let Pass { a, k, panels: mut group, panel_step, ahead, out, row_stride } = self.pass;
        // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
        unsafe {
            let mut sums: Sums<S, ROWS, PANELS> = zero::<S, ROWS, PANELS>();
            let mut scales = [Scales::EMPTY; PANELS];
            let mut block = 0;
            while block < k / PART {
                let offset = ahead.from(group);
                let mut p = 0;
                while p < PANELS {
                    let at = group.add(p * panel_step);
                    if ahead.asks(block / B::PARTS) {
                        prefetch::<S>(at.wrapping_offset(offset), B::HEADER);
                    }
                    scales[p].fill::<S, B>(at);
                    p += 1;
                }
                let parts = (k / PART - block).min(B::PARTS);
                for part in 0..parts {
                    let asks = ahead.asks(block + part);
                    let at = Part { group, panel_step, offset, asks, part };
                    let terms = Terms { a, at, block: block + part };
                    terms.add_part::<S, B, PANELS>(&mut sums, &scales);
                }
                block += parts;
                group = group.add(B::GROUP_BYTES);
            }
            store::<S, ROWS, PANELS>(&sums, out, row_stride);
        }
    }
}

/// Which part of the weights: of the group that begins at `group` in the first panel.
#[derive(Clone, Copy)]
struct Part {
    group: *const u8,
    panel_step: usize,
    /// From what is used to what is asked for.
    offset: isize,
    /// Whether it is.
    asks: bool,
    part: usize,
}

/// The products of 32 inputs.
struct Terms<const ROWS: usize> {
    a: Apart<ROWS>,
    at: Part,
    /// Which part of the rows.
    block: usize,
}

impl<const ROWS: usize> Terms<ROWS> {
    /// Adds the products of a part.
    ///
    /// # Safety
    /// As [`Terms::add`].
    #[inline(always)]
    unsafe fn add_part<S: Simd, B: Blocks, const PANELS: usize>(
        &self,
        sums: &mut Sums<S, ROWS, PANELS>,
        scales: &[Scales; PANELS],
    ) {
        // SAFETY: the caller vouches for all of it.
        unsafe {
            if B::SCALES == 1 {
                self.add::<S, B, PANELS>(sums, scales, 0, 2);
            } else {
                self.add::<S, B, PANELS>(sums, scales, 0, 1);
                self.add::<S, B, PANELS>(sums, scales, 1, 1);
            }
        }
    }

    /// Adds the products of `halves` halves of a part, from half `first` on, which share a scale.
    ///
    /// # Safety
    /// The machine must have the instruction set; the operands must be valid.
    #[inline(always)]
    unsafe fn add<S: Simd, B: Blocks, const PANELS: usize>(
        &self,
        sums: &mut Sums<S, ROWS, PANELS>,
        scales: &[Scales; PANELS],
        first: usize,
        halves: usize,
    ) {
        // SAFETY: the caller vouches for all of it.
        unsafe {
            let mut dots = [[[S::splat_word(0); 4]; PANELS]; ROWS];
            if !B::MINIMUM {
                let half = (halves == 1).then_some(first);
                unrolled_rows!(r < ROWS => dots[r] = [[self.a.correction::<S>(self.block, r, half, B::ZERO); 4]; PANELS]);
            }
            unrolled!(h < halves => {
                unrolled!(p < PANELS => {
                    unrolled!(v < PANEL_WIDTH / S::LANES => self.dot::<S, B, PANELS>(&mut dots, first + h, p, v))
                })
            });
            unrolled!(p < PANELS => {
                let group = self.at.group.add(p * self.at.panel_step);
                unrolled!(v < PANEL_WIDTH / S::LANES => {
                    let scale = scales[p].scale::<S, B>(group, self.at.part, first, v);
                    unrolled_rows!(r < ROWS => {
                        let dot = S::float(dots[r][p][v]);
                        let factor = S::mul(scale, self.a.scale::<S>(self.block, r));
                        sums[r][p][v] = S::fma(factor, dot, sums[r][p][v]);
                    });
                    if B::MINIMUM {
                        let minimum = scales[p].minimum::<S, B>(group, self.at.part, v);
                        unrolled_rows!(r < ROWS => {
                            sums[r][p][v] = S::fma(minimum, self.a.offset::<S>(self.block, r), sums[r][p][v]);
                        });
                    }
                })
            });
        }
    }

    /// The integer products of half a part: vector `v` of panel `p` with all rows.
    ///
    /// # Safety
    /// As [`Terms::add`].
    #[inline(always)]
    unsafe fn dot<S: Simd, B: Blocks, const PANELS: usize>(
        &self,
        dots: &mut [[[S::I; 4]; PANELS]; ROWS],
        half: usize,
        p: usize,
        v: usize,
    ) {
        // SAFETY: the caller vouches for all of it; prefetched addresses need not be valid.
        unsafe {
            let from = self.at.group.add(p * self.at.panel_step + B::HEADER + self.at.part * B::PART_BYTES);
            if v == 0 && self.at.asks {
                let from = from.add(half * B::PART_BYTES / 2);
                prefetch::<S>(from.wrapping_offset(self.at.offset), B::PART_BYTES / 2);
            }
            let q = quants::<S, B>(from, half, v);
            unrolled!(i < 4 => {
                unrolled_rows!(r < ROWS => {
                    let x = self.a.word::<S>(self.block, r, half, i);
                    dots[r][p][v] = if B::BITS == 8 {
                        S::dot(dots[r][p][v], q[i], x)
                    } else {
                        S::dot_small(dots[r][p][v], q[i], x)
                    };
                })
            });
        }
    }
}

/// Runs one pass.
///
/// # Safety
/// The machine must have the tier; the operands must be valid for `rows` rows and `panels` panels, which must be
/// [`pass_of`] some rows, or a half or a quarter of it.
unsafe fn multiply(tier: Tier, format: BlockFormat, rows: usize, panels: usize, pass: Pass<Lines>) {
    // SAFETY: the caller vouches for everything.
    with_format!(format, B => unsafe { multiply_of::<B>(tier, rows, panels, pass) });
}

/// As [`multiply`], for one format.
///
/// # Safety
/// As [`multiply`].
unsafe fn multiply_of<B: Blocks>(tier: Tier, rows: usize, panels: usize, pass: Pass<Lines>) {
    macro_rules! choose {
        ($($lines:ident($a:ident), $rows:tt x $panels:literal => $kernel:expr;)*) => {
            match (pass.a, rows, panels) {
                // SAFETY: the caller vouches for the tier and the operands.
                $((Lines::$lines($a), $rows, $panels) => unsafe { tier.dispatch($kernel) },)*
                _ => unreachable!("no kernel for {rows} rows and {panels} panels"),
            }
        };
    }
    let format = PhantomData::<B>;
    choose!(
        One(a), 1 x 4 => Multiply::<_, 1, 4> { format, pass: pass.with(Apart([a])) };
        One(a), 1 x 2 => Multiply::<_, 1, 2> { format, pass: pass.with(Apart([a])) };
        One(a), 1 x 1 => Multiply::<_, 1, 1> { format, pass: pass.with(Apart([a])) };
        Two(a), 2 x 4 => Multiply::<_, 2, 4> { format, pass: pass.with(Apart(a)) };
        Two(a), 2 x 2 => Multiply::<_, 2, 2> { format, pass: pass.with(Apart(a)) };
        Two(a), 2 x 1 => Multiply::<_, 2, 1> { format, pass: pass.with(Apart(a)) };
    )
}
