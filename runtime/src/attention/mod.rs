//! Attention over a cache with a running maximum: scores are made, used and forgotten block by block.
//!
//! A line is one query head of one row, so grouped heads share the keys and values that they load. A task is a segment, a
//! key-value head and a tile of lines; where a segment is a single row, as in decoding, its tokens are split at fixed
//! counts and the parts merged in order, whatever else the step holds. Nothing depends on the number of threads, and which
//! kernel a segment has can be made independent of how many rows it has ([`AttentionArgs::rows_like`]).

mod cursor;
pub(crate) mod elements;
mod kernel;
mod single;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use elements::is_cache;

use crate::pool::Worker;
use crate::strided::View;
use crate::tiers::Tier;
#[cfg(target_arch = "x86_64")]
use crate::tiers::amx;
use cursor::{Count, Cursor};
use elements::with_elements;
use kernel::{Attend, BLOCK, MAX_LINES, Tile, VECTORS};
use llamac_formats::DType;
use single::{Merge, Part, Single};
use std::marker::PhantomData;

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

impl Segment {
    fn rows(&self) -> usize {
        self.row_end - self.row_begin
    }
}

/// One attention step; the cache is `[slot][kv head][token][head_dim]`. Every worker passes the same values.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// The instruction set.
    pub tier: Tier,
    /// Queries, axes (row, kv head, group, head_dim); the last stride is 1.
    pub q: View<4>,
    /// Results, the same axes; the last stride is 1.
    pub out: View<4>,
    /// The key cache.
    pub keys: *const u8,
    /// The value cache.
    pub values: *const u8,
    /// Element type of both caches; see [`is_cache`].
    pub dtype: DType,
    /// What may be rounded to before it is multiplied: f32 (nothing is) or bf16, of which machines with tiles make use.
    pub act: DType,
    /// Tokens that a slot of the cache has room for; fewer than [`MOST_TOKENS`].
    pub tokens: usize,
    /// `i32[rows]`: each row sees the tokens `0..=position`; all are below `tokens`.
    pub positions: *const i32,
    /// The rows, grouped by slot.
    pub segments: &'a [Segment],
    /// As how many rows each segment is attended with where it has fewer: one row, some and many have kernels of their own,
    /// which round otherwise. 0 leaves every segment its own.
    pub rows_like: usize,
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

/// A slot of the cache has room for fewer tokens: positions are compared as f32, which has whole numbers up to here.
pub const MOST_TOKENS: usize = 1 << 24;

/// Tokens of a part, where the tokens of a single row are split.
const PART: usize = 512;

/// f32 elements of private scratch that a thread needs for [`attention`]; `act` as there.
pub fn thread_scratch(head_dim: usize, act: DType) -> usize {
    let queries = MAX_LINES * head_dim;
    let vectors = queries + MAX_LINES + MAX_LINES * BLOCK + BLOCK * head_dim + MAX_LINES * (head_dim + 2);
    #[cfg(target_arch = "x86_64")]
    if act != DType::F32 {
        return vectors.max(tiles::scratch(head_dim));
    }
    vectors
}

/// f32 elements of scratch that all workers of one [`attention`] need together, if `tokens` is the most tokens of a slot
/// and `segments` the most segments of a step.
pub fn shared_scratch(tokens: usize, segments: usize, kv_heads: usize, group: usize, head_dim: usize) -> usize {
    if tokens > PART { segments * kv_heads * tokens.div_ceil(PART) * Part::len(group, head_dim) } else { 0 }
}

/// Lines of one segment and one head, and the tokens that they attend to.
#[derive(Clone, Copy)]
struct Lines {
    segment: Segment,
    head: usize,
    /// The first line.
    begin: usize,
    /// Past the last line.
    end: usize,
    /// Which of how many parts of the tokens.
    part: usize,
    parts: usize,
    /// Where the segment's parts begin among all.
    partials: usize,
}

/// A thread's scratch.
#[derive(Clone, Copy)]
struct Scratch {
    q: *mut f32,
    positions: *mut f32,
    scores: *mut f32,
    wide: *mut f32,
    results: *mut f32,
}

