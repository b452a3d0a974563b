//! Views composed into strides: where the elements of a value lie in the buffer that really holds them.

use crate::{Graph, Value};
use llamac_formats::Access;

/// Follows views from `value` to the first value that is not a view, and returns the strided access (one stride per axis
/// of `value`) to that value's memory.
///
/// # Errors
/// Says why no strided access exists: a `concat`, or a `reshape` that merges axes which do not lie one after the other.
pub fn access(graph: &Graph, value: Value) -> Result<Access<Value>, NotStrided> {
    let _ = (graph, value);
    Err(NotStrided { at: value, reason: String::new() })
}

/// A view that strides cannot express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at} cannot be read through: {reason}")]
pub struct NotStrided {
    /// The view.
    pub at: Value,
    /// Why not.
    pub reason: String,
}
