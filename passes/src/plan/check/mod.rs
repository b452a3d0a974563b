//! The checker: proves a plan right from the plan alone.
//!
//! It shares no code with `schedule` and `plan`. It walks the graph by itself, finds for every step the bytes that it reads
//! and writes, and runs the steps over a memory that remembers which value each byte holds. A plan passes if every value read
//! is still there, no two steps between two barriers touch the same bytes unless both only read, and everything lies
//! where it may. Buffers are dense at the actual sizes, so what holds at the bounds holds for every step.

mod derive;
mod error;

pub use error::CheckError;

use super::{EntryPlan, PlannedBuffer, Storage};
use derive::{bytes, not_in_place, packed_activations, passes_through, sources, state_targets};
use llamac_ir::{ConstKind, FusionKind, Graph, Inst, Op, Value};
use std::collections::{HashMap, HashSet};

/// Proves a plan.
///
/// # Errors
/// The first thing that is wrong, in order of steps.
pub fn check(plan: &EntryPlan) -> Result<(), CheckError> {
    let mut checker = Checker::new(plan);
    checker.instructions()?;
    checker.buffers()?;
    checker.leaves()?;
    for step in 0..plan.steps.len() {
        checker.step(step)?;
    }
    checker.outputs()?;
    checker.figures()
}

/// A piece of memory that steps write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Bytes of the arena.
    Arena { begin: usize, end: usize },
    /// A whole state.
    State(Value),
    /// A whole output.
    Output(usize),
}

impl Place {
    fn overlaps(self, other: Place) -> bool {
        match (self, other) {
            (Place::Arena { begin: a, end: b }, Place::Arena { begin: c, end: d }) => a < d && c < b,
            (a, b) => a == b,
        }
    }

    fn name(self) -> String {
        match self {
            Place::Arena { begin, end } => format!("arena {begin}..{end}"),
            Place::State(v) => format!("state {v}"),
            Place::Output(i) => format!("output {i}"),
        }
    }
}

/// A touch of memory in the present stretch.
struct Touch {
    step: usize,
    place: Place,
    write: bool,
}

struct Checker<'a> {
    plan: &'a EntryPlan,
    graph: &'a Graph,
    /// What lies where now. Later writes remove what they hit.
    memory: Vec<(Place, Value)>,
    /// Who destroyed a value.
    destroyed: HashMap<Value, usize>,
    /// The state leaf of every version of it.
    versions: HashMap<Value, Value>,
    stretch: Vec<Touch>,
    stretch_of: Vec<usize>,
    /// For every buffer, the first and last step that touch it.
    used: Vec<Option<(usize, usize)>>,
}

