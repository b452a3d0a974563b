//! Weight packing: which weights a program has, where each lies in the weight section, and the pass that fills it.
//!
//! [`WeightPlan`] collects weights and RoPE tables while the plan is lowered, each once, and gives them offsets;
//! [`pack`] then streams the source's tensors through once, in the order of the section. Nothing here knows what a weight is
//! for, and nothing is decided about layout: that is in the weights' types and recipes.

mod error;
mod plan;

pub use error::PackError;
pub use plan::WeightPlan;
