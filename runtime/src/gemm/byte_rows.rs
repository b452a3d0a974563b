//! How a pass over block weights reads its rows of `q8`: one or two where they lie, more of them packed side by side.
//!
//! Packed, a part (32 inputs) of `ROWS` rows is one piece: what every result of the part needs, ready to be spread over a vector
//! straight from memory.

use super::GemmArgs;
use crate::pool::Worker;
use crate::tiers::Simd;
use llamac_formats::panel::blocks::PART;
use llamac_formats::q8;

/// Rows of a pass, as the kernel reads them.
pub(super) trait Rows: Copy {
    /// The scale of a row's block.
    ///
    /// # Safety
    /// For all four: the machine must have the instruction set; the part and the row must exist.
    unsafe fn scale<S: Simd>(&self, part: usize, row: usize) -> S::F;
    /// The scale times the sum of the integers.
    unsafe fn offset<S: Simd>(&self, part: usize, row: usize) -> S::F;
    /// What an offset `zero` of the weights is worth: `−zero` times the sum of the integers, of the whole part or of one
    /// half of it.
    unsafe fn correction<S: Simd>(&self, part: usize, row: usize, half: Option<usize>, zero: u8) -> S::I;
    /// Four integers of inputs `16·half + 4·i ..`.
    unsafe fn word<S: Simd>(&self, part: usize, row: usize, half: usize, i: usize) -> S::I;
}

/// Rows where they lie.
#[derive(Clone, Copy)]
pub(super) struct Apart<const ROWS: usize>(pub(super) [*const u8; ROWS]);

impl<const ROWS: usize> Apart<ROWS> {
    #[inline(always)]
    fn block(&self, part: usize, row: usize) -> *const u8 {
        self.0[row].wrapping_add(part * q8::BYTES)
    }
}

impl<const ROWS: usize> Rows for Apart<ROWS> {
    #[inline(always)]
    unsafe fn scale<S: Simd>(&self, part: usize, row: usize) -> S::F {
        // SAFETY: the caller vouches for the block and the instruction set.
        unsafe { S::splat(scale(self.block(part, row))) }
    }

    #[inline(always)]
    unsafe fn offset<S: Simd>(&self, part: usize, row: usize) -> S::F {
        let block = self.block(part, row);
        // SAFETY: as above.
        unsafe { S::splat(offset(block)) }
    }

    #[inline(always)]
    unsafe fn correction<S: Simd>(&self, part: usize, row: usize, half: Option<usize>, zero: u8) -> S::I {
        let block = self.block(part, row);
        // SAFETY: as above.
        unsafe { S::splat_word(-i32::from(zero) * sum(block, half)) }
    }

    #[inline(always)]
    unsafe fn word<S: Simd>(&self, part: usize, row: usize, half: usize, i: usize) -> S::I {
        // SAFETY: as above.
        unsafe { S::splat_word(word(self.block(part, row), 4 * half + i)) }
    }
}

/// Rows packed by [`pack`].
#[derive(Clone, Copy)]
pub(super) struct Together<const ROWS: usize>(pub(super) *const u8);

/// Offsets of the weights of which a packed part has the corrections, with the half where one is for a half: all that there are.
const CORRECTIONS: [(u8, Option<usize>); 5] = [(8, None), (16, None), (128, None), (32, Some(0)), (32, Some(1))];

/// Where the integers begin among the words of 32 bits that a packed part has for each row: after the scale, the offset and the corrections.
const INTEGERS: usize = 2 + CORRECTIONS.len();

/// Words that a packed part has for each row.
const WORDS: usize = INTEGERS + q8::ELEMENTS / 4;

/// The word of a correction.
const fn correction_word(zero: u8, half: Option<usize>) -> usize {
    match (zero, half) {
        (8, None) => 2,
        (16, None) => 3,
        (128, None) => 4,
        (32, Some(0)) => 5,
        (32, Some(_)) => 6,
        _ => panic!("no format has such an offset"),
    }
}

impl<const ROWS: usize> Together<ROWS> {
    /// Word `i` of a row.
    #[inline(always)]
    fn at(&self, part: usize, row: usize, i: usize) -> *const u8 {
        self.0.wrapping_add(4 * ((part * WORDS + i) * ROWS + row))
    }
}

impl<const ROWS: usize> Rows for Together<ROWS> {
    #[inline(always)]
    unsafe fn scale<S: Simd>(&self, part: usize, row: usize) -> S::F {
        // SAFETY: the caller vouches for the part and the instruction set.
        unsafe { S::splat(self.at(part, row, 0).cast::<f32>().read()) }
    }

