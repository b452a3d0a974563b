//! From a compiled model to a file.

use crate::compile::{CompileError, Compiled};
use crate::model::{Model, OpenError};
use crate::report::Report;
use llamac_codegen::artifact::{Contents, WriteError, Written};
use llamac_codegen::{CodegenError, Target};
use llamac_formats::DType;
use llamac_formats::artifact::{Asked, Manifest, Memory, TokenizerInfo};
use llamac_formats::program::{PortInfo, Program};
use llamac_ir::Graph;
use llamac_passes::plan::Plan;
use llamac_passes::{Activations, CacheType, FusionSet, Options};
use llamac_runtime::program::state_bytes;
use llamac_runtime::text::to_vocabulary;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a model could not become a file.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// It could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// No code could be made.
    #[error(transparent)]
    Code(#[from] CodegenError),
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The model's vocabulary or chat template is wrong.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The model's tokenizer could not be read.
    #[error("{}: it cannot be read ({error}): the model's tokenizer goes into the artifact", path.display())]
    Tokenizer {
        /// The tokenizer.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What was decided cannot be written down: a mistake in the compiler.
    #[error("internal error: {0}")]
    Report(#[from] serde_json::Error),
    /// The output would replace the input.
    #[error(
        "{}: it is a part of the model that is compiled, which would be overwritten: choose another place with -o",
        path.display()
    )]
    Input {
        /// The output.
        path: PathBuf,
    },
    /// An artifact whose graph this version does not plan as it was planned.
    #[error(
        "{}: {what}, as if another version of llamac had made it (compiler {compiler}, this one {}): compile the model again",
        path.display(), env!("CARGO_PKG_VERSION")
    )]
    Foreign {
        /// The artifact.
        path: PathBuf,
        /// What does not fit.
        what: String,
        /// The version that it names.
        compiler: String,
    },
}

/// What the artifact of a model says of itself.
pub fn manifest(model: &Model, compiled: &Compiled, options: &Options, target: Target) -> Manifest {
    let program = &compiled.code.program;
    let mut weight_bytes = BTreeMap::new();
    for weight in &program.weights {
        *weight_bytes.entry(weight.dtype.to_string()).or_insert(0) += weight.bytes;
    }
    let vocab = program.vocab.unwrap_or(0);
    let tokenizer_bytes = match model.tokenizer() {
        Some(path) => path.metadata().map_or(0, |m| m.len() as usize),
        // What is wrong with it is said where it is written.
        None => model.stored_vocabulary().ok().flatten().map_or(0, |stored| stored.len()),
    };
    let has_vocabulary = model.gguf.as_ref().is_some_and(|gguf| gguf.has_vocabulary());
    let tokenizer = (has_vocabulary || model.tokenizer().is_some())
        .then(|| TokenizerInfo { format: "tokenizer.json".to_owned(), vocab });
    Manifest {
        name: program.name.clone(),
        compiler: env!("CARGO_PKG_VERSION").to_owned(),
        target: target.name().to_owned(),
        bounds: program.bounds,
        act: program.act.clone(),
        kv: program.kv.clone(),
        asked: Asked { act: options.act.to_string(), kv: options.kv.to_string() },
        fusion: program.fusion.clone(),
        disabled: options.disabled().map(str::to_owned).collect(),
        eos: model.eos().to_vec(),
        bos: model.bos(),
        tokenizer,
        kernels: program.kernels.len(),
        code_bytes: compiled.code.code.len(),
        weight_bytes: weight_bytes.into_iter().collect(),
        memory: memory(program, compiled.code.weights.total_bytes(), tokenizer_bytes),
    }
}

/// What a session of the program needs.
fn memory(program: &Program, weights: usize, tokenizer: usize) -> Memory {
    let sizes = program.bounds.sizes();
    let bytes = |dtype: DType, dims: &[usize]| dtype.storage_of(dims).unwrap_or(usize::MAX);
    let port = |p: &PortInfo| bytes(p.dtype, &p.dims.iter().map(|d| d.value(&sizes)).collect::<Vec<_>>());
    Memory {
        weights,
        states: state_bytes(program),
        arena: program.entries.iter().map(|e| e.arena_bytes).max().unwrap_or(0),
        ports: program.inputs.iter().chain(&program.outputs).map(port).sum(),
        process: Memory::of_process(tokenizer),
    }
}

