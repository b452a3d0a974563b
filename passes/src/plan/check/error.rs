//! What the checker finds wrong.

use crate::plan::Storage;
use llamac_ir::{Inst, Value};
use thiserror::Error;

/// What is wrong with a plan. Steps are named by their index.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckError {
    /// The steps are not the graph's.
    #[error("step {step}: expected the graph's instruction {expected:?}, found {found:?}")]
    WrongStep {
        /// Where.
        step: usize,
        /// The instruction that is next in program order, if any.
        expected: Option<Inst>,
        /// The planned one, if any.
        found: Option<Inst>,
    },
    /// A value is used before its definition.
    #[error("{inst} uses {value}, which is not defined before it")]
    NotDefined {
        /// The user.
        inst: Inst,
        /// The value.
        value: Value,
    },
    /// A value that must lie in memory has no storage.
    #[error("step {step}: {value} has no storage")]
    NoStorage {
        /// Where.
        step: usize,
        /// The value.
        value: Value,
    },
    /// A value is stored where its kind cannot be.
    #[error("{value} is stored in {found:?}, expected {expected}")]
    WrongStorage {
        /// The value.
        value: Value,
        /// Where it is said to be.
        found: Storage,
        /// Where it may be.
        expected: &'static str,
    },
    /// A buffer index is out of range.
    #[error("buffer {buffer} does not exist, the plan has {count}")]
    NoBuffer {
        /// The index.
        buffer: usize,
        /// How many there are.
        count: usize,
    },
    /// A buffer is not aligned.
    #[error("buffer {buffer} (`{name}`) is at offset {offset}, expected a multiple of 64")]
    Unaligned {
        /// The index.
        buffer: usize,
        /// Its name.
        name: String,
        /// Its offset.
        offset: usize,
    },
    /// A buffer lies past the arena's end.
    #[error("buffer {buffer} (`{name}`) ends at {end}, the arena at {arena}")]
    OutsideArena {
        /// The index.
        buffer: usize,
        /// Its name.
        name: String,
        /// Where it ends.
        end: usize,
        /// Where the arena ends.
        arena: usize,
    },
    /// A value is larger than its buffer.
    #[error("{what} needs {needed} bytes, buffer {buffer} has {found}")]
    TooSmall {
        /// The value or scratch.
        what: String,
        /// The buffer.
        buffer: usize,
        /// What it needs.
        needed: usize,
        /// What it has.
        found: usize,
    },
    /// A step reads a value that is not (or no longer) in its place.
    #[error("step {step} reads {value}, which {why}")]
    Lost {
        /// The reading step.
        step: usize,
        /// The value.
        value: Value,
        /// What happened to it.
        why: String,
    },
    /// Two steps between the same barriers touch the same memory, and not only to read.
    #[error("steps {first} and {second} touch the same memory ({place}) without a barrier between them")]
    Race {
        /// The earlier step.
        first: usize,
        /// The later step.
        second: usize,
        /// Which memory.
        place: String,
    },
    /// Two things that one step needs at once overlap.
    #[error("step {step}: {first} and {second} overlap")]
    OverlapWithinStep {
        /// The step.
        step: usize,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A result takes an operand's memory where the kernel cannot work in place.
    #[error("step {step}: {result} lies over the operand {operand}, but {why}")]
    NotInPlace {
        /// The step.
        step: usize,
        /// The result.
        result: Value,
        /// The operand.
        operand: Value,
        /// Why it must not.
        why: &'static str,
    },
    /// A step reads and writes one state.
    #[error("step {step} reads the state {state} that it writes")]
    StateReadAndWritten {
        /// The step.
        step: usize,
        /// The `state` leaf.
        state: Value,
    },
    /// A many-row GEMM has no scratch, or another step has one.
    #[error("step {step}: expected {expected} bytes of scratch, found {found}")]
    Scratch {
        /// The step.
        step: usize,
        /// Bytes needed; 0 for none.
        expected: usize,
        /// Bytes given; 0 for none.
        found: usize,
    },
    /// An output is not where the runtime looks for it.
    #[error("output {output} ({value}) is not in the output's memory at the end")]
    OutputMissing {
        /// Which output.
        output: usize,
        /// Its value.
        value: Value,
    },
    /// What the plan says of itself is not so.
    #[error("the plan states {what} {stated}, the checker finds {found}")]
    Misstated {
        /// Which figure.
        what: String,
        /// The plan's.
        stated: usize,
        /// The checker's.
        found: usize,
    },
}