    #[inline(always)]
    unsafe fn offset<S: Simd>(&self, part: usize, row: usize) -> S::F {
        // SAFETY: as above.
        unsafe { S::splat(self.at(part, row, 1).cast::<f32>().read()) }
    }

    #[inline(always)]
    unsafe fn correction<S: Simd>(&self, part: usize, row: usize, half: Option<usize>, zero: u8) -> S::I {
        // SAFETY: as above.
        unsafe { S::splat_word(self.at(part, row, correction_word(zero, half)).cast::<i32>().read()) }
    }

    #[inline(always)]
    unsafe fn word<S: Simd>(&self, part: usize, row: usize, half: usize, i: usize) -> S::I {
        // SAFETY: as above.
        unsafe { S::splat_word(self.at(part, row, INTEGERS + 4 * half + i).cast::<i32>().read()) }
    }
}

/// The most rows side by side.
pub(super) const BLOCK: usize = 8;

/// How many of `m` rows are packed side by side. The last rows may be fewer than that: then the very last is repeated, which takes less
/// time than passes of fewer rows.
pub(super) fn side_by_side(m: usize) -> usize {
    if m > BLOCK / 2 { BLOCK } else { BLOCK / 2 }
}

/// Where a packed block of rows begins.
pub(super) fn block(packed: *const u8, k: usize, first: usize) -> *const u8 {
    packed.wrapping_add(first * (k / PART) * WORDS * 4)
}

/// Parts that a task packs.
const TASK: usize = 64;

/// Packs all rows together with the other workers, as many [`side_by_side`] as that says; complete after the next barrier.
///
/// # Safety
/// As [`super::gemm`]: the activations must be there, and room for `m × k` f32 where `m` is at least 3.
pub(super) unsafe fn pack(worker: &Worker, args: &GemmArgs) {
    let parts = args.k / PART;
    let tasks = parts.div_ceil(TASK);
    let rows = side_by_side(args.m);
    worker.share(args.m.div_ceil(rows) * tasks, |task| {
        let first = task / tasks * rows;
        let to = block(args.packed.cast(), args.k, first).cast_mut().cast::<u32>();
        for r in 0..rows {
            // SAFETY: the caller vouches for the rows.
            let row = unsafe { args.row((first + r).min(args.m - 1)) };
            for part in task % tasks * TASK..parts.min((task % tasks + 1) * TASK) {
                // SAFETY: the caller vouches for the row's blocks and the room.
                unsafe {
                    let from = row.add(part * q8::BYTES);
                    let to = to.add(part * WORDS * rows + r);
                    to.write(scale(from).to_bits());
                    to.add(rows).write(offset(from).to_bits());
                    for (zero, half) in CORRECTIONS {
                        let correction = -i32::from(zero) * sum(from, half);
                        to.add(correction_word(zero, half) * rows).write(correction.cast_unsigned());
                    }
                    for i in 0..q8::ELEMENTS / 4 {
                        to.add((INTEGERS + i) * rows).write(word(from, i).cast_unsigned());
                    }
                }
            }
        }
    });
}

/// The scale of a block of activations.
///
/// # Safety
/// Here and below: the block must be there.
#[inline(always)]
unsafe fn scale(block: *const u8) -> f32 {
    // SAFETY: the caller vouches for it.
    f32::from_bits(u32::from_le(unsafe { block.cast::<u32>().read_unaligned() }))
}

/// The sum of the integers of a block, or of one half of it.
#[inline(always)]
unsafe fn sum(block: *const u8, half: Option<usize>) -> i32 {
    // SAFETY: the caller vouches for it.
    let of =
        |half: usize| i32::from(i16::from_le(unsafe { block.add(q8::SUMS + 2 * half).cast::<i16>().read_unaligned() }));
    half.map_or_else(|| of(0) + of(1), of)
}

/// The scale times the sum.
#[inline(always)]
unsafe fn offset(block: *const u8) -> f32 {
    // SAFETY: the caller vouches for it.
    unsafe { scale(block) * sum(block, None) as f32 }
}

/// Four integers of a block.
#[inline(always)]
unsafe fn word(block: *const u8, i: usize) -> i32 {
    // SAFETY: the caller vouches for it.
    i32::from_le(unsafe { block.add(q8::QUANTS + 4 * i).cast::<i32>().read_unaligned() })
}
