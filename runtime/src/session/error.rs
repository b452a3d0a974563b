//! Why a step was refused. A refused step changes nothing.

use llamac_formats::DType;

/// A step that cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// An input was not given.
    #[error("input \"{name}\" is missing; the program takes {expected}")]
    Missing {
        /// Its name.
        name: String,
        /// All inputs.
        expected: String,
    },
    /// An input was given that the program does not have, or one was given twice.
    #[error("{found} inputs are given, expected {expected}")]
    Unknown {
        /// How many were given.
        found: usize,
        /// What the program takes.
        expected: String,
    },
    /// An input of the wrong element type.
    #[error("input \"{name}\" is {found}, expected {expected}")]
    WrongType {
        /// Its name.
        name: String,
        /// The type given.
        found: DType,
        /// The program's type.
        expected: DType,
    },
    /// An input whose length fits no sizes, or not the sizes of the others.
    #[error("input \"{name}\" has {found} elements, expected {expected}")]
    WrongLength {
        /// Its name.
        name: String,
        /// Elements given.
        found: usize,
        /// What they must be.
        expected: String,
    },
    /// An index out of range.
    #[error("element {at} of input \"{name}\" is {found}, expected 0 to {}", limit.saturating_sub(1))]
    OutOfRange {
        /// Its name.
        name: String,
        /// Which element.
        at: usize,
        /// Its value.
        found: i64,
        /// What it must be below.
        limit: usize,
    },
    /// Rows of one slot that do not lie together.
    #[error("row {row} is of slot {slot}, whose rows ended before it; the rows of a slot must lie together")]
    NotGrouped {
        /// The row.
        row: usize,
        /// Its slot.
        slot: usize,
    },
    /// Positions of one slot that do not ascend.
    #[error("row {row} of slot {slot} is at position {found} after position {before}; positions of a slot must ascend")]
    NotAscending {
        /// The row.
        row: usize,
        /// Its slot.
        slot: usize,
        /// Its position.
        found: usize,
        /// The position of the row before it.
        before: usize,
    },
    /// Sizes that no entry of the program holds.
    #[error(
        "a step of {rows} rows, {outputs} outputs and {tokens} tokens does not fit: the program holds at most {most_rows} \
         rows (the chunk), {most_outputs} outputs and {most_tokens} tokens (the context), and at least one row"
    )]
    TooLarge {
        /// S.
        rows: usize,
        /// R.
        outputs: usize,
        /// T.
        tokens: usize,
        /// The bound on S.
        most_rows: usize,
        /// The bound on R.
        most_outputs: usize,
        /// The bound on T.
        most_tokens: usize,
    },
}

/// A generator could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// The program is not a language model.
    #[error("program \"{program}\" generates no tokens: {missing} is missing")]
    NoModel {
        /// Its name.
        program: String,
        /// What a language model has and it has not.
        missing: String,
    },
    /// More tokens than the context holds.
    #[error(
        "slot {slot} would hold {needed} tokens, but the context holds {context}. Shorten the prompt or take a larger context"
    )]
    Context {
        /// Which slot.
        slot: usize,
        /// Tokens there would be.
        needed: usize,
        /// Tokens there may be.
        context: usize,
    },
    /// A slot that does not exist.
    #[error("slot {slot} does not exist, there are {slots}")]
    NoSlot {
        /// The slot.
        slot: usize,
        /// How many there are.
        slots: usize,
    },
    /// A token past the vocabulary.
    #[error("token {token} (number {at}) is not in the vocabulary of {vocab}")]
    NoToken {
        /// The token.
        token: u32,
        /// Where in the tokens given.
        at: usize,
        /// The size of the vocabulary.
        vocab: usize,
    },
    /// No tokens.
    #[error("there are no tokens to run")]
    Empty,
    /// More sequences at once than the program runs, or none.
    #[error(
        "{found} sequences at once: the program runs 1 to {}, for it has {slots} slots and steps of at most {rows} rows \
         and {outputs} outputs",
        slots.min(rows).min(outputs)
    )]
    Places {
        /// How many were asked for.
        found: usize,
        /// Sequences that the states hold.
        slots: usize,
        /// The bound on S.
        rows: usize,
        /// The bound on R.
        outputs: usize,
    },
    /// Fewer free places in a batch than sequences that were added.
    #[error("{found} sequences are added, but only {free} places are free: remove one that has ended first")]
    NoPlace {
        /// How many were added.
        found: usize,
        /// Places that are free.
        free: usize,
    },
    /// A row that would leave a gap in its slot.
    #[error("row {row} is at position {found} of slot {slot}, which holds {held} tokens: there would be a gap")]
    Gap {
        /// The row.
        row: usize,
        /// Its slot.
        slot: usize,
        /// Its position.
        found: usize,
        /// Tokens the slot holds before it.
        held: usize,
    },
    /// A slot cannot be rewound to a length that it does not have.
    #[error("slot {slot} holds {held} tokens and cannot be rewound to {to}")]
    Rewind {
        /// The slot.
        slot: usize,
        /// Tokens it holds.
        held: usize,
        /// The length asked for.
        to: usize,
    },
    /// A state that is not kept by slot cannot be forked.
    #[error("state \"{state}\" is not kept by slot: slots cannot be forked")]
    NotBySlot {
        /// The state.
        state: String,
    },
    /// The step was refused.
    #[error(transparent)]
    Step(#[from] StepError),
}
