//! Loads, stores and the lanes of vectors.

use super::function::{Emit, clif_type, memory};
use crate::loops::{Kind, LANES, Reg, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::immediates::V128Imm;
use cranelift_codegen::ir::types::{F32, F32X4, I8, I8X16, I16, I16X8, I32, I32X4, I64X2};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};
use llamac_formats::DType;
use llamac_ir::ReduceOp;

/// Lane 0 is the lowest address.
fn lane_order() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}

impl Emit<'_, '_> {
    /// Whether a value has lanes.
    pub fn in_lanes(&self, value: Value) -> bool {
        self.ty(value).is_vector()
    }

    /// A value's CLIF type.
    pub fn ty(&self, value: Value) -> Type {
        self.b.func.dfg.value_type(value)
    }

    /// The same bits as another type.
    pub fn bits(&mut self, ty: Type, value: Value) -> Value {
        if self.ty(value) == ty { value } else { self.b.ins().bitcast(ty, lane_order(), value) }
    }

    /// Four equal i32 or f32 lanes, or one, like `like`.
    pub fn float(&mut self, like: Value, value: f32) -> Value {
        let v = self.b.ins().f32const(value);
        if self.in_lanes(like) { self.b.ins().splat(F32X4, v) } else { v }
    }

    /// An integer constant, in lanes where `like` is.
    pub fn int(&mut self, like: Value, value: i32) -> Value {
        let v = self.b.ins().iconst(I32, i64::from(value as u32));
        if self.in_lanes(like) { self.b.ins().splat(I32X4, v) } else { v }
    }

    /// The integer type with the lanes of `like`.
    pub fn int_type(&self, like: Value) -> Type {
        if self.in_lanes(like) { I32X4 } else { I32 }
    }

    /// The float type with the lanes of `like`.
    pub fn float_type(&self, like: Value) -> Type {
        if self.in_lanes(like) { F32X4 } else { F32 }
    }

    /// `i, i + 1, i + 2, i + 3`
    pub fn ramp(&mut self, i: Value) -> Value {
        let mut bytes = [0u8; 16];
        for (lane, chunk) in bytes.chunks_exact_mut(4).enumerate() {
            chunk.copy_from_slice(&(lane as i32).to_le_bytes());
        }
        let constant = self.b.func.dfg.constants.insert(V128Imm(bytes).0.to_vec().into());
        let lanes = self.b.ins().vconst(I32X4, constant);
        let all = self.b.ins().splat(I32X4, i);
        self.b.ins().iadd(all, lanes)
    }

    /// An element in all lanes; a truth value becomes a mask.
    pub fn splat(&mut self, reg: Reg) -> Value {
        let value = self.get(reg);
        match self.kernel.ty(reg) {
            Ty::Element(Kind::F32, _) => self.b.ins().splat(F32X4, value),
            Ty::Element(Kind::Bool, _) => {
                let wide = self.b.ins().uextend(I32, value);
                let mask = self.b.ins().ineg(wide);
                self.b.ins().splat(I32X4, mask)
            }
            _ => self.b.ins().splat(I32X4, value),
        }
    }

    /// Four elements as lanes.
    pub fn pack(&mut self, regs: &[Reg; LANES]) -> Value {
        let mut packed = self.splat(regs[0]);
        for (lane, &reg) in regs.iter().enumerate().skip(1) {
            let mut value = self.get(reg);
            if let Ty::Element(Kind::Bool, _) = self.kernel.ty(reg) {
                let wide = self.b.ins().uextend(I32, value);
                value = self.b.ins().ineg(wide);
            }
            packed = self.b.ins().insertlane(packed, value, lane as u8);
        }
        packed
    }

    /// `(l0 ∘ l2) ∘ (l1 ∘ l3)`
    pub fn fold(&mut self, op: ReduceOp, value: Value) -> Value {
        let lanes: Vec<Value> = (0..LANES as u8).map(|l| self.b.ins().extractlane(value, l)).collect();
        let binary = match op {
            ReduceOp::Sum => llamac_ir::BinaryOp::Add,
            ReduceOp::Max => llamac_ir::BinaryOp::Max,
        };
        let even = self.binary(binary, lanes[0], lanes[2]);
        let odd = self.binary(binary, lanes[1], lanes[3]);
        self.binary(binary, even, odd)
    }

    /// One element, or four consecutive ones, widened.
    pub fn load(&mut self, dtype: DType, ty: Ty, base: Value, offset: i32) -> Value {
        let lanes = matches!(ty, Ty::Element(_, LANES));
        match dtype {
            DType::Q8 | DType::Block(_) => unreachable!("lowering addresses no element of a block"),
            DType::F32 | DType::I32 => self.b.ins().load(clif_type(ty), memory(), base, offset),
            DType::BF16 | DType::F16 => {
                let raw = if lanes {
                    let raw = self.b.ins().uload16x4(memory(), base, offset);
                    self.bits(I32X4, raw)
                } else {
                    self.b.ins().uload16(I32, memory(), base, offset)
                };
                if dtype == DType::F16 {
                    return self.widen_f16(raw);
                }
                let high = self.b.ins().ishl_imm_u(raw, 16);
                self.bits(clif_type(ty), high)
            }
            DType::Bool if lanes => {
                let four = self.b.ins().load(I32, memory(), base, offset);
                let vector = self.b.ins().scalar_to_vector(I32X4, four);
                let bytes = self.bits(I8X16, vector);
                let halves = self.b.ins().uwiden_low(bytes);
                let words = self.b.ins().uwiden_low(halves);
                let zero = self.int(words, 0);
                self.b.ins().icmp(IntCC::NotEqual, words, zero)
            }
            DType::Bool => self.b.ins().load(I8, memory(), base, offset),
        }
    }

    /// Stores one element or four consecutive ones; 16-bit floats are exact already.
    pub fn store(&mut self, dtype: DType, base: Value, offset: i32, value: Value) {
        let lanes = self.in_lanes(value);
        let narrow = match dtype {
            DType::Q8 | DType::Block(_) => unreachable!("lowering addresses no element of a block"),
            DType::F32 | DType::I32 => value,
            DType::BF16 => {
                let bits = self.bits(self.int_type(value), value);
                let high = self.b.ins().ushr_imm_u(bits, 16);
                self.halves(high, lanes)
            }
            DType::F16 => {
                let half = self.narrow_f16(value);
                self.halves(half, lanes)
            }
            DType::Bool if lanes => {
                let one = self.int(value, 1);
                let words = self.b.ins().band(value, one);
                let halves = self.b.ins().unarrow(words, words);
                let halves = self.bits(I16X8, halves);
                let bytes = self.b.ins().unarrow(halves, halves);
                let vector = self.bits(I32X4, bytes);
                self.b.ins().extractlane(vector, 0)
            }
            DType::Bool => value,
        };
        self.b.ins().store(memory(), narrow, base, offset);
    }

    /// The low halves of i32 values below 2¹⁶, next to each other.
    fn halves(&mut self, words: Value, lanes: bool) -> Value {
        if lanes {
            let halves = self.b.ins().unarrow(words, words);
            let pairs = self.bits(I64X2, halves);
            self.b.ins().extractlane(pairs, 0)
        } else {
            self.b.ins().ireduce(I16, words)
        }
    }
}
