//! How many bytes a planned entry moves, by its types alone.

use llamac_ir::{ConstKind, Fusion, Graph, Inst, Layout, Op, Sizes, Value};
use llamac_passes::plan::EntryPlan;

/// Bytes that steps other than GEMMs read and write in one step of these sizes: every operand once, every result once; of a
/// state what is written or looked at, of a table the rows looked up. What a GEMM reads and writes is not counted,
/// whatever runs on its tiles. The rows are of so many sequences, each of which has as many tokens in the states.
pub fn outside_gemms(entry: &EntryPlan, sizes: &Sizes, sequences: usize) -> usize {
    let graph = &entry.graph;
    let steps = entry.steps.iter().map(|s| s.inst).filter(|&i| !is_gemm(graph, i));
    steps.map(|inst| step(graph, inst, sizes, sequences)).fold(0, usize::saturating_add)
}

/// Whether a step is done by the GEMM: a dot with a weight in panels, alone or with an epilogue.
fn is_gemm(graph: &Graph, inst: Inst) -> bool {
    matches!(graph.op(inst), Op::Dot(_) | Op::Fusion(_))
        && graph.operands(inst).iter().any(|&v| graph.ty(v).layout == Layout::Panels)
}

fn step(graph: &Graph, inst: Inst, sizes: &Sizes, sequences: usize) -> usize {
    let operands = graph.operands(inst).iter().enumerate().map(|(i, &v)| match graph.op(inst) {
        // Of a table only the rows that are looked up.
        Op::Gather if i == 0 => size(graph, graph.result(inst), sizes),
        _ => read(graph, v, sizes, sequences),
    });
    let results = graph.results(inst).iter().enumerate().map(|(i, &v)| match graph.op(inst) {
        Op::StateWrite => size(graph, graph.operands(inst)[1], sizes),
        Op::Fusion(f) => match written_rows(f, i) {
            Some(rows) => size(&f.region, rows, sizes),
            None => size(graph, v, sizes),
        },
        _ => size(graph, v, sizes),
    });
    operands.chain(results).fold(0, usize::saturating_add)
}

fn size(graph: &Graph, value: Value, sizes: &Sizes) -> usize {
    let ty = graph.ty(value);
    ty.dtype.storage(ty.elements().value(sizes)).unwrap_or(usize::MAX)
}

/// The rows that a region writes into a state, if its result of that index is one.
fn written_rows(fusion: &Fusion, index: usize) -> Option<Value> {
    let region = &fusion.region;
    let inst = region.def(region.outputs().get(index)?.1);
    matches!(region.op(inst), Op::StateWrite).then(|| region.operands(inst)[1])
}

fn is_state(graph: &Graph, value: Value) -> bool {
    match graph.def_op(value) {
        Op::State { .. } | Op::StateWrite => true,
        Op::Fusion(f) => written_rows(f, graph.result_index(value)).is_some(),
        _ => false,
    }
}

/// Bytes read of an operand.
fn read(graph: &Graph, value: Value, sizes: &Sizes, sequences: usize) -> usize {
    let mut base = value;
    let mut looked_at = false;
    while graph.def_op(base).is_view() {
        looked_at |= matches!(graph.def_op(base), Op::Index);
        base = graph.operands(graph.def(base))[0];
    }
    if is_state(graph, base) {
        let readers = |inst: Inst| graph.operands(inst).contains(&value);
        let attention = || {
            let mut all = graph.order().iter().filter(|&&i| readers(i));
            all.any(|&i| matches!(graph.op(i), Op::Fusion(f) if f.kind == llamac_ir::FusionKind::Attention))
        };
        return match graph.ty(base).dims[..] {
            // Tiled attention reads the tokens present of each sequence; written states are not read.
            [_, heads, _, width] if !looked_at && attention() => {
                let row = heads.value(sizes).saturating_mul(width.value(sizes));
                let tokens = sizes.tokens.saturating_mul(sequences);
                graph.ty(base).dtype.storage(tokens.saturating_mul(row)).unwrap_or(usize::MAX)
            }
            _ if !looked_at => 0,
            _ => size(graph, value, sizes),
        };
    }
    match graph.def_op(base) {
        Op::Const(ConstKind::Splat(_)) | Op::Iota => 0,
        // Tables are looked up by row.
        Op::Const(ConstKind::Rope { table, .. }) => sizes.rows.saturating_mul(table.frequencies()).saturating_mul(4),
        Op::Weight(_) => size(graph, value, sizes).min(size(graph, base, sizes)),
        _ => size(graph, value, sizes),
    }
}
