//! The operations.

use crate::{Graph, Recipe};
use llamac_formats::rope::RopeTable;
use std::fmt;

/// What an instruction computes. Operand order is semantic; results are typed in the graph.
///
/// | op | operands | result |
/// |---|---|---|
/// | `input`, `weight`, `const`, `state`, `param`, `iota` | none | as annotated |
/// | `dot` | lhs, rhs… | batch ++ lhs free ++ rhs free, f32 |
/// | unary | x | like x |
/// | binary | x, y of one type | like x |
/// | `cmp` | x, y of one type | bool, like x |
/// | `select` | bool, x, y of one shape | like x |
/// | `cast` | x | the annotated dtype |
/// | `reduce` | x | x without the axis |
/// | `gather` | table `[N, …]`, ids `i32[…ids]` of rank 1 | `[ids, …]`; f32 where the table is 16-bit and so annotated |
/// | views | x | see each |
/// | `index` | state `[slots, h, tokens, d]`, slots `i32[S]` | `[S, h, T, d]`: each row's own slot, first T tokens |
/// | `state.write` | state, rows `[S, h, d]`, slots `i32[S]`, positions `i32[S]` | the state after |
/// | `copy` | x | like x, row-major |
/// | `fusion` | its region's params | its region's outputs |
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A named input of the step; an `i32` input that indexes has a limit, exclusive.
    Input {
        /// Its name.
        name: String,
        /// Every element is in `0..limit`.
        limit: Option<usize>,
    },
    /// A weight, by recipe.
    Weight(Recipe),
    /// A constant.
    Const(ConstKind),
    /// The state of that name as it is when the step begins. Once per graph and name.
    State {
        /// Its name.
        name: String,
    },
    /// A parameter of a region; only inside regions.
    Param {
        /// Which operand of the fusion.
        index: usize,
    },
    /// `0, 1, 2, …` along the only axis, `i32`.
    Iota,
    /// Contraction with f32 accumulation. Several right sides (weights `[N_i, K]` contracted on axis 1, no batch) are
    /// segments: the result's last axis is their concatenation.
    Dot(DotSpec),
    /// Elementwise, one operand.
    Unary(UnaryOp),
    /// Elementwise, two operands of the same type.
    Binary(BinaryOp),
    /// Elementwise comparison.
    Compare(CompareOp),
    /// `c ? x : y`.
    Select,
    /// Conversion between number types; to a narrower float it rounds to nearest even.
    Cast,
    /// Reduction over one axis, in f32 (or i32 for max).
    Reduce {
        /// Sum or maximum.
        op: ReduceOp,
        /// Which axis goes away.
        axis: usize,
    },
    /// Rows of a table by index.
    Gather,
    /// The same elements in row-major order under other axes (view).
    Reshape,
    /// Axis `i` of the result is axis `perm[i]` of the operand (view).
    Transpose {
        /// A permutation of the axes.
        perm: Vec<usize>,
    },
    /// `start..start+len` of one axis (view).
    Slice {
        /// Which axis; constant.
        axis: usize,
        /// First index.
        start: usize,
        /// How many.
        len: usize,
    },
    /// Operands one after the other along one axis (view).
    Concat {
        /// Which axis; constant in all operands.
        axis: usize,
    },
    /// Operand axis `i` becomes result axis `axes[i]` (ascending); the other result axes repeat (view).
    Broadcast {
        /// Where each operand axis goes.
        axes: Vec<usize>,
    },
    /// Rows of a state by slot (view).
    Index,
    /// Writes one token per row into its slot at its position. Linear: the old state has no later use.
    StateWrite,
    /// Makes a view real.
    Copy,
    /// A region run as one kernel.
    Fusion(Box<Fusion>),
}

/// A constant without stored data.
#[derive(Clone, Debug, PartialEq)]
pub enum ConstKind {
    /// Every element is this.
    Splat(Scalar),
    /// A table `f32[tokens, head_dim/2]` of cosines or sines of position × inverse frequency.
    Rope {
        /// How the frequencies are made.
        table: RopeTable,
        /// Which of the two.
        part: RopePart,
    },
}

/// A scalar value, typed by the constant's dtype.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// For float dtypes: the f32 value (printed so that it reads back exactly).
    Float(f32),
    /// For `i32`.
    Int(i32),
    /// For `bool`.
    Bool(bool),
}

/// Floats are equal if their bits are: two graphs are equal if they print alike.
impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        match (self, other) {
            (Scalar::Float(a), Scalar::Float(b)) => a.to_bits() == b.to_bits(),
            (Scalar::Int(a), Scalar::Int(b)) => a == b,
            (Scalar::Bool(a), Scalar::Bool(b)) => a == b,
            _ => false,
        }
    }
}

