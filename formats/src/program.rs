//! The program: what `codegen` writes and `runtime` runs.
//!
//! A program is a list of entries (`decode`, `rows`), each a list of steps over one arena, and what the entries share:
//! weights, generated constants, states and kernels. A step is done by every thread of the pool together; threads meet
//! before a step whose `barrier` is set and nowhere else.

use crate::{Access, Bounds, DType, Extent, Reach};
use serde::{Deserialize, Serialize};

/// A whole program, without the bytes of code and weights (those are sections beside it).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The model's or graph's name.
    pub name: String,
    /// The largest sizes of a step.
    pub bounds: Bounds,
    /// What the activations are at each dot: `f32`.
    pub act: String,
    /// What the key-value cache holds: `f32`, `bf16`, `q8_0`, or several as `f32+q8_0`.
    pub kv: String,
    /// The fusion setting that made it: `none`, `rows`, `epilogue`, `attention`, `all`.
    pub fusion: String,
    /// Size of the vocabulary, where the graph has tokens: every token must be below it.
    pub vocab: Option<usize>,
    /// Weights, by `WeightId`.
    pub weights: Vec<WeightInfo>,
    /// Mutable tensors that outlive a step, by `StateId`.
    pub states: Vec<StateInfo>,
    /// Named inputs, by `InputId`; the same for every entry.
    pub inputs: Vec<PortInfo>,
    /// Named outputs, by `OutputId`; the same for every entry.
    pub outputs: Vec<PortInfo>,
    /// Machine code, by `KernelId`. In a file they are part of the code section, not of the program's text.
    #[serde(skip)]
    pub kernels: Vec<KernelInfo>,
    /// The entries. The first whose bounds hold a step runs it: `decode` precedes `rows`.
    pub entries: Vec<Entry>,
}

/// A weight or generated constant as the program keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightInfo {
    /// How it was made from the source's tensors, in the recipe's text form.
    pub recipe: String,
    /// Element type.
    pub dtype: DType,
    /// Logical shape.
    pub dims: Vec<usize>,
    /// `true`: panels of sixteen outputs ([`crate::panel`]); `false`: row-major.
    pub panels: bool,
    /// Byte offset in the weight section, a multiple of 64.
    pub offset: usize,
    /// Bytes in the weight section.
    pub bytes: usize,
}

/// A state: zero at the start, kept from step to step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateInfo {
    /// Its name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape; `[slots, kv_heads, tokens, head_dim]` for a cache.
    pub dims: Vec<usize>,
}

/// A named input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortInfo {
    /// Its name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape; dynamic axes are extents with a symbol.
    pub dims: Vec<Extent>,
    /// For an `i32` input that indexes something: every element must be in `0..limit`.
    pub limit: Option<usize>,
}

/// A compiled kernel in the code section. All of it is trusted as its machine code is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelInfo {
    /// What the region was named: `rmsnorm`, `rope`, `softmax`, `silu_mul`, `mul`, …
    pub name: String,
    /// Byte offset among the machine code.
    pub offset: usize,
    /// Bytes of code.
    pub bytes: usize,
    /// Bytes of per-thread scratch that it needs.
    pub scratch: usize,
    /// The ways in which it may be called.
    pub reaches: Vec<Reach>,
    /// What it is, as text (loop IR); not needed to run.
    pub loops: String,
}

/// One entry of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// `decode` or `rows`.
    pub name: String,
    /// The most rows, outputs and tokens of a step of this entry.
    pub bounds: Bounds,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// The largest number of bytes live at once: no plan can be smaller.
    pub arena_lower_bound: usize,
    /// Buffers of the arena, for reports.
    pub buffers: Vec<BufferInfo>,
}

/// A buffer of the arena, live from step `first` to step `last`, both included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BufferInfo {
    /// Where it came from.
    pub name: String,
    /// Byte offset in the arena, a multiple of 64.
    pub offset: usize,
    /// Bytes at the bounds.
    pub bytes: usize,
    /// The first step that writes it.
    pub first: usize,
    /// The last step that uses it.
    pub last: usize,
}

