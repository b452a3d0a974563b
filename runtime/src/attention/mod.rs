//! Attention over a cache with a running maximum: scores are made, used and forgotten block by block.
//!
//! A task is a segment, a key-value head and a tile of lines; a line is one query head of one row, so grouped heads
//! share the keys and values that they load. A step of a single row has few tiles: there the tokens are split, at fixed
//! counts, and the parts merged in order. Neither depends on the number of threads.

mod kernel;
mod single;

use crate::pool::Worker;
use crate::strided::View;
use crate::tiers::Tier;
use kernel::{Attend, BLOCK, MAX_LINES, Merge, Results, Tile, VECTORS};
use single::Single;

/// Rows `row_begin..row_end` of a step, all of one slot, with ascending positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The cache slot.
    pub slot: usize,
    /// First row.
    pub row_begin: usize,
    /// Past the last row.
    pub row_end: usize,
}

/// One attention step; the cache is f32 `[slot][kv head][token][head_dim]`. Every worker passes the same values.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// The instruction set.
    pub tier: Tier,
    /// Queries, axes (row, kv head, group, head_dim); the last stride is 1.
    pub q: View<4>,
    /// Results, the same axes; the last stride is 1.
    pub out: View<4>,
    /// The key cache.
    pub keys: *const f32,
    /// The value cache.
    pub values: *const f32,
    /// Tokens that a slot of the cache has room for; below 2²⁴.
    pub tokens: usize,
    /// `i32[rows]`: each row sees the tokens `0..=position`; all are below `tokens`.
    pub positions: *const i32,
    /// The rows, grouped by slot.
    pub segments: &'a [Segment],
    /// Key-value heads.
    pub kv_heads: usize,
    /// Query heads per key-value head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Scratch of [`shared_scratch`] f32 elements, shared by the workers.
    pub partials: *mut f32,
}

/// Tokens of a part, where the tokens of a single row are split.
const PART: usize = 512;

/// f32 elements that a tile's results take: for every line a head, a maximum and a sum.
fn results_len(head_dim: usize) -> usize {
    MAX_LINES * (head_dim + 2)
}

/// f32 elements of private scratch that a thread needs for [`attention`].
pub fn thread_scratch(head_dim: usize) -> usize {
    MAX_LINES * (head_dim + 1 + BLOCK) + results_len(head_dim)
}

/// f32 elements of scratch that all workers of one [`attention`] need together, if `tokens` is the most tokens of a slot.
pub fn shared_scratch(tokens: usize, kv_heads: usize, group: usize, head_dim: usize) -> usize {
    // The narrowest tier has the most tiles.
    let tiles = group.div_ceil(VECTORS * Tier::Portable.lanes());
    if tokens > PART { kv_heads * tiles * tokens.div_ceil(PART) * results_len(head_dim) } else { 0 }
}

/// Lines of one segment and one head.
#[derive(Clone, Copy)]
struct Lines {
    segment: Segment,
    head: usize,
    begin: usize,
    end: usize,
}

/// A thread's scratch.
#[derive(Clone, Copy)]
struct Scratch {
    q: *mut f32,
    positions: *mut f32,
    scores: *mut f32,
    results: Results,
}

/// Results that begin at an address.
///
/// # Safety
/// [`results_len`] elements must lie there.
unsafe fn results_at(start: *mut f32) -> Results {
    // SAFETY: the caller vouches for the elements.
    unsafe { Results { out: start.add(2 * MAX_LINES), max: start, sum: start.add(MAX_LINES) } }
}

