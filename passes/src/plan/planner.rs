//! The planner: entries, schedule, storage, offsets.

use super::in_place::may_overwrite;
use super::offsets::{self, ALIGN, Item};
use super::{CheckError, EntryPlan, InPlace, Plan, PlannedBuffer, PlannedStep, Storage, check};
use crate::schedule::{
    Effects, Schedule, ScheduleError, bottoms, program_order, reorder, schedule, step_name, value_bytes,
};
use crate::specialise::{Entry, entries};
use llamac_ir::{ConstKind, Graph, Inst, Layout, Op, Value};
use std::collections::HashMap;
use thiserror::Error;

/// Which parts of planning are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Order steps for few barriers and few live bytes; else they stay in program order.
    pub schedule: bool,
    /// Share memory between values; else every value has its own.
    pub plan: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { schedule: true, plan: true }
    }
}

/// Why a graph has no plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The steps have no order.
    #[error("entry `{entry}`: {source}")]
    Schedule {
        /// The entry.
        entry: &'static str,
        /// Why.
        source: ScheduleError,
    },
    /// An output is no step's own result, which the `layout` pass would have seen to.
    #[error("output `{name}` is {value}, which no step computes into memory of its own: run the pass `layout` first")]
    OutputNotReal {
        /// The output.
        name: String,
        /// Its value.
        value: Value,
    },
    /// The arena would not fit into the address space.
    #[error(
        "entry `{entry}` needs more memory than can be addressed, the largest buffer being `{largest}`: lower the chunk or the context"
    )]
    TooLarge {
        /// The entry.
        entry: &'static str,
        /// The step that makes the largest buffer.
        largest: String,
    },
    /// The checker refused the plan: a defect of the planner.
    #[error("entry `{entry}`: the plan is wrong, please report it: {source}")]
    Refused {
        /// The entry.
        entry: &'static str,
        /// What the checker found.
        source: CheckError,
    },
}

/// Plans all entries of a graph: schedule, storage, offsets; and proves each plan with the checker.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(graph: &Graph) -> Result<Plan, PlanError> {
    plan_with(graph, Options::default())
}

/// [`plan`] with parts of it switched off.
///
/// # Errors
/// See [`PlanError`].
pub fn plan_with(graph: &Graph, options: Options) -> Result<Plan, PlanError> {
    let entries = entries(graph).into_iter().map(|e| plan_entry(e, options)).collect::<Result<_, _>>()?;
    Ok(Plan { entries })
}

/// Plans one entry.
fn plan_entry(entry: Entry, options: Options) -> Result<EntryPlan, PlanError> {
    let Entry { name, mut graph } = entry;
    let at = |source| PlanError::Schedule { entry: name, source };
    let schedule = if options.schedule { schedule(&graph) } else { program_order(&graph) }.map_err(at)?;
    reorder(&mut graph, &schedule.order);
    let effects = Effects::of(&graph).map_err(at)?;
    let mut memory = Memory::new(&graph, &effects, &schedule)?;
    for step in 0..schedule.order.len() {
        memory.place(step, options.plan);
    }
    let Memory { storage, buffers, scratch, in_place, .. } = memory;
    let too_large = || {
        let largest = buffers.iter().max_by_key(|b| b.bytes).map(|b| b.name.clone()).unwrap_or_default();
        PlanError::TooLarge { entry: name, largest }
    };
    let stretches = schedule.stretches();
    let items: Vec<Item> = buffers
        .iter()
        .map(|b| {
            let bytes = b.bytes.checked_next_multiple_of(ALIGN)?;
            Some(Item { bytes, first: stretches[b.first], last: stretches[b.last] })
        })
        .collect::<Option<_>>()
        .ok_or_else(too_large)?;
    let total = items.iter().try_fold(0usize, |sum, i| sum.checked_add(i.bytes));
    let total = total.filter(|&t| t <= isize::MAX as usize).ok_or_else(too_large)?;
    let arena_lower_bound = offsets::lower_bound(&items).ok_or_else(too_large)?;
    let (offsets, arena_bytes) = if options.plan {
        let packing = offsets::pack(&items, arena_lower_bound);
        (packing.offsets, packing.bytes)
    } else {
        let mut end = 0;
        let place = |i: &Item| {
            end += i.bytes;
            end - i.bytes
        };
        (items.iter().map(place).collect(), total)
    };
    let buffers = buffers
        .into_iter()
        .zip(offsets)
        .map(|(b, offset)| PlannedBuffer { name: b.name, offset, bytes: b.bytes, first: b.first, last: b.last })
        .collect();
    let steps = schedule
        .order
        .iter()
        .zip(&schedule.barriers)
        .zip(scratch)
        .map(|((&inst, &barrier), scratch)| PlannedStep { inst, barrier, scratch })
        .collect();
    let plan =
        EntryPlan { name: name.to_string(), graph, steps, buffers, storage, arena_bytes, arena_lower_bound, in_place };
    check(&plan).map_err(|source| PlanError::Refused { entry: name, source })?;
    Ok(plan)
}

/// A buffer before it has an offset.
struct Pending {
    name: String,
    bytes: usize,
    first: usize,
    last: usize,
}

/// What has been given memory so far.
struct Memory<'a> {
    graph: &'a Graph,
    effects: &'a Effects,
    schedule: &'a Schedule,
    stretches: Vec<usize>,
    /// For each value that a step reads, the reading steps in order.
    readers: HashMap<Value, Vec<usize>>,
    storage: HashMap<Value, Storage>,
    buffers: Vec<Pending>,
    scratch: Vec<Option<usize>>,
    in_place: Vec<InPlace>,
}

