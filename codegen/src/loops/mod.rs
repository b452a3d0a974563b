//! The loop IR: what a kernel does, spelled out far enough that the emitter has nothing left to decide.
//!
//! A kernel runs over its rows; in a row there are loops with carried accumulators, values of one or four lanes, loads
//! and stores at affine indices. Which axis runs in lanes, how far a loop is unrolled and in which order accumulators
//! are combined is all visible in the text.

mod print;
mod touch;

pub use touch::{Call, Touched, touched};

use llamac_formats::program::Routine;
use llamac_formats::{DType, Extent, Sym};
use llamac_ir::{BinaryOp, CompareOp, ReduceOp, UnaryOp};

/// Lanes of a vector.
pub const LANES: usize = 4;

/// A value of a kernel: assigned once, typed by [`Kernel::tys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub u32);

/// The type of a [`Reg`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    /// A 64-bit index: loop variables, row indices, fetched indices. Always one lane.
    Index,
    /// An element or four of them.
    Element(Kind, usize),
}

/// What an element is while it is computed with. 16-bit floats are f32 here; they are widened by loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// f32.
    F32,
    /// i32.
    I32,
    /// A truth value; four of them are a mask.
    Bool,
}

impl Kind {
    /// How elements of a dtype are computed with.
    pub fn of(dtype: DType) -> Kind {
        match dtype {
            DType::F32 | DType::F16 | DType::BF16 | DType::Q8 | DType::Block(_) => Kind::F32,
            DType::I32 => Kind::I32,
            DType::Bool => Kind::Bool,
        }
    }
}

/// `constant + Σ coefficient · register`; a term without a register is a dynamic constant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Index {
    /// The constant.
    pub constant: i64,
    /// Coefficients and the index registers that they multiply, those of inner loops after those of outer ones.
    pub terms: Vec<(Extent, Option<Reg>)>,
}

impl Index {
    /// A constant.
    pub fn constant(value: i64) -> Index {
        Index { constant: value, terms: vec![] }
    }

    /// A register.
    pub fn reg(reg: Reg) -> Index {
        Index { constant: 0, terms: vec![(Extent::ONE, Some(reg))] }
    }

    /// A size.
    pub fn extent(extent: Extent) -> Index {
        match extent.as_constant() {
            Some(c) => Index::constant(c as i64),
            None => Index { constant: 0, terms: vec![(extent, None)] },
        }
    }
}

/// Memory that elements are loaded from and stored to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `KernelArgs::buffers[n]`.
    Buffer(usize),
    /// The calling thread's scratch, from this byte offset.
    Scratch(usize),
}

/// A conversion between kinds, or a rounding to a narrower float that stays f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Convert {
    /// i32 to the nearest f32.
    IntToFloat,
    /// f32 to i32: toward zero, saturating, NaN to 0.
    FloatToInt,
    /// To the nearest f16, ties to even.
    RoundF16,
    /// To the nearest bf16, ties to even.
    RoundBf16,
}

/// The right side of a `let`.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// ⌊index / divisor⌋, of a nonnegative index.
    Quotient(Index, Extent),
    /// index mod divisor, of a nonnegative index.
    Remainder(Index, Extent),
    /// The index clamped to `low..=high`.
    Clamp(Index, i64, i64),
    /// An i32 element as an index.
    ToIndex(Reg),
    /// An index as i32; with four lanes, `index + 0, 1, 2, 3`.
    FromIndex(Index),
    /// One element, or four consecutive ones, widened to their kind.
    Load(Place, DType, Index),
    /// Elements of the accumulator tile: segment, absolute row, absolute column.
    Tile(usize, Index, Index),
    /// An f32 constant, as bits.
    F32(u32),
    /// An i32 constant.
    I32(i32),
    /// A truth value.
    Bool(bool),
    /// One element in every lane.
    Splat(Reg),
    /// Four elements as lanes.
    Pack([Reg; LANES]),
    /// A function of one operand.
    Unary(UnaryOp, Reg),
    /// A function of two operands.
    Binary(BinaryOp, Reg, Reg),
    /// A comparison.
    Compare(CompareOp, Reg, Reg),
    /// `c ? x : y`.
    Select(Reg, Reg, Reg),
    /// A conversion.
    Convert(Convert, Reg),
    /// Four lanes to one: `(l0 ∘ l2) ∘ (l1 ∘ l3)`.
    Fold(ReduceOp, Reg),
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// Assigns a register.
    Let(Reg, Expr),
    /// Stores one element, or four consecutive ones, narrowed to the dtype (exactly: rounding is a [`Convert`]).
    Store(Place, DType, Index, Reg),
    /// Puts an f32 element, or four, in place of accumulators of the tile: segment, absolute row, absolute column.
    SetTile(usize, Index, Index, Reg),
    /// Makes a stretch of elements of others with wider vectors than the compiled code has, or into blocks.
    Stretch(Stretch),
    /// Runs a loop.
    Loop(Box<Loop>),
}

