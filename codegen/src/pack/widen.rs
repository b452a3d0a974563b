//! Elements as they are, or widened to f32.

use llamac_formats::DType;

/// Writes the elements of `from` as `to`: the same type, or f32 from f16 or bf16, which is exact.
///
/// # Panics
/// If the lengths do not belong together, or for other types.
pub(super) fn convert(from: DType, input: &[u8], to: DType, out: &mut [u8]) {
    match (from, to) {
        _ if from == to => out.copy_from_slice(input),
        (DType::F16, DType::F32) => widen(input, out, f16_bits),
        (DType::BF16, DType::F32) => widen(input, out, |bits| u32::from(bits) << 16),
        _ => unreachable!("no recipe turns {from} into {to}"),
    }
}

fn widen(input: &[u8], out: &mut [u8], f32_bits: impl Fn(u16) -> u32) {
    let (input, _) = input.as_chunks::<2>();
    let (out, _) = out.as_chunks_mut::<4>();
    assert_eq!(input.len(), out.len());
    for (&narrow, wide) in input.iter().zip(out) {
        *wide = f32_bits(u16::from_le_bytes(narrow)).to_le_bytes();
    }
}

/// The bits of an f16's value as f32. Selections instead of branches, so that it becomes vector code, and no arithmetic
/// on subnormal numbers, which is slow.
fn f16_bits(bits: u16) -> u32 {
    const REBIAS: u32 = (127 - 15) << 23;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let value = match bits & 0x7c00 {
        // Infinities and NaNs keep their mantissa and get the largest exponent.
        0x7c00 => magnitude + 2 * REBIAS,
        // Subnormals are multiples of 2⁻²⁴.
        0 => (i32::from(bits & 0x03ff) as f32 * (1.0 / 16_777_216.0)).to_bits(),
        _ => magnitude + REBIAS,
    };
    value | u32::from(bits & 0x8000) << 16
}
