//! Values of an entry's graph as memory operands of the program.

use crate::error::{CodegenError, Result};
use crate::pack::WeightPlan;
use llamac_formats::Access;
use llamac_formats::program::{Operand, PortInfo, StateInfo};
use llamac_ir::{ConstKind, Graph, Op, Value};
use llamac_passes::plan::{EntryPlan, Storage};
use std::collections::HashMap;

/// Where the values of one entry are.
pub struct Memory<'a> {
    plan: &'a EntryPlan,
    leaves: HashMap<Value, Operand>,
}

impl<'a> Memory<'a> {
    /// Numbers the leaves: weights and states are shared by all entries, inputs are known by name.
    pub fn new(
        plan: &'a EntryPlan,
        inputs: &[PortInfo],
        outputs: &[PortInfo],
        states: &mut Vec<StateInfo>,
        weights: &mut WeightPlan,
    ) -> Result<Memory<'a>> {
        let graph = &plan.graph;
        let mut leaves = HashMap::new();
        for &inst in graph.order() {
            let operand = match graph.op(inst) {
                Op::Weight(recipe) => {
                    Operand::Weight(weights.add_weight(recipe.clone(), graph.ty(graph.result(inst)).clone())?)
                }
                Op::Const(ConstKind::Rope { table, part }) => {
                    let tokens = graph.ty(graph.result(inst)).dims.first().and_then(|d| d.as_const());
                    Operand::Weight(weights.add_rope(table.clone(), *part, tokens.unwrap_or(0))?)
                }
                Op::State { name } => Operand::State(state(graph, graph.result(inst), name, states)?),
                Op::Input { name, .. } => {
                    let at = inputs.iter().position(|p| p.name == *name);
                    Operand::Input(at.ok_or_else(|| {
                        CodegenError::Plan(format!("entry `{}` has an input `{name}` that the graph lacks", plan.name))
                    })?)
                }
                _ => continue,
            };
            leaves.insert(graph.result(inst), operand);
        }
        let same = graph.outputs().len() == outputs.len()
            && graph.outputs().iter().zip(outputs).all(|((name, _), port)| *name == port.name);
        if !same {
            return Err(CodegenError::Plan(format!("entry `{}` has other outputs than the graph", plan.name)));
        }
        Ok(Memory { plan, leaves })
    }

    /// The operand that holds a value.
    pub fn operand(&self, value: Value, at: &str) -> Result<Operand> {
        let missing =
            || CodegenError::NoStorage { at: at.into(), value: format!("{value}: {}", self.plan.graph.ty(value)) };
        let leaf = |v: &Value| self.leaves.get(v).copied().ok_or_else(missing);
        match self.plan.storage.get(&value) {
            Some(Storage::Buffer(b)) => {
                let buffer = self.plan.buffers.get(*b).ok_or_else(missing)?;
                Ok(Operand::Arena(buffer.offset))
            }
            Some(Storage::Weight(v) | Storage::State(v) | Storage::Input(v)) => leaf(v),
            Some(Storage::Output(i)) => Ok(Operand::Output(*i)),
            None => leaf(&value),
        }
    }

    /// An access to values as an access to operands.
    pub fn access(&self, access: Access<Value>, at: &str) -> Result<Access<Operand>> {
        let mut operands = vec![self.operand(access.base, at)?];
        for i in &access.indirects {
            operands.push(self.operand(i.index, at)?);
        }
        let mut operands = operands.into_iter();
        Ok(access.map(|_| operands.next().unwrap_or(Operand::Arena(0))))
    }

    /// The arena buffer of that number.
    pub fn buffer(&self, index: usize) -> Result<Operand> {
        let buffer = self.plan.buffers.get(index);
        let missing = || CodegenError::Plan(format!("entry `{}` has no buffer {index}", self.plan.name));
        Ok(Operand::Arena(buffer.ok_or_else(missing)?.offset))
    }
}

fn state(graph: &Graph, value: Value, name: &str, states: &mut Vec<StateInfo>) -> Result<usize> {
    let ty = graph.ty(value);
    let dims: Vec<usize> = ty.dims.iter().filter_map(|d| d.as_const()).collect();
    let info = StateInfo { name: name.into(), dtype: ty.dtype, dims };
    match states.iter().position(|s| s.name == name) {
        Some(at) if states[at] == info => Ok(at),
        Some(at) => Err(CodegenError::Plan(format!(
            "state `{name}` is {ty} in one entry, {}{:?} in another",
            states[at].dtype, states[at].dims
        ))),
        None => {
            states.push(info);
            Ok(states.len() - 1)
        }
    }
}
