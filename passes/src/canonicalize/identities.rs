//! Arithmetic that gives back an operand, exactly; and casts of weights, done while they are packed.

use super::emit::{Emitter, Simpler};
use llamac_ir::{BinaryOp, DType, Op, Recipe, Scalar, Type, UnaryOp, Value};

/// See the rules in `canonicalize`.
pub(super) fn simplify(out: &mut Emitter, op: &Op, operands: &[Value], ty: &Type) -> Option<Simpler> {
    let value = match op {
        Op::Binary(b) => binary(out, *b, operands[0], operands[1])?,
        Op::Unary(UnaryOp::Neg) if matches!(out.def(operands[0]), Op::Unary(UnaryOp::Neg)) => {
            out.operands(operands[0])[0]
        }
        // |−x| and ||x|| are |x|.
        Op::Unary(UnaryOp::Abs) if matches!(out.def(operands[0]), Op::Unary(UnaryOp::Neg | UnaryOp::Abs)) => {
            let inner = out.operands(operands[0])[0];
            return Some(Simpler::Op(op.clone(), vec![inner], ty.clone()));
        }
        Op::Select if operands[1] == operands[2] => operands[1],
        Op::Select => match out.splat_of(operands[0])? {
            Scalar::Bool(true) => operands[1],
            Scalar::Bool(false) => operands[2],
            _ => return None,
        },
        Op::Cast if out.graph.ty(operands[0]).dtype == ty.dtype => operands[0],
        Op::Cast => return widened_weight(out, operands[0], ty),
        _ => return None,
    };
    Some(Simpler::Value(value))
}

fn binary(out: &Emitter, op: BinaryOp, x: Value, y: Value) -> Option<Value> {
    let is = |v: Value, float: f32, int: i32| match out.splat_of(v) {
        Some(Scalar::Float(f)) => f.to_bits() == float.to_bits(),
        Some(Scalar::Int(i)) => i == int,
        _ => false,
    };
    match op {
        BinaryOp::Mul if is(y, 1.0, 1) => Some(x),
        BinaryOp::Mul if is(x, 1.0, 1) => Some(y),
        BinaryOp::Div if is(y, 1.0, 1) => Some(x),
        BinaryOp::Add if is(y, -0.0, 0) => Some(x),
        BinaryOp::Add if is(x, -0.0, 0) => Some(y),
        BinaryOp::Sub if is(y, 0.0, 0) => Some(x),
        BinaryOp::Max | BinaryOp::Min if x == y => Some(x),
        _ => None,
    }
}

/// A cast to f32 of a narrower weight of rank 1 (norm weights, biases) is done once, while weights are packed. Matrices stay
/// narrow: that is what they are stored for, and dots widen them as they read.
fn widened_weight(out: &Emitter, operand: Value, ty: &Type) -> Option<Simpler> {
    let Op::Weight(recipe) = out.def(operand) else { return None };
    // What is rounded on the way would not be rounded any more.
    if ty.dtype != DType::F32 || ty.rank() != 1 || recipe.converts() {
        return None;
    }
    let recipe = Recipe::Convert(Box::new(recipe.clone()));
    Some(Simpler::Op(Op::Weight(recipe), vec![], ty.clone()))
}
