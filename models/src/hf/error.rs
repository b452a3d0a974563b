//! What can be wrong with the JSON files of a model directory.

use std::io;
use std::path::PathBuf;

/// A configuration that cannot be used: which file, which key, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or not readable.
    #[error("{}: cannot be read ({error}); expected {expected}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it should have been.
        expected: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The file has no bytes.
    #[error("{}: the file is empty; expected a JSON object", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than any such file can be.
    #[error("{}: the file has more than {limit} bytes; expected some kilobytes of JSON", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// The file is not JSON, or its top is no object.
    #[error("{}: {message}; expected a JSON object", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        message: String,
    },
    /// A key that has no default.
    #[error("{}: key `{key}` is missing; expected {expected}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key, with dots for nesting.
        key: String,
        /// What it should hold.
        expected: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{}: key `{key}` is {found}; expected {expected}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key, with dots for nesting.
        key: String,
        /// The value, shortened.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A value that means something that llamac does not do.
    #[error("{}: key `{key}` is {found}, which is not supported; supported: {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key, with dots for nesting.
        key: String,
        /// The value, shortened.
        found: String,
        /// What would be accepted.
        supported: String,
    },
    /// Two keys say different things.
    #[error("{}: keys `{first}` and `{second}` contradict each other ({detail}); remove one", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// One key.
        first: String,
        /// The other.
        second: String,
        /// What each says.
        detail: String,
    },
}
