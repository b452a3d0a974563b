//! Activations in bytes against block formats: integer dot products of 32 inputs, scaled and added in f32.
//!
//! A result is one chain over the blocks of its inputs in their order, in every tier and for any number of rows. The products
//! of bytes are exact; what is rounded is the scaling and the addition of each block. The weights are unpacked in registers
//! again for every few rows: a panel that came from memory stays in the caches for the other rows.

use super::ahead::{Ahead, prefetch};
use super::blocks::{Blocks, Scales, quants, with_format};
use super::registers::{Sums, store, unrolled, zero};
use super::weights::panel_bytes;
use super::{GemmArgs, segment_stride};
use crate::pool::Worker;
use crate::tiers::{Kernel, Simd, Tier};
use llamac_formats::panel::blocks::PART;
use llamac_formats::program::Tile;
use llamac_formats::{BlockFormat, DType, PANEL_WIDTH, q8};
use std::marker::PhantomData;

/// The most rows of one pass.
const MAX_ROWS: usize = 4;

/// The most panels of one pass.
const MAX_PANELS: usize = 4;

/// f32 elements of scratch for the tile of one pass with this many segments.
pub(super) fn thread_scratch(segments: usize) -> usize {
    segments * MAX_ROWS * MAX_PANELS * PANEL_WIDTH
}

