//! What this machine can do: how fast it reads from each level of its memory, how much it computes, how fast its threads
//! meet. Measured, medians of repeats; nothing is looked up in a table of processors.

mod bandwidth;

pub use bandwidth::read_bandwidth;

use crate::machine::{self, Cache};
use crate::memory::MemoryError;
use crate::pool::Pool;
use crate::tiers::Features;
use crate::tiers::peak::Arithmetic;
use bandwidth::{UNIT, cache_speeds, filled, memory_speeds};
use serde::{Deserialize, Serialize};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Version of the saved form.
pub const VERSION: u32 = 1;

/// What was measured of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// [`VERSION`] of the llamac that measured.
    pub version: u32,
    /// Seconds since 1970 when it was measured.
    pub measured: u64,
    /// The processor's name.
    pub processor: String,
    /// Features that compiled code may use.
    pub features: Vec<String>,
    /// Logical processors that the process could use.
    pub processors: usize,
    /// Data caches, nearest first.
    pub caches: Vec<Cache>,
    /// Reading, by level and threads.
    pub bandwidth: Vec<Bandwidth>,
    /// Computing, by kind and threads.
    pub peaks: Vec<Peak>,
    /// Meeting, by threads.
    pub barriers: Vec<Barrier>,
}

/// How fast a level of memory is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// `L1`, `L2`, `L3`, `DRAM`.
    pub level: String,
    /// Threads that read together.
    pub threads: usize,
    /// Bytes read again and again, of all threads.
    pub bytes: usize,
    /// GB/s of all threads.
    pub gbs: f64,
}

/// How much one kind of arithmetic does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// [`Arithmetic::name`].
    pub arithmetic: String,
    /// Threads that compute together.
    pub threads: usize,
    /// 10⁹ operations a second of all threads; a multiply-add is two.
    pub gops: f64,
}

/// How long a meeting takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Barrier {
    /// Threads that meet.
    pub threads: usize,
    /// Nanoseconds.
    pub nanos: f64,
}

/// The middle of some measurements.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    match samples.len() {
        0 => 0.0,
        n if n % 2 == 1 => samples[n / 2],
        n => (samples[n / 2 - 1] + samples[n / 2]) / 2.0,
    }
}

/// Repeats of each measurement.
const SAMPLES: usize = 5;

/// Read to measure memory: far more than any cache keeps for one process.
const MEMORY_BYTES: usize = 1 << 30;

/// The most that is read to measure the last cache: of a large one that others share, only a part is useful.
const LAST_CACHE_BYTES: usize = 32 << 20;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Everything.
    All,
    /// Every level of memory, and these kinds of arithmetic.
    Kinds(&'a [Arithmetic]),
}

impl Limits {
    /// Measures with each of the pools; `progress` is told what comes next.
    ///
    /// # Errors
    /// If the system does not give the memory.
    pub fn measure(pools: &[&Pool], scope: Scope, progress: &mut dyn FnMut(&str)) -> Result<Limits, MemoryError> {
        let caches = machine::caches();
        let mut limits = Limits {
            version: VERSION,
            measured: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            processor: machine::processor(),
            features: Features::detect().names.into_iter().collect(),
            processors: machine::allowed_cpus(),
            bandwidth: vec![],
            peaks: vec![],
            barriers: vec![],
            caches,
        };
        let memory = filled(MEMORY_BYTES)?;
        for pool in pools {
            let threads = pool.threads();
            for (level, each) in limits.working_sets(threads) {
                progress(&format!("reading {level}, {threads} threads"));
                // The memory of many threads need not fit what was reserved.
                if each * threads > MEMORY_BYTES {
                    continue;
                }
                let gbs = median(cache_speeds(pool, &memory, each, SAMPLES));
                limits.bandwidth.push(Bandwidth { level, threads, bytes: each * threads, gbs });
            }
            progress(&format!("reading DRAM, {threads} threads"));
            let gbs = median(memory_speeds(pool, &memory, SAMPLES));
            limits.bandwidth.push(Bandwidth { level: "DRAM".to_owned(), threads, bytes: MEMORY_BYTES, gbs });
            for kind in Arithmetic::ALL.into_iter().filter(|k| k.available()) {
                if matches!(scope, Scope::Kinds(kinds) if !kinds.contains(&kind)) {
                    continue;
                }
                progress(&format!("computing {}, {threads} threads", kind.name()));
                let peak = Peak { arithmetic: kind.name().to_owned(), threads, gops: peak(pool, kind) };
                limits.peaks.push(peak);
            }
            progress(&format!("meeting, {threads} threads"));
            limits.barriers.push(Barrier { threads, nanos: barrier(pool) });
        }
        Ok(limits)
    }

    /// For each cache the bytes that each of the threads reads of its own: half of what is nearest, for what lies nearer
    /// must not hold them, and they must not fill it.
    fn working_sets(&self, threads: usize) -> Vec<(String, usize)> {
        let mut nearer = 0;
        let mut sets = vec![];
        for cache in &self.caches {
            let sharing = threads.min(cache.shared_by).max(1);
            let mut each = cache.bytes / 2 / sharing;
            if cache.level >= 3 {
                each = each.min(LAST_CACHE_BYTES / threads).max(2 * nearer);
            }
            let each = each / UNIT * UNIT;
            // A shared cache that is no larger than what lies nearer holds nothing for so many threads.
            if each > nearer && each * sharing <= cache.bytes {
                sets.push((format!("L{}", cache.level), each));
            }
            nearer = cache.bytes / cache.shared_by.min(threads).max(1);
        }
        sets
    }

