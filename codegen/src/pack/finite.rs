//! Values that are no numbers.

use llamac_formats::DType;
use llamac_formats::block::BlockFormat;

/// How many values of a tensor are not finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// The tensor's name in the source.
    pub tensor: String,
    /// NaNs.
    pub nan: usize,
    /// Infinities.
    pub infinite: usize,
    /// The first of either, as an index into the tensor's row-major elements.
    pub first: usize,
}

/// What is not finite among some elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) nan: usize,
    pub(super) infinite: usize,
    pub(super) first: usize,
}

impl Found {
    /// Both together, where the indices of both count from the same start.
    pub(super) fn and(self, other: Found) -> Found {
        Found {
            nan: self.nan + other.nan,
            infinite: self.infinite + other.infinite,
            first: self.first.min(other.first),
        }
    }

    /// The same with indices that count from `start` elements before.
    pub(super) fn after(self, start: usize) -> Found {
        Found { first: start + self.first, ..self }
    }
}

/// Looks through elements that have just been touched: vector speed where all are finite.
pub(super) fn not_finite(dtype: DType, bytes: &[u8]) -> Option<Found> {
    match dtype {
        DType::F32 => scan::<u32, 4>(bytes, u32::from_le_bytes, 0x7f80_0000, 0x007f_ffff),
        DType::F16 => scan::<u16, 2>(bytes, u16::from_le_bytes, 0x7c00, 0x03ff),
        DType::BF16 => scan::<u16, 2>(bytes, u16::from_le_bytes, 0x7f80, 0x007f),
        DType::Block(format) => scan_blocks(format, bytes),
        DType::I32 | DType::Bool | DType::Q8 => None,
    }
}

/// Quants are integers: an element is no number only where a scale or a minimum of its block is none.
fn scan_blocks(format: BlockFormat, bytes: &[u8]) -> Option<Found> {
    let mut values = [0.0; 256];
    let values = &mut values[..format.elements()];
    let mut found: Option<Found> = None;
    for (at, block) in bytes.chunks_exact(format.bytes()).enumerate() {
        let special = |&at: &usize| u16::from_le_bytes([block[at], block[at + 1]]) & 0x7c00 == 0x7c00;
        if !format.factors().iter().any(special) {
            continue;
        }
        format.decode(block, values);
        let count = |of: fn(f32) -> bool| values.iter().filter(|&&v| of(v)).count();
        let Some(first) = values.iter().position(|v| !v.is_finite()) else { continue };
        let first = at * values.len() + first;
        let new = Found { nan: count(f32::is_nan), infinite: count(f32::is_infinite), first };
        found = Some(found.map_or(new, |old| old.and(new)));
    }
    found
}

/// A float whose exponent is all ones is an infinity where the mantissa is 0 and NaN elsewhere.
fn scan<T, const N: usize>(bytes: &[u8], bits: impl Fn([u8; N]) -> T, exponent: T, mantissa: T) -> Option<Found>
where
    T: Copy + PartialEq + Default + std::ops::BitAnd<Output = T>,
{
    let (elements, _) = bytes.as_chunks::<N>();
    let special = |&e: &[u8; N]| bits(e) & exponent == exponent;
    // No branch inside a block: it becomes vector code.
    let any = |block: &[[u8; N]]| block.iter().fold(false, |any, e| any | special(e));
    if !elements.chunks(1024).any(any) {
        return None;
    }
    let first = elements.iter().position(special)?;
    let (mut nan, mut infinite) = (0, 0);
    for &e in elements[first..].iter().filter(|e| special(e)) {
        if bits(e) & mantissa == T::default() {
            infinite += 1;
        } else {
            nan += 1;
        }
    }
    Some(Found { nan, infinite, first })
}
