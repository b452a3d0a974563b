//! Hugging Face model directories.
//!
//! `config.json` says what the model is, `generation_config.json` (where there is one) which tokens end a text,
//! `model.safetensors` or shards with an index hold the weights, `tokenizer.json` is handed on as it is.

mod config;
mod directory;
mod error;
mod fields;
mod rope;

pub use config::{parse_config, read_config};
pub use directory::ModelDir;
pub use error::ConfigError;
pub(crate) use fields::{read_object, read_object_within, shorten};
