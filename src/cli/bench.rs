//! `llamac bench`: prefill and decode speed, beside the bandwidth of this machine.

use super::args::{BenchArgs, FusionArg, TableFormat};
use super::progress::Progress;
use super::table::{Table, pretty, rounded};
use super::{Result, failure, output, setup};
use clap::ValueEnum;
use llamac::compile::{self, Compiled};
use llamac::model::Model;
use llamac::traffic;
use llamac_formats::program::{Program, Work};
use llamac_formats::{PanelLayout, Sizes};
use llamac_runtime::{Generator, Pool, Region, Tier, limits};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;
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
    samples: Vec<f64>,
}

impl Test {
    /// As llama-bench has it: `pp512`, `tg128 @ d1024`.
    fn label(&self) -> String {
        let what = if self.prompt > 0 { format!("pp{}", self.prompt) } else { format!("tg{}", self.generate) };
        if self.depth > 0 { format!("{what} @ d{}", self.depth) } else { what }
    }
}

struct Build {
    fusion: FusionArg,
    compiled: Compiled,
    /// One per thread count.
    generators: Vec<Generator>,
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
    let model = open(args, &prompts, &generates)?;
    let threads: Vec<Option<usize>> =
        if args.threads.is_empty() { vec![None] } else { args.threads.iter().map(|&t| Some(t)).collect() };
    let pools = threads.iter().map(|&t| setup::pool(t)).collect::<Result<Vec<_>>>()?;
    let mut builds = builds(args, &model, &pools, tier)?;
    let bandwidths = pools
        .iter()
        .map(|p| limits::read_bandwidth(p, BANDWIDTH_BYTES, 3).map_err(compile::CompileError::Threads))
        .collect::<Result<Vec<f64>, _>>()?;

    let mut tests = vec![];
    for build in 0..builds.len() {
        for pool in 0..pools.len() {
            for &depth in &args.depth {
                let all = prompts.iter().map(|&p| (p, 0)).chain(generates.iter().map(|&n| (0, n)));
                tests.extend(all.map(|(prompt, generate)| Test {
                    build,
                    pool,
                    prompt,
                    generate,
                    depth,
                    samples: vec![],
                }));
            }
        }
    }
    // Tests alternate, so that what else the machine does falls on all of them alike; the first round warms up.
    tests.sort_by_key(|t| (t.pool, t.depth, t.prompt == 0, t.prompt, t.generate));
    for round in 0..=args.repetitions {
        for test in &mut tests {
            let speed = measure(&mut builds[test.build].generators[test.pool], test, round == 0)?;
            if round > 0 {
                test.samples.push(speed);
            }
        }
    }
    let report = Report { args, model: &model, builds: &builds, pools: &pools, bandwidths: &bandwidths, tier };
    output::print(&report.render(&tests))?;
    Ok(ExitCode::SUCCESS)
}

/// The model with a context that holds every test.
fn open(args: &BenchArgs, prompts: &[usize], generates: &[usize]) -> Result<Model> {
    let most = |list: &[usize]| list.iter().copied().max().unwrap_or(0);
    let needed = most(prompts).max(most(generates)).saturating_add(most(&args.depth));
    let path = args.model.model.as_deref().or(args.model.model_flag.as_deref());
    let mut compile = args.compile.clone();
    let too_long = |has: usize| {
        failure(format!(
            "the longest test takes {needed} tokens (-p or -n, after -d), the context has {has}: make it shorter"
        ))
    };
    match compile.context {
        None => compile.context = Some(needed),
        Some(given) if given < needed => {
            return Err(failure(format!(
                "-c: found {given}, expected at least the {needed} tokens of the longest test"
            )));
        }
        Some(_) => {}
    }
    if path.is_some_and(|p| p.is_file()) {
        // A text graph has its own context.
        compile.context = args.compile.context;
    }
    if let Some(directory) = path.filter(|p| p.is_dir()) {
        let longest = llamac_models::ModelDir::open(directory)?.config().context;
        if needed > longest {
            return Err(too_long(longest));
        }
    }
    let model = setup::open(&args.model, &compile, None)?;
    setup::check_generates(&model)?;
    if needed > model.graph.bounds.tokens {
        return Err(too_long(model.graph.bounds.tokens));
    }
    Ok(model)
}