/// Writes a compiled model to `path`, behind `runner` if that is given.
///
/// # Errors
/// [`ArtifactError`]; what was at `path` is untouched then.
pub fn write(
    path: &Path,
    model: &Model,
    compiled: &Compiled,
    manifest: &Manifest,
    runner: Option<&Path>,
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Written, ArtifactError> {
    refuse_input(path, model)?;
    let source =
        model.source.as_deref().ok_or_else(|| CompileError::NoWeights { path: model.path.display().to_string() })?;
    let tokenizer = match model.tokenizer() {
        Some(path) => Some(std::fs::read(&path).map_err(|error| ArtifactError::Tokenizer { path, error })?),
        None => None,
    };
    let (tokenizer, format) = match tokenizer {
        Some(json) => match to_vocabulary(&json) {
            Ok(stored) => (Some(stored), "vocabulary".to_owned()),
            Err(reason) => (Some(json), format!("tokenizer.json ({reason})")),
        },
        None => (model.stored_vocabulary()?, "vocabulary".to_owned()),
    };
    let mut manifest = manifest.clone();
    if let Some(info) = &mut manifest.tokenizer {
        info.format = format;
    }
    let template = model.chat_template()?;
    let graph = llamac_ir::print::print(&compiled.graph);
    let report = serde_json::to_vec(&Report::new(compiled))?;
    let contents = Contents {
        manifest: &manifest,
        graph: &graph,
        tokenizer: tokenizer.as_deref(),
        chat_template: template.as_ref().map(String::as_bytes),
        report: Some(&report),
        runner,
    };
    Ok(llamac_codegen::artifact::write(path, &compiled.code, &contents, source, threads, progress)?)
}

/// Refuses to write over what is read: the model's file, its weights, or a file of the model's directory, however it is
/// spelled.
///
/// # Errors
/// [`ArtifactError::Input`].
pub fn refuse_input(path: &Path, model: &Model) -> Result<(), ArtifactError> {
    let Ok(target) = path.canonicalize() else { return Ok(()) };
    if llamac_runtime::Program::is_artifact(&target) {
        return Ok(());
    }
    let mut inputs = vec![model.path.clone()];
    inputs.extend(model.gguf.as_ref().map(|gguf| gguf.path().to_path_buf()));
    let directories = [Some(model.path.as_path()), model.directory.as_ref().map(|d| d.path())];
    for directory in directories.into_iter().flatten() {
        // Files of a model may be links into a store of downloads.
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        inputs.extend(entries.map(|e| e.path()).filter(|p| p.is_file()));
    }
    if inputs.iter().any(|i| i.canonicalize().is_ok_and(|i| i == target)) {
        return Err(ArtifactError::Input { path: path.into() });
    }
    Ok(())
}

/// The compiler's side of an artifact: its graph and plan, from which reports can be made.
pub struct Reopened {
    /// The graph after all graph passes.
    pub graph: Graph,
    /// Its plan, made again; it is the plan of the artifact's steps.
    pub plan: Plan,
    /// The switches that it was compiled with.
    pub options: Options,
    /// What the passes decided, where the artifact has it.
    pub report: Option<Report>,
}

/// What `--kv` became: the narrowest of the types that the caches have.
pub fn cache_type(manifest: &Manifest) -> CacheType {
    let is = |kv: &CacheType| manifest.kv.split('+').any(|name| name == kv.name());
    [CacheType::Bf16, CacheType::Q8_0].into_iter().find(is).unwrap_or(CacheType::F32)
}

/// Reads what an artifact holds for the compiler, and plans its graph again.
///
/// # Errors
/// [`ArtifactError::Foreign`] where that gives another plan than the artifact has, which another version of the compiler made.
pub fn reopen(artifact: &llamac_runtime::Program) -> Result<Reopened, ArtifactError> {
    let foreign = |what: String| ArtifactError::Foreign {
        path: artifact.path().into(),
        what,
        compiler: artifact.header().compiler.clone(),
    };
    let manifest = artifact.manifest();
    let graph =
        llamac_ir::read(artifact.graph()).map_err(|e| foreign(format!("its graph cannot be read ({})", e.message)))?;
    let fusion: FusionSet = manifest.fusion.parse().map_err(|e| foreign(format!("{e}")))?;
    let mut options = Options::fusing(fusion);
    for pass in &manifest.disabled {
        options = options.disable(pass).map_err(|e| foreign(e.to_string()))?;
    }
    // Several types are those of some dots, or states, and those of the others, which could not have the first.
    let is = |types: &str, dtype: DType| types.split('+').any(|name| name == dtype.name());
    let narrow = [(Activations::Bf16, DType::BF16), (Activations::Q8, DType::Q8)]
        .into_iter()
        .find(|&(_, d)| is(&manifest.act, d));
    options.act = narrow.map_or(Activations::F32, |(act, _)| act);
    options.kv = cache_type(manifest);
    let plan = crate::compile::plan(&graph, &options)?;
    let planned = plan.entries.iter().map(|e| (&e.name, e.steps.len(), e.arena_bytes));
    let stored = artifact.executable().program().entries.iter().map(|e| (&e.name, e.steps.len(), e.arena_bytes));
    if !planned.eq(stored) {
        return Err(foreign("its graph does not give its plan".to_owned()));
    }
    let report = artifact.report().map(serde_json::from_slice).transpose();
    let report = report.map_err(|e| foreign(format!("its report cannot be read ({e})")))?;
    Ok(Reopened { graph, plan, options, report })
}