/// A memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operand {
    /// Bytes of the entry's arena, from this byte offset.
    Arena(usize),
    /// A weight or constant.
    Weight(usize),
    /// A state.
    State(usize),
    /// An input of the step.
    Input(usize),
    /// An output of the step.
    Output(usize),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Where it came from and what it is: `layers.3.attn.q_norm rmsnorm`.
    pub name: String,
    /// What kind of work, for reports: `gemm`, `rows`, `attention`, `gather`, `dot`, `copy`.
    pub kind: String,
    /// Whether all threads must meet before it.
    pub barrier: bool,
    /// The work.
    pub work: Work,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// A compiled row kernel over `count` flattened rows.
    Rows(RowsWork),
    /// Activations times a packed weight.
    Gemm(GemmWork),
    /// A contraction of two strided operands.
    Dot(DotWork),
    /// Tiled attention over a cache.
    Attention(AttentionWork),
    /// Rows of a packed weight, widened to f32.
    Gather(GatherWork),
}

/// A row kernel: called as `kernel(args, begin, end)` on disjoint ranges that together are `0..count`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowsWork {
    /// Which kernel.
    pub kernel: usize,
    /// Flattened rows. `grain` at a time, never fewer (but at the end), go to one call: results do not depend on it.
    pub count: Extent,
    /// Rows that a thread takes at once.
    pub grain: usize,
    /// `KernelArgs::buffers`, in order.
    pub operands: Vec<Operand>,
    /// `KernelArgs::scalars`, in order.
    pub scalars: Vec<Extent>,
}

/// `out[m, n] = epilogue(Σ_k a[m, k] · w[n, k])` with f32 accumulation. The activations are f32, bf16 or q8.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GemmWork {
    /// Element type of the activations.
    pub act: DType,
    /// The activations; axes (m, k), the stride of k is 1. Offsets and strides count elements; for q8 they are whole blocks.
    pub a: Access<Operand>,
    /// Rows: M.
    pub m: Extent,
    /// Inputs: K.
    pub k: usize,
    /// The outputs: N is the sum of the segments' n.
    pub segments: Vec<GemmSegment>,
    /// Runs on each finished tile and writes the results; without one, segment after segment of columns is stored to `out`.
    pub epilogue: Option<EpilogueWork>,
    /// Row-major f32 `[M, N]`, dense; unused where there is an epilogue.
    pub out: Operand,
    /// Packed activations: `M_max × K` f32 of the arena, whatever `act` is, where M may exceed one row.
    pub scratch: Option<Operand>,
}

/// Outputs of a GEMM that come from one weight: panel `p` of the segment is panel `first + p·step` of the weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GemmSegment {
    /// The packed weight.
    pub weight: usize,
    /// Its first panel.
    pub first: usize,
    /// From one panel to the next.
    pub step: usize,
    /// Outputs.
    pub n: usize,
}

/// A compiled kernel run on each finished tile: `kernel(args, tile)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpilogueWork {
    /// `true`: all segments have the same n, and the columns `c0..c1` of every segment come in one tile (gate and up).
    /// `false`: a tile holds columns of one segment only, numbered over the concatenation of all segments;
    /// `Tile::segment_stride` is 0.
    pub paired: bool,
    /// Which kernel.
    pub kernel: usize,
    /// `KernelArgs::buffers`, in order.
    pub operands: Vec<Operand>,
    /// `KernelArgs::scalars`, in order.
    pub scalars: Vec<Extent>,
}

/// `out[b…, m, n] = Σ_k lhs[b…, m, k] · rhs[b…, n, k]`, all f32: a dot whose right side is no packed weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DotWork {
    /// Batch axes, outermost first.
    pub batch: Vec<Extent>,
    /// Rows.
    pub m: Extent,
    /// Columns.
    pub n: Extent,
    /// Contraction length.
    pub k: Extent,
    /// Axes (batch…, m, k).
    pub lhs: Access<Operand>,
    /// Axes (batch…, n, k).
    pub rhs: Access<Operand>,
    /// Axes (batch…, m, n).
    pub out: Access<Operand>,
}

/// Attention of S rows over a cache with a running maximum:
/// `out[s, h, :] = Σ_t softmax_t(scale · q[s, h, :]·keys[slot_s, h / group, t, :]) · values[slot_s, h / group, t, :]`
/// over `t ≤ position_s`. Sums and the maximum are f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionWork {
    /// What queries, keys, values and exponentials may be rounded to before they are multiplied: f32 (not at all) or bf16.
    pub act: DType,
    /// f32, axes (row, kv head, group, head_dim); the last stride is 1.
    pub q: Access<Operand>,
    /// The key cache, a state `[slots, kv_heads, tokens, head_dim]` of f32, bf16 or q8.
    pub keys: usize,
    /// The value cache, of the same shape and type.
    pub values: usize,
    /// The `i32[S]` input with each row's position.
    pub positions: Operand,
    /// The `i32[S]` input with each row's slot.
    pub slots: Operand,
    /// f32, axes (row, kv head, group, head_dim); the last stride is 1.
    pub out: Access<Operand>,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Query heads per key-value head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores, before the maximum.
    pub scale: f32,
}

