//! Conversions between element types, with integer arithmetic where the machine has no instruction.

use super::function::Emit;
use crate::loops::Convert;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

/// f32 bits of ∞.
const INFINITY: i32 = 0x7f80_0000;
/// The smallest f32 that rounds to an infinite f16: 2¹⁶.
const F16_OVERFLOW: i32 = (127 + 16) << 23;
/// The smallest normal f16, 2⁻¹⁴, as f32 bits.
const F16_NORMAL: i32 = 113 << 23;
/// 0.5: adding it to a value below 2⁻¹⁴ leaves the f16 subnormal's bits in the low end of the mantissa.
const F16_SUBNORMAL: i32 = ((127 - 15) + (23 - 10) + 1) << 23;

impl Emit<'_, '_> {
    /// A conversion of one element or four.
    pub fn convert(&mut self, how: Convert, x: Value) -> Value {
        match how {
            Convert::IntToFloat => {
                let ty = self.float_type(x);
                self.b.ins().fcvt_from_sint(ty, x)
            }
            Convert::FloatToInt => {
                let ty = self.int_type(x);
                self.b.ins().fcvt_to_sint_sat(ty, x)
            }
            Convert::RoundBf16 => self.round_bf16(x),
            Convert::RoundF16 => {
                let half = self.narrow_f16(x);
                self.widen_f16(half)
            }
        }
    }

    /// To the nearest bf16, ties to even; a NaN stays one.
    fn round_bf16(&mut self, x: Value) -> Value {
        let (ints, floats) = (self.int_type(x), self.ty(x));
        let bits = self.bits(ints, x);
        let odd = self.b.ins().ushr_imm_u(bits, 16);
        let one = self.int(x, 1);
        let odd = self.b.ins().band(odd, one);
        let bias = self.int(x, 0x7fff);
        let bias = self.b.ins().iadd(odd, bias);
        let rounded = self.b.ins().iadd(bits, bias);
        let size = self.int(x, i32::MAX);
        let size = self.b.ins().band(bits, size);
        let infinity = self.int(x, INFINITY);
        let nan = self.b.ins().icmp(IntCC::SignedGreaterThan, size, infinity);
        let quiet = self.int(x, 0x0040_0000);
        let quiet = self.b.ins().bor(bits, quiet);
        let chosen = self.select(nan, quiet, rounded);
        let keep = self.int(x, 0xffff_0000u32 as i32);
        let kept = self.b.ins().band(chosen, keep);
        self.bits(floats, kept)
    }

    /// The f32 of f16 bits in the low half of an i32; exact.
    pub fn widen_f16(&mut self, half: Value) -> Value {
        let floats = self.float_type(half);
        let magnitude = self.int(half, 0x7fff);
        let magnitude = self.b.ins().band(half, magnitude);
        let shifted = self.b.ins().ishl_imm_u(magnitude, 13);
        let rebias = self.int(half, (127 - 15) << 23);
        let normal = self.b.ins().iadd(shifted, rebias);
        // Subnormals: put the mantissa under the exponent of 2⁻¹⁴ and take 2⁻¹⁴ off.
        let small = self.int(half, F16_NORMAL);
        let under = self.b.ins().iadd(shifted, small);
        let under = self.bits(floats, under);
        let small = self.bits(floats, small);
        let subnormal = self.b.ins().fsub(under, small);
        let subnormal = self.bits(self.ty(half), subnormal);
        let least = self.int(half, 0x0400);
        let is_sub = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, least);
        let finite = self.select(is_sub, subnormal, normal);
        let most = self.int(half, 0x7bff);
        let is_special = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, most);
        let infinity = self.int(half, INFINITY);
        let special = self.b.ins().bor(shifted, infinity);
        let size = self.select(is_special, special, finite);
        let sign = self.int(half, 0x8000);
        let sign = self.b.ins().band(half, sign);
        let sign = self.b.ins().ishl_imm_u(sign, 16);
        let bits = self.b.ins().bor(size, sign);
        self.bits(floats, bits)
    }

    /// The nearest f16, ties to even, as bits in an i32.
    pub fn narrow_f16(&mut self, x: Value) -> Value {
        let (ints, floats) = (self.int_type(x), self.ty(x));
        let bits = self.bits(ints, x);
        let size = self.int(x, i32::MAX);
        let size = self.b.ins().band(bits, size);
        // Normal results: rebias, round half to even, drop 13 bits.
        let odd = self.b.ins().ushr_imm_u(size, 13);
        let one = self.int(x, 1);
        let odd = self.b.ins().band(odd, one);
        let bias = self.int(x, ((15 - 127) << 23) + 0xfff);
        let normal = self.b.ins().iadd(size, bias);
        let normal = self.b.ins().iadd(normal, odd);
        let normal = self.b.ins().ushr_imm_u(normal, 13);
        // Subnormal results: the addition rounds.
        let magic = self.int(x, F16_SUBNORMAL);
        let magic_float = self.bits(floats, magic);
        let as_float = self.bits(floats, size);
        let sum = self.b.ins().fadd(as_float, magic_float);
        let sum = self.bits(ints, sum);
        let subnormal = self.b.ins().isub(sum, magic);
        let least = self.int(x, F16_NORMAL);
        let is_sub = self.b.ins().icmp(IntCC::SignedLessThan, size, least);
        let finite = self.select(is_sub, subnormal, normal);
        // Infinite and NaN.
        let infinity = self.int(x, INFINITY);
        let is_nan = self.b.ins().icmp(IntCC::SignedGreaterThan, size, infinity);
        let (nan, infinite) = (self.int(x, 0x7e00), self.int(x, 0x7c00));
        let special = self.select(is_nan, nan, infinite);
        let most = self.int(x, F16_OVERFLOW - 1);
        let is_special = self.b.ins().icmp(IntCC::SignedGreaterThan, size, most);
        let half = self.select(is_special, special, finite);
        let sign = self.b.ins().ushr_imm_u(bits, 16);
        let mask = self.int(x, 0x8000);
        let sign = self.b.ins().band(sign, mask);
        self.b.ins().bor(half, sign)
    }
}
