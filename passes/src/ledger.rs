//! The ledger: what became of every edge between two instructions that compute.
//!
//! It is read off the finished graph: an edge inside of a kernel is fused; for any other the fusing passes' own rules are
//! asked once more why the two kernels are not one. Nothing is carried along, so it holds for a graph read back from text too.

use crate::flat::{Flat, Kernel};
use crate::fuse_attention::{self, pattern};
use crate::fuse_epilogue::{Chain, Chains, is_gemm};
use crate::fuse_rows::legal::Rows;
use crate::manager::Context;
use crate::options::Options;
use crate::refusal::Reason;
use crate::traffic::{self, Edge, Traffic};
use llamac_ir::{FusionKind, Graph, Inst, Op};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

/// What became of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both ends are in one kernel.
    Fused {
        /// The kind of kernel.
        kind: FusionKind,
        /// Which: an index into [`Ledger::kernels`].
        kernel: usize,
    },
    /// The value goes through memory.
    Refused(Reason),
}

/// An edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who makes the value: origin and op.
    pub producer: String,
    /// Who reads it: origin and op.
    pub consumer: String,
    /// The type of the value.
    pub ty: String,
    /// Bytes of the value that the consumer reads.
    pub bytes: Traffic,
    /// What became of it.
    pub outcome: Outcome,
}

/// All edges of a graph.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Every edge, in program order of the consumers.
    pub entries: Vec<Entry>,
    /// The kernels, in program order.
    pub kernels: Vec<Kernel>,
    /// Bytes of activations that kernels wrote and read before the first fusing pass, if one was reached.
    pub before: Option<Traffic>,
    /// The same now.
    pub after: Traffic,
    bounds: llamac_ir::Bounds,
}

impl Ledger {
    /// Reads a graph.
    pub fn new(graph: &Graph, cx: &Context) -> Ledger {
        let flat = Flat::new(graph);
        let judge = Judge::new(&flat, &cx.options);
        let label = |inst: Inst| match flat.kernel_of(inst) {
            Some(k) if flat.kernels[k].kind.is_some() => {
                format!("{}: {}", flat.kernels[k].label, spell(flat.graph.op(inst)))
            }
            _ => {
                let origin = flat.graph.origin(inst);
                format!("{origin}{}{}", if origin.is_empty() { "" } else { " " }, spell(flat.graph.op(inst)))
            }
        };
        let mut entries = Vec::new();
        for edge in traffic::edges(&flat) {
            let producer = flat.graph.def(edge.value);
            let mut bytes = Traffic::default();
            bytes.add(edge.bytes);
            entries.push(Entry {
                producer: label(producer),
                consumer: label(edge.reader),
                ty: flat.graph.ty(edge.value).to_string(),
                bytes,
                outcome: judge.outcome(&edge),
            });
        }
        let after = Traffic::of(graph);
        drop(judge);
        Ledger { entries, before: cx.unfused.clone(), after, bounds: graph.bounds, kernels: flat.kernels }
    }

    /// Edges that are fused.
    pub fn fused(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| matches!(e.outcome, Outcome::Fused { .. }))
    }

    /// Edges that are refused, with the reason.
    pub fn refused(&self) -> impl Iterator<Item = (&Entry, Reason)> {
        self.entries.iter().filter_map(|e| match e.outcome {
            Outcome::Refused(reason) => Some((e, reason)),
            Outcome::Fused { .. } => None,
        })
    }

    /// Bytes of activations that fusion saves in a step of one row with a full context, and in the largest step.
    pub fn saved(&self) -> Option<(usize, usize)> {
        let before = self.before.as_ref()?;
        let saved = |sizes| before.value(&sizes).saturating_sub(self.after.value(&sizes));
        Some((saved(traffic::one_row(&self.bounds)), saved(self.bounds.sizes())))
    }
}

fn spell(op: &Op) -> String {
    match op {
        Op::Reduce { op, .. } => format!("reduce {op}"),
        op => op.mnemonic().to_string(),
    }
}

/// Asks the rules.
struct Judge<'a> {
    flat: &'a Flat,
    options: &'a Options,
    rows: Rows<'a>,
    /// Members of each kernel that are row work.
    groups: Vec<BTreeSet<Inst>>,
    of: Vec<Option<usize>>,
    chains: HashMap<Inst, Chain>,
    /// The last dot of each kernel.
    dots: HashMap<usize, Inst>,
    /// Members of attentions that are not fused.
    attention: HashMap<Inst, usize>,
}

