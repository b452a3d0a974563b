//! A model directory as a whole.

use super::{ConfigError, read_config};
use crate::{Checkpoint, Config, WeightsError};
use std::path::{Path, PathBuf};

/// A Hugging Face directory whose configuration was read. Weights and tokenizer are opened when they are asked for.
#[derive(Clone, Debug)]
pub struct ModelDir {
    path: PathBuf,
    config: Config,
}

impl ModelDir {
    /// Reads `config.json` and, where there is one, `generation_config.json`.
    ///
    /// # Errors
    /// Everything that makes the configuration unusable, with file and key.
    pub fn open(path: &Path) -> Result<ModelDir, ConfigError> {
        let config = read_config(&path.join("config.json"))?;
        Ok(ModelDir { path: path.into(), config })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's name, for reports; the path itself where it has none.
    pub fn name(&self) -> String {
        let resolved = self.path.canonicalize();
        let path = resolved.as_deref().unwrap_or(&self.path);
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Maps the weights and checks every header.
    ///
    /// # Errors
    /// Whatever is wrong with the files.
    pub fn weights(&self) -> Result<Checkpoint, WeightsError> {
        Checkpoint::open(&self.path)
    }

    /// Where `tokenizer.json` is, if the directory has one. A model without runs on ids.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        let path = self.path.join("tokenizer.json");
        path.symlink_metadata().is_ok().then_some(path)
    }
}
