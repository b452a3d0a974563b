//! `llamac synth`: a model directory with seeded random weights.

use super::args::SynthArgs;
use super::{Result, output, say};
use llamac_models::synth::Synth;
use std::process::ExitCode;

/// Writes the directory, names it on stdout and says on stderr what is in it.
pub fn run(args: &SynthArgs) -> Result<ExitCode> {
    let written = Synth::named(&args.what)?.write(&args.output, args.seed)?;
    say(format_args!("{} parameters, {:.3} GB", written.parameters, written.bytes as f64 / 1e9));
    output::print(&format!("{}\n", args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}
