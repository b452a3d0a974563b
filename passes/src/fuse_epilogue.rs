//! `fuse-epilogue`: elementwise chains on a dot's result run on the tile.
//!
//! The dot has packed weights at the right and rows at the left. Its chain is the longest run of elementwise instructions, in
//! program order, that depend on it, of whose values exactly one is needed outside. Other operands come from memory at the
//! same index (a residual), or repeat a vector over rows or columns (a bias), or are constants. Where the chain slices the
//! dot into its segments (gate and up), all segments are equally wide and a tile holds the same columns of each.

use crate::manager::{Context, PassError};
use crate::names;
use crate::outline::{self, Group};
use crate::refusal::Reason;
use crate::report::Report;
use llamac_ir::{FusionKind, Graph, Inst, Op, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The most instructions of a chain.
const MAX_CHAIN: usize = 64;

/// Runs the pass.
///
/// # Errors
/// None: what has no chain stays.
pub fn fuse_epilogue(graph: &mut Graph, _cx: &mut Context) -> Result<Report, PassError> {
    let mut report = Report::default();
    let cx = Chains::new(graph);
    let mut claimed: HashSet<Inst> = HashSet::new();
    let mut groups = Vec::new();
    for &dot in graph.order() {
        if !matches!(graph.op(dot), Op::Dot(_)) {
            continue;
        }
        let chain = cx.of(dot, &claimed);
        if chain.fused.is_empty() {
            continue;
        }
        claimed.extend(&chain.fused);
        let mut members = vec![dot];
        members.extend(&chain.fused);
        groups.push(Group {
            kind: FusionKind::Epilogue,
            members,
            params: distinct(graph.operands(dot)),
            pulls: outline::pulls_broadcasts,
            name: names::epilogue,
        });
    }
    let total = groups.len();
    let given_up = outline::outline(graph, &groups);
    report.count("epilogues fused", total - given_up.len());
    for _ in given_up {
        report.note(format!("one refused: {}", Reason::WouldCycle.rule()));
    }
    Ok(report)
}

fn distinct(values: &[Value]) -> Vec<Value> {
    let mut seen = HashSet::new();
    values.iter().copied().filter(|&v| seen.insert(v)).collect()
}

/// What depends on a dot.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Elementwise instructions that join it, in program order; the last makes the result.
    pub fused: Vec<Inst>,
    /// Why others that use it, or its chain, do not.
    pub refused: HashMap<Inst, Reason>,
}

/// Finds chains in a graph.
pub struct Chains<'a> {
    graph: &'a Graph,
    uses: HashMap<Value, Vec<Inst>>,
    positions: Vec<usize>,
}

