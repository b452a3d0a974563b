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
    Graph(GraphPass),
    /// Graph → plan; run by [`crate::plan::plan_with`].
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
    /// Whether a program comes out without it, so that it can be disabled.
    pub optional: bool,
}

const fn optional(name: &'static str, stage: Stage, sentence: &'static str) -> Pass {
    Pass { name, sentence, stage, optional: true }
}

const fn needed(name: &'static str, stage: Stage, sentence: &'static str) -> Pass {
    Pass { name, sentence, stage, optional: false }
}

/// Every pass, in order.
#[rustfmt::skip]
pub const PIPELINE: &[Pass] = &[
    optional("canonicalize", Stage::Graph(canonicalize),
        "folds constants, shares common subexpressions, drops dead code, simplifies views"),
    optional("merge-linear", Stage::Graph(merge_linear),
        "makes dots that share an input one dot with segments; no fusion, so in every build"),
    optional("precision", Stage::Graph(precision),
        "decides what the activations are at each dot, as explicit casts"),
    optional("fuse-attention", Stage::Graph(fuse_attention),
        "makes scale, mask and softmax between two dots over a cache one tiled attention"),
    optional("fuse-epilogue", Stage::Graph(fuse_epilogue),
        "runs elementwise chains on a dot's result on its tiles"),
    optional("fuse-rows", Stage::Graph(fuse_rows),
        "makes ops over the same rows one kernel, reductions and state writes included"),
    needed("layout", Stage::Graph(layout),
        "decides which weights lie in panels and which views become real"),
    optional("schedule", Stage::Plan,
        "orders the steps with few barriers and a small peak; without it they stay in program order"),
    optional("plan", Stage::Plan,
        "lets values share memory and proves that no two live ones overlap; without it each has its own"),
    needed("lower", Stage::Code, "makes loops of regions, equal ones once"),
    needed("emit", Stage::Code, "makes machine code of loops"),
];

fn layout(graph: &mut Graph, cx: &mut Context) -> Result<Report, PassError> {
    let found = crate::layout::run(graph).map_err(|e| PassError::Refused { pass: "layout", what: e.to_string() })?;
    let mut report = Report::default();
    report.count("weights in panels", found.panels);
    report.count("weights joined", found.joined.len());
    report.count("matrices left flat", found.flat.len());
    report.count("copies made", found.copies.len());
    report.count("fusions taken apart", found.unfused.len());
    cx.layout = Some(found);
    Ok(report)
}

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
