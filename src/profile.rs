//! Where the time of a model goes, and how near each part of it is to what the machine can do.
//!
//! Prefill and decode are measured apart, in rounds that alternate with unprofiled ones: their difference is what the
//! measuring costs. The first thread's time in each step, its waiting, and what is left over (checking inputs, waking
//! threads, the walk itself) add up to the time that passed.

use crate::work::{self, Amount};
use llamac_formats::program::Work;
use llamac_formats::{DType, Sizes};
use llamac_runtime::limits::Limits;
use llamac_runtime::profile::without_numbers;
use llamac_runtime::tiers::peak::Arithmetic;
use llamac_runtime::{EntryTimes, GenerateError, Generator, ThreadTrace, Tier};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What is measured: a prompt, then tokens one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// So many tokens at once.
    Prefill(usize),
    /// So many tokens after a prompt of so many.
    Decode(usize, usize),
}

impl Phase {
    /// `prefill`, `decode`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Prefill(_) => "prefill",
            Phase::Decode(..) => "decode",
        }
    }

    /// The sizes of the session's steps, in order.
    pub fn steps(self, generator: &Generator) -> Vec<Sizes> {
        match self {
            Phase::Prefill(tokens) => {
                let chunk = generator.chunk();
                let ends = (0..tokens).step_by(chunk).map(|at| (at, (at + chunk).min(tokens)));
                let last = |(at, end): (usize, usize)| {
                    let unseen = Sizes { rows: end - at, outputs: 0, tokens: end };
                    let wanted = end == tokens || !generator.session().holds(&unseen);
                    Sizes { outputs: usize::from(wanted), ..unseen }
                };
                ends.map(last).collect()
            }
            Phase::Decode(depth, tokens) => {
                (0..tokens).map(|i| Sizes { rows: 1, outputs: 1, tokens: depth + i + 1 }).collect()
            }
        }
    }

    /// Puts the generator where the phase begins.
    fn prepare(self, generator: &mut Generator, prompt: &[u32]) -> Result<(), GenerateError> {
        generator.clear();
        if let Phase::Decode(depth, _) = self
            && depth > 0
        {
            generator.prefill(0, &prompt[..depth])?;
        }
        Ok(())
    }

    fn run(self, generator: &mut Generator, prompt: &[u32]) -> Result<Duration, GenerateError> {
        let start = Instant::now();
        match self {
            Phase::Prefill(tokens) => {
                generator.prefill(0, &prompt[..tokens])?;
            }
            Phase::Decode(_, tokens) => {
                for &token in prompt.iter().cycle().take(tokens) {
                    generator.decode(&[(0, token)])?;
                }
            }
        }
        Ok(start.elapsed())
    }
}

/// What was measured of a phase.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Which.
    pub phase: Phase,
    /// Profiled rounds.
    pub rounds: usize,
    /// The time of the profiled rounds, all together.
    pub whole: Duration,
    /// The same by entry of the program.
    pub entries: Vec<EntryTimes>,
    /// What profiling costs: the median profiled round over the median unprofiled one, less 1. Noise makes it negative.
    pub overhead: f64,
}

/// Measures a phase in rounds of unprofiled and profiled runs in turn; one unprofiled run warms up.
///
/// # Errors
/// A prompt that the generator refuses.
pub fn measure(
    generator: &mut Generator,
    phase: Phase,
    prompt: &[u32],
    rounds: usize,
) -> Result<Measured, GenerateError> {
    let steps = generator.session().program().entries.iter().map(|e| e.steps.len());
    let zero = |n: usize| EntryTimes {
        runs: 0,
        whole: Duration::ZERO,
        steps: vec![Duration::ZERO; n],
        waiting: Duration::ZERO,
        meetings: 0,
    };
    let mut entries: Vec<EntryTimes> = steps.map(zero).collect();
    let (mut plain, mut profiled) = (vec![], vec![]);
    phase.prepare(generator, prompt)?;
    phase.run(generator, prompt)?;
    for round in 0..rounds.max(1) {
        // Which goes first alternates too.
        for on in [round % 2 == 0, round % 2 == 1] {
            phase.prepare(generator, prompt)?;
            generator.session_mut().set_profiling(on);
            let time = phase.run(generator, prompt);
            let times = generator.session().times();
            generator.session_mut().set_profiling(false);
            let time = time?;
            if !on {
                plain.push(time);
                continue;
            }
            profiled.push(time);
            for (sum, one) in entries.iter_mut().zip(&times) {
                sum.runs += one.runs;
                sum.whole += one.whole;
                sum.waiting += one.waiting;
                sum.meetings += one.meetings;
                sum.steps.iter_mut().zip(&one.steps).for_each(|(s, o)| *s += *o);
            }
        }
    }
    let whole = profiled.iter().sum();
    let median = |mut all: Vec<Duration>| {
        all.sort_unstable();
        all[all.len() / 2].as_secs_f64()
    };
    let overhead = median(profiled.clone()) / median(plain).max(f64::MIN_POSITIVE) - 1.0;
    Ok(Measured { phase, rounds: profiled.len(), whole, entries, overhead })
}

