//! The kernel for many lines on a machine with tile registers: products of bf16, sums and the running maximum in f32.
//!
//! Everything is transposed, so that lanes run along the lines as in the vector kernel: scores are keys times queries,
//! results are values times exponentials. Keys then go into tiles as they lie in the cache and exponentials in pairs of
//! tokens; values alone are turned around, once for all lines of a task.

use super::elements::{Elements, F32, with_elements};
use super::kernel::MAX_LINES;
use crate::tiers::amx::{self, INPUTS, Narrow, NarrowKernel, Product, ROWS, Tiles, multiply};
use llamac_formats::DType;
use std::marker::PhantomData;

/// The most lines of a task: they share the packed keys and values.
pub(super) const LINES: usize = 256;

/// Lines of a segment and a head from which tiles are faster than vectors.
pub(super) const LEAST_LINES: usize = 32;

/// Tokens of a block.
const BLOCK: usize = 64;

/// Factor on the scores, whose exponentials are powers of two here.
pub(super) const BASE: f32 = std::f32::consts::LOG2_E;

/// From here down a power of two is 0 beside the largest, which is 1.
const LOWEST: f32 = -126.0;

/// Adding and subtracting it rounds to a whole number where |x| < 2²².
const ROUND: f32 = 12_582_912.0;

/// Coefficients of 2ˣ for |x| ≤ ½, highest power first. The next term is 4·10⁻⁵, a fiftieth of what rounding to bf16 may do.
const POWER: [f32; 5] = [9.618_129e-3, 5.550_411e-2, 0.240_226_5, std::f32::consts::LN_2, 1.0];

/// What goes into a task and comes out of it. Widths are padded to whole tiles: see [`padded`].
#[derive(Clone, Copy)]
pub(super) struct Task {
    /// Queries times the scale and [`BASE`] as bf16, `[lines / 16][head_dim / 2][16][2]`.
    pub(super) q: *mut u16,
    /// The last token that each line sees, as f32, ascending, `[lines]`.
    pub(super) positions: *mut f32,
    /// Lines, whole groups of [`MAX_LINES`].
    pub(super) lines: usize,
    /// Token 0 of the keys, rows of the cache's elements.
    pub(super) keys: *const u8,
    /// Token 0 of the values.
    pub(super) values: *const u8,
    /// Tokens that the last line sees.
    pub(super) end: usize,
    /// Width of a head.
    pub(super) head_dim: usize,
    /// Results: the sum of exponentials times values, `[lines / 32][head_dim][32]`.
    pub(super) out: *mut f32,
    /// Results: the sum of exponentials, `[lines]`.
    pub(super) sum: *mut f32,
    max: *mut f32,
    scores: *mut f32,
    exponentials: *mut u16,
    packed_keys: *mut u16,
    packed_values: *mut u16,
    pairs: *mut u32,
}

/// Width of a head in whole pairs of tiles.
pub(super) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(INPUTS)
}

/// f32 elements of scratch that a task needs.
pub(super) fn scratch(head_dim: usize) -> usize {
    let width = padded(head_dim);
    LINES * width * 3 / 2 + 3 * LINES + BLOCK * MAX_LINES * 3 / 2 + BLOCK * width * 3 / 2
}

impl Task {
    /// A task in scratch, of which [`scratch`] elements must be there; the caller fills in queries, positions and lines.
    ///
    /// # Safety
    /// The scratch must be as long.
    pub(super) unsafe fn new(scratch: *mut f32, head_dim: usize, keys: *const u8, values: *const u8) -> Task {
        let width = padded(head_dim);
        let mut at = scratch;
        let mut take = |elements: usize| {
            let here = at;
            at = at.wrapping_add(elements);
            here
        };
        Task {
            q: take(LINES * width / 2).cast(),
            positions: take(LINES),
            lines: 0,
            keys,
            values,
            end: 0,
            head_dim,
            out: take(LINES * width),
            sum: take(LINES),
            max: take(LINES),
            scores: take(BLOCK * MAX_LINES),
            exponentials: take(BLOCK * MAX_LINES / 2).cast(),
            packed_keys: take(BLOCK * width / 2).cast(),
            packed_values: take(BLOCK * width / 2).cast(),
            pairs: take(BLOCK * width / 2).cast(),
        }
    }

    /// Packs a line's query, times a factor.
    ///
    /// # Safety
    /// The machine must have the tier; `head_dim` elements must lie at `from`.
    pub(super) unsafe fn pack_query(&self, line: usize, from: *const f32, factor: f32) {
        // SAFETY: the caller vouches for the machine and the elements.
        unsafe { amx::enter(PackQuery { task: self, line, from, factor }) };
    }

    /// Attends to a cache of `dtype`.
    ///
    /// # Safety
    /// The machine must have the tier; the operands must be valid.
    pub(super) unsafe fn attend(self, dtype: DType, tiles: &Tiles) {
        // SAFETY: the caller vouches for the machine and the operands.
        with_elements!(dtype, E => unsafe { amx::enter(Attend::<E>(self, tiles, PhantomData)) });
    }
}

