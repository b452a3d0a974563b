//! The register tiles of the two layouts that have kernels.

/// The most rows of a tile of contiguous columns.
pub(super) const MAX_ROWS: usize = 4;

/// Contiguous inputs: lanes run along the inputs and are summed at the end.
pub(super) mod inputs {
    use crate::tiers::{Kernel, Simd};

    /// Rows of a tile.
    pub(in crate::dot) const ROWS: usize = 2;
    /// Columns of a tile.
    pub(in crate::dot) const COLUMNS: usize = 4;

    /// Two rows of the left times four of the right.
    pub(in crate::dot) struct Tile {
        pub(in crate::dot) lhs: [*mut f32; ROWS],
        pub(in crate::dot) rhs: [*mut f32; COLUMNS],
        pub(in crate::dot) k: usize,
    }

    impl Kernel for Tile {
        type Output = [[f32; COLUMNS]; ROWS];

        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> [[f32; COLUMNS]; ROWS] {
            // SAFETY: the caller vouches for `k` elements in every row.
            unsafe {
                let mut sums = [[S::zero(); COLUMNS]; ROWS];
                let whole = self.k / S::LANES * S::LANES;
                let mut k = 0;
                while k < self.k {
                    let mut rhs = [S::zero(); COLUMNS];
                    let mut lhs = [S::zero(); ROWS];
                    if k < whole {
                        let mut j = 0;
                        while j < COLUMNS {
                            rhs[j] = S::load(self.rhs[j].add(k));
                            j += 1;
                        }
                        let mut i = 0;
                        while i < ROWS {
                            lhs[i] = S::load(self.lhs[i].add(k));
                            i += 1;
                        }
                    } else {
                        let mut j = 0;
                        while j < COLUMNS {
                            rhs[j] = S::load_first(self.rhs[j].add(k), self.k - k);
                            j += 1;
                        }
                        let mut i = 0;
                        while i < ROWS {
                            lhs[i] = S::load_first(self.lhs[i].add(k), self.k - k);
                            i += 1;
                        }
                    }
                    let mut i = 0;
                    while i < ROWS {
                        let mut j = 0;
                        while j < COLUMNS {
                            sums[i][j] = S::fma(lhs[i], rhs[j], sums[i][j]);
                            j += 1;
                        }
                        i += 1;
                    }
                    k += S::LANES;
                }
                let mut out = [[0.0; COLUMNS]; ROWS];
                let mut i = 0;
                while i < ROWS {
                    let mut j = 0;
                    while j < COLUMNS {
                        out[i][j] = S::sum(sums[i][j]);
                        j += 1;
                    }
                    i += 1;
                }
                out
            }
        }
    }
}

/// Contiguous columns: lanes run along the columns; the left side is spread over them.
pub(super) mod columns {
    use super::MAX_ROWS;
    use crate::tiers::{Kernel, Simd, Tier};

    /// Vectors of columns that a tile holds.
    const VECTORS: usize = 2;

    /// Up to four rows and any number of columns.
    #[derive(Clone, Copy)]
    pub(in crate::dot) struct Tile {
        pub(in crate::dot) lhs: [*mut f32; MAX_ROWS],
        /// Elements from input to input.
        pub(in crate::dot) lhs_step: usize,
        pub(in crate::dot) rhs: *const f32,
        /// Elements from input to input.
        pub(in crate::dot) rhs_step: usize,
        pub(in crate::dot) out: [*mut f32; MAX_ROWS],
        pub(in crate::dot) n: usize,
        pub(in crate::dot) k: usize,
    }

    struct Multiply<const ROWS: usize>(Tile);

    impl<const ROWS: usize> Kernel for Multiply<ROWS> {
        type Output = ();

        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let step = VECTORS * S::LANES;
            // SAFETY: the caller vouches for `n` columns and `k` inputs.
            unsafe {
                let mut n = 0;
                while n + step <= self.0.n {
                    tile::<S, ROWS, VECTORS, false>(&self.0, n, 0);
                    n += step;
                }
                while n < self.0.n {
                    tile::<S, ROWS, 1, true>(&self.0, n, (self.0.n - n).min(S::LANES));
                    n += S::LANES;
                }
            }
        }
    }

    /// The columns from `n` on: `VECTORS` whole vectors, or one of which the first `some` lanes count.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize, const PARTIAL: bool>(
        tile: &Tile,
        n: usize,
        some: usize,
    ) {
        // SAFETY: the caller vouches for the columns.
        unsafe {
            let mut sums = [[S::zero(); VECTORS]; ROWS];
            let mut k = 0;
            while k < tile.k {
                let from = tile.rhs.add(k * tile.rhs_step + n);
                let mut rhs = [S::zero(); VECTORS];
                let mut v = 0;
                while v < VECTORS {
                    rhs[v] = if PARTIAL { S::load_first(from, some) } else { S::load(from.add(v * S::LANES)) };
                    v += 1;
                }
                let mut r = 0;
                while r < ROWS {
                    let x = S::splat(*tile.lhs[r].add(k * tile.lhs_step));
                    let mut v = 0;
                    while v < VECTORS {
                        sums[r][v] = S::fma(x, rhs[v], sums[r][v]);
                        v += 1;
                    }
                    r += 1;
                }
                k += 1;
            }
            let mut r = 0;
            while r < ROWS {
                let to = tile.out[r].add(n);
                let mut v = 0;
                while v < VECTORS {
                    if PARTIAL {
                        S::store_first(to, sums[r][v], some);
                    } else {
                        S::store(to.add(v * S::LANES), sums[r][v]);
                    }
                    v += 1;
                }
                r += 1;
            }
        }
    }

    /// Multiplies `rows` rows.
    ///
    /// # Safety
    /// The machine must have the tier; the operands must be valid.
    pub(in crate::dot) unsafe fn multiply(tier: Tier, rows: usize, tile: Tile) {
        // SAFETY: the caller vouches for both.
        unsafe {
            match rows {
                1 => tier.dispatch(Multiply::<1>(tile)),
                2 => tier.dispatch(Multiply::<2>(tile)),
                3 => tier.dispatch(Multiply::<3>(tile)),
                _ => tier.dispatch(Multiply::<MAX_ROWS>(tile)),
            }
        }
    }
}
