//! From an opened model to a GGUF file.

use crate::artifact::{ArtifactError, refuse_input};
use crate::model::{Model, OpenError};
use llamac_codegen::artifact::{Place, WriteError};
use llamac_formats::vocabulary::Description;
use llamac_ir::Recipe;
use llamac_models::GgufError;
use llamac_models::gguf::write::{Export, ExportError, Numbers, Written, write};
use llamac_models::import::Stored;
use llamac_runtime::text::{Inexpressible, to_description};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is no GGUF file.
#[derive(Debug, Error)]
pub enum ExportFileError {
    /// A graph in text form has no configuration.
    #[error("{}: a graph in text form cannot be exported: name a Hugging Face directory or a GGUF file", path.display())]
    NoModel {
        /// What was opened.
        path: PathBuf,
    },
    /// The tokenizer could not be read.
    #[error("{}: it cannot be read ({error}); expected a Hugging Face tokenizer.json", path.display())]
    Read {
        /// The tokenizer.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The tokenizer does something that GGUF has no keys for.
    #[error("{}: its vocabulary cannot be exported: {reason}", path.display())]
    Tokenizer {
        /// The tokenizer.
        path: PathBuf,
        /// Why.
        reason: Inexpressible,
    },
    /// The vocabulary of a GGUF file is wrong.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The chat template could not be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The output is a part of the input.
    #[error(transparent)]
    Input(#[from] ArtifactError),
    /// The model has something that GGUF cannot say.
    #[error(transparent)]
    Export(ExportError),
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes a model to `path` as GGUF; `numbers` says what matrices are stored as (`None`: as the model has them). The file
/// is written beside its target and renamed. `progress(done, all)` is told bytes of tensors.
///
/// # Errors
/// [`ExportFileError`]; what was at `path` is untouched then.
pub fn export(
    model: &Model,
    path: &Path,
    numbers: Option<Numbers>,
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Written, ExportFileError> {
    let no_model = || ExportFileError::NoModel { path: model.path.clone() };
    if model.is_text() {
        return Err(no_model());
    }
    let (config, source) = (model.config().ok_or_else(no_model)?, model.source.as_deref().ok_or_else(no_model)?);
    refuse_input(path, model)?;
    let vocabulary = vocabulary(model)?;
    let chat_template = model.chat_template()?;
    let stored = |name: &str| match &model.gguf {
        Some(gguf) => gguf.stored(name),
        None => Some(Stored { recipe: Recipe::tensor(name), dtype: source.tensor(name)?.dtype }),
    };
    let export = Export {
        config,
        name: &model.name,
        source,
        stored: &stored,
        vocabulary: vocabulary.as_ref(),
        chat_template: chat_template.as_deref(),
        numbers,
    };
    let mut place = Place::new(path, false)?;
    let written =
        write(&export, &mut BufWriter::new(place.file()), threads, progress).map_err(|error| match error {
            ExportError::Write(error) => WriteError::Write { path: path.into(), error }.into(),
            other => ExportFileError::Export(other),
        })?;
    place.finish()?;
    Ok(written)
}

/// What the model's vocabulary is made of, if it has one.
fn vocabulary(model: &Model) -> Result<Option<Description>, ExportFileError> {
    if let Some(gguf) = &model.gguf {
        return Ok(gguf.vocabulary()?);
    }
    let Some(path) = model.tokenizer() else { return Ok(None) };
    match std::fs::read(&path) {
        Err(error) => Err(ExportFileError::Read { path, error }),
        Ok(json) => match to_description(&json) {
            Ok(description) => Ok(Some(description)),
            Err(reason) => Err(ExportFileError::Tokenizer { path, reason }),
        },
    }
}
