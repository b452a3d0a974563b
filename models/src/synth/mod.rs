//! Model directories with seeded random weights: the shape of a real model without its gigabytes of download.
//!
//! The same description and seed give the same bytes on every machine. Files are streamed in blocks by a few threads, written
//! beside their targets and renamed when they are whole, `config.json` last: a directory that has one is complete.

mod filler;
mod presets;
mod vocabulary;
mod writer;

pub use filler::Filler;
pub use presets::PRESETS;
pub use vocabulary::tokenizer_json;

use crate::hf::{read_config, read_object};
use crate::{Config, ConfigError, hf};
use llamac_formats::DType;
use serde_json::{Map, Value, json};
use std::io;
use std::path::{Path, PathBuf};

/// The key in a written `config.json` that says who wrote it, so that it may be written over.
const MARK: &str = "llamac_synth";

/// The most bytes of weights that are written.
const MAX_BYTES: u64 = 1 << 40;

/// What to write.
#[derive(Clone, Debug)]
pub struct Synth {
    /// The configuration as it will be written.
    json: Map<String, Value>,
    config: Config,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Parameters of the model.
    pub parameters: u64,
    /// Bytes of `model.safetensors`.
    pub bytes: u64,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// Neither a preset nor a file.
    #[error("`{name}` is no preset and no file; presets: {}; or give the path of a config.json", presets::names())]
    UnknownPreset {
        /// What was asked for.
        name: String,
    },
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory holds a model that was not made here.
    #[error("{}: the directory holds a model that llamac did not make; give another directory, or remove it first", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// The configuration is believable for a reader, but nobody wants its weights on a disk.
    #[error("the weights would take {bytes} bytes; expected at most {MAX_BYTES}: make the model smaller")]
    TooLarge {
        /// Bytes of all tensors.
        bytes: u64,
    },
    /// The system refused to write.
    #[error("{}: cannot be written ({error})", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl Synth {
    /// A preset's name, or else the path of a `config.json` (or of a directory with one).
    ///
    /// # Errors
    /// If it is neither, or the configuration is unusable.
    pub fn named(what: &str) -> Result<Synth, SynthError> {
        if let Some(synth) = Synth::preset(what)? {
            return Ok(synth);
        }
        let path = Path::new(what);
        let path = if path.is_dir() { path.join("config.json") } else { path.to_path_buf() };
        if path.symlink_metadata().is_err() && !what.contains('/') && !what.ends_with(".json") {
            return Err(SynthError::UnknownPreset { name: what.into() });
        }
        let json = read_object(&path, "a preset or a Hugging Face config.json")?;
        Ok(Synth { config: read_config(&path)?, json })
    }

    /// A preset by name.
    ///
    /// # Errors
    /// Never for a preset of this crate; its configuration is read like any other.
    pub fn preset(name: &str) -> Result<Option<Synth>, SynthError> {
        let Some((_, text)) = PRESETS.iter().find(|(preset, _)| *preset == name) else { return Ok(None) };
        let path = PathBuf::from(format!("preset {name}"));
        let json = serde_json::from_str::<Map<String, Value>>(text)
            .map_err(|error| ConfigError::Syntax { path: path.clone(), message: error.to_string() })?;
        Ok(Some(Synth { config: hf::parse_config(&path, &json)?, json }))
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How the weights will be stored: as the configuration says, f32 where it says nothing.
    pub fn dtype(&self) -> DType {
        self.config.dtype.unwrap_or(DType::F32)
    }

    /// Writes `model.safetensors`, `generation_config.json`, `tokenizer.json` (where the vocabulary has room for one) and
    /// `config.json` into `directory`, which is made if needed.
    ///
    /// # Errors
    /// If the directory holds another model, or the system refuses.
    pub fn write(&self, directory: &Path, seed: u64) -> Result<Written, SynthError> {
        let bytes = self.config.parameters() * self.dtype().bytes() as u64;
        if bytes > MAX_BYTES {
            return Err(SynthError::TooLarge { bytes });
        }
        std::fs::create_dir_all(directory).map_err(|error| SynthError::Write { path: directory.into(), error })?;
        let target = directory.join("config.json");
        if target.symlink_metadata().is_ok() {
            let mine = read_object(&target, "a configuration").is_ok_and(|map| map.contains_key(MARK));
            if !mine {
                return Err(SynthError::Occupied { path: directory.into() });
            }
        } else if directory.join("model.safetensors").symlink_metadata().is_ok() {
            return Err(SynthError::Occupied { path: directory.into() });
        }
        let bytes = writer::write_weights(&directory.join("model.safetensors"), &self.config, self.dtype(), seed)?;
        let ids = |ids: &[u32]| if let [one] = ids { json!(one) } else { json!(ids) };
        let generation = json!({ "bos_token_id": self.config.bos, "eos_token_id": ids(&self.config.eos) });
        writer::write_json(&directory.join("generation_config.json"), &generation)?;
        if let Some(tokenizer) = tokenizer_json(&self.config, seed) {
            writer::write_json(&directory.join("tokenizer.json"), &tokenizer)?;
        }
        let mut json = self.json.clone();
        json.insert(MARK.into(), json!({ "seed": seed }));
        writer::write_json(&target, &Value::Object(json))?;
        Ok(Written { parameters: self.config.parameters(), bytes })
    }
}
