//! The graph IR: what every other room speaks.
//!
//! A [`Graph`] is SSA in arenas with entity ids: instructions in program order, ordered operands, every value typed
//! `dtype[dim, …]`. One [`Op`] enum holds leaves, primitives, views, the linear `state.write`, and `fusion`, whose region is
//! a graph of primitives again. No tensor data is ever stored here: weights are recipes over named tensors of a
//! [`TensorSource`], constants are splats or generated tables.
//!
//! What this crate must never do: open files, know a model family, decide anything about machine code.
//!
//! Data flows: [`Builder`] or [`parse()`] → [`Graph`] → [`verify()`] (both at once: [`read()`]) → passes (elsewhere) → [`print()`] or [`interp`]. Beside the
//! way: [`access`](mod@access) reads through views, [`derived`] shows dependences, [`seeded`] makes weights up, and with the feature `random`
//! the module `random` makes graphs up, for tests here and in other crates.

pub mod access;
pub mod builder;
pub mod derived;
pub mod entity;
pub mod graph;
pub mod infer;
pub mod interp;
pub mod op;
pub mod parse;
pub mod print;
pub mod prng;
#[cfg(feature = "random")]
pub mod random;
pub mod recipe;
pub mod seeded;
pub mod source;
pub mod types;
pub mod verify;

pub use builder::Builder;
pub use graph::{Graph, Inst, InstData, Value};
pub use llamac_formats::{Bounds, DType, Extent, Sizes, Sym};
pub use op::{BinaryOp, CompareOp, ConstKind, DotSpec, Fusion, FusionKind, Op, ReduceOp, RopePart, Scalar, UnaryOp};
pub use parse::{ParseError, parse, read};
pub use print::print;
pub use recipe::Recipe;
pub use source::{TensorSource, TensorView};
pub use types::{Dim, Layout, Type};
pub use verify::{VerifyError, verify};
