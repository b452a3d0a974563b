//! Regions of primitives to loop IR.
//!
//! Everything is on demand of the results: an element that is to be stored is expanded through views and elementwise
//! ops down to loads, reductions and constants ([`expand`]); what does not depend on the innermost loop is emitted
//! outside it ([`build`]); reductions become sweeps of their own ([`reduce`]); the results are stored by the last
//! sweeps ([`rows`], [`epilogue`]). At last the kernel's loops are walked to find what it touches ([`reach`]).

pub mod affine;
mod analyse;
mod blocks;
pub mod build;
pub mod epilogue;
pub mod expand;
mod gated;
mod inner;
pub mod reach;
pub mod reduce;
pub mod region;
pub mod rows;

use crate::loops::Kernel;
use llamac_formats::{Extent, Reach};

/// A lowered row kernel.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The kernel.
    pub kernel: Kernel,
    /// What its buffers are.
    pub operands: Vec<build::Operand>,
    /// What it touches.
    pub reach: Reach,
    /// How many flattened rows there are.
    pub count: Extent,
    /// Elements that a row stores, at the bounds.
    pub work: usize,
}

/// A lowered epilogue.
#[derive(Clone, Debug)]
pub struct LoweredEpilogue {
    /// The kernel.
    pub kernel: Kernel,
    /// What its buffers are.
    pub operands: Vec<build::Operand>,
    /// What it touches.
    pub reach: Reach,
    /// Equal segments of the dot's result that a tile holds together; 1 where it holds columns of the whole.
    pub segments: usize,
}
