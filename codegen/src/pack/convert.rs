//! Elements as they are, or converted to another type.
//!
//! Every conversion but a copy decodes exactly to f32 and rounds once to what the weight holds. Sixteen-bit floats widen in
//! vectors; all else goes through a piece of f32 that stays in the first-level cache.

use half::{bf16, f16};
use llamac_formats::DType;

/// Elements that are converted at a time: whole blocks of every format.
const PIECE: usize = 256;

/// What was lost when elements were rounded to blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Loss {
    /// The sum of squared errors.
    pub(super) error: f64,
    /// The sum of squares.
    pub(super) square: f64,
}

impl Loss {
    /// Both together.
    pub(super) fn and(self, other: Loss) -> Loss {
        Loss { error: self.error + other.error, square: self.square + other.square }
    }
}

/// Writes the elements of `from` as `to`: whole blocks of both. Tells the loss where `to` is a block format.
///
/// # Panics
/// If the lengths do not belong together, or for types that no weight has.
pub(super) fn convert(from: DType, input: &[u8], to: DType, out: &mut [u8]) -> Option<Loss> {
    match (from, to) {
        _ if from == to => out.copy_from_slice(input),
        (DType::F16, DType::F32) => widen(input, out, f16_bits),
        (DType::BF16, DType::F32) => widen(input, out, |bits| u32::from(bits) << 16),
        _ => return through_f32(from, input, to, out),
    }
    None
}

fn through_f32(from: DType, input: &[u8], to: DType, out: &mut [u8]) -> Option<Loss> {
    let bytes = |dtype: DType| dtype.storage(PIECE).unwrap_or(usize::MAX);
    let (mut values, mut stored) = ([0.0f32; PIECE], [0.0f32; PIECE]);
    let mut loss: Option<Loss> = None;
    for (input, out) in input.chunks(bytes(from)).zip(out.chunks_mut(bytes(to))) {
        let (elements, size) = from.block();
        let values = &mut values[..input.len() / size * elements];
        decode(from, input, values);
        encode(to, values, out);
        if let DType::Block(format) = to {
            let stored = &mut stored[..values.len()];
            format.decode(out, stored);
            let mut piece = Loss::default();
            for (&x, &y) in values.iter().zip(stored.iter()) {
                let (x, d) = (f64::from(x), f64::from(x) - f64::from(y));
                piece = piece.and(Loss { error: d * d, square: x * x });
            }
            loss = Some(loss.unwrap_or_default().and(piece));
        }
    }
    loss
}

/// The values of elements, exactly.
pub(super) fn decode(from: DType, input: &[u8], out: &mut [f32]) {
    match from {
        DType::F32 => {
            for (out, bytes) in out.iter_mut().zip(input.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        DType::F16 | DType::BF16 => {
            for (out, &bytes) in out.iter_mut().zip(input.as_chunks::<2>().0) {
                let bits = u16::from_le_bytes(bytes);
                let wide = if from == DType::F16 { f16_bits(bits) } else { u32::from(bits) << 16 };
                *out = f32::from_bits(wide);
            }
        }
        DType::Block(format) => format.decode(input, out),
        DType::I32 | DType::Bool | DType::Q8 => unreachable!("no recipe converts {from}"),
    }
}

/// Values rounded to elements.
fn encode(to: DType, values: &[f32], out: &mut [u8]) {
    match to {
        DType::F32 => {
            for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *out = value.to_le_bytes();
            }
        }
        DType::F16 | DType::BF16 => {
            for (out, &value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *out = match to {
                    DType::F16 => f16::from_f32(value).to_le_bytes(),
                    _ => bf16::from_f32(value).to_le_bytes(),
                };
            }
        }
        DType::Block(format) => format.encode(values, out),
        DType::I32 | DType::Bool | DType::Q8 => unreachable!("no recipe makes {to}"),
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
