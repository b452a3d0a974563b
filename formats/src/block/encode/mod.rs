//! From numbers to blocks: the search for the least squared error.
//!
//! Every format alternates two exact steps from several starting points: the nearest quants for given scales, and the
//! best scales (least squares) for given quants. Scales are rounded to what the block stores *before* the last choice of
//! quants, so the quants fit the scales that a reader will see. The result depends on the numbers alone: the order of
//! every sum is fixed, and nothing is fused or timed.

mod affine;
mod fit;
mod k_affine;
mod k_symmetric;
mod symmetric;

use super::{BlockFormat, Fields};
use half::f16;

/// The greatest finite f16.
const F16_MAX: f32 = 65504.0;
/// The least positive f16.
const F16_MIN: f32 = 1.0 / (1 << 24) as f32;

impl BlockFormat {
    /// Encodes whole blocks of a row with the least squared error that the search finds: in blocks of 32 never more than
    /// the plain scale of the block's extremes leaves, and over a tensor less than llama.cpp's quantiser without
    /// importance weights.
    ///
    /// Deterministic, on every machine. Numbers too large for the format saturate; a block too small for it becomes zeros.
    /// A block holds no NaN and no infinity: here NaN counts as zero and infinities saturate. A caller to whom they are an
    /// error must look for them before.
    ///
    /// # Panics
    /// If `row` is no whole number of blocks or `blocks` is not as long as their bytes.
    pub fn encode(self, row: &[f32], blocks: &mut [u8]) {
        let count = row.len() / self.elements();
        assert_eq!(row.len(), count * self.elements(), "{self} blocks must be whole");
        assert_eq!(blocks.len(), count * self.bytes(), "bytes of {count} {self} blocks");
        let mut fields = Fields::default();
        for (row, block) in row.chunks_exact(self.elements()).zip(blocks.chunks_exact_mut(self.bytes())) {
            match self {
                BlockFormat::Q8_0 => symmetric::encode_8(&self.sanitise(row), &mut fields),
                BlockFormat::Q4_0 => symmetric::encode::<8>(&self.sanitise(row), &mut fields),
                BlockFormat::Q5_0 => symmetric::encode::<16>(&self.sanitise(row), &mut fields),
                BlockFormat::Q4_1 => affine::encode::<15>(&self.sanitise(row), &mut fields),
                BlockFormat::Q5_1 => affine::encode::<31>(&self.sanitise(row), &mut fields),
                BlockFormat::Q4K => k_affine::encode::<15>(&self.sanitise(row), &mut fields),
                BlockFormat::Q5K => k_affine::encode::<31>(&self.sanitise(row), &mut fields),
                BlockFormat::Q6K => k_symmetric::encode(&self.sanitise(row), &mut fields),
            }
            self.join(&fields, block);
        }
    }

    /// The greatest magnitude that a block can hold on both sides of zero.
    fn greatest(self) -> f32 {
        match self {
            BlockFormat::Q8_0 => F16_MAX * 127.0,
            BlockFormat::Q4_0 => F16_MAX * 7.0,
            BlockFormat::Q5_0 => F16_MAX * 15.0,
            // The minimum alone bounds the negative side.
            BlockFormat::Q4_1 | BlockFormat::Q5_1 => F16_MAX,
            BlockFormat::Q4K | BlockFormat::Q5K => F16_MAX * 63.0,
            BlockFormat::Q6K => F16_MAX * 127.0 * 31.0,
        }
    }

    /// Copies a block's numbers so that the search cannot overflow or divide by nothing: within the format's range, and all
    /// zero if none of them is nearer to the least f16 than to zero.
    fn sanitise<const N: usize>(self, row: &[f32]) -> [f32; N] {
        let limit = self.greatest();
        let mut x = [0.0; N];
        let mut largest = 0.0f32;
        for (x, &given) in x.iter_mut().zip(row) {
            *x = if given.is_nan() { 0.0 } else { given.clamp(-limit, limit) };
            largest = largest.max(x.abs());
        }
        if largest <= 0.5 * F16_MIN { [0.0; N] } else { x }
    }
}

/// The nearest f16 that is finite, and nonzero unless `x` is zero: a scale that vanished would lose its whole block.
fn storable(x: f32) -> f16 {
    let nearest = f16::from_f32(x.clamp(-F16_MAX, F16_MAX));
    if x != 0.0 && nearest.to_f32() == 0.0 { f16::from_f32(F16_MIN.copysign(x)) } else { nearest }
}

/// `1/x`, or 0 for 0.
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}
