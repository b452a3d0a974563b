//! The checker: proves a plan right from the plan alone.
//!
//! It shares no code with `schedule` and `plan`. It walks the graph by itself, finds for every step the bytes that it reads
//! and writes, and runs the steps over a memory that remembers which value each byte holds. A plan passes if every value read
//! is still there, no two steps between two barriers touch the same bytes unless both only read, and everything lies
//! where it may. Buffers are dense at the actual sizes, so what holds at the bounds holds for every step.

use super::{EntryPlan, PlannedBuffer, Storage};
use llamac_ir::{ConstKind, FusionKind, Graph, Inst, Layout, Op, Type, Value};
use std::collections::{HashMap, HashSet};
use thiserror::Error;

/// What is wrong with a plan. Steps are named by their index.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckError {
    /// The steps are not the graph's.
    #[error("step {step}: expected the graph's instruction {expected:?}, found {found:?}")]
    WrongStep {
        /// Where.
        step: usize,
        /// The instruction that is next in program order, if any.
        expected: Option<Inst>,
        /// The planned one, if any.
        found: Option<Inst>,
    },
    /// A value is used before its definition.
    #[error("{inst} uses {value}, which is not defined before it")]
    NotDefined {
        /// The user.
        inst: Inst,
        /// The value.
        value: Value,
    },
    /// A value that must lie in memory has no storage.
    #[error("step {step}: {value} has no storage")]
    NoStorage {
        /// Where.
        step: usize,
        /// The value.
        value: Value,
    },
    /// A value is stored where its kind cannot be.
    #[error("{value} is stored in {found:?}, expected {expected}")]
    WrongStorage {
        /// The value.
        value: Value,
        /// Where it is said to be.
        found: Storage,
        /// Where it may be.
        expected: &'static str,
    },
    /// A buffer index is out of range.
    #[error("buffer {buffer} does not exist, the plan has {count}")]
    NoBuffer {
        /// The index.
        buffer: usize,
        /// How many there are.
        count: usize,
    },
    /// A buffer is not aligned.
    #[error("buffer {buffer} (`{name}`) is at offset {offset}, expected a multiple of 64")]
    Unaligned {
        /// The index.
        buffer: usize,
        /// Its name.
        name: String,
        /// Its offset.
        offset: usize,
    },
    /// A buffer lies past the arena's end.
    #[error("buffer {buffer} (`{name}`) ends at {end}, the arena at {arena}")]
    OutsideArena {
        /// The index.
        buffer: usize,
        /// Its name.
        name: String,
        /// Where it ends.
        end: usize,
        /// Where the arena ends.
        arena: usize,
    },
    /// A value is larger than its buffer.
    #[error("{what} needs {needed} bytes, buffer {buffer} has {found}")]
    TooSmall {
        /// The value or scratch.
        what: String,
        /// The buffer.
        buffer: usize,
        /// What it needs.
        needed: usize,
        /// What it has.
        found: usize,
    },
    /// A step reads a value that is not (or no longer) in its place.
    #[error("step {step} reads {value}, which {why}")]
    Lost {
        /// The reading step.
        step: usize,
        /// The value.
        value: Value,
        /// What happened to it.
        why: String,
    },
    /// Two steps between the same barriers touch the same memory, and not only to read.
    #[error("steps {first} and {second} touch the same memory ({place}) without a barrier between them")]
    Race {
        /// The earlier step.
        first: usize,
        /// The later step.
        second: usize,
        /// Which memory.
        place: String,
    },
    /// Two things that one step needs at once overlap.
    #[error("step {step}: {first} and {second} overlap")]
    OverlapWithinStep {
        /// The step.
        step: usize,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A result takes an operand's memory where the kernel cannot work in place.
    #[error("step {step}: {result} lies over the operand {operand}, but {why}")]
    NotInPlace {
        /// The step.
        step: usize,
        /// The result.
        result: Value,
        /// The operand.
        operand: Value,
        /// Why it must not.
        why: &'static str,
    },
    /// A step reads and writes one state.
    #[error("step {step} reads the state {state} that it writes")]
    StateReadAndWritten {
        /// The step.
        step: usize,
        /// The `state` leaf.
        state: Value,
    },
    /// A many-row GEMM has no scratch, or another step has one.
    #[error("step {step}: expected {expected} bytes of scratch, found {found}")]
    Scratch {
        /// The step.
        step: usize,
        /// Bytes needed; 0 for none.
        expected: usize,
        /// Bytes given; 0 for none.
        found: usize,
    },
    /// An output is not where the runtime looks for it.
    #[error("output {output} ({value}) is not in the output's memory at the end")]
    OutputMissing {
        /// Which output.
        output: usize,
        /// Its value.
        value: Value,
    },
    /// What the plan says of itself is not so.
    #[error("the plan states {what} {stated}, the checker finds {found}")]
    Misstated {
        /// Which figure.
        what: String,
        /// The plan's.
        stated: usize,
        /// The checker's.
        found: usize,
    },
}

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

fn bytes(ty: &Type, graph: &Graph) -> usize {
    let sizes = graph.bounds.sizes();
    ty.dims.iter().fold(ty.dtype.bytes(), |n, d| n.saturating_mul(d.value(&sizes)))
}

/// Views: what has no memory of its own.
fn passes_through(graph: &Graph, inst: Inst) -> bool {
    use Op::{Broadcast, Concat, Index, Reshape, Slice, Transpose};
    matches!(graph.op(inst), Reshape | Transpose { .. } | Slice { .. } | Concat { .. } | Broadcast { .. } | Index)
}

