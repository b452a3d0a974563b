//! The command line: options, printing, exit status. One file per subcommand.

mod args;
mod bench;
mod explain;

mod ids;
mod ir;

mod logits;
mod npy;
mod output;
mod progress;
mod run;
mod setup;
mod shell;
mod synth;
mod table;
mod verify;

use args::{Cli, Command};
use clap::Parser;
use std::fmt::Display;
use std::process::ExitCode;

/// An error as it is shown: one sentence (a parse error has its lines).
#[derive(Debug)]
pub struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// A failure of the command's own.
pub fn failure(message: impl Into<String>) -> Failure {
    Failure(message.into())
}

/// The result of a subcommand.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Tells the user something that is no error.
pub fn warn(message: impl Display) {
    eprintln!("warning: {message}");
}

/// Parses the command line, runs the subcommand, reports its error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Logits(args) => logits::run(&args),

        Command::Ir(args) => ir::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Synth(args) => synth::run(&args),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { output } => shell::manual(&output),
    };
    match done {
        Ok(code) => code,
        Err(Failure(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
