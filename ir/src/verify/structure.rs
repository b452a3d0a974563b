//! Rules on the shape of a graph: definitions, order, types, outputs.

use super::{Broken, Scope};
use crate::infer::infer;
use crate::print::value_name;
use crate::{Type, Value};
use std::collections::HashSet;

/// The largest bound: indices are `i32`.
const MAX_BOUND: usize = i32::MAX as usize;

pub(super) fn bounds(scope: &Scope<'_>) -> Result<(), Broken> {
    let b = scope.graph.bounds;
    for (name, bound) in [("S", b.rows), ("R", b.outputs), ("T", b.tokens), ("slots", b.slots)] {
        if bound == 0 || bound > MAX_BOUND {
            return Err(Broken::whole(format!("the bound of {name} is {bound}, expected 1 to {MAX_BOUND}")));
        }
    }
    Ok(())
}

pub(super) fn single_definition(scope: &Scope<'_>) -> Result<(), Broken> {
    let graph = scope.graph;
    let mut insts = HashSet::new();
    let mut values: HashSet<Value> = HashSet::new();
    for &inst in graph.order() {
        if !insts.insert(inst) {
            return Err(Broken::at(inst, "the instruction stands in program order twice"));
        }
        if graph.results(inst).is_empty() {
            return Err(Broken::at(inst, "the instruction has no result, expected at least one"));
        }
        for (index, &v) in graph.results(inst).iter().enumerate() {
            let own = v.index() < graph.value_count() && graph.def(v) == inst && graph.result_index(v) == index;
            if !own || !values.insert(v) {
                return Err(Broken::at(inst, format!("result {index} is defined by another instruction")));
            }
        }
    }
    Ok(())
}

pub(super) fn dominance(scope: &Scope<'_>) -> Result<(), Broken> {
    let graph = scope.graph;
    let mut defined: HashSet<Value> = HashSet::new();
    for &inst in graph.order() {
        if let Some(&v) = graph.operands(inst).iter().find(|v| !defined.contains(v)) {
            let name = value_name(graph, v);
            return Err(Broken::at(inst, format!("the operand {name} is not defined before it is used")).naming(v));
        }
        defined.extend(graph.results(inst));
    }
    Ok(())
}

pub(super) fn outputs(scope: &Scope<'_>) -> Result<(), Broken> {
    let graph = scope.graph;
    let region = scope.fusion.is_some();
    let defined: HashSet<Value> = graph.order().iter().flat_map(|&i| graph.results(i)).copied().collect();
    let mut names = HashSet::new();
    if graph.outputs().is_empty() {
        return Err(Broken::whole(if region { "the region yields nothing" } else { "the graph returns nothing" }));
    }
    for (name, value) in graph.outputs() {
        if !defined.contains(value) {
            let message = if region { "the region yields".into() } else { format!("the output {name:?} is") };
            return Err(Broken::whole(format!("{message} a value that is not defined")));
        }
        if region != name.is_empty() {
            let message = if region { "a region's output has the name" } else { "an output has the name" };
            return Err(Broken::whole(format!("{message} {name:?}")));
        }
        if !region && !names.insert(name) {
            return Err(Broken::whole(format!("two outputs have the name {name:?}")));
        }
    }
    Ok(())
}

pub(super) fn types(scope: &Scope<'_>) -> Result<(), Broken> {
    let graph = scope.graph;
    for &inst in graph.order() {
        let operands: Vec<&Type> = graph.operands(inst).iter().map(|&v| graph.ty(v)).collect();
        let found: Vec<Type> = graph.results(inst).iter().map(|&v| graph.ty(v).clone()).collect();
        let expected =
            infer(graph.op(inst), &operands, &found, &graph.bounds).map_err(|e| Broken::at(inst, e.to_string()))?;
        if expected != found {
            let list = |types: &[Type]| types.iter().map(Type::to_string).collect::<Vec<_>>().join(", ");
            let message = format!("the results are {}, expected {}", list(&found), list(&expected));
            return Err(Broken::at(inst, message));
        }
    }
    Ok(())
}
