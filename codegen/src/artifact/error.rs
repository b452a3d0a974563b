//! What can go wrong while an artifact is written.

use crate::pack::PackError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why there is no artifact.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The target is a directory.
    #[error("{}: it is a directory: name a file with -o", path.display())]
    Directory {
        /// The target.
        path: PathBuf,
    },
    /// No file can be made there.
    #[error("{}: no file can be made there ({error}): choose a directory that exists and can be written with -o", path.display())]
    Create {
        /// The target.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file could not be written to its end.
    #[error("{}: it could not be written ({error}); nothing was changed: make room, or choose another place with -o", path.display())]
    Write {
        /// The target.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The executable to put in front could not be copied.
    #[error("{}: the runner could not be copied ({error}): make room, or use --emit artifact", path.display())]
    Runner {
        /// The runner.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A program that cannot be written down: a mistake in the compiler.
    #[error("internal error: {0}")]
    Encode(String),
    /// Weights that are not those of the program.
    #[error(transparent)]
    Pack(#[from] PackError),
}
