//! The pipeline, top to bottom.

use crate::canonicalize::canonicalize;
use crate::fuse_attention::fuse_attention;
use crate::fuse_epilogue::fuse_epilogue;
use crate::fuse_rows::fuse_rows;
use crate::manager::{self, Context, Finished, PassError, Watch};
use crate::merge_linear::merge_linear;
use crate::options::{OptionError, Options};
use crate::precision::precision;
use crate::report::Report;
use llamac_ir::Graph;

/// A graph pass.
pub type GraphPass = fn(&mut Graph, &mut Context) -> Result<Report, PassError>;

/// What kind of pass it is, and so who runs it.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// Graph → graph; run by [`run`].
    Graph {
        /// The pass.
        run: GraphPass,
        /// Whether a program comes out without it.
        optional: bool,
    },
    /// Graph → plan; run by [`crate::plan`].
    Plan,
    /// Plan → machine code; run by `llamac-codegen`.
    Code,
}

/// One pass: its name and what it does, in a sentence.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// The name on the command line.
    pub name: &'static str,
    /// What it does.
    pub sentence: &'static str,
    /// Who runs it.
    pub stage: Stage,
}

const fn graph(name: &'static str, run: GraphPass, sentence: &'static str) -> Pass {
    Pass { name, sentence, stage: Stage::Graph { run, optional: true } }
}

/// Every pass, in order.
pub const PIPELINE: &[Pass] = &[
    graph(
        "canonicalize",
        canonicalize,
        "folds constants, shares common subexpressions, drops dead code, simplifies views",
    ),
    graph(
        "merge-linear",
        merge_linear,
        "makes dots that share an input one dot with segments; no fusion, so in every build",
    ),
    graph("precision", precision, "decides what the activations are at each dot, as explicit casts"),
    graph(
        "fuse-attention",
        fuse_attention,
        "makes scale, mask and softmax between two dots over a cache one tiled attention",
    ),
    graph("fuse-epilogue", fuse_epilogue, "runs elementwise chains on a dot's result on its tiles"),
    graph("fuse-rows", fuse_rows, "makes ops over the same rows one kernel, reductions and state writes included"),
    Pass {
        name: "layout",
        sentence: "decides which weights lie in panels and which views become real",
        stage: Stage::Plan,
    },
    Pass { name: "schedule", sentence: "orders the steps with few barriers and a small peak", stage: Stage::Plan },
    Pass {
        name: "plan",
        sentence: "places every value in memory and proves that no two live ones overlap",
        stage: Stage::Plan,
    },
    Pass { name: "lower", sentence: "makes loops of regions, equal ones once", stage: Stage::Code },
    Pass { name: "emit", sentence: "makes machine code of loops", stage: Stage::Code },
];

/// The pass of that name.
///
/// # Errors
/// An unknown name, with all that exist.
pub fn find(name: &str) -> Result<&'static Pass, OptionError> {
    PIPELINE.iter().find(|p| p.name == name).ok_or_else(|| OptionError::UnknownPass {
        found: name.to_string(),
        names: PIPELINE.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
    })
}

/// Runs all graph passes that `options` enable. `watch` sees the graph before and after each and may stop the run.
///
/// # Errors
/// The pass that failed or left a graph that breaks a rule.
pub fn run(graph: &mut Graph, options: &Options, watch: &mut Watch<'_>) -> Result<Finished, PassError> {
    manager::run(PIPELINE, graph, options, watch)
}
