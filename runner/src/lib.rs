//! Generating from a session on the command line: what `llamac run` and an executable made with `--emit exe` share.
//!
//! A session, a tokenizer and options come in; text goes to stdout as it comes, timings to stderr. Nothing here compiles:
//! the crate links no compiler, so that the executables it is the front of stay small.

pub mod artifact;
mod batch;
pub mod generate;
pub mod ids;
pub mod options;
pub mod output;
pub mod prompts;
pub mod threads;

use std::fmt::Display;
use std::io::Write;

/// An error as it is shown: one sentence.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// Tells the user something on stderr. Where that cannot be written there is nobody to tell, and no reason to stop.
pub fn say(message: impl Display) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Tells the user something that is no error.
pub fn warn(message: impl Display) {
    say(format_args!("warning: {message}"));
}

/// A failure in words.
pub fn failure(message: impl Into<String>) -> Failure {
    Failure(message.into())
}

/// The result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;
