//! Conversions between float formats, over all patterns of 16 bits and over all exponents.

mod support;

use llamac_codegen::Options;
use llamac_formats::{DType, Sizes};
use llamac_ir::{TensorSource, TensorView, parse};
use support::{Machine, build_fused};

const SIZES: Sizes = Sizes { rows: 1, outputs: 1, tokens: 1 };

/// One tensor of every 16-bit pattern.
struct Patterns {
    dtype: DType,
    dims: [usize; 1],
    bytes: Vec<u8>,
}

impl TensorSource for Patterns {
    fn tensor(&self, _: &str) -> Option<TensorView<'_>> {
        Some(TensorView { dtype: self.dtype, dims: &self.dims, bytes: &self.bytes })
    }

    fn describe(&self) -> String {
        "all patterns".into()
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

fn same(found: f32, wanted: f32) -> bool {
    found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan()
}

/// Widens every pattern, in lanes and (65535 is odd) one by one.
fn widen(dtype: DType, wanted: fn(u16) -> f32) {
    for first in [0u16, 1] {
        let patterns: Vec<u16> = (first..=u16::MAX).collect();
        let n = patterns.len();
        let text = format!(
            "graph @g S<=1 R<=1 T<=1 slots=1 {{ %0: {dtype}[{n}] = weight \"w\"\n %1: f32[{n}] = cast %0\n return \"y\" = %1 }}"
        );
        let bytes = patterns.iter().flat_map(|p| p.to_le_bytes()).collect();
        let source = Patterns { dtype, dims: [n], bytes };
        let mut machine = Machine::new(build_fused(parse(&text).unwrap(), &Options::default()), &source);
        let found = floats(&machine.step(SIZES, &[])[0]);
        for (&p, &f) in patterns.iter().zip(&found) {
            assert!(same(f, wanted(p)), "{dtype} {p:#06x}: {f:e}, expected {:e}", wanted(p));
        }
    }
}

#[test]
fn f16_widens_exactly() {
    widen(DType::F16, |p| half::f16::from_bits(p).to_f32());
}

#[test]
fn bf16_widens_exactly() {
    widen(DType::BF16, |p| half::bf16::from_bits(p).to_f32());
}

/// f32 values of every exponent and sign, with mantissas around the ties of both 16-bit formats.
fn hard_values() -> Vec<f32> {
    let mut values = vec![f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001)];
    for exponent in 0..=254u32 {
        for i in 0..64u32 {
            for low in [0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0x1_7fff, 0x1_8000, 0x1fff] {
                let mantissa = (i << 17 | low) & 0x7f_ffff;
                for sign in [0, 1u32 << 31] {
                    values.push(f32::from_bits(sign | exponent << 23 | mantissa));
                }
            }
        }
    }
    values
}

fn narrow(dtype: DType, wanted: fn(f32) -> u16, is_nan: fn(u16) -> bool) {
    let values = hard_values();
    let n = values.len();
    assert_eq!(n % 4, 1, "lanes and what is left");
    let text = format!(
        "graph @g S<=1 R<=1 T<=1 slots=1 {{ %0: f32[{n}] = input \"x\"\n %1: {dtype}[{n}] = cast %0\n %2: f32[{n}] = cast %1\n return \"y\" = %1, \"z\" = %2 }}"
    );
    let source = Patterns { dtype, dims: [0], bytes: vec![] };
    let mut machine = Machine::new(build_fused(parse(&text).unwrap(), &Options::default()), &source);
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let out = machine.step(SIZES, &[("x", bytes)]);
    for (i, (&v, f)) in values.iter().zip(out[0].chunks_exact(2)).enumerate() {
        let f = u16::from_le_bytes(f.try_into().unwrap());
        let w = wanted(v);
        assert!(f == w || is_nan(f) && is_nan(w), "{dtype} of {v:e} ({i}): {f:#06x}, expected {w:#06x}");
    }
}

#[test]
fn f16_rounds_to_nearest_even() {
    narrow(DType::F16, |v| half::f16::from_f32(v).to_bits(), |p| half::f16::from_bits(p).is_nan());
}

#[test]
fn bf16_rounds_to_nearest_even() {
    narrow(DType::BF16, |v| half::bf16::from_f32(v).to_bits(), |p| half::bf16::from_bits(p).is_nan());
}