impl<'a> Checker<'a> {
    fn new(plan: &'a EntryPlan) -> Checker<'a> {
        Checker {
            plan,
            graph: &plan.graph,
            memory: vec![],
            destroyed: HashMap::new(),
            versions: HashMap::new(),
            stretch: vec![],
            stretch_of: vec![],
            used: vec![None; plan.buffers.len()],
        }
    }

    /// The steps are exactly the graph's instructions that do something, in its order, and definitions precede uses.
    fn instructions(&self) -> Result<(), CheckError> {
        let mut defined: HashSet<Value> = HashSet::new();
        let mut steps = self.plan.steps.iter().map(|s| s.inst);
        let mut at = 0;
        for &inst in self.graph.order() {
            if let Some(&value) = self.graph.operands(inst).iter().find(|v| !defined.contains(*v)) {
                return Err(CheckError::NotDefined { inst, value });
            }
            defined.extend(self.graph.results(inst));
            if self.does_something(inst) {
                let found = steps.next();
                if found != Some(inst) {
                    return Err(CheckError::WrongStep { step: at, expected: Some(inst), found });
                }
                at += 1;
            }
        }
        match steps.next() {
            None => Ok(()),
            found => Err(CheckError::WrongStep { step: at, expected: None, found }),
        }
    }

    fn does_something(&self, inst: Inst) -> bool {
        !matches!(
            self.graph.op(inst),
            Op::Input { .. } | Op::Weight(_) | Op::Const(_) | Op::State { .. } | Op::Param { .. } | Op::Iota
        ) && !passes_through(self.graph, inst)
    }

    fn buffers(&self) -> Result<(), CheckError> {
        for (buffer, b) in self.plan.buffers.iter().enumerate() {
            if b.offset % 64 != 0 {
                return Err(CheckError::Unaligned { buffer, name: b.name.clone(), offset: b.offset });
            }
            let end = b.offset.saturating_add(b.bytes);
            if end > self.plan.arena_bytes {
                let arena = self.plan.arena_bytes;
                return Err(CheckError::OutsideArena { buffer, name: b.name.clone(), end, arena });
            }
        }
        Ok(())
    }

    fn leaves(&mut self) -> Result<(), CheckError> {
        for &inst in self.graph.order() {
            let Some(&value) = self.graph.results(inst).first() else { continue };
            let storage = self.plan.storage.get(&value).copied();
            let (right, expected) = match self.graph.op(inst) {
                Op::Input { .. } => (storage == Some(Storage::Input(value)), "its input"),
                Op::Weight(_) | Op::Const(ConstKind::Rope { .. }) => {
                    (storage == Some(Storage::Weight(value)), "the weights, under its own name")
                }
                Op::State { .. } => {
                    self.versions.insert(value, value);
                    self.memory.push((Place::State(value), value));
                    (storage == Some(Storage::State(value)), "its state")
                }
                _ => continue,
            };
            match storage {
                _ if right => {}
                Some(found) => return Err(CheckError::WrongStorage { value, found, expected }),
                None => return Err(CheckError::NoStorage { step: 0, value }),
            }
        }
        Ok(())
    }

    /// Runs one step.
    fn step(&mut self, step: usize) -> Result<(), CheckError> {
        let planned = &self.plan.steps[step];
        let inst = planned.inst;
        if planned.barrier {
            self.stretch.clear();
        }
        let before = self.stretch_of.last().copied().unwrap_or(0);
        self.stretch_of.push(before + usize::from(planned.barrier));
        let operands = self.graph.operands(inst);
        let needs_memory = matches!(self.graph.op(inst), Op::Dot(_) | Op::Gather)
            || matches!(self.graph.op(inst), Op::Fusion(f) if f.kind == FusionKind::Attention);

        let mut reads: Vec<(Value, Place)> = vec![];
        let mut state_reads = HashSet::new();
        let targets = state_targets(self.graph, inst);
        for (i, &operand) in operands.iter().enumerate() {
            if targets.only_written(i) {
                continue;
            }
            for value in sources(self.graph, operand) {
                if let Some(&leaf) = self.versions.get(&value) {
                    state_reads.insert(leaf);
                }
                match self.place(step, value)? {
                    Some(place) => reads.push((value, place)),
                    None if needs_memory && !self.plan.storage.contains_key(&value) => {
                        return Err(CheckError::NoStorage { step, value });
                    }
                    None => {}
                }
            }
        }
        let mut writes: Vec<(Value, Place)> = vec![];
        for (i, &result) in self.graph.results(inst).iter().enumerate() {
            if let Some(target) = targets.of_result(i) {
                let version = operands[target];
                let Some(&leaf) = self.versions.get(&version) else {
                    return Err(CheckError::NoStorage { step, value: version });
                };
                if state_reads.contains(&leaf) {
                    return Err(CheckError::StateReadAndWritten { step, state: leaf });
                }
                self.versions.insert(result, leaf);
                self.present(step, version, Place::State(leaf))?;
            }
            let Some(place) = self.place(step, result)? else {
                let found = self.plan.storage.get(&result).copied();
                return Err(match found {
                    Some(found) => {
                        CheckError::WrongStorage { value: result, found, expected: "memory that is written" }
                    }
                    None => CheckError::NoStorage { step, value: result },
                });
            };
            writes.push((result, place));
        }
        for &(value, place) in &reads {
            self.present(step, value, place)?;
        }
        let scratch = self.scratch(step)?;
        self.within(step, &reads, &writes, scratch)?;

        let mut touches: Vec<Touch> = reads.iter().map(|&(_, place)| Touch { step, place, write: false }).collect();
        touches.extend(writes.iter().map(|&(_, place)| Touch { step, place, write: true }));
        touches.extend(scratch.map(|place| Touch { step, place, write: true }));
        for touch in &touches {
            let clash = self.stretch.iter().find(|t| (t.write || touch.write) && t.place.overlaps(touch.place));
            if let Some(clash) = clash {
                return Err(CheckError::Race { first: clash.step, second: step, place: touch.place.name() });
            }
        }
        self.stretch.extend(touches);
        for place in writes.iter().map(|w| w.1).chain(scratch) {
            let destroyed = &mut self.destroyed;
            self.memory.retain(|&(p, value)| {
                let hit = p.overlaps(place);
                if hit {
                    destroyed.insert(value, step);
                }
                !hit
            });
        }
        self.memory.extend(writes.into_iter().map(|(value, place)| (place, value)));
        Ok(())
    }

    /// The written memory where a value lies, or none for what is only ever read (and for what needs no memory).
    fn place(&mut self, step: usize, value: Value) -> Result<Option<Place>, CheckError> {
        let leaf = self.versions.get(&value).copied();
        let op = self.graph.def_op(value);
        let generated = matches!(op, Op::Const(ConstKind::Splat(_)) | Op::Iota);
        let wrong = |found, expected| Err(CheckError::WrongStorage { value, found, expected });
        match self.plan.storage.get(&value).copied() {
            None if generated => Ok(None),
            None => Err(CheckError::NoStorage { step, value }),
            Some(Storage::State(v)) if leaf == Some(v) => Ok(Some(Place::State(v))),
            Some(found) if leaf.is_some() => wrong(found, "its state"),
            Some(found @ Storage::State(_)) => wrong(found, "memory other than a state's"),
            Some(Storage::Input(v) | Storage::Weight(v)) if v == value && op.is_leaf() => Ok(None),
            Some(found @ (Storage::Input(_) | Storage::Weight(_))) => wrong(found, "memory that steps may write"),
            Some(Storage::Output(i)) => match self.graph.outputs().get(i) {
                Some((_, v)) if *v == value => Ok(Some(Place::Output(i))),
                _ => wrong(Storage::Output(i), "an output that it is the value of"),
            },
            Some(Storage::Buffer(b)) => {
                let needed = bytes(self.graph.ty(value), self.graph);
                self.region(step, b, needed, || format!("{value}")).map(Some)
            }
        }
    }

    /// The bytes of a buffer that something of `needed` bytes occupies.
    fn region(
        &mut self,
        step: usize,
        buffer: usize,
        needed: usize,
        what: impl Fn() -> String,
    ) -> Result<Place, CheckError> {
        let count = self.plan.buffers.len();
        let Some(PlannedBuffer { offset, bytes: found, .. }) = self.plan.buffers.get(buffer) else {
            return Err(CheckError::NoBuffer { buffer, count });
        };
        if needed > *found {
            return Err(CheckError::TooSmall { what: what(), buffer, needed, found: *found });
        }
        let (first, _) = self.used[buffer].unwrap_or((step, step));
        self.used[buffer] = Some((first, step));
        Ok(Place::Arena { begin: *offset, end: offset + needed })
    }

    /// The value is in its place.
    fn present(&self, step: usize, value: Value, place: Place) -> Result<(), CheckError> {
        if self.memory.iter().any(|&(p, v)| v == value && p == place) {
            return Ok(());
        }
        let why = match self.destroyed.get(&value) {
            Some(by) => format!("step {by} wrote over"),
            None => "no step has written yet".to_string(),
        };
        Err(CheckError::Lost { step, value, why })
    }

    /// The scratch of a step, which is there if and only if it is a GEMM of more than one row.
    fn scratch(&mut self, step: usize) -> Result<Option<Place>, CheckError> {
        let planned = &self.plan.steps[step];
        let expected = packed_activations(self.graph, planned.inst);
        match (expected, planned.scratch) {
            (0, None) => Ok(None),
            (0, Some(b)) => {
                let found = self.plan.buffers.get(b).map_or(0, |b| b.bytes);
                Err(CheckError::Scratch { step, expected, found })
            }
            (expected, None) => Err(CheckError::Scratch { step, expected, found: 0 }),
            (expected, Some(b)) => self.region(step, b, expected, || format!("the scratch of step {step}")).map(Some),
        }
    }

    /// Nothing that a step needs at once overlaps, but for results in place.
    fn within(
        &self,
        step: usize,
        reads: &[(Value, Place)],
        writes: &[(Value, Place)],
        scratch: Option<Place>,
    ) -> Result<(), CheckError> {
        let overlap = |first: String, second: String| Err(CheckError::OverlapWithinStep { step, first, second });
        for (i, &(result, place)) in writes.iter().enumerate() {
            if let Some((other, _)) = writes[..i].iter().find(|w| w.1.overlaps(place)) {
                return overlap(other.to_string(), result.to_string());
            }
            for &(operand, _) in reads.iter().filter(|r| r.1.overlaps(place)) {
                let not = |why| Err(CheckError::NotInPlace { step, result, operand, why });
                if reads.iter().any(|&(v, p)| v == operand && p != place) {
                    return not("it does not begin and end where the operand does");
                }
                if let Some(why) = not_in_place(self.graph, self.plan.steps[step].inst, operand) {
                    return not(why);
                }
            }
        }
        if let Some(scratch) = scratch
            && let Some((value, _)) = reads.iter().chain(writes).find(|t| t.1.overlaps(scratch))
        {
            return overlap("the scratch".into(), value.to_string());
        }
        Ok(())
    }

    fn outputs(&self) -> Result<(), CheckError> {
        for (output, &(_, value)) in self.graph.outputs().iter().enumerate() {
            if !self.memory.contains(&(Place::Output(output), value)) {
                return Err(CheckError::OutputMissing { output, value });
            }
        }
        Ok(())
    }

    /// The lives of buffers and the lower bound are as the plan states them.
    fn figures(&self) -> Result<(), CheckError> {
        let mut live = vec![0usize; self.stretch_of.last().map_or(0, |s| s + 1)];
        for (b, used) in self.plan.buffers.iter().zip(&self.used) {
            let Some((first, last)) = *used else {
                return Err(CheckError::Misstated { what: format!("uses of `{}`:", b.name), stated: 1, found: 0 });
            };
            for (what, stated, found) in [("first", b.first, first), ("last", b.last, last)] {
                if stated != found {
                    return Err(CheckError::Misstated {
                        what: format!("the {what} step of `{}`:", b.name),
                        stated,
                        found,
                    });
                }
            }
            for bytes in &mut live[self.stretch_of[first]..=self.stretch_of[last]] {
                *bytes = bytes.saturating_add(b.bytes.div_ceil(64).saturating_mul(64));
            }
        }
        let (stated, found) = (self.plan.arena_lower_bound, live.into_iter().max().unwrap_or(0));
        if stated != found {
            return Err(CheckError::Misstated { what: "a lower bound of".into(), stated, found });
        }
        Ok(())
    }
}
