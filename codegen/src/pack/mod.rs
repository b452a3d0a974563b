//! Weight packing: which weights a program has, where each lies in the weight section, and the pass that fills it.
//!
//! [`WeightPlan`] collects weights and RoPE tables while the plan is lowered, each once, and gives them places; [`pack`]
//! then streams the source's tensors through once, in the order of the section. Nothing here knows what a weight is for,
//! and nothing is decided about layout: that is in the weights' types and recipes.
//!
//! A row-major weight holds its logical rows one after the other. Of a weight in panels ([`llamac_formats::panel`]) logical
//! row `n` lies in panel `n / 16`, whichever tensor it comes from; only under `interleave_panels` does each part have
//! panels of its own (its last one padded), and panel `p` of part `i` of `P` is panel `p·P + i` of the weight.
//!
//! Tensors that are in the weight's type already, blocks included, are moved as they are; under `convert` they are decoded and
//! rounded on the way, row by row, and what blocks lose of them is reported.

mod convert;
mod error;
mod finite;
mod panels;
mod pass;
mod plan;
mod release;
mod resolve;
mod stream;
mod weight;

pub use error::PackError;
pub use finite::NotFinite;
pub use pass::{PackReport, Rounded, pack};
pub use plan::WeightPlan;
pub use stream::{StreamError, pack_to};