struct Attend<'a, E>(Task, &'a Tiles, PhantomData<E>);

impl<E: Elements> NarrowKernel for Attend<'_, E> {
    #[inline(always)]
    unsafe fn run<S: Narrow>(self) {
        let Attend(task, tiles, _) = self;
        let mut begin = 0;
        // SAFETY: the caller vouches for the task.
        unsafe {
            while begin < task.end {
                let tokens = BLOCK.min(task.end - begin);
                pack_keys::<S, E>(&task, begin, tokens);
                pack_values::<S, E>(&task, begin, tokens);
                let mut first = 0;
                while first < task.lines {
                    // Positions ascend: the last line of a group sees the most.
                    if *task.positions.add(first + MAX_LINES - 1) >= begin as f32 {
                        group::<S>(&task, tiles, begin, first);
                    }
                    first += MAX_LINES;
                }
                begin += BLOCK;
            }
        }
    }
}

struct PackQuery<'a> {
    task: &'a Task,
    line: usize,
    from: *const f32,
    factor: f32,
}

impl NarrowKernel for PackQuery<'_> {
    #[inline(always)]
    unsafe fn run<S: Narrow>(self) {
        let PackQuery { task, line, from, factor } = self;
        let width = padded(task.head_dim);
        // SAFETY: the caller vouches for the query; the room for pairs of a block is more than a line.
        unsafe {
            let row = task.pairs;
            let mut d = 0;
            while d < width {
                let first = load::<S, F32>(from.cast(), d, task.head_dim);
                let second = load::<S, F32>(from.cast(), d + S::LANES, task.head_dim);
                let factor = S::splat(factor);
                S::store_two(row.add(d / 2).cast(), S::mul(first, factor), S::mul(second, factor));
                d += INPUTS;
            }
            let to = task.q.add(line / ROWS * ROWS * width).cast::<u32>().add(line % ROWS);
            let mut pair = 0;
            while pair < width / 2 {
                *to.add(pair * ROWS) = *row.add(pair);
                pair += 1;
            }
        }
    }
}

/// A vector of a row from element `d` on; zero past its end.
///
/// # Safety
/// The row must be there.
#[inline(always)]
unsafe fn load<S: Narrow, E: Elements>(row: *const u8, d: usize, head_dim: usize) -> S::F {
    // SAFETY: the caller vouches for the row.
    unsafe { if d < head_dim { E::load::<S>(row, d, S::LANES.min(head_dim - d)) } else { S::zero() } }
}

/// Packs the keys of a block as `[token / 16][head_dim / 32][16][32]`; those past the last token are 0.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn pack_keys<S: Narrow, E: Elements>(task: &Task, begin: usize, tokens: usize) {
    let width = padded(task.head_dim);
    let row = E::row_bytes(task.head_dim);
    let mut t = 0;
    while t < BLOCK {
        // SAFETY: the caller vouches for the keys and the room.
        unsafe {
            let from = task.keys.wrapping_add((begin + t) * row);
            let to = task.packed_keys.add(t / ROWS * ROWS * width + t % ROWS * INPUTS);
            let mut d = 0;
            while d < width {
                let (first, second) = if t < tokens {
                    (load::<S, E>(from, d, task.head_dim), load::<S, E>(from, d + S::LANES, task.head_dim))
                } else {
                    (S::zero(), S::zero())
                };
                S::store_two(to.add(d * ROWS), first, second);
                d += INPUTS;
            }
        }
        t += 1;
    }
}

/// Packs the values of a block, turned around, as `[head_dim / 16][token / 32][16][32]`; those past the last token are 0.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn pack_values<S: Narrow, E: Elements>(task: &Task, begin: usize, tokens: usize) {
    const PAIRS: usize = BLOCK / 2;
    let width = padded(task.head_dim);
    let row = E::row_bytes(task.head_dim);
    // SAFETY: the caller vouches for the values and the room.
    unsafe {
        let mut pair = 0;
        while pair < PAIRS {
            let t = 2 * pair;
            let from = task.values.wrapping_add((begin + t) * row);
            let mut d = 0;
            while d < width {
                let first = if t < tokens { load::<S, E>(from, d, task.head_dim) } else { S::zero() };
                let second =
                    if t + 1 < tokens { load::<S, E>(from.wrapping_add(row), d, task.head_dim) } else { S::zero() };
                S::store_pairs(task.pairs.add(pair * width + d).cast(), first, second);
                d += S::LANES;
            }
            pair += 1;
        }
        // Pairs of tokens stay together, so what is turned around are words.
        let to = task.packed_values.cast::<u32>();
        let mut d = 0;
        while d < width {
            let tile = to.add(d / ROWS * ROWS * PAIRS + d % ROWS * (INPUTS / 2));
            let mut step = 0;
            while step < BLOCK / INPUTS {
                let mut i = 0;
                while i < INPUTS / 2 {
                    let pair = step * (INPUTS / 2) + i;
                    *tile.add(step * ROWS * (INPUTS / 2) + i) = *task.pairs.add(pair * width + d);
                    i += 1;
                }
                step += 1;
            }
            d += 1;
        }
    }
}

