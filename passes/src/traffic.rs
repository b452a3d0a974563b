//! Bytes of activations that kernels read and write: what fusion can save. Weights, inputs and states do not count.

use crate::flat::Flat;
use crate::indexing::{Views, is_transparent};
use llamac_formats::{Bounds, Extent, Sizes};
use llamac_ir::{Graph, Inst, Op, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// A sum of extents: bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Factors by exponents of S, R, T.
    terms: BTreeMap<[u8; 3], u64>,
}

impl Traffic {
    /// Adds bytes.
    pub fn add(&mut self, bytes: Extent) {
        if bytes.factor > 0 {
            let factor = self.terms.entry(bytes.powers).or_default();
            *factor = factor.saturating_add(bytes.factor);
        }
    }

    /// Adds all bytes of another.
    pub fn extend(&mut self, other: &Traffic) {
        for (&powers, &factor) in &other.terms {
            self.add(Extent { factor, powers });
        }
    }

    /// Bytes for actual sizes (saturating).
    pub fn value(&self, sizes: &Sizes) -> usize {
        self.terms
            .iter()
            .fold(0usize, |sum, (&powers, &factor)| sum.saturating_add(Extent { factor, powers }.value(sizes)))
    }

    /// What kernels of a graph write and read of each other's results.
    pub fn of(graph: &Graph) -> Traffic {
        let flat = Flat::new(graph);
        let mut written: BTreeSet<Value> = BTreeSet::new();
        // By value and kernel that reads it, the bytes of each distinct view. A concat outside of kernels reads for itself.
        let mut read: BTreeMap<(Value, Result<usize, Inst>), BTreeMap<Value, Extent>> = BTreeMap::new();
        for edge in edges(&flat) {
            let kernel = flat.kernel_of(edge.reader);
            if kernel.is_none() || kernel != flat.kernel_of(flat.graph.def(edge.value)) {
                written.insert(edge.value);
                read.entry((edge.value, kernel.ok_or(edge.reader))).or_default().insert(edge.view, edge.bytes);
            }
        }
        let views = Views::new(&flat.graph);
        let returned = flat.graph.outputs().iter().map(|&(_, v)| views.behind(v));
        written.extend(returned.filter(|&v| counts(&flat.graph, v)));

        let mut traffic = Traffic::default();
        let bounds = graph.bounds.sizes();
        for ((value, _), views) in read {
            let (mut parts, mut whole) = (Traffic::default(), Traffic::default());
            views.values().for_each(|&bytes| parts.add(bytes));
            whole.add(bytes_of(&flat.graph, value));
            traffic.extend(if parts.value(&bounds) < whole.value(&bounds) { &parts } else { &whole });
        }
        for v in written {
            traffic.add(bytes_of(&flat.graph, v));
        }
        traffic
    }
}

/// `6144*S + 512*S*T`
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        for (i, (&powers, &factor)) in self.terms.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { " + " }, Extent { factor, powers })?;
        }
        Ok(())
    }
}

/// An instruction that reads a computed value, views read through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// What is read: not a view (a `concat` counts as computed).
    pub value: Value,
    /// Who reads it.
    pub reader: Inst,
    /// The view of the value that is the operand.
    pub view: Value,
    /// Bytes that the view shows.
    pub bytes: Extent,
}

/// All edges between instructions that compute, in program order of the readers, each once.
pub fn edges(flat: &Flat) -> Vec<Edge> {
    let graph = &flat.graph;
    let views = Views::new(graph);
    let shown = shown(graph);
    let (mut edges, mut seen) = (Vec::new(), HashSet::new());
    for &reader in graph.order() {
        if is_transparent(graph.op(reader)) {
            continue;
        }
        for &view in graph.operands(reader) {
            let by_slot = views.slots(view).map(|slots| (slots, slots));
            for (value, view) in [(views.behind(view), view)].into_iter().chain(by_slot) {
                let edge = Edge { value, reader, view, bytes: shown[view.index()] };
                if counts(graph, value) && seen.insert(edge) {
                    edges.push(edge);
                }
            }
        }
    }
    edges
}

/// Whether a value is an activation.
fn counts(graph: &Graph, value: Value) -> bool {
    let op = graph.def_op(value);
    !op.is_leaf() && !matches!(op, Op::StateWrite)
}

/// Bytes of a value.
fn bytes_of(graph: &Graph, v: Value) -> Extent {
    graph.ty(v).bytes()
}

/// For each value the bytes that it shows of what is behind it: for views the least along the way, for a broadcast shows
/// less than it has.
fn shown(graph: &Graph) -> Vec<Extent> {
    let bounds = graph.bounds.sizes();
    let mut shown = vec![Extent::ZERO; graph.value_count()];
    for &inst in graph.order() {
        for &v in graph.results(inst) {
            shown[v.index()] = bytes_of(graph, v);
        }
        if is_transparent(graph.op(inst)) {
            let (from, to) = (graph.operands(inst)[0].index(), graph.result(inst).index());
            if shown[from].value(&bounds) < shown[to].value(&bounds) {
                shown[to] = shown[from];
            }
        }
    }
    shown
}

/// Counts by key, for reports.
pub fn tally<K: std::hash::Hash + Eq + Ord + Copy>(keys: impl Iterator<Item = K>) -> Vec<(K, usize)> {
    let mut counts: HashMap<K, usize> = HashMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    let mut counts: Vec<(K, usize)> = counts.into_iter().collect();
    counts.sort_unstable();
    counts
}

/// Sizes of a step of one row, one output and a full context.
pub fn one_row(bounds: &Bounds) -> Sizes {
    Sizes { rows: 1, outputs: 1, tokens: bounds.tokens }
}
