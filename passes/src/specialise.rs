//! The entries of a graph: the same graph with dynamic dimensions replaced by constants.
//!
//! `decode` is the graph of one row with one output (S = R = 1), `rows` the graph as it is. Both share weights, states, inputs and
//! outputs; equal regions lower to equal kernels.

use crate::schedule::bottoms;
use llamac_ir::{Bounds, Dim, Graph, Op, Sym, Type, Value};

/// A graph made for some of its steps.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `decode` or `rows`.
    pub name: &'static str,
    /// The graph with this entry's dimensions and bounds.
    pub graph: Graph,
}

/// The entries of a graph, `decode` before `rows`. A graph without `S` has only `rows`; one whose steps are all one row with
/// one output has only `decode`.
pub fn entries(graph: &Graph) -> Vec<Entry> {
    if !mentions(graph, Dim::ROWS) {
        return vec![Entry { name: "rows", graph: graph.clone() }];
    }
    let decode = Entry { name: "decode", graph: one_row(graph) };
    if graph.bounds.rows <= 1 && graph.bounds.outputs <= 1 {
        return vec![decode];
    }
    vec![decode, Entry { name: "rows", graph: graph.clone() }]
}

/// The graph of steps of one row with one output: S and R become the constant 1, in types, regions and bounds.
pub fn one_row(graph: &Graph) -> Graph {
    let bounds = Bounds { rows: 1, outputs: 1, ..graph.bounds };
    let mut one = substitute(graph, bounds, |dim| match dim {
        Dim::Sym(Sym::Rows | Sym::Outputs) => Dim::Const(1),
        other => other,
    });
    // What chooses among the rows of the step can choose only the one there is.
    for value in row_indices(graph) {
        if let Op::Input { limit, .. } = one.op_mut(graph.def(value)) {
            *limit = Some(1);
        }
    }
    one
}

/// The values at the bottom of views by which a graph gathers from tables of the step's rows.
fn row_indices(graph: &Graph) -> Vec<Value> {
    let mut found = vec![];
    for &inst in graph.order() {
        let operands = graph.operands(inst);
        match graph.op(inst) {
            Op::Gather if matches!(graph.ty(operands[0]).dims[0], Dim::Sym(Sym::Rows | Sym::Outputs)) => {
                found.extend(bottoms(graph, operands[1]));
            }
            Op::Fusion(f) => {
                for value in row_indices(&f.region) {
                    if let Op::Param { index } = f.region.def_op(value) {
                        found.extend(bottoms(graph, operands[*index]));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Applies `f` to every axis of every value, regions included, and sets the bounds.
fn substitute(graph: &Graph, bounds: Bounds, f: impl Fn(Dim) -> Dim + Copy) -> Graph {
    let mut out = graph.clone();
    out.bounds = bounds;
    for id in 0..out.value_count() {
        let value = Value(id as u32);
        let ty = out.ty(value);
        let dims = ty.dims.iter().map(|&d| f(d)).collect();
        let ty = Type { dims, ..ty.clone() };
        out.set_ty(value, ty);
    }
    for inst in out.order().to_vec() {
        if let Op::Fusion(fusion) = out.op_mut(inst) {
            fusion.region = substitute(&fusion.region, bounds, f);
        }
    }
    out
}

/// Whether some value of the graph has that axis.
fn mentions(graph: &Graph, dim: Dim) -> bool {
    graph.order().iter().any(|&inst| {
        graph.results(inst).iter().any(|&v| graph.ty(v).dims.contains(&dim))
            || match graph.op(inst) {
                Op::Fusion(f) => mentions(&f.region, dim),
                _ => false,
            }
    })
}
