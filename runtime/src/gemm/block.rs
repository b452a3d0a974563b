//! Many rows: panels are widened once, to f32 that stays in the second-level cache, and meet tiles of packed rows there.

use super::weights::{BF16, F16, Unpack, offset_of_input};
use crate::tiers::{Kernel, Simd, Tier};
use llamac_formats::{DType, PANEL_WIDTH};
use std::marker::PhantomData;

/// The most rows of a register tile.
pub(super) const MAX_ROWS: usize = 14;

/// Inputs of a block: two panels of them (32 KiB) fit the first-level cache.
pub(super) const DEPTH: usize = 256;

/// Rows of a register tile, by the number of registers.
pub(super) fn rows_of(tier: Tier) -> usize {
    match tier.lanes() {
        16 => 14,
        8 => 6,
        _ => 3,
    }
}

/// Panels of a register tile.
pub(super) fn panels_of(tier: Tier) -> usize {
    if tier.lanes() == 16 { 2 } else { 1 }
}

/// The operands of a register tile.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Activations, `[depth][rows]`.
    pub(super) a: *const f32,
    /// The first panel, `[depth][16]`.
    pub(super) b: *const f32,
    /// Elements from panel to panel.
    pub(super) panel_step: usize,
    /// Inputs.
    pub(super) depth: usize,
    /// Sums, `[rows][16·panels]`.
    pub(super) sums: *mut f32,
    /// Elements from row to row of the sums.
    pub(super) row_stride: usize,
    /// Whether the sums start at 0 (and not at what they are).
    pub(super) fresh: bool,
    /// What is wanted next: with every input, the line at this address, which then moves on by so many bytes.
    pub(super) next: (*const u8, usize),
    /// What is wanted after that, likewise.
    pub(super) later: (*const u8, usize),
}

/// `sums += a · b` over one block of inputs, in the order of the inputs.
struct Multiply<const ROWS: usize, const PANELS: usize>(Tile);

impl<const ROWS: usize, const PANELS: usize> Kernel for Multiply<ROWS, PANELS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Tile { mut a, mut b, panel_step, depth, sums: out, row_stride, fresh, next, later } = self.0;
        let (mut next, mut later) = (next, later);
        let vectors = PANEL_WIDTH / S::LANES;
        // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
        unsafe {
            let mut sums = [[[S::zero(); 4]; PANELS]; ROWS];
            if !fresh {
                let mut r = 0;
                while r < ROWS {
                    let mut p = 0;
                    while p < PANELS {
                        let mut v = 0;
                        while v < vectors {
                            sums[r][p][v] = S::load(out.add(r * row_stride + p * PANEL_WIDTH + v * S::LANES));
                            v += 1;
                        }
                        p += 1;
                    }
                    r += 1;
                }
            }
            let mut i = 0;
            while i < depth {
                S::prefetch_far(next.0);
                S::prefetch_far(later.0);
                next.0 = next.0.wrapping_add(next.1);
                later.0 = later.0.wrapping_add(later.1);
                let mut weights = [[S::zero(); 4]; PANELS];
                let mut p = 0;
                while p < PANELS {
                    let mut v = 0;
                    while v < vectors {
                        weights[p][v] = S::load(b.add(p * panel_step + v * S::LANES));
                        v += 1;
                    }
                    p += 1;
                }
                let mut r = 0;
                while r < ROWS {
                    let x = S::splat(*a.add(r));
                    let mut p = 0;
                    while p < PANELS {
                        let mut v = 0;
                        while v < vectors {
                            sums[r][p][v] = S::fma(x, weights[p][v], sums[r][p][v]);
                            v += 1;
                        }
                        p += 1;
                    }
                    r += 1;
                }
                a = a.add(ROWS);
                b = b.add(PANEL_WIDTH);
                i += 1;
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

/// Multiplies one register tile.
///
/// # Safety
/// The machine must have the tier; the operands must be valid for `rows ≤ 14` rows and `panels ≤ 2` panels.
pub(super) unsafe fn multiply(tier: Tier, rows: usize, panels: usize, tile: Tile) {
    macro_rules! choose {
        ($($rows:literal)*) => {
            match (rows, panels) {
                $(
                    // SAFETY: the caller vouches for the tier and the operands.
                    ($rows, 1) => unsafe { tier.dispatch(Multiply::<$rows, 1>(tile)) },
                    // SAFETY: as above.
                    ($rows, 2) => unsafe { tier.dispatch(Multiply::<$rows, 2>(tile)) },
                )*
                _ => unreachable!("no kernel for {rows} rows and {panels} panels"),
            }
        };
    }
    choose!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// Where the f32 of `depth` inputs of a panel, from input `k`, are: in the panel itself, or widened into `room`.
///
/// # Safety
/// The machine must have the tier; the panel must hold the inputs; `room` must hold `depth`, rounded up to even, times
/// sixteen elements.
pub(super) unsafe fn widen(
    tier: Tier,
    dtype: DType,
    panel: *const u8,
    k: usize,
    depth: usize,
    room: *mut f32,
) -> *const f32 {
    // SAFETY: the caller vouches for the panel and the room.
    unsafe {
        let from = panel.add(offset_of_input(dtype, k));
        match dtype {
            DType::F32 => return from.cast(),
            DType::F16 => tier.dispatch(Unpack::<F16> { weights: PhantomData, from, k: depth, to: room }),
            DType::BF16 => tier.dispatch(Unpack::<BF16> { weights: PhantomData, from, k: depth, to: room }),
            DType::I32 | DType::Bool => unreachable!("{dtype} has no packed layout"),
        }
        room
    }
}
