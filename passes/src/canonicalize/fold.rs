//! Arithmetic on constants.

use super::emit::{Emitter, Simpler};
use llamac_ir::{BinaryOp, CompareOp, ConstKind, DType, Op, ReduceOp, Scalar, Type, UnaryOp, Value};

/// An elementwise op all of whose operands are splats is a splat. Splats are scalars, broadcast.
pub(super) fn fold(out: &mut Emitter, op: &Op, operands: &[Value], ty: &Type) -> Option<Simpler> {
    let splat = |i: usize| out.splat_of(operands[i]);
    let folded = match op {
        Op::Const(ConstKind::Splat(s)) if ty.rank() > 0 => *s,
        Op::Unary(u) => unary(*u, splat(0)?)?,
        Op::Binary(b) => binary(*b, splat(0)?, splat(1)?)?,
        Op::Compare(c) => Scalar::Bool(compare(*c, splat(0)?, splat(1)?)?),
        Op::Select => match (splat(0)?, splat(1)?, splat(2)?) {
            (Scalar::Bool(true), x, _) => x,
            (Scalar::Bool(false), _, y) => y,
            _ => return None,
        },
        Op::Cast => cast(splat(0)?, ty.dtype)?,
        // Over an empty axis the maximum is −∞, so the axis must be a constant that is not 0.
        Op::Reduce { op: ReduceOp::Max, axis } => {
            let over = out.graph.ty(operands[0]).dims[*axis].as_const();
            over.filter(|&n| n > 0).and_then(|_| splat(0))?
        }
        _ => return None,
    };
    Some(Simpler::Splat(folded, ty.clone()))
}

fn unary(op: UnaryOp, x: Scalar) -> Option<Scalar> {
    match x {
        Scalar::Float(x) => {
            let wide = f64::from(x);
            Some(Scalar::Float(match op {
                UnaryOp::Neg => -x,
                UnaryOp::Abs => x.abs(),
                UnaryOp::Exp => wide.exp() as f32,
                UnaryOp::Sqrt => x.sqrt(),
                UnaryOp::Rsqrt => (1.0 / wide.sqrt()) as f32,
                UnaryOp::Recip => 1.0 / x,
                UnaryOp::Tanh => wide.tanh() as f32,
            }))
        }
        Scalar::Int(x) => match op {
            UnaryOp::Neg => x.checked_neg(),
            UnaryOp::Abs => x.checked_abs(),
            _ => None,
        }
        .map(Scalar::Int),
        Scalar::Bool(_) => None,
    }
}

fn binary(op: BinaryOp, x: Scalar, y: Scalar) -> Option<Scalar> {
    match (x, y) {
        (Scalar::Float(x), Scalar::Float(y)) => Some(Scalar::Float(match op {
            BinaryOp::Add => x + y,
            BinaryOp::Sub => x - y,
            BinaryOp::Mul => x * y,
            BinaryOp::Div => x / y,
            // Which of NaN and a number, or of 0 and −0, is larger is the kernel's to say.
            BinaryOp::Max | BinaryOp::Min if x.is_nan() || y.is_nan() || x == y => return None,
            BinaryOp::Max => x.max(y),
            BinaryOp::Min => x.min(y),
        })),
        (Scalar::Int(x), Scalar::Int(y)) => match op {
            BinaryOp::Add => x.checked_add(y),
            BinaryOp::Sub => x.checked_sub(y),
            BinaryOp::Mul => x.checked_mul(y),
            BinaryOp::Div => None,
            BinaryOp::Max => Some(x.max(y)),
            BinaryOp::Min => Some(x.min(y)),
        }
        .map(Scalar::Int),
        _ => None,
    }
}

fn compare(op: CompareOp, x: Scalar, y: Scalar) -> Option<bool> {
    fn by<T: PartialOrd>(op: CompareOp, x: T, y: T) -> bool {
        match op {
            CompareOp::Eq => x == y,
            CompareOp::Ne => x != y,
            CompareOp::Lt => x < y,
            CompareOp::Le => x <= y,
            CompareOp::Gt => x > y,
            CompareOp::Ge => x >= y,
        }
    }
    match (x, y) {
        (Scalar::Float(x), Scalar::Float(y)) => Some(by(op, x, y)),
        (Scalar::Int(x), Scalar::Int(y)) => Some(by(op, x, y)),
        _ => None,
    }
}

/// Only conversions that are exact or that f32 arithmetic rounds itself.
fn cast(x: Scalar, to: DType) -> Option<Scalar> {
    match (x, to) {
        (Scalar::Int(x), DType::F32) => Some(Scalar::Float(x as f32)),
        (Scalar::Float(x), DType::I32) if x.fract() == 0.0 && x.abs() < 16_777_216.0 => Some(Scalar::Int(x as i32)),
        _ => None,
    }
}
