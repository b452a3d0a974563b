//! Running an artifact.

use crate::generate::{self, Source, generate};
use crate::options::{GenerateArgs, ThreadArgs};
use crate::prompts::{Given, encode};
use crate::{Failure, Result, failure, output, say, threads, warn};
use clap::Parser;
use llamac_formats::artifact::{Header, Manifest};
use llamac_runtime::machine::Scarcity;
use llamac_runtime::memory::Shortage;
use llamac_runtime::program::state_bytes;
use llamac_runtime::{Generator, OpenOptions, ProfileTable, Program, Region};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// A compiled language model: generates text.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Print what this program was made of, as JSON, and stop
    #[arg(long)]
    info: bool,
    /// Generation.
    #[command(flatten)]
    generate: GenerateArgs,
    /// Threads.
    #[command(flatten)]
    threads: ThreadArgs,
}

/// Runs the artifact that the executable carries.
pub fn main() -> ExitCode {
    match carried(&Cli::parse()) {
        Ok(code) => code,
        Err(Failure(message)) => {
            say(format_args!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn carried(cli: &Cli) -> Result<ExitCode> {
    let start = Instant::now();
    let path = Program::carried().ok_or_else(|| {
        failure("this runner carries no artifact: `llamac compile MODEL --emit exe -o FILE` puts one behind it")
    })?;
    let given = generate::check(&cli.generate)?;
    let program = open(&path, &threads::opening(cli.threads.no_mmap, cli.threads.threads)?)?;
    if cli.info {
        let all = describe(program.header(), program.manifest());
        output::print(&format!("{}\n", serde_json::to_string_pretty(&all).unwrap_or_default()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (code, profile) = run(&program, given, &cli.generate, &cli.threads, start)?;
    if let Some(profile) = profile {
        say(format_args!("\n{}", table(&profile).trim_end()));
    }
    Ok(code)
}

/// Opens an artifact; says on stderr where huge pages were refused.
///
/// # Errors
/// Whatever is wrong with the file.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Program> {
    let program = Program::open_with(path, options)?;
    warn_of_pages(program.executable().weights());
    Ok(program)
}

/// Says on stderr where weights in memory of their own did not get the huge pages that were asked for.
pub fn warn_of_pages(weights: &Region) {
    if let Some(shortage) = Shortage::of("the weights", weights) {
        warn(shortage);
    }
}

/// Says on stderr where weights of so many bytes, still to be read, and the states of so many sessions are more than the
/// memory that is available.
pub fn warn_of_memory(program: &llamac_formats::program::Program, weights: usize, sessions: usize) {
    if let Some(scarcity) = Scarcity::of(weights, state_bytes(program).saturating_mul(sessions)) {
        warn(scarcity);
    }
}

/// A session of an opened artifact, run as the options say.
///
/// # Errors
/// Threads, a tier or memory that cannot be had; a program that is no language model.
pub fn generator(program: &Program, options: &ThreadArgs) -> Result<Generator> {
    let tier = generate::tier(options.tier.as_deref())?;
    let pool = threads::pool(options.threads, options.pin)?;
    warn_of_memory(program.executable().program(), unread(program), 1);
    Ok(program.session_on(pool, tier)?)
}

/// Bytes of weights that are still to be read: none where they lie in memory of their own.
pub fn unread(program: &Program) -> usize {
    let weights = program.executable().weights();
    if weights.is_file() { weights.len() } else { 0 }
}

/// Generates from an opened artifact; `start` is when its opening began.
///
/// # Errors
/// Whatever stops it.
pub fn run(
    program: &Program,
    given: Given,
    args: &GenerateArgs,
    options: &ThreadArgs,
    start: Instant,
) -> Result<(ExitCode, Option<ProfileTable>)> {
    let tokenizer = program.tokenizer()?;
    let bounds = program.executable().program().bounds;
    generate::check_batch("--batch", given.at_once(args.batch), &bounds, program.path())?;
    let text = |text: &str| encode(text, program.path(), tokenizer);
    let vocab = program.executable().program().vocab;
    let prompts = given.prompts(text, program.bos(), vocab, bounds.tokens)?;
    let mut generator = generator(program, options)?;
    let source = Source { tokenizer, eos: program.eos(), load: start.elapsed(), compile: None };
    generate(&mut generator, &prompts, args, &source)
}

/// Header and manifest as one JSON object.
pub fn describe(header: &Header, manifest: &Manifest) -> serde_json::Value {
    let sections: Vec<_> = header
        .sections
        .iter()
        .map(|s| {
            let checksum = format!("{:016x}", s.checksum);
            json!({ "kind": s.kind.name(), "offset": s.offset, "bytes": s.bytes, "xxh3": checksum })
        })
        .collect();
    json!({
        "format": llamac_formats::artifact::FORMAT_VERSION,
        "bytes": header.bytes,
        "compiler": header.compiler,
        "target": header.target,
        "architecture": header.architecture,
        "features": header.features,
        "sections": sections,
        "manifest": manifest,
    })
}

fn table(profile: &ProfileTable) -> String {
    let mut text = String::from("| total ms | share % | calls | name | kind |\n| --: | --: | --: | --- | --- |\n");
    for row in &profile.rows {
        let ms = row.total.as_secs_f64() * 1e3;
        let _ = writeln!(text, "| {ms:.3} | {:.2} | {} | {} | {} |", row.share * 100.0, row.calls, row.name, row.kind);
    }
    text
}