/// Rows and panels of a pass where so many rows are left: as many sums as there are registers for.
fn pass_of(tier: Tier, rows: usize) -> (usize, usize) {
    match (tier.lanes(), rows) {
        (16, 4..) => (4, 2),
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
    let (_, most) = pass_of(args.tier, args.m);
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
                let (rows, _) = pass_of(args.tier, args.m - row);
                let mut a = [std::ptr::null(); MAX_ROWS];
                for (r, a) in a.iter_mut().enumerate().take(rows) {
                    // SAFETY: the caller vouches for the rows.
                    *a = unsafe { args.row(row + r) };
                }
                for (s, segment) in columns.segments.iter().enumerate() {
                    let DType::Block(format) = segment.dtype else {
                        unreachable!("{} is no block format", segment.dtype)
                    };
                    // SAFETY: the caller vouches for the operands; the sums of all segments fit the scratch.
                    unsafe {
                        let (at, panel_step) = args.panel(segment, begin);
                        let next = columns.segments.get(s + 1).map_or(after, |next| args.panel(next, begin).0);
                        let out = scratch.add(s * rows * row_stride);
                        let bytes = panel_bytes(segment.dtype, args.k);
                        let ahead = Ahead::new(at, bytes, next);
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

/// The operands of a pass.
#[derive(Clone, Copy)]
struct Pass {
    /// The rows' first blocks.
    a: [*const u8; MAX_ROWS],
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

/// One pass: `ROWS` rows times `PANELS` panels.
struct Multiply<B, const ROWS: usize, const PANELS: usize> {
    format: PhantomData<B>,
    pass: Pass,
}

impl<B: Blocks, const ROWS: usize, const PANELS: usize> Kernel for Multiply<B, ROWS, PANELS> {
    type Output = ();
    const BYTES: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Tiers do not all have registers for all shapes; they are never asked for those.
        if ROWS * PANELS * (PANEL_WIDTH / S::LANES) > MAX_PANELS.max(8 * S::LANES / PANEL_WIDTH) {
            unreachable!("too few registers for {ROWS} rows and {PANELS} panels");
        }
        let Pass { a, k, panels: mut group, panel_step, ahead, out, row_stride } = self.pass;
        // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
        unsafe {
            let mut sums: Sums<S, ROWS, PANELS> = zero::<S, ROWS, PANELS>();
            let mut scales = [Scales::EMPTY; PANELS];
            let mut block = 0;
            while block < k / PART {
                let offset = ahead.of(group);
                let mut p = 0;
                while p < PANELS {
                    let at = group.add(p * panel_step);
                    prefetch::<S>(at.wrapping_offset(offset), B::HEADER);
                    scales[p].fill::<S, B>(at);
                    p += 1;
                }
                let parts = (k / PART - block).min(B::PARTS);
                for part in 0..parts {
                    let at = Part { group, panel_step, offset, part, block: (block + part) * q8::BYTES };
                    add_part::<S, B, ROWS, PANELS>(&mut sums, &scales, &a, at);
                }
                block += parts;
                group = group.add(B::GROUP_BYTES);
            }
            store::<S, ROWS, PANELS>(&sums, out, row_stride);
        }
    }
}

/// Which part: of the group that begins at `group` in the first panel, and where its activations are in each row.
#[derive(Clone, Copy)]
struct Part {
    group: *const u8,
    panel_step: usize,
    /// From what is used to what is asked for.
    offset: isize,
    part: usize,
    block: usize,
}

/// Adds the products of 32 inputs.
///
/// # Safety
/// The machine must have the instruction set; the operands must be valid.
#[inline(always)]
unsafe fn add_part<S: Simd, B: Blocks, const ROWS: usize, const PANELS: usize>(
    sums: &mut Sums<S, ROWS, PANELS>,
    scales: &[Scales; PANELS],
    a: &[*const u8; MAX_ROWS],
    at: Part,
) {
    // SAFETY: the caller vouches for all of it; prefetched addresses need not be valid.
    unsafe {
        // Sums of the activations, where a minimum waits for them.
        let mut offsets = [S::zero(); ROWS];
        let mut factors = [S::zero(); ROWS];
        let mut r = 0;
        while r < ROWS {
            let block = a[r].add(at.block);
            let scale = f32_at(block);
            factors[r] = S::splat(scale);
            if B::MINIMUM {
                offsets[r] = S::splat(scale * (sum_at(block, 0) + sum_at(block, 1)) as f32);
            }
            r += 1;
        }
        let terms = Terms { a, at, factors, offsets };
        if B::SCALES == 1 {
            terms.add::<S, B, PANELS>(sums, scales, 0, 2);
        } else {
            terms.add::<S, B, PANELS>(sums, scales, 0, 1);
            terms.add::<S, B, PANELS>(sums, scales, 1, 1);
        }
    }
}

/// What all sums of a part share.
struct Terms<'a, F, const ROWS: usize> {
    a: &'a [*const u8; MAX_ROWS],
    at: Part,
    /// The activations' scales.
    factors: [F; ROWS],
    /// Scale times sum, where the format has a minimum.
    offsets: [F; ROWS],
}

impl<F: Copy, const ROWS: usize> Terms<'_, F, ROWS> {
    /// Adds the products of `halves` halves of a part, from half `first` on, which share a scale.
    ///
    /// # Safety
    /// As [`add_part`].
    #[inline(always)]
    unsafe fn add<S: Simd<F = F>, B: Blocks, const PANELS: usize>(
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
                let mut r = 0;
                while r < ROWS {
                    let block = self.a[r].add(self.at.block);
                    let sum = if halves == 2 { sum_at(block, 0) + sum_at(block, 1) } else { sum_at(block, first) };
                    // What the offset of the quants is worth.
                    dots[r] = [[S::splat_word(-i32::from(B::ZERO) * sum); 4]; PANELS];
                    r += 1;
                }
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
                    unrolled!(r < ROWS => {
                        let dot = S::float(dots[r][p][v]);
                        sums[r][p][v] = S::fma(S::mul(scale, self.factors[r]), dot, sums[r][p][v]);
                    });
                    if B::MINIMUM {
                        let minimum = scales[p].minimum::<S, B>(group, self.at.part, v);
                        unrolled!(r < ROWS => sums[r][p][v] = S::fma(minimum, self.offsets[r], sums[r][p][v]));
                    }
                })
            });
        }
    }

    /// The integer products of half a part: vector `v` of panel `p` with all rows.
    ///
    /// # Safety
    /// As [`add_part`].
    #[inline(always)]
    unsafe fn dot<S: Simd<F = F>, B: Blocks, const PANELS: usize>(
        &self,
        dots: &mut [[[S::I; 4]; PANELS]; ROWS],
        half: usize,
        p: usize,
        v: usize,
    ) {
        // SAFETY: the caller vouches for all of it; prefetched addresses need not be valid.
        unsafe {
            let from = self.at.group.add(p * self.at.panel_step + B::HEADER + self.at.part * B::PART_BYTES);
            if v == 0 {
                let from = from.add(half * B::PART_BYTES / 2);
                prefetch::<S>(from.wrapping_offset(self.at.offset), B::PART_BYTES / 2);
            }
            let q = quants::<S, B>(from, half, v);
            unrolled!(i < 4 => {
                unrolled!(r < ROWS => {
                    let x = self.a[r].add(self.at.block + q8::QUANTS + 16 * half + 4 * i);
                    let x = S::splat_word(i32::from_le(x.cast::<i32>().read_unaligned()));
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

/// The scale of a block of activations.
///
/// # Safety
/// The block must be there.
#[inline(always)]
unsafe fn f32_at(block: *const u8) -> f32 {
    // SAFETY: the caller vouches for it.
    f32::from_bits(u32::from_le(unsafe { block.cast::<u32>().read_unaligned() }))
}

/// The sum of the first or the second half of a block of activations.
///
/// # Safety
/// The block must be there.
#[inline(always)]
unsafe fn sum_at(block: *const u8, half: usize) -> i32 {
    // SAFETY: the caller vouches for it.
    i32::from(i16::from_le(unsafe { block.add(q8::SUMS + 2 * half).cast::<i16>().read_unaligned() }))
}

/// Runs one pass.
///
/// # Safety
/// The machine must have the tier; the operands must be valid for `rows` rows and `panels` panels, which must be
/// [`pass_of`] some rows, or a half or a quarter of it.
unsafe fn multiply(tier: Tier, format: BlockFormat, rows: usize, panels: usize, pass: Pass) {
    // SAFETY: the caller vouches for everything.
    with_format!(format, B => unsafe { multiply_of::<B>(tier, rows, panels, pass) });
}

/// As [`multiply`], for one format.
///
/// # Safety
/// As [`multiply`].
unsafe fn multiply_of<B: Blocks>(tier: Tier, rows: usize, panels: usize, pass: Pass) {
    macro_rules! choose {
        ($($rows:literal x $panels:literal),*) => {
            match (rows, panels) {
                $(($rows, $panels) => {
                    let kernel = Multiply::<B, $rows, $panels> { format: PhantomData, pass };
                    // SAFETY: the caller vouches for the tier and the operands.
                    unsafe { tier.dispatch(kernel) }
                })*
                _ => unreachable!("no kernel for {rows} rows and {panels} panels"),
            }
        };
    }
    choose!(1 x 4, 1 x 2, 1 x 1, 2 x 4, 2 x 2, 2 x 1, 4 x 2, 4 x 1);
}
