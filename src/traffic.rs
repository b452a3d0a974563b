//! How many bytes a planned entry moves, by its types alone.

use llamac_ir::{ConstKind, Graph, Layout, Op, Sizes, Value};
use llamac_passes::plan::EntryPlan;

/// Bytes that steps other than GEMMs read and write in one step of these sizes: every operand once, every result once.
/// What a GEMM reads and writes is not counted, whatever runs on its tiles.
pub fn outside_gemms(entry: &EntryPlan, sizes: &Sizes) -> usize {
    let graph = &entry.graph;
    let mut bytes = 0usize;
    for step in &entry.steps {
        if is_gemm(graph, step.inst) {
            continue;
        }
        let operands = graph.operands(step.inst).iter().map(|&v| moved(graph, v, sizes));
        let results = graph.results(step.inst).iter().map(|&v| match graph.def_op(v) {
            // Only the rows are written, not the state.
            Op::StateWrite => moved(graph, graph.operands(step.inst)[1], sizes),
            _ => moved(graph, v, sizes),
        });
        bytes = bytes.saturating_add(operands.chain(results).fold(0, usize::saturating_add));
    }
    bytes
}

/// Whether a step is done by the GEMM: a dot with a weight in panels, alone or with an epilogue.
fn is_gemm(graph: &Graph, inst: llamac_ir::Inst) -> bool {
    matches!(graph.op(inst), Op::Dot(_) | Op::Fusion(_))
        && graph.operands(inst).iter().any(|&v| graph.ty(v).layout == Layout::Panels)
}

fn moved(graph: &Graph, value: Value, sizes: &Sizes) -> usize {
    let size = |v: Value| {
        let ty = graph.ty(v);
        ty.elements().value(sizes).saturating_mul(ty.dtype.bytes())
    };
    let mut base = value;
    let mut through_index = false;
    while graph.def_op(base).is_view() {
        through_index |= matches!(graph.def_op(base), Op::Index);
        base = graph.operands(graph.def(base))[0];
    }
    match graph.def_op(base) {
        Op::Const(ConstKind::Splat(_)) | Op::Iota => 0,
        // A whole state is never read: a view of it says what is, and without one only a row is touched.
        Op::State { .. } | Op::StateWrite if !through_index => 0,
        Op::State { .. } | Op::StateWrite => size(value),
        Op::Weight(_) | Op::Const(_) => size(value).min(size(base)),
        _ => size(value),
    }
}
