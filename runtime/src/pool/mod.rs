//! Threads that run one closure together (SPMD): a pool, its barrier and its sharing of tasks.
//!
//! Nothing here allocates while a run is going on. Which thread does which task is left to chance; so a task may
//! depend on its number alone.

mod wait;

use crate::machine;
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use wait::Waiting;

/// What every thread of a run does.
type Work<'a> = dyn Fn(&Worker) + Sync + 'a;

/// A value alone on its cache lines (two, because processors fetch lines in pairs).
#[repr(align(128))]
struct Apart<T>(T);

/// What the threads share.
struct Shared {
    threads: usize,
    waiting: Waiting,
    /// The work of the run that is going on.
    work: UnsafeCell<Option<*const Work<'static>>>,
    /// Counts runs; a change starts one.
    epoch: Apart<AtomicU32>,
    /// Threads, other than the caller, that have not yet left the run.
    running: Apart<AtomicUsize>,
    /// Threads that have come to the barrier.
    arrived: Apart<AtomicUsize>,
    /// Counts barriers; a change releases those who wait.
    generation: Apart<AtomicU32>,
    /// The turn (upper half) and the next task of it (lower half); one for each part of a turn, of which there are at most as
    /// many as threads.
    claims: Box<[Apart<AtomicU64>]>,
    closing: AtomicBool,
    /// Whether a thread of this run has panicked.
    broken: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written by the thread inside `run` while no other thread reads it: before `epoch` changes and after
// `running` has come to 0. What it points to is `Sync`. Everything else is atomic or locked.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer itself may be sent.
unsafe impl Send for Shared {}

/// Unwinds a thread out of a run that another thread has broken; never reaches the caller.
struct Cancelled;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// The processor that this thread was bound to by a pool.
    static BOUND: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A fixed set of threads; the caller of [`Pool::run`] is the first of them.
pub struct Pool {
    shared: Arc<Shared>,
    turns: Mutex<()>,
    handles: Vec<JoinHandle<()>>,
    /// The processor of the first thread, where threads are bound.
    first: Option<usize>,
}

impl Pool {
    /// Starts `threads − 1` threads; 0 counts as 1.
    ///
    /// # Errors
    /// If the system refuses to start a thread.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        Pool::start(threads, &[])
    }

    /// The same, each thread bound to a processor of its own among those that this process may use, one of each physical
    /// core first, in turn where there are fewer. A thread that calls [`Pool::run`] is bound to the first when it first does,
    /// and stays so: threads that it starts afterwards inherit that.
    ///
    /// # Errors
    /// If the system refuses to start or to bind a thread, or cannot bind threads.
    pub fn pinned(threads: usize) -> std::io::Result<Pool> {
        let processors = machine::processors::by_core()
            .ok_or_else(|| std::io::Error::other("this system does not say which processors a thread may use"))?;
        if let Some(&first) = processors.first() {
            // The caller is bound later, where a refusal could not be told any more: a thread of no use tries it now.
            let trial = std::thread::Builder::new().spawn(move || machine::processors::bind(first))?;
            trial
                .join()
                .unwrap_or_else(|_| Err(std::io::Error::other("the thread that tried to bind itself ended")))?;
        }
        Pool::start(threads, &processors)
    }

    /// Whether each thread is bound to a processor.
    pub fn is_pinned(&self) -> bool {
        self.first.is_some()
    }

    /// Binds the calling thread where the first is to be, once. [`Pool::pinned`] has seen that the system allows it; should it have
    /// changed its mind, the thread runs where it may.
    fn bind_caller(&self) {
        if self.first.is_some() && BOUND.get() != self.first {
            BOUND.set(self.first);
            let _ = self.first.map(machine::processors::bind);
        }
    }

    /// Starts the threads, the one of index i on processor i of those given, if any.
    fn start(threads: usize, processors: &[usize]) -> std::io::Result<Pool> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            threads,
            waiting: Waiting::new(threads <= machine::allowed_cpus()),
            work: UnsafeCell::new(None),
            epoch: Apart(AtomicU32::new(0)),
            running: Apart(AtomicUsize::new(0)),
            arrived: Apart(AtomicUsize::new(0)),
            generation: Apart(AtomicU32::new(0)),
            claims: (0..threads).map(|_| Apart(AtomicU64::new(0))).collect(),
            closing: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Pool {
            shared,
            turns: Mutex::new(()),
            handles: Vec::with_capacity(threads - 1),
            first: processors.first().copied(),
        };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let name = format!("llamac-{index}");
            let processor = (!processors.is_empty()).then(|| processors[index % processors.len()]);
            let (bound, answer) = std::sync::mpsc::sync_channel(1);
            let life = move || {
                let result = processor.map_or(Ok(()), machine::processors::bind);
                let refused = result.is_err();
                // The receiver waits for this answer.
                let _ = bound.send(result);
                if !refused {
                    serve(&shared, index);
                }
            };
            // On failure the drop of `pool` ends the threads that have started.
            pool.handles.push(std::thread::Builder::new().name(name).spawn(life)?);
            answer.recv().map_err(std::io::Error::other)??;
        }
        Ok(pool)
    }

    /// How many threads run together.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `work` on every thread and returns when all are done. Calls from several threads take turns.
    ///
    /// # Panics
    /// With the first panic of `work`, after all threads have left it; or if called from inside a run.
    pub fn run(&self, work: &(dyn Fn(&Worker) + Sync)) {
        assert!(!INSIDE.get(), "a run of the pool was started from inside a run");
        let _turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        self.bind_caller();
        let shared = &*self.shared;
        shared.claims.iter().for_each(|c| c.0.store(0, Ordering::Relaxed));
        shared.arrived.0.store(0, Ordering::Relaxed);
        shared.broken.store(false, Ordering::Relaxed);
        shared.running.0.store(shared.threads - 1, Ordering::Relaxed);
        if shared.threads > 1 {
            // SAFETY: only the lifetime changes, and this function does not return before all threads have left `work`.
            let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
            // SAFETY: no thread reads it before the epoch changes.
            unsafe { *shared.work.get() = Some(work) };
            shared.epoch.0.fetch_add(1, Ordering::Release);
            shared.waiting.wake();
        }
        INSIDE.set(true);
        shared.take_part(work, 0);
        INSIDE.set(false);
        shared.waiting.wait(|| shared.running.0.load(Ordering::Acquire) == 0);
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            drop(_turn);
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.epoch.0.fetch_add(1, Ordering::Release);
        self.shared.waiting.wake();
        for handle in self.handles.drain(..) {
            // A serving thread catches every panic of its work.
            let _ = handle.join();
        }
    }
}

