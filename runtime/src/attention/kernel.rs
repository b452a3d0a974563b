//! The kernel: lanes run along the lines (a line is one head of one row), so that scores, maxima, exponentials and sums
//! need nothing from across a vector. Keys and values in f32 are read as they lie in the cache, others block by block from
//! a copy in f32: what that costs is shared by all lines.

use super::elements::Elements;
use crate::exp::exp;
use crate::prefetch::prefetch;
use crate::tiers::{Kernel, Simd};
use std::marker::PhantomData;

/// Vectors of lines in a tile.
pub(super) const VECTORS: usize = 2;

/// The most lines of a tile: two of the widest vectors.
pub(super) const MAX_LINES: usize = 32;

/// Tokens of a block: its scores stay in the first-level cache, with its keys.
pub(super) const BLOCK: usize = 64;

/// One tile of lines over all tokens that they see. Every `[…][lines]` array has rows of [`MAX_LINES`] elements.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Queries times the scale, `[head_dim][lines]`.
    pub(super) q: *const f32,
    /// The last token that each line sees, as f32, `[lines]`.
    pub(super) positions: *const f32,
    /// The last token that every line sees.
    pub(super) common: usize,
    /// Token 0 of the keys, rows of the cache's elements.
    pub(super) keys: *const u8,
    /// Token 0 of the values.
    pub(super) values: *const u8,
    /// Tokens; the first line sees at least one of them.
    pub(super) end: usize,
    /// Width of a head.
    pub(super) head_dim: usize,
    /// Room for `[BLOCK][lines]`.
    pub(super) scores: *mut f32,
    /// Room for the keys or values of a block as f32, unless the cache is f32.
    pub(super) wide: *mut f32,
    /// Results: the sum of exponentials times values, `[head_dim][lines]`.
    pub(super) out: *mut f32,
    /// Results: the sum of exponentials, `[lines]`.
    pub(super) sum: *mut f32,
}

/// Attends with `N` vectors of lines.
pub(super) struct Attend<E, const N: usize>(pub(super) Tile, pub(super) PhantomData<E>);

impl<E: Elements, const N: usize> Kernel for Attend<E, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let tile = &self.0;
        // SAFETY: the caller vouches for the tile.
        unsafe {
            let mut max = [S::splat(f32::NEG_INFINITY); N];
            let mut sum = [S::zero(); N];
            let mut begin = 0;
            while begin < tile.end {
                let tokens = BLOCK.min(tile.end - begin);
                let keys = widened::<S, E>(tile, tile.keys, begin, tokens);
                scores::<S, E, N>(tile, keys, begin, tokens);
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
                let from = widened::<S, E>(tile, tile.values, begin, tokens);
                values::<S, E, N>(tile, from, begin, tokens, worth);
                begin += tokens;
            }
            let mut v = 0;
            while v < N {
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
unsafe fn scores<S: Simd, E: Elements, const N: usize>(tile: &Tile, keys: *const f32, begin: usize, tokens: usize) {
    // SAFETY: the caller vouches for the tile.
    unsafe {
        let mut t = 0;
        // Eight accumulators at least, to hide the latency of their additions, and no more than there are registers for.
        if N == 1 || S::LANES == 16 {
            while t + 8 <= tokens {
                score::<S, E, N, 8>(tile, keys, begin, t);
                t += 8;
            }
        }
        while t + 4 <= tokens {
            score::<S, E, N, 4>(tile, keys, begin, t);
            t += 4;
        }
        while t < tokens {
            score::<S, E, N, 1>(tile, keys, begin, t);
            t += 1;
        }
    }
}

/// Scores of `TOKENS` tokens from `begin + t` on; asks for their values, which come next.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn score<S: Simd, E: Elements, const N: usize, const TOKENS: usize>(
    tile: &Tile,
    keys: *const f32,
    begin: usize,
    t: usize,
) {
    // SAFETY: the caller vouches for the tile; prefetched addresses need not be valid.
    unsafe {
        let keys = keys.add(t * tile.head_dim);
        let mut sums = [[S::zero(); N]; TOKENS];
        let row = E::row_bytes(tile.head_dim);
        prefetch::<S>(tile.values.wrapping_add((begin + t) * row), TOKENS * row);
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
unsafe fn values<S: Simd, E: Elements, const N: usize>(
    tile: &Tile,
    from: *const f32,
    begin: usize,
    tokens: usize,
    worth: [S::F; N],
) {
    // SAFETY: the caller vouches for the tile.
    unsafe {
        let mut d = 0;
        if N == 1 || S::LANES == 16 {
            while d + 8 <= tile.head_dim {
                value::<S, E, N, 8>(tile, from, begin, tokens, d, worth);
                d += 8;
            }
        }
        while d + 4 <= tile.head_dim {
            value::<S, E, N, 4>(tile, from, begin, tokens, d, worth);
            d += 4;
        }
        while d < tile.head_dim {
            value::<S, E, N, 1>(tile, from, begin, tokens, d, worth);
            d += 1;
        }
    }
}

/// The elements `d..d + WIDTH` of a head's results; asks for the next block's keys.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn value<S: Simd, E: Elements, const N: usize, const WIDTH: usize>(
    tile: &Tile,
    from: *const f32,
    begin: usize,
    tokens: usize,
    d: usize,
    worth: [S::F; N],
) {
    // SAFETY: the caller vouches for the tile; prefetched addresses need not be valid.
    unsafe {
        let mut sums = [[S::zero(); N]; WIDTH];
        if begin > 0 {
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
        let mut values = from.add(d);
        // The first elements ask for the next block's keys.
        let row = if d == 0 { E::row_bytes(tile.head_dim) } else { 0 };
        let mut next = tile.keys.wrapping_add((begin + tokens) * row);
        let mut t = 0;
        while t < tokens {
            prefetch::<S>(next, row);
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
            next = next.wrapping_add(row);
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

/// The keys or values of a block as f32, `[token][head_dim]`, of which `begin` is the first.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn widened<S: Simd, E: Elements>(tile: &Tile, rows: *const u8, begin: usize, tokens: usize) -> *const f32 {
    // SAFETY: the caller vouches for the tile.
    unsafe {
        let row = E::row_bytes(tile.head_dim);
        let mut from = rows.add(begin * row);
        if E::WIDE {
            return from.cast();
        }
        let mut to = tile.wide;
        let mut t = 0;
        while t < tokens {
            let mut d = 0;
            while d < tile.head_dim {
                let n = S::LANES.min(tile.head_dim - d);
                let x = E::load::<S>(from, d, n);
                if n < S::LANES {
                    S::store_first(to.add(d), x, n);
                } else {
                    S::store(to.add(d), x);
                }
                d += S::LANES;
            }
            from = from.wrapping_add(row);
            to = to.wrapping_add(tile.head_dim);
            t += 1;
        }
        tile.wide
    }
}
