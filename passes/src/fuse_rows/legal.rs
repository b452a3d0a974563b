//! What one row kernel may hold.
//!
//! A kernel runs over a row space, the leading axes of its results. For each result it sweeps the axes beyond, and pulls
//! each element through the region to loads. So a set of instructions may be a kernel if
//!
//! - all results (for a `state.write`, its rows) have the same axes;
//! - all reductions are over the last axis, and what they leave is the row space: they are computed once per row;
//! - an index between two members is a sum of multiples of indices: no reshape between them merges axes;
//! - nothing dear is computed again: a reduction is read in its own row only, and no transcendental is read through a
//!   broadcast beyond the row space;
//! - what is indexed (tables, states) and what indexes (ids, slots, positions) comes from outside;
//! - what is made in blocks is only stored: it sinks like a written state;
//! - it does not both write a state and read it;
//! - nothing outside stands between two members.

use crate::indexing::{Views, is_affine_view, is_immediate, is_transparent, keeps_rows};
use crate::outline;
use crate::refusal::Reason;
use crate::state_order;
use llamac_ir::{BinaryOp, DType, Dim, FusionKind, Graph, Inst, Op, UnaryOp, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The most instructions of a kernel, views apart.
const MAX_MEMBERS: usize = 128;

/// The most values, views among them, that its elements are pulled through.
const MAX_VISITS: usize = 1024;

/// The most concats of a kernel: each may double the number of sweeps.
const MAX_CONCATS: usize = 6;

/// One way in which a value is read, views read through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The instruction.
    pub inst: Inst,
    /// Why the value must come from memory, if it must.
    pub hard: Option<Reason>,
}

/// A graph prepared for questions about row kernels.
pub struct Rows<'a> {
    graph: &'a Graph,
    positions: Vec<usize>,
    views: Views,
    cheap: Vec<bool>,
    readers: HashMap<Value, Vec<Reader>>,
    returned: HashSet<Value>,
    /// Writers that must wait for a reader of the old state.
    waiting: HashMap<Inst, Vec<Inst>>,
    packed: HashSet<Value>,
}

impl<'a> Rows<'a> {
    /// Prepares a graph.
    pub fn new(graph: &'a Graph) -> Rows<'a> {
        let mut waiting: HashMap<Inst, Vec<Inst>> = HashMap::new();
        for (reader, writer) in state_order::read_before_write(graph) {
            waiting.entry(reader).or_default().push(writer);
        }
        let mut rows = Rows {
            graph,
            positions: outline::positions(graph),
            views: Views::new(graph),
            cheap: outline::cheap(graph),
            readers: HashMap::new(),
            returned: HashSet::new(),
            waiting,
            packed: packed_weights(graph),
        };
        rows.find_readers();
        rows
    }

    /// The graph.
    pub fn graph(&self) -> &'a Graph {
        self.graph
    }

    /// Members in program order.
    pub fn in_order(&self, members: &BTreeSet<Inst>) -> Vec<Inst> {
        let mut members: Vec<Inst> = members.iter().copied().collect();
        members.sort_by_key(|m| self.positions[m.index()]);
        members
    }

    /// Whether an instruction may be in a row kernel, other than as a copy.
    pub fn is_candidate(&self, inst: Inst) -> bool {
        self.is_row_work(inst) && !self.cheap[inst.index()]
    }

    fn is_row_work(&self, inst: Inst) -> bool {
        match self.graph.op(inst) {
            Op::Reduce { axis, .. } => axis + 1 == self.graph.ty(self.graph.operands(inst)[0]).rank(),
            Op::Gather => !self.packed.contains(&self.graph.operands(inst)[0]),
            Op::StateWrite | Op::Concat { .. } => true,
            Op::Cast if self.graph.ty(self.graph.operands(inst)[0]).dtype.is_block() => false,
            op => op.is_elementwise(),
        }
    }

    /// Whether an instruction reads, views apart, something that would be copied into its kernel and is not an immediate.
    pub fn reads_cheap(&self, inst: Inst) -> bool {
        self.graph.operands(inst).iter().any(|&v| {
            let def = self.graph.def(self.views.behind(v));
            self.cheap[def.index()] && !is_immediate(self.graph.op(def))
        })
    }

