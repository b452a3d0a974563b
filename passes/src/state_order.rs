//! The order that states impose beyond operands: who reads an old state comes before who writes it.

use llamac_ir::{Graph, Inst, Op, Value};
use std::collections::{HashMap, HashSet};

/// The states that an instruction makes old: the first operand of a `state.write`, and likewise of a fusion whose region
/// writes a param.
pub fn written_states(graph: &Graph, inst: Inst) -> Vec<Value> {
    match graph.op(inst) {
        Op::StateWrite => vec![graph.operands(inst)[0]],
        Op::Fusion(f) => {
            let region = &f.region;
            let writes = region.order().iter().filter(|&&i| matches!(region.op(i), Op::StateWrite));
            writes
                .filter_map(|&i| match region.def_op(region.operands(i)[0]) {
                    Op::Param { index } => graph.operands(inst).get(*index).copied(),
                    _ => None,
                })
                .collect()
        }
        _ => vec![],
    }
}

/// Pairs (reader, writer): the reader uses, itself or through views, a state that the writer makes old.
pub fn read_before_write(graph: &Graph) -> Vec<(Inst, Inst)> {
    let mut writers: HashMap<Value, Vec<Inst>> = HashMap::new();
    for &inst in graph.order() {
        for state in written_states(graph, inst) {
            writers.entry(state).or_default().push(inst);
        }
    }
    let mut pairs = Vec::new();
    // Which old states a view shows.
    let mut shown: HashMap<Value, HashSet<Value>> = HashMap::new();
    for &inst in graph.order() {
        let mut states: HashSet<Value> = HashSet::new();
        for v in graph.operands(inst) {
            if writers.contains_key(v) {
                states.insert(*v);
            }
            states.extend(shown.get(v).into_iter().flatten());
        }
        if states.is_empty() {
            continue;
        }
        if graph.op(inst).is_view() {
            shown.insert(graph.result(inst), states);
            continue;
        }
        let mut later: Vec<Inst> =
            states.iter().flat_map(|s| &writers[s]).copied().filter(|&writer| writer != inst).collect();
        later.sort_unstable();
        pairs.extend(later.into_iter().map(|writer| (inst, writer)));
    }
    pairs
}
