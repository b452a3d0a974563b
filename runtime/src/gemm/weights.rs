//! How each element type lies in a panel of sixteen outputs, and how its vectors become f32.

use crate::tiers::{Kernel, Simd};
use llamac_formats::panel::blocks::{group, group_bytes};
use llamac_formats::{DType, PANEL_WIDTH, PanelLayout};

/// An element type of packed weights.
pub(crate) trait Weights: Copy {
    /// Bytes of two inputs for sixteen outputs.
    const PAIR_BYTES: usize;

    /// Vector `v` (outputs `v·LANES..`) of the two inputs whose sixteen outputs start at `pair`.
    ///
    /// # Safety
    /// The machine must have the instruction set; `PAIR_BYTES` bytes must lie at `pair`.
    unsafe fn pair<S: Simd>(pair: *const u8, v: usize) -> (S::F, S::F);

    /// Vector `v` of the first of two inputs; the second may be absent where the type keeps inputs apart.
    ///
    /// # Safety
    /// As [`Weights::pair`], for the first input only.
    unsafe fn single<S: Simd>(pair: *const u8, v: usize) -> S::F;
}

/// f32, `[K][16]`.
#[derive(Clone, Copy)]
pub(crate) struct F32;

/// f16, `[K][16]`.
#[derive(Clone, Copy)]
pub(crate) struct F16;

/// bf16, `[K/2][16][2]`.
#[derive(Clone, Copy)]
pub(crate) struct BF16;

impl Weights for F32 {
    const PAIR_BYTES: usize = 2 * PANEL_WIDTH * 4;

    #[inline(always)]
    unsafe fn pair<S: Simd>(pair: *const u8, v: usize) -> (S::F, S::F) {
        let pair = pair.cast::<f32>();
        // SAFETY: the caller vouches for the instruction set and the bytes.
        unsafe { (S::load(pair.add(v * S::LANES)), S::load(pair.add(PANEL_WIDTH + v * S::LANES))) }
    }

    #[inline(always)]
    unsafe fn single<S: Simd>(pair: *const u8, v: usize) -> S::F {
        // SAFETY: the caller vouches for the instruction set and the bytes.
        unsafe { S::load(pair.cast::<f32>().add(v * S::LANES)) }
    }
}

impl Weights for F16 {
    const PAIR_BYTES: usize = 2 * PANEL_WIDTH * 2;

    #[inline(always)]
    unsafe fn pair<S: Simd>(pair: *const u8, v: usize) -> (S::F, S::F) {
        let pair = pair.cast::<u16>();
        // SAFETY: the caller vouches for the instruction set and the bytes.
        unsafe { (S::f16(pair.add(v * S::LANES)), S::f16(pair.add(PANEL_WIDTH + v * S::LANES))) }
    }

    #[inline(always)]
    unsafe fn single<S: Simd>(pair: *const u8, v: usize) -> S::F {
        // SAFETY: the caller vouches for the instruction set and the bytes.
        unsafe { S::f16(pair.cast::<u16>().add(v * S::LANES)) }
    }
}

impl Weights for BF16 {
    const PAIR_BYTES: usize = 2 * PANEL_WIDTH * 2;

    #[inline(always)]
    unsafe fn pair<S: Simd>(pair: *const u8, v: usize) -> (S::F, S::F) {
        // SAFETY: the caller vouches for the instruction set and the bytes.
        unsafe { S::bf16_pairs(pair.cast::<u16>().add(2 * v * S::LANES)) }
    }

    #[inline(always)]
    unsafe fn single<S: Simd>(pair: *const u8, v: usize) -> S::F {
        // SAFETY: the caller vouches for the instruction set and the bytes.
        unsafe { S::bf16_pairs(pair.cast::<u16>().add(2 * v * S::LANES)).0 }
    }
}

/// Bytes of one panel of `k` inputs.
pub(crate) fn panel_bytes(dtype: DType, k: usize) -> usize {
    PanelLayout { dtype, k }.panel_bytes()
}

/// Byte offset, within a panel, of input `k` (even, and the first of a group of a block format).
#[inline(always)]
pub(crate) const fn offset_of_input(dtype: DType, k: usize) -> usize {
    match dtype {
        DType::Block(format) => k / group(format) * group_bytes(format),
        _ => k * PANEL_WIDTH * dtype.bytes(),
    }
}

/// Bytes of one input of a panel, about.
#[inline(always)]
pub(crate) const fn bytes_of_input(dtype: DType) -> usize {
    match dtype {
        DType::Block(format) => group_bytes(format).div_ceil(group(format)),
        _ => PANEL_WIDTH * dtype.bytes(),
    }
}

/// Widens inputs of one panel to f32 `[k][16]`.
pub(crate) struct Unpack<W> {
    pub(crate) weights: std::marker::PhantomData<W>,
    /// The first input's sixteen outputs.
    pub(crate) from: *const u8,
    /// Inputs.
    pub(crate) k: usize,
    /// Room for `k` rounded up to even, times sixteen.
    pub(crate) to: *mut f32,
}

impl<W: Weights> Kernel for Unpack<W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller vouches for both addresses.
        unsafe {
            let mut k = 0;
            while k + 2 <= self.k {
                let pair = self.from.add(k / 2 * W::PAIR_BYTES);
                let to = self.to.add(k * PANEL_WIDTH);
                let mut v = 0;
                while v < PANEL_WIDTH / S::LANES {
                    let (first, second) = W::pair::<S>(pair, v);
                    S::store(to.add(v * S::LANES), first);
                    S::store(to.add(PANEL_WIDTH + v * S::LANES), second);
                    v += 1;
                }
                k += 2;
            }
            if k < self.k {
                let pair = self.from.add(k / 2 * W::PAIR_BYTES);
                let mut v = 0;
                while v < PANEL_WIDTH / S::LANES {
                    S::store(self.to.add(k * PANEL_WIDTH + v * S::LANES), W::single::<S>(pair, v));
                    v += 1;
                }
            }
        }
    }
}
