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
//! A panel of a block format is a sequence of groups: a header of scales, then the quants in parts of 32 inputs. All of it
//! comes in vectors of 64 bytes; those of quants are `[16 outputs][4 inputs]`, which is what the dot products of bytes take,
//! one vector register or one row of a tile at a time. Quants are unsigned, as [`Fields`] has them.
//!
//! | format | inputs of a group | header |
//! |---|---|---|
//! | `q8_0`, `q4_0`, `q5_0` | 64 | scales f16 `[2 blocks][16]` |
//! | `q4_1`, `q5_1` | 64 | scales f16 `[2][16]`, minima f16 `[2][16]` |
//! | `q4_k`, `q5_k` | 256 | d f16 `[16]`, m f16 `[16]`, then fields u32 `[3][16]` |
//! | `q6_k` | 256 | d f16 `[16]`, 32 bytes of zeros, scales i8 `[16 parts of 16 inputs][16]` |
//!
//! The sixteen 6-bit fields of an output are its eight scales and its eight minima: field f < 15 at bits 6·(f%5) of word
//! f/5, field 15 in the upper two bits of the three words, the lowest pair in word 0.
//!
//! | bits | the part's vectors: what byte (n, i) holds |
//! |---|---|
//! | 8 | 8: of vector j, input 4j + i |
//! | 4, 5, 6 | 4: of vector j, the low four bits of input 8j + i, and above them of input 8j + 4 + i |
//! | 5 | then 1: at bit j, the high bit of input 4j + i |
//! | 6 | then 2: of vector v, at bits 2f and 2f + 1, the high bits of input 16v + 4f + i |
//!
//! K is a whole number of blocks. Where a group of two blocks has only one, the second is zeros, which no one need visit.
//!
//! A matrix joined from several by rows is cut into panels as a whole: output n of it is in panel n/16, whichever part it
//! came from. Where the parts' panels alternate in memory, the segments of the GEMM say so
//! ([`crate::program::GemmSegment`]).
//!
//! Outputs past N and the odd last input of bf16 are zero. Panels start at multiples of [`PANEL_ALIGN`] bytes.

pub mod blocks;

use crate::DType;
use crate::block::{BlockFormat, Fields};
use half::{bf16, f16};
use std::ops::Range;

/// Outputs of a panel.
pub const PANEL_WIDTH: usize = 16;

/// Alignment of a packed weight, bytes. A panel's size is always a multiple of 32 bytes, and of 64 in block formats.
pub const PANEL_ALIGN: usize = 64;

/// The shape of one panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelLayout {
    /// Element type: f32, f16, bf16 or a block format.
    pub dtype: DType,
    /// Inputs; whole blocks.
    pub k: usize,
}

impl PanelLayout {
    /// Bytes of one panel.
    ///
    /// # Panics
    /// If the dtype has no packed layout (`i32`, `bool`, `q8`).
    pub fn panel_bytes(&self) -> usize {
        match self.dtype {
            DType::F32 | DType::F16 => self.k * PANEL_WIDTH * self.dtype.bytes(),
            DType::BF16 => self.k.div_ceil(2) * 2 * PANEL_WIDTH * 2,
            DType::Block(format) => self.k.div_ceil(blocks::group(format)) * blocks::group_bytes(format),
            DType::I32 | DType::Bool | DType::Q8 => panic!("{} has no packed layout", self.dtype),
        }
    }

    /// Bytes of a whole packed matrix of `n` outputs.
    pub fn matrix_bytes(&self, n: usize) -> usize {
        n.div_ceil(PANEL_WIDTH) * self.panel_bytes()
    }

    /// Bytes of one row of the source: all K inputs of an output.
    fn row_bytes(&self) -> usize {
        let (elements, bytes) = self.dtype.block();
        assert!(self.k.is_multiple_of(elements), "{} inputs are no whole blocks of {}", self.k, self.dtype);
        self.k / elements * bytes
    }

    /// Element index, within its panel, of output `n` (0..16) and input `k`.
    ///
    /// # Panics
    /// For block formats, whose elements cannot be addressed alone.
    pub fn index(&self, n: usize, k: usize) -> usize {
        debug_assert!(n < PANEL_WIDTH && k < self.k);
        match self.dtype {
            DType::BF16 => (k / 2) * 2 * PANEL_WIDTH + n * 2 + k % 2,
            DType::Block(format) => panic!("an element of {format} has no place of its own"),
            _ => k * PANEL_WIDTH + n,
        }
    }

