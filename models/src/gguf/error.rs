//! What can be wrong with a GGUF file.

use llamac_formats::vocabulary::VocabularyError;
use std::io;
use thiserror::Error;

/// A GGUF file that cannot be used: which file, which key or tensor, what was found, what was expected, what to do.
#[derive(Debug, Error)]
pub enum GgufError {
    /// The file is not there or not readable.
    #[error("{origin}: cannot be read ({error}); expected a GGUF file")]
    Read {
        /// The file.
        origin: String,
        /// What the system said.
        error: io::Error,
    },
    /// The file does not begin as a GGUF file does.
    #[error("{origin}: begins with {found}; expected \"GGUF\": this is no GGUF file")]
    Magic {
        /// The file.
        origin: String,
        /// The first bytes, as text.
        found: String,
    },
    /// The file was made for a machine of the other byte order.
    #[error("{origin}: the file is big-endian; expected a little-endian one: convert it with gguf-convert-endian")]
    BigEndian {
        /// The file.
        origin: String,
    },
    /// A version that is not read.
    #[error("{origin}: the file has GGUF version {found}; expected 2 or 3: convert the model again")]
    Version {
        /// The file.
        origin: String,
        /// Its version.
        found: u32,
    },
    /// The file ends too early.
    #[error(
        "{origin}: {what} at byte {at} needs {needed} bytes, but the file has {bytes}; it is truncated or damaged: get it again"
    )]
    Short {
        /// The file.
        origin: String,
        /// What was being read.
        what: String,
        /// Where.
        at: usize,
        /// How many bytes it needs.
        needed: String,
        /// The file's size.
        bytes: usize,
    },
    /// A count that no file has.
    #[error("{origin}: the header says {found} {what}; expected at most {limit}: the file is damaged, get it again")]
    Count {
        /// The file.
        origin: String,
        /// What is counted.
        what: &'static str,
        /// How many there are said to be.
        found: u64,
        /// How many may be.
        limit: u64,
    },
    /// A key that is not well-formed, stands twice, or has a value that is wrong.
    #[error("{origin}: key `{key}` is {found}; expected {expected}")]
    Key {
        /// The file.
        origin: String,
        /// The key.
        key: String,
        /// The value, shortened.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A key that has no default.
    #[error("{origin}: key `{key}` is missing; expected {expected}: convert the model again")]
    MissingKey {
        /// The file.
        origin: String,
        /// The key.
        key: String,
        /// What it should hold.
        expected: String,
    },
    /// A value that means something that llamac does not do.
    #[error("{origin}: key `{key}` is {found}, which is not supported; supported: {supported}")]
    Unsupported {
        /// The file.
        origin: String,
        /// The key.
        key: String,
        /// The value, shortened.
        found: String,
        /// What would be accepted.
        supported: String,
    },
    /// A tensor whose entry is wrong.
    #[error("{origin}: tensor `{tensor}` {found}; expected {expected}")]
    Tensor {
        /// The file.
        origin: String,
        /// The tensor.
        tensor: String,
        /// What is wrong, with a verb.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A tensor that the model needs is not there.
    #[error("{origin}: tensor `{tensor}` is missing; expected shape {expected:?}: convert the model again")]
    MissingTensor {
        /// The file.
        origin: String,
        /// The tensor.
        tensor: String,
        /// Its shape, outputs first.
        expected: Vec<usize>,
    },
    /// A vocabulary that does not hang together.
    #[error("{origin}: {error}")]
    Vocabulary {
        /// The file.
        origin: String,
        /// What is wrong.
        error: VocabularyError,
    },
}

/// Bytes as an error shows them: at most 60 characters, quoted.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
