//! The results as tables and records.

use super::super::args::{BenchArgs, TableFormat};
use super::super::table::{Table, pretty, rounded};
use super::Test;
use super::build::Build;
use llamac::traffic;
use llamac_formats::program::{Program, Work};
use llamac_formats::{PanelLayout, Sizes};
use llamac_runtime::program::state_bytes;
use llamac_runtime::{Pool, Tier};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that the results are told with.
pub(super) struct Report<'a> {
    pub(super) args: &'a BenchArgs,
    pub(super) builds: &'a [Build],
    pub(super) pools: &'a [Arc<Pool>],
    pub(super) bandwidths: &'a [f64],
    pub(super) tier: Tier,
}

impl Report<'_> {
    /// The results in the format asked for.
    pub(super) fn render(&self, tests: &[Test]) -> String {
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

    /// Milliseconds of a step on average: of decode, a row of every sequence; of prefill, a chunk.
    fn step_ms(&self, test: &Test) -> f64 {
        let steps = test.steps(self.builds[test.build].program.bounds.rows);
        test.tokens() as f64 / mean(&test.samples) / steps as f64 * 1e3
    }

    /// Weight bytes that a step of decode reads, over what memory gives in that time. Weights that caches may hold say
    /// nothing about memory.
    fn share(&self, test: &Test) -> Option<f64> {
        const CACHED: usize = 256 << 20;
        let bytes = decode_bytes(&self.builds[test.build].program);
        (test.generate > 0 && bytes > CACHED)
            .then(|| mean(&test.samples) / test.sequences as f64 * bytes as f64 / 1e9 / self.bandwidths[test.pool])
    }

    fn record(&self, test: &Test) -> Value {
        let build = &self.builds[test.build];
        let program = &build.program;
        json!({
            "model_filename": build.path.display().to_string(),
            "model_size": program.weights.iter().map(|w| w.bytes).sum::<usize>(),
            "n_threads": self.pools[test.pool].threads(),
            "pinned": self.pools[test.pool].is_pinned(),
            "n_prompt": test.prompt,
            "n_gen": test.generate,
            "n_depth": test.depth,
            "sequences": test.sequences,
            "avg_ts": mean(&test.samples),
            "avg_ts_each": mean(&test.samples) / test.sequences as f64,
            "ms_per_step": self.step_ms(test),
            "stddev_ts": deviation(&test.samples),
            "samples_ts": test.samples,
            "fusion": program.fusion,
            "tier": self.tier.name(),
            "act": program.act,
            "kv": program.kv,
            "memory": build.generators[test.pool].session().backing().into_iter().collect::<BTreeMap<_, _>>(),
            "bandwidth_gbs": self.bandwidths[test.pool],
            "bandwidth_share": self.share(test),
            "kernels": program.kernels.len(),
            "barriers": self.barriers(build, test),
            "arena_bytes": self.arena(build),
            "cache_bytes": cache_bytes(program, test.sequences),
            "bytes_outside_gemms": self.moved(build, test),
        })
    }

    fn speeds(&self, tests: &[Test]) -> Table {
        let columns = [
            "model",
            "fusion",
            "act",
            "kv",
            "tier",
            "threads",
            "pinned",
            "test",
            "sequences",
            "t/s",
            "±",
            "t/s each",
            "ms/step",
            "read GB/s",
            "share of it in decode %",
        ];
        let mut table = Table::new(&columns);
        for t in tests {
            let what = t.label();
            table.row(vec![
                self.model(&self.builds[t.build]),
                json!(self.builds[t.build].program.fusion),
                json!(self.builds[t.build].program.act),
                json!(self.builds[t.build].program.kv),
                json!(self.tier.name()),
                json!(self.pools[t.pool].threads()),
                json!(self.pools[t.pool].is_pinned()),
                json!(what),
                json!(t.sequences),
                rounded(mean(&t.samples), 2),
                rounded(deviation(&t.samples), 2),
                rounded(mean(&t.samples) / t.sequences as f64, 2),
                rounded(self.step_ms(t), 3),
                rounded(self.bandwidths[t.pool], 1),
                self.share(t).map_or(Value::Null, |s| rounded(s * 100.0, 1)),
            ]);
        }
        table
    }

    /// The model's name; where several were named, what was named.
    fn model(&self, build: &Build) -> Value {
        if self.several() { json!(build.path.display().to_string()) } else { json!(build.name) }
    }

    /// Whether several models or artifacts were named.
    fn several(&self) -> bool {
        self.builds.iter().any(|b| b.path != self.builds[0].path)
    }

    /// What the others are measured against: of one model the build without fusion, of several the first.
    fn is_baseline(&self, build: usize) -> bool {
        if self.several() { build == 0 } else { self.builds[build].program.fusion == "none" }
    }

    /// The builds side by side.
    fn comparison(&self, tests: &[Test]) -> Table {
        let columns = [
            "model",
            "fusion",
            "kernels",
            "barriers decode",
            "barriers rows",
            "arena bytes",
            "test",
            "sequences",
            "bytes outside GEMMs",
            "median t/s",
            if self.several() { "times the first" } else { "times none" },
        ];
        let mut table = Table::new(&columns);
        for t in tests {
            let build = &self.builds[t.build];
            let baseline = tests.iter().find(|o| {
                self.is_baseline(o.build)
                    && (o.pool, o.prompt, o.generate, o.depth, o.sequences)
                        == (t.pool, t.prompt, t.generate, t.depth, t.sequences)
            });
            let what = t.label();
            let entry = |n: &str| {
                let entry = build.program.entries.iter().find(|e| e.name == n);
                entry.map_or(Value::Null, |e| json!(e.steps.iter().filter(|s| s.barrier).count()))
            };
            table.row(vec![
                self.model(build),
                json!(build.program.fusion),
                json!(build.program.kernels.len()),
                entry("decode"),
                entry("rows"),
                json!(self.arena(build)),
                json!(format!("{what} t{}", self.pools[t.pool].threads())),
                json!(t.sequences),
                json!(self.moved(build, t)),
                rounded(median(&t.samples), 2),
                baseline.map_or(Value::Null, |b| rounded(median(&t.samples) / median(&b.samples), 2)),
            ]);
        }
        table
    }

    /// The entry that runs a test.
    fn entry(&self, build: &Build, test: &Test) -> usize {
        let name = if test.prompt.max(1) * test.sequences > 1 { "rows" } else { "decode" };
        build.program.entries.iter().position(|e| e.name == name).unwrap_or(0)
    }

    fn barriers(&self, build: &Build, test: &Test) -> usize {
        let entry = build.program.entries.get(self.entry(build, test));
        entry.map_or(0, |e| e.steps.iter().filter(|s| s.barrier).count())
    }

    fn arena(&self, build: &Build) -> usize {
        build.program.entries.iter().map(|e| e.arena_bytes).max().unwrap_or(0)
    }

    /// Of one step: prompts as far as they fit a chunk, or one token of each sequence after all others.
    fn moved(&self, build: &Build, test: &Test) -> Option<usize> {
        let rows = (test.prompt.max(1) * test.sequences).min(build.program.bounds.rows);
        let tokens = test.depth + if test.prompt > 0 { rows.min(test.prompt) } else { test.generate };
        let outputs = rows.checked_div(test.prompt).map_or(test.sequences, |ended| ended.max(1));
        let sizes = Sizes { rows, outputs, tokens };
        let entry = build.plan.as_ref()?.entries.get(self.entry(build, test))?;
        // Of prompts, as many as the chunk has rows of.
        let sequences = if test.prompt > 0 { rows.div_ceil(test.prompt) } else { test.sequences };
        Some(traffic::outside_gemms(entry, &sizes, sequences))
    }
}

/// Bytes of the states that so many sequences take, at the bound of their tokens.
fn cache_bytes(program: &Program, sequences: usize) -> usize {
    state_bytes(program) / program.bounds.slots.max(1) * sequences
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