impl<'a> Chains<'a> {
    /// Prepares a graph.
    pub fn new(graph: &'a Graph) -> Chains<'a> {
        Chains { graph, uses: graph.uses(), positions: outline::positions(graph) }
    }

    /// The chain of a dot, without instructions that belong to another.
    pub fn of(&self, dot: Inst, claimed: &HashSet<Inst>) -> Chain {
        let graph = self.graph;
        let mut chain = Chain::default();
        let result = graph.result(dot);
        let gemm = is_gemm(graph, dot);
        let mut inside: HashSet<Value> = HashSet::from([result]);
        let mut admitted: Vec<Inst> = Vec::new();
        let mut ready: BTreeSet<(usize, Inst)> = self.users(result);
        let mut best = 0;
        while let Some((_, inst)) = ready.pop_first() {
            let verdict = match gemm {
                false => Err(Reason::DotResult),
                true if claimed.contains(&inst) => Err(Reason::TileOperand),
                true if admitted.len() >= MAX_CHAIN => Err(Reason::TooLarge),
                true => self.admit(inst, dot, &inside),
            };
            if let Err(reason) = verdict {
                chain.refused.insert(inst, reason);
                continue;
            }
            admitted.push(inst);
            inside.insert(graph.result(inst));
            ready.extend(self.users(graph.result(inst)));
            if graph.op(inst).is_elementwise() && self.needed_outside(dot, &admitted) == [graph.result(inst)] {
                best = admitted.len();
            }
        }
        let is_reduction = |&(_, &reason): &(&Inst, &Reason)| reason == Reason::ReductionAcrossTiles;
        let after = self.after(chain.refused.iter().filter(is_reduction).map(|(&inst, _)| inst));
        for &inst in &admitted[best..] {
            chain.refused.insert(inst, self.why_cut(inst, &after, dot, &admitted[..best]));
        }
        chain.fused = admitted[..best].iter().copied().filter(|&i| graph.op(i).is_elementwise()).collect();
        chain
    }

    fn users(&self, v: Value) -> BTreeSet<(usize, Inst)> {
        self.uses.get(&v).into_iter().flatten().map(|&i| (self.positions[i.index()], i)).collect()
    }

    fn admit(&self, inst: Inst, dot: Inst, inside: &HashSet<Value>) -> Result<(), Reason> {
        let graph = self.graph;
        match graph.op(inst) {
            Op::Slice { axis: 1, start, len } => {
                let widths: Vec<_> = graph.operands(dot)[1..].iter().map(|&w| graph.ty(w).dims[0].as_const()).collect();
                let whole = graph.ty(graph.operands(inst)[0]).dims == graph.ty(graph.result(dot)).dims;
                let equal = widths.len() > 1 && widths.iter().all(|&w| w == Some(*len)) && start % len == 0;
                if whole && equal { Ok(()) } else { Err(Reason::SegmentsDiffer) }
            }
            Op::Cast if graph.ty(graph.result(inst)).dtype.is_block() => Err(Reason::WholeBlocks),
            op if op.is_elementwise() => {
                debug_assert!(graph.operands(inst).iter().any(|v| inside.contains(v)));
                Ok(())
            }
            Op::Reduce { .. } => Err(Reason::ReductionAcrossTiles),
            Op::Dot(_) => Err(Reason::DotOperand),
            Op::Gather => Err(Reason::RandomAccess),
            Op::StateWrite => Err(Reason::StateOrder),
            _ => Err(Reason::NotElementwise),
        }
    }

    /// Values of the dot and these instructions that others use or the graph returns.
    fn needed_outside(&self, dot: Inst, chain: &[Inst]) -> Vec<Value> {
        let values = std::iter::once(dot).chain(chain.iter().copied()).map(|i| self.graph.result(i));
        let needed = |v: &Value| {
            let used = self.uses.get(v).into_iter().flatten().any(|user| !chain.contains(user));
            used || self.graph.is_output(*v)
        };
        values.filter(needed).collect()
    }

    /// Why an instruction that has a form on the tile is not among the `chain` before it.
    fn why_cut(&self, inst: Inst, after_reductions: &HashSet<Inst>, dot: Inst, chain: &[Inst]) -> Reason {
        if after_reductions.contains(&inst) {
            return Reason::ReductionAcrossTiles;
        }
        let reduced = |v: &Value| {
            let mut users = self.uses.get(v).into_iter().flatten();
            users.any(|&u| matches!(self.graph.op(u), Op::Reduce { .. }))
        };
        if self.graph.results(inst).iter().any(reduced) {
            return Reason::ReductionAcrossTiles;
        }
        let mut values = std::iter::once(dot).chain(chain.iter().copied()).map(|i| self.graph.result(i));
        if values.any(|v| self.graph.is_output(v)) { Reason::OutputOfGraph } else { Reason::MultipleUses }
    }

    /// What waits for one of these reductions, as far as the next dots.
    fn after(&self, reductions: impl Iterator<Item = Inst>) -> HashSet<Inst> {
        let mut after = HashSet::new();
        let mut work: Vec<Inst> = reductions.collect();
        while let Some(inst) = work.pop() {
            if after.insert(inst) && !matches!(self.graph.op(inst), Op::Dot(_)) {
                work.extend(self.graph.results(inst).iter().filter_map(|v| self.uses.get(v)).flatten());
            }
        }
        after
    }
}

/// Whether a dot is rows times packed weights, which is what has tiles: `[M, K] · [N, K]…`.
pub fn is_gemm(graph: &Graph, dot: Inst) -> bool {
    let Op::Dot(spec) = graph.op(dot) else { return false };
    let operands = graph.operands(dot);
    let weights = operands[1..].iter().all(|&w| matches!(graph.def_op(w), Op::Weight(_)) && graph.ty(w).rank() == 2);
    spec.batch.is_empty() && spec.contract == [(1, 1)] && graph.ty(operands[0]).rank() == 2 && weights
}
