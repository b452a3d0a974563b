//! Waiting for another thread: briefly awake, then asleep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread waits without the system: a rendezvous of threads that run takes well under a microsecond.
const SPIN: Duration = Duration::from_micros(10);

/// How long it stays awake, offering its processor to others: to be woken takes several microseconds, and the gap
/// between two steps of a decode is tens of them.
const AWAKE: Duration = Duration::from_micros(100);

/// Looks at the condition between two looks at the clock.
const LOOKS: usize = 64;

/// Where threads wait for a condition that another thread makes true and then calls [`Waiting::wake`].
pub(super) struct Waiting {
    /// Whether every thread has a processor of its own; otherwise staying awake keeps the awaited thread from running.
    spins: bool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Waiting {
    pub(super) fn new(spins: bool) -> Waiting {
        Waiting { spins, sleepers: AtomicUsize::new(0), lock: Mutex::new(()), changed: Condvar::new() }
    }

    #[cfg(test)]
    pub(super) fn spins(&self) -> bool {
        self.spins
    }

    /// Returns when `done` says so.
    pub(super) fn wait(&self, done: impl Fn() -> bool) {
        let mut since = None;
        loop {
            let awake = since.map_or(Duration::ZERO, |s: Instant| s.elapsed());
            if awake > AWAKE {
                break;
            }
            let spin = self.spins && awake < SPIN;
            for _ in 0..if spin { LOOKS } else { 1 } {
                if done() {
                    return;
                }
                match since {
                    // The first looks are close together: a pause alone is longer than a rendezvous.
                    None if spin => {}
                    Some(_) if spin => spin_loop(),
                    _ => std::thread::yield_now(),
                }
            }
            since.get_or_insert_with(Instant::now);
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // Pairs with the fence in `wake`: either this thread sees the condition true or the waker sees a sleeper.
        fence(Ordering::SeqCst);
        while !done() {
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Called after a condition has become true.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Whoever has announced itself under the lock sleeps by the time that this thread gets it.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }
}