fn builds(args: &BenchArgs, model: &Model, pools: &[Arc<Pool>], tier: Tier) -> Result<Vec<Build>> {
    let mut builds: Vec<Build> = vec![];
    let mut packed: Vec<(usize, Arc<Region>)> = vec![];
    for &fusion in &args.fusion {
        let options = setup::options(fusion, &args.compile)?;
        let compiled = compile::compile(model.graph.clone(), &options, false)?;
        // Builds that want the same bytes share them.
        let same =
            packed.iter().find(|(b, _)| builds[*b].compiled.code.program.weights == compiled.code.program.weights);
        let weights = match same {
            Some((_, weights)) => Arc::clone(weights),
            None => {
                let mut progress = Progress::new("packing weights");
                let threads = pools.iter().map(|p| p.threads()).max().unwrap_or(1);
                let (weights, report) =
                    compile::pack_weights(&compiled, model, threads, &mut |done, all| progress.update(done, all))?;
                drop(progress);
                if packed.is_empty() {
                    setup::warn_of_numbers(model, &report);
                }
                packed.push((builds.len(), Arc::clone(&weights)));
                weights
            }
        };
        let generators = pools
            .iter()
            .map(|pool| {
                let session = compile::session(&compiled, Arc::clone(&weights), Arc::clone(pool), tier)?;
                setup::generator(model, session)
            })
            .collect::<Result<Vec<_>>>()?;
        builds.push(Build { fusion, compiled, generators });
    }
    Ok(builds)
}

/// Tokens per second of one test.
fn measure(generator: &mut Generator, test: &Test, warm_up: bool) -> Result<f64> {
    let vocab = generator.tokens() as u64;
    let mut state = 1u64;
    let mut token = || {
        // Pseudo-random, the same in every run: Knuth's MMIX constants.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab) as u32
    };
    generator.clear();
    if test.depth > 0 {
        let depth: Vec<u32> = (0..test.depth).map(|_| token()).collect();
        generator.prefill(0, &depth)?;
    }
    if test.prompt > 0 {
        let prompt: Vec<u32> = (0..test.prompt).map(|_| token()).collect();
        let start = Instant::now();
        generator.prefill(0, &prompt)?;
        return Ok(test.prompt as f64 / start.elapsed().as_secs_f64());
    }
    // A few tokens warm up what a whole round would.
    let count = if warm_up { test.generate.min(4) } else { test.generate };
    let start = Instant::now();
    for _ in 0..count {
        let next = token();
        generator.decode(&[(0, next)])?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

struct Report<'a> {
    args: &'a BenchArgs,
    model: &'a Model,
    builds: &'a [Build],
    pools: &'a [Arc<Pool>],
    bandwidths: &'a [f64],
    tier: Tier,
}

impl Report<'_> {
    fn render(&self, tests: &[Test]) -> String {
        match self.args.format {
            TableFormat::Json => {
                format!("{}\n", pretty(&Value::Array(tests.iter().map(|t| self.record(t)).collect())))
            }
            TableFormat::Jsonl => tests.iter().map(|t| format!("{}\n", self.record(t))).collect(),
            format => {
                let mut out = self.speeds(tests).render(format);
                // Two tables in one stream are for people only; JSON has everything.
                if self.builds.len() > 1 && format == TableFormat::Md {
                    out.push('\n');
                    out.push_str(&self.comparison(tests).render(format));
                }
                out
            }
        }
    }

    /// Weight bytes that a step of one row reads, over what memory gives in that time. Weights that caches may hold say
    /// nothing about memory.
    fn share(&self, test: &Test) -> Option<f64> {
        const CACHED: usize = 256 << 20;
        let bytes = decode_bytes(&self.builds[test.build].compiled.code.program);
        (test.generate > 0 && bytes > CACHED)
            .then(|| mean(&test.samples) * bytes as f64 / 1e9 / self.bandwidths[test.pool])
    }

    fn record(&self, test: &Test) -> Value {
        let build = &self.builds[test.build];
        let program = &build.compiled.code.program;
        json!({
            "model_filename": self.model.path.display().to_string(),
            "model_size": program.weights.iter().map(|w| w.bytes).sum::<usize>(),
            "n_threads": self.pools[test.pool].threads(),
            "n_prompt": test.prompt,
            "n_gen": test.generate,
            "n_depth": test.depth,
            "avg_ts": mean(&test.samples),
            "stddev_ts": deviation(&test.samples),
            "samples_ts": test.samples,
            "fusion": name(build.fusion),
            "tier": self.tier.name(),
            "act": program.act,
            "kv": program.kv,
            "bandwidth_gbs": self.bandwidths[test.pool],
            "bandwidth_share": self.share(test),
            "kernels": program.kernels.len(),
            "barriers": self.barriers(build, test),
            "arena_bytes": self.arena(build),
            "bytes_outside_gemms": self.moved(build, test),
        })
    }

    fn speeds(&self, tests: &[Test]) -> Table {
        let columns =
            ["model", "fusion", "tier", "threads", "test", "t/s", "±", "read GB/s", "share of it in decode %"];
        let mut table = Table::new(&columns);
        for t in tests {
            let what = t.label();
            table.row(vec![
                json!(self.model.name),
                json!(name(self.builds[t.build].fusion)),
                json!(self.tier.name()),
                json!(self.pools[t.pool].threads()),
                json!(what),
                rounded(mean(&t.samples), 2),
                rounded(deviation(&t.samples), 2),
                rounded(self.bandwidths[t.pool], 1),
                self.share(t).map_or(Value::Null, |s| rounded(s * 100.0, 1)),
            ]);
        }
        table
    }

    /// The builds side by side.
    fn comparison(&self, tests: &[Test]) -> Table {
        let columns = [
            "fusion",
            "kernels",
            "barriers decode",
            "barriers rows",
            "arena bytes",
            "test",
            "bytes outside GEMMs",
            "median t/s",
            "times none",
        ];
        let mut table = Table::new(&columns);
        for t in tests {
            let build = &self.builds[t.build];
            let baseline = tests.iter().find(|o| {
                self.builds[o.build].fusion == FusionArg::None
                    && (o.pool, o.prompt, o.generate, o.depth) == (t.pool, t.prompt, t.generate, t.depth)
            });
            let what = t.label();
            let entry = |n: &str| {
                let entry = build.compiled.plan.entries.iter().find(|e| e.name == n);
                entry.map_or(Value::Null, |e| json!(e.steps.iter().filter(|s| s.barrier).count()))
            };
            table.row(vec![
                json!(name(build.fusion)),
                json!(build.compiled.code.program.kernels.len()),
                entry("decode"),
                entry("rows"),
                json!(self.arena(build)),
                json!(format!("{what} t{}", self.pools[t.pool].threads())),
                json!(self.moved(build, t)),
                rounded(median(&t.samples), 2),
                baseline.map_or(Value::Null, |b| rounded(median(&t.samples) / median(&b.samples), 2)),
            ]);
        }
        table
    }

    fn entry<'b>(&self, build: &'b Build, test: &Test) -> Option<&'b llamac_passes::plan::EntryPlan> {
        let name = if test.prompt > 1 { "rows" } else { "decode" };
        build.compiled.plan.entries.iter().find(|e| e.name == name).or(build.compiled.plan.entries.first())
    }

    fn barriers(&self, build: &Build, test: &Test) -> usize {
        self.entry(build, test).map_or(0, |e| e.steps.iter().filter(|s| s.barrier).count())
    }

    fn arena(&self, build: &Build) -> usize {
        build.compiled.plan.entries.iter().map(|e| e.arena_bytes).max().unwrap_or(0)
    }

    /// Of one step: a prompt as far as it fits a chunk, or one token after all others.
    fn moved(&self, build: &Build, test: &Test) -> usize {
        let rows = test.prompt.clamp(1, self.model.graph.bounds.rows);
        let tokens = test.depth + if test.prompt > 0 { rows } else { test.generate };
        let sizes = Sizes { rows, outputs: 1, tokens };
        self.entry(build, test).map_or(0, |e| traffic::outside_gemms(e, &sizes))
    }
}

