//! From a compiled model to a file.

use crate::compile::{CompileError, Compiled};
use crate::model::{Model, OpenError};
use llamac_codegen::artifact::{Contents, WriteError, Written};
use llamac_codegen::{CodegenError, Target};
use llamac_formats::DType;
use llamac_formats::artifact::{Manifest, Memory, TokenizerInfo};
use llamac_formats::program::{PortInfo, Program};
use llamac_passes::Options;
use llamac_runtime::text::to_vocabulary;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a model could not become a file.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum ArtifactError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Code(#[from] CodegenError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{}: {error}", path.display())]
    Tokenizer { path: PathBuf, error: io::Error },
    #[error(
        "{}: it is a part of the model that is compiled, which would be overwritten: choose another place with -o",
        path.display()
    )]
    Input { path: PathBuf },
}

/// What the artifact of a model says of itself.
pub fn manifest(model: &Model, compiled: &Compiled, options: &Options, target: Target) -> Manifest {
    let program = &compiled.code.program;
    let mut weight_bytes = BTreeMap::new();
    for weight in &program.weights {
        *weight_bytes.entry(weight.dtype.to_string()).or_insert(0) += weight.bytes;
    }
    let vocab = program.vocab.unwrap_or(0);
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
        fusion: program.fusion.clone(),
        disabled: options.disabled().map(str::to_owned).collect(),
        eos: model.eos().to_vec(),
        bos: model.bos(),
        tokenizer,
        kernels: program.kernels.len(),
        code_bytes: compiled.code.code.len(),
        weight_bytes: weight_bytes.into_iter().collect(),
        memory: memory(program, compiled.code.weights.total_bytes()),
    }
}

/// What a session of the program needs.
fn memory(program: &Program, weights: usize) -> Memory {
    let sizes = program.bounds.sizes();
    let bytes = |dtype: DType, dims: &[usize]| dtype.storage_of(dims).unwrap_or(usize::MAX);
    let port = |p: &PortInfo| bytes(p.dtype, &p.dims.iter().map(|d| d.value(&sizes)).collect::<Vec<_>>());
    Memory {
        weights,
        states: program.states.iter().map(|s| bytes(s.dtype, &s.dims)).sum(),
        arena: program.entries.iter().map(|e| e.arena_bytes).max().unwrap_or(0),
        ports: program.inputs.iter().chain(&program.outputs).map(port).sum(),
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
    let graph = llamac_ir::print::print(&compiled.graph);
    let contents = Contents { manifest: &manifest, graph: &graph, tokenizer: tokenizer.as_deref(), runner };
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
