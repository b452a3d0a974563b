//! The packed layout of a weight matrix: panels of sixteen outputs.
//!
//! A matrix `[N, K]` (N outputs, K inputs, as checkpoints store it) becomes ⌈N/16⌉ panels. The layout depends on the
//! dtype alone, never on the CPU:
//!
//! | dtype | panel | element (n, k) of a panel lies at |
//! |---|---|---|
//! | f32, f16 | `[K][16]` | `k·16 + n` |
//! | bf16 | `[⌈K/2⌉][16][2]` | `(k/2)·32 + n·2 + k%2` |
//!
//! A matrix joined from several by rows is cut into panels as a whole: output n of it is in panel n/16, whichever part it
//! came from. Where the parts' panels alternate in memory, the segments of the GEMM say so
//! ([`crate::program::GemmSegment`]).
//!
//! Outputs past N and the odd last input of bf16 are zero. Panels start at multiples of [`PANEL_ALIGN`] bytes.

use crate::DType;

/// Outputs of a panel.
pub const PANEL_WIDTH: usize = 16;

/// Alignment of a packed weight, bytes. A panel's size is always a multiple of 32 bytes.
pub const PANEL_ALIGN: usize = 64;

/// The shape of one panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelLayout {
    /// Element type: f32, f16 or bf16.
    pub dtype: DType,
    /// Inputs.
    pub k: usize,
}

impl PanelLayout {
    /// Bytes of one panel.
    ///
    /// # Panics
    /// If the dtype has no packed layout (`i32`, `bool`).
    pub fn panel_bytes(&self) -> usize {
        match self.dtype {
            DType::F32 | DType::F16 => self.k * PANEL_WIDTH * self.dtype.bytes(),
            DType::BF16 => self.k.div_ceil(2) * 2 * PANEL_WIDTH * 2,
            DType::I32 | DType::Bool | DType::Q8 | DType::Block(_) => panic!("{} has no packed layout", self.dtype),
        }
    }

    /// Bytes of a whole packed matrix of `n` outputs.
    pub fn matrix_bytes(&self, n: usize) -> usize {
        n.div_ceil(PANEL_WIDTH) * self.panel_bytes()
    }

    /// Element index, within its panel, of output `n` (0..16) and input `k`.
    pub fn index(&self, n: usize, k: usize) -> usize {
        debug_assert!(n < PANEL_WIDTH && k < self.k);
        match self.dtype {
            DType::BF16 => (k / 2) * 2 * PANEL_WIDTH + n * 2 + k % 2,
            _ => k * PANEL_WIDTH + n,
        }
    }

    /// Reads one row back: the K inputs of output `n` of a panel, as [`PanelLayout::pack_row`] took them.
    ///
    /// # Panics
    /// If `row` or `panel` has the wrong length.
    pub fn unpack_row(&self, n: usize, panel: &[u8], row: &mut [u8]) {
        let e = self.dtype.bytes();
        assert_eq!(row.len(), self.k * e);
        assert_eq!(panel.len(), self.panel_bytes());
        for (k, element) in row.chunks_exact_mut(e).enumerate() {
            let at = self.index(n, k) * e;
            element.copy_from_slice(&panel[at..at + e]);
        }
    }

    /// Packs one row of the source (all K inputs of output `n`, raw little-endian elements of `self.dtype`) into `panel`.
    ///
    /// # Panics
    /// If `row` or `panel` has the wrong length.
    pub fn pack_row(&self, n: usize, row: &[u8], panel: &mut [u8]) {
        let e = self.dtype.bytes();
        assert_eq!(row.len(), self.k * e);
        assert_eq!(panel.len(), self.panel_bytes());
        for (k, element) in row.chunks_exact(e).enumerate() {
            let at = self.index(n, k) * e;
            panel[at..at + e].copy_from_slice(element);
        }
    }
}