impl AttentionArgs<'_> {
    /// Lines of a tile.
    fn tile_lines(&self) -> usize {
        VECTORS * self.tier.lanes()
    }

    /// Tiles of one head of a segment.
    fn tiles(&self, segment: &Segment) -> usize {
        ((segment.row_end - segment.row_begin) * self.group).div_ceil(self.tile_lines())
    }

    /// The lines of a task.
    fn lines(&self, mut task: usize) -> Lines {
        for segment in self.segments {
            let tiles = self.tiles(segment);
            if task < tiles * self.kv_heads {
                let begin = task % tiles * self.tile_lines();
                let all = (segment.row_end - segment.row_begin) * self.group;
                let end = all.min(begin + self.tile_lines());
                return Lines { segment: *segment, head: task / tiles, begin, end };
            }
            task -= tiles * self.kv_heads;
        }
        unreachable!("a task beyond the last segment")
    }

    /// The row of a line and its head within the group.
    fn row(&self, lines: &Lines, line: usize) -> (usize, usize) {
        (lines.segment.row_begin + line / self.group, line % self.group)
    }

    /// Tokens that a line sees.
    ///
    /// # Safety
    /// The positions must be valid.
    unsafe fn sees(&self, lines: &Lines, line: usize) -> usize {
        // SAFETY: the caller vouches for the positions.
        unsafe { *self.positions.add(self.row(lines, line).0) as usize + 1 }
    }

    /// Attends with a tile of lines to the tokens from `begin` to `end`, and leaves the results unscaled.
    ///
    /// # Safety
    /// As [`attention`]; `begin` must be below the tokens that each line sees.
    unsafe fn attend(&self, lines: &Lines, begin: usize, end: usize, scratch: &Scratch, results: Results) {
        let count = lines.end - lines.begin;
        let head = (lines.segment.slot * self.kv_heads + lines.head) * self.tokens * self.head_dim;
        if lines.segment.row_end - lines.segment.row_begin == 1 && self.group <= single::LINES {
            // SAFETY: the caller vouches for the operands and the scratch.
            unsafe {
                for line in 0..count {
                    let q = self.q.at([lines.segment.row_begin, lines.head, line, 0]);
                    for d in 0..self.head_dim {
                        *scratch.q.add(line * self.head_dim + d) = *q.add(d) * self.scale;
                    }
                }
                let single = Single {
                    q: scratch.q,
                    keys: self.keys.add(head + begin * self.head_dim),
                    values: self.values.add(head + begin * self.head_dim),
                    tokens: end - begin,
                    head_dim: self.head_dim,
                    scores: scratch.scores,
                    sums: scratch.q.add(single::LINES * self.head_dim),
                    results,
                };
                return single::attend(self.tier, count, single);
            }
        }
        let vectors = count.div_ceil(self.tier.lanes());
        // SAFETY: the caller vouches for the operands and the scratch.
        unsafe {
            // Lanes past the last line repeat it, so that they compute nothing unusual.
            for lane in 0..vectors * self.tier.lanes() {
                let line = lines.begin + lane.min(count - 1);
                let (row, g) = self.row(lines, line);
                let q = self.q.at([row, lines.head, g, 0]);
                for d in 0..self.head_dim {
                    *scratch.q.add(d * MAX_LINES + lane) = *q.add(d) * self.scale;
                }
                *scratch.positions.add(lane) = (self.sees(lines, line) - 1) as f32;
            }
            let tile = Tile {
                q: scratch.q,
                positions: scratch.positions,
                common: self.sees(lines, lines.begin) - 1,
                keys: self.keys.add(head),
                values: self.values.add(head),
                begin,
                end,
                head_dim: self.head_dim,
                scores: scratch.scores,
                out: results.out,
                max: results.max,
                sum: results.sum,
            };
            match vectors {
                1 => self.tier.dispatch(Attend::<1>(tile)),
                _ => self.tier.dispatch(Attend::<VECTORS>(tile)),
            }
        }
    }

    /// Divides by the sums and writes the output.
    ///
    /// # Safety
    /// As [`attention`]; the results must be those of the lines.
    unsafe fn finish(&self, lines: &Lines, results: Results) {
        for line in lines.begin..lines.end {
            let (row, g) = self.row(lines, line);
            // SAFETY: the caller vouches for the output and the results.
            unsafe {
                let lane = line - lines.begin;
                let part = 1.0 / *results.sum.add(lane);
                let out = self.out.at([row, lines.head, g, 0]);
                for d in 0..self.head_dim {
                    *out.add(d) = *results.out.add(d * MAX_LINES + lane) * part;
                }
            }
        }
    }
}

/// Computes one attention step together with the other workers of a run, who meet inside where a single row sees more
/// than [`shared_scratch`]'s split; complete after the next barrier.
///
/// # Safety
/// The machine must have the tier. All addresses must be valid for the sizes given, on every worker, until the next
/// barrier; `out` may be `q` but overlaps nothing else.
///
/// # Panics
/// If `scratch` is shorter than [`thread_scratch`] says.
pub unsafe fn attention(worker: &Worker, args: &AttentionArgs, scratch: &mut [f32]) {
    assert!(scratch.len() >= thread_scratch(args.head_dim), "the scratch is too small for the step");
    let start = scratch.as_mut_ptr();
    // SAFETY: these together are as long as `thread_scratch` says.
    let scratch = unsafe {
        let positions = start.add(MAX_LINES * args.head_dim);
        let scores = positions.add(MAX_LINES);
        let results = results_at(scores.add(MAX_LINES * BLOCK));
        Scratch { q: start, positions, scores, results }
    };
    let tasks: usize = args.segments.iter().map(|s| args.tiles(s) * args.kv_heads).sum();
    if let [segment] = args.segments
        && segment.row_end - segment.row_begin == 1
    {
        // SAFETY: the caller vouches for the positions.
        let tokens = unsafe { *args.positions.add(segment.row_begin) } as usize + 1;
        if tokens > PART {
            // SAFETY: the caller vouches for the operands.
            return unsafe { split(worker, args, tasks, tokens, &scratch) };
        }
    }
    worker.share(tasks, |task| {
        // The last tiles of a head see the most tokens: they go first, so that no thread begins one when the others end.
        let lines = args.lines(tasks - 1 - task);
        // SAFETY: the caller vouches for the operands; every line sees token 0.
        unsafe {
            let tokens = args.sees(&lines, lines.end - 1);
            args.attend(&lines, 0, tokens, &scratch, scratch.results);
            args.finish(&lines, scratch.results);
        }
    });
}

/// The step of a single row that sees many tokens: part by part, then merged.
///
/// # Safety
/// As [`attention`].
unsafe fn split(worker: &Worker, args: &AttentionArgs, tiles: usize, tokens: usize, scratch: &Scratch) {
    let parts = tokens.div_ceil(PART);
    // SAFETY: the caller vouches for as many results as there are tiles and parts.
    let results = |i: usize| unsafe { results_at(args.partials.add(i * results_len(args.head_dim))) };
    worker.share(tiles * parts, |task| {
        let begin = task % parts * PART;
        let end = tokens.min(begin + PART);
        // SAFETY: the caller vouches for the operands; the row sees all tokens.
        unsafe { args.attend(&args.lines(task / parts), begin, end, scratch, results(task)) };
    });
    worker.barrier();
    worker.share(tiles, |tile| {
        let into = results(tile * parts);
        for part in 1..parts {
            let from = results(tile * parts + part);
            // SAFETY: the parts are complete since the barrier.
            unsafe { args.tier.dispatch(Merge { into, from, head_dim: args.head_dim }) };
        }
        // SAFETY: the caller vouches for the output.
        unsafe { args.finish(&args.lines(tile), into) };
    });
}

#[cfg(test)]
mod tests;
