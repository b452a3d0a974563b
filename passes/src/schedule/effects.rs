//! What every step reads and writes, and which steps must therefore precede it.
//!
//! A step is an instruction that is neither a leaf nor a view. Views are read through: a step reads the values at the
//! bottom of its operands' views. A state is one piece of memory with a chain of versions (the leaf, then the result of each
//! write): readers of a version come after its write and before the next one.

use super::{ScheduleError, step_name};
use llamac_ir::{Graph, Inst, Op, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What one step does to memory.
#[derive(Clone, Debug)]
pub struct StepEffects {
    /// The instruction.
    pub inst: Inst,
    /// Values that it reads, bottoms of views, each once: results of steps and leaves; versions of states too.
    pub reads: Vec<Value>,
    /// States that it writes: the version before and the version after.
    pub writes: Vec<(Value, Value)>,
    /// Steps (indices in program order) that must be over before it begins, ascending.
    pub after: Vec<usize>,
}

/// The effects of all steps of a graph.
#[derive(Clone, Debug)]
pub struct Effects {
    /// Steps in program order.
    pub steps: Vec<StepEffects>,
    /// For every version of a state, the `state` leaf.
    pub state_of: HashMap<Value, Value>,
    /// For every result of a step, the step's index.
    pub writer: HashMap<Value, usize>,
}

impl Effects {
    /// Derives the effects of every step.
    ///
    /// # Errors
    /// A use of a state that no order of steps can serve.
    pub fn of(graph: &Graph) -> Result<Effects, ScheduleError> {
        let mut effects = Effects { steps: vec![], state_of: HashMap::new(), writer: HashMap::new() };
        for &inst in graph.order() {
            match graph.op(inst) {
                Op::State { .. } => {
                    let leaf = graph.result(inst);
                    effects.state_of.insert(leaf, leaf);
                }
                op if op.is_leaf() || op.is_view() => {}
                _ => effects.add_step(graph, inst)?,
            }
        }
        effects.order_steps(graph)?;
        Ok(effects)
    }

    fn add_step(&mut self, graph: &Graph, inst: Inst) -> Result<(), ScheduleError> {
        let index = self.steps.len();
        let operands = graph.operands(inst);
        let (targets, read) = match graph.op(inst) {
            Op::StateWrite => (vec![Some(0)], (0..operands.len()).map(|i| i != 0).collect()),
            Op::Fusion(f) => {
                let region = &f.region;
                let targets = region.outputs().iter().map(|&(_, v)| write_target(region, v)).collect();
                (targets, read_params(region, operands.len()))
            }
            _ => (vec![None; graph.results(inst).len()], vec![true; operands.len()]),
        };
        let mut writes = vec![];
        for (&result, target) in graph.results(inst).iter().zip(&targets) {
            self.writer.insert(result, index);
            if let Some(target) = target {
                let before = operands[*target];
                let Some(&leaf) = self.state_of.get(&before) else {
                    return Err(ScheduleError::NoState { step: step_name(graph, inst), found: before });
                };
                self.state_of.insert(result, leaf);
                writes.push((before, result));
            }
        }
        let mut reads = vec![];
        let mut seen = HashSet::new();
        for (&operand, _) in operands.iter().zip(&read).filter(|(_, read)| **read) {
            reads.extend(bottoms(graph, operand).into_iter().filter(|&v| seen.insert(v)));
        }
        self.steps.push(StepEffects { inst, reads, writes, after: vec![] });
        Ok(())
    }

    /// Fills `after` from reads and writes.
    fn order_steps(&mut self, graph: &Graph) -> Result<(), ScheduleError> {
        let mut next_write: HashMap<Value, usize> = HashMap::new();
        for (i, step) in self.steps.iter().enumerate() {
            for &(before, _) in &step.writes {
                if let Some(&first) = next_write.get(&before).filter(|&&first| first != i) {
                    return Err(ScheduleError::WrittenTwice {
                        state: before,
                        first: step_name(graph, self.steps[first].inst),
                        second: step_name(graph, step.inst),
                    });
                }
                next_write.insert(before, i);
            }
        }
        let mut after = vec![BTreeSet::new(); self.steps.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for v in step.reads.iter().chain(step.writes.iter().map(|(before, _)| before)) {
                after[i].extend(self.writer.get(v).copied());
            }
            for v in &step.reads {
                let Some(&write) = next_write.get(v).filter(|_| self.state_of.contains_key(v)) else { continue };
                if write == i {
                    return Err(ScheduleError::ReadsWhatItWrites { step: step_name(graph, step.inst), state: *v });
                }
                after[write].insert(i);
            }
        }
        for (step, after) in self.steps.iter_mut().zip(after) {
            step.after = after.into_iter().collect();
        }
        Ok(())
    }
}

/// The values at the bottom of `value`'s views, each once, in the order in which the views name them: `value` itself if it is none.
pub fn bottoms(graph: &Graph, value: Value) -> Vec<Value> {
    let (mut found, mut seen, mut stack) = (vec![], HashSet::new(), vec![value]);
    while let Some(value) = stack.pop() {
        if !seen.insert(value) {
            continue;
        }
        let inst = graph.def(value);
        if graph.op(inst).is_view() {
            stack.extend(graph.operands(inst).iter().rev());
        } else {
            found.push(value);
        }
    }
    found
}

/// The operand whose state a region's output is a later version of, if the output is a state.
fn write_target(region: &Graph, mut value: Value) -> Option<usize> {
    let mut written = false;
    loop {
        let inst = region.def(value);
        match region.op(inst) {
            Op::StateWrite => {
                written = true;
                value = region.operands(inst)[0];
            }
            Op::Param { index } if written => return Some(*index),
            _ => return None,
        }
    }
}

/// For every param of a region, whether its elements are read: not if it is only written to.
fn read_params(region: &Graph, count: usize) -> Vec<bool> {
    let mut read = vec![false; count];
    let mut see = |value: Value| {
        // A version made inside the region reads the same memory as the param it began as.
        let mut value = value;
        while let Op::StateWrite = region.def_op(value) {
            value = region.operands(region.def(value))[0];
        }
        if let Op::Param { index } = region.def_op(value)
            && let Some(read) = read.get_mut(*index)
        {
            *read = true;
        }
    };
    for &inst in region.order() {
        let skip = usize::from(matches!(region.op(inst), Op::StateWrite));
        for &operand in &region.operands(inst)[skip..] {
            see(operand);
        }
    }
    for &(_, v) in region.outputs() {
        if matches!(region.def_op(v), Op::Param { .. }) {
            see(v);
        }
    }
    read
}