impl<'a> Judge<'a> {
    fn new(flat: &'a Flat, options: &'a Options) -> Judge<'a> {
        let graph = &flat.graph;
        let rows = Rows::new(graph);
        let mut groups = vec![BTreeSet::new(); flat.kernels.len()];
        let mut of = vec![None; graph.inst_count()];
        let chains = Chains::new(graph);
        let none = HashSet::new();
        let mut judge = Judge {
            flat,
            options,
            rows,
            groups: vec![],
            of: vec![],
            chains: HashMap::new(),
            dots: HashMap::new(),
            attention: HashMap::new(),
        };
        let readers = pattern::Readers::new(graph);
        for &inst in graph.order() {
            let kind = flat.kernel_of(inst).map(|k| flat.kernels[k].kind);
            // A concat by itself is a view to the graph and row work to the fuser.
            if flat.kernel_of(inst).is_none() && matches!(graph.op(inst), Op::Concat { .. }) {
                groups.push(BTreeSet::from([inst]));
                of[inst.index()] = Some(groups.len() - 1);
            } else if let Some(k) = flat.kernel_of(inst)
                && matches!(kind, Some(None | Some(FusionKind::Rows)))
                && judge.rows.is_candidate(inst)
            {
                groups[k].insert(inst);
                of[inst.index()] = Some(k);
            }
            if matches!(graph.op(inst), Op::Dot(_)) {
                judge.chains.insert(inst, chains.of(inst, &none));
                judge.dots.extend(flat.kernel_of(inst).map(|k| (k, inst)));
                if kind == Some(None)
                    && fuse_attention::is_values_dot(graph, inst)
                    && let Ok(found) = pattern::find(graph, &readers, inst)
                {
                    judge.attention.extend(found.members.iter().map(|&m| (m, inst.index())));
                }
            }
        }
        judge.groups = groups;
        judge.of = of;
        judge
    }

    fn kind(&self, inst: Inst) -> Option<FusionKind> {
        self.flat.kernel_of(inst).and_then(|k| self.flat.kernels[k].kind)
    }

    fn outcome(&self, edge: &Edge) -> Outcome {
        let (producer, consumer) = (self.flat.graph.def(edge.value), edge.reader);
        let (from, to) = (self.flat.kernel_of(producer), self.flat.kernel_of(consumer));
        if let (Some(kernel), Some(kind)) = (from, self.kind(producer))
            && from == to
        {
            return Outcome::Fused { kind, kernel };
        }
        Outcome::Refused(self.reason(edge, producer, consumer))
    }

    fn reason(&self, edge: &Edge, producer: Inst, consumer: Inst) -> Reason {
        let graph = &self.flat.graph;
        let same_attention = self.attention.get(&producer).is_some_and(|a| self.attention.get(&consumer) == Some(a));
        if same_attention && !self.options.enables("fuse-attention") {
            return Reason::DisabledByOption("fuse-attention");
        }
        if matches!(graph.op(consumer), Op::Dot(_)) || self.kind(consumer) == Some(FusionKind::Attention) {
            return Reason::DotOperand;
        }
        // The same instruction may read the value in several ways; what forbids one forbids the kernel.
        let hard = self.rows.readers(edge.value).iter().filter(|r| r.inst == consumer).find_map(|r| r.hard);
        if let Some(reason @ (Reason::RandomAccess | Reason::StateOrder)) = hard {
            return reason;
        }
        if let Some(dot) = self.dot_of(producer) {
            return self.tile_reason(dot, edge);
        }
        if self.kind(consumer) == Some(FusionKind::Epilogue) {
            return Reason::TileOperand;
        }
        if let Some(reason) = hard {
            return reason;
        }
        match (self.of[producer.index()], self.of[consumer.index()]) {
            (Some(a), Some(b)) => self.rows_reason(a, b),
            (None, _) if matches!(graph.op(producer), Op::Gather) => Reason::PackedWeight,
            (None, _) if matches!(graph.op(producer), Op::Reduce { .. }) => Reason::RowSpaceDiffers,
            _ => self.copied(producer),
        }
    }

    /// A mask or a cast that could have been copied into its readers.
    fn copied(&self, producer: Inst) -> Reason {
        let row_work = self.rows.is_candidate(producer) || self.flat.graph.op(producer).is_elementwise();
        match row_work || matches!(self.flat.graph.op(producer), Op::Gather) {
            true if !self.options.enables("fuse-rows") => Reason::DisabledByOption("fuse-rows"),
            _ => Reason::NotElementwise,
        }
    }

    /// The dot on whose tile, if it has one, the instruction's result lies.
    fn dot_of(&self, inst: Inst) -> Option<Inst> {
        if matches!(self.flat.graph.op(inst), Op::Dot(_)) {
            return Some(inst);
        }
        let kernel = self.flat.kernel_of(inst)?;
        match self.flat.kernels[kernel].kind? {
            FusionKind::Rows => None,
            FusionKind::Epilogue | FusionKind::Attention => self.dots.get(&kernel).copied(),
        }
    }

    fn tile_reason(&self, dot: Inst, edge: &Edge) -> Reason {
        let graph = &self.flat.graph;
        if !is_gemm(graph, dot) {
            return Reason::DotResult;
        }
        let chain = &self.chains[&dot];
        if let Some(&reason) = chain.refused.get(&edge.reader) {
            return reason;
        }
        // A view on the way may be what a tile has no form for.
        let mut view = edge.view;
        while view != edge.value {
            let inst = graph.def(view);
            if let Some(&reason) = chain.refused.get(&inst) {
                return reason;
            }
            view = graph.operands(inst)[0];
        }
        match self.options.enables("fuse-epilogue") {
            false if chain.fused.contains(&edge.reader) => Reason::DisabledByOption("fuse-epilogue"),
            _ => Reason::TileOperand,
        }
    }

    fn rows_reason(&self, a: usize, b: usize) -> Reason {
        let members: BTreeSet<Inst> = self.groups[a].union(&self.groups[b]).copied().collect();
        if let Err(reason) = self.rows.check(&members) {
            return reason;
        }
        if self.rows.would_cycle(&self.groups[a], &members, &self.groups, &self.of) {
            return Reason::WouldCycle;
        }
        if self.options.enables("fuse-rows") { Reason::TooLarge } else { Reason::DisabledByOption("fuse-rows") }
    }
}

