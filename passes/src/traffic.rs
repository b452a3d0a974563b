//! Bytes of activations that kernels read and write: what fusion can save. Weights, inputs and states do not count.

use crate::flat::Flat;
use llamac_formats::{Bounds, Extent, Sizes, Sym};
use llamac_ir::{Graph, Inst, Op, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
        let mut traffic = Traffic::default();
        let mut written: BTreeSet<Value> = BTreeSet::new();
        for edge in edges(&flat) {
            if flat.kernel_of(edge.reader) != flat.kernel_of(flat.graph.def(edge.value)) {
                written.insert(edge.value);
            }
        }
        for ((value, _), views) in read_views(&flat) {
            if written.contains(&value) {
                traffic.extend(&bytes_read(&flat.graph, value, &views));
            }
        }
        written.extend(
            flat.graph.outputs().iter().map(|&(_, v)| behind(&flat.graph, v)).filter(|&v| counts(&flat.graph, v)),
        );
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// What is read: not a view (a `concat` counts as computed).
    pub value: Value,
    /// Who reads it.
    pub reader: Inst,
    /// As which operand.
    pub operand: usize,
    /// The view of the value that is the operand.
    pub view: Value,
}

/// All edges between instructions that compute, in program order of the readers.
pub fn edges(flat: &Flat) -> Vec<Edge> {
    let graph = &flat.graph;
    let mut edges = Vec::new();
    for &reader in graph.order() {
        if crate::indexing::is_transparent(graph.op(reader)) {
            continue;
        }
        for (operand, &view) in graph.operands(reader).iter().enumerate() {
            let value = behind(graph, view);
            if counts(graph, value) {
                edges.push(Edge { value, reader, operand, view });
            }
        }
    }
    edges
}

/// The value that views show.
fn behind(graph: &Graph, mut v: Value) -> Value {
    while crate::indexing::is_transparent(graph.def_op(v)) {
        v = graph.operands(graph.def(v))[0];
    }
    v
}

/// Whether a value is an activation.
fn counts(graph: &Graph, value: Value) -> bool {
    let op = graph.def_op(value);
    !op.is_leaf() && !matches!(op, Op::StateWrite)
}

/// For each value and kernel that reads it, the distinct views through which it does. A concat outside of kernels reads for
/// itself.
fn read_views(flat: &Flat) -> BTreeMap<(Value, Result<usize, Inst>), BTreeSet<Value>> {
    let mut views: BTreeMap<(Value, Result<usize, Inst>), BTreeSet<Value>> = BTreeMap::new();
    for edge in edges(flat) {
        let maker = flat.kernel_of(flat.graph.def(edge.value));
        let kernel = flat.kernel_of(edge.reader);
        if kernel.is_none() || maker != kernel {
            views.entry((edge.value, kernel.ok_or(edge.reader))).or_default().insert(edge.view);
        }
    }
    views
}

/// Bytes of a value.
pub fn bytes_of(graph: &Graph, v: Value) -> Extent {
    let ty = graph.ty(v);
    ty.elements().times(Extent::constant(ty.dtype.bytes() as u64))
}

/// Bytes of a value that a reader touches through views of it, at most all.
pub fn bytes_read(graph: &Graph, value: Value, views: &BTreeSet<Value>) -> Traffic {
    let mut read = Traffic::default();
    for &view in views {
        read.add(shown(graph, view));
    }
    let mut whole = Traffic::default();
    whole.add(bytes_of(graph, value));
    let bounds = graph.bounds.sizes();
    if read.value(&bounds) < whole.value(&bounds) { read } else { whole }
}

/// Bytes that a view shows: the least along its way, for a broadcast shows less than it has.
fn shown(graph: &Graph, view: Value) -> Extent {
    let bounds: Bounds = graph.bounds;
    let mut least = bytes_of(graph, view);
    let mut v = view;
    while crate::indexing::is_transparent(graph.def_op(v)) {
        v = graph.operands(graph.def(v))[0];
        let bytes = bytes_of(graph, v);
        if bytes.value(&bounds.sizes()) < least.value(&bounds.sizes()) {
            least = bytes;
        }
    }
    least
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
    debug_assert_eq!(Sym::ALL.len(), 3);
    Sizes { rows: 1, outputs: 1, tokens: bounds.tokens }
}
