//! Arithmetic: operators, and the transcendental functions as polynomials.

use super::function::Emit;
use crate::error::Result;
use crate::loops::{Buffer, Expr, Index, Kernel, Kind, LANES, Loop, Place, Reg, Space, Stmt, Ty};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4};
use cranelift_codegen::ir::{InstBuilder, Value};
use llamac_formats::{DType, Extent};
use llamac_ir::{BinaryOp, CompareOp, UnaryOp};

/// log₂ e
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts: n·hi is exact for |n| < 2⁹.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;
/// 1.5 · 2²³: adding it rounds to an integer, which the low bits then hold.
const MAGIC: f32 = 12_582_912.0;
/// Below, eˣ rounds to 0; above, it overflows.
const EXP_LOW: f32 = -104.0;
const EXP_HIGH: f32 = 89.0;
/// (eʳ − 1 − r) / r² on |r| ≤ ln 2 / 2, highest power first (Cephes).
const EXP_POLY: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
/// (tanh x − x) / x³ in x², on |x| < 0.625, highest power first (Cephes).
const TANH_POLY: [f32; 5] = [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];

impl Emit<'_, '_> {
    /// A function of one operand.
    pub fn unary(&mut self, op: UnaryOp, x: Value) -> Value {
        let float = matches!(self.ty(x), F32 | F32X4);
        match op {
            UnaryOp::Neg if float => self.b.ins().fneg(x),
            UnaryOp::Neg => self.b.ins().ineg(x),
            UnaryOp::Abs if float => self.b.ins().fabs(x),
            UnaryOp::Abs => self.b.ins().iabs(x),
            UnaryOp::Sqrt => self.b.ins().sqrt(x),
            UnaryOp::Rsqrt => {
                let (root, one) = (self.b.ins().sqrt(x), self.float(x, 1.0));
                self.b.ins().fdiv(one, root)
            }
            UnaryOp::Recip => {
                let one = self.float(x, 1.0);
                self.b.ins().fdiv(one, x)
            }
            UnaryOp::Exp => self.exp(x),
            UnaryOp::Tanh => self.tanh(x),
        }
    }

    /// A function of two operands.
    pub fn binary(&mut self, op: BinaryOp, x: Value, y: Value) -> Value {
        let float = matches!(self.ty(x), F32 | F32X4);
        match op {
            BinaryOp::Add if float => self.b.ins().fadd(x, y),
            BinaryOp::Sub if float => self.b.ins().fsub(x, y),
            BinaryOp::Mul if float => self.b.ins().fmul(x, y),
            BinaryOp::Div => self.b.ins().fdiv(x, y),
            BinaryOp::Max if float => self.larger(x, y),
            BinaryOp::Min if float => self.smaller(x, y),
            BinaryOp::Add => self.b.ins().iadd(x, y),
            BinaryOp::Sub => self.b.ins().isub(x, y),
            BinaryOp::Mul => self.b.ins().imul(x, y),
            BinaryOp::Max => self.b.ins().smax(x, y),
            BinaryOp::Min => self.b.ins().smin(x, y),
        }
    }

    /// A comparison: 0 or 1, or a mask.
    pub fn compare(&mut self, op: CompareOp, x: Value, y: Value) -> Value {
        if matches!(self.ty(x), F32 | F32X4) {
            let cc = match op {
                CompareOp::Eq => FloatCC::Equal,
                CompareOp::Ne => FloatCC::NotEqual,
                CompareOp::Lt => FloatCC::LessThan,
                CompareOp::Le => FloatCC::LessThanOrEqual,
                CompareOp::Gt => FloatCC::GreaterThan,
                CompareOp::Ge => FloatCC::GreaterThanOrEqual,
            };
            return self.b.ins().fcmp(cc, x, y);
        }
        let cc = match op {
            CompareOp::Eq => IntCC::Equal,
            CompareOp::Ne => IntCC::NotEqual,
            CompareOp::Lt => IntCC::SignedLessThan,
            CompareOp::Le => IntCC::SignedLessThanOrEqual,
            CompareOp::Gt => IntCC::SignedGreaterThan,
            CompareOp::Ge => IntCC::SignedGreaterThanOrEqual,
        };
        self.b.ins().icmp(cc, x, y)
    }

    /// `c ? x : y`, by truth value or mask.
    pub fn select(&mut self, c: Value, x: Value, y: Value) -> Value {
        if self.in_lanes(c) {
            let mask = self.bits(self.ty(x), c);
            self.b.ins().bitselect(mask, x, y)
        } else {
            self.b.ins().select(c, x, y)
        }
    }

    /// `y < x ? x : y`: one instruction in lanes; a NaN in `x` loses, one in `y` wins.
    fn larger_or_second(&mut self, x: Value, y: Value) -> Value {
        let c = self.b.ins().fcmp(FloatCC::LessThan, y, x);
        self.select(c, x, y)
    }

    fn smaller_or_second(&mut self, x: Value, y: Value) -> Value {
        let c = self.b.ins().fcmp(FloatCC::LessThan, x, y);
        self.select(c, x, y)
    }

    fn larger(&mut self, x: Value, y: Value) -> Value {
        self.larger_or_second(x, y)
    }

    fn smaller(&mut self, x: Value, y: Value) -> Value {
        self.smaller_or_second(x, y)
    }

