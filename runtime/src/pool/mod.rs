//! Threads that run one closure together.

/// A fixed set of threads; the caller of [`Pool::run`] is the first of them.
pub struct Pool {}

impl Pool {
    /// Starts `threads − 1` threads (at least 0).
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let _ = threads;
        unimplemented!()
    }

    /// How many threads run together.
    pub fn threads(&self) -> usize {
        unimplemented!()
    }

    /// Runs `work` on every thread and returns when all are done. Calls from several threads take turns.
    ///
    /// # Panics
    /// With the first panic of `work`, after all threads have left it; or if called from inside a run.
    pub fn run(&self, work: &(dyn Fn(&Worker) + Sync)) {
        let _ = work;
        unimplemented!()
    }
}

/// One thread of a run.
pub struct Worker<'a> {
    pool: &'a Pool,
}

impl Worker<'_> {
    /// Which thread this is, `0..threads`.
    pub fn index(&self) -> usize {
        unimplemented!()
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Waits until every thread of the run has come here; what they wrote before is visible after.
    pub fn barrier(&self) {
        unimplemented!()
    }

    /// Does the tasks `0..count` together with the other threads, each exactly once. Every thread must make the same
    /// sequence of calls with the same counts. Returns when no task is left to take, which is before all are done.
    pub fn share(&self, count: usize, task: impl FnMut(usize)) {
        let _ = (count, task);
        unimplemented!()
    }
}