/// The life of a thread of the pool.
fn serve(shared: &Shared, index: usize) {
    INSIDE.set(true);
    let mut epoch = 0;
    loop {
        shared.waiting.wait(|| shared.epoch.0.load(Ordering::Acquire) != epoch);
        epoch = epoch.wrapping_add(1);
        if shared.closing.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: `run` wrote it before it changed the epoch, and writes it again only after this thread has left.
        if let Some(work) = unsafe { *shared.work.get() } {
            // SAFETY: `run` keeps the closure alive until `running` comes to 0.
            shared.take_part(unsafe { &*work }, index);
        }
        if shared.running.0.fetch_sub(1, Ordering::Release) == 1 {
            shared.waiting.wake();
        }
    }
}

impl Shared {
    /// Runs the work on the calling thread; a panic breaks the run, so that nobody waits for this thread.
    fn take_part(&self, work: &Work, index: usize) {
        let worker = Worker { shared: self, index, turn: Cell::new(0) };
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&worker))) else { return };
        if !panic.is::<Cancelled>() {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        self.broken.store(true, Ordering::SeqCst);
        self.generation.0.fetch_add(1, Ordering::SeqCst);
        self.waiting.wake();
    }
}

/// One thread of a run.
pub struct Worker<'a> {
    shared: &'a Shared,
    index: usize,
    /// How many calls of [`Worker::share`] this thread has begun in this run.
    turn: Cell<u32>,
}

impl Worker<'_> {
    /// Which thread this is, `0..threads`.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Waits until every thread of the run has come here; what they wrote before is visible after.
    ///
    /// # Panics
    /// If another thread of the run has panicked: the run then ends with that thread's panic.
    pub fn barrier(&self) {
        let shared = self.shared;
        if shared.threads == 1 {
            return;
        }
        let generation = shared.generation.0.load(Ordering::SeqCst);
        // Read after the generation: a break that this misses changes the generation that is waited for below.
        self.leave_if_broken();
        if shared.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == shared.threads {
            shared.arrived.0.store(0, Ordering::Relaxed);
            shared.generation.0.fetch_add(1, Ordering::SeqCst);
            shared.waiting.wake();
        } else {
            shared.waiting.wait(|| shared.generation.0.load(Ordering::SeqCst) != generation);
            self.leave_if_broken();
        }
    }

    fn leave_if_broken(&self) {
        if self.shared.broken.load(Ordering::SeqCst) {
            resume_unwind(Box::new(Cancelled));
        }
    }

    /// Does the tasks `0..count` together with the other threads, each exactly once. Every thread must make the same
    /// sequence of calls with the same counts. Returns when no task is left to take, which is before all are done.
    ///
    /// # Panics
    /// If `count` exceeds `u32::MAX`.
    pub fn share(&self, count: usize, mut task: impl FnMut(usize)) {
        self.share_parts(1, count, |_, i| task(i));
    }

    /// As [`Worker::share`], with `count` tasks in each of some parts; calls `task(part, index)`. The threads begin in different
    /// parts, so that what the tasks of a part have in common stays in their caches, and help in the others afterwards.
    ///
    /// # Panics
    /// If `count` exceeds `u32::MAX`, or there are more parts than threads.
    pub fn share_parts(&self, parts: usize, count: usize, mut task: impl FnMut(usize, usize)) {
        let shared = self.shared;
        assert!(parts <= shared.threads, "{parts} parts for {} threads", shared.threads);
        if shared.threads == 1 {
            (0..parts * count).for_each(|i| task(0, i));
            return;
        }
        let count = u32::try_from(count).expect("a step has at most u32::MAX tasks");
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        for part in 0..parts {
            let part = (self.index + part) % parts;
            while let Some(next) = shared.claim(part, turn, count) {
                task(part, next as usize);
            }
        }
    }
}

impl Shared {
    /// The next of the `count` tasks of a part of a turn, if one is left.
    fn claim(&self, part: usize, turn: u32, count: u32) -> Option<u32> {
        let claims = &self.claims[part].0;
        let mut seen = claims.load(Ordering::Relaxed);
        loop {
            let ahead = turn.wrapping_sub((seen >> 32) as u32) as i32;
            let next = match ahead {
                0 => seen as u32,
                // The others have not come to this turn yet.
                1.. => 0,
                // Another thread is in a later turn, for which it had to find no task left in this one.
                _ => return None,
            };
            if next >= count {
                return None;
            }
            let claimed = u64::from(turn) << 32 | u64::from(next + 1);
            match claims.compare_exchange_weak(seen, claimed, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(next),
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(test)]
mod tests;
