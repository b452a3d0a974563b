//! Why a step could not be interpreted.

use super::weights::WeightError;
use crate::{DType, Graph, Inst};
use thiserror::Error;

/// The most elements that the interpreter makes of one value: 2 GiB of truth values, 16 GiB of f64.
pub const MAX_ELEMENTS: usize = 1 << 31;

/// Why a step could not be interpreted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InterpError {
    /// An input was not given.
    #[error("the input {name:?} is missing: expected {expected}")]
    MissingInput {
        /// Its name.
        name: String,
        /// dtype and shape.
        expected: String,
    },
    /// An input has another dtype or number of elements.
    #[error("the input {name:?}: found {found}, expected {expected}")]
    Input {
        /// Its name.
        name: String,
        /// What was given.
        found: String,
        /// dtype and shape.
        expected: String,
    },
    /// An element of an input is not below its limit.
    #[error("the input {name:?}: found {found} at row {row}, expected 0..{limit}")]
    Range {
        /// Its name.
        name: String,
        /// Which element.
        row: usize,
        /// The element.
        found: i32,
        /// The limit, exclusive.
        limit: usize,
    },
    /// A size is above the graph's bound.
    #[error("the {what} {found} of a step is above its bound {bound}")]
    Bound {
        /// Which size.
        what: &'static str,
        /// The size.
        found: usize,
        /// The bound.
        bound: usize,
    },
    /// A dynamic axis is shorter in this step than an index says.
    #[error("{origin}: index {found} is outside 0..{limit}")]
    Index {
        /// The instruction.
        origin: String,
        /// The index.
        found: i32,
        /// How long the axis is, or how many slots or tokens there are.
        limit: usize,
    },
    /// A value that is too large to interpret.
    #[error("{origin}: {found} elements are too many to interpret, expected at most {MAX_ELEMENTS}")]
    TooLarge {
        /// The instruction.
        origin: String,
        /// How many elements.
        found: usize,
    },
    /// A weight that cannot be made.
    #[error(transparent)]
    Weight(#[from] WeightError),
}

impl InterpError {
    pub(super) fn index(graph: &Graph, inst: Inst, found: i32, limit: usize) -> InterpError {
        InterpError::Index { origin: origin(graph, inst), found, limit }
    }

    pub(super) fn too_large(graph: &Graph, inst: Inst, found: usize) -> InterpError {
        InterpError::TooLarge { origin: origin(graph, inst), found }
    }

    pub(super) fn input(name: &str, found: (usize, DType), expected: String) -> InterpError {
        InterpError::Input { name: name.into(), found: format!("{} elements of {}", found.0, found.1), expected }
    }
}

fn origin(graph: &Graph, inst: Inst) -> String {
    match graph.origin(inst) {
        "" => format!("`{}`", graph.op(inst).mnemonic()),
        origin => format!("{origin} ({})", graph.op(inst).mnemonic()),
    }
}
