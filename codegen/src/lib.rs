//! Plans become programs: regions to loop IR, loop IR to machine code, weights to panels, steps to work.
//!
//! What this crate must never do: read a model file (weights come from a [`llamac_ir::TensorSource`]), run a step, or emit code
//! that needs a relocation.
//!
//! Data flows: plan → [`lower`] (regions to [`loops`]) → [`emit`] (CLIF, machine code) → [`program`] and code section, which
//! [`jit`] maps executable and [`artifact`] writes to a file; beside it [`pack`] fills the weight section from recipes.

pub mod artifact;
pub mod emit;
pub mod error;
pub mod jit;
pub mod loops;
pub mod lower;
pub mod pack;
pub mod program;
pub mod target;

pub use artifact::{WriteError, write};
pub use error::CodegenError;
pub use jit::JitCode;
pub use pack::{PackError, WeightPlan};
pub use program::{Compiled, Listing, Options, Stats, compile};
pub use target::Target;
