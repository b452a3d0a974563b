//! What the machine has: its name, the cores that this process may use, its caches.

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

/// Logical processors that this process may use, by affinity and cgroup quota; at least 1.
pub fn allowed_cpus() -> usize {
    // The standard library asks for the affinity mask and the quotas of cgroup v1 and v2.
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Physical cores that this process may use, by affinity and cgroup quota: the default number of threads, at least 1.
pub fn default_threads() -> usize {
    allowed_cpus().min(physical_cores().unwrap_or(usize::MAX)).max(1)
}

/// Physical cores among the processors of the affinity mask, where the system tells.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    let mut cores = std::collections::BTreeSet::new();
    for cpu in affinity()? {
        let read = |what: &str| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/{what}");
            std::fs::read_to_string(path).ok()?.trim().parse::<i64>().ok()
        };
        cores.insert((read("physical_package_id")?, read("core_id")?));
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

/// The processors that this thread may run on, where the system tells.
#[cfg(not(target_os = "linux"))]
pub(crate) fn affinity() -> Option<Vec<usize>> {
    None
}

/// Binds the calling thread to one processor.
///
/// # Errors
/// If the system refuses.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bind(_processor: usize) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Binds the calling thread to one processor.
///
/// # Errors
/// If the system refuses.
#[cfg(target_os = "linux")]
pub(crate) fn bind(processor: usize) -> std::io::Result<()> {
    // SAFETY: an all-zero set is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours; the macro's function ignores processors past its size.
    unsafe { libc::CPU_SET(processor.min(libc::CPU_SETSIZE as usize - 1), &mut set) };
    // SAFETY: the set is ours and its size is given.
    match unsafe { libc::sched_setaffinity(0, std::mem::size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
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
    let told = affinity().and_then(|cpus| cpus.first().copied()).map_or_else(Vec::new, system_caches);
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

/// The processors that this thread may run on.
#[cfg(target_os = "linux")]
pub(crate) fn affinity() -> Option<Vec<usize>> {
    // SAFETY: an all-zero set is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours and its size is given.
    let status = unsafe { libc::sched_getaffinity(0, std::mem::size_of_val(&set), &mut set) };
    if status != 0 {
        return None;
    }
    // SAFETY: the index stays below the size of the set.
    Some((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Asks the system to back a range with huge pages; it may decline, and then nothing changes.
pub fn ask_for_huge_pages(start: *const u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let begin = (start as usize).next_multiple_of(PAGE);
        let end = (start as usize + bytes) / PAGE * PAGE;
        if begin < end {
            // SAFETY: the advice changes no contents, whatever the range.
            unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
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
