//! The command line: options, printing, exit status. One file per subcommand.

mod args;
mod artifact;
mod bench;
mod compile;
mod explain;

mod inspect;
mod ir;

mod logits;
mod npy;
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

pub use llamac_runner::{Failure, Result, failure};
use llamac_runner::{ids, output};

/// Tells the user something that is no error.
pub fn warn(message: impl Display) {
    eprintln!("warning: {message}");
}

/// Parses the command line, runs the subcommand, reports its error.
pub fn main() -> ExitCode {
    // An executable made with --emit exe where no runner was installed is llamac itself with an artifact behind it.
    if llamac_runtime::Program::carried().is_some() {
        return llamac_runner::artifact::main();
    }
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Compile(args) => compile::run(&args),
        Command::Inspect(args) => inspect::run(&args),
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
