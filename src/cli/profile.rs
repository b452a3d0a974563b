//! `llamac profile`: where the time goes, beside what the machine can do.

use super::args::{CompileArgs, FusionArgs, ModelArgs, TableFormat, ThreadArgs};
use super::setup::{self, Ready};
use super::table::{Table, rounded};
use super::tokens::tokens;
use super::{Result, artifact, failure, output, say, warn};
use clap::{Args, ValueEnum};
use llamac::machine::{self, date, saved_path};
use llamac::profile::{self, By, Line, Measured, Phase};
use llamac::trace::{Traced, chrome};
use llamac_runtime::Generator;
use llamac_runtime::limits::{Limits, Scope};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// `profile`.
#[derive(Debug, Args)]
#[command(
    after_help = "Lines of depth 1 add up to their phase, lines of depth 2 to the one above; `waiting` and `rest` are what is left
over. `limit` is what bounds a line most, a level of memory or a kind of arithmetic, and `of limit` how near it comes. The
limits are those that `llamac machine` saved, else measured. `overhead` compares with unprofiled runs in between.

Examples:
  llamac profile examples/models/bard -p 64 -n 16
  llamac profile examples/models/bard -p 16 -n 4 --by kind --format csv
  llamac profile examples/models/bard -p 16 -n 4 -r 1 --trace target/bard.trace.json"
)]
pub struct ProfileArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Prompt length; 0 leaves prefill out [default: 512, or what the context holds]
    #[arg(short = 'p', long = "n-prompt", value_name = "N")]
    pub prompt: Option<usize>,
    /// Tokens to generate after it; 0 leaves decode out [default: 128, or what the context holds]
    #[arg(short = 'n', long = "n-gen", value_name = "N")]
    pub generate: Option<usize>,
    /// Repetitions
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5)]
    pub repetitions: usize,
    /// Add up by this in place of the tree
    #[arg(long, value_enum)]
    pub by: Option<ProfileBy>,
    /// Write what every thread did, for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Output
    #[arg(long, value_enum, default_value = "md")]
    pub format: TableFormat,
    /// Fusion.
    #[command(flatten)]
    pub fusion: FusionArgs,
    /// Compiling.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// Threads.
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// What `profile` adds up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileBy {
    /// Each layer
    Layer,
    /// Each kind of work
    Kind,
    /// Each kernel, layers added up
    Kernel,
}

/// Measures both phases and prints a line for each part of them.
pub fn run(args: &ProfileArgs) -> Result<ExitCode> {
    if args.repetitions == 0 {
        return Err(failure("-r: found 0, expected at least 1 repetition"));
    }
    if args.prompt == Some(0) && args.generate == Some(0) {
        return Err(failure("-p 0 -n 0: nothing to measure: expected a prompt length or tokens to generate"));
    }
    let opening = setup::opening(&args.threads)?;
    if let Some(program) = artifact::opened(&args.model, &args.compile, args.fusion.fusion, &opening)? {
        return profile(llamac_runner::artifact::generator(&program, &args.threads)?, args);
    }
    let options = setup::options(args.fusion.fusion, &args.compile)?;
    let model = setup::open(&args.model, &args.compile, None)?;
    setup::check_generates(&model)?;
    lengths(args, model.graph.bounds.tokens)?;
    let Ready { session, .. } = setup::ready(&model, &options, &args.compile, &args.threads)?;
    profile(setup::generator(&model, session)?, args)
}

/// Tokens of the prompt and tokens after it: 512 and 128 where they are not given, or what the context holds.
fn lengths(args: &ProfileArgs, context: usize) -> Result<(usize, usize)> {
    let generate =
        args.generate.unwrap_or_else(|| (context / 4).min(128).min(context.saturating_sub(args.prompt.unwrap_or(0))));
    let prompt = args.prompt.unwrap_or_else(|| context.saturating_sub(generate).min(512));
    if prompt.saturating_add(generate) > context {
        return Err(failure(format!(
            "-p {prompt} -n {generate}: the context holds {context} tokens: take fewer, or raise -c if the model allows it"
        )));
    }
    Ok((prompt, generate))
}

