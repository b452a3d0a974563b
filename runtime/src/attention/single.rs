//! The kernel for a segment of a single row: its few lines would leave most lanes of the tile kernel idle, and reading the
//! cache is all that it does. So lanes run along the head, and every key and value is loaded once for all lines of the group.

use super::elements::{Elements, with_elements};
use super::kernel::BLOCK;
use crate::exp::exp;
use crate::prefetch::prefetch;
use crate::tiers::{Kernel, Simd, Tier};
use llamac_formats::DType;
use std::marker::PhantomData;

/// The most lines.
pub(super) const LINES: usize = 8;

/// What attending to some tokens leaves, for every line.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// The sum of exponentials times values, `[lines][head_dim]`.
    pub(super) out: *mut f32,
    /// The largest score, `[lines]`.
    pub(super) max: *mut f32,
    /// The sum of exponentials, `[lines]`.
    pub(super) sum: *mut f32,
}

impl Part {
    /// f32 elements that it takes.
    pub(super) fn len(lines: usize, head_dim: usize) -> usize {
        lines * (head_dim + 2)
    }

    /// One that begins at an address.
    ///
    /// # Safety
    /// [`Part::len`] elements must lie there.
    pub(super) unsafe fn at(start: *mut f32, lines: usize) -> Part {
        // SAFETY: the caller vouches for the elements.
        unsafe { Part { out: start.add(2 * lines), max: start, sum: start.add(lines) } }
    }
}

/// All lines see all tokens.
#[derive(Clone, Copy)]
pub(super) struct Single {
    /// Queries times the scale, `[lines][head_dim]`.
    pub(super) q: *const f32,
    /// The first key, rows of the cache's elements.
    pub(super) keys: *const u8,
    /// The first value.
    pub(super) values: *const u8,
    /// Tokens, at least 1.
    pub(super) tokens: usize,
    /// Width of a head.
    pub(super) head_dim: usize,
    /// Room for `[lines][BLOCK]`.
    pub(super) scores: *mut f32,
    /// The results.
    pub(super) part: Part,
}

/// Attends with `N` lines.
struct Attend<E, const N: usize>(Single, PhantomData<E>);

impl<E: Elements, const N: usize> Kernel for Attend<E, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let single = &self.0;
        // SAFETY: the caller vouches for the operands.
        unsafe {
            let mut max = [f32::NEG_INFINITY; N];
            let mut sum = [0.0; N];
            let mut begin = 0;
            while begin < single.tokens {
                let tokens = BLOCK.min(single.tokens - begin);
                // As many accumulators as hide the latency of their additions and fit the registers.
                let mut t = 0;
                if S::LANES == 16 && N <= 4 {
                    while t + 4 <= tokens {
                        scores::<S, E, N, 4>(single, begin, t);
                        t += 4;
                    }
                }
                if S::LANES == 16 || N <= 4 {
                    while t + 2 <= tokens {
                        scores::<S, E, N, 2>(single, begin, t);
                        t += 2;
                    }
                }
                while t < tokens {
                    scores::<S, E, N, 1>(single, begin, t);
                    t += 1;
                }
                let mut worth = [S::zero(); N];
                let mut line = 0;
                while line < N {
                    worth[line] = softmax::<S>(single.scores.add(line * BLOCK), tokens, &mut max[line], &mut sum[line]);
                    line += 1;
                }
                let mut d = 0;
                let wide = if N <= 4 { S::LANES / 4 } else { S::LANES / 8 };
                if wide == 4 {
                    while d + 4 * S::LANES <= single.head_dim {
                        values::<S, E, N, 4>(single, begin, tokens, d, &worth, S::LANES);
                        d += 4 * S::LANES;
                    }
                }
                if wide >= 2 {
                    while d + 2 * S::LANES <= single.head_dim {
                        values::<S, E, N, 2>(single, begin, tokens, d, &worth, S::LANES);
                        d += 2 * S::LANES;
                    }
                }
                while d < single.head_dim {
                    values::<S, E, N, 1>(single, begin, tokens, d, &worth, S::LANES.min(single.head_dim - d));
                    d += S::LANES;
                }
                begin += tokens;
            }
            let mut line = 0;
            while line < N {
                *single.part.max.add(line) = max[line];
                *single.part.sum.add(line) = sum[line];
                line += 1;
            }
        }
    }
}

