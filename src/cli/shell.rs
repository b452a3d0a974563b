//! `completions` and `man`: what a shell needs to know of the command.

use super::args::Cli;
use super::{Result, failure, output};
use clap::CommandFactory;
use std::path::Path;
use std::process::ExitCode;

/// Prints a completion script.
pub fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "llamac", &mut script);
    output::write_bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a manual page for the command and for each subcommand.
pub fn manual(directory: &Path) -> Result<ExitCode> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .map_err(|e| failure(format!("{}: the manual pages cannot be written: {e}", directory.display())))?;
    Ok(ExitCode::SUCCESS)
}
