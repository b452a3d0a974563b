//! A tile of sums in registers: rows × panels × the vectors of sixteen outputs (at most four, with four lanes).

use crate::tiers::Simd;
use llamac_formats::PANEL_WIDTH;

/// `for $i in 0..$n { $body }` for constant `$n ≤ 4`, unrolled in the source: registers have no index at run time, and compilers
/// do not unroll loops whose bodies are long.
macro_rules! unrolled {
    ($i:ident < $n:expr => $body:expr) => {
        $crate::gemm::registers::unrolled_to!($i < $n => $body; 0 1 2 3)
    };
}
pub(super) use unrolled;

/// As [`unrolled`], for `$n ≤ 8`.
macro_rules! unrolled_rows {
    ($i:ident < $n:expr => $body:expr) => {
        $crate::gemm::registers::unrolled_to!($i < $n => $body; 0 1 2 3 4 5 6 7)
    };
}
pub(super) use unrolled_rows;

macro_rules! unrolled_to {
    ($i:ident < $n:expr => $body:expr; $($at:literal)*) => {{
        $(if $at < $n {
            let $i = $at;
            $body
        })*
    }};
}
pub(super) use unrolled_to;

/// Sums of `ROWS` rows and `PANELS` panels; the vectors past `16 / LANES` are unused.
pub(super) type Sums<S, const ROWS: usize, const PANELS: usize> = [[[<S as Simd>::F; 4]; PANELS]; ROWS];

/// All sums 0.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub(super) unsafe fn zero<S: Simd, const ROWS: usize, const PANELS: usize>() -> Sums<S, ROWS, PANELS> {
    // SAFETY: the caller vouches for the instruction set.
    [[[unsafe { S::zero() }; 4]; PANELS]; ROWS]
}

/// Reads sums from rows `row_stride` elements apart.
///
/// # Safety
/// The machine must have the instruction set; the rows must hold `16·PANELS` elements.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, const ROWS: usize, const PANELS: usize>(
    sums: &mut Sums<S, ROWS, PANELS>,
    from: *const f32,
    row_stride: usize,
) {
    let mut r = 0;
    while r < ROWS {
        let mut p = 0;
        while p < PANELS {
            let mut v = 0;
            while v < PANEL_WIDTH / S::LANES {
                // SAFETY: the caller vouches for both.
                sums[r][p][v] = unsafe { S::load(from.add(r * row_stride + p * PANEL_WIDTH + v * S::LANES)) };
                v += 1;
            }
            p += 1;
        }
        r += 1;
    }
}

/// Writes sums to rows `row_stride` elements apart.
///
/// # Safety
/// The machine must have the instruction set; the rows must have room for `16·PANELS` elements.
#[inline(always)]
pub(super) unsafe fn store<S: Simd, const ROWS: usize, const PANELS: usize>(
    sums: &Sums<S, ROWS, PANELS>,
    to: *mut f32,
    row_stride: usize,
) {
    let mut r = 0;
    while r < ROWS {
        let mut p = 0;
        while p < PANELS {
            let mut v = 0;
            while v < PANEL_WIDTH / S::LANES {
                // SAFETY: the caller vouches for both.
                unsafe { S::store(to.add(r * row_stride + p * PANEL_WIDTH + v * S::LANES), sums[r][p][v]) };
                v += 1;
            }
            p += 1;
        }
        r += 1;
    }
}

/// Adds the products of one input: sixteen weights of each panel times one activation of each row. The weights wait in
/// registers for the rows, not the rows for the weights: there are fewer of them.
///
/// # Safety
/// The machine must have the instruction set; `ROWS` activations must lie at `a`.
#[inline(always)]
pub(super) unsafe fn add_products<S: Simd, const ROWS: usize, const PANELS: usize>(
    sums: &mut Sums<S, ROWS, PANELS>,
    a: *const f32,
    weights: &[[S::F; 4]; PANELS],
) {
    let mut r = 0;
    while r < ROWS {
        // SAFETY: the caller vouches for both.
        let x = unsafe { S::splat(*a.add(r)) };
        let mut p = 0;
        while p < PANELS {
            let mut v = 0;
            while v < PANEL_WIDTH / S::LANES {
                // SAFETY: the caller vouches for the instruction set.
                sums[r][p][v] = unsafe { S::fma(x, weights[p][v], sums[r][p][v]) };
                v += 1;
            }
            p += 1;
        }
        r += 1;
    }
}
