//! The kernel: lanes run along the lines (a line is one head of one row), so that scores, maxima, exponentials and sums
//! need nothing from across a vector, and keys and values are read as they lie in the cache.

use crate::exp::exp;
use crate::tiers::{Kernel, Simd};

/// Vectors of lines in a tile.
pub(super) const VECTORS: usize = 2;

/// The most lines of a tile: two of the widest vectors.
pub(super) const MAX_LINES: usize = 32;

/// Tokens of a block: its scores stay in the first-level cache, with its keys.
pub(super) const BLOCK: usize = 64;

/// One tile of lines over a range of tokens. Every `[…][lines]` array has rows of [`MAX_LINES`] elements.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Queries times the scale, `[head_dim][lines]`.
    pub(super) q: *const f32,
    /// The last token that each line sees, as f32, `[lines]`.
    pub(super) positions: *const f32,
    /// The last token that every line sees.
    pub(super) common: usize,
    /// Token 0 of the keys, `[token][head_dim]`.
    pub(super) keys: *const f32,
    /// Token 0 of the values.
    pub(super) values: *const f32,
    /// The tokens.
    pub(super) begin: usize,
    /// Past the last token.
    pub(super) end: usize,
    /// Width of a head.
    pub(super) head_dim: usize,
    /// Room for `[BLOCK][lines]`.
    pub(super) scores: *mut f32,
    /// Results: the sum of exponentials times values, `[head_dim][lines]`.
    pub(super) out: *mut f32,
    /// Results: the largest score, `[lines]`.
    pub(super) max: *mut f32,
    /// Results: the sum of exponentials, `[lines]`.
    pub(super) sum: *mut f32,
}

/// Attends with `N` vectors of lines.
pub(super) struct Attend<const N: usize>(pub(super) Tile);

impl<const N: usize> Kernel for Attend<N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let tile = &self.0;
        // SAFETY: the caller vouches for the tile.
        unsafe {
            let mut max = [S::splat(f32::NEG_INFINITY); N];
            let mut sum = [S::zero(); N];
            let mut begin = tile.begin;
            while begin < tile.end {
                let tokens = BLOCK.min(tile.end - begin);
                scores::<S, N>(tile, begin, tokens);
                if begin + tokens - 1 > tile.common {
                    mask::<S, N>(tile, begin, tokens);
                }
                // The new maximum, and what the sums so far are worth under it.
                let before = max;
                let mut t = 0;
                while t < tokens {
                    let mut v = 0;
                    while v < N {
                        // The score comes second: where it is no number, so is the maximum.
                        max[v] = S::max(max[v], S::load(tile.scores.add(t * MAX_LINES + v * S::LANES)));
                        v += 1;
                    }
                    t += 1;
                }
                let mut worth = [S::zero(); N];
                let mut v = 0;
                while v < N {
                    worth[v] = exp::<S>(S::sub(before[v], max[v]));
                    sum[v] = S::mul(sum[v], worth[v]);
                    v += 1;
                }
                let mut t = 0;
                while t < tokens {
                    let mut v = 0;
                    while v < N {
                        let at = tile.scores.add(t * MAX_LINES + v * S::LANES);
                        let p = exp::<S>(S::sub(S::load(at), max[v]));
                        S::store(at, p);
                        sum[v] = S::add(sum[v], p);
                        v += 1;
                    }
                    t += 1;
                }
                values::<S, N>(tile, begin, tokens, worth);
                begin += tokens;
            }
            let mut v = 0;
            while v < N {
                S::store(tile.max.add(v * S::LANES), max[v]);
                S::store(tile.sum.add(v * S::LANES), sum[v]);
                v += 1;
            }
        }
    }
}

/// Scores of a block: `scores[t] = q · keys[begin + t]`.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn scores<S: Simd, const N: usize>(tile: &Tile, begin: usize, tokens: usize) {
    // SAFETY: the caller vouches for the tile.
    unsafe {
        let mut t = 0;
        // Eight accumulators at least, to hide the latency of their additions, and no more than there are registers for.
        if N == 1 || S::LANES == 16 {
            while t + 8 <= tokens {
                score::<S, N, 8>(tile, begin, t);
                t += 8;
            }
        }
        while t + 4 <= tokens {
            score::<S, N, 4>(tile, begin, t);
            t += 4;
        }
        while t < tokens {
            score::<S, N, 1>(tile, begin, t);
            t += 1;
        }
    }
}

/// Scores of `TOKENS` tokens from `begin + t` on; asks for their values, which come next.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn score<S: Simd, const N: usize, const TOKENS: usize>(tile: &Tile, begin: usize, t: usize) {
    // SAFETY: the caller vouches for the tile; prefetched addresses need not be valid.
    unsafe {
        let at = (begin + t) * tile.head_dim;
        let keys = tile.keys.add(at);
        let mut sums = [[S::zero(); N]; TOKENS];
        let mut ahead = tile.values.wrapping_add(at).cast::<u8>();
        let mut bytes = 0;
        while bytes < TOKENS * tile.head_dim * 4 {
            S::prefetch(ahead);
            ahead = ahead.wrapping_add(64);
            bytes += 64;
        }
        let mut d = 0;
        while d < tile.head_dim {
            let mut q = [S::zero(); N];
            let mut v = 0;
            while v < N {
                q[v] = S::load(tile.q.add(d * MAX_LINES + v * S::LANES));
                v += 1;
            }
            let mut i = 0;
            while i < TOKENS {
                let key = S::splat(*keys.add(i * tile.head_dim + d));
                let mut v = 0;
                while v < N {
                    sums[i][v] = S::fma(key, q[v], sums[i][v]);
                    v += 1;
                }
                i += 1;
            }
            d += 1;
        }
        let mut i = 0;
        while i < TOKENS {
            let mut v = 0;
            while v < N {
                S::store(tile.scores.add((t + i) * MAX_LINES + v * S::LANES), sums[i][v]);
                v += 1;
            }
            i += 1;
        }
    }
}

