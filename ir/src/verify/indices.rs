//! Indices are in range by what is known of inputs.

use super::{Broken, Scope};
use crate::print::value_name;
use crate::{ConstKind, Graph, Op, Scalar, Value};
use std::collections::HashMap;

pub(super) fn in_range(scope: &Scope<'_>) -> Result<(), Broken> {
    match scope.fusion {
        // Regions are judged where they stand: only there it is known what their params are.
        Some(_) => Ok(()),
        None => judge(scope.graph, &[]).map(|_| ()),
    }
}

/// Judges a graph, or a region whose params are below the limits given (exclusive, where known). Returns the limits of the
/// outputs.
fn judge(graph: &Graph, params: &[Option<usize>]) -> Result<Vec<Option<usize>>, Broken> {
    let sizes = graph.bounds.sizes();
    let mut limits: HashMap<Value, usize> = HashMap::new();
    for &inst in graph.order() {
        let operands = graph.operands(inst);
        let op = graph.op(inst);
        let below = |what: &str, ids: Value, bound: usize| match limits.get(&ids) {
            Some(&limit) if limit <= bound => Ok(()),
            Some(&limit) => {
                let name = value_name(graph, ids);
                Err(Broken::at(inst, format!("the {what} {name} are below {limit}, expected at most {bound}"))
                    .naming(ids))
            }
            None => {
                let name = value_name(graph, ids);
                let message = format!("the {what} {name} have no known limit, expected an input with limit={bound}");
                Err(Broken::at(inst, message).naming(ids))
            }
        };
        match op {
            Op::Gather => below("ids", operands[1], graph.ty(operands[0]).dims[0].value(&sizes))?,
            Op::Index => below("slots", operands[1], graph.bounds.slots)?,
            Op::StateWrite => {
                below("slots", operands[2], graph.bounds.slots)?;
                below("positions", operands[3], graph.bounds.tokens)?;
            }
            Op::Fusion(f) => {
                let inner: Vec<Option<usize>> = operands.iter().map(|v| limits.get(v).copied()).collect();
                let outputs = judge(&f.region, &inner).map_err(|b| Broken { within: Some(inst), ..b })?;
                for (&v, limit) in graph.results(inst).iter().zip(outputs) {
                    limits.extend(limit.map(|l| (v, l)));
                }
                continue;
            }
            _ => {}
        }
        let result = graph.result(inst);
        let limit = match op {
            Op::Input { limit, .. } => *limit,
            Op::Param { index } => params.get(*index).copied().flatten(),
            Op::Iota => Some(graph.ty(result).dims[0].value(&sizes)),
            Op::Const(ConstKind::Splat(Scalar::Int(v))) => usize::try_from(*v).ok().map(|v| v + 1),
            Op::Gather => limits.get(&operands[0]).copied(),
            Op::Copy => limits.get(&operands[0]).copied(),
            // Of several operands all must be known; a state has no limit.
            op if op.is_view() && !matches!(op, Op::Index) => {
                let all: Option<Vec<usize>> = operands.iter().map(|v| limits.get(v).copied()).collect();
                all.and_then(|l| l.into_iter().max())
            }
            _ => None,
        };
        limits.extend(limit.map(|l| (result, l)));
    }
    Ok(graph.outputs().iter().map(|(_, v)| limits.get(v).copied()).collect())
}
