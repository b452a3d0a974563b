//! `canonicalize`: constant folding, common subexpressions, dead code, simpler views. The only fixpoint.
//!
//! One sweep rewrites the graph front to back: operands are mapped to what replaced them, then the instruction is folded,
//! simplified, or found to exist already, or it is appended. Sweeps repeat until one changes nothing.
//!
//! What must hold: numbers stay what they were. A rule on floats is there only if it is exact for every f32, NaN and
//! signed zeros included: `x·1`, `x/1`, `x − (+0)`, `x + (−0)` are `x`; `x + (+0)` is not, for it turns −0 into +0.
//! Folding computes in f32 what a kernel would, transcendentals in f64 rounded once.
//!
//! Never removed: inputs (they are the program's ports) and state writes (they are effects).

mod emit;
mod fold;
mod identities;
mod views;

use crate::live;
use crate::manager::{Context, PassError};
use crate::report::Report;
use emit::Emitter;
use llamac_ir::{Graph, Op, Value};

/// Runs the pass.
///
/// # Errors
/// None: what it does not understand it leaves.
pub fn canonicalize(graph: &mut Graph, _cx: &mut Context) -> Result<Report, PassError> {
    let mut report = Report::default();
    loop {
        let mut round = Report::default();
        sweep(graph, &mut round);
        round.count("dead instructions removed", live::remove_dead(graph));
        let changed = round.changed();
        for (what, n) in round.counts {
            report.count(what, n);
        }
        if !changed {
            return Ok(report);
        }
    }
}

/// Rewrites the whole graph once.
fn sweep(graph: &mut Graph, report: &mut Report) {
    let mut out = Emitter::new(Graph::new(graph.name.clone(), graph.bounds), report);
    let mut map: Vec<Option<Value>> = vec![None; graph.value_count()];
    let at = |map: &[Option<Value>], v: Value| map[v.index()].expect("a definition precedes its uses");
    for &inst in graph.order() {
        let data = graph.inst(inst);
        let operands: Vec<Value> = data.operands.iter().map(|&v| at(&map, v)).collect();
        out.origin.clone_from(&data.origin);
        if let [result] = data.results[..]
            && !matches!(data.op, Op::Fusion(_))
        {
            map[result.index()] = Some(out.emit(data.op.clone(), operands, graph.ty(result).clone()));
        } else {
            let types = data.results.iter().map(|&v| graph.ty(v).clone()).collect();
            let new = out.graph.append(data.op.clone(), operands, types, data.origin.clone());
            for (&old, &new) in data.results.iter().zip(out.graph.results(new)) {
                map[old.index()] = Some(new);
            }
        }
    }
    let mut new = out.graph;
    for (name, value) in graph.outputs() {
        new.add_output(name.clone(), at(&map, *value));
    }
    *graph = new;
}
