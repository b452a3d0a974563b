//! The kernel for a single row: its few lines would leave most lanes of the tile kernel idle, and reading the cache is
//! all that it does. So lanes run along the head, and every key and value is loaded once for all lines of the group.

use super::kernel::{BLOCK, MAX_LINES, Results};
use crate::exp::exp;
use crate::tiers::{Kernel, Simd, Tier};

/// The most lines.
pub(super) const LINES: usize = 8;

/// All lines see all tokens.
#[derive(Clone, Copy)]
pub(super) struct Single {
    /// Queries times the scale, `[lines][head_dim]`.
    pub(super) q: *const f32,
    /// The first key, `[token][head_dim]`.
    pub(super) keys: *const f32,
    /// The first value.
    pub(super) values: *const f32,
    /// Tokens.
    pub(super) tokens: usize,
    /// Width of a head.
    pub(super) head_dim: usize,
    /// Room for `[lines][BLOCK]`.
    pub(super) scores: *mut f32,
    /// Room for `[lines][head_dim]`.
    pub(super) sums: *mut f32,
    /// Results, as those of the tile kernel.
    pub(super) results: Results,
}

/// Attends with `N` lines.
struct Attend<const N: usize>(Single);

impl<const N: usize> Kernel for Attend<N> {
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
                        scores::<S, N, 4>(single, begin, t);
                        t += 4;
                    }
                }
                if S::LANES == 16 || N <= 4 {
                    while t + 2 <= tokens {
                        scores::<S, N, 2>(single, begin, t);
                        t += 2;
                    }
                }
                while t < tokens {
                    scores::<S, N, 1>(single, begin, t);
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
                        values::<S, N, 4>(single, begin, tokens, d, &worth, S::LANES);
                        d += 4 * S::LANES;
                    }
                }
                if wide >= 2 {
                    while d + 2 * S::LANES <= single.head_dim {
                        values::<S, N, 2>(single, begin, tokens, d, &worth, S::LANES);
                        d += 2 * S::LANES;
                    }
                }
                while d < single.head_dim {
                    values::<S, N, 1>(single, begin, tokens, d, &worth, S::LANES.min(single.head_dim - d));
                    d += S::LANES;
                }
                begin += tokens;
            }
            let mut line = 0;
            while line < N {
                *single.results.max.add(line) = max[line];
                *single.results.sum.add(line) = sum[line];
                let mut d = 0;
                while d < single.head_dim {
                    *single.results.out.add(d * MAX_LINES + line) = *single.sums.add(line * single.head_dim + d);
                    d += 1;
                }
                line += 1;
            }
        }
    }
}

/// The first `n` elements, or a whole vector.
#[inline(always)]
unsafe fn load<S: Simd>(from: *const f32, n: usize) -> S::F {
    // SAFETY: the caller vouches for the elements.
    unsafe { if n < S::LANES { S::load_first(from, n) } else { S::load(from) } }
}

/// Scores of `TOKENS` tokens from `begin + t` on; asks for their values, which come next.
///
/// # Safety
/// As the kernel.
#[inline(always)]
unsafe fn scores<S: Simd, const N: usize, const TOKENS: usize>(single: &Single, begin: usize, t: usize) {
    // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
    unsafe {
        let keys = single.keys.add((begin + t) * single.head_dim);
        let mut sums = [[S::zero(); N]; TOKENS];
        let mut d = 0;
        while d < single.head_dim {
            let n = single.head_dim - d;
            let mut key = [S::zero(); TOKENS];
            let mut i = 0;
            while i < TOKENS {
                let at = keys.add(i * single.head_dim + d);
                S::prefetch(single.values.wrapping_add((begin + t + i) * single.head_dim + d).cast());
                key[i] = load::<S>(at, n);
                i += 1;
            }
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
        let mut i = 0;
        while i < TOKENS {
            let mut line = 0;
            while line < N {
                *single.scores.add(line * BLOCK + t + i) = S::sum(sums[i][line]);
                line += 1;
            }
            i += 1;
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
unsafe fn values<S: Simd, const N: usize, const VECTORS: usize>(
    single: &Single,
    begin: usize,
    tokens: usize,
    d: usize,
    worth: &[S::F; N],
    n: usize,
) {
    // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
    unsafe {
        let mut sums = [[S::zero(); VECTORS]; N];
        if begin > 0 {
            let mut line = 0;
            while line < N {
                let mut v = 0;
                while v < VECTORS {
                    let from = single.sums.add(line * single.head_dim + d + v * S::LANES);
                    sums[line][v] = S::mul(worth[line], load::<S>(from, n));
                    v += 1;
                }
                line += 1;
            }
        }
        let mut from = single.values.add(begin * single.head_dim + d);
        let last = begin + tokens == single.tokens;
        let mut next = if last { from } else { single.keys.add((begin + tokens) * single.head_dim + d) };
        let mut t = 0;
        while t < tokens {
            let mut value = [S::zero(); VECTORS];
            let mut v = 0;
            while v < VECTORS {
                S::prefetch(next.wrapping_add(v * S::LANES).cast());
                value[v] = load::<S>(from.add(v * S::LANES), n);
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
            from = from.wrapping_add(single.head_dim);
            next = next.wrapping_add(single.head_dim);
            t += 1;
        }
        let mut line = 0;
        while line < N {
            let mut v = 0;
            while v < VECTORS {
                let to = single.sums.add(line * single.head_dim + d + v * S::LANES);
                if n < S::LANES {
                    S::store_first(to, sums[line][v], n);
                } else {
                    S::store(to, sums[line][v]);
                }
                v += 1;
            }
            line += 1;
        }
    }
}

/// Attends with `lines ≤ LINES` lines.
///
/// # Safety
/// The machine must have the tier; the operands must be valid.
pub(super) unsafe fn attend(tier: Tier, lines: usize, single: Single) {
    macro_rules! choose {
        ($($lines:literal)*) => {
            match lines {
                $(
                    // SAFETY: the caller vouches for the tier and the operands.
                    $lines => unsafe { tier.dispatch(Attend::<$lines>(single)) },
                )*
                _ => unreachable!("no kernel for {lines} lines"),
            }
        };
    }
    choose!(1 2 3 4 5 6 7 8)
}
