//! Which instructions matter: what outputs and effects need.

use llamac_ir::{Graph, Inst, Op};

/// Whether the op changes something beyond its results: it writes a state, or its region does.
pub fn has_effect(op: &Op) -> bool {
    match op {
        Op::StateWrite => true,
        Op::Fusion(f) => f.region.order().iter().any(|&i| has_effect(f.region.op(i))),
        _ => false,
    }
}

/// Removes what neither an output nor an effect needs, and returns how many instructions that were. Inputs and params stay:
/// they are the graph's and the region's ports.
pub fn remove_dead(graph: &mut Graph) -> usize {
    let mut live = vec![false; graph.inst_count()];
    let mut work: Vec<Inst> = graph.outputs().iter().map(|&(_, v)| graph.def(v)).collect();
    work.extend(
        graph
            .order()
            .iter()
            .copied()
            .filter(|&i| matches!(graph.op(i), Op::Input { .. } | Op::Param { .. }) || has_effect(graph.op(i))),
    );
    while let Some(inst) = work.pop() {
        if !std::mem::replace(&mut live[inst.index()], true) {
            work.extend(graph.operands(inst).iter().map(|&v| graph.def(v)));
        }
    }
    let before = graph.order().len();
    if live.iter().filter(|&&l| l).count() < before {
        graph.remove(|i| !live[i.index()]);
    }
    before - graph.order().len()
}