/// `out[i, :] = f32(weight[ids[i], :])`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatherWork {
    /// A packed weight `[rows, width]`.
    pub weight: usize,
    /// `i32[count]`.
    pub ids: Operand,
    /// How many.
    pub count: Extent,
    /// Row-major f32 `[count, width]`.
    pub out: Operand,
}

/// Arguments of every compiled kernel, `extern "C" fn(*const KernelArgs, begin: u64, end: u64)` for row kernels and
/// `extern "C" fn(*const KernelArgs, *const Tile)` for epilogues. All that a kernel reads comes through here, so its code
/// has no relocations.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KernelArgs {
    /// Base pointers of the operands.
    pub buffers: *const *mut u8,
    /// Values of the scalars.
    pub scalars: *const u64,
    /// Addresses of the runtime's routines; see [`Routine`].
    pub routines: *const usize,
    /// The calling thread's scratch, 64-byte aligned.
    pub scratch: *mut u8,
}

/// A routine of the runtime that a kernel may call: an index into [`KernelArgs::routines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Routine {
    /// `extern "C" fn(out: *mut f32, input: *const f32, n: u64)`: `out[i] = exp(input[i])`; may work in place.
    Exp = 0,
    /// `extern "C" fn(out: *mut u8, input: *const f32, n: u64)`: n elements, a multiple of 32, as blocks of [`crate::q8`].
    QuantizeQ8 = 1,
    /// `extern "C" fn(out: *mut f32, gate: *const f32, up: *const f32, n: u64)`:
    /// `out[i] = gate[i] / (1 + exp(−gate[i])) · up[i]`; `out` may be `gate` or `up`.
    SiluMul = 2,
    /// `extern "C" fn(out: *mut u16, input: *const f32, n: u64)`: n elements to the nearest bf16, ties to even; no number stays none.
    RoundBf16 = 3,
    /// `extern "C" fn(out: *mut u16, gate: *const f32, up: *const f32, n: u64)`: what [`SiluMul`](Routine::SiluMul) makes, rounded as by
    /// [`RoundBf16`](Routine::RoundBf16).
    SiluMulBf16 = 4,
}

impl Routine {
    /// All of them, in the order of their numbers.
    pub const ALL: [Routine; 5] =
        [Routine::Exp, Routine::QuantizeQ8, Routine::SiluMul, Routine::RoundBf16, Routine::SiluMulBf16];

    /// How many there are.
    pub const COUNT: usize = Routine::ALL.len();

    /// What it reads and what it makes: how many inputs, all f32, and the type of the result.
    pub const fn signature(self) -> (usize, DType) {
        match self {
            Routine::Exp => (1, DType::F32),
            Routine::QuantizeQ8 => (1, DType::Q8),
            Routine::SiluMul => (2, DType::F32),
            Routine::RoundBf16 => (1, DType::BF16),
            Routine::SiluMulBf16 => (2, DType::BF16),
        }
    }

    /// The name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Routine::Exp => "exp",
            Routine::QuantizeQ8 => "quantize_q8",
            Routine::SiluMul => "silu_mul",
            Routine::RoundBf16 => "round_bf16",
            Routine::SiluMulBf16 => "silu_mul_bf16",
        }
    }
}

/// A finished tile of accumulators, the second argument of an epilogue.
///
/// Segment `s`, row `r`, column `c` (both absolute) lies at
/// `acc[s·segment_stride + (r − row_begin)·row_stride + (c − col_begin)]`, strides in f32 elements.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Accumulators. The epilogue may overwrite those of the tile: nobody reads them afterwards.
    pub acc: *mut f32,
    /// First row.
    pub row_begin: u64,
    /// Past the last row.
    pub row_end: u64,
    /// First column within the segment(s).
    pub col_begin: u64,
    /// Past the last column.
    pub col_end: u64,
    /// Elements from row to row.
    pub row_stride: u64,
    /// Elements from segment to segment.
    pub segment_stride: u64,
}