    /// Who reads a value that is no view, views read through; once per operand.
    pub fn readers(&self, v: Value) -> &[Reader] {
        self.readers.get(&v).map_or(&[], Vec::as_slice)
    }

    fn find_readers(&mut self) {
        let graph = self.graph;
        self.returned = graph.outputs().iter().map(|&(_, v)| self.views.behind(v)).collect();
        for &inst in graph.order().iter().filter(|&&i| !is_transparent(graph.op(i))) {
            for (i, &v) in graph.operands(inst).iter().enumerate() {
                let slots = self.views.slots(v);
                let hard = if slots.is_some() { Some(Reason::StateOrder) } else { self.hard(inst, i) };
                self.readers.entry(self.views.behind(v)).or_default().push(Reader { inst, hard });
                if let Some(slots) = slots {
                    self.readers.entry(slots).or_default().push(Reader { inst, hard: Some(Reason::RandomAccess) });
                }
            }
        }
    }

    /// Why operand `i` of an instruction must come from memory.
    fn hard(&self, inst: Inst, i: usize) -> Option<Reason> {
        match self.graph.op(inst) {
            Op::Gather => Some(Reason::RandomAccess),
            Op::StateWrite => match i {
                0 => Some(Reason::StateOrder),
                1 => None,
                _ => Some(Reason::RandomAccess),
            },
            Op::Fusion(f) => Some(match f.kind {
                FusionKind::Attention => Reason::DotOperand,
                FusionKind::Epilogue => Reason::TileOperand,
                FusionKind::Rows => Reason::TooLarge,
            }),
            _ if self.is_row_work(inst) => None,
            Op::Cast => Some(Reason::WholeBlocks),
            Op::Reduce { .. } => Some(Reason::RowSpaceDiffers),
            Op::Dot(_) => Some(Reason::DotOperand),
            _ => Some(Reason::NotElementwise),
        }
    }

    /// Groups with a member that reads the producer and may be one kernel with it, in program order of the readers.
    pub fn kernels_reading(&self, producer: Inst, of: &[Option<usize>]) -> Vec<usize> {
        let readers = self.graph.results(producer).iter().flat_map(|&v| self.readers(v));
        let mut soft: Vec<Inst> = readers.filter(|r| r.hard.is_none()).map(|r| r.inst).collect();
        soft.sort_by_key(|i| self.positions[i.index()]);
        let mut kernels: Vec<usize> = Vec::new();
        for group in soft.into_iter().filter_map(|i| of[i.index()]) {
            if !kernels.contains(&group) {
                kernels.push(group);
            }
        }
        kernels
    }

    /// Whether something outside of `members` needs one of the producers, which are members, and is needed by a member. `groups` are kernels already made.
    pub fn would_cycle(
        &self,
        producers: &BTreeSet<Inst>,
        members: &BTreeSet<Inst>,
        groups: &[BTreeSet<Inst>],
        of: &[Option<usize>],
    ) -> bool {
        let last = members.iter().map(|m| self.positions[m.index()]).max().unwrap_or(0);
        let mut seen: HashSet<Inst> = HashSet::new();
        let outside = producers.iter().flat_map(|&p| self.next(p)).filter(|i| !members.contains(i));
        let mut work: Vec<Inst> = outside.collect();
        while let Some(inst) = work.pop() {
            if members.contains(&inst) {
                return true;
            }
            if !seen.insert(inst) {
                continue;
            }
            match of[inst.index()] {
                Some(group) if groups[group].len() > 1 => {
                    seen.extend(&groups[group]);
                    work.extend(groups[group].iter().flat_map(|&m| self.next(m)).filter(|i| !seen.contains(i)));
                }
                _ if self.positions[inst.index()] > last => {}
                _ => work.extend(self.next(inst)),
            }
        }
        false
    }