/// The first `n` elements, or a whole vector.
///
/// # Safety
/// The elements must be there.
#[inline(always)]
unsafe fn load<S: Simd>(from: *const f32, n: usize) -> S::F {
    // SAFETY: the caller vouches for the elements.
    unsafe { if n < S::LANES { S::load_first(from, n) } else { S::load(from) } }
}

/// Stores the first `n` elements, or a whole vector.
///
/// # Safety
/// The elements must be there.
#[inline(always)]
unsafe fn store<S: Simd>(to: *mut f32, x: S::F, n: usize) {
    // SAFETY: the caller vouches for the elements.
    unsafe { if n < S::LANES { S::store_first(to, x, n) } else { S::store(to, x) } }
}

/// Scores of `TOKENS` tokens from `begin + t` on; asks for their values, which come next.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn scores<S: Simd, E: Elements, const N: usize, const TOKENS: usize>(single: &Single, begin: usize, t: usize) {
    // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
    unsafe {
        let row = E::row_bytes(single.head_dim);
        let keys = single.keys.add((begin + t) * row);
        // Spread over the head: all at once they would hold up the loads of keys.
        let mut ahead = single.values.wrapping_add((begin + t) * row);
        let step = E::row_bytes(32) * S::LANES / 32;
        let mut sums = [[S::zero(); N]; TOKENS];
        let mut d = 0;
        while d < single.head_dim {
            let n = S::LANES.min(single.head_dim - d);
            let mut key = [S::zero(); TOKENS];
            let mut i = 0;
            while i < TOKENS {
                S::prefetch(ahead.wrapping_add(i * row));
                key[i] = E::load::<S>(keys.add(i * row), d, n);
                i += 1;
            }
            ahead = ahead.wrapping_add(step);
            let mut line = 0;
            while line < N {
                let q = load::<S>(single.q.add(line * single.head_dim + d), n);
                let mut i = 0;
                while i < TOKENS {
                    sums[i][line] = S::fma(key[i], q, sums[i][line]);
                    i += 1;
                }
                line += 1;
            }
            d += S::LANES;
        }
        let mut line = 0;
        while line < N {
            let to = single.scores.add(line * BLOCK + t);
            if TOKENS == 4 {
                let four = [sums[0][line], sums[1 % TOKENS][line], sums[2 % TOKENS][line], sums[3 % TOKENS][line]];
                S::sum_four(to, four);
            } else {
                let mut i = 0;
                while i < TOKENS {
                    *to.add(i) = S::sum(sums[i][line]);
                    i += 1;
                }
            }
            line += 1;
        }
    }
}

/// Turns a line's scores into exponentials below the new maximum; returns what the sums so far are worth under it.
///
/// # Safety
/// As the kernel: room for [`BLOCK`] scores.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: *mut f32, tokens: usize, max: &mut f32, sum: &mut f32) -> S::F {
    // SAFETY: the caller vouches for the scores; the lanes fit the array.
    unsafe {
        let whole = tokens.next_multiple_of(S::LANES);
        let mut t = tokens;
        while t < whole {
            *scores.add(t) = f32::NEG_INFINITY;
            t += 1;
        }
        let mut largest = S::splat(*max);
        let mut t = 0;
        while t < whole {
            largest = S::max(largest, S::load(scores.add(t)));
            t += S::LANES;
        }
        let mut lanes = [0.0f32; 16];
        S::store(lanes.as_mut_ptr(), largest);
        let before = *max;
        *max = lanes[0];
        let mut lane = 1;
        while lane < S::LANES {
            // A lane that is no number wins, so that it is not lost.
            *max = if *max > lanes[lane] || max.is_nan() { *max } else { lanes[lane] };
            lane += 1;
        }
        let mut partial = S::zero();
        let mut t = 0;
        while t < whole {
            let p = exp::<S>(S::sub(S::load(scores.add(t)), S::splat(*max)));
            S::store(scores.add(t), p);
            partial = S::add(partial, p);
            t += S::LANES;
        }
        let worth = exp::<S>(S::splat(before - *max));
        S::store(lanes.as_mut_ptr(), worth);
        *sum = *sum * lanes[0] + S::sum(partial);
        worth
    }
}