fn profile(mut generator: Generator, args: &ProfileArgs) -> Result<ExitCode> {
    let (prompt, generate) = lengths(args, generator.context())?;
    let session = generator.session();
    say(format_args!("{}: {}", session.program().name, setup::threads::described(session)));
    let limits = limits(&generator)?;
    let tokens: Vec<u32> = tokens(generator.tokens()).take(prompt.max(1)).collect();
    let phases = [(prompt > 0, Phase::Prefill(prompt)), (generate > 0, Phase::Decode(prompt, generate))];
    let phases: Vec<Phase> = phases.into_iter().filter(|p| p.0).map(|p| p.1).collect();
    let mut measured = vec![];
    for &phase in &phases {
        measured.push(profile::measure(&mut generator, phase, &tokens, args.repetitions)?);
    }
    if let Some(path) = &args.trace {
        let mut traced = vec![];
        for &phase in &phases {
            traced.push(Traced { phase: phase.name(), threads: profile::trace(&mut generator, phase, &tokens)? });
        }
        let lost: u64 = traced.iter().flat_map(|t| &t.threads).map(|t| t.lost).sum();
        if lost > 0 {
            warn(format!("--trace: {lost} events found no room: take fewer tokens with -n"));
        }
        let json = chrome(generator.session().program(), &traced).to_string();
        machine::write_atomically(path, json.as_bytes())
            .map_err(|e| failure(format!("--trace: {}: {e}", path.display())))?;
        say(format_args!("trace: {}: open it in https://ui.perfetto.dev", path.display()));
    }
    output::print(&render(&generator, &measured, &limits, args))?;
    say(setup::threads::memory(generator.session()));
    Ok(ExitCode::SUCCESS)
}

/// Saved by `llamac machine` where they are of this machine and know the threads, else measured now.
fn limits(generator: &Generator) -> Result<Limits> {
    let session = generator.session();
    let (threads, tier) = (session.pool().threads(), session.tier());
    let saved = saved_path().map_or(Ok(None), |p| machine::load(&p));
    let saved = saved.unwrap_or_else(|e| {
        warn(e);
        None
    });
    let kinds = profile::kinds(tier);
    let known = |l: &Limits| kinds.iter().all(|&kind| l.fits(threads, kind));
    if let Some(limits) = saved {
        if known(&limits) {
            say(format_args!("limits: {}, measured {}", limits.processor, date(limits.measured)));
            return Ok(limits);
        }
        say("limits: those that `llamac machine` saved are of another machine or other threads: measured anew");
    } else {
        say("limits: measured now; `llamac machine` saves them");
    }
    Ok(Limits::measure(&[session.pool()], Scope::Kinds(&kinds), &mut |_| {})?)
}

fn render(generator: &Generator, measured: &[Measured], limits: &Limits, args: &ProfileArgs) -> String {
    let by = match args.by {
        None => By::Tree,
        Some(ProfileBy::Layer) => By::Layer,
        Some(ProfileBy::Kind) => By::Kind,
        Some(ProfileBy::Kernel) => By::Kernel,
    };
    let columns = [
        "phase",
        "depth",
        "name",
        "kind",
        "calls",
        "total ms",
        "avg us",
        "share %",
        "MB",
        "MFLOP",
        "GB/s",
        "GFLOP/s",
        "limit",
        "of limit %",
        "overhead %",
    ];
    let mut table = Table::new(&columns);
    for one in measured {
        for line in profile::lines(generator, one, limits, by) {
            table.row(cells(&line, one, args.format));
        }
    }
    table.render(args.format)
}

fn cells(line: &Line, measured: &Measured, format: TableFormat) -> Vec<Value> {
    let seconds = line.total.as_secs_f64();
    let over = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let works = line.amount != Default::default();
    let of_work = |value: Value| if works { value } else { Value::Null };
    let indent = if format == TableFormat::Md { "· ".repeat(line.depth) } else { String::new() };
    vec![
        json!(measured.phase.name()),
        json!(line.depth),
        json!(format!("{indent}{}", line.name)),
        json!(line.kind),
        json!(line.calls),
        rounded(seconds * 1e3, 6),
        rounded(over(seconds * 1e6, line.calls as f64), 3),
        rounded(over(seconds, measured.whole.as_secs_f64()) * 100.0, 3),
        of_work(rounded(line.amount.bytes() as f64 / 1e6, 3)),
        of_work(rounded(line.amount.operations as f64 / 1e6, 3)),
        of_work(rounded(over(line.amount.bytes() as f64 / 1e9, seconds), 2)),
        of_work(rounded(over(line.amount.operations as f64 / 1e9, seconds), 2)),
        of_work(json!(line.limit)),
        of_work(rounded(over(line.least, seconds) * 100.0, 1)),
        if line.depth == 0 { rounded(measured.overhead * 100.0, 2) } else { Value::Null },
    ]
}
