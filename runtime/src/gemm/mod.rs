//! Activations times a packed weight: `out[m, n] = Σ_k a[m, k] · w[n, k]`, accumulated in f32.
//!
//! Three families of kernels: f32 products (`stream` for few rows, `block` for many), for which all activations and weights
//! widen exactly; products of bytes (`bytes` for few rows, `in_turn` for more), where activations in `q8` meet weights in block
//! formats; and products of bf16 in tile registers (`tiles`), which a machine that has them takes for many rows of bytes or bf16.
//! Every result is one chain of multiplications and additions in the order of the inputs, or of their blocks, whichever kernel of
//! the family computes it. So it depends neither on the number of threads nor on what other rows hold; how many rows a step has
//! decides between the families, unless [`GemmArgs::rows_like`] does.

mod ahead;
mod block;
pub(crate) mod blocks;
mod byte_rows;
mod bytes;
mod dequantise;
mod in_turn;
mod pack;
mod registers;
mod runs;
mod stream;
#[cfg(target_arch = "x86_64")]
mod tiles;
pub(crate) mod weights;

use crate::pool::Worker;
use crate::strided::View;
use crate::tiers::Tier;
use llamac_formats::program::{KernelArgs, Tile};
use llamac_formats::{DType, PANEL_WIDTH};
use pack::RowBlocks;
use runs::Runs;
use weights::panel_bytes;

/// A compiled epilogue.
pub type EpilogueFn = unsafe extern "C" fn(*const KernelArgs, *const Tile);

/// Outputs that come from one packed weight: panel `p` of the segment is panel `first + p·step` of the weight.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The packed weight's first byte.
    pub panels: *const u8,
    /// Its element type: f32, f16, bf16 or a block format.
    pub dtype: DType,
    /// The segment's first panel.
    pub first: usize,
    /// From one panel to the next.
    pub step: usize,
    /// Outputs.
    pub n: usize,
}

/// Where the results go.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    /// Row-major f32, segment after segment of columns.
    Rows {
        /// Address of row 0, column 0.
        out: *mut f32,
        /// Elements from row to row.
        stride: usize,
    },
    /// A compiled kernel that is given each finished tile.
    Epilogue {
        /// The kernel.
        kernel: EpilogueFn,
        /// Its arguments, with the calling thread's own scratch.
        args: *const KernelArgs,
        /// Whether the same columns of every segment come in one tile; all segments then have the same `n`.
        paired: bool,
    },
}

/// One GEMM. Every worker passes the same values (but for the epilogue's scratch).
#[derive(Clone, Copy, Debug)]
pub struct GemmArgs<'a> {
    /// The instruction set.
    pub tier: Tier,
    /// Element type of the activations: f32, bf16 or q8.
    pub act: DType,
    /// Activations, axes (m, k); the stride of k is 1 and no fetched index depends on k. Whatever the type, the base is the
    /// address of the first element and strides count elements; those of q8 are whole blocks.
    pub a: View<2>,
    /// Rows.
    pub m: usize,
    /// As how many rows they are multiplied, at least `m`: from a number of rows on there are tiles, which round otherwise.
    pub rows_like: usize,
    /// Inputs.
    pub k: usize,
    /// The outputs.
    pub segments: &'a [Segment],
    /// Where they go.
    pub output: Output,
    /// Room for `m × k` packed activations, shared by the workers; unused for one row, and for two where bytes are multiplied.
    pub packed: *mut f32,
}

/// Passes of a few rows above which panels are widened into a buffer: below it the weights' way from memory takes longer
/// than widening them again for every pass.
const STREAM_PASSES: usize = 3;

/// f32 elements of a cache line, at which the scratch begins: vectors across two lines are loaded twice.
const ALIGN: usize = 16;

/// f32 elements of private scratch that a thread needs for [`gemm`] with at most `m` rows of `k` inputs and this many segments
/// in a tile.
pub fn thread_scratch(act: DType, m: usize, k: usize, segments: usize) -> usize {
    let segments = segments.max(1);
    // The tier with the shortest passes is the first to need the buffer.
    let stream_rows = STREAM_PASSES * stream::rows_of(Tier::Portable);
    let block = if m > stream_rows { block::thread_scratch(m, segments) } else { 0 };
    let tiles = if tiles_take(act, k) { tiles_scratch(m, k, segments) } else { 0 };
    let most = block.max(stream::thread_scratch(segments)).max(bytes::thread_scratch(segments)).max(tiles);
    ALIGN + row_scratch(act, k) + most
}

