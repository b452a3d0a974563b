//! A model directory as a whole.

use super::fields::{read_object, shorten};
use super::{ConfigError, read_config};
use crate::file;
use crate::{Checkpoint, Config, WeightsError};
use serde_json::Value;
use std::io::Read;
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

    /// The chat template: `chat_template.jinja` if there is one, as transformers has it, else `chat_template` of
    /// `tokenizer_config.json`, of several the one named `default`.
    ///
    /// # Errors
    /// A file that cannot be read, is no text or no JSON object, or a template that is none.
    pub fn chat_template(&self) -> Result<Option<String>, ConfigError> {
        const MOST: u64 = 1 << 20;
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        let path = self.path.join("chat_template.jinja");
        if exists(&path) {
            let read = |error| ConfigError::Read { path: path.clone(), expected: "a chat template in Jinja", error };
            let mut text = String::new();
            file::open(&path).and_then(|f| f.take(MOST + 1).read_to_string(&mut text)).map_err(read)?;
            if text.len() as u64 > MOST {
                return Err(ConfigError::TooLarge { path, limit: MOST });
            }
            return Ok(Some(text));
        }
        let path = self.path.join("tokenizer_config.json");
        if !exists(&path) {
            return Ok(None);
        }
        let map = read_object(&path, "a Hugging Face tokenizer_config.json")?;
        let named_default = |v: &&Value| v.get("name").and_then(Value::as_str) == Some("default");
        let template = match map.get("chat_template") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(several)) => several.iter().find(named_default).and_then(|v| v.get("template")),
            one => one,
        };
        match template {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            other => Err(ConfigError::Invalid {
                path,
                key: "chat_template".to_owned(),
                found: other.map_or_else(|| "a list without a default".to_owned(), shorten),
                expected: "a text, or a list of named texts with one named default".to_owned(),
            }),
        }
    }
}
