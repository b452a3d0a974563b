//! What can be wrong with weights.

use llamac_formats::DType;
use thiserror::Error;

/// An error of weight planning or packing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PackError {
    /// A recipe that cannot make a weight of that type, whatever the tensors are.
    #[error("weight {recipe} of type {ty}: {reason}")]
    Recipe {
        /// The recipe.
        recipe: String,
        /// The weight's type.
        ty: String,
        /// What does not fit, and what would.
        reason: String,
    },
    /// All weights together are larger than this machine's addresses.
    #[error("weight {recipe} of type {ty}: the weight section would exceed the address space")]
    TooLarge {
        /// The weight that is too much.
        recipe: String,
        /// Its type.
        ty: String,
    },
    /// A tensor that the source does not have.
    #[error(
        "{origin}: no tensor named `{tensor}`, expected {expected}; the file is incomplete or belongs to another model"
    )]
    Missing {
        /// What the source calls itself.
        origin: String,
        /// The tensor's name.
        tensor: String,
        /// The type that it should have.
        expected: String,
    },
    /// A tensor of other elements.
    #[error("{origin}: tensor `{tensor}` is {found}, expected {expected}; compile against the weights that are packed")]
    DType {
        /// What the source calls itself.
        origin: String,
        /// The tensor's name.
        tensor: String,
        /// What its elements are.
        found: DType,
        /// What they should be.
        expected: String,
    },
    /// A tensor of another shape.
    #[error("{origin}: tensor `{tensor}` has shape {found:?}, expected {expected}")]
    Shape {
        /// What the source calls itself.
        origin: String,
        /// The tensor's name.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the shape should be.
        expected: String,
    },
    /// Tensors that together have too few or too many rows.
    #[error("{origin}: the parts of {recipe} have {found} rows in all, expected {expected}")]
    Rows {
        /// What the source calls itself.
        origin: String,
        /// The recipe that joins them.
        recipe: String,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A tensor whose bytes do not fit its own shape.
    #[error("{origin}: tensor `{tensor}` has {found} bytes, its shape and type say {expected}")]
    Bytes {
        /// What the source calls itself.
        origin: String,
        /// The tensor's name.
        tensor: String,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A place of another size than the weight section.
    #[error("the weight section was given {found} bytes, expected {expected}; ask the plan for `total_bytes`")]
    Section {
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
}
