//! The plan: steps in order with their barriers, and a place in memory for every value that needs one.
//!
//! Made by `schedule` and `plan`, proved by the checker, consumed by `codegen`.

mod check;
mod in_place;
mod offsets;
pub mod picture;
mod planner;

pub use check::{CheckError, check};
pub use planner::{GEMM_ROW_BLOCK, Options, PlanError, plan, plan_with};

use llamac_ir::{Graph, Inst, Value};
use std::collections::HashMap;

/// A planned graph: one plan per entry, `decode` before `rows`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The entries.
    pub entries: Vec<EntryPlan>,
}

/// The plan of one entry.
#[derive(Clone, Debug)]
pub struct EntryPlan {
    /// `decode` or `rows`.
    pub name: String,
    /// The fused graph with this entry's dimensions and bounds (in `decode` S and R are the constant 1), in scheduled order.
    pub graph: Graph,
    /// Every instruction that is neither a leaf nor a view, in order.
    pub steps: Vec<PlannedStep>,
    /// Buffers of the arena.
    pub buffers: Vec<PlannedBuffer>,
    /// Where each result of a step, and each leaf that lies in memory, is kept. Views have no storage: see `ir::access`.
    pub storage: HashMap<Value, Storage>,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// The largest sum of bytes live at once (buffers in whole cache lines): no arena for these steps can be smaller.
    pub arena_lower_bound: usize,
    /// Results that took the memory of an operand.
    pub in_place: Vec<InPlace>,
}

/// A result that took the memory of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InPlace {
    /// The step (index into `steps`).
    pub step: usize,
    /// The result.
    pub result: Value,
    /// The operand, which no other step of this stretch or later reads.
    pub operand: Value,
}

/// One step.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// The instruction.
    pub inst: Inst,
    /// Whether all threads must meet before it.
    pub barrier: bool,
    /// Memory that only this step uses (packed activations of a many-row GEMM): a buffer.
    pub scratch: Option<usize>,
}

/// A buffer of the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBuffer {
    /// Where it came from.
    pub name: String,
    /// Byte offset, a multiple of 64.
    pub offset: usize,
    /// Bytes at the bounds.
    pub bytes: usize,
    /// First step that writes it (index into `steps`).
    pub first: usize,
    /// Last step that uses it.
    pub last: usize,
}

/// Where a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// A buffer of the arena, by index.
    Buffer(usize),
    /// A weight or a generated table: the defining instruction's value is its name.
    Weight(Value),
    /// The state: the value of the `state` leaf (all values it is written into share it).
    State(Value),
    /// An input: the value of the `input` leaf.
    Input(Value),
    /// An output, by index in `graph.outputs()`.
    Output(usize),
}
