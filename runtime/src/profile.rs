//! Where the time of a session goes, step by step.
//!
//! The first thread notes the time at the end of each step and after each meeting of the threads. What it spent at
//! meetings is one line, `waiting`; what a step of the session took beyond its steps (checking inputs, waking threads) is
//! another, `rest`: the lines add up to the whole.

use llamac_formats::program::Program;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Times of one entry, written by the first thread alone while it runs.
pub(crate) struct Laps {
    steps: Vec<AtomicU64>,
    waiting: AtomicU64,
    meetings: AtomicU64,
    whole: AtomicU64,
    runs: AtomicU64,
}

fn add(cell: &AtomicU64, value: u64) {
    // One writer: no need for an atomic addition.
    cell.store(cell.load(Relaxed).wrapping_add(value), Relaxed);
}

impl Laps {
    fn new(steps: usize) -> Laps {
        let zero = AtomicU64::default;
        let steps = (0..steps).map(|_| zero()).collect();
        Laps { steps, waiting: zero(), meetings: zero(), whole: zero(), runs: zero() }
    }

    pub(crate) fn step(&self, step: usize, nanos: u64) {
        add(&self.steps[step], nanos);
    }

    pub(crate) fn waited(&self, nanos: u64) {
        add(&self.waiting, nanos);
        add(&self.meetings, 1);
    }

    pub(crate) fn ran(&self, nanos: u64) {
        add(&self.whole, nanos);
        add(&self.runs, 1);
    }
}

/// The times of a session since it was made or since they were last cleared.
pub(crate) struct Clock {
    entries: Vec<Laps>,
}

impl Clock {
    pub(crate) fn new(program: &Program) -> Clock {
        Clock { entries: program.entries.iter().map(|e| Laps::new(e.steps.len())).collect() }
    }

    pub(crate) fn entry(&self, entry: usize) -> &Laps {
        &self.entries[entry]
    }

    pub(crate) fn table(&self, program: &Program, grouped: bool) -> ProfileTable {
        let mut rows: Vec<ProfileRow> = Vec::new();
        let mut index = std::collections::HashMap::new();
        let mut note = |name: String, kind: &str, calls: u64, nanos: u64| {
            let at = *index.entry(name.clone()).or_insert_with(|| {
                let total = Duration::ZERO;
                rows.push(ProfileRow { name, kind: kind.to_owned(), calls: 0, total, share: 0.0 });
                rows.len() - 1
            });
            rows[at].calls += calls;
            rows[at].total += Duration::from_nanos(nanos);
        };
        let (mut whole, mut steps, mut runs, mut waiting, mut meetings) = (0, 0, 0, 0, 0);
        for (entry, laps) in program.entries.iter().zip(&self.entries) {
            let ran = laps.runs.load(Relaxed);
            if ran == 0 {
                continue;
            }
            for (step, nanos) in entry.steps.iter().zip(&laps.steps) {
                let name = if grouped { without_numbers(&step.name) } else { step.name.clone() };
                let nanos = nanos.load(Relaxed);
                note(name, &step.kind, ran, nanos);
                steps += nanos;
            }
            whole += laps.whole.load(Relaxed);
            runs += ran;
            waiting += laps.waiting.load(Relaxed);
            meetings += laps.meetings.load(Relaxed);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.total));
        let line = |name: &str, calls, nanos| ProfileRow {
            name: name.to_owned(),
            kind: String::new(),
            calls,
            total: Duration::from_nanos(nanos),
            share: 0.0,
        };
        rows.push(line("waiting", meetings, waiting));
        rows.push(line("rest", runs, whole.saturating_sub(steps + waiting)));
        for row in &mut rows {
            row.share = if whole == 0 { 0.0 } else { row.total.as_nanos() as f64 / whole as f64 };
        }
        ProfileTable { rows, calls: runs, total: Duration::from_nanos(whole) }
    }

    pub(crate) fn clear(&mut self) {
        for laps in &mut self.entries {
            *laps = Laps::new(laps.steps.len());
        }
    }
}

/// `layers.12.attn.q_norm rmsnorm` → `layers.*.attn.q_norm rmsnorm`; a kernel of two layers, `layers.1.mlp.residual+2.attn.norm`,
/// is joined by `+`.
fn without_numbers(name: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut out = String::with_capacity(name.len());
    for word in name.split_inclusive(' ') {
        let dotted = word.contains('.');
        for part in word.split_inclusive(['.', '+', ' ']) {
            let bare = part.trim_end_matches(['.', '+', ' ']);
            if dotted && is_number(bare) {
                out.push('*');
                out.push_str(&part[bare.len()..]);
            } else {
                out.push_str(part);
            }
        }
    }
    out
}

/// A line of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRow {
    /// The step's name; `waiting` and `rest` come last.
    pub name: String,
    /// The kind of work: `gemm`, `rows`, …; empty for `waiting` and `rest`.
    pub kind: String,
    /// How often it ran; for `waiting`, how often the threads met.
    pub calls: u64,
    /// The first thread's time in it.
    pub total: Duration,
    /// Its part of the whole, 0 to 1.
    pub share: f64,
}

/// Where the time went; the rows add up to `total`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileTable {
    /// The steps, longest first, then `waiting` and `rest`.
    pub rows: Vec<ProfileRow>,
    /// Steps of the session.
    pub calls: u64,
    /// Their time, from their start to their end.
    pub total: Duration,
}

#[cfg(test)]
mod tests {
    use super::without_numbers;

    #[test]
    fn layer_numbers_are_dropped_and_nothing_else() {
        assert_eq!(without_numbers("layers.12.attn.q_norm rmsnorm"), "layers.*.attn.q_norm rmsnorm");
        assert_eq!(without_numbers("blocks.0.ffn2 mul.3"), "blocks.*.ffn2 mul.*");
        assert_eq!(without_numbers("layers.1.mlp.residual+2.attn.norm x"), "layers.*.mlp.residual+*.attn.norm x");
        assert_eq!(without_numbers("head 16"), "head 16");
        assert_eq!(without_numbers("q4 gemm"), "q4 gemm");
    }
}
