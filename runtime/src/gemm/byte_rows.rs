//! How a pass over block weights reads its rows of `q8`: one or two where they lie, more of them packed side by side.
//!
//! Packed, a part (32 inputs) of a block of rows is one piece: what every result of the part needs, ready to be spread over a vector
//! straight from memory.

use super::pack::RowBlocks;
use super::{GemmArgs, Segment};
use crate::pool::Worker;
use crate::tiers::Simd;
use llamac_formats::panel::blocks::PART;
use llamac_formats::{BlockFormat, DType, q8};

/// Rows where they lie.
#[derive(Clone, Copy)]
pub(super) struct Apart<const ROWS: usize>(pub(super) [*const u8; ROWS]);

impl<const ROWS: usize> Apart<ROWS> {
    #[inline(always)]
    fn block(&self, part: usize, row: usize) -> *const u8 {
        self.0[row].wrapping_add(part * q8::BYTES)
    }
}

/// What a kernel reads of the rows.
///
/// # Safety
/// For all four: the machine must have the instruction set; the part and the row must exist.
impl<const ROWS: usize> Apart<ROWS> {
    /// The scale of a row's block.
    #[inline(always)]
    pub(super) unsafe fn scale<S: Simd>(&self, part: usize, row: usize) -> S::F {
        // SAFETY: the caller vouches for the block and the instruction set.
        unsafe { S::splat(scale(self.block(part, row))) }
    }

    /// The scale times the sum of the integers.
    #[inline(always)]
    pub(super) unsafe fn offset<S: Simd>(&self, part: usize, row: usize) -> S::F {
        let block = self.block(part, row);
        // SAFETY: as above.
        unsafe { S::splat(offset(block)) }
    }

    /// What an offset `zero` of the weights is worth: `−zero` times the sum of the integers, of the whole part or of one half of it.
    #[inline(always)]
    pub(super) unsafe fn correction<S: Simd>(&self, part: usize, row: usize, half: Option<usize>, zero: u8) -> S::I {
        let block = self.block(part, row);
        // SAFETY: as above.
        unsafe { S::splat_word(-i32::from(zero) * sum(block, half)) }
    }

    /// Four integers of inputs `16·half + 4·i ..`.
    #[inline(always)]
    pub(super) unsafe fn word<S: Simd>(&self, part: usize, row: usize, half: usize, i: usize) -> S::I {
        // SAFETY: as above.
        unsafe { S::splat_word(word(self.block(part, row), 4 * half + i)) }
    }
}

/// Where the integers of a row's part begin among its packed words of 32 bits, four to a word.
pub(super) const INTEGERS: usize = 0;

/// The word of the scale.
pub(super) const SCALE: usize = q8::ELEMENTS / 4;

/// Words that every format needs.
const COMMON: usize = SCALE + 1;

/// A word that only some formats of weights need.
#[derive(Clone, Copy, PartialEq)]
enum Extra {
    /// The scale times the sum of the integers.
    Offset,
    /// What an offset of the weights is worth: `−zero` times the sum of the integers, of the whole part or of one half of it.
    Correction(u8, Option<usize>),
}

/// All that there are; the two halves follow each other.
const EXTRAS: [Extra; 6] = [
    Extra::Offset,
    Extra::Correction(8, None),
    Extra::Correction(16, None),
    Extra::Correction(128, None),
    Extra::Correction(32, Some(0)),
    Extra::Correction(32, Some(1)),
];

/// The words of a row's part: `[word][rows of the block]`, with those that some weights of the product need.
pub(super) struct Layout {
    has: [bool; EXTRAS.len()],
}

impl Layout {
    /// For weights of the formats of these segments.
    pub(super) fn of(segments: &[Segment]) -> Layout {
        let needs = |extra: Extra| {
            segments.iter().any(|s| {
                let DType::Block(format) = s.dtype else { return false };
                first_of(format) == extra || matches!((first_of(format), extra), (Extra::Correction(a, Some(_)), Extra::Correction(b, Some(_))) if a == b)
            })
        };
        Layout { has: EXTRAS.map(needs) }
    }

    /// The word where those that a format needs beside the common ones begin.
    pub(super) fn of_format(&self, format: BlockFormat) -> usize {
        let before = EXTRAS.iter().zip(self.has).take_while(|(extra, _)| **extra != first_of(format));
        COMMON + before.filter(|(_, has)| *has).count()
    }

    /// Words of a row's part.
    fn words(&self) -> usize {
        COMMON + self.has.iter().filter(|has| **has).count()
    }

    /// Bytes of a part of so many rows.
    pub(super) fn bytes(&self, rows: usize) -> usize {
        4 * self.words() * rows
    }
}

/// The first word that a format needs beside the common ones.
fn first_of(format: BlockFormat) -> Extra {
    match format.zero() {
        0 => Extra::Offset,
        zero => Extra::Correction(zero, (format.part() < PART).then_some(0)),
    }
}

/// Where a packed block of rows of so many parts begins.
pub(super) fn block(packed: *const u8, parts: usize, first: usize, layout: &Layout) -> *const u8 {
    packed.wrapping_add(parts * layout.bytes(first))
}

/// Parts that a task packs.
const TASK: usize = 64;

/// Packs all rows together with the other workers, `[block of rows][part][word][rows of the block]`; complete after the next barrier.
///
/// # Safety
/// As [`super::gemm`]: the activations must be there, and room for `m × k` f32.
pub(super) unsafe fn pack(worker: &Worker, args: &GemmArgs, blocks: RowBlocks, layout: &Layout) {
    let parts = args.k / PART;
    let tasks = parts.div_ceil(TASK);
    let words = layout.words();
    worker.share(blocks.count() * tasks, |task| {
        let (first, rows) = blocks.block(task / tasks);
        let to = block(args.packed.cast(), parts, first, layout).cast_mut().cast::<u32>();
        for r in 0..rows {
            // SAFETY: the caller vouches for the rows.
            let row = unsafe { args.row(first + r) };
            for part in task % tasks * TASK..parts.min((task % tasks + 1) * TASK) {
                // SAFETY: the caller vouches for the row's blocks and the room.
                unsafe {
                    let from = row.add(part * q8::BYTES);
                    let to = to.add(part * words * rows + r);
                    for i in 0..q8::ELEMENTS / 4 {
                        to.add((INTEGERS + i) * rows).write(word(from, i).cast_unsigned());
                    }
                    to.add(SCALE * rows).write(scale(from).to_bits());
                    let extras = EXTRAS.iter().zip(layout.has).filter(|(_, has)| *has);
                    for (at, (extra, _)) in (COMMON..).zip(extras) {
                        let extra = match *extra {
                            Extra::Offset => offset(from).to_bits(),
                            Extra::Correction(zero, half) => (-i32::from(zero) * sum(from, half)).cast_unsigned(),
                        };
                        to.add(at * rows).write(extra);
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