    /// What must come after an instruction.
    fn next(&self, inst: Inst) -> impl Iterator<Item = Inst> + '_ {
        let readers = self.graph.results(inst).iter().flat_map(|&v| self.readers(v)).map(|r| r.inst);
        readers.chain(self.waiting.get(&inst).into_iter().flatten().copied())
    }

    /// Whether the members may be one kernel, cycles apart. Returns the rank of its row space.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self, members: &BTreeSet<Inst>) -> Result<usize, Reason> {
        let concats = members.iter().filter(|&&m| matches!(self.graph.op(m), Op::Concat { .. })).count();
        if members.len() > MAX_MEMBERS || concats > MAX_CONCATS {
            return Err(Reason::TooLarge);
        }
        self.check_states(members)?;
        let results: Vec<Value> = members.iter().filter_map(|&m| self.result(members, m)).collect();
        let Some(&first) = results.first() else { return Err(Reason::RowSpaceDiffers) };
        let space = &self.graph.ty(first).dims;
        if results.iter().any(|&v| self.graph.ty(v).dims != *space) {
            return Err(Reason::RowSpaceDiffers);
        }
        let mut left = members.iter().filter_map(|&m| match self.graph.op(m) {
            Op::Reduce { .. } => Some(&self.graph.ty(self.graph.result(m)).dims),
            _ => None,
        });
        let ranks = match left.next() {
            Some(dims) if left.all(|d| d == dims) && space.starts_with(dims) => dims.len()..=dims.len(),
            Some(_) => return Err(Reason::RowSpaceDiffers),
            None => {
                // Rows of the step are never inside of a row: they are what the threads share.
                let least = usize::from(matches!(space.first(), Some(Dim::Sym(_))));
                least..=space.len().saturating_sub(1).max(least)
            }
        };
        let mut verdict = Err(Reason::RowSpaceDiffers);
        for rank in ranks.rev() {
            verdict = Walk { rows: self, members, rank }.check(&results).map(|()| rank);
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    /// What a member gives the outside: the value whose axes are the sweep.
    fn result(&self, members: &BTreeSet<Inst>, member: Inst) -> Option<Value> {
        if matches!(self.graph.op(member), Op::StateWrite) {
            return Some(self.graph.operands(member)[1]);
        }
        let v = self.graph.result(member);
        let outside = self.returned.contains(&v) || self.readers(v).iter().any(|r| !members.contains(&r.inst));
        outside.then_some(v)
    }

    /// A kernel that writes a state neither reads it nor writes it twice.
    fn check_states(&self, members: &BTreeSet<Inst>) -> Result<(), Reason> {
        let mut written: HashSet<Value> = HashSet::new();
        for &m in members {
            if matches!(self.graph.op(m), Op::StateWrite) && !written.insert(self.root(self.graph.operands(m)[0])) {
                return Err(Reason::StateOrder);
            }
        }
        if written.is_empty() {
            return Ok(());
        }
        for &v in members.iter().flat_map(|&m| self.graph.operands(m)) {
            if self.views.slots(v).is_some() {
                let root = self.root(self.views.behind(v));
                // Which state a fusion's result is cannot be seen from here.
                if written.contains(&root) || !matches!(self.graph.def_op(root), Op::State { .. } | Op::Param { .. }) {
                    return Err(Reason::StateOrder);
                }
            }
        }
        Ok(())
    }

    fn root(&self, mut state: Value) -> Value {
        while matches!(self.graph.def_op(state), Op::StateWrite) {
            state = self.graph.operands(self.graph.def(state))[0];
        }
        state
    }
}

/// Weights that the `layout` pass puts into panels though a gather reads them: those that a dot reads as well, and narrow
/// ones.
fn packed_weights(graph: &Graph) -> HashSet<Value> {
    let mut packed = HashSet::new();
    for &inst in graph.order() {
        let operands = graph.operands(inst);
        let tables = match graph.op(inst) {
            Op::Dot(_) => &operands[1..],
            Op::Fusion(f) if f.kind == FusionKind::Epilogue => operands,
            Op::Gather if graph.ty(operands[0]).dtype != DType::F32 => &operands[..1],
            _ => continue,
        };
        packed.extend(tables.iter().filter(|&&w| matches!(graph.def_op(w), Op::Weight(_)) && graph.ty(w).rank() == 2));
    }
    packed
}

