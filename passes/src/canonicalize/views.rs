//! Simpler views: none where nothing changes, one where two do the work of one.

use super::emit::{Emitter, Simpler};
use llamac_ir::{ConstKind, Dim, Op, Type, Value};

/// A view that is its operand, or that can look past another view.
pub(super) fn simplify(out: &mut Emitter, op: &Op, operands: &[Value], ty: &Type) -> Option<Simpler> {
    if !op.is_view() {
        return None;
    }
    // A view of a splat is a splat. A broadcast of a scalar constant already is the simplest form.
    let simplest = matches!(op, Op::Broadcast { .. })
        && matches!(out.def(operands[0]), Op::Const(ConstKind::Splat(_)))
        && out.graph.ty(operands[0]).rank() == 0
        && ty.rank() > 0;
    if !simplest
        && !matches!(op, Op::Concat { .. } | Op::Index)
        && let Some(s) = out.splat_of(operands[0])
    {
        return Some(Simpler::Splat(s, ty.clone()));
    }
    match op {
        Op::Reshape => reshape(out, operands[0], ty),
        Op::Transpose { perm } => transpose(out, perm, operands[0], ty),
        Op::Slice { axis, start, len } => slice(out, *axis, *start, *len, operands[0], ty),
        Op::Concat { axis } => concat(out, *axis, operands, ty),
        Op::Broadcast { axes } => broadcast(out, axes, operands[0], ty),
        _ => None,
    }
}

fn reshape(out: &Emitter, x: Value, ty: &Type) -> Option<Simpler> {
    if out.graph.ty(x) == ty {
        return Some(Simpler::Value(x));
    }
    match out.def(x) {
        Op::Reshape => Some(Simpler::Op(Op::Reshape, vec![out.operands(x)[0]], ty.clone())),
        _ => None,
    }
}

fn transpose(out: &Emitter, perm: &[usize], x: Value, ty: &Type) -> Option<Simpler> {
    if perm.iter().copied().eq(0..perm.len()) {
        return Some(Simpler::Value(x));
    }
    match out.def(x) {
        Op::Transpose { perm: inner } => {
            let perm = perm.iter().map(|&p| inner[p]).collect();
            Some(Simpler::Op(Op::Transpose { perm }, vec![out.operands(x)[0]], ty.clone()))
        }
        _ => None,
    }
}

fn slice(out: &mut Emitter, axis: usize, start: usize, len: usize, x: Value, ty: &Type) -> Option<Simpler> {
    if out.graph.ty(x) == ty {
        return Some(Simpler::Value(x));
    }
    match out.def(x).clone() {
        Op::Slice { axis: inner, start: first, .. } if inner == axis => {
            let op = Op::Slice { axis, start: first + start, len };
            Some(Simpler::Op(op, vec![out.operands(x)[0]], ty.clone()))
        }
        Op::Concat { axis: along } if along == axis => {
            let mut first = 0;
            for &part in out.operands(x) {
                let n = out.graph.ty(part).dims[axis].as_const()?;
                if start >= first && start + len <= first + n {
                    let op = Op::Slice { axis, start: start - first, len };
                    return Some(Simpler::Op(op, vec![part], ty.clone()));
                }
                first += n;
            }
            None
        }
        Op::Broadcast { axes } => {
            let source = out.operands(x)[0];
            let source = match axes.iter().position(|&a| a == axis) {
                None => source,
                Some(from) => {
                    let mut narrow = out.graph.ty(source).clone();
                    narrow.dims[from] = Dim::Const(len);
                    out.emit(Op::Slice { axis: from, start, len }, vec![source], narrow)
                }
            };
            Some(Simpler::Op(Op::Broadcast { axes }, vec![source], ty.clone()))
        }
        _ => None,
    }
}

fn concat(out: &Emitter, axis: usize, operands: &[Value], ty: &Type) -> Option<Simpler> {
    if let [only] = operands {
        return Some(Simpler::Value(*only));
    }
    if operands.iter().any(|&v| matches!(out.def(v), Op::Concat { axis: a } if *a == axis)) {
        let flat = operands.iter().flat_map(|&v| match out.def(v) {
            Op::Concat { axis: a } if *a == axis => out.operands(v).to_vec(),
            _ => vec![v],
        });
        return Some(Simpler::Op(Op::Concat { axis }, flat.collect(), ty.clone()));
    }
    joined_slices(out, axis, operands, ty)
}

/// Slices that lie one after the other in one value are one slice of it.
fn joined_slices(out: &Emitter, axis: usize, operands: &[Value], ty: &Type) -> Option<Simpler> {
    let part = |v: Value| match out.def(v) {
        Op::Slice { axis: a, start, len } if *a == axis => Some((out.operands(v)[0], *start, *len)),
        _ => None,
    };
    let mut joined: Vec<Value> = Vec::new();
    let mut i = 0;
    while i < operands.len() {
        let Some((source, start, mut len)) = part(operands[i]) else {
            joined.push(operands[i]);
            i += 1;
            continue;
        };
        let mut next = i + 1;
        while let Some((s, first, more)) = operands.get(next).and_then(|&v| part(v)) {
            if s != source || first != start + len {
                break;
            }
            len += more;
            next += 1;
        }
        // Only a run over all operands becomes one: a shorter run would need a slice of its own.
        if next - i == operands.len() {
            return Some(Simpler::Op(Op::Slice { axis, start, len }, vec![source], ty.clone()));
        }
        joined.extend(&operands[i..next]);
        i = next;
    }
    None
}

fn broadcast(out: &Emitter, axes: &[usize], x: Value, ty: &Type) -> Option<Simpler> {
    if out.graph.ty(x) == ty {
        return Some(Simpler::Value(x));
    }
    match out.def(x) {
        Op::Broadcast { axes: inner } => {
            let axes = inner.iter().map(|&a| axes[a]).collect();
            Some(Simpler::Op(Op::Broadcast { axes }, vec![out.operands(x)[0]], ty.clone()))
        }
        _ => None,
    }
}
