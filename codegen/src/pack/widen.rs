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

/// The bits of an f16's value as f32. Without a branch, so that it becomes vector code.
fn f16_bits(bits: u16) -> u32 {
    // The exponent is rebiased by a multiplication, which also normalises subnormals.
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 127 - 15) << 23);
    // Infinities and NaNs keep their mantissa and get the largest exponent.
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    magnitude.to_bits() | special | u32::from(bits & 0x8000) << 16
}