    /// `x·y + z`, rounded once where the target can.
    fn mul_add(&mut self, x: Value, y: Value, z: Value) -> Value {
        if self.fma {
            self.b.ins().fma(x, y, z)
        } else {
            let product = self.b.ins().fmul(x, y);
            self.b.ins().fadd(product, z)
        }
    }

    fn polynomial(&mut self, coefficients: &[f32], x: Value) -> Value {
        let mut sum = self.float(x, coefficients[0]);
        for &c in &coefficients[1..] {
            let c = self.float(x, c);
            sum = self.mul_add(sum, x, c);
        }
        sum
    }

    /// eˣ within 1 unit in the last place, subnormal results included; −∞ → 0, overflow → ∞, NaN → NaN.
    ///
    /// x = n·ln 2 + r with |r| ≤ ln 2 / 2; eʳ by a polynomial; 2ⁿ in two factors, so that neither leaves the exponent
    /// range and a subnormal result is rounded once.
    fn exp(&mut self, x: Value) -> Value {
        let ints = self.int_type(x);
        let low = self.float(x, EXP_LOW);
        let high = self.float(x, EXP_HIGH);
        let x = self.larger_or_second(low, x);
        let x = self.smaller_or_second(high, x);
        let (log2e, magic) = (self.float(x, LOG2_E), self.float(x, MAGIC));
        let shifted = self.mul_add(x, log2e, magic);
        let whole = self.b.ins().fsub(shifted, magic);
        let hi = self.float(x, -LN2_HI);
        let r = self.mul_add(whole, hi, x);
        let lo = self.float(x, -LN2_LO);
        let r = self.mul_add(whole, lo, r);
        let p = self.polynomial(&EXP_POLY, r);
        let square = self.b.ins().fmul(r, r);
        let p = self.mul_add(p, square, r);
        let one = self.float(x, 1.0);
        let p = self.b.ins().fadd(p, one);
        let bits = self.bits(ints, shifted);
        let base = self.int(x, MAGIC.to_bits() as i32);
        let n = self.b.ins().isub(bits, base);
        let first = self.b.ins().sshr_imm_u(n, 1);
        let second = self.b.ins().isub(n, first);
        let mut scaled = p;
        for part in [first, second] {
            let high = self.b.ins().ishl_imm_u(part, 23);
            let one = self.int(x, 1.0f32.to_bits() as i32);
            let power = self.b.ins().iadd(high, one);
            let power = self.bits(self.ty(x), power);
            scaled = self.b.ins().fmul(scaled, power);
        }
        scaled
    }

    /// tanh x within 2 units in the last place: a polynomial near 0, else 1 − 2 / (e²ˣ + 1).
    fn tanh(&mut self, x: Value) -> Value {
        let size = self.b.ins().fabs(x);
        let square = self.b.ins().fmul(x, x);
        let p = self.polynomial(&TANH_POLY, square);
        let p = self.b.ins().fmul(p, square);
        let small = self.mul_add(p, size, size);
        let double = self.b.ins().fadd(size, size);
        let e = self.exp(double);
        let one = self.float(x, 1.0);
        let below = self.b.ins().fadd(e, one);
        let two = self.float(x, 2.0);
        let part = self.b.ins().fdiv(two, below);
        let large = self.b.ins().fsub(one, part);
        let limit = self.float(x, 0.625);
        let c = self.b.ins().fcmp(FloatCC::LessThan, size, limit);
        let result = self.select(c, small, large);
        let ints = self.int_type(x);
        let (bits, sign) = (self.bits(ints, result), self.bits(ints, x));
        let mask = self.int(x, i32::MIN);
        let sign = self.b.ins().band(sign, mask);
        let bits = self.b.ins().bor(bits, sign);
        self.bits(self.ty(x), bits)
    }
}

/// A row kernel `out[i] = op(in[i])` over rows of four, in lanes or one by one: what tests judge the functions with.
///
/// # Errors
/// As for [`super::compile`].
pub fn probe_unary(isa: &dyn cranelift_codegen::isa::TargetIsa, op: UnaryOp, lanes: bool) -> Result<super::Machine> {
    let (row, var, last, x, y) = (Reg(0), Reg(1), Reg(2), Reg(3), Reg(4));
    let width = if lanes { LANES } else { 1 };
    let at = Index { constant: 0, terms: vec![(Extent::constant(4), Some(row)), (Extent::ONE, Some(var))] };
    let body = vec![Stmt::Loop(Box::new(Loop {
        var,
        begin: Index::constant(0),
        end: Index::constant(4),
        step: width,
        carried: vec![],
        last,
        body: vec![
            Stmt::Let(x, Expr::Load(Place::Buffer(0), DType::F32, at.clone())),
            Stmt::Let(y, Expr::Unary(op, x)),
            Stmt::Store(Place::Buffer(1), DType::F32, at, y),
        ],
    }))];
    let element = Ty::Element(Kind::F32, width);
    let kernel = Kernel {
        buffers: [false, true].map(|stored| Buffer { dtype: DType::F32, stored }).to_vec(),
        syms: vec![],
        scratch: 0,
        space: Space::Rows { row },
        body,
        tys: vec![Ty::Index, Ty::Index, Ty::Index, element, element],
    };
    super::compile(isa, &kernel, op.name(), false)
}
