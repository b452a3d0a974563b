//! Why a model could not be written as a GGUF file.

use super::Export;
use std::io;
use thiserror::Error;

/// What stood in the way.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A tensor that cannot be stored.
    #[error("{origin}: tensor `{tensor}` {what}")]
    Tensor {
        /// The source.
        origin: String,
        /// The tensor, as the file calls it.
        tensor: String,
        /// What is wrong and what to do, with a verb.
        what: String,
    },
    /// Something that the format has no word for.
    #[error("GGUF cannot say {what} so that llama.cpp would follow it: export another model")]
    Inexpressible {
        /// What it is.
        what: String,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

impl ExportError {
    pub(super) fn tensor(export: &Export<'_>, tensor: &str, what: impl Into<String>) -> ExportError {
        ExportError::Tensor { origin: export.source.describe(), tensor: tensor.into(), what: what.into() }
    }
}
