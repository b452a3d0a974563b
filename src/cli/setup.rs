//! From options to an opened model and a session: what the subcommands share.

use super::args::{ActArg, CompileArgs, FusionArg, KvArg, ModelArgs, ThreadArgs};
use super::progress::Progress;
use super::{Result, failure, warn};
use clap::ValueEnum;
use llamac::compile::{self, Compiled};
use llamac::model::{DEFAULT_CHUNK, Model, Sizes, is_gguf};
use llamac_passes::manager::Finished;
use llamac_passes::{Activations, CacheType, FusionSet, Options, cache, precision};
use llamac_runner::artifact::{warn_of_memory, warn_of_pages};
use llamac_runtime::{Generator, OpenOptions, Session};
use std::path::Path;
use std::time::{Duration, Instant};

/// Opens the model that the options name.
pub fn open(args: &ModelArgs, compile: &CompileArgs, outputs: Option<usize>) -> Result<Model> {
    let sizes = Sizes { context: compile.context, chunk: compile.chunk, slots: compile.slots, outputs };
    let mut model = open_sized(args, &sizes)?;
    quantise(&mut model, compile)?;
    Ok(model)
}

/// The same with these sizes.
pub fn open_sized(args: &ModelArgs, sizes: &Sizes) -> Result<Model> {
    if let (Some(one), Some(other)) = (&args.model, &args.model_flag) {
        let (one, other) = (one.display(), other.display());
        return Err(failure(format!("the model is given twice: {one}, and {other} with -m")));
    }
    let path = args.model.as_deref().or(args.model_flag.as_deref()).unwrap_or(Path::new(""));
    open_at(path, args.weights.as_deref(), sizes)
}

/// Opens what lies at a path.
pub fn open_at(path: &Path, weights: Option<&Path>, sizes: &Sizes) -> Result<Model> {
    let model = Model::open(path, weights, sizes)?;
    for warning in &model.warnings {
        warn(warning);
    }
    Ok(model)
}

/// Whether a path names a graph in text form: neither a directory nor a GGUF file.
pub fn is_text(path: &Path) -> bool {
    path.is_file() && !is_gguf(path)
}

/// The sizes that the options ask for, with room for so many sequences at once: a slot for each, and steps of as many rows.
/// `option` is what asks for them. Where `fixed`, the sizes are those that the graph has, and nothing is asked of it.
pub fn batch_sizes(compile: &CompileArgs, sequences: usize, option: &str, fixed: bool) -> Result<Sizes> {
    for (size, given) in [("--slots", compile.slots), ("--chunk", compile.chunk)] {
        if let Some(found) = given.filter(|&given| given > 0 && given < sequences) {
            return Err(failure(format!(
                "{size}: found {found}, expected at least the {sequences} sequences of {option}: each takes a slot, and a row \
                 of a step"
            )));
        }
    }
    let mut sizes = Sizes { context: compile.context, chunk: compile.chunk, slots: compile.slots, outputs: None };
    if sequences > 1 && !fixed {
        sizes.slots = sizes.slots.or(Some(sequences));
        sizes.chunk = sizes.chunk.or(Some(sequences.max(DEFAULT_CHUNK)));
    }
    Ok(sizes)
}

/// Gives the model's matrices the types that the options ask for.
pub fn quantise(model: &mut Model, compile: &CompileArgs) -> Result<()> {
    let Some(quant) = compile.quant else { return Ok(()) };
    for kept in model.quantise(quant)?.kept {
        warn(format!("--quant {quant}: {kept} stays as it is: it is read in ways that take no blocks"));
    }
    Ok(())
}

