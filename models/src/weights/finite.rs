//! Values that are no numbers.

use llamac_formats::BlockFormat;
use llamac_formats::block::Fields;
use llamac_ir::{DType, TensorSource, TensorView};

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
        DType::Block(format) => scan_blocks(format, view.bytes),
        DType::I32 | DType::Bool | DType::Q8 => None,
    }
}

/// Quants are integers: an element is no number only where a scale or a minimum of its block is none.
fn scan_blocks(format: BlockFormat, bytes: &[u8]) -> Option<NotFinite> {
    const EXPONENT: u16 = 0x7c00;
    let mut fields = Fields::default();
    let mut values = vec![0.0; format.elements()];
    let mut all: Option<NotFinite> = None;
    for (block, bytes) in bytes.chunks_exact(format.bytes()).enumerate() {
        format.split(bytes, &mut fields);
        if fields.d & EXPONENT != EXPONENT && fields.m & EXPONENT != EXPONENT {
            continue;
        }
        format.decode_fields(&fields, &mut values);
        let Some(first) = values.iter().position(|v: &f32| !v.is_finite()) else { continue };
        let all = all.get_or_insert(NotFinite { nan: 0, infinite: 0, first: block * values.len() + first });
        all.nan += values.iter().filter(|v| v.is_nan()).count();
        all.infinite += values.iter().filter(|v| v.is_infinite()).count();
    }
    all
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

/// Bytes scanned before their pages are let go.
const BLOCK: usize = 16 << 20;

/// Scans the named tensors of a source and tells which hold values that are not finite, in the order of the names. Pages
/// go as the scan passes, so that memory stays small however large the tensors are. Names that the source does not know
/// are skipped.
pub fn not_finite_tensors<'a>(
    source: &dyn TensorSource,
    names: impl IntoIterator<Item = &'a str>,
) -> Vec<(&'a str, NotFinite)> {
    names.into_iter().filter_map(|name| Some((name, not_finite_in_blocks(source, name)?))).collect()
}

fn not_finite_in_blocks(source: &dyn TensorSource, name: &str) -> Option<NotFinite> {
    let view = source.tensor(name)?;
    let mut all: Option<NotFinite> = None;
    // Whole blocks of a block format.
    let (elements, bytes_of) = view.dtype.block();
    let size = BLOCK / bytes_of * bytes_of;
    for (block, bytes) in view.bytes.chunks(size).enumerate() {
        let here = not_finite(&TensorView { bytes, ..view });
        if let Some(here) = here {
            let first = block * (BLOCK / bytes_of) * elements + here.first;
            let all = all.get_or_insert(NotFinite { nan: 0, infinite: 0, first });
            all.nan += here.nan;
            all.infinite += here.infinite;
        }
        source.release_part(name, block * size..(block + 1) * size);
    }
    all
}
