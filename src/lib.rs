//! llamac as a library: open a model, compile it, run it.
//!
//! [`model::Model::open`] reads a description, [`compile::compile`] takes its graph through the passes to a program,
//! [`compile::pack_weights`] packs its weights, and [`compile::session`] opens a session that runs it; [`artifact::write`]
//! puts it into a file instead; [`export::export`] writes a model as GGUF. [`verify`] compares what runs with the
//! reference interpreter. The command line (`src/cli`) only parses options and prints.

pub mod artifact;
pub mod compile;
pub mod export;
pub mod model;
pub mod traffic;
pub mod verify;