/// How an element of a result reaches a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Reached {
    value: Value,
    /// Its leading axes are the row's own indices.
    in_row: bool,
    /// It is read for several elements of the row.
    repeated: bool,
}

/// Pulls elements of the results through the members, for one row space.
struct Walk<'a, 'g> {
    rows: &'a Rows<'g>,
    members: &'a BTreeSet<Inst>,
    rank: usize,
}

impl Walk<'_, '_> {
    fn check(&self, results: &[Value]) -> Result<(), Reason> {
        let mut seen: HashSet<Reached> = HashSet::new();
        let mut work: Vec<Reached> =
            results.iter().map(|&value| Reached { value, in_row: true, repeated: false }).collect();
        for &m in self.members {
            self.check_indices(m)?;
        }
        while let Some(at) = work.pop() {
            if !seen.insert(at) {
                continue;
            }
            if seen.len() > MAX_VISITS {
                return Err(Reason::TooLarge);
            }
            let inst = self.rows.graph.def(at.value);
            if self.members.contains(&inst) {
                self.member(inst, at, &mut work)?;
            } else if is_transparent(self.rows.graph.op(inst)) && self.shows_member(at.value) {
                work.push(self.view(inst, at)?);
            }
        }
        Ok(())
    }

    fn member(&self, inst: Inst, at: Reached, work: &mut Vec<Reached>) -> Result<(), Reason> {
        let graph = self.rows.graph;
        let operands = graph.operands(inst);
        match graph.op(inst) {
            Op::StateWrite => return Err(Reason::StateOrder),
            Op::Gather => {}
            Op::Reduce { .. } if !at.in_row => return Err(Reason::RowSpaceDiffers),
            Op::Reduce { .. } => work.push(Reached { value: operands[0], in_row: true, repeated: false }),
            op if at.repeated && is_dear(op) => return Err(Reason::Recompute),
            Op::Concat { axis } => {
                let in_row = at.in_row && *axis >= self.rank;
                work.extend(operands.iter().map(|&value| Reached { value, in_row, ..at }));
            }
            _ => work.extend(operands.iter().map(|&value| Reached { value, ..at })),
        }
        Ok(())
    }

    fn view(&self, inst: Inst, at: Reached) -> Result<Reached, Reason> {
        let graph = self.rows.graph;
        let value = graph.operands(inst)[0];
        if matches!(graph.op(inst), Op::Index) {
            return Err(Reason::StateOrder);
        }
        if !is_affine_view(graph, inst) {
            return Err(Reason::NotAffine);
        }
        let in_row = at.in_row && keeps_rows(graph, inst, value, self.rank);
        let repeats =
            matches!(graph.op(inst), Op::Broadcast { .. }) && graph.ty(value).rank() < graph.ty(at.value).rank();
        let once_per_row = in_row && graph.ty(value).rank() == self.rank;
        Ok(Reached { value, in_row, repeated: at.repeated || repeats && !once_per_row })
    }

    /// What is indexed and what indexes comes from outside.
    fn check_indices(&self, member: Inst) -> Result<(), Reason> {
        let operands = self.rows.graph.operands(member);
        let (hard, reason): (&[usize], Reason) = match self.rows.graph.op(member) {
            Op::Gather => (&[0, 1], Reason::RandomAccess),
            Op::StateWrite if self.shows_member(operands[0]) => return Err(Reason::StateOrder),
            Op::StateWrite => (&[2, 3], Reason::RandomAccess),
            _ => return Ok(()),
        };
        match hard.iter().any(|&i| self.shows_member(operands[i])) {
            true => Err(reason),
            false => Ok(()),
        }
    }

    /// Whether a value is a member's, or a view of one.
    fn shows_member(&self, value: Value) -> bool {
        let shows = |v: Value| self.members.contains(&self.rows.graph.def(v));
        shows(self.rows.views.behind(value)) || self.rows.views.slots(value).is_some_and(shows)
    }
}

/// What costs more than the memory traffic it saves.
fn is_dear(op: &Op) -> bool {
    match op {
        Op::Unary(u) => !matches!(u, UnaryOp::Neg | UnaryOp::Abs),
        Op::Binary(b) => *b == BinaryOp::Div,
        _ => false,
    }
}
