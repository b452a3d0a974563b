//! Random graphs that verify, and steps to feed them: what passes and kernels are tested on.
//!
//! Values stay bounded, and nothing in a graph depends on a rounding error by more than a rounding error: comparisons and
//! narrowing casts see exact values only, and what is divided by stays away from 0. So f32 and f64 agree closely, fused or
//! not. Weights come from [`crate::seeded::SeededSource`].

mod pool;
mod steps;
mod templates;

pub use steps::{Step, Values, steps};

use crate::prng::Prng;
use crate::verify::verify;
use crate::{Graph, Op};
use llamac_formats::Bounds;
use pool::Pool;

/// What kind of graph to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Equal configurations make equal graphs.
    pub seed: u64,
    /// About how many operations are chosen; each becomes one to a dozen instructions.
    pub size: usize,
    /// The bounds of the graph. All at least 2, so that a step can have less than the bound.
    pub bounds: Bounds,
    /// Products with weights and between activations.
    pub dots: bool,
    /// Rows of tables and of activations by index.
    pub gathers: bool,
    /// Caches that are written and read, among them whole attentions.
    pub states: bool,
    /// Reductions and transposes that mix rows of the step.
    pub across_rows: bool,
}

impl Config {
    /// Everything, in a small graph.
    pub fn new(seed: u64) -> Config {
        let bounds = Bounds { rows: 6, outputs: 3, tokens: 12, slots: 2 };
        Config { seed, size: 16, bounds, dots: true, gathers: true, states: true, across_rows: true }
    }
}

/// A random graph.
///
/// # Panics
/// If what is made does not verify, which is a fault of the generator.
pub fn graph(config: &Config) -> Graph {
    let mut pool = Pool::new(*config);
    for _ in 0..config.size {
        // What does not fit the chosen operands is simply not done.
        let _ = pool.grow();
    }
    let graph = pool.finish();
    verify(&graph).unwrap_or_else(|e| panic!("the generator made an invalid graph: {e}\n{graph}"));
    graph
}

/// The same graph in another order that is as good: instructions stand anywhere after their operands, reads of states
/// before their writes. For tests of what must not depend on the order.
pub fn shuffled(graph: &Graph, seed: u64) -> Graph {
    let mut prng = Prng::new(seed);
    let mut out = graph.clone();
    for _ in 0..graph.order().len() * 4 {
        let mut order = out.order().to_vec();
        if order.len() < 2 {
            break;
        }
        let at = prng.below(order.len() - 1);
        let (first, second) = (order[at], order[at + 1]);
        let depends = out.results(first).iter().any(|r| out.operands(second).contains(r));
        // Whatever touches states stays where it is, relative to all others that do.
        let stateful = |i| matches!(out.op(i), Op::StateWrite | Op::Index) || reads_state(&out, i);
        if !(depends || stateful(first) && stateful(second)) {
            order.swap(at, at + 1);
            out.set_order(order);
        }
    }
    out
}

/// Whether an instruction reads a state, itself or through views.
fn reads_state(graph: &Graph, inst: crate::Inst) -> bool {
    graph.operands(inst).iter().any(|&v| {
        let def = graph.def(v);
        matches!(graph.op(def), Op::Index) || (graph.op(def).is_view() && reads_state(graph, def))
    })
}