impl AttentionArgs<'_> {
    /// As how many rows a segment is attended with.
    fn rows_like(&self, segment: &Segment) -> usize {
        segment.rows().max(self.rows_like)
    }

    /// Whether a segment is attended with as a single row.
    fn is_single(&self, segment: &Segment) -> bool {
        self.rows_like(segment) == 1
    }

    /// Whether a segment's products are made in tile registers.
    fn on_tiles(&self, segment: &Segment) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let lines = self.rows_like(segment) * self.group;
            self.tier == Tier::Amx && self.act == DType::BF16 && !self.is_single(segment) && lines >= tiles::LEAST_LINES
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            _ = segment;
            false
        }
    }

    /// Lines of a tile.
    fn tile_lines(&self, segment: &Segment) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.on_tiles(segment) {
            return tiles::LINES;
        }
        if self.is_single(segment) { single::LINES } else { VECTORS * self.tier.lanes() }
    }

    /// Tiles of one head of a segment.
    fn tiles(&self, segment: &Segment) -> usize {
        (segment.rows() * self.group).div_ceil(self.tile_lines(segment))
    }

    /// Parts of the tokens of a segment.
    ///
    /// # Safety
    /// The positions must be valid.
    unsafe fn parts(&self, segment: &Segment) -> usize {
        if !self.is_single(segment) {
            return 1;
        }
        // SAFETY: the caller vouches for the positions.
        let tokens = unsafe { *self.positions.add(segment.row_begin) } as usize + 1;
        tokens.div_ceil(PART)
    }

    /// What a segment has. With `merging` tasks are only those of segments that are split, for all parts together.
    ///
    /// # Safety
    /// The positions must be valid.
    unsafe fn count(&self, segment: &Segment, merging: bool) -> Count {
        let tiles = self.tiles(segment) * self.kv_heads;
        // SAFETY: the caller vouches for the positions.
        match (unsafe { self.parts(segment) }, merging) {
            (1, false) => Count { tasks: tiles, partials: 0 },
            (1, true) => Count::default(),
            (parts, merging) => Count {
                tasks: if merging { tiles } else { tiles * parts },
                partials: self.kv_heads * parts * Part::len(self.group, self.head_dim),
            },
        }
    }

    /// What all segments have.
    ///
    /// # Safety
    /// The positions must be valid.
    unsafe fn count_all(&self, merging: bool) -> Count {
        let mut all = Count::default();
        // SAFETY: the caller vouches for the positions.
        self.segments.iter().for_each(|segment| all += unsafe { self.count(segment, merging) });
        all
    }

    /// The lines of a task, to whose segment the cursor moves.
    ///
    /// # Safety
    /// The positions must be valid.
    unsafe fn lines(&self, task: usize, cursor: &mut Cursor, merging: bool) -> Lines {
        // SAFETY: the caller vouches for the positions.
        let (index, before) = cursor.seek(task, |i| unsafe { self.count(&self.segments[i], merging) });
        let segment = self.segments[index];
        // SAFETY: as above.
        let parts = unsafe { self.parts(&segment) };
        let task = task - before.tasks;
        let (part, task) = if merging { (0, task) } else { (task % parts, task / parts) };
        let tiles = self.tiles(&segment);
        let begin = task % tiles * self.tile_lines(&segment);
        let end = (segment.rows() * self.group).min(begin + self.tile_lines(&segment));
        Lines { segment, head: task / tiles, begin, end, part, parts, partials: before.partials }
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

    /// Bytes from the first key of the cache to the first of these lines.
    fn cache_offset(&self, lines: &Lines) -> usize {
        let row = elements::row_bytes(self.dtype, self.head_dim);
        (lines.segment.slot * self.kv_heads + lines.head) * self.tokens * row
    }

    /// Where a part of a split segment is, for some of its lines.
    ///
    /// # Safety
    /// `partials` must have the elements.
    unsafe fn partial(&self, lines: &Lines, part: usize) -> Part {
        let whole = Part::len(self.group, self.head_dim);
        let at = lines.partials + (lines.head * lines.parts + part) * whole + Part::len(lines.begin, self.head_dim);
        // SAFETY: the caller vouches for the elements.
        unsafe { Part::at(self.partials.add(at), lines.end - lines.begin) }
    }

    /// Attends with lines of a single row to a part of the tokens; the results stay unscaled.
    ///
    /// # Safety
    /// As [`attention`]; the part must have room for the results.
    unsafe fn attend_single(&self, lines: &Lines, scratch: &Scratch, part: Part) {
        let count = lines.end - lines.begin;
        let row = elements::row_bytes(self.dtype, self.head_dim);
        let first = lines.part * PART;
        let offset = self.cache_offset(lines) + first * row;
        // SAFETY: the caller vouches for the operands and the scratch.
        unsafe {
            let tokens = self.sees(lines, lines.begin).min(first + PART) - first;
            for i in 0..count {
                let q = self.q.at([lines.segment.row_begin, lines.head, lines.begin + i, 0]);
                for d in 0..self.head_dim {
                    *scratch.q.add(i * self.head_dim + d) = *q.add(d) * self.scale;
                }
            }
            let single = Single {
                q: scratch.q,
                keys: self.keys.add(offset),
                values: self.values.add(offset),
                tokens,
                head_dim: self.head_dim,
                scores: scratch.scores,
                part,
            };
            single::attend(self.tier, self.dtype, count, single);
        }
    }

    /// Divides a single row's results by the sums and writes the output.
    ///
    /// # Safety
    /// As [`attention`]; the results must be those of the lines.
    unsafe fn finish_single(&self, lines: &Lines, part: Part) {
        for line in lines.begin..lines.end {
            // SAFETY: the caller vouches for the output and the results.
            unsafe {
                let i = line - lines.begin;
                let factor = 1.0 / *part.sum.add(i);
                let out = self.out.at([lines.segment.row_begin, lines.head, line, 0]);
                for d in 0..self.head_dim {
                    *out.add(d) = *part.out.add(i * self.head_dim + d) * factor;
                }
            }
        }
    }

    /// Attends with a tile of lines to all tokens that they see, and writes the output.
    ///
    /// # Safety
    /// As [`attention`].
    unsafe fn attend_tile(&self, lines: &Lines, scratch: &Scratch) {
        let count = lines.end - lines.begin;
        let vectors = count.div_ceil(self.tier.lanes());
        let offset = self.cache_offset(lines);
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
                keys: self.keys.add(offset),
                values: self.values.add(offset),
                end: self.sees(lines, lines.end - 1),
                head_dim: self.head_dim,
                scores: scratch.scores,
                wide: scratch.wide,
                out: scratch.results.add(MAX_LINES),
                sum: scratch.results,
            };
            with_elements!(self.dtype, E => match vectors {
                1 => self.tier.dispatch(Attend::<E, 1>(tile, PhantomData)),
                _ => self.tier.dispatch(Attend::<E, VECTORS>(tile, PhantomData)),
            });
            for line in lines.begin..lines.end {
                let (row, g) = self.row(lines, line);
                let lane = line - lines.begin;
                let factor = 1.0 / *tile.sum.add(lane);
                let out = self.out.at([row, lines.head, g, 0]);
                for d in 0..self.head_dim {
                    *out.add(d) = *tile.out.add(d * MAX_LINES + lane) * factor;
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl AttentionArgs<'_> {
    /// Attends with many lines to all tokens that they see, and writes the output.
    ///
    /// # Safety
    /// As [`attention`]; the machine must have tiles, and `scratch` what they need.
    unsafe fn attend_on_tiles(&self, lines: &Lines, scratch: *mut f32, registers: &amx::Tiles) {
        let count = lines.end - lines.begin;
        let offset = self.cache_offset(lines);
        let width = tiles::padded(self.head_dim);
        // SAFETY: the caller vouches for the operands and the scratch.
        unsafe {
            let mut task = tiles::Task::new(scratch, self.head_dim, self.keys.add(offset), self.values.add(offset));
            let factor = self.scale * tiles::BASE;
            task.lines = count.next_multiple_of(MAX_LINES);
            task.end = self.sees(lines, lines.end - 1);
            // Lanes past the last line repeat it, so that they compute nothing unusual.
            for i in 0..task.lines {
                let line = lines.begin + i.min(count - 1);
                let (row, g) = self.row(lines, line);
                let q = self.q.at([row, lines.head, g, 0]);
                task.pack_query(i, q, factor);
                *task.positions.add(i) = (self.sees(lines, line) - 1) as f32;
            }
            task.attend(self.dtype, registers);
            for line in lines.begin..lines.end {
                let (row, g) = self.row(lines, line);
                let i = line - lines.begin;
                let factor = 1.0 / *task.sum.add(i);
                let out = self.out.at([row, lines.head, g, 0]);
                let from = task.out.add(i / MAX_LINES * MAX_LINES * width + i % MAX_LINES);
                for d in 0..self.head_dim {
                    *out.add(d) = *from.add(d * MAX_LINES) * factor;
                }
            }
        }
    }
}

/// Computes one attention step together with the other workers of a run, who meet inside where a single row sees more
/// tokens than a part has; complete after the next barrier.
///
/// # Safety
/// The machine must have the tier. All addresses must be valid for the sizes given, on every worker, until the next
/// barrier; `out` may be `q` but overlaps nothing else.
///
/// # Panics
/// If `scratch` is shorter than [`thread_scratch`] says.
pub unsafe fn attention(worker: &Worker, args: &AttentionArgs, scratch: &mut [f32]) {
    assert!(scratch.len() >= thread_scratch(args.head_dim, args.act), "the scratch is too small for the step");
    let q = scratch.as_mut_ptr();
    // SAFETY: these together are as long as `thread_scratch` says.
    let scratch = unsafe {
        let positions = q.add(MAX_LINES * args.head_dim);
        let scores = positions.add(MAX_LINES);
        let wide = scores.add(MAX_LINES * BLOCK);
        Scratch { q, positions, scores, wide, results: wide.add(BLOCK * args.head_dim) }
    };
    // SAFETY: the caller vouches for the positions.
    let all = unsafe { args.count_all(false) };
    // The last tiles of a head see the most tokens: they go first, so that no thread begins one when the others end.
    let mut cursor = Cursor::at_end(args.segments.len(), all);
    // Configured by the first task that uses them.
    #[cfg(target_arch = "x86_64")]
    let mut tiles: Option<amx::Tiles> = None;
    worker.share(all.tasks, |task| {
        // SAFETY: the caller vouches for the operands; every line sees token 0.
        unsafe {
            let lines = args.lines(all.tasks - 1 - task, &mut cursor, false);
            #[cfg(target_arch = "x86_64")]
            if args.on_tiles(&lines.segment) {
                return args.attend_on_tiles(&lines, scratch.q, tiles.get_or_insert_with(|| amx::Tiles::new()));
            }
            if !args.is_single(&lines.segment) {
                args.attend_tile(&lines, &scratch);
            } else if lines.parts > 1 {
                args.attend_single(&lines, &scratch, args.partial(&lines, lines.part));
            } else {
                let part = Part::at(scratch.results, lines.end - lines.begin);
                args.attend_single(&lines, &scratch, part);
                args.finish_single(&lines, part);
            }
        }
    });
    if all.partials == 0 {
        return;
    }
    worker.barrier();
    // SAFETY: the caller vouches for the positions.
    let split = unsafe { args.count_all(true) };
    let mut cursor = Cursor::at_start();
    worker.share(split.tasks, |task| {
        // SAFETY: the caller vouches for the operands; the parts are complete since the barrier.
        unsafe {
            let lines = args.lines(task, &mut cursor, true);
            let into = args.partial(&lines, 0);
            for part in 1..lines.parts {
                let from = args.partial(&lines, part);
                let merge = Merge { into, from, lines: lines.end - lines.begin, head_dim: args.head_dim };
                args.tier.dispatch(merge);
            }
            args.finish_single(&lines, into);
        }
    });
}

#[cfg(test)]
mod tests;
