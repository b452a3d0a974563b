//! How the passes of a GEMM that streams its weights are shared out: long runs first, short ones at the end.
//!
//! A long run is one long read from memory. But the threads of a step meet at its end, and whoever comes first waits for what
//! the other has taken last; so a run takes a part of what is left (Polychronopoulos and Kuck, Guided Self-Scheduling,
//! IEEE Transactions on Computers, 1987).

use std::ops::Range;

/// The most bytes of weights in a run of several passes.
const LONGEST: usize = 1 << 20;

/// Fewer bytes than these are not worth a claim.
const SHORTEST: usize = 1 << 15;

/// The runs of a step, found in ascending order: the same ones for every thread.
pub(super) struct Runs {
    passes: usize,
    /// A run takes this fraction of what is left.
    fraction: usize,
    shortest: usize,
    longest: usize,
    index: usize,
    run: Range<usize>,
}

impl Runs {
    /// Runs of so many passes, each of which reads about `bytes` bytes of weights, for so many threads.
    pub(super) fn new(passes: usize, bytes: usize, threads: usize) -> Runs {
        let shortest = (SHORTEST / bytes.max(1)).max(1);
        let longest = (LONGEST / bytes.max(1)).max(shortest);
        let mut runs = Runs { passes, fraction: 2 * threads, shortest, longest, index: 0, run: 0..0 };
        runs.run = runs.after(0);
        runs
    }

    /// How many runs there are.
    pub(super) fn count(&self) -> usize {
        let (mut count, mut end) = (0, 0);
        while end < self.passes {
            end = self.after(end).end;
            count += 1;
        }
        count
    }

    /// The passes of a run, which must not come before the one asked for last.
    pub(super) fn run(&mut self, index: usize) -> Range<usize> {
        debug_assert!(index >= self.index, "runs are claimed in ascending order");
        while self.index < index {
            self.run = self.after(self.run.end);
            self.index += 1;
        }
        self.run.clone()
    }

    /// The run that begins at a pass.
    fn after(&self, begin: usize) -> Range<usize> {
        let left = self.passes - begin;
        begin..begin + left.div_ceil(self.fraction).clamp(self.shortest, self.longest).min(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_is_in_one_run() {
        for (passes, bytes, threads) in [
            (0, 1, 2),
            (1, 0, 1),
            (7, 139_264, 2),
            (2004, 139_264, 2),
            (2004, 139_264, 64),
            (40, 512, 3),
            (3, 1 << 30, 8),
        ] {
            let mut runs = Runs::new(passes, bytes, threads);
            let mut end = 0;
            let mut last = usize::MAX;
            for i in 0..runs.count() {
                let run = runs.run(i);
                assert_eq!(run.start, end);
                assert!(!run.is_empty() && run.len() <= last, "{passes} passes, run {i}: {run:?}");
                (end, last) = (run.end, run.len());
            }
            assert_eq!(end, passes);
        }
    }

    #[test]
    fn long_runs_come_first_and_short_ones_last() {
        let mut runs = Runs::new(64, 139_264, 2);
        let lengths: Vec<usize> = (0..runs.count()).map(|i| runs.run(i).len()).collect();
        assert_eq!(lengths, [7, 7, 7, 7, 7, 7, 6, 4, 3, 3, 2, 1, 1, 1, 1]);
    }
}
