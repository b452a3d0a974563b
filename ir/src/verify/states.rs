//! States are linear: there is one memory, and program order says what it holds.

use super::{Broken, Scope};
use crate::print::value_name;
use crate::{Graph, Inst, Op, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

pub(super) fn linear(scope: &Scope<'_>) -> Result<(), Broken> {
    match scope.fusion {
        // Regions are judged where they stand: only there it is known which params are states.
        Some(_) => Ok(()),
        None => judge(scope.graph, None).map(|_| ()),
    }
}

/// What a region does to states.
struct Effect {
    /// Which outputs are states.
    outputs: Vec<bool>,
    /// Which params are written.
    written: Vec<bool>,
}

/// Judges a graph, or a region of which the params marked are states.
fn judge(graph: &Graph, region: Option<&[bool]>) -> Result<Effect, Broken> {
    let params = region.unwrap_or_default();
    let mut states: HashSet<Value> = HashSet::new();
    let mut writes: HashMap<Value, usize> = HashMap::new();
    let mut made_by_write: HashSet<Value> = HashSet::new();
    // Reads of states: where, by whom, directly or through a view.
    let mut reads: Vec<(usize, Inst, Value)> = vec![];
    let mut shown: HashMap<Value, BTreeSet<Value>> = HashMap::new();
    let mut effect = Effect { outputs: vec![], written: vec![false; params.len()] };

    for (at, &inst) in graph.order().iter().enumerate() {
        let operands = graph.operands(inst);
        let op = graph.op(inst);
        let mut write = |state: Value| match writes.insert(state, at) {
            None => Ok(()),
            Some(_) => Err(Broken::at(inst, format!("{} is written twice", value_name(graph, state))).naming(state)),
        };
        let stateless = |operands: &[Value]| match operands.iter().find(|v| states.contains(v)) {
            None => Ok(()),
            Some(&v) => {
                let name = value_name(graph, v);
                Err(Broken::at(inst, format!("`{}` uses the state {name}, expected `index`", op.mnemonic())).naming(v))
            }
        };
        let state_first = || match states.contains(&operands[0]) {
            true => stateless(&operands[1..]),
            false => {
                let name = value_name(graph, operands[0]);
                Err(Broken::at(inst, format!("`{}` takes a state, {name} is none", op.mnemonic())).naming(operands[0]))
            }
        };
        let views: BTreeSet<Value> = operands.iter().filter_map(|v| shown.get(v)).flatten().copied().collect();
        match op {
            Op::State { .. } => {
                states.insert(graph.result(inst));
            }
            Op::Param { index } if params.get(*index) == Some(&true) => {
                states.insert(graph.result(inst));
            }
            Op::Index => {
                state_first()?;
                reads.push((at, inst, operands[0]));
                let showing = views.into_iter().chain([operands[0]]).collect();
                shown.insert(graph.result(inst), showing);
                continue;
            }
            Op::StateWrite => {
                state_first()?;
                write(operands[0])?;
                if let Op::Param { index } = graph.def_op(operands[0]) {
                    effect.written[*index] = true;
                }
                states.insert(graph.result(inst));
                made_by_write.insert(graph.result(inst));
            }
            Op::Fusion(f) => {
                let flags: Vec<bool> = operands.iter().map(|v| states.contains(v)).collect();
                let inner = judge(&f.region, Some(&flags)).map_err(|b| Broken { within: Some(inst), ..b })?;
                for (i, &v) in operands.iter().enumerate() {
                    if !flags[i] {
                        continue;
                    }
                    if !inner.written[i] {
                        reads.push((at, inst, v));
                        continue;
                    }
                    write(v)?;
                    if operands.iter().enumerate().any(|(j, &w)| j != i && w == v) {
                        let name = value_name(graph, v);
                        return Err(
                            Broken::at(inst, format!("the state {name} is two operands and one is written")).naming(v)
                        );
                    }
                    if let Op::Param { index } = graph.def_op(v) {
                        effect.written[*index] = true;
                    }
                }
                for (&v, &is_state) in graph.results(inst).iter().zip(&inner.outputs) {
                    if is_state {
                        states.insert(v);
                        made_by_write.insert(v);
                    }
                }
            }
            op => {
                stateless(operands)?;
                if op.is_view() && !views.is_empty() {
                    shown.insert(graph.result(inst), views);
                    continue;
                }
            }
        }
        reads.extend(views.into_iter().map(|state| (at, inst, state)));
    }

    let late = |state: &Value, at: usize| writes.get(state).is_some_and(|&write| write <= at);
    if let Some((_, inst, state)) = reads.iter().find(|(at, _, state)| late(state, *at)) {
        let name = value_name(graph, *state);
        return Err(
            Broken::at(*inst, format!("the old state {name} is read where it is already written")).naming(*state)
        );
    }
    for (_, v) in graph.outputs() {
        let inst = graph.def(*v);
        let name = value_name(graph, *v);
        if shown.get(v).is_some_and(|states| states.iter().any(|s| writes.contains_key(s))) {
            return Err(Broken::at(inst, format!("{name}, a view of an old state, is an output")).naming(*v));
        }
        let is_state = states.contains(v);
        if is_state && region.is_none() {
            return Err(Broken::at(inst, format!("{name}, a state, is an output of the graph")).naming(*v));
        }
        if is_state && (!made_by_write.contains(v) || writes.contains_key(v)) {
            return Err(
                Broken::at(inst, format!("the region yields {name}, a state that it has not written last")).naming(*v)
            );
        }
        effect.outputs.push(is_state);
    }
    let mut seen = HashSet::new();
    if let Some((_, v)) = graph.outputs().iter().find(|(_, v)| states.contains(v) && !seen.insert(*v)) {
        return Err(Broken::at(graph.def(*v), "the region yields a state twice"));
    }
    Ok(effect)
}
