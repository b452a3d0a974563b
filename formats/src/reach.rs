//! What a compiled kernel does to its operands.
//!
//! Machine code cannot be asked what it reads and writes. So `codegen` finds it out from the kernel's loops and writes it
//! down beside the code, in the same section, and `runtime` calls a kernel only as one of these records says: over so many
//! rows, with these scalars, on operands that are large enough. The records are trusted as the code is; a step is not.

use crate::{Bounds, Extent};
use serde::{Deserialize, Serialize};

/// One way in which a kernel may be called, and what it touches then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The largest S, R and T for which it holds.
    pub bounds: Bounds,
    /// What the kernel runs over.
    pub over: Over,
    /// The scalars that it takes.
    pub scalars: Vec<Extent>,
    /// What it does to each operand.
    pub operands: Vec<Touch>,
}

/// What a kernel runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Over {
    /// Ranges of so many flattened rows.
    Rows(Extent),
    /// Tiles of a GEMM.
    Tiles {
        /// The GEMM's rows.
        rows: Extent,
        /// Columns: of each segment where a tile holds several, else of all segments together.
        columns: usize,
        /// Segments that a tile holds side by side.
        segments: usize,
    },
}

/// What a kernel does to an operand. It needs no alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// It stays below this byte, at the bounds and at every smaller size.
    pub bytes: usize,
    /// Whether it writes.
    pub stored: bool,
    /// For an operand whose elements say where in others it reads or writes, without looking whether they are in range: they
    /// must all be in `0..below`.
    pub below: Option<usize>,
}
