//! What can be wrong with a program.

use crate::memory::MemoryError;
use crate::tiers::Tier;
use llamac_formats::DType;

/// A program that cannot be run safely.
#[derive(Debug, thiserror::Error)]
#[error("program \"{program}\", {place}: {fault}. The program is damaged or from another version: compile it again")]
pub struct LoadError {
    /// The program's name.
    pub program: String,
    /// Where in the program: `weight 3`, `entry decode, step 12 (layers.0.attn.q gemm)`.
    pub place: String,
    /// What is wrong there.
    pub fault: Fault,
}

/// One thing wrong with a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An index past its table.
    #[error("{what} {index} does not exist, there are {count}")]
    NoSuch {
        /// What is indexed: `weight`, `state`, `input`, `output`, `kernel`.
        what: &'static str,
        /// The index found.
        index: usize,
        /// Entries in the table.
        count: usize,
    },
    /// Something reaches past the end of the memory it lies in.
    #[error("{what} needs {needed} bytes, but there are {available}")]
    TooLarge {
        /// What.
        what: String,
        /// Bytes up to its end, at the bounds.
        needed: usize,
        /// Bytes of the memory.
        available: usize,
    },
    /// A size that no address can span.
    #[error("the size of {what} overflows")]
    Overflow {
        /// What.
        what: String,
    },
    /// An offset that is not a multiple of what the type needs.
    #[error("{what} is at byte {offset}, which is not a multiple of {align}")]
    Misaligned {
        /// What.
        what: String,
        /// The offset found.
        offset: usize,
        /// What it must be a multiple of.
        align: usize,
    },
    /// An operand of the wrong element type.
    #[error("{what} is {found}, expected {expected}")]
    WrongType {
        /// What.
        what: String,
        /// Its type.
        found: DType,
        /// The type that the step needs.
        expected: DType,
    },
    /// A weight in panels where rows are needed, or the other way round, or a dtype that has no panels.
    #[error("weight {weight} ({dtype}, {}) cannot be used here: {expected} is needed", if *.panels { "panels" } else { "rows" })]
    WrongLayout {
        /// Which weight.
        weight: usize,
        /// Its element type.
        dtype: DType,
        /// Whether it lies in panels.
        panels: bool,
        /// What the step needs.
        expected: &'static str,
    },
    /// A result that would go to a weight or an input.
    #[error("{what} would be written to {operand}, which is only read")]
    ReadOnly {
        /// What.
        what: String,
        /// Where to.
        operand: String,
    },
    /// Numbers that do not fit together.
    #[error("{what} is {found}, expected {expected}")]
    Mismatch {
        /// What.
        what: String,
        /// What was found.
        found: String,
        /// What must hold.
        expected: String,
    },
    /// An index whose values nothing bounds: it must be an `i32` input with a limit.
    #[error("{what} is read from {operand}, but indices must come from an i32 input with a limit")]
    Unlimited {
        /// What.
        what: String,
        /// Where from.
        operand: String,
    },
    /// A result that lies over an operand of the same step.
    #[error("{what} overlaps {with}")]
    Overlap {
        /// The result.
        what: String,
        /// The operand.
        with: String,
    },
    /// A name twice.
    #[error("the name \"{name}\" occurs twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A kernel without an address.
    #[error("kernel {kernel} (\"{name}\") has no machine code")]
    NoCode {
        /// Which kernel.
        kernel: usize,
        /// What it is named.
        name: String,
    },
}

/// A session could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// An instruction set that this machine has not.
    #[error("this machine has no {}; the best it has is {}", .tier.name(), .best.name())]
    NoTier {
        /// What was asked for.
        tier: Tier,
        /// What there is.
        best: Tier,
    },
    /// Sizes that no machine has.
    #[error(
        "the {what} of program \"{program}\" overflow the address space. Take a smaller context, chunk or number of slots"
    )]
    Size {
        /// What: `states`, `ports`, `arena`, `scratch`.
        what: &'static str,
        /// The program's name.
        program: String,
    },
}
