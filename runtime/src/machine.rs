//! What the machine has: its name, the cores that this process may use, its caches.

mod available;
pub(crate) mod processors;
mod quota;

pub use available::{Scarcity, available_memory};
pub use quota::quota;
use std::fmt;

/// The processor's name as it calls itself, or the architecture where it does not say.
pub fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let name = raw_cpuid::CpuId::new().get_processor_brand_string();
        if let Some(name) = name.as_ref().map(|n| n.as_str().trim()).filter(|n| !n.is_empty()) {
            return name.to_string();
        }
    }
    std::env::consts::ARCH.to_string()
}

/// Logical processors that this process may keep busy, by affinity and cgroup quota (rounded down); at least 1.
pub fn allowed_cpus() -> usize {
    within(processors::allowed().map(<[usize]>::len), quota())
}

/// As many processors as are allowed and as whole ones as the quota gives time for.
fn within(processors: Option<usize>, quota: Option<f64>) -> usize {
    let processors = processors.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    processors.min(quota.map_or(usize::MAX, |q| q as usize)).max(1)
}

/// Physical cores that this process may use, by affinity and cgroup quota: the default number of threads, at least 1.
pub fn default_threads() -> usize {
    allowed_cpus().min(processors::cores().unwrap_or(usize::MAX)).max(1)
}

/// More threads than this process may keep running.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crowd {
    /// The threads.
    pub threads: usize,
    /// Processors that they may use.
    pub processors: usize,
    /// Processors' worth of time that the control group gives them, where that is less.
    pub quota: Option<f64>,
    /// As many threads as may be kept running, at least 1.
    pub fit: usize,
}

impl Crowd {
    /// Where so many threads are more than this process may keep running.
    pub fn of(threads: usize) -> Option<Crowd> {
        Crowd::within(threads, within(processors::allowed().map(<[usize]>::len), None), quota())
    }

    /// The same under these limits.
    fn within(threads: usize, processors: usize, quota: Option<f64>) -> Option<Crowd> {
        let quota = quota.filter(|&q| q < processors as f64);
        let fit = within(Some(processors), quota);
        (threads > fit).then_some(Crowd { threads, processors, quota, fit })
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Crowd { threads, processors, quota, fit } = *self;
        write!(f, "{threads} threads, but ")?;
        match quota {
            Some(quota) => {
                write!(f, "the control group gives {quota:.2} processors' time: they are stopped for a part of it")?;
            }
            None => {
                let s = if processors == 1 { "" } else { "s" };
                write!(f, "this process may use {processors} processor{s}: they take turns and wait for each other")?;
            }
        }
        write!(f, "; -t {fit} is steadier")
    }
}

/// A cache of data.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cache {
    /// 1, 2, 3.
    pub level: u32,
    /// Its size.
    pub bytes: usize,
    /// Logical processors that share one.
    pub shared_by: usize,
}

/// The data caches of the first processor that this process may use, nearest first; empty where nothing tells them.
pub fn caches() -> Vec<Cache> {
    #[cfg(target_os = "linux")]
    let told = processors::allowed().and_then(|cpus| cpus.first().copied()).map_or_else(Vec::new, system_caches);
    #[cfg(not(target_os = "linux"))]
    let told = Vec::new();
    let mut caches = if told.is_empty() { processor_caches() } else { told };
    caches.sort_by_key(|c| c.level);
    caches
}

/// As the system describes them.
#[cfg(target_os = "linux")]
fn system_caches(cpu: usize) -> Vec<Cache> {
    let one = |index: usize| {
        let read = |what: &str| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}/{what}");
            std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
        };
        if read("type")? == "Instruction" {
            return None;
        }
        let shared_by = read("shared_cpu_list").map_or(1, |list| count(&list));
        Some(Cache { level: read("level")?.parse().ok()?, bytes: size(&read("size")?)?, shared_by })
    };
    (0..16).filter_map(one).collect()
}

/// `2048K` → bytes.
#[cfg(target_os = "linux")]
fn size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

/// `0-3,8` → 5.
#[cfg(target_os = "linux")]
fn count(list: &str) -> usize {
    let part = |p: &str| match p.split_once('-') {
        Some((a, b)) => Some(b.parse::<usize>().ok()?.checked_sub(a.parse().ok()?)? + 1),
        None => p.parse::<usize>().ok().map(|_| 1),
    };
    list.split(',').filter_map(part).sum::<usize>().max(1)
}

/// As the processor describes them.
fn processor_caches() -> Vec<Cache> {
    #[cfg(target_arch = "x86_64")]
    if let Some(all) = raw_cpuid::CpuId::new().get_cache_parameters() {
        let data = all.filter(|c| c.cache_type() != raw_cpuid::CacheType::Instruction);
        let cache = |c: raw_cpuid::CacheParameter| Cache {
            level: u32::from(c.level()),
            bytes: c.associativity() * c.physical_line_partitions() * c.coherency_line_size() * c.sets(),
            shared_by: c.max_cores_for_cache(),
        };
        return data.map(cache).collect();
    }
    Vec::new()
}

/// Makes a write past the process's limit of file sizes an error that can be reported, where it would end the process.
pub fn report_file_size_limit() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_core() {
        assert!((1..=allowed_cpus()).contains(&default_threads()));
        assert!(!processor().is_empty());
    }

    #[test]
    fn threads_follow_affinity_and_quota() {
        let whole = |processors, quota| within(Some(processors), quota);
        assert_eq!((whole(8, None), whole(8, Some(4.0)), whole(8, Some(2.9)), whole(2, Some(4.0))), (8, 4, 2, 2));
        assert_eq!((whole(8, Some(0.5)), whole(0, None)), (1, 1));
    }

    #[test]
    fn more_threads_than_may_run_are_told() {
        assert_eq!(Crowd::within(2, 2, None), None);
        assert_eq!(Crowd::within(2, 4, Some(2.0)), None);
        assert_eq!(Crowd::within(2, 2, Some(16.0)), None);
        let told = |threads, processors, quota| Crowd::within(threads, processors, quota).unwrap().to_string();
        assert_eq!(
            told(8, 2, None),
            "8 threads, but this process may use 2 processors: they take turns and wait for each other; -t 2 is steadier"
        );
        assert_eq!(
            told(2, 4, Some(1.5)),
            "2 threads, but the control group gives 1.50 processors' time: they are stopped for a part of it; -t 1 is steadier"
        );
        assert_eq!(Crowd::within(1, 4, Some(0.5)), None, "there is no less than one");
        assert!(told(2, 1, None).contains("may use 1 processor:"));
        assert!(told(8, 2, Some(1.0)).ends_with("; -t 1 is steadier"));
        assert_eq!(Crowd::of(default_threads()), None);
        assert!(Crowd::of(allowed_cpus() + 1).is_some());
    }

    #[test]
    fn caches_ascend() {
        let caches = caches();
        assert!(caches.windows(2).all(|c| c[0].level < c[1].level && c[0].bytes < c[1].bytes), "{caches:?}");
        assert!(caches.iter().all(|c| c.shared_by > 0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn sizes_and_lists() {
        assert_eq!((size("48K"), size("2M"), size("12"), size("x")), (Some(49152), Some(2 << 20), Some(12), None));
        assert_eq!((count("0"), count("0-3,8"), count("")), (1, 5, 1));
    }
}