/// What every thread did in one run of a phase.
///
/// # Errors
/// As [`measure`].
pub fn trace(generator: &mut Generator, phase: Phase, prompt: &[u32]) -> Result<Vec<ThreadTrace>, GenerateError> {
    const MOST_EVENTS: usize = 4 << 20;
    phase.prepare(generator, prompt)?;
    let steps = generator.session().program().entries.iter().map(|e| e.steps.len()).max().unwrap_or(0);
    let events = phase.steps(generator).len().saturating_mul(2 * steps + 1).min(MOST_EVENTS);
    generator.session_mut().trace(events);
    let done = phase.run(generator, prompt);
    let traced = generator.session().traced();
    generator.session_mut().set_profiling(false);
    done.map(|_| traced)
}

/// What lines are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Layer groups, and the kernels in them.
    Tree,
    /// Single layers.
    Layer,
    /// Kinds of work.
    Kind,
    /// Kernels, layers added up.
    Kernel,
}

/// A line of the profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// 0 for the phase, 1 for what it consists of, 2 for what those consist of.
    pub depth: usize,
    /// What it is about.
    pub name: String,
    /// The kind of work, where it is one.
    pub kind: String,
    /// How often its steps ran; for `waiting` how often threads met.
    pub calls: u64,
    /// Time of the first thread.
    pub total: Duration,
    /// Bytes and operations.
    pub amount: Amount,
    /// Seconds that the machine needs for the bytes.
    pub memory: f64,
    /// Seconds that the machine needs for the operations.
    pub compute: f64,
    /// The sum, over the steps, of the longer of both.
    pub least: f64,
    /// What limits most of it: a level of memory or a kind of arithmetic.
    pub limit: String,
}

impl Line {
    fn new(depth: usize, name: String) -> Line {
        Line {
            depth,
            name,
            kind: String::new(),
            calls: 0,
            total: Duration::ZERO,
            amount: Amount::default(),
            memory: 0.0,
            compute: 0.0,
            least: 0.0,
            limit: String::new(),
        }
    }

    fn add(&mut self, part: &Line) {
        // The limit of the part that the machine needs longest for.
        if part.least > self.least || self.limit.is_empty() {
            self.limit.clone_from(&part.limit);
        }
        self.kind = match (self.kind.as_str(), self.calls) {
            ("", 0) => part.kind.clone(),
            (same, _) if same == part.kind => part.kind.clone(),
            _ => String::new(),
        };
        self.calls += part.calls;
        self.total += part.total;
        self.amount.add(part.amount);
        self.memory += part.memory;
        self.compute += part.compute;
        self.least += part.least;
    }
}

/// The lines of a phase: the phase, then its parts, longest first; those of depth 1 add up to it, those of depth 2 to the one
/// above. `waiting` and `rest` come last.
pub fn lines(generator: &Generator, measured: &Measured, limits: &Limits, by: By) -> Vec<Line> {
    let steps = steps(generator, measured, limits);
    let mut waiting = Line::new(1, "waiting".to_owned());
    for entry in &measured.entries {
        waiting.calls += entry.meetings;
        waiting.total += entry.waiting;
    }
    let mut groups: Vec<(Line, Vec<Line>)> = vec![];
    let mut index: HashMap<String, usize> = HashMap::new();
    for step in &steps {
        let kernel = without_numbers(&step.name);
        let group = match by {
            By::Tree => group(&kernel),
            By::Layer => group(&step.name),
            By::Kind => step.kind.clone(),
            By::Kernel => kernel.clone(),
        };
        let at = *index.entry(group.clone()).or_insert_with(|| {
            groups.push((Line::new(1, group), vec![]));
            groups.len() - 1
        });
        let (sum, parts) = &mut groups[at];
        sum.add(step);
        if by == By::Tree {
            let same = parts.iter().position(|p| p.name == kernel).unwrap_or_else(|| {
                parts.push(Line::new(2, kernel));
                parts.len() - 1
            });
            parts[same].add(step);
        }
    }
    groups.sort_by_key(|g| std::cmp::Reverse(g.0.total));
    let mut phase = Line::new(0, measured.phase.name().to_owned());
    groups.iter().for_each(|g| phase.add(&g.0));
    phase.kind.clear();
    let mut rest = Line::new(1, "rest".to_owned());
    rest.total = measured.whole.saturating_sub(phase.total + waiting.total);
    phase.calls = measured.entries.iter().map(|e| e.runs).sum();
    rest.calls = phase.calls;
    phase.total = measured.whole;
    let mut lines = vec![phase];
    for (sum, mut parts) in groups {
        parts.sort_by_key(|p| std::cmp::Reverse(p.total));
        lines.push(sum);
        lines.extend(parts);
    }
    lines.extend([waiting, rest]);
    lines
}

