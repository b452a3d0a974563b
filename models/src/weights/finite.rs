//! Values that are no numbers.

use llamac_ir::{DType, TensorView};

/// How many values of a tensor are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// NaNs.
    pub nan: usize,
    /// Infinities.
    pub infinite: usize,
    /// The first of either, as an index into the row-major elements.
    pub first: usize,
}

/// Counts NaNs and infinities; `None` where every value is finite. One pass at memory speed where that is so.
pub fn not_finite(view: &TensorView<'_>) -> Option<NotFinite> {
    match view.dtype {
        DType::F32 => scan::<4>(view.bytes, u32::from_le_bytes, 0x7f80_0000, 0x007f_ffff),
        DType::F16 => scan::<2>(view.bytes, |b| u16::from_le_bytes(b).into(), 0x7c00, 0x03ff),
        DType::BF16 => scan::<2>(view.bytes, |b| u16::from_le_bytes(b).into(), 0x7f80, 0x007f),
        DType::I32 | DType::Bool => None,
    }
}

/// A float whose exponent is all ones is an infinity where the mantissa is 0 and NaN elsewhere.
fn scan<const N: usize>(
    bytes: &[u8],
    bits: impl Fn([u8; N]) -> u32,
    exponent: u32,
    mantissa: u32,
) -> Option<NotFinite> {
    let (elements, _) = bytes.as_chunks::<N>();
    // Blocks without a branch inside: they become vector code.
    let special = |block: &[[u8; N]]| block.iter().map(|&e| u32::from(bits(e) & exponent == exponent)).sum::<u32>();
    let clean = elements.chunks(4096).take_while(|block| special(block) == 0).map(<[_]>::len).sum::<usize>();
    let rest = &elements[clean..];
    let first = clean + rest.iter().position(|&e| bits(e) & exponent == exponent)?;
    let mut found = NotFinite { nan: 0, infinite: 0, first };
    for bits in rest.iter().map(|&e| bits(e)).filter(|b| b & exponent == exponent) {
        if bits & mantissa == 0 {
            found.infinite += 1;
        } else {
            found.nan += 1;
        }
    }
    Some(found)
}
