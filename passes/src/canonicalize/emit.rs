//! Appends instructions to the new graph, simplified, each only once.

use super::{fold, identities, views};
use crate::report::Report;
use llamac_ir::{ConstKind, Graph, Op, Scalar, Type, Value};
use std::collections::HashMap;
use std::fmt::Write;

/// What a rule makes of an instruction.
pub(super) enum Simpler {
    /// This value, which exists.
    Value(Value),
    /// This instruction.
    Op(Op, Vec<Value>, Type),
    /// This constant, repeated to the type's axes.
    Splat(Scalar, Type),
}

/// What an instruction can be instead, if it need not be as it is.
type Rule = fn(&mut Emitter, &Op, &[Value], &Type) -> Option<Simpler>;

/// The new graph and what is in it already.
pub(super) struct Emitter<'a> {
    pub(super) graph: Graph,
    pub(super) origin: String,
    pub(super) report: &'a mut Report,
    known: HashMap<(String, Vec<Value>), Value>,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(graph: Graph, report: &'a mut Report) -> Emitter<'a> {
        Emitter { graph, origin: String::new(), report, known: HashMap::new() }
    }

    /// The value of that instruction: folded, simplified, found or appended.
    pub(super) fn emit(&mut self, op: Op, operands: Vec<Value>, ty: Type) -> Value {
        let rules: [(&'static str, Rule); 3] = [
            ("constants folded", fold::fold),
            ("views simplified", views::simplify),
            ("identities removed", identities::simplify),
        ];
        for (what, rule) in rules {
            if let Some(simpler) = rule(self, &op, &operands, &ty) {
                self.report.count(what, 1);
                return match simpler {
                    Simpler::Value(v) => v,
                    Simpler::Op(op, operands, ty) => self.emit(op, operands, ty),
                    Simpler::Splat(scalar, ty) => self.splat(scalar, ty),
                };
            }
        }
        self.append(op, operands, ty)
    }

    /// A constant repeated to the type's axes.
    pub(super) fn splat(&mut self, scalar: Scalar, ty: Type) -> Value {
        let value = self.append(Op::Const(ConstKind::Splat(scalar)), vec![], Type::scalar(ty.dtype));
        if ty.rank() == 0 {
            return value;
        }
        self.append(Op::Broadcast { axes: vec![] }, vec![value], ty)
    }

    fn append(&mut self, op: Op, operands: Vec<Value>, ty: Type) -> Value {
        let Some(key) = key(&op, &ty) else {
            let inst = self.graph.append(op, operands, vec![ty], self.origin.clone());
            return self.graph.result(inst);
        };
        if let Some(&value) = self.known.get(&(key.clone(), operands.clone())) {
            self.report.count("common subexpressions shared", 1);
            return value;
        }
        let inst = self.graph.append(op, operands.clone(), vec![ty], self.origin.clone());
        let value = self.graph.result(inst);
        self.known.insert((key, operands), value);
        value
    }

    /// The op that defines a value of the new graph.
    pub(super) fn def(&self, value: Value) -> &Op {
        self.graph.def_op(value)
    }

    /// Operands of the instruction that defines a value of the new graph.
    pub(super) fn operands(&self, value: Value) -> &[Value] {
        self.graph.operands(self.graph.def(value))
    }

    /// The constant that every element of a value is, where the graph shows it.
    pub(super) fn splat_of(&self, value: Value) -> Option<Scalar> {
        match self.def(value) {
            Op::Const(ConstKind::Splat(s)) => Some(*s),
            Op::Broadcast { .. } => match self.def(self.operands(value)[0]) {
                Op::Const(ConstKind::Splat(s)) => Some(*s),
                _ => None,
            },
            _ => None,
        }
    }
}

/// What makes two instructions with the same operands the same. None: never shared.
fn key(op: &Op, ty: &Type) -> Option<String> {
    let mut key = String::new();
    match op {
        // An effect, a port, or a kernel already made.
        Op::StateWrite | Op::Input { .. } | Op::Param { .. } | Op::Fusion(_) | Op::Copy => return None,
        // 0 and −0 are equal but not the same; a NaN is not equal but the same.
        Op::Const(ConstKind::Splat(Scalar::Float(f))) => write!(key, "splat {:08x} {ty}", f.to_bits()),
        _ => write!(key, "{op:?} {ty}"),
    }
    .expect("a string takes what is written");
    Some(key)
}