/// Every step of every entry that ran, once: its time and its amount over all runs.
pub fn steps(generator: &Generator, measured: &Measured, limits: &Limits) -> Vec<Line> {
    let session = generator.session();
    let program = session.program();
    let threads = session.pool().threads();
    let runs = measured.phase.steps(generator);
    let mut lines = vec![];
    for (index, (entry, times)) in program.entries.iter().zip(&measured.entries).enumerate() {
        let sizes: Vec<&Sizes> = runs.iter().filter(|s| session.entry(s) == Some(index)).collect();
        let Some(last) = sizes.last() else { continue };
        let level =
            limits.level_for(usize::try_from(work::lasting(program, entry, last)).unwrap_or(usize::MAX), threads);
        for (step, total) in entry.steps.iter().zip(&times.steps) {
            let mut line = Line::new(2, step.name.clone());
            line.kind.clone_from(&step.kind);
            line.calls = times.runs;
            line.total = *total;
            let arithmetic = arithmetic(session.tier(), &step.work, last);
            let peak = limits.peak_of(arithmetic, threads).unwrap_or(f64::INFINITY) * 1e9;
            let speed = |level: &str| limits.bandwidth_of(level, threads).unwrap_or(f64::INFINITY) * 1e9;
            let mut near = level;
            for sizes in &sizes {
                let one = work::of(program, step, sizes);
                near = limits.level_for(usize::try_from(one.passing).unwrap_or(usize::MAX), threads);
                let memory = one.lasting as f64 / speed(level) + one.passing as f64 / speed(near);
                let compute = one.operations as f64 / peak;
                line.amount.add(one);
                line.memory += memory;
                line.compute += compute;
                line.least += memory.max(compute);
            }
            let rounds = measured.rounds as u64;
            line.amount.lasting *= rounds;
            line.amount.passing *= rounds;
            line.amount.operations *= rounds;
            line.memory *= rounds as f64;
            line.compute *= rounds as f64;
            line.least *= rounds as f64;
            let most = if line.amount.lasting >= line.amount.passing { level } else { near };
            line.limit = if line.compute > line.memory { arithmetic.name() } else { most }.to_owned();
            lines.push(line);
        }
    }
    lines
}

/// What a step of these sizes could compute with: compiled kernels have 128-bit vectors, the runtime's routines the tier's, or
/// dot products of bytes, or tiles, where the activations are of their kind.
pub fn arithmetic(tier: Tier, work: &Work, sizes: &Sizes) -> Arithmetic {
    let (bytes, tiles) = (matches!(tier, Tier::Avx512Vnni | Tier::Amx), tier == Tier::Amx);
    match work {
        Work::Rows(_) => compiled(),
        Work::Gemm(g) if tiles && g.act != DType::F32 && g.m.value(sizes) > 1 => Arithmetic::Bf16Tiles,
        Work::Gemm(g) if bytes && g.act == DType::Q8 => Arithmetic::Int8Fours,
        Work::Attention(a) if tiles && a.act == DType::BF16 && sizes.rows > 1 => Arithmetic::Bf16Tiles,
        _ => vectors(tier),
    }
}

fn compiled() -> Arithmetic {
    if Arithmetic::F32Fused128.available() { Arithmetic::F32Fused128 } else { Arithmetic::F32(Tier::Portable) }
}

fn vectors(tier: Tier) -> Arithmetic {
    Arithmetic::F32(if matches!(tier, Tier::Avx512Vnni | Tier::Amx) { Tier::Avx512 } else { tier })
}

/// Every kind that [`arithmetic`] can name for a tier.
pub fn kinds(tier: Tier) -> Vec<Arithmetic> {
    let mut kinds = vec![compiled(), vectors(tier)];
    if matches!(tier, Tier::Avx512Vnni | Tier::Amx) {
        kinds.push(Arithmetic::Int8Fours);
    }
    if tier == Tier::Amx {
        kinds.push(Arithmetic::Bf16Tiles);
    }
    kinds
}

/// `layers.*.attn.q_norm rmsnorm` → `layers.*`; `head` → `head`.
fn group(name: &str) -> String {
    let origin = name.split(' ').next().unwrap_or(name);
    let mut parts = origin.split('.');
    let first = parts.next().unwrap_or(origin);
    let numbered = |p: &str| p == "*" || (!p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    match parts.next() {
        Some(number) if numbered(number) => format!("{first}.{number}"),
        _ => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::group;

    #[test]
    fn groups() {
        assert_eq!(group("layers.*.attn.q_norm rmsnorm"), "layers.*");
        assert_eq!(group("layers.12.mlp.down"), "layers.12");
        assert_eq!(group("head"), "head");
        assert_eq!(group("embed gather"), "embed");
    }
}
