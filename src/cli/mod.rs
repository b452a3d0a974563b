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
use std::io::Write;
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

/// Tells the user something on stderr. Where that cannot be written there is nobody to tell, and no reason to stop.
pub fn say(message: impl Display) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Tells the user something that is no error.
pub fn warn(message: impl Display) {
    say(format_args!("warning: {message}"));
}

/// Parses the command line, runs the subcommand, reports its error.
pub fn main() -> ExitCode {
    let done = match Cli::try_parse() {
        Ok(cli) => dispatch(cli.command),
        // A wrong use, or help that was asked for.
        Err(shown) => match (shown.print(), shown.use_stderr()) {
            (Err(error), false) => Err(output::StdoutError::from(error).into()),
            _ => Ok(ExitCode::from(u8::try_from(shown.exit_code()).unwrap_or(2))),
        },
    };
    match done {
        Ok(code) => code,
        Err(Failure(message)) => {
            say(format_args!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Logits(args) => logits::run(&args),

        Command::Ir(args) => ir::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Synth(args) => synth::run(&args),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { output } => shell::manual(&output),
    }
}