    /// GB/s of a level for so many threads.
    pub fn bandwidth_of(&self, level: &str, threads: usize) -> Option<f64> {
        self.bandwidth.iter().find(|b| b.level == level && b.threads == threads).map(|b| b.gbs)
    }

    /// Gop/s of a kind of arithmetic for so many threads.
    pub fn peak_of(&self, kind: Arithmetic, threads: usize) -> Option<f64> {
        self.peaks.iter().find(|p| p.arithmetic == kind.name() && p.threads == threads).map(|p| p.gops)
    }

    /// The nearest level that holds so many bytes of all threads together, as far as it was measured.
    pub fn level_for(&self, bytes: usize, threads: usize) -> &str {
        let measured = self.bandwidth.iter().filter(|b| b.threads == threads && b.level != "DRAM");
        // A level was measured with what fills half of it, or of the useful part of it.
        measured.into_iter().find(|b| bytes <= b.bytes).map_or("DRAM", |b| b.level.as_str())
    }

    /// Whether it was measured on this machine and knows so many threads.
    pub fn fits(&self, threads: usize, arithmetic: Arithmetic) -> bool {
        self.version == VERSION
            && self.processor == machine::processor()
            && self.processors == machine::allowed_cpus()
            && self.bandwidth_of("DRAM", threads).is_some()
            && self.peak_of(arithmetic, threads).is_some()
            && self.bandwidth.iter().all(|b| b.gbs.is_finite() && b.gbs > 0.0)
            && self.peaks.iter().all(|p| p.gops.is_finite() && p.gops > 0.0)
    }
}

/// Gop/s of all threads.
fn peak(pool: &Pool, kind: Arithmetic) -> f64 {
    let run = |rounds: usize| {
        let start = Instant::now();
        pool.run(&|_| {
            std::hint::black_box(kind.work(rounds));
        });
        start.elapsed().as_secs_f64()
    };
    // As many rounds as take some milliseconds.
    let mut rounds = 1 << 12;
    while run(rounds) < 4e-3 && rounds < 1 << 30 {
        rounds *= 2;
    }
    let operations = kind.work(1) * rounds as f64 * pool.threads() as f64;
    median((0..SAMPLES).map(|_| operations / run(rounds) / 1e9).collect())
}

/// Nanoseconds of a meeting of the pool's threads.
fn barrier(pool: &Pool) -> f64 {
    const MEETINGS: usize = 2000;
    let sample = |_| {
        let nanos = std::sync::atomic::AtomicU64::new(0);
        pool.run(&|worker| {
            worker.barrier();
            let start = Instant::now();
            for _ in 0..MEETINGS {
                worker.barrier();
            }
            if worker.index() == 0 {
                nanos.store(start.elapsed().as_nanos() as u64, std::sync::atomic::Ordering::Relaxed);
            }
        });
        nanos.into_inner() as f64 / MEETINGS as f64
    };
    median((0..SAMPLES).map(sample).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::Tier;

    fn limits() -> Limits {
        let cache = |level, bytes, shared_by| Cache { level, bytes, shared_by };
        Limits {
            version: VERSION,
            measured: 0,
            processor: machine::processor(),
            features: vec![],
            processors: machine::allowed_cpus(),
            caches: vec![cache(1, 48 << 10, 1), cache(2, 2 << 20, 1), cache(3, 480 << 20, 64)],
            bandwidth: [("L1", 24 << 10, 400.0), ("L2", 1 << 20, 100.0), ("DRAM", 1 << 30, 10.0)]
                .map(|(l, bytes, gbs)| Bandwidth { level: l.to_owned(), threads: 1, bytes, gbs })
                .to_vec(),
            peaks: vec![Peak { arithmetic: "f32 portable".to_owned(), threads: 1, gops: 20.0 }],
            barriers: vec![],
        }
    }

    #[test]
    fn working_sets_lie_in_their_cache_and_in_no_nearer_one() {
        let sets = limits().working_sets(2);
        let names: Vec<&str> = sets.iter().map(|s| s.0.as_str()).collect();
        assert_eq!(names, ["L1", "L2", "L3"]);
        assert_eq!(sets[0].1, 24 << 10);
        assert_eq!(sets[1].1, 1 << 20);
        assert_eq!(sets[2].1, 16 << 20);
        assert!(sets.iter().all(|s| s.1 % UNIT == 0));
        // Sixteen threads fill what is useful of the last cache.
        assert_eq!(limits().working_sets(16)[2].1, 4 << 20);
    }

    #[test]
    fn levels_by_bytes_and_what_fits() {
        let limits = limits();
        assert_eq!(limits.level_for(1000, 1), "L1");
        assert_eq!(limits.level_for(1 << 20, 1), "L2");
        assert_eq!(limits.level_for(2 << 20, 1), "DRAM");
        assert!(limits.fits(1, Arithmetic::F32(Tier::Portable)));
        assert!(!limits.fits(2, Arithmetic::F32(Tier::Portable)));
        assert!(!limits.fits(1, Arithmetic::F32(Tier::Avx2)));
        let other = Limits { processor: "another".to_owned(), ..limits };
        assert!(!other.fits(1, Arithmetic::F32(Tier::Portable)));
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }
}
