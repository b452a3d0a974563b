//! The order of steps, and where threads must meet.
//!
//! A *stretch* is what lies between two barriers: its steps run in any order and at once, for threads run ahead until they
//! meet. So steps that depend on each other (by a value, or by the order of a state's versions) lie in different stretches,
//! and the fewest barriers that any order can have is the length of the longest chain of dependences. `schedule` reaches it, and
//! uses what freedom is left (most steps have none) to keep few bytes live; the program order breaks ties.

pub mod effects;
mod stretches;

pub use effects::{Effects, StepEffects, bottoms};

use llamac_ir::{Graph, Inst, Op, Value};
use std::collections::HashMap;
use thiserror::Error;

/// Steps in order with their barriers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Every step, once.
    pub order: Vec<Inst>,
    /// For each step of `order`, whether all threads must meet before it.
    pub barriers: Vec<bool>,
}

impl Schedule {
    /// For each step, the stretch it lies in: the number of barriers up to it.
    pub fn stretches(&self) -> Vec<usize> {
        let mut stretch = 0;
        self.barriers
            .iter()
            .map(|&barrier| {
                stretch += usize::from(barrier);
                stretch
            })
            .collect()
    }
}

/// Why a graph has no schedule: a state is used as no memory can be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// Something that is no state is written to.
    #[error("step `{step}` writes to {found}, expected a `state` or the result of an earlier `state.write` to it")]
    NoState {
        /// The step.
        step: String,
        /// What it writes to.
        found: Value,
    },
    /// One version of a state has two successors.
    #[error(
        "the state {state} is written by `{first}` and again by `{second}`: expected the second to write what the first returned"
    )]
    WrittenTwice {
        /// The version.
        state: Value,
        /// The first write.
        first: String,
        /// The second write.
        second: String,
    },
    /// A step reads a state while it writes it: other rows may or may not have been written.
    #[error("step `{step}` reads the state {state} that it writes itself: expected the read in a step of its own")]
    ReadsWhatItWrites {
        /// The step.
        step: String,
        /// The version.
        state: Value,
    },
    /// The dependences form a cycle: a version of a state is read after it was overwritten.
    #[error(
        "no order of steps serves `{step}`: it needs a version of a state that was overwritten, or depends on itself"
    )]
    Cycle {
        /// A step of the cycle.
        step: String,
    },
}

/// The name of a step in reports and errors: where it came from and what it is, `layers.3.attn.norm rmsnorm`.
pub fn step_name(graph: &Graph, inst: Inst) -> String {
    let what = match graph.op(inst) {
        Op::Fusion(f) if f.name.is_empty() => f.kind.name(),
        Op::Fusion(f) => f.name.as_str(),
        op => op.mnemonic(),
    };
    match graph.origin(inst) {
        "" => what.to_string(),
        origin => format!("{origin} {what}"),
    }
}

/// Bytes of a value at the graph's bounds (saturating).
pub fn value_bytes(graph: &Graph, value: Value) -> usize {
    graph.ty(value).max_bytes(&graph.bounds)
}

/// Orders the steps of a graph: fewest barriers first, then few live bytes, then program order.
///
/// # Errors
/// A state that no order can serve.
pub fn schedule(graph: &Graph) -> Result<Schedule, ScheduleError> {
    let effects = Effects::of(graph)?;
    let stretch_of = stretches::assign(graph, &effects)?;
    let mut order: Vec<usize> = (0..effects.steps.len()).collect();
    // Steps that wait for the stretch before come first in theirs: the barrier stands before the first of them, and
    // steps that were put into this stretch only to save memory must not slip in front of it.
    let waits = |i: usize| effects.steps[i].after.iter().any(|&p| stretch_of[p] + 1 == stretch_of[i]);
    order.sort_by_key(|&i| (stretch_of[i], !waits(i), i));
    Ok(with_barriers(&effects, &order))
}

/// The steps in program order, with a barrier before each step that needs one.
///
/// # Errors
/// A state that this order cannot serve.
pub fn program_order(graph: &Graph) -> Result<Schedule, ScheduleError> {
    let effects = Effects::of(graph)?;
    let order: Vec<usize> = (0..effects.steps.len()).collect();
    for (i, step) in effects.steps.iter().enumerate() {
        if step.after.iter().any(|&p| p >= i) {
            return Err(ScheduleError::Cycle { step: step_name(graph, step.inst) });
        }
    }
    Ok(with_barriers(&effects, &order))
}

/// Sets a barrier before a step if and only if it depends on a step since the last barrier.
fn with_barriers(effects: &Effects, order: &[usize]) -> Schedule {
    let at: HashMap<usize, usize> = order.iter().enumerate().map(|(at, &step)| (step, at)).collect();
    let mut begin = 0;
    let barriers = order
        .iter()
        .enumerate()
        .map(|(i, &step)| {
            let barrier = effects.steps[step].after.iter().any(|p| at[p] >= begin);
            if barrier {
                begin = i;
            }
            barrier
        })
        .collect();
    Schedule { order: order.iter().map(|&s| effects.steps[s].inst).collect(), barriers }
}

/// Brings a graph into scheduled order: leaves first, then each step after the views that it reads. Views that no step
/// reads are dropped.
pub fn reorder(graph: &mut Graph, steps: &[Inst]) {
    let mut placed = vec![false; graph.inst_count()];
    let mut order = vec![];
    for &inst in graph.order() {
        if graph.op(inst).is_leaf() {
            placed[inst.index()] = true;
            order.push(inst);
        }
    }
    let place_views = |placed: &mut Vec<bool>, order: &mut Vec<Inst>, roots: &[Value]| {
        let mut stack: Vec<(Inst, bool)> = roots.iter().rev().map(|&v| (graph.def(v), false)).collect();
        while let Some((inst, ready)) = stack.pop() {
            if placed[inst.index()] || !graph.op(inst).is_view() {
                continue;
            }
            if ready {
                placed[inst.index()] = true;
                order.push(inst);
            } else {
                stack.push((inst, true));
                stack.extend(graph.operands(inst).iter().rev().map(|&v| (graph.def(v), false)));
            }
        }
    };
    for &step in steps {
        place_views(&mut placed, &mut order, graph.operands(step));
        placed[step.index()] = true;
        order.push(step);
    }
    let outputs: Vec<Value> = graph.outputs().iter().map(|&(_, v)| v).collect();
    place_views(&mut placed, &mut order, &outputs);
    graph.remove(|inst| !placed[inst.index()]);
    graph.set_order(order);
}
