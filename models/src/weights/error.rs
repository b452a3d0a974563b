//! What can be wrong with the files that hold weights.

use llamac_formats::DType;
use std::io;
use std::path::PathBuf;

/// Weights that cannot be used: which file, which tensor, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file or directory is not there or not readable.
    #[error("{}: cannot be read ({error}); expected {expected}", path.display())]
    Read {
        /// What was opened.
        path: PathBuf,
        /// What it should have been.
        expected: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A directory has no weights in a form that is read.
    #[error("{}: no weights found; expected model.safetensors or model.safetensors.index.json", path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// The file ends before its header does.
    #[error("{}: the file has {bytes} bytes, but its header ends at byte {needed}; it is truncated or no safetensors file", path.display())]
    ShortHeader {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Where the header would end.
        needed: u64,
    },
    /// The header says that it is larger than any header is.
    #[error("{}: the header claims {bytes} bytes; expected at most {limit}: this is no safetensors file", path.display())]
    HugeHeader {
        /// The file.
        path: PathBuf,
        /// What the header claims.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The header is not what a safetensors header is.
    #[error("{}: the header is invalid: {message}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A tensor's entry in the header is wrong.
    #[error("{}: tensor `{tensor}`: {message}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What was found and what was expected.
        message: String,
    },
    /// The file ends before its tensors do, or goes on after them.
    #[error("{}: the tensors end at byte {expected}, but the file has {bytes} bytes; it is truncated or damaged", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Header and tensors.
        expected: u64,
    },
    /// The index of a sharded checkpoint is wrong, or disagrees with a shard.
    #[error("{}: {message}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// A shard that the index names is not there.
    #[error("{}: shard {shard} is missing or unreadable ({error}); it holds `{tensor}` and {others} more tensors", path.display())]
    Shard {
        /// The index.
        path: PathBuf,
        /// The shard's file name.
        shard: String,
        /// A tensor in it.
        tensor: String,
        /// How many others.
        others: usize,
        /// What the system said.
        error: io::Error,
    },
    /// A tensor that the model needs is not there.
    #[error("{origin}: tensor `{tensor}` is missing; expected shape {}{hint}", shape(expected))]
    Missing {
        /// The checkpoint.
        origin: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        expected: Vec<usize>,
        /// What else may be wrong; starts with a separator.
        hint: String,
    },
    /// A tensor has another shape.
    #[error("{origin}: tensor `{tensor}` has shape {}; expected {}", shape(found), shape(expected))]
    Shape {
        /// The file.
        origin: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration gives it.
        expected: Vec<usize>,
    },
    /// A tensor has another element type.
    #[error("{origin}: tensor `{tensor}` is {found}; expected {expected}")]
    Dtype {
        /// The file.
        origin: String,
        /// The tensor.
        tensor: String,
        /// Its element type.
        found: DType,
        /// The element type that the graph gives it.
        expected: DType,
    },
    /// `tie_word_embeddings` says that the head is the embedding, and the file holds another head.
    #[error(
        "{origin}: `lm_head.weight` differs from `model.embed_tokens.weight`, but config.json has \
         tie_word_embeddings: true; set it to false, or remove the tensor"
    )]
    Tied {
        /// The checkpoint.
        origin: String,
    },
}

/// A shape as errors show it.
pub(crate) fn shape(dims: &[usize]) -> String {
    format!("[{}]", dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
}