impl<'a> Memory<'a> {
    /// Leaves and outputs have their places from the start.
    fn new(graph: &'a Graph, effects: &'a Effects, schedule: &'a Schedule) -> Result<Memory<'a>, PlanError> {
        let mut storage = HashMap::new();
        for &inst in graph.order() {
            match graph.op(inst) {
                Op::Input { .. } => storage.insert(graph.result(inst), Storage::Input(graph.result(inst))),
                Op::Weight(_) | Op::Const(ConstKind::Rope { .. }) => {
                    storage.insert(graph.result(inst), Storage::Weight(graph.result(inst)))
                }
                _ => None,
            };
        }
        storage.extend(effects.state_of.iter().map(|(&version, &leaf)| (version, Storage::State(leaf))));
        for (i, (name, value)) in graph.outputs().iter().enumerate() {
            let real = effects.writer.contains_key(value);
            if !real || storage.insert(*value, Storage::Output(i)).is_some() {
                return Err(PlanError::OutputNotReal { name: name.clone(), value: *value });
            }
        }
        let mut readers: HashMap<Value, Vec<usize>> = HashMap::new();
        for (i, step) in effects.steps.iter().enumerate() {
            for &v in &step.reads {
                readers.entry(v).or_default().push(i);
            }
        }
        let stretches = schedule.stretches();
        Ok(Memory {
            graph,
            effects,
            schedule,
            stretches,
            readers,
            storage,
            buffers: vec![],
            scratch: vec![],
            in_place: vec![],
        })
    }

    /// Gives every result of a step, and the step itself, the memory that they need.
    fn place(&mut self, step: usize, share: bool) {
        let inst = self.schedule.order[step];
        let graph = self.graph;
        for &result in graph.results(inst) {
            if self.storage.contains_key(&result) {
                continue;
            }
            let last = self.readers.get(&result).and_then(|r| r.last().copied()).unwrap_or(step);
            let over = if share { self.overwritable(step, result) } else { None };
            let buffer = match over {
                Some((operand, buffer)) => {
                    self.in_place.push(InPlace { step, result, operand });
                    self.buffers[buffer].last = self.buffers[buffer].last.max(last);
                    buffer
                }
                None => {
                    let name = buffer_name(graph, result);
                    self.buffers.push(Pending { name, bytes: value_bytes(graph, result), first: step, last });
                    self.buffers.len() - 1
                }
            };
            self.storage.insert(result, Storage::Buffer(buffer));
        }
        let scratch = gemm_scratch_bytes(graph, inst).map(|bytes| {
            let name = format!("{} (packed activations)", step_name(graph, inst));
            self.buffers.push(Pending { name, bytes, first: step, last: step });
            self.buffers.len() - 1
        });
        self.scratch.push(scratch);
    }

    /// An operand that dies in this step and whose memory this result may take, with its buffer.
    fn overwritable(&self, step: usize, result: Value) -> Option<(Value, usize)> {
        let inst = self.schedule.order[step];
        let operands = self.graph.operands(inst);
        for &operand in operands {
            let Some(&Storage::Buffer(buffer)) = self.storage.get(&operand) else { continue };
            if self.effects.writer.get(&operand).is_none_or(|&w| w >= step) {
                continue;
            }
            // Nobody may read it later, nor in the same stretch: threads run ahead.
            let dies = self.readers[&operand].iter().all(|&r| r == step || self.stretches[r] < self.stretches[step]);
            // Nor may another operand read it through a view, or another result take it.
            let direct = operands.iter().all(|&o| o == operand || !bottoms(self.graph, o).contains(&operand));
            let free = !self.graph.results(inst).iter().any(|r| self.storage.get(r) == Some(&Storage::Buffer(buffer)));
            let same = operands.iter().enumerate().filter(|(_, o)| **o == operand);
            let allowed = same.map(|(j, _)| j).all(|j| may_overwrite(self.graph, inst, j));
            if dies && direct && free && allowed && self.graph.ty(result) == self.graph.ty(operand) {
                return Some((operand, buffer));
            }
        }
        None
    }
}

/// What a buffer is called: the step that makes it, and which of its results it is if there are several.
fn buffer_name(graph: &Graph, result: Value) -> String {
    let inst = graph.def(result);
    match graph.results(inst).len() {
        1 => step_name(graph, inst),
        _ => format!("{} .{}", step_name(graph, inst), graph.result_index(result)),
    }
}

/// Rows that a many-row GEMM packs at once; its scratch holds whole blocks of them.
pub const GEMM_ROW_BLOCK: usize = 64;

/// Bytes of packed activations that a GEMM needs: `round_up(M, 64) × K` f32 where M may exceed one row; `None` where the step is
/// no GEMM over a packed weight, or has one row.
fn gemm_scratch_bytes(graph: &Graph, inst: Inst) -> Option<usize> {
    let (region, dot) = match graph.op(inst) {
        Op::Dot(_) => (graph, inst),
        Op::Fusion(f) => {
            let region = &f.region;
            (region, region.order().iter().copied().find(|&i| matches!(region.op(i), Op::Dot(_)))?)
        }
        _ => return None,
    };
    let [lhs, rhs, ..] = region.operands(dot) else { return None };
    let weight = region.ty(*rhs);
    if weight.layout != Layout::Panels {
        return None;
    }
    let k = weight.dims[1].as_const()?;
    let lhs = region.ty(*lhs);
    let rows = lhs.with_dims(lhs.dims[..lhs.rank() - 1].iter().copied()).max_elements(&graph.bounds);
    let blocks = rows.div_ceil(GEMM_ROW_BLOCK);
    (rows > 1).then(|| blocks.saturating_mul(GEMM_ROW_BLOCK).saturating_mul(k).saturating_mul(4))
}