    /// Packs one row of the source into `panel`: all K inputs of output `n`, raw little-endian elements of `self.dtype`, or
    /// blocks as GGUF stores them. The other outputs keep what they have.
    ///
    /// # Panics
    /// If `row` or `panel` has the wrong length.
    pub fn pack_row(&self, n: usize, row: &[u8], panel: &mut [u8]) {
        assert!(n < PANEL_WIDTH, "output {n} of a panel of {PANEL_WIDTH}");
        assert_eq!(row.len(), self.row_bytes(), "bytes of a row");
        assert_eq!(panel.len(), self.panel_bytes(), "bytes of a panel");
        if let DType::Block(format) = self.dtype {
            let per_group = blocks::group(format) / format.elements();
            let mut fields = Fields::default();
            for (b, block) in row.chunks_exact(format.bytes()).enumerate() {
                format.split(block, &mut fields);
                let group = &mut panel[b / per_group * blocks::group_bytes(format)..][..blocks::group_bytes(format)];
                blocks::put(format, group, n, b % per_group, &fields);
            }
            return;
        }
        let e = self.dtype.bytes();
        for (k, element) in row.chunks_exact(e).enumerate() {
            let at = self.index(n, k) * e;
            panel[at..at + e].copy_from_slice(element);
        }
    }

    /// Packs a whole panel: the rows of its outputs, at most sixteen; outputs without a row are zero.
    ///
    /// # Panics
    /// If there are more than sixteen rows, or one of them or `panel` has the wrong length.
    pub fn pack_panel(&self, rows: &[&[u8]], panel: &mut [u8]) {
        assert!(rows.len() <= PANEL_WIDTH, "{} rows in a panel of {PANEL_WIDTH}", rows.len());
        panel.fill(0);
        for (n, row) in rows.iter().enumerate() {
            self.pack_row(n, row, panel);
        }
    }

    /// The inverse of [`PanelLayout::pack_row`]: output `n` of a panel as the source had it.
    ///
    /// # Panics
    /// If `panel` or `row` has the wrong length.
    pub fn unpack_row(&self, n: usize, panel: &[u8], row: &mut [u8]) {
        assert!(n < PANEL_WIDTH, "output {n} of a panel of {PANEL_WIDTH}");
        assert_eq!(panel.len(), self.panel_bytes(), "bytes of a panel");
        assert_eq!(row.len(), self.row_bytes(), "bytes of a row");
        if let DType::Block(format) = self.dtype {
            let per_group = blocks::group(format) / format.elements();
            let mut fields = Fields::default();
            for (b, block) in row.chunks_exact_mut(format.bytes()).enumerate() {
                let group = &panel[b / per_group * blocks::group_bytes(format)..][..blocks::group_bytes(format)];
                blocks::take(format, group, n, b % per_group, &mut fields);
                format.join(&fields, block);
            }
            return;
        }
        let e = self.dtype.bytes();
        for (k, element) in row.chunks_exact_mut(e).enumerate() {
            let at = self.index(n, k) * e;
            element.copy_from_slice(&panel[at..at + e]);
        }
    }

    /// Inputs `inputs` of output `n` of a panel as f32, exactly as the source's elements widen: for block formats, to the bit
    /// what [`BlockFormat::decode`] gives of the row.
    ///
    /// # Panics
    /// If `panel` has the wrong length, `inputs` are not among the K, or `out` is not as long.
    pub fn decode_row(&self, n: usize, panel: &[u8], inputs: Range<usize>, out: &mut [f32]) {
        assert!(n < PANEL_WIDTH && inputs.end <= self.k, "output {n}, inputs {inputs:?} of {} inputs", self.k);
        assert_eq!(panel.len(), self.panel_bytes(), "bytes of a panel");
        assert_eq!(out.len(), inputs.len(), "room for the inputs");
        if let DType::Block(format) = self.dtype {
            return decode_blocks(format, n, panel, inputs, out);
        }
        let e = self.dtype.bytes();
        for (k, out) in inputs.zip(out) {
            let at = &panel[self.index(n, k) * e..];
            *out = match self.dtype {
                DType::F32 => f32::from_le_bytes([at[0], at[1], at[2], at[3]]),
                DType::F16 => f16::from_le_bytes([at[0], at[1]]).to_f32(),
                _ => bf16::from_le_bytes([at[0], at[1]]).to_f32(),
            };
        }
    }
}

fn decode_blocks(format: BlockFormat, n: usize, panel: &[u8], inputs: Range<usize>, out: &mut [f32]) {
    let elements = format.elements();
    let per_group = blocks::group(format) / elements;
    let (mut fields, mut values) = (Fields::default(), [0.0; 256]);
    for b in inputs.start / elements..inputs.end.div_ceil(elements) {
        let group = &panel[b / per_group * blocks::group_bytes(format)..][..blocks::group_bytes(format)];
        blocks::take(format, group, n, b % per_group, &mut fields);
        format.decode_fields(&fields, &mut values[..elements]);
        let (begin, end) = (inputs.start.max(b * elements), inputs.end.min((b + 1) * elements));
        out[begin - inputs.start..end - inputs.start]
            .copy_from_slice(&values[begin - b * elements..end - b * elements]);
    }
}
