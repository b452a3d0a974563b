//! GGUF files: one file with the configuration, the vocabulary and the weights of a model.
//!
//! [`Gguf`] is the bounded reader: it checks every count, length, offset and size against the file before it is used.
//! [`GgufModel`] is a model in such a file: its configuration, its vocabulary, and its tensors as a source of weights.
//! [`mod@write`] goes the other way.
//!
//! GGUF's `llama` keeps the rows of q and k in interleaved RoPE order; the recipe of those weights permutes them, so that
//! RoPE has one form in every graph. `olmo2` and `qwen2` keep them as Hugging Face does.

mod config;
mod error;
mod model;
mod names;
mod read;
mod tokens;
pub mod write;

pub use error::GgufError;
pub use model::{GgufModel, read_all};
pub use read::{Array, Gguf, Kind, MAGIC, TensorPlace, Value};