/// The values in memory (or generated) that a value's elements come from.
fn sources(graph: &Graph, value: Value) -> HashSet<Value> {
    let mut found = HashSet::new();
    let mut seen = HashSet::from([value]);
    let mut todo = vec![value];
    while let Some(v) = todo.pop() {
        let inst = graph.def(v);
        if passes_through(graph, inst) {
            todo.extend(graph.operands(inst).iter().copied().filter(|&o| seen.insert(o)));
        } else {
            found.insert(v);
        }
    }
    found
}

/// Which operands of a step are states that it writes.
struct StateTargets {
    /// For each result, the operand that it is the next version of.
    results: Vec<Option<usize>>,
    /// Operands that are written and not read.
    silent: HashSet<usize>,
}

impl StateTargets {
    fn of_result(&self, result: usize) -> Option<usize> {
        self.results[result]
    }

    fn only_written(&self, operand: usize) -> bool {
        self.silent.contains(&operand)
    }
}

fn state_targets(graph: &Graph, inst: Inst) -> StateTargets {
    match graph.op(inst) {
        Op::StateWrite => StateTargets { results: vec![Some(0)], silent: HashSet::from([0]) },
        Op::Fusion(f) => {
            // Forward over the region: which values are versions of which param.
            let region = &f.region;
            let mut version: HashMap<Value, (usize, bool)> = HashMap::new();
            let mut read: HashSet<usize> = HashSet::new();
            for &i in region.order() {
                let operands = region.operands(i);
                match region.op(i) {
                    Op::Param { index } => {
                        version.insert(region.result(i), (*index, false));
                    }
                    Op::StateWrite => {
                        if let Some(&(param, _)) = version.get(&operands[0]) {
                            version.insert(region.result(i), (param, true));
                        }
                        read.extend(operands[1..].iter().filter_map(|v| version.get(v)).map(|v| v.0));
                    }
                    _ => read.extend(operands.iter().filter_map(|v| version.get(v)).map(|v| v.0)),
                }
            }
            let results: Vec<Option<usize>> = region
                .outputs()
                .iter()
                .map(|(_, v)| version.get(v).filter(|(_, written)| *written).map(|(param, _)| *param))
                .collect();
            let silent = results.iter().flatten().copied().filter(|p| !read.contains(p)).collect();
            StateTargets { results, silent }
        }
        _ => StateTargets { results: vec![None; graph.results(inst).len()], silent: HashSet::new() },
    }
}

/// Why a step cannot write its results over an operand; `None` if it can.
fn not_in_place(graph: &Graph, inst: Inst, operand: Value) -> Option<&'static str> {
    for &o in graph.operands(inst) {
        if o != operand && sources(graph, o).contains(&operand) {
            return Some("another operand reads it through a view");
        }
    }
    let ty = graph.ty(operand);
    if graph.results(inst).iter().any(|&r| graph.ty(r) != ty) {
        return Some("a result has another type");
    }
    let positions = graph.operands(inst).iter().enumerate().filter(|(_, o)| **o == operand).map(|(i, _)| i);
    match graph.op(inst) {
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => None,
        Op::Fusion(f) if f.kind != FusionKind::Attention => {
            positions.into_iter().find_map(|p| not_at_identity(&f.region, p))
        }
        _ => Some("the kernel works on more than one element at a time"),
    }
}

/// Why a region reads a param elsewhere than at the index it writes; `None` if it does not. Walks from every instruction back to
/// the param.
fn not_at_identity(region: &Graph, param: usize) -> Option<&'static str> {
    let mut from_param: HashMap<Value, bool> = HashMap::new();
    for &inst in region.order() {
        let tainted = region.operands(inst).iter().any(|v| from_param.get(v).copied().unwrap_or(false));
        let here = match region.op(inst) {
            Op::Param { index } => *index == param,
            Op::Concat { .. } | Op::Transpose { .. } | Op::Gather | Op::Index | Op::StateWrite => {
                return Some("its region reads across elements");
            }
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => tainted,
            // The sum of a row is taken before the row is written.
            Op::Reduce { .. } => false,
            _ if tainted => return Some("its region reads the operand at other indices"),
            _ => false,
        };
        for &r in region.results(inst) {
            from_param.insert(r, here);
        }
    }
    None
}

/// Bytes for the packed activations of a GEMM of more than one row; 0 for other steps.
fn packed_activations(graph: &Graph, inst: Inst) -> usize {
    let region = match graph.op(inst) {
        Op::Fusion(f) => &f.region,
        Op::Dot(_) => graph,
        _ => return 0,
    };
    let dot = match graph.op(inst) {
        Op::Dot(_) => Some(inst),
        _ => region.order().iter().copied().find(|&i| matches!(region.op(i), Op::Dot(_))),
    };
    let Some(dot) = dot else { return 0 };
    let (lhs, rhs) = (region.operands(dot)[0], region.operands(dot)[1]);
    if region.ty(rhs).layout != Layout::Panels {
        return 0;
    }
    let sizes = graph.bounds.sizes();
    let k = region.ty(rhs).dims[1].value(&sizes);
    let lhs = region.ty(lhs);
    let m = lhs.dims[..lhs.dims.len() - 1].iter().fold(1usize, |n, d| n.saturating_mul(d.value(&sizes)));
    if m <= 1 { 0 } else { m.div_ceil(64).saturating_mul(64).saturating_mul(k).saturating_mul(4) }
}
