//! Runs passes: verifies after each, times, counts instructions, lets an observer look.

use crate::layout::LayoutReport;
use crate::ledger::Ledger;
use crate::options::Options;
use crate::pipeline::{Pass, Stage};
use crate::report::Report;
use crate::traffic::Traffic;
use llamac_ir::Graph;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use thiserror::Error;

/// What passes share beside the graph.
#[derive(Clone, Debug)]
pub struct Context {
    /// The switches.
    pub options: Options,
    /// Traffic of the graph as the first fusing pass found it: what fusion is measured against.
    pub unfused: Option<Traffic>,
    /// What `layout` decided, once it has run.
    pub layout: Option<LayoutReport>,
}

impl Context {
    /// A context before the first pass.
    pub fn new(options: Options) -> Context {
        Context { options, unfused: None, layout: None }
    }
}

/// Where in a run the observer is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// Before the pass.
    Before,
    /// After it, verified.
    After,
}

/// Called before and after each graph pass that runs; [`ControlFlow::Break`] ends the run there.
pub type Watch<'a> = dyn FnMut(&'static str, When, &Graph) -> ControlFlow<()> + 'a;

/// A pass that could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PassError {
    /// The graph given to the pipeline breaks a rule.
    #[error("the graph is not valid before pass `{pass}`: {error}")]
    Given {
        /// The first pass.
        pass: &'static str,
        /// The broken rule.
        error: String,
    },
    /// The pass left a graph that breaks a rule: a fault of this compiler.
    #[error("pass `{pass}` left an invalid graph ({error}); `--disable {pass}` may get past it; please report it")]
    Broke {
        /// The pass.
        pass: &'static str,
        /// The broken rule.
        error: String,
    },
    /// The pass refuses the graph.
    #[error("pass `{pass}`: {what}")]
    Refused {
        /// The pass.
        pass: &'static str,
        /// The instruction, what was found, what was expected.
        what: String,
    },
}

/// One pass that ran.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The pass.
    pub name: &'static str,
    /// Instructions before.
    pub before: usize,
    /// Instructions after.
    pub after: usize,
    /// How long it took, without verifying.
    pub time: Duration,
    /// What it says it did.
    pub report: Report,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The passes that ran, in order.
    pub ran: Vec<Ran>,
    /// What was fused and what was refused.
    pub ledger: Ledger,
    /// What `layout` decided, if it was reached.
    pub layout: Option<LayoutReport>,
    /// Whether the observer stopped it.
    pub stopped: bool,
}

/// Runs the graph passes of `passes` that `options` enable.
///
/// # Errors
/// The pass that failed, or after which the graph breaks a rule.
pub fn run(
    passes: &[Pass],
    graph: &mut Graph,
    options: &Options,
    watch: &mut Watch<'_>,
) -> Result<Finished, PassError> {
    let mut cx = Context::new(options.clone());
    let mut ran = Vec::new();
    let mut stopped = false;
    let mut ledger = None;
    if let Some(first) = passes.first() {
        verify(graph).map_err(|error| PassError::Given { pass: first.name, error })?;
    }
    for pass in passes {
        let Stage::Graph(run) = pass.stage else { continue };
        if cx.unfused.is_none() && pass.name.starts_with("fuse-") {
            cx.unfused = Some(Traffic::of(graph));
        }
        // Layout joins weights and makes views real, after which edges no longer look as the fusing passes saw them.
        if pass.name == "layout" {
            ledger = Some(Ledger::new(graph, &cx));
        }
        if !options.enables(pass.name) {
            continue;
        }
        if watch(pass.name, When::Before, graph).is_break() {
            stopped = true;
            break;
        }
        let before = graph.order().len();
        let start = Instant::now();
        let report = run(graph, &mut cx)?;
        let time = start.elapsed();
        verify(graph).map_err(|error| PassError::Broke { pass: pass.name, error })?;
        ran.push(Ran { name: pass.name, before, after: graph.order().len(), time, report });
        if watch(pass.name, When::After, graph).is_break() {
            stopped = true;
            break;
        }
    }
    let ledger = ledger.unwrap_or_else(|| Ledger::new(graph, &cx));
    Ok(Finished { ran, ledger, layout: cx.layout, stopped })
}

fn verify(graph: &Graph) -> Result<(), String> {
    llamac_ir::verify(graph).map_err(|e| e.to_string())
}