/// The elements of the results from `d` on: `VECTORS` whole vectors, or one of which the first `n` lanes count;
/// asks for the next block's keys.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn values<S: Simd, E: Elements, const N: usize, const VECTORS: usize>(
    single: &Single,
    begin: usize,
    tokens: usize,
    d: usize,
    worth: &[S::F; N],
    n: usize,
) {
    // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
    unsafe {
        let row = E::row_bytes(single.head_dim);
        let mut sums = [[S::zero(); VECTORS]; N];
        if begin > 0 {
            let mut line = 0;
            while line < N {
                let mut v = 0;
                while v < VECTORS {
                    let from = single.part.out.add(line * single.head_dim + d + v * S::LANES);
                    sums[line][v] = S::mul(worth[line], load::<S>(from, n));
                    v += 1;
                }
                line += 1;
            }
        }
        let mut from = single.values.add(begin * row);
        // The first sweep over the block asks for the next keys; past the last block there are none.
        let ask = d == 0 && begin + tokens < single.tokens;
        let mut next = if ask { single.keys.wrapping_add((begin + tokens) * row) } else { from };
        let asked = if ask { row } else { 1 };
        let mut t = 0;
        while t < tokens {
            prefetch::<S>(next, asked);
            let mut value = [S::zero(); VECTORS];
            let mut v = 0;
            while v < VECTORS {
                value[v] = E::load::<S>(from, d + v * S::LANES, n);
                v += 1;
            }
            let mut line = 0;
            while line < N {
                let p = S::splat(*single.scores.add(line * BLOCK + t));
                let mut v = 0;
                while v < VECTORS {
                    sums[line][v] = S::fma(p, value[v], sums[line][v]);
                    v += 1;
                }
                line += 1;
            }
            from = from.wrapping_add(row);
            next = next.wrapping_add(row);
            t += 1;
        }
        let mut line = 0;
        while line < N {
            let mut v = 0;
            while v < VECTORS {
                let to = single.part.out.add(line * single.head_dim + d + v * S::LANES);
                store::<S>(to, sums[line][v], n);
                v += 1;
            }
            line += 1;
        }
    }
}

/// Attends with `lines ≤ LINES` lines to a cache of `dtype`.
///
/// # Safety
/// The machine must have the tier; the operands must be valid.
pub(super) unsafe fn attend(tier: Tier, dtype: DType, lines: usize, single: Single) {
    macro_rules! choose {
        ($elements:ident, $($lines:literal)*) => {
            match lines {
                $(
                    // SAFETY: the caller vouches for the tier and the operands.
                    $lines => unsafe { tier.dispatch(Attend::<$elements, $lines>(single, PhantomData)) },
                )*
                _ => unreachable!("no kernel for {lines} lines"),
            }
        };
    }
    with_elements!(dtype, E => choose!(E, 1 2 3 4 5 6 7 8));
}

/// Adds the part of later tokens to that of earlier ones.
pub(super) struct Merge {
    /// The earlier part, which becomes that of both.
    pub(super) into: Part,
    /// The later.
    pub(super) from: Part,
    /// Lines of both.
    pub(super) lines: usize,
    /// Width of a head.
    pub(super) head_dim: usize,
}

impl Kernel for Merge {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (a, b) = (self.into, self.from);
        let mut line = 0;
        while line < self.lines {
            // SAFETY: the caller vouches for both parts.
            unsafe {
                let (a_max, b_max) = (S::splat(*a.max.add(line)), S::splat(*b.max.add(line)));
                let max = S::max(a_max, b_max);
                let (a_worth, b_worth) = (exp::<S>(S::sub(a_max, max)), exp::<S>(S::sub(b_max, max)));
                let b_sum = S::mul(b_worth, S::splat(*b.sum.add(line)));
                S::store_first(a.sum.add(line), S::fma(a_worth, S::splat(*a.sum.add(line)), b_sum), 1);
                S::store_first(a.max.add(line), max, 1);
                let mut d = 0;
                while d < self.head_dim {
                    let n = S::LANES.min(self.head_dim - d);
                    let at = a.out.add(line * self.head_dim + d);
                    let b_out = S::mul(b_worth, load::<S>(b.out.add(line * self.head_dim + d), n));
                    store::<S>(at, S::fma(a_worth, load::<S>(at, n), b_out), n);
                    d += S::LANES;
                }
            }
            line += 1;
        }
    }
}
