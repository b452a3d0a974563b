//! What the machine has: its name, the cores that this process may use, how fast it reads memory.

use crate::pool::Pool;
use crate::tiers::{Kernel, Simd, Tier};
use std::time::Instant;

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

/// Bytes that a thread reads at a time in [`read_bandwidth`].
const PIECE: usize = 1 << 20;

/// Reads `bytes` bytes of memory (rounded up to MiB) `passes` times with all threads of the pool; the best pass, GB/s.
///
/// # Errors
/// If the system does not give the memory.
pub fn read_bandwidth(pool: &Pool, bytes: usize, passes: usize) -> std::io::Result<f64> {
    let pieces = bytes.div_ceil(PIECE).max(1);
    let mut memory = Vec::<f32>::new();
    memory.try_reserve_exact(pieces * PIECE / 4)?;
    ask_for_huge_pages(memory.as_ptr().cast(), pieces * PIECE);
    // Written, not only reserved: untouched pages are all the same page of zeros.
    memory.resize(pieces * PIECE / 4, 1.0);
    let tier = Tier::detect();
    let mut best = f64::INFINITY;
    for _ in 0..passes.max(1) {
        let start = Instant::now();
        pool.run(&|worker| {
            worker.share(pieces, |piece| {
                let piece = &memory[piece * (PIECE / 4)..][..PIECE / 4];
                // SAFETY: the tier was detected.
                std::hint::black_box(unsafe { tier.dispatch(Sum(piece)) });
            });
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok((pieces * PIECE) as f64 / best / 1e9)
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

/// The sum of a slice whose length is a multiple of 128, read as the GEMM reads panels: four streams side by side, each
/// asked for a page ahead..
struct Sum<'a>(&'a [f32]);

/// Streams of [`Sum`].
const STREAMS: usize = 4;

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let stream = self.0.len() / STREAMS;
        // SAFETY: every stream is a whole number of two vectors; the caller vouches for the instruction set.
        unsafe {
            let mut sums = [[S::zero(); 2]; STREAMS];
            let mut i = 0;
            while i < stream {
                let mut s = 0;
                while s < STREAMS {
                    let from = self.0.as_ptr().add(s * stream + i);
                    let mut v = 0;
                    while v < 2 {
                        S::prefetch(from.wrapping_add(1024 + v * S::LANES).cast());
                        sums[s][v] = S::add(sums[s][v], S::load(from.add(v * S::LANES)));
                        v += 1;
                    }
                    s += 1;
                }
                i += 2 * S::LANES;
            }
            let mut sum = S::zero();
            let mut s = 0;
            while s < STREAMS {
                sum = S::add(sum, S::add(sums[s][0], sums[s][1]));
                s += 1;
            }
            S::sum(sum)
        }
    }
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
    fn sums_of_every_tier() {
        let numbers: Vec<f32> = (0..1280).map(|i| (i % 7) as f32).collect();
        for tier in crate::tiers::tests::available() {
            // SAFETY: the tier is available.
            assert_eq!(unsafe { tier.dispatch(Sum(&numbers)) }, numbers.iter().sum::<f32>());
        }
    }

    #[test]
    fn memory_is_read() {
        let speed = read_bandwidth(&Pool::new(2).unwrap(), 3 << 20, 2).unwrap();
        assert!(speed.is_finite() && speed > 0.0);
    }
}
