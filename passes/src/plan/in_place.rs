//! Which results may take the memory of an operand: see "In place" in `docs/ARCHITECTURE.md`.

use llamac_ir::{FusionKind, Graph, Inst, Op, Value};
use std::collections::HashSet;

/// Whether a kernel may write one of its results over operand `operand`, as far as the kernel goes: whether the operand
/// dies there is for the caller to know.
///
/// Element `i` of the operand is loaded in the iteration that stores element `i` of the results, or in an earlier sweep over the same
/// row; so every result must have the operand's type, the operand must be read at the identity index only, and nothing in
/// the region may read it across elements.
pub fn may_overwrite(graph: &Graph, inst: Inst, operand: usize) -> bool {
    let ty = graph.ty(graph.operands(inst)[operand]);
    // Blocks are written after the elements that they are made of, and not where those lie.
    if ty.dtype.is_block() || graph.results(inst).iter().any(|&r| graph.ty(r) != ty) {
        return false;
    }
    match graph.op(inst) {
        op if op.is_elementwise() => true,
        Op::Fusion(f) if matches!(f.kind, FusionKind::Rows | FusionKind::Epilogue) => read_in_place(&f.region, operand),
        _ => false,
    }
}

/// Whether a region reads a param at the identity index only.
fn read_in_place(region: &Graph, param: usize) -> bool {
    let crosses = |op: &Op| {
        matches!(op, Op::Concat { .. } | Op::Transpose { .. } | Op::Gather | Op::Index | Op::StateWrite | Op::Fusion(_))
    };
    // Values whose element i depends on element i of the param.
    let mut aligned: HashSet<Value> = HashSet::new();
    for &inst in region.order() {
        let op = region.op(inst);
        if crosses(op) {
            return false;
        }
        if matches!(op, Op::Param { index } if *index == param) {
            aligned.insert(region.result(inst));
        } else if region.operands(inst).iter().any(|v| aligned.contains(v)) {
            match op {
                op if op.is_elementwise() => {
                    aligned.insert(region.result(inst));
                }
                // Read by an earlier sweep over the row.
                Op::Reduce { .. } => {}
                _ => return false,
            }
        }
    }
    true
}