/// The passes' switches.
pub fn options(fusion: Option<FusionArg>, args: &CompileArgs) -> Result<Options> {
    let set = match fusion.unwrap_or(FusionArg::All) {
        FusionArg::None => FusionSet::None,
        FusionArg::Rows => FusionSet::Rows,
        FusionArg::Epilogue => FusionSet::Epilogue,
        FusionArg::Attention => FusionSet::Attention,
        FusionArg::All => FusionSet::All,
    };
    let mut options = Options::fusing(set);
    options.act = match args.act.unwrap_or(ActArg::Auto) {
        ActArg::Auto => Activations::Auto,
        ActArg::F32 => Activations::F32,
        ActArg::Bf16 => Activations::Bf16,
        ActArg::Q8 => Activations::Q8,
    };
    options.kv = match args.kv.unwrap_or(KvArg::F32) {
        KvArg::F32 => CacheType::F32,
        KvArg::Bf16 => CacheType::Bf16,
        KvArg::Q8_0 => CacheType::Q8_0,
    };
    for name in &args.disable {
        options = options.disable(name)?;
    }
    Ok(options)
}

/// Says on stderr what cannot be as `--act` and `--kv` ask for, where they were given; `notes` are what the passes said.
pub fn warn_of_kept<'n>(args: &CompileArgs, notes: impl IntoIterator<Item = &'n String>) {
    let act = args.act.map(|act| ("--act", value_name(&act), precision::KEPT));
    let kv = args.kv.map(|kv| ("--kv", value_name(&kv), cache::KEPT));
    for note in notes {
        for (option, given, kept) in [&act, &kv].into_iter().flatten() {
            if note.contains(kept) {
                warn(format!("{option} {given}: {note}"));
            }
        }
    }
}

/// An option's value as it is written.
pub fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}

/// What the passes said.
pub fn notes(passes: &Finished) -> impl Iterator<Item = &String> {
    passes.ran.iter().flat_map(|ran| &ran.report.notes)
}

/// How an artifact is opened.
pub fn opening(threads: &ThreadArgs) -> Result<OpenOptions> {
    threads::opening(threads.no_mmap, threads.threads)
}

pub use llamac_runner::generate::tier;
pub use llamac_runner::threads::{self, pool};

/// A model compiled and ready to run.
pub struct Ready {
    /// What was compiled.
    pub compiled: Compiled,
    /// Running.
    pub session: Session,
    /// Packing the weights.
    pub load: Duration,
}

/// Compiles a model as the options say, packs its weights and opens a session; warns of weights that are no numbers.
pub fn ready(model: &Model, options: &Options, args: &CompileArgs, threads: &ThreadArgs) -> Result<Ready> {
    let tier = tier(threads.tier.as_deref())?;
    let pool = pool(threads.threads, threads.pin)?;
    let compiled = compile::compile(model.graph.clone(), options, false)?;
    warn_of_kept(args, notes(&compiled.passes));
    warn_of_memory(&compiled.code.program, compiled.code.weights.total_bytes(), 1);
    let start = Instant::now();
    let mut progress = Progress::new("packing weights");
    let (weights, report) =
        compile::pack_weights(&compiled, model, pool.threads(), &mut |done, all| progress.update(done, all))?;
    drop(progress);
    warn_of_numbers(model, &report);
    let load = start.elapsed();
    warn_of_pages(&weights);
    let session = compile::session(&compiled, weights, pool, tier)?;
    Ok(Ready { compiled, session, load })
}

/// Names the tensors that hold NaN or infinities.
pub fn warn_of_numbers(model: &Model, report: &llamac_codegen::pack::PackReport) {
    for bad in &report.not_finite {
        warn(format!(
            "{}: tensor {:?} holds {} NaN and {} infinite values: what is computed from it cannot be right",
            model.path.display(),
            bad.tensor,
            bad.nan,
            bad.infinite
        ));
    }
}

/// Refuses what cannot generate: other graphs, and graphs without weights.
pub fn check_generates(model: &Model) -> Result<()> {
    if !model.is_language_model() {
        return Err(failure(format!(
            "{}: the graph {:?} is no language model (inputs tokens, positions, slots, outputs; output logits): use \
             `llamac verify`",
            model.path.display(),
            model.name
        )));
    }
    if model.source.is_none() {
        return Err(compile::CompileError::NoWeights { path: model.path.display().to_string() }.into());
    }
    Ok(())
}

/// A session as a language model's generator.
pub fn generator(model: &Model, session: Session) -> Result<Generator> {
    check_generates(model)?;
    Ok(Generator::new(session)?)
}
