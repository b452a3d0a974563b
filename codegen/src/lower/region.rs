//! Closed regions: everything between memory and a step's results, as one small graph.
//!
//! A fusion's region, or a lone primitive, together with the views and splat constants outside it through which its
//! operands are read. Every `param` of a closed region lies densely in memory.

use llamac_ir::{ConstKind, Graph, Inst, Op, Recipe, Value};
use std::collections::HashMap;

/// A region whose params all lie in memory.
#[derive(Clone, Debug)]
pub struct Closed {
    /// What it is called, for errors: origin and name.
    pub at: String,
    /// The primitives; its outputs are the step's results in order.
    pub graph: Graph,
    /// The values of the outer graph that are the params.
    pub params: Vec<Value>,
    /// For each param that is an `i32` input with a limit: every element is below it.
    pub limits: Vec<Option<usize>>,
    /// For each param that is a weight of interleaved panels: of how many parts; else 1.
    pub interleaved: Vec<usize>,
}

/// Whether a value lies in memory by itself: neither a view nor something that is made where it is read.
pub fn in_memory(graph: &Graph, value: Value) -> bool {
    let op = graph.def_op(value);
    !(op.is_view() || matches!(op, Op::Const(ConstKind::Splat(_)) | Op::Iota))
}

/// Closes an instruction's work over the memory that it reads.
pub fn close(outer: &Graph, inst: Inst, at: String) -> Closed {
    let mut closed =
        Closed { at, graph: Graph::new("", outer.bounds), params: vec![], limits: vec![], interleaved: vec![] };
    let mut seen = HashMap::new();
    let operands: Vec<Value> = outer.operands(inst).iter().map(|&v| closed.import(outer, v, &mut seen)).collect();
    match outer.op(inst) {
        Op::Fusion(fusion) => {
            let region = &fusion.region;
            let mut map: HashMap<Value, Value> = HashMap::new();
            for &inner in region.order() {
                if let Op::Param { index } = region.op(inner) {
                    map.insert(region.result(inner), operands[*index]);
                    continue;
                }
                let args = region.operands(inner).iter().map(|v| map[v]).collect();
                closed.append(region, inner, args, &mut map);
            }
            for (name, value) in region.outputs() {
                closed.graph.add_output(name.clone(), map[value]);
            }
        }
        _ => {
            let mut map = HashMap::new();
            closed.append(outer, inst, operands, &mut map);
            for (i, value) in outer.results(inst).iter().enumerate() {
                closed.graph.add_output(i.to_string(), map[value]);
            }
        }
    }
    closed
}

impl Closed {
    fn append(&mut self, from: &Graph, inst: Inst, operands: Vec<Value>, map: &mut HashMap<Value, Value>) {
        let types = from.results(inst).iter().map(|&v| from.ty(v).clone()).collect();
        let new = self.graph.append(from.op(inst).clone(), operands, types, from.origin(inst));
        for (&old, &new) in from.results(inst).iter().zip(self.graph.results(new)) {
            map.insert(old, new);
        }
    }

    /// Brings a value in: as a param, or with the views and constants that make it. Without recursion: a chain of views may
    /// be as long as the text that it was read from.
    fn import(&mut self, outer: &Graph, value: Value, seen: &mut HashMap<Value, Value>) -> Value {
        let mut stack = vec![value];
        while let Some(&value) = stack.last() {
            let inst = outer.def(value);
            if seen.contains_key(&value) {
                stack.pop();
            } else if in_memory(outer, value) {
                self.import_param(outer, value, seen);
            } else {
                let operands = outer.operands(inst);
                let waiting = stack.len();
                stack.extend(operands.iter().copied().filter(|v| !seen.contains_key(v)));
                if stack.len() == waiting {
                    let operands = operands.iter().map(|v| seen[v]).collect();
                    self.append(outer, inst, operands, seen);
                }
            }
        }
        seen[&value]
    }

    fn import_param(&mut self, outer: &Graph, value: Value, seen: &mut HashMap<Value, Value>) {
        let index = self.params.len();
        self.params.push(value);
        self.limits.push(match outer.def_op(value) {
            Op::Input { limit, .. } => *limit,
            _ => None,
        });
        self.interleaved.push(match outer.def_op(value) {
            Op::Weight(Recipe::InterleavePanels(parts)) => parts.len().max(1),
            _ => 1,
        });
        let param = self.graph.append(Op::Param { index }, vec![], vec![outer.ty(value).clone()], "");
        seen.insert(value, self.graph.result(param));
    }
}