/// Whether activations of a type and so many inputs can run on tiles: whole tiles of bf16.
fn tiles_take(act: DType, k: usize) -> bool {
    cfg!(target_arch = "x86_64") && act != DType::F32 && k > 0 && k.is_multiple_of(32)
}

#[cfg(target_arch = "x86_64")]
use tiles::thread_scratch as tiles_scratch;

#[cfg(not(target_arch = "x86_64"))]
fn tiles_scratch(_: usize, _: usize, _: usize) -> usize {
    0
}

/// f32 elements of private scratch for one widened row: a step of one row has no room of its own for it.
fn row_scratch(act: DType, k: usize) -> usize {
    if act == DType::F32 { 0 } else { k.next_multiple_of(ALIGN) }
}

/// A rectangle of columns: the same panels of one or more segments.
#[derive(Clone, Copy)]
struct Columns<'a> {
    segments: &'a [Segment],
    /// Panels, within each segment.
    begin: usize,
    end: usize,
    /// The column of the first segment's first panel, over the concatenation of segments.
    origin: usize,
}

impl Columns<'_> {
    /// The columns of panels `begin..end`, without those that only fill the last panel.
    fn range(&self, begin: usize, end: usize) -> (usize, usize) {
        let n = self.segments[0].n;
        (self.origin + begin * PANEL_WIDTH, self.origin + n.min(end * PANEL_WIDTH))
    }
}

impl<'a> GemmArgs<'a> {
    /// Segments that a tile holds.
    fn tile_segments(&self) -> usize {
        match self.output {
            Output::Epilogue { paired: true, .. } => self.segments.len(),
            _ => 1,
        }
    }

    /// How many tasks the columns make, at `panels` panels of a segment each.
    fn column_tasks(&self, panels: usize) -> usize {
        let of = |s: &Segment| s.n.div_ceil(PANEL_WIDTH).div_ceil(panels);
        self.segments.chunks(self.tile_segments()).map(|tile| of(&tile[0])).sum()
    }

    /// The columns of one of them.
    fn columns(&self, panels: usize, mut task: usize) -> Columns<'a> {
        let mut origin = 0;
        for tile in self.segments.chunks(self.tile_segments()) {
            let all = tile[0].n.div_ceil(PANEL_WIDTH);
            let tasks = all.div_ceil(panels);
            if task < tasks {
                let begin = task * panels;
                return Columns { segments: tile, begin, end: (begin + panels).min(all), origin };
            }
            task -= tasks;
            origin += tile[0].n;
        }
        unreachable!("a task beyond the last column")
    }

    /// Address of a row's first element.
    ///
    /// # Safety
    /// The row must exist.
    #[inline]
    unsafe fn row(&self, row: usize) -> *const u8 {
        let (elements, bytes) = self.act.block();
        // SAFETY: the caller vouches for the row.
        unsafe { self.a.base.cast_const().cast::<u8>().add(self.a.offset([row, 0]) / elements * bytes) }
    }

    /// Whether bytes are multiplied. What is in the segments decides for all of them.
    fn in_bytes(&self) -> bool {
        self.act == DType::Q8 && self.segments.iter().all(|s| matches!(s.dtype, DType::Block(_)))
    }

    /// Address of a panel, and bytes from it to the next of its segment.
    ///
    /// # Safety
    /// The panel must exist.
    unsafe fn panel(&self, segment: &Segment, panel: usize) -> (*const u8, usize) {
        let bytes = panel_bytes(segment.dtype, self.k);
        // SAFETY: the caller vouches for the panel.
        (unsafe { segment.panels.add((segment.first + panel * segment.step) * bytes) }, segment.step * bytes)
    }

    /// Calls `pass` with each of this thread's rectangles of at most `width` panels, and with the one after it, if this thread has that
    /// for sure.
    fn passes(&self, worker: &Worker, width: usize, mut pass: impl FnMut(Columns, Option<Columns>)) {
        let count = self.column_tasks(width);
        let bytes = self.segments.iter().map(|s| panel_bytes(s.dtype, self.k)).max().unwrap_or(0);
        let mut runs = Runs::new(count, bytes * width * self.tile_segments(), worker.threads());
        worker.share(runs.count(), |index| {
            let run = runs.run(index);
            let mut columns = self.columns(width, run.start);
            for i in run.clone() {
                let next = (i + 1 < run.end).then(|| self.columns(width, i + 1));
                pass(columns, next);
                columns = next.unwrap_or(columns);
            }
        });
    }

    /// The first panel of a segment in a rectangle; null if there is none.
    fn first_panel(&self, columns: Option<Columns>, segment: usize) -> *const u8 {
        // SAFETY: the panels of a rectangle exist.
        columns.map_or(std::ptr::null(), |c| unsafe { self.panel(&c.segments[segment], c.begin).0 })
    }

    /// Hands finished sums on.
    ///
    /// # Safety
    /// The tile must be valid; the output must have its rows and columns.
    unsafe fn emit(&self, tile: &Tile) {
        match self.output {
            // SAFETY: the caller vouches for the tile, whoever made the arguments for the kernel.
            Output::Epilogue { kernel, args, .. } => unsafe { kernel(args, tile) },
            Output::Rows { out, stride } => {
                let columns = (tile.col_end - tile.col_begin) as usize;
                for row in tile.row_begin..tile.row_end {
                    // SAFETY: the caller vouches for the tile and the output.
                    unsafe {
                        let from = tile.acc.add((row - tile.row_begin) as usize * tile.row_stride as usize);
                        let to = out.add(row as usize * stride + tile.col_begin as usize);
                        std::ptr::copy_nonoverlapping(from, to, columns);
                    }
                }
            }
        }
    }
}

