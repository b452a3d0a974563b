//! From a model description to a graph of primitives and the tensors that it needs.
//!
//! A description is a Hugging Face directory (`config.json`, safetensors, `generation_config.json`), read into a [`Config`]
//! and a [`Checkpoint`], or a GGUF file, read into a [`Config`] and a [`GgufModel`]. All are checked as far as they can be before anything is computed: whatever is not
//! understood is refused with the file, the key or tensor, what was found and what was expected.
//!
//! What this crate must never do: emit anything but primitives, compute with weights, choose a layout, or hold tensor data
//! in memory (files are mapped; a generator keeps what it made only for as long as it is asked for).
//!
//! Data flows: directory → [`hf::ModelDir`] → [`Config`] + [`Checkpoint`] → [`import::import`] → graph, and file →
//! [`gguf::Gguf`] → [`GgufModel`] → [`import::import_stored`] → graph; [`synth`] goes the other way and writes a directory
//! with seeded random weights.

pub mod config;
mod file;
pub mod gguf;
pub mod hf;
pub mod import;
mod mapped;
pub mod quant;
pub mod synth;
pub mod weights;

pub use config::{Architecture, Config};
pub use gguf::{GgufError, GgufModel};
pub use hf::{ConfigError, ModelDir};
pub use import::{ImportError, import};
pub use weights::{Checkpoint, WeightsError};
