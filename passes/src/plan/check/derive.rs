//! What steps read, write and need, derived from the graph once more: nothing here is shared with the planner.

use llamac_ir::{FusionKind, Graph, Inst, Layout, Op, Type, Value};
use std::collections::{HashMap, HashSet};

/// Bytes of a value at the bounds (saturating).
pub fn bytes(ty: &Type, graph: &Graph) -> usize {
    let sizes = graph.bounds.sizes();
    let (elements, bytes) = ty.dtype.block();
    // A last axis that holds blocks is a multiple of them.
    let all = ty.dims.iter().fold(1usize, |n, d| n.saturating_mul(d.value(&sizes)));
    (all / elements).saturating_mul(bytes)
}

/// Views: what has no memory of its own.
pub fn passes_through(graph: &Graph, inst: Inst) -> bool {
    use Op::{Broadcast, Concat, Index, Reshape, Slice, Transpose};
    matches!(graph.op(inst), Reshape | Transpose { .. } | Slice { .. } | Concat { .. } | Broadcast { .. } | Index)
}

/// The values in memory (or generated) that a value's elements come from.
pub fn sources(graph: &Graph, value: Value) -> HashSet<Value> {
    let mut found = HashSet::new();
    let mut seen = HashSet::from([value]);
    let mut todo = vec![value];
    while let Some(v) = todo.pop() {
        let inst = graph.def(v);
        if passes_through(graph, inst) {
            todo.extend(graph.operands(inst).iter().copied().filter(|&o| seen.insert(o)));
        } else {
            found.insert(v);
        }
    }
    found
}

/// Which operands of a step are states that it writes.
pub struct StateTargets {
    /// For each result, the operand that it is the next version of.
    results: Vec<Option<usize>>,
    /// Operands that are written and not read.
    silent: HashSet<usize>,
}

impl StateTargets {
    /// The operand that a result is the next version of.
    pub fn of_result(&self, result: usize) -> Option<usize> {
        self.results[result]
    }

    /// Whether an operand is written and not read.
    pub fn only_written(&self, operand: usize) -> bool {
        self.silent.contains(&operand)
    }
}

/// Which states a step writes.
pub fn state_targets(graph: &Graph, inst: Inst) -> StateTargets {
    match graph.op(inst) {
        Op::StateWrite => StateTargets { results: vec![Some(0)], silent: HashSet::from([0]) },
        Op::Fusion(f) => {
            // Forward over the region: which values are versions of which param.
            let region = &f.region;
            let mut version: HashMap<Value, (usize, bool)> = HashMap::new();
            let mut read: HashSet<usize> = HashSet::new();
            for &i in region.order() {
                let operands = region.operands(i);
                match region.op(i) {
                    Op::Param { index } => {
                        version.insert(region.result(i), (*index, false));
                    }
                    Op::StateWrite => {
                        if let Some(&(param, _)) = version.get(&operands[0]) {
                            version.insert(region.result(i), (param, true));
                        }
                        read.extend(operands[1..].iter().filter_map(|v| version.get(v)).map(|v| v.0));
                    }
                    _ => read.extend(operands.iter().filter_map(|v| version.get(v)).map(|v| v.0)),
                }
            }
            let results: Vec<Option<usize>> = region
                .outputs()
                .iter()
                .map(|(_, v)| version.get(v).filter(|(_, written)| *written).map(|(param, _)| *param))
                .collect();
            let silent = results.iter().flatten().copied().filter(|p| !read.contains(p)).collect();
            StateTargets { results, silent }
        }
        _ => StateTargets { results: vec![None; graph.results(inst).len()], silent: HashSet::new() },
    }
}

/// Why a step cannot write its results over an operand; `None` if it can.
pub fn not_in_place(graph: &Graph, inst: Inst, operand: Value) -> Option<&'static str> {
    for &o in graph.operands(inst) {
        if o != operand && sources(graph, o).contains(&operand) {
            return Some("another operand reads it through a view");
        }
    }
    let ty = graph.ty(operand);
    if graph.results(inst).iter().any(|&r| graph.ty(r) != ty) {
        return Some("a result has another type");
    }
    let positions = graph.operands(inst).iter().enumerate().filter(|(_, o)| **o == operand).map(|(i, _)| i);
    match graph.op(inst) {
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => None,
        Op::Fusion(f) if f.kind != FusionKind::Attention => {
            positions.into_iter().find_map(|p| not_at_identity(&f.region, p))
        }
        _ => Some("the kernel works on more than one element at a time"),
    }
}

/// Why a region reads a param elsewhere than at the index it writes; `None` if it does not. Walks from every instruction back to
/// the param.
fn not_at_identity(region: &Graph, param: usize) -> Option<&'static str> {
    let mut from_param: HashMap<Value, bool> = HashMap::new();
    for &inst in region.order() {
        let tainted = region.operands(inst).iter().any(|v| from_param.get(v).copied().unwrap_or(false));
        let here = match region.op(inst) {
            Op::Param { index } => *index == param,
            Op::Concat { .. } | Op::Transpose { .. } | Op::Gather | Op::Index | Op::StateWrite => {
                return Some("its region reads across elements");
            }
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => tainted,
            // The sum of a row is taken before the row is written.
            Op::Reduce { .. } => false,
            _ if tainted => return Some("its region reads the operand at other indices"),
            _ => false,
        };
        for &r in region.results(inst) {
            from_param.insert(r, here);
        }
    }
    None
}

/// Bytes for the packed activations of a GEMM of more than one row; 0 for other steps.
pub fn packed_activations(graph: &Graph, inst: Inst) -> usize {
    let region = match graph.op(inst) {
        Op::Fusion(f) => &f.region,
        Op::Dot(_) => graph,
        _ => return 0,
    };
    let dot = match graph.op(inst) {
        Op::Dot(_) => Some(inst),
        _ => region.order().iter().copied().find(|&i| matches!(region.op(i), Op::Dot(_))),
    };
    let Some(dot) = dot else { return 0 };
    let (lhs, rhs) = (region.operands(dot)[0], region.operands(dot)[1]);
    if region.ty(rhs).layout != Layout::Panels {
        return 0;
    }
    let sizes = graph.bounds.sizes();
    let k = region.ty(rhs).dims[1].value(&sizes);
    let lhs = region.ty(lhs);
    let m = lhs.dims[..lhs.dims.len() - 1].iter().fold(1usize, |n, d| n.saturating_mul(d.value(&sizes)));
    if m <= 1 { 0 } else { m.div_ceil(64).saturating_mul(64).saturating_mul(k).saturating_mul(4) }
}