/// Bytes of packed weights that the GEMMs of one row read.
fn decode_bytes(program: &Program) -> usize {
    let Some(entry) = program.entries.first() else { return 0 };
    let gemms = entry.steps.iter().filter_map(|s| match &s.work {
        Work::Gemm(g) => Some(g),
        _ => None,
    });
    gemms
        .flat_map(|g| {
            g.segments.iter().map(|s| PanelLayout { dtype: program.weights[s.weight].dtype, k: g.k }.matrix_bytes(s.n))
        })
        .sum()
}

fn name(fusion: FusionArg) -> String {
    fusion.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}

fn mean(v: &[f64]) -> f64 {
    v.iter().sum::<f64>() / v.len().max(1) as f64
}

/// Of the sample, as llama-bench has it.
fn deviation(v: &[f64]) -> f64 {
    if v.len() < 2 {
        return 0.0;
    }
    let m = mean(v);
    (v.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (v.len() - 1) as f64).sqrt()
}

fn median(v: &[f64]) -> f64 {
    let mut v = v.to_vec();
    v.sort_by(f64::total_cmp);
    match v.len() {
        0 => 0.0,
        n if n % 2 == 1 => v[n / 2],
        n => (v[n / 2 - 1] + v[n / 2]) / 2.0,
    }
}
