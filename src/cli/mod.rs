//! The command line: options, printing, exit status. One file per subcommand.

mod args;
mod artifact;
mod bench;
mod compile;
mod explain;
mod export;

mod inspect;
mod inspect_gguf;
mod ir;

mod logits;
mod machine;
mod npy;
mod perplexity;
mod profile;
mod progress;
mod run;
mod setup;
mod shell;
mod synth;
mod table;
mod tokens;
mod verify;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

pub use llamac_runner::{Failure, Result, failure, say, warn};
use llamac_runner::{ids, output};

/// Parses the command line, runs the subcommand, reports its error.
pub fn main() -> ExitCode {
    // An executable made with --emit exe where no runner was installed is llamac itself with an artifact behind it.
    if llamac_runtime::Program::carried().is_some() {
        return llamac_runner::artifact::main();
    }
    let done = match Cli::try_parse() {
        Ok(cli) => dispatch(cli.command),
        // A wrong use, or help that was asked for.
        Err(shown) => show(&shown),
    };
    match done {
        Ok(code) => code,
        Err(Failure(message)) => {
            say(format_args!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Help and version go to stdout, which must be there; a wrong use goes to stderr.
fn show(shown: &clap::Error) -> Result<ExitCode> {
    let printed = shown.print();
    if !shown.use_stderr() {
        printed.map_err(output::StdoutError::from)?;
        output::print("")?;
    }
    Ok(ExitCode::from(u8::try_from(shown.exit_code()).unwrap_or(2)))
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Compile(args) => compile::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Run(args) => run::run(args),
        Command::Logits(args) => logits::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),

        Command::Ir(args) => ir::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Machine(args) => machine::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Synth(args) => synth::run(&args),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { output } => shell::manual(&output),
    }
}