/// Elements one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// Of a place, from this element on.
    Memory(Place, Index),
    /// The row's columns of a segment of the tile.
    Tile(usize),
}

/// How many elements a stretch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Elements(usize),
    /// As many as the tile has columns. A line in memory is then indexed at the tile's first column.
    Columns,
}

/// `routine to, from, …`: a routine of the runtime makes the elements of a line of those of others, which are f32. Where it makes
/// blocks of [`llamac_formats::q8`], the line begins and ends with a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// Which.
    pub routine: Routine,
    /// What is written.
    pub to: Line,
    /// What is read.
    pub from: Vec<Line>,
    /// Elements.
    pub count: Count,
}

/// `for var in begin..end step n`: runs while `var + step ≤ end`.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// The variable.
    pub var: Reg,
    /// Its first value.
    pub begin: Index,
    /// The end.
    pub end: Index,
    /// What it grows by.
    pub step: usize,
    /// Values carried from iteration to iteration.
    pub carried: Vec<Carried>,
    /// The variable's value after the loop: where a tail begins.
    pub last: Reg,
    /// The statements.
    pub body: Vec<Stmt>,
}

/// An accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its value in an iteration.
    pub current: Reg,
    /// Its first value.
    pub init: Reg,
    /// Its value for the next iteration, assigned in the body.
    pub next: Reg,
    /// Its value after the loop.
    pub result: Reg,
}

/// An operand of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// What its elements are in memory.
    pub dtype: DType,
    /// Whether the kernel stores to it.
    pub stored: bool,
}

/// What a kernel is called over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// `fn(args, begin, end)`: the body runs for each flattened row.
    Rows {
        /// The row.
        row: Reg,
    },
    /// `fn(args, tile)`: the body runs for each row of the tile.
    Tile {
        /// The row.
        row: Reg,
        /// The tile's first column.
        begin: Reg,
        /// Past its last column.
        end: Reg,
    },
}

/// A kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Operands, by position in `KernelArgs::buffers`.
    pub buffers: Vec<Buffer>,
    /// Dynamic dimensions that it reads, by position in `KernelArgs::scalars`.
    pub syms: Vec<Sym>,
    /// Bytes of scratch.
    pub scratch: usize,
    /// What it runs over.
    pub space: Space,
    /// The work of one row.
    pub body: Vec<Stmt>,
    /// Types, by register.
    pub tys: Vec<Ty>,
}

impl Kernel {
    /// A register's type.
    pub fn ty(&self, reg: Reg) -> Ty {
        self.tys[reg.0 as usize]
    }
}

impl Kernel {
    /// Whether the kernel calls routines of the runtime.
    pub fn calls(&self) -> bool {
        calls(&self.body)
    }

    /// Finds the dynamic dimensions that the kernel reads.
    pub fn collect_syms(&mut self) {
        let mut used = [false; 3];
        each_extent(&self.body, &mut |e| {
            for sym in Sym::ALL {
                used[sym as usize] |= e.powers[sym as usize] > 0;
            }
        });
        self.syms = Sym::ALL.into_iter().filter(|s| used[*s as usize]).collect();
    }
}

fn calls(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|s| match s {
        Stmt::Stretch(_) => true,
        Stmt::Loop(l) => calls(&l.body),
        Stmt::Let(..) | Stmt::Store(..) | Stmt::SetTile(..) => false,
    })
}

fn each_extent(stmts: &[Stmt], f: &mut dyn FnMut(&Extent)) {
    let index = |i: &Index, f: &mut dyn FnMut(&Extent)| i.terms.iter().for_each(|(e, _)| f(e));
    for s in stmts {
        match s {
            Stmt::Let(_, e) => match e {
                Expr::Quotient(i, d) | Expr::Remainder(i, d) => {
                    index(i, f);
                    f(d);
                }
                Expr::Clamp(i, ..) | Expr::FromIndex(i) | Expr::Load(_, _, i) => index(i, f),
                Expr::Tile(_, row, col) => {
                    index(row, f);
                    index(col, f);
                }
                _ => {}
            },
            Stmt::Store(_, _, i, _) => index(i, f),
            Stmt::SetTile(_, row, col, _) => {
                index(row, f);
                index(col, f);
            }
            Stmt::Stretch(Stretch { to, from, .. }) => {
                for line in std::iter::once(to).chain(from) {
                    if let Line::Memory(_, at) = line {
                        index(at, f);
                    }
                }
            }
            Stmt::Loop(l) => {
                index(&l.begin, f);
                index(&l.end, f);
                each_extent(&l.body, f);
            }
        }
    }
}