/// Scores of tokens that a line does not see become −∞.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn mask<S: Simd, const N: usize>(tile: &Tile, begin: usize, tokens: usize) {
    // SAFETY: the caller vouches for the tile.
    unsafe {
        let mut t = 0;
        while t < tokens {
            let token = S::splat((begin + t) as f32);
            let mut v = 0;
            while v < N {
                let at = tile.scores.add(t * MAX_LINES + v * S::LANES);
                let position = S::load(tile.positions.add(v * S::LANES));
                S::store(at, S::where_le(token, position, S::load(at), S::splat(f32::NEG_INFINITY)));
                v += 1;
            }
            t += 1;
        }
    }
}

/// Adds a block's exponentials times values to what the blocks before it are worth.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn values<S: Simd, const N: usize>(tile: &Tile, begin: usize, tokens: usize, worth: [S::F; N]) {
    // SAFETY: the caller vouches for the tile.
    unsafe {
        let mut d = 0;
        if N == 1 || S::LANES == 16 {
            while d + 8 <= tile.head_dim {
                value::<S, N, 8>(tile, begin, tokens, d, worth);
                d += 8;
            }
        }
        while d + 4 <= tile.head_dim {
            value::<S, N, 4>(tile, begin, tokens, d, worth);
            d += 4;
        }
        while d < tile.head_dim {
            value::<S, N, 1>(tile, begin, tokens, d, worth);
            d += 1;
        }
    }
}

/// The elements `d..d + WIDTH` of a head's results; asks for the next block's keys.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn value<S: Simd, const N: usize, const WIDTH: usize>(
    tile: &Tile,
    begin: usize,
    tokens: usize,
    d: usize,
    worth: [S::F; N],
) {
    // SAFETY: the caller vouches for the tile; prefetched addresses need not be valid.
    unsafe {
        let mut sums = [[S::zero(); N]; WIDTH];
        if begin > tile.begin {
            let mut i = 0;
            while i < WIDTH {
                let mut v = 0;
                while v < N {
                    sums[i][v] = S::mul(worth[v], S::load(tile.out.add((d + i) * MAX_LINES + v * S::LANES)));
                    v += 1;
                }
                i += 1;
            }
        }
        let mut values = tile.values.add(begin * tile.head_dim + d);
        let mut next = tile.keys.wrapping_add((begin + tokens) * tile.head_dim + d);
        let mut t = 0;
        while t < tokens {
            S::prefetch(next.cast());
            let mut p = [S::zero(); N];
            let mut v = 0;
            while v < N {
                p[v] = S::load(tile.scores.add(t * MAX_LINES + v * S::LANES));
                v += 1;
            }
            let mut i = 0;
            while i < WIDTH {
                let value = S::splat(*values.add(i));
                let mut v = 0;
                while v < N {
                    sums[i][v] = S::fma(value, p[v], sums[i][v]);
                    v += 1;
                }
                i += 1;
            }
            values = values.wrapping_add(tile.head_dim);
            next = next.wrapping_add(tile.head_dim);
            t += 1;
        }
        let mut i = 0;
        while i < WIDTH {
            let mut v = 0;
            while v < N {
                S::store(tile.out.add((d + i) * MAX_LINES + v * S::LANES), sums[i][v]);
                v += 1;
            }
            i += 1;
        }
    }
}

/// Adds the results of a later range of tokens to those of an earlier one, for all [`MAX_LINES`] lines.
pub(super) struct Merge {
    /// The earlier results, which become those of both.
    pub(super) into: Results,
    /// The later.
    pub(super) from: Results,
    /// Width of a head.
    pub(super) head_dim: usize,
}

/// What [`Attend`] leaves.
#[derive(Clone, Copy)]
pub(super) struct Results {
    /// `[head_dim][lines]`.
    pub(super) out: *mut f32,
    /// `[lines]`.
    pub(super) max: *mut f32,
    /// `[lines]`.
    pub(super) sum: *mut f32,
}

impl Kernel for Merge {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (a, b) = (self.into, self.from);
        let mut lane = 0;
        while lane < MAX_LINES {
            // SAFETY: the caller vouches for both results.
            unsafe {
                let (a_max, b_max) = (S::load(a.max.add(lane)), S::load(b.max.add(lane)));
                let max = S::max(a_max, b_max);
                let (a_worth, b_worth) = (exp::<S>(S::sub(a_max, max)), exp::<S>(S::sub(b_max, max)));
                let b_sum = S::mul(b_worth, S::load(b.sum.add(lane)));
                S::store(a.sum.add(lane), S::fma(a_worth, S::load(a.sum.add(lane)), b_sum));
                S::store(a.max.add(lane), max);
                let mut d = 0;
                while d < self.head_dim {
                    let at = a.out.add(d * MAX_LINES + lane);
                    let b_out = S::mul(b_worth, S::load(b.out.add(d * MAX_LINES + lane)));
                    S::store(at, S::fma(a_worth, S::load(at), b_out));
                    d += 1;
                }
            }
            lane += S::LANES;
        }
    }
}
