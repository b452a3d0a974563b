//! Few rows: the weights are read once, straight from memory, and widened in registers.

use super::weights::{BF16, F16, F32, Weights};
use crate::tiers::{Kernel, Simd, Tier};
use llamac_formats::{DType, PANEL_WIDTH};
use std::marker::PhantomData;

/// The most rows of one pass.
pub(super) const MAX_ROWS: usize = 12;

/// The most panels of one pass.
pub(super) const MAX_PANELS: usize = 4;

/// How far ahead the weights are asked for, bytes: past the end of a 4 KiB page, where the hardware's prefetchers stop.
const AHEAD: usize = 4096;

/// The most rows that a tier holds in registers with at least one panel.
pub(super) fn rows_of(tier: Tier) -> usize {
    match tier.lanes() {
        16 => 12,
        8 => 6,
        _ => 3,
    }
}

/// How many panels go side by side: several streams hide the latency of memory, as far as there are registers.
pub(super) fn panels_of(tier: Tier, rows: usize) -> usize {
    match (tier.lanes(), rows) {
        (16, 1..=4) | (8, 1) => 4,
        (16, _) | (8, 2..=3) | (_, 1) => 2,
        _ => 1,
    }
}

/// One pass: `ROWS` rows times `PANELS` panels, every product added in the order of the inputs.
struct Stream<W, const ROWS: usize, const PANELS: usize> {
    weights: PhantomData<W>,
    pass: Pass,
}

/// The operands of a pass.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    /// Activations, `[k][rows]`.
    pub(super) a: *const f32,
    /// Inputs.
    pub(super) k: usize,
    /// The first panel.
    pub(super) panels: *const u8,
    /// Bytes from panel to panel.
    pub(super) panel_step: usize,
    /// Results, `[rows][16·panels]`.
    pub(super) out: *mut f32,
    /// Elements from row to row of the results.
    pub(super) row_stride: usize,
}

impl<W: Weights, const ROWS: usize, const PANELS: usize> Kernel for Stream<W, ROWS, PANELS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Pass { mut a, k, panels, panel_step, out, row_stride } = self.pass;
        let vectors = PANEL_WIDTH / S::LANES;
        // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
        unsafe {
            let mut sums = [[[S::zero(); 4]; PANELS]; ROWS];
            let mut pair = panels;
            let mut i = 0;
            while i + 2 <= k {
                let mut p = 0;
                while p < PANELS {
                    let at = pair.add(p * panel_step);
                    let mut line = 0;
                    while line < W::PAIR_BYTES {
                        S::prefetch(at.wrapping_add(AHEAD + line));
                        line += 64;
                    }
                    let mut v = 0;
                    while v < vectors {
                        let (first, second) = W::pair::<S>(at, v);
                        let mut r = 0;
                        while r < ROWS {
                            let sum = S::fma(S::splat(*a.add(r)), first, sums[r][p][v]);
                            sums[r][p][v] = S::fma(S::splat(*a.add(ROWS + r)), second, sum);
                            r += 1;
                        }
                        v += 1;
                    }
                    p += 1;
                }
                pair = pair.add(W::PAIR_BYTES);
                a = a.add(2 * ROWS);
                i += 2;
            }
            if i < k {
                let mut p = 0;
                while p < PANELS {
                    let mut v = 0;
                    while v < vectors {
                        let first = W::single::<S>(pair.add(p * panel_step), v);
                        let mut r = 0;
                        while r < ROWS {
                            sums[r][p][v] = S::fma(S::splat(*a.add(r)), first, sums[r][p][v]);
                            r += 1;
                        }
                        v += 1;
                    }
                    p += 1;
                }
            }
            let mut r = 0;
            while r < ROWS {
                let mut p = 0;
                while p < PANELS {
                    let mut v = 0;
                    while v < vectors {
                        S::store(out.add(r * row_stride + p * PANEL_WIDTH + v * S::LANES), sums[r][p][v]);
                        v += 1;
                    }
                    p += 1;
                }
                r += 1;
            }
        }
    }
}

/// Runs one pass.
///
/// # Safety
/// The machine must have the tier; the operands must be valid for `rows` rows and `panels` panels, which must be a pair
/// that [`panels_of`] allows or have one panel.
pub(super) unsafe fn stream(tier: Tier, dtype: DType, rows: usize, panels: usize, pass: Pass) {
    // SAFETY: the caller vouches for everything.
    unsafe {
        match dtype {
            DType::F32 => stream_of::<F32>(tier, rows, panels, pass),
            DType::F16 => stream_of::<F16>(tier, rows, panels, pass),
            DType::BF16 => stream_of::<BF16>(tier, rows, panels, pass),
            DType::I32 | DType::Bool => unreachable!("{dtype} has no packed layout"),
        }
    }
}

/// As [`stream`], for one element type.
///
/// # Safety
/// As [`stream`].
unsafe fn stream_of<W: Weights>(tier: Tier, rows: usize, panels: usize, pass: Pass) {
    macro_rules! choose {
        ($($rows:literal x $panels:literal),*) => {
            match (rows, panels) {
                $(($rows, $panels) => {
                    let kernel = Stream::<W, $rows, $panels> { weights: PhantomData, pass };
                    // SAFETY: the caller vouches for the tier and the operands.
                    unsafe { tier.dispatch(kernel) }
                })*
                _ => unreachable!("no kernel for {rows} rows and {panels} panels"),
            }
        };
    }
    choose!(
        1 x 4, 1 x 2, 1 x 1, 2 x 4, 2 x 2, 2 x 1, 3 x 4, 3 x 2, 3 x 1, 4 x 4, 4 x 2, 4 x 1, 5 x 2, 5 x 1, 6 x 2, 6 x 1,
        7 x 2, 7 x 1, 8 x 2, 8 x 1, 9 x 2, 9 x 1, 10 x 2, 10 x 1, 11 x 2, 11 x 1, 12 x 2, 12 x 1
    )
}
