//! Why a file cannot be opened as a program.

use crate::memory::MemoryError;
use crate::program::{LoadError, OpenError};
use crate::session::GenerateError;
use crate::text::TokenizerError;
use llamac_formats::artifact::{HeaderError, SectionKind};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why an artifact cannot be opened or used: one sentence with what to do.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The file is not there or not readable.
    #[error("{}: it cannot be read ({error}): name an artifact that `llamac compile` made", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No artifact, another version, damaged, or a wrong section table.
    #[error("{}: {error}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: HeaderError,
    },
    /// Code for another architecture.
    #[error("{}: it was compiled for {found}, this machine is {here}: compile it on such a machine", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The architecture of the code.
        found: String,
        /// The machine's.
        here: String,
    },
    /// Code for a CPU that has more than this one.
    #[error(
        "{}: its code (target {target}) needs {}, which this CPU does not have: compile it again with `llamac compile \
         MODEL --target {remedy} -o {}`",
        path.display(), missing.join(", "), path.display()
    )]
    Features {
        /// The file.
        path: PathBuf,
        /// What it was compiled for.
        target: String,
        /// What the CPU lacks.
        missing: Vec<String>,
        /// A target that the CPU can run.
        remedy: &'static str,
    },
    /// A section whose bytes are not those that were written.
    #[error("{}: section {section} is damaged (its checksum does not match): copy the file again, or compile the model again", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Which section.
        section: SectionKind,
    },
    /// A section that does not hold what its kind says.
    #[error("{}: section {section} cannot be used ({what}): compile the model again", path.display())]
    Contents {
        /// The file.
        path: PathBuf,
        /// Which section.
        section: SectionKind,
        /// What is wrong in it.
        what: String,
    },
    /// A program that is not safe to run.
    #[error("{}: {error}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What is wrong in the program.
        error: Box<LoadError>,
    },
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No session.
    #[error(transparent)]
    Session(#[from] OpenError),
    /// No language model.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A tokenizer that cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// No threads.
    #[error("the threads cannot be started: {0}")]
    Threads(io::Error),
}