/// Attends with the [`MAX_LINES`] lines from `first` on to a packed block.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn group<S: Narrow>(task: &Task, tiles: &Tiles, begin: usize, first: usize) {
    const VECTORS: usize = 2;
    const STRIDE: usize = MAX_LINES * 4;
    let width = padded(task.head_dim);
    // SAFETY: the caller vouches for the task; lanes are 16 on every machine with tiles.
    unsafe {
        let q = task.q.add(first * width);
        let out = task.out.add(first * width);
        let mut t = 0;
        while t < BLOCK {
            let keys = task.packed_keys.add(t * width);
            let scores = task.scores.add(t * MAX_LINES);
            let product = Product {
                a: [keys.cast(), keys.add(ROWS * width).cast()],
                row_tiles: 2,
                b: [q.cast(), q.add(ROWS * width).cast()],
                panels: 2,
                steps: width / INPUTS,
                sums: [scores, scores.add(ROWS)],
                stride: STRIDE,
                fresh: true,
            };
            multiply(tiles, &product);
            t += 2 * ROWS;
        }
        let mut v = 0;
        while v < VECTORS {
            let line = first + v * S::LANES;
            let scores = task.scores.add(v * S::LANES);
            let positions = S::load(task.positions.add(line));
            if *task.positions.add(first) < (begin + BLOCK - 1) as f32 {
                let mut t = 0;
                while t < BLOCK {
                    let at = scores.add(t * MAX_LINES);
                    let seen =
                        S::where_le(S::splat((begin + t) as f32), positions, S::load(at), S::splat(f32::NEG_INFINITY));
                    S::store(at, seen);
                    t += 1;
                }
            }
            let before = if begin == 0 { S::splat(f32::NEG_INFINITY) } else { S::load(task.max.add(line)) };
            let mut several = [before; 4];
            let mut t = 0;
            while t < BLOCK {
                let mut i = 0;
                while i < 4 {
                    // A score that is no number may be passed over here: its exponential is none either.
                    several[i] = S::max(several[i], S::load(scores.add((t + i) * MAX_LINES)));
                    i += 1;
                }
                t += 4;
            }
            let max = S::max(S::max(several[0], several[1]), S::max(several[2], several[3]));
            let worth = power::<S>(S::sub(before, max));
            let mut sum = S::zero();
            let mut t = 0;
            while t < BLOCK {
                let x = power::<S>(S::sub(S::load(scores.add(t * MAX_LINES)), max));
                let y = power::<S>(S::sub(S::load(scores.add((t + 1) * MAX_LINES)), max));
                S::store_pairs(task.exponentials.add(v * BLOCK * ROWS + t * ROWS), x, y);
                sum = S::add(sum, S::add(x, y));
                t += 2;
            }
            S::store(task.max.add(line), max);
            let so_far = if begin == 0 { S::zero() } else { S::mul(worth, S::load(task.sum.add(line))) };
            S::store(task.sum.add(line), S::add(so_far, sum));
            // Seldom anything but 1 once many tokens were seen. What is no number is not 0 either.
            if begin > 0 && S::sum(S::sub(S::splat(1.0), worth)) != 0.0 {
                let mut d = 0;
                while d < width {
                    let at = out.add(d * MAX_LINES + v * S::LANES);
                    S::store(at, S::mul(worth, S::load(at)));
                    d += 1;
                }
            }
            v += 1;
        }
        let mut d = 0;
        while d < width {
            let values = task.packed_values.add(d * BLOCK);
            let sums = out.add(d * MAX_LINES);
            let product = Product {
                a: [values.cast(), values.add(ROWS * BLOCK).cast()],
                row_tiles: 2,
                b: [task.exponentials.cast(), task.exponentials.add(ROWS * BLOCK).cast()],
                panels: 2,
                steps: BLOCK / INPUTS,
                sums: [sums, sums.add(ROWS)],
                stride: STRIDE,
                fresh: begin == 0,
            };
            multiply(tiles, &product);
            d += 2 * ROWS;
        }
    }
}

/// 2ˣ in each lane, for x ≤ 0, about as exact as bf16 asks; no number of no number. Exactly 0 from [`LOWEST`] down: of what a line
/// does not see nothing comes through, however large the values are.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
unsafe fn power<S: Narrow>(x: S::F) -> S::F {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let below = x;
        // `max` gives its second operand where one is no number.
        let x = S::max(S::splat(LOWEST), x);
        let n = S::sub(S::add(x, S::splat(ROUND)), S::splat(ROUND));
        let r = S::sub(x, n);
        let mut p = S::splat(POWER[0]);
        let mut i = 1;
        while i < POWER.len() {
            p = S::fma(p, r, S::splat(POWER[i]));
            i += 1;
        }
        S::where_le(below, S::splat(LOWEST), S::zero(), S::scale(p, n))
    }
}
