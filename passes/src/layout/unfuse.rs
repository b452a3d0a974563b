//! Taking apart what no kernel can run.

use llamac_ir::{Graph, Inst, Op, Type, Value};
use std::collections::HashMap;

/// Replaces a fusion by the instructions of its region.
pub fn inline(graph: &mut Graph, inst: Inst) {
    let Op::Fusion(fusion) = graph.op(inst).clone() else { return };
    let region = &fusion.region;
    let operands = graph.operands(inst).to_vec();
    let origin = graph.origin(inst).to_string();
    let mut map: HashMap<Value, Value> = HashMap::new();
    for &inner in region.order() {
        if let Op::Param { index } = region.op(inner) {
            map.insert(region.result(inner), operands[*index]);
            continue;
        }
        let mapped = region.operands(inner).iter().map(|v| map[v]).collect();
        let types = region.results(inner).iter().map(|&v| region.ty(v).clone()).collect();
        let from = match region.origin(inner) {
            "" => origin.clone(),
            from => from.to_string(),
        };
        let new = graph.insert_before(inst, region.op(inner).clone(), mapped, types, from);
        map.extend(region.results(inner).iter().copied().zip(graph.results(new).to_vec()));
    }
    for (i, &(_, value)) in region.outputs().iter().enumerate() {
        graph.replace_uses(graph.results(inst)[i], map[&value]);
    }
    graph.remove(|i| i == inst);
}

/// Replaces a dot with several right sides by one dot each, and a `concat` of their results.
pub fn split_segments(graph: &mut Graph, inst: Inst) {
    let Op::Dot(spec) = graph.op(inst).clone() else { return };
    let operands = graph.operands(inst).to_vec();
    let origin = graph.origin(inst).to_string();
    let result = graph.result(inst);
    let ty = graph.ty(result).clone();
    let axis = ty.rank() - 1;
    let parts = operands[1..]
        .iter()
        .map(|&weight| {
            let mut dims = ty.dims.clone();
            dims[axis] = graph.ty(weight).dims[0];
            let types = vec![Type { dims, ..ty.clone() }];
            let part =
                graph.insert_before(inst, Op::Dot(spec.clone()), vec![operands[0], weight], types, origin.clone());
            graph.result(part)
        })
        .collect();
    let whole = graph.insert_before(inst, Op::Concat { axis }, parts, vec![ty], origin);
    graph.replace_uses(result, graph.result(whole));
    graph.remove(|i| i == inst);
}
