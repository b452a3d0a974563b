//! Where the time of a session goes, step by step.
//!
//! The first thread notes the time at the end of each step and after each meeting of the threads. What it spent at
//! meetings is one line, `waiting`; what a step of the session took beyond its steps (checking inputs, waking threads) is
//! another, `rest`: the lines add up to the whole. For a trace every thread notes when each of its steps began and how
//! long it took, in room that was made before.

use llamac_formats::program::Program;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

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

/// What one thread did and when: as many events as there was room for. It alone writes.
pub(crate) struct Track {
    origin: Instant,
    /// Three numbers an event: entry and step, begin, length; nanoseconds.
    numbers: Box<[AtomicU64]>,
    noted: AtomicU64,
}

/// In the place of a step's number: a meeting of the threads.
const MEETING: u64 = u32::MAX as u64;

impl Track {
    /// Notes an event that began at `begin`; past the end of the room it is only counted.
    pub(crate) fn note(&self, entry: usize, step: Option<usize>, begin: Instant, nanos: u64) {
        let at = self.noted.load(Relaxed);
        self.noted.store(at + 1, Relaxed);
        if let Some([what, from, long]) = self.numbers.get(at as usize * 3..).and_then(|n| n.first_chunk::<3>()) {
            what.store((entry as u64) << 32 | step.map_or(MEETING, |s| s as u64), Relaxed);
            from.store(begin.saturating_duration_since(self.origin).as_nanos() as u64, Relaxed);
            long.store(nanos, Relaxed);
        }
    }

    fn events(&self) -> ThreadTrace {
        let noted = self.noted.load(Relaxed);
        let read = |n: &AtomicU64| n.load(Relaxed);
        let all = self.numbers.chunks_exact(3).take(noted as usize).map(|n| {
            let what = read(&n[0]);
            let step = (what & MEETING != MEETING).then_some((what & MEETING) as usize);
            Event { entry: (what >> 32) as usize, step, begin: read(&n[1]), nanos: read(&n[2]) }
        });
        let events: Vec<Event> = all.collect();
        ThreadTrace { lost: noted - events.len() as u64, events }
    }
}

/// A track for each thread.
pub(crate) struct Tracks(Vec<Track>);

impl Tracks {
    /// Room for so many events on each of the threads.
    fn new(threads: usize, events: usize) -> Tracks {
        let origin = Instant::now();
        let numbers = || (0..events.saturating_mul(3)).map(|_| AtomicU64::new(0)).collect();
        Tracks((0..threads).map(|_| Track { origin, numbers: numbers(), noted: AtomicU64::new(0) }).collect())
    }

    pub(crate) fn of(&self, thread: usize) -> &Track {
        &self.0[thread]
    }
}

/// A stretch of a thread's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which entry of the program.
    pub entry: usize,
    /// Which step of the entry; `None` where the thread waited for the others.
    pub step: Option<usize>,
    /// When it began, nanoseconds since tracing began.
    pub begin: u64,
    /// How long it took, nanoseconds.
    pub nanos: u64,
}

/// What a thread did, in order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadTrace {
    /// What there was room for.
    pub events: Vec<Event>,
    /// How many more there were.
    pub lost: u64,
}

/// The times of one entry, unrounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryTimes {
    /// Steps of the session that it ran.
    pub runs: u64,
    /// Their time, from their start to their end.
    pub whole: Duration,
    /// The first thread's time in each step of the entry.
    pub steps: Vec<Duration>,
    /// Its time at meetings of the threads.
    pub waiting: Duration,
    /// How often the threads met.
    pub meetings: u64,
}

/// The times of a session since it was made or since they were last cleared.
pub(crate) struct Clock {
    entries: Vec<Laps>,
    tracks: Option<Tracks>,
}

impl Clock {
    pub(crate) fn new(program: &Program) -> Clock {
        Clock { entries: program.entries.iter().map(|e| Laps::new(e.steps.len())).collect(), tracks: None }
    }

    pub(crate) fn trace(&mut self, threads: usize, events: usize) {
        self.tracks = Some(Tracks::new(threads, events));
    }

    pub(crate) fn tracks(&self) -> Option<&Tracks> {
        self.tracks.as_ref()
    }

    pub(crate) fn traced(&self) -> Vec<ThreadTrace> {
        self.tracks.iter().flat_map(|t| &t.0).map(Track::events).collect()
    }

    pub(crate) fn times(&self) -> Vec<EntryTimes> {
        let time = |cell: &AtomicU64| Duration::from_nanos(cell.load(Relaxed));
        let of = |laps: &Laps| EntryTimes {
            runs: laps.runs.load(Relaxed),
            whole: time(&laps.whole),
            steps: laps.steps.iter().map(time).collect(),
            waiting: time(&laps.waiting),
            meetings: laps.meetings.load(Relaxed),
        };
        self.entries.iter().map(of).collect()
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
        for track in self.tracks.iter().flat_map(|t| &t.0) {
            track.noted.store(0, Relaxed);
        }
    }
}

/// `layers.12.attn.q_norm rmsnorm` → `layers.*.attn.q_norm rmsnorm`; a kernel of two layers, `layers.1.mlp.residual+2.attn.norm`,
/// is joined by `+`.
pub fn without_numbers(name: &str) -> String {
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