/// Kernels with what was fused into them, then every refused edge with its reason, then the rules and the totals.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = self.bounds.sizes();
        writeln!(f, "fused edges, by kernel:")?;
        let mut inside: Vec<(usize, Traffic)> = vec![(0, Traffic::default()); self.kernels.len()];
        for e in &self.entries {
            if let Outcome::Fused { kernel, .. } = e.outcome {
                inside[kernel].0 += 1;
                inside[kernel].1.extend(&e.bytes);
            }
        }
        for (kernel, (edges, bytes)) in self.kernels.iter().zip(&inside) {
            if let Some(kind) = kernel.kind {
                writeln!(f, "  {} ({kind}): {edges} edges, {bytes} bytes", kernel.label)?;
            }
        }
        writeln!(f, "refused edges:")?;
        let mut lines: Vec<(String, usize)> = Vec::new();
        let mut at: HashMap<String, usize> = HashMap::new();
        for (e, reason) in self.refused() {
            let line = format!("{} -> {}: {}, {} bytes: {reason}", e.producer, e.consumer, e.ty, e.bytes);
            let at = *at.entry(line).or_insert_with_key(|line| {
                lines.push((line.clone(), 0));
                lines.len() - 1
            });
            lines[at].1 += 1;
        }
        for (line, n) in lines {
            let times = if n > 1 { format!(" (x{n})") } else { String::new() };
            writeln!(f, "  {line}{times}")?;
        }
        let tally = traffic::tally(self.refused().map(|(_, reason)| reason));
        if !tally.is_empty() {
            writeln!(f, "rules:")?;
        }
        for (reason, n) in tally {
            writeln!(f, "  {n} x {reason}: {}", reason.rule())?;
        }
        let fused = self.fused().count();
        writeln!(f, "edges: {} fused, {} refused", fused, self.entries.len() - fused)?;
        match (&self.before, self.saved()) {
            (Some(before), Some((one, most))) => {
                writeln!(f, "activations written and read: {before} bytes unfused, {} bytes now", self.after)?;
                write!(f, "saved: {one} bytes in a step of one row, {most} bytes in a step of {} rows", bounds.rows)
            }
            _ => write!(f, "activations written and read: {} bytes", self.after),
        }
    }
}
