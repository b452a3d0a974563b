//! `llamac bench`: prefill and decode speed of models and artifacts, beside the bandwidth of this machine.

mod build;
mod report;

use super::args::BenchArgs;
use super::tokens::tokens;
use super::{Result, failure, output, say, setup};
use llamac::compile;
use llamac_runtime::{GenerateError, Generator, Row, limits};
use report::Report;
use std::process::ExitCode;
use std::time::Instant;

/// Read to measure bandwidth: far more than any cache keeps.
const BANDWIDTH_BYTES: usize = 1 << 30;

/// One line of the results.
struct Test {
    build: usize,
    pool: usize,
    prompt: usize,
    generate: usize,
    depth: usize,
    /// Run together.
    sequences: usize,
    /// Tokens per second of all sequences together.
    samples: Vec<f64>,
}

impl Test {
    /// Tokens that it counts, of all sequences together.
    fn tokens(&self) -> usize {
        (self.prompt + self.generate) * self.sequences
    }

    /// Steps of a program with chunks of so many rows: a step of decode has a row of each sequence.
    fn steps(&self, chunk: usize) -> usize {
        if self.prompt > 0 { self.tokens().div_ceil(chunk.max(1)) } else { self.generate }
    }

    /// As llama-bench has it: `pp512`, `tg128 @ d1024`.
    fn label(&self) -> String {
        let what = if self.prompt > 0 { format!("pp{}", self.prompt) } else { format!("tg{}", self.generate) };
        if self.depth > 0 { format!("{what} @ d{}", self.depth) } else { what }
    }
}

/// Measures every combination in turn, repetition after repetition.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    if args.repetitions == 0 {
        return Err(failure("-r: found 0, expected at least 1 repetition"));
    }
    let tests = |list: &[usize]| list.iter().copied().filter(|&n| n > 0).collect::<Vec<_>>();
    let (prompts, generates) = (tests(&args.prompt), tests(&args.generate));
    if prompts.is_empty() && generates.is_empty() {
        return Err(failure("-p 0 -n 0: nothing to measure: expected a prompt length or tokens to generate"));
    }
    let tier = setup::tier(args.tier.as_deref())?;
    let most = |list: &[usize]| list.iter().copied().max().unwrap_or(0);
    let needed = most(&prompts).max(most(&generates)).saturating_add(most(&args.depth));
    let threads: Vec<Option<usize>> =
        if args.threads.is_empty() { vec![None] } else { args.threads.iter().map(|&t| Some(t)).collect() };
    let pools = threads.iter().map(|&t| setup::pool(t, args.pin)).collect::<Result<Vec<_>>>()?;
    let mut builds = build::all(args, needed, &pools, tier)?;
    let bandwidths = pools
        .iter()
        .map(|p| limits::read_bandwidth(p, BANDWIDTH_BYTES, 3).map_err(compile::CompileError::Threads))
        .collect::<Result<Vec<f64>, _>>()?;

    let mut tests = vec![];
    for build in 0..builds.len() {
        for pool in 0..pools.len() {
            for &depth in &args.depth {
                for &sequences in &args.batch {
                    let all = prompts.iter().map(|&p| (p, 0)).chain(generates.iter().map(|&n| (0, n)));
                    tests.extend(all.map(|(prompt, generate)| Test {
                        build,
                        pool,
                        prompt,
                        generate,
                        depth,
                        sequences,
                        samples: vec![],
                    }));
                }
            }
        }
    }
    // Tests alternate, so that what else the machine does falls on all of them alike; the first round warms up.
    tests.sort_by_key(|t| (t.pool, t.depth, t.prompt == 0, t.prompt, t.generate, t.sequences));
    for round in 0..=args.repetitions {
        for test in &mut tests {
            let speed = measure(&mut builds[test.build].generators[test.pool], test, round == 0)?;
            if round > 0 {
                test.samples.push(speed);
            }
        }
    }
    let report = Report { args, builds: &builds, pools: &pools, bandwidths: &bandwidths, tier };
    output::print(&report.render(&tests))?;
    for build in &builds {
        let memory = build.generators.first().map(|g| setup::threads::memory(g.session()));
        say(format_args!("{}: {}", build.name, memory.unwrap_or_default()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Tokens per second of one test.
fn measure(generator: &mut Generator, test: &Test, warm_up: bool) -> Result<f64> {
    let mut tokens = tokens(generator.tokens());
    generator.clear();
    if test.depth > 0 {
        let depth: Vec<u32> = tokens.by_ref().take(test.depth).collect();
        generator.prefill(0, &depth)?;
        // What the tokens are makes no difference to the time, only that each sequence has its own memory.
        for slot in 1..test.sequences {
            generator.fork(0, slot)?;
        }
    }
    if test.prompt > 0 {
        let prompts: Vec<u32> = tokens.take(test.tokens()).collect();
        let start = Instant::now();
        match test.sequences {
            1 => drop(generator.prefill(0, &prompts)?),
            _ => prefill_together(generator, &prompts, test)?,
        }
        return Ok(test.tokens() as f64 / start.elapsed().as_secs_f64());
    }
    // A few tokens warm up what a whole round would.
    let count = if warm_up { test.generate.min(4) } else { test.generate };
    let mut rows = vec![(0, 0); test.sequences];
    let start = Instant::now();
    for _ in 0..count {
        for (slot, (row, token)) in rows.iter_mut().zip(tokens.by_ref()).enumerate() {
            *row = (slot, token);
        }
        generator.decode(&rows)?;
    }
    Ok((count * test.sequences) as f64 / start.elapsed().as_secs_f64())
}

/// Appends a prompt to each sequence, in steps as full as a chunk.
fn prefill_together(generator: &mut Generator, prompts: &[u32], test: &Test) -> Result<(), GenerateError> {
    let row = |(i, &token)| Row { slot: i / test.prompt, token, position: test.depth + i % test.prompt };
    let rows: Vec<Row> = prompts.iter().enumerate().map(row).collect();
    let last = test.depth + test.prompt - 1;
    let mut wanted = Vec::with_capacity(test.sequences);
    for step in rows.chunks(generator.chunk()) {
        wanted.clear();
        wanted.extend((0..step.len()).filter(|&i| step[i].position == last));
        generator.step_rows(step, &wanted)?;
    }
    Ok(())
}
