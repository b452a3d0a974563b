//! What is measured: builds of models, compiled here, and artifacts.

use super::super::args::{BenchArgs, FusionArg};
use super::super::progress::Progress;
use super::super::{Result, artifact, failure, setup};
use llamac::compile::{self, Compiled};
use llamac::model::{Model, Sizes, is_gguf};
use llamac_formats::program::Program;
use llamac_passes::plan::Plan;
use llamac_runner::artifact::{unread, warn_of_memory, warn_of_pages};
use llamac_runner::generate::check_batch;
use llamac_runtime::{Generator, Pool, Region, Tier};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One program.
pub(super) struct Build {
    /// The model's name.
    pub(super) name: String,
    /// What was named.
    pub(super) path: PathBuf,
    pub(super) program: Program,
    /// Its plan as the compiler sees it; absent for an artifact of another compiler.
    pub(super) plan: Option<Plan>,
    /// One per thread count.
    pub(super) generators: Vec<Generator>,
}

/// Every model with every fusion asked for, and every artifact as it is. `needed` is the tokens of the longest test.
pub(super) fn all(args: &BenchArgs, needed: usize, pools: &[Arc<Pool>], tier: Tier) -> Result<Vec<Build>> {
    let mut builds = vec![];
    for path in args.models.iter().chain(&args.model_flag) {
        if path.is_file() && llamac_runtime::Program::is_artifact(path) {
            builds.push(of_artifact(args, path, needed, pools, tier)?);
        } else {
            let model = open(args, path, needed)?;
            of_model(args, &model, pools, tier, &mut builds)?;
        }
    }
    Ok(builds)
}

fn too_long(path: &Path, needed: usize, has: usize) -> super::super::Failure {
    failure(format!(
        "{}: the longest test takes {needed} tokens (-p or -n, after -d), the context has {has}: make it shorter",
        path.display()
    ))
}

/// The most sequences that a test runs together.
fn sequences(args: &BenchArgs) -> usize {
    args.batch.iter().copied().max().unwrap_or(1)
}

fn of_artifact(args: &BenchArgs, path: &Path, needed: usize, pools: &[Arc<Pool>], tier: Tier) -> Result<Build> {
    if args.weights.is_some() {
        return Err(failure(format!("{}: an artifact holds its weights: leave --weights out", path.display())));
    }
    let opening = setup::threads::opening(args.no_mmap, args.threads.iter().copied().max())?;
    let artifact = artifact::open(path, &args.compile, &args.fusion, &opening)?;
    let program = artifact.executable().program().clone();
    if needed > program.bounds.tokens {
        return Err(too_long(path, needed, program.bounds.tokens));
    }
    check_batch("-b", sequences(args), &program.bounds, path)?;
    warn_of_memory(&program, unread(&artifact), pools.len());
    let generators =
        pools.iter().map(|pool| artifact.session_on(Arc::clone(pool), tier)).collect::<Result<Vec<_>, _>>()?;
    // Only the bytes moved outside of GEMMs are read off the plan.
    let plan = llamac::artifact::reopen(&artifact).ok().map(|r| r.plan);
    Ok(Build { name: program.name.clone(), path: path.into(), program, plan, generators })
}

/// A model with a context that holds every test, and a slot for each sequence.
fn open(args: &BenchArgs, path: &Path, needed: usize) -> Result<Model> {
    let context = match args.compile.context {
        Some(given) if given < needed => {
            return Err(failure(format!(
                "-c: found {given}, expected at least the {needed} tokens of the longest test"
            )));
        }
        // A text graph has its own context.
        given if setup::is_text(path) => given,
        given => Some(given.unwrap_or(needed)),
    };
    let longest = if path.is_dir() {
        Some(llamac_models::ModelDir::open(path)?.config().context)
    } else if is_gguf(path) {
        Some(llamac_models::GgufModel::open(path)?.config().context)
    } else {
        None
    };
    if let Some(longest) = longest.filter(|&longest| needed > longest) {
        return Err(too_long(path, needed, longest));
    }
    let sizes = setup::batch_sizes(&args.compile, sequences(args), "-b", setup::is_text(path))?;
    let sizes = Sizes { context, ..sizes };
    let mut model = setup::open_at(path, args.weights.as_deref(), &sizes)?;
    setup::quantise(&mut model, &args.compile)?;
    setup::check_generates(&model)?;
    if needed > model.graph.bounds.tokens {
        return Err(too_long(path, needed, model.graph.bounds.tokens));
    }
    check_batch("-b", sequences(args), &model.graph.bounds, path)?;
    Ok(model)
}

fn of_model(args: &BenchArgs, model: &Model, pools: &[Arc<Pool>], tier: Tier, builds: &mut Vec<Build>) -> Result<()> {
    let mut packed: Vec<(usize, Arc<Region>)> = vec![];
    let fusions: &[FusionArg] = if args.fusion.is_empty() { &[FusionArg::All] } else { &args.fusion };
    for &fusion in fusions {
        let options = setup::options(Some(fusion), &args.compile)?;
        let compiled = compile::compile(model.graph.clone(), &options, false)?;
        setup::warn_of_kept(&args.compile, setup::notes(&compiled.passes));
        // Builds that want the same bytes share them.
        let same = packed.iter().find(|(b, _)| builds[*b].program.weights == compiled.code.program.weights);
        let unread = if same.is_some() { 0 } else { compiled.code.weights.total_bytes() };
        warn_of_memory(&compiled.code.program, unread, pools.len());
        let weights = match same {
            Some((_, weights)) => Arc::clone(weights),
            None => {
                let weights = pack(model, &compiled, pools, packed.is_empty())?;
                packed.push((builds.len(), Arc::clone(&weights)));
                weights
            }
        };
        let generators = pools
            .iter()
            .map(|pool| {
                let session = compile::session(&compiled, Arc::clone(&weights), Arc::clone(pool), tier)?;
                setup::generator(model, session)
            })
            .collect::<Result<Vec<_>>>()?;
        let Compiled { plan, code, .. } = compiled;
        let (name, path) = (model.name.clone(), model.path.clone());
        builds.push(Build { name, path, program: code.program, plan: Some(plan), generators });
    }
    Ok(())
}

fn pack(model: &Model, compiled: &Compiled, pools: &[Arc<Pool>], warn: bool) -> Result<Arc<Region>> {
    let mut progress = Progress::new("packing weights");
    let threads = pools.iter().map(|p| p.threads()).max().unwrap_or(1);
    let (weights, report) =
        compile::pack_weights(compiled, model, threads, &mut |done, all| progress.update(done, all))?;
    drop(progress);
    warn_of_pages(&weights);
    if warn {
        setup::warn_of_numbers(model, &report);
    }
    Ok(weights)
}
