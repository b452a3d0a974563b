//! Which segment a task is of. A step may have thousands of segments, so they are not searched for every task.

use std::ops::{AddAssign, SubAssign};

/// What some segments have of tasks, and of what lies in a row for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Tasks.
    pub(super) tasks: usize,
    /// f32 elements of the parts of their tokens.
    pub(super) partials: usize,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.tasks += other.tasks;
        self.partials += other.partials;
    }
}

impl SubAssign for Count {
    fn sub_assign(&mut self, other: Count) {
        self.tasks -= other.tasks;
        self.partials -= other.partials;
    }
}

/// A segment, and what those before it have. It moves from task to task: a thread takes its tasks in order, so that all its moves
/// together pass every segment once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    segment: usize,
    before: Count,
}

impl Cursor {
    /// At the first segment.
    pub(super) fn at_start() -> Cursor {
        Cursor { segment: 0, before: Count::default() }
    }

    /// Past the last segment of so many, which have `all` together.
    pub(super) fn at_end(segments: usize, all: Count) -> Cursor {
        Cursor { segment: segments, before: all }
    }

    /// Moves to the segment of a task; gives its index and what those before it have. `count` says what a segment has.
    ///
    /// # Panics
    /// If no segment has the task.
    pub(super) fn seek(&mut self, task: usize, count: impl Fn(usize) -> Count) -> (usize, Count) {
        while task < self.before.tasks {
            self.segment -= 1;
            self.before -= count(self.segment);
        }
        loop {
            let here = count(self.segment);
            if task - self.before.tasks < here.tasks {
                return (self.segment, self.before);
            }
            self.before += here;
            self.segment += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Segments of no task, one and several.
    fn count(segment: usize) -> Count {
        Count { tasks: [1, 0, 4, 1, 7][segment % 5], partials: [0, 0, 30, 0, 50][segment % 5] }
    }

    #[test]
    fn every_task_is_found_in_any_order() {
        let mut found = vec![];
        let mut all = Count::default();
        for segment in 0..50 {
            (0..count(segment).tasks).for_each(|_| found.push((segment, all)));
            all += count(segment);
        }
        let mut cursor = Cursor::at_end(50, all);
        for (i, _) in found.iter().enumerate() {
            // 77 has no factor in common with the number of tasks, 130.
            for task in [found.len() - 1 - i, i * 77 % found.len()] {
                assert_eq!(cursor.seek(task, count), found[task]);
            }
        }
        assert_eq!(Cursor::at_start().seek(found.len() - 1, count), found[found.len() - 1]);
    }

    #[test]
    fn tasks_in_order_pass_every_segment_once() {
        const SEGMENTS: usize = 8000;
        let mut all = Count::default();
        (0..SEGMENTS).for_each(|s| all += count(s));
        for stride in [1, 3, 64] {
            let looked = Cell::new(0);
            let counted = |segment| {
                looked.set(looked.get() + 1);
                count(segment)
            };
            let mut cursor = Cursor::at_end(SEGMENTS, all);
            let tasks = (0..all.tasks).rev().step_by(stride);
            for task in tasks.clone() {
                cursor.seek(task, counted);
            }
            assert!(looked.get() <= SEGMENTS + tasks.count(), "{} looks", looked.get());
        }
    }
}
