//! How the elements of keys and values lie in a row of the cache, one head of one token.

use crate::tiers::Simd;
use llamac_formats::{DType, q8};

/// An element type of the cache.
pub(super) trait Elements: Copy {
    /// Whether rows can be read as f32 where they lie.
    const WIDE: bool;

    /// Bytes of a row.
    fn row_bytes(head_dim: usize) -> usize;

    /// The elements `d..d + n` as f32, `n ≤ LANES`; the other lanes are 0. Whole vectors start at multiples of them.
    ///
    /// # Safety
    /// The machine must have the instruction set, and the row the elements.
    unsafe fn load<S: Simd>(row: *const u8, d: usize, n: usize) -> S::F;
}

/// IEEE 754 binary32.
#[derive(Clone, Copy)]
pub(super) struct F32;

/// The upper halves of binary32.
#[derive(Clone, Copy)]
pub(super) struct Bf16;

/// Blocks of eight-bit integers.
#[derive(Clone, Copy)]
pub(super) struct Q8;

impl Elements for F32 {
    const WIDE: bool = true;

    #[inline(always)]
    fn row_bytes(head_dim: usize) -> usize {
        head_dim * 4
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(row: *const u8, d: usize, n: usize) -> S::F {
        // SAFETY: the caller vouches for the elements.
        unsafe {
            let from = row.cast::<f32>().add(d);
            if n < S::LANES { S::load_first(from, n) } else { S::load(from) }
        }
    }
}

impl Elements for Bf16 {
    const WIDE: bool = false;

    #[inline(always)]
    fn row_bytes(head_dim: usize) -> usize {
        head_dim * 2
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(row: *const u8, d: usize, n: usize) -> S::F {
        // SAFETY: the caller vouches for the elements; a part of a vector is copied to a whole one.
        unsafe {
            let from = row.cast::<u16>().add(d);
            if n < S::LANES {
                let mut first = [0u16; 16];
                let mut i = 0;
                while i < n {
                    first[i] = *from.add(i);
                    i += 1;
                }
                S::bf16(first.as_ptr())
            } else {
                S::bf16(from)
            }
        }
    }
}

impl Elements for Q8 {
    const WIDE: bool = false;

    #[inline(always)]
    fn row_bytes(head_dim: usize) -> usize {
        head_dim / q8::ELEMENTS * q8::BYTES
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(row: *const u8, d: usize, _: usize) -> S::F {
        // SAFETY: the caller vouches for the elements. Rows are whole blocks, so whole vectors, none of which leaves a block.
        unsafe {
            let block = row.add(d / q8::ELEMENTS * q8::BYTES);
            let quants = S::i8(block.add(q8::QUANTS + d % q8::ELEMENTS).cast());
            S::mul(quants, S::splat(block.cast::<f32>().read_unaligned()))
        }
    }
}

/// Calls a generic function with the elements of a type.
macro_rules! with_elements {
    ($dtype:expr, $elements:ident => $call:expr) => {
        match $dtype {
            llamac_formats::DType::BF16 => {
                type $elements = crate::attention::elements::Bf16;
                $call
            }
            llamac_formats::DType::Q8 => {
                type $elements = crate::attention::elements::Q8;
                $call
            }
            _ => {
                type $elements = crate::attention::elements::F32;
                $call
            }
        }
    };
}
pub(super) use with_elements;

/// Whether a cache may have this type with heads so wide.
pub fn is_cache(dtype: DType, head_dim: usize) -> bool {
    match dtype {
        DType::F32 | DType::BF16 => true,
        DType::Q8 => head_dim.is_multiple_of(q8::ELEMENTS),
        _ => false,
    }
}

/// Bytes of a row of the cache, of a type that [`is_cache`].
pub(super) fn row_bytes(dtype: DType, head_dim: usize) -> usize {
    with_elements!(dtype, E => E::row_bytes(head_dim))
}
