//! The processors that this process may run on, and binding threads to them.

use std::sync::OnceLock;

/// The processors that this process may use, where the system tells: those of the affinity mask of the thread that first
/// asked. Remembered, because a thread that is bound to one processor would be told that one from then on.
pub(crate) fn allowed() -> Option<&'static [usize]> {
    static ALLOWED: OnceLock<Option<Vec<usize>>> = OnceLock::new();
    ALLOWED.get_or_init(|| affinity().filter(|all| !all.is_empty())).as_deref()
}

/// The same in the order in which threads are bound to them: one of each physical core, then the others.
pub(crate) fn by_core() -> Option<Vec<usize>> {
    let all = allowed()?;
    Some(spread(&all.iter().map(|&cpu| (cpu, core(cpu))).collect::<Vec<_>>()))
}

/// Physical cores among the allowed processors, where the system tells.
pub(super) fn cores() -> Option<usize> {
    let cores = allowed()?.iter().map(|&cpu| core(cpu)).collect::<Option<std::collections::BTreeSet<_>>>()?;
    (!cores.is_empty()).then_some(cores.len())
}

/// A processor's package and its core there.
type Core = (i64, i64);

/// Processors whose core no processor before them has, then the second ones of each core, and so on. A core that nobody
/// knows is taken for one of its own.
fn spread(processors: &[(usize, Option<Core>)]) -> Vec<usize> {
    let turn = |at: usize| {
        let (_, core) = processors[at];
        processors[..at].iter().filter(|(_, other)| core.is_some() && *other == core).count()
    };
    let mut order: Vec<usize> = (0..processors.len()).collect();
    order.sort_by_key(|&at| turn(at));
    order.into_iter().map(|at| processors[at].0).collect()
}

#[cfg(target_os = "linux")]
fn core(cpu: usize) -> Option<Core> {
    let read = |what: &str| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/{what}");
        std::fs::read_to_string(path).ok()?.trim().parse::<i64>().ok()
    };
    Some((read("physical_package_id")?, read("core_id")?))
}

#[cfg(not(target_os = "linux"))]
fn core(_cpu: usize) -> Option<Core> {
    None
}

/// The processors that the calling thread may run on now, where the system tells.
#[cfg(target_os = "linux")]
pub(crate) fn affinity() -> Option<Vec<usize>> {
    // SAFETY: an all-zero set is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours and its size is given.
    if unsafe { libc::sched_getaffinity(0, std::mem::size_of_val(&set), &mut set) } != 0 {
        return None;
    }
    // SAFETY: the index is below the size of the set.
    Some((0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn affinity() -> Option<Vec<usize>> {
    None
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

/// Binds the calling thread to one processor.
///
/// # Errors
/// If the system refuses.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bind(_processor: usize) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_core_first() {
        let known = |cores: &[(i64, i64)]| {
            spread(&cores.iter().enumerate().map(|(cpu, &core)| (cpu, Some(core))).collect::<Vec<_>>())
        };
        assert_eq!(known(&[(0, 0), (0, 0), (0, 1), (0, 1)]), [0, 2, 1, 3], "siblings side by side");
        assert_eq!(known(&[(0, 0), (0, 1), (0, 0), (0, 1)]), [0, 1, 2, 3], "siblings half the machine apart");
        assert_eq!(known(&[(0, 0), (1, 0), (0, 0), (1, 0), (0, 0)]), [0, 1, 2, 3, 4], "two packages");
        assert_eq!(spread(&[(3, None), (5, None), (9, Some((0, 0)))]), [3, 5, 9], "unknown");
        assert_eq!(spread(&[]), [0; 0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn bound_threads_still_know_what_the_process_may_use() {
        std::thread::spawn(|| {
            let all = allowed().unwrap().to_vec();
            let last = *all.last().unwrap();
            bind(last).unwrap();
            assert_eq!(affinity().unwrap(), [last]);
            assert_eq!(allowed().unwrap(), all);
            let mut order = by_core().unwrap();
            order.sort_unstable();
            assert_eq!(order, all);
            assert!((1..=all.len()).contains(&cores().unwrap()));
        })
        .join()
        .unwrap();
    }
}
