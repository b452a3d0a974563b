//! From an opened model to a session: passes, plan, code, packed weights.

use crate::model::Model;
use llamac_codegen::pack::{PackError, PackReport, pack};
use llamac_codegen::{CodegenError, Target};
use llamac_ir::Graph;
use llamac_passes::manager::{Finished, PassError, When};
use llamac_passes::plan::{Plan, PlanError, plan_with};
use llamac_passes::{Options, pipeline, precision};
use llamac_runtime::{Executable, LoadError, OpenError, Pool, Region, Session, Tier};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// A compiled graph: everything but the weights' bytes.
pub struct Compiled {
    /// The graph after all graph passes.
    pub graph: Graph,
    /// What the passes did, with the ledger.
    pub passes: Finished,
    /// Steps and memory.
    pub plan: Plan,
    /// Program, machine code, what to pack, listings.
    pub code: llamac_codegen::Compiled,
    /// How long it all took.
    pub time: Duration,
}

/// Why a graph could not be compiled or run.
#[derive(Debug, Error)]
pub enum CompileError {
    /// A graph pass.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// Scheduling or planning.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Making code.
    #[error(transparent)]
    Code(#[from] CodegenError),
    /// Weights that are not those of the graph.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A program that the runtime refuses: a mistake in the compiler.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No session.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No memory.
    #[error("{0}")]
    Memory(#[from] llamac_runtime::memory::MemoryError),
    /// No threads.
    #[error("the threads cannot be started: {0}")]
    Threads(std::io::Error),
    /// A text graph that came without weights.
    #[error("{path} is a graph without weights: name them with --weights MODEL")]
    NoWeights {
        /// The graph.
        path: String,
    },
}

/// Runs the graph passes; `watch` sees the graph before and after each and may stop the run.
///
/// # Errors
/// The pass that failed.
pub fn run_passes(
    graph: &mut Graph,
    options: &Options,
    watch: &mut dyn FnMut(&'static str, When, &Graph) -> ControlFlow<()>,
) -> Result<Finished, CompileError> {
    Ok(pipeline::run(graph, options, watch)?)
}

/// Schedules and plans a graph that has been through the graph passes.
///
/// # Errors
/// A graph that has no plan.
pub fn plan(graph: &Graph, options: &Options) -> Result<Plan, CompileError> {
    Ok(plan_with(graph, options.plan())?)
}

/// Takes a graph through all passes to machine code for this CPU. Listings of the machine code take time: `listings` says
/// whether they are wanted.
///
/// # Errors
/// The pass, plan or kernel that failed.
pub fn compile(graph: Graph, options: &Options, listings: bool) -> Result<Compiled, CompileError> {
    compile_for(graph, options, Target::Native, listings)
}

/// The same for any target; only what is compiled for this CPU can run here.
///
/// # Errors
/// As [`compile`], and a target that code cannot be generated for.
pub fn compile_for(
    mut graph: Graph,
    options: &Options,
    target: Target,
    listings: bool,
) -> Result<Compiled, CompileError> {
    let start = Instant::now();
    let passes = run_passes(&mut graph, options, &mut |_, _, _| ControlFlow::Continue(()))?;
    let plan = plan(&graph, options)?;
    let code = llamac_codegen::compile(&graph, &plan, &code_options(&graph, options, target, listings))?;
    Ok(Compiled { graph, passes, plan, code, time: start.elapsed() })
}

/// What code is made, and what the program says of itself.
fn code_options(graph: &Graph, options: &Options, target: Target, listings: bool) -> llamac_codegen::Options {
    llamac_codegen::Options {
        target,
        act: precision::in_use(graph),
        kv: llamac_passes::cache::in_use(graph),
        fusion: options.fusion.to_string(),
        listings,
    }
}

/// Packs weights into memory of their own. `progress` is told bytes done and bytes in all.
///
/// # Errors
/// A model without weights, or with others than the graph names.
pub fn pack_weights(
    compiled: &Compiled,
    model: &Model,
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Arc<Region>, PackReport), CompileError> {
    let source =
        model.source.as_deref().ok_or_else(|| CompileError::NoWeights { path: model.path.display().to_string() })?;
    let mut region = Region::new(compiled.code.weights.total_bytes(), "the weights")?;
    let report = pack(&compiled.code.weights, source, region.as_mut_slice(), threads, progress)?;
    Ok((Arc::new(region), report))
}

/// Opens a session on packed weights.
///
/// # Errors
/// Memory or threads that cannot be had.
pub fn session(
    compiled: &Compiled,
    weights: Arc<Region>,
    pool: Arc<Pool>,
    tier: Tier,
) -> Result<Session, CompileError> {
    let code = compiled.code.jit()?;
    let executable = Executable::new(compiled.code.program.clone(), Arc::new(Kernels(code)), weights)?;
    Ok(Session::new(Arc::new(executable), pool, tier)?)
}

/// Compiled kernels in executable memory.
struct Kernels(llamac_codegen::JitCode);

// SAFETY: `JitCode` keeps the finished, immutable code of every kernel in place as long as it lives; the kernels were
// generated with the signatures that the program's steps state and reach memory through their arguments alone.
unsafe impl llamac_runtime::Code for Kernels {
    fn address(&self, kernel: usize) -> *const u8 {
        self.0.addresses()[kernel]
    }
}