/// Half of a RoPE table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopePart {
    /// Cosines.
    Cos,
    /// Sines.
    Sin,
}

/// Axes of a contraction. Free axes keep their order: result = batch ++ free axes of lhs ++ free axes of rhs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DotSpec {
    /// Pairs (lhs axis, rhs axis) that run together.
    pub batch: Vec<(usize, usize)>,
    /// Pairs (lhs axis, rhs axis) that are summed over.
    pub contract: Vec<(usize, usize)>,
}

impl DotSpec {
    /// `x[…, K] · w[N, K]`, for an x of that rank.
    pub fn linear(rank: usize) -> DotSpec {
        DotSpec { batch: vec![], contract: vec![(rank - 1, 1)] }
    }
}

/// Defines a fieldless op enum with its names in the text form.
macro_rules! named_ops {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The name in the text form.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// The inverse of `name`.
            pub fn from_name(name: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|o| o.name() == name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named_ops! {
    /// Elementwise functions of one f32 operand (`neg` and `abs` also of i32).
    UnaryOp {
        /// −x
        Neg = "neg",
        /// |x|
        Abs = "abs",
        /// eˣ
        Exp = "exp",
        /// √x
        Sqrt = "sqrt",
        /// 1/√x
        Rsqrt = "rsqrt",
        /// 1/x
        Recip = "recip",
        /// hyperbolic tangent
        Tanh = "tanh",
    }
}

named_ops! {
    /// Elementwise functions of two operands of one dtype, f32 or i32 (`div` only f32).
    BinaryOp {
        /// x + y
        Add = "add",
        /// x − y
        Sub = "sub",
        /// x · y
        Mul = "mul",
        /// x / y
        Div = "div",
        /// the larger
        Max = "max",
        /// the smaller
        Min = "min",
    }
}

named_ops! {
    /// Comparisons, ordered: false where an operand is NaN (but `ne`, which is true).
    CompareOp {
        /// =
        Eq = "eq",
        /// ≠
        Ne = "ne",
        /// <
        Lt = "lt",
        /// ≤
        Le = "le",
        /// >
        Gt = "gt",
        /// ≥
        Ge = "ge",
    }
}

named_ops! {
    /// Reductions.
    ReduceOp {
        /// Σ; 0 over nothing.
        Sum = "sum",
        /// The largest; −∞ over nothing.
        Max = "max",
    }
}

named_ops! {
    /// Which kind of kernel a fusion becomes.
    FusionKind {
        /// A row kernel.
        Rows = "rows",
        /// A dot with elementwise work on its tiles.
        Epilogue = "epilogue",
        /// Tiled attention.
        Attention = "attention",
    }
}

/// A fused region. The region's params are the fusion's operands in order; its outputs are the fusion's results.
#[derive(Clone, Debug, PartialEq)]
pub struct Fusion {
    /// What it becomes.
    pub kind: FusionKind,
    /// What people call it: `rmsnorm`, `rope`, `softmax`, `silu_mul`; only a name.
    pub name: String,
    /// The primitives.
    pub region: Graph,
}

impl Op {
    /// The keyword of the text form (`fusion` for all fusions; reductions, constants etc. print attributes after it).
    pub fn mnemonic(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Weight(_) => "weight",
            Op::Const(_) => "const",
            Op::State { .. } => "state",
            Op::Param { .. } => "param",
            Op::Iota => "iota",
            Op::Dot(_) => "dot",
            Op::Unary(o) => o.name(),
            Op::Binary(o) => o.name(),
            Op::Compare(_) => "cmp",
            Op::Select => "select",
            Op::Cast => "cast",
            Op::Reduce { .. } => "reduce",
            Op::Gather => "gather",
            Op::Reshape => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Broadcast { .. } => "broadcast",
            Op::Index => "index",
            Op::StateWrite => "state.write",
            Op::Copy => "copy",
            Op::Fusion(_) => "fusion",
        }
    }

    /// Whether the op only renames elements of its operand and so costs nothing.
    pub fn is_view(&self) -> bool {
        matches!(
            self,
            Op::Reshape
                | Op::Transpose { .. }
                | Op::Slice { .. }
                | Op::Concat { .. }
                | Op::Broadcast { .. }
                | Op::Index
        )
    }

    /// Whether the op has no operands.
    pub fn is_leaf(&self) -> bool {
        matches!(self, Op::Input { .. } | Op::Weight(_) | Op::Const(_) | Op::State { .. } | Op::Param { .. } | Op::Iota)
    }

    /// Whether the op works on each element by itself.
    pub fn is_elementwise(&self) -> bool {
        matches!(self, Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast)
    }
}
