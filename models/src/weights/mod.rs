//! Named tensors in files.
//!
//! A [`Checkpoint`] is one safetensors file or many with an index, mapped and fully checked when it is opened: nothing
//! that a view shows can be out of range later. Pages come in as they are read and go when they are released.

mod checkpoint;
mod error;
mod finite;
mod fit;
mod header;

pub use checkpoint::Checkpoint;
pub use error::WeightsError;
pub use finite::{NotFinite, not_finite, not_finite_tensors};
pub use fit::{Fit, fit};
