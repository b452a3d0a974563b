//! Few rows of f32 against a block format: weights become f32 in registers, straight from memory.

use super::ahead::prefetch;
use super::blocks::{Blocks, Scales, quants, weight, with_format};
use super::registers::{Sums, store, unrolled, zero};
use super::stream::Pass;
use crate::tiers::{Kernel, Simd, Tier};
use llamac_formats::panel::blocks::PART;
use llamac_formats::{BlockFormat, PANEL_WIDTH};
use std::marker::PhantomData;

/// One pass over `ROWS` of the rows that lie at `a`, times `PANELS` panels; every product is added in the order of the inputs.
struct Dequantise<B, const ROWS: usize, const PANELS: usize> {
    format: PhantomData<B>,
    pass: Pass,
    /// Elements of `a` from input to input: the rows of the block.
    step: usize,
}

impl<B: Blocks, const ROWS: usize, const PANELS: usize> Kernel for Dequantise<B, ROWS, PANELS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Tiers do not all have registers for all shapes; they are never asked for those.
        if PANELS * (PANEL_WIDTH / S::LANES) > 4
            || (ROWS > 1 && PANELS > 1 && S::LANES < 16)
            || (ROWS > 1 && S::LANES < 8)
        {
            unreachable!("too few registers for {ROWS} rows and {PANELS} panels");
        }
        let Pass { mut a, k, panels: mut group, panel_step, ahead, out, row_stride } = self.pass;
        // SAFETY: the caller vouches for the operands; prefetched addresses need not be valid.
        unsafe {
            let mut sums: Sums<S, ROWS, PANELS> = zero::<S, ROWS, PANELS>();
            let mut scales = [Scales::EMPTY; PANELS];
            let mut left = k / PART;
            while left > 0 {
                let offset = ahead.of(group);
                let mut p = 0;
                while p < PANELS {
                    let at = group.add(p * panel_step);
                    prefetch::<S>(at.wrapping_offset(offset), B::HEADER);
                    scales[p].fill::<S, B>(at);
                    p += 1;
                }
                let parts = left.min(B::PARTS);
                for part in 0..parts {
                    unrolled!(half < 2 => {
                        let a = a.add(half * 16 * self.step);
                        unrolled!(p < PANELS => {
                            let at = group.add(p * panel_step);
                            let from = at.add(B::HEADER + part * B::PART_BYTES);
                            prefetch::<S>(from.add(half * B::PART_BYTES / 2).wrapping_offset(offset), B::PART_BYTES / 2);
                            unrolled!(v < PANEL_WIDTH / S::LANES => {
                                let line = scales[p].line::<S, B>(at, part, half, v);
                                let q = quants::<S, B>(from, half, v);
                                let mut of = [S::zero(); ROWS];
                                unrolled!(r < ROWS => of[r] = sums[r][p][v]);
                                unrolled!(i < 4 => of = add_four::<S, ROWS>(of, a.add(4 * i * self.step), self.step, q[i], line));
                                unrolled!(r < ROWS => sums[r][p][v] = of[r]);
                            })
                        })
                    });
                    a = a.add(PART * self.step);
                }
                left -= parts;
                group = group.add(B::GROUP_BYTES);
            }
            store::<S, ROWS, PANELS>(&sums, out, row_stride);
        }
    }
}

/// Adds the products of four inputs to one vector of sums for each row.
///
/// # Safety
/// The machine must have the instruction set; four inputs of `ROWS` activations, `step` elements apart, must lie at `a`.
#[inline(always)]
unsafe fn add_four<S: Simd, const ROWS: usize>(
    mut sums: [S::F; ROWS],
    a: *const f32,
    step: usize,
    quants: S::I,
    (scale, offset): (S::F, S::F),
) -> [S::F; ROWS] {
    // SAFETY: the caller vouches for both.
    unsafe {
        unrolled!(i < 4 => {
            let weight = weight::<S>(quants, i, scale, offset);
            unrolled!(r < ROWS => sums[r] = S::fma(S::splat(*a.add(i * step + r)), weight, sums[r]))
        });
    }
    sums
}

/// Runs one pass.
///
/// # Safety
/// The machine must have the tier; the operands must be valid for `rows` rows and `panels` panels.
pub(super) unsafe fn dequantise(tier: Tier, format: BlockFormat, rows: usize, panels: usize, pass: Pass) {
    // SAFETY: the caller vouches for everything.
    with_format!(format, B => unsafe { dequantise_of::<B>(tier, rows, panels, pass) });
}

/// As [`dequantise`], for one format: the rows in fours and what is left, for each of which the panels are read again.
///
/// # Safety
/// As [`dequantise`].
unsafe fn dequantise_of<B: Blocks>(tier: Tier, rows: usize, panels: usize, pass: Pass) {
    let (mut row, mut panel) = (0, 0);
    while row < rows {
        let most = if tier.lanes() == 4 { 1 } else { 4 };
        let count = match rows - row {
            4.. if most == 4 => 4,
            2.. if most == 4 => 2,
            _ => 1,
        };
        // SAFETY: rows and panels lie within the operands.
        let (a, out) = unsafe { (pass.a.add(row), pass.out.add(row * pass.row_stride)) };
        while panel < panels {
            let width = match (tier.lanes(), count, panels - panel) {
                (16, 1, 4..) => 4,
                (16, _, 2..) | (8, 1, 2..) => 2,
                _ => 1,
            };
            // SAFETY: as above.
            let part = unsafe {
                let panels = pass.panels.add(panel * pass.panel_step);
                Pass { a, panels, out: out.add(panel * PANEL_WIDTH), ..pass }
            };
            macro_rules! choose {
                ($($rows:literal x $panels:literal),*) => {
                    match (count, width) {
                        $(($rows, $panels) => {
                            let kernel = Dequantise::<B, $rows, $panels> { format: PhantomData, pass: part, step: rows };
                            // SAFETY: the caller vouches for the tier and the operands.
                            unsafe { tier.dispatch(kernel) }
                        })*
                        _ => unreachable!("no kernel for {count} rows and {width} panels"),
                    }
                };
            }
            choose!(1 x 4, 1 x 2, 1 x 1, 2 x 2, 2 x 1, 4 x 2, 4 x 1);
            panel += width;
        }
        (row, panel) = (row + count, 0);
    }
}