/// Computes one GEMM together with the other workers of a run. The workers may meet inside where `m > 1`;
/// the results are complete after the next barrier.
///
/// # Safety
/// The machine must have the tier. All addresses must be valid for the sizes given, on every worker, until the next
/// barrier; outputs must not overlap inputs.
///
/// # Panics
/// If `scratch` is shorter than [`thread_scratch`] says.
pub unsafe fn gemm(worker: &Worker, args: &GemmArgs, scratch: &mut [f32]) {
    if args.m == 0 || args.segments.is_empty() {
        return;
    }
    assert!(
        scratch.len() >= thread_scratch(args.act, args.m, args.k, args.tile_segments()),
        "the scratch is too small for the step"
    );
    let scratch = scratch.as_mut_ptr().wrapping_add(scratch.as_ptr().align_offset(4 * ALIGN));
    #[cfg(target_arch = "x86_64")]
    if tiles::take(args) {
        // SAFETY: the caller vouches for the operands; the GEMM fits tiles.
        return unsafe { tiles::many_rows(worker, args, scratch) };
    }
    if args.in_bytes() {
        // SAFETY: the caller vouches for the operands.
        return unsafe { bytes::run(worker, args, scratch) };
    }
    // Without inputs there is no block to widen, and the sums are 0.
    let few = args.m <= STREAM_PASSES * stream::rows_of(args.tier) || args.k == 0;
    let most = if few { stream::rows_of(args.tier) } else { block::rows_of(args.tier) };
    let blocks = RowBlocks::new(args.m, most);
    // SAFETY: the caller vouches for the operands; the scratch begins with room for a row.
    unsafe {
        let a = if args.m > 1 {
            pack::pack(worker, args, blocks);
            worker.barrier();
            args.packed.cast_const()
        } else if args.act == DType::F32 {
            args.row(0).cast()
        } else {
            pack::widen(args.act, args.row(0), 0, std::slice::from_raw_parts_mut(scratch, args.k));
            scratch.cast_const()
        };
        let scratch = scratch.add(row_scratch(args.act, args.k));
        if few {
            stream::few_rows(worker, args, a, blocks, scratch);
        } else {
            block::many_rows(worker, args, a, blocks, scratch);
        }
    }
}

/// A tile's segment stride: 0 where it holds one segment.
fn segment_stride(segments: &[Segment], stride: usize) -> u64 {
    if segments.len() > 1 { stride as u64 } else { 0 }
}

#[cfg(test)]
mod tests;
