//! Typed access to the keys of a JSON file, with errors that name file, key, found and expected.

use super::ConfigError;
use crate::file;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::Path;

/// Configurations are a few kilobytes; this is far beyond.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a file whose top is a JSON object of at most `limit` bytes.
pub(crate) fn read_object(path: &Path, expected: &'static str) -> Result<Map<String, Value>, ConfigError> {
    read_object_within(path, expected, MAX_BYTES)
}

/// The same with another bound on the size.
pub(crate) fn read_object_within(
    path: &Path,
    expected: &'static str,
    limit: u64,
) -> Result<Map<String, Value>, ConfigError> {
    let read = |error| ConfigError::Read { path: path.into(), expected, error };
    let file = file::open(path).map_err(read)?;
    // A file may grow while it is read: reading is bounded whatever the metadata say.
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > limit {
        return Err(ConfigError::TooLarge { path: path.into(), limit });
    }
    if bytes.is_empty() {
        return Err(ConfigError::Empty { path: path.into() });
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| ConfigError::Syntax { path: path.into(), message: format!("not a JSON object ({error})") })
}

/// A JSON value as an error shows it.
pub(crate) fn shorten(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 { text } else { format!("{}…", text.chars().take(80).collect::<String>()) }
}

/// An object of a file. A key whose value is `null` is absent, as transformers treats it.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    path: &'a Path,
    prefix: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(path: &'a Path, map: &'a Map<String, Value>) -> Fields<'a> {
        Fields { path, prefix: "", map }
    }

    /// The key's full name.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.into() } else { format!("{}.{key}", self.prefix) }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(crate) fn invalid(&self, key: &str, found: &Value, expected: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            path: self.path.into(),
            key: self.key(key),
            found: shorten(found),
            expected: expected.into(),
        }
    }

    pub(crate) fn unsupported(&self, key: &str, found: &Value, supported: impl Into<String>) -> ConfigError {
        ConfigError::Unsupported {
            path: self.path.into(),
            key: self.key(key),
            found: shorten(found),
            supported: supported.into(),
        }
    }

    pub(crate) fn missing(&self, key: &str, expected: impl Into<String>) -> ConfigError {
        ConfigError::Missing { path: self.path.into(), key: self.key(key), expected: expected.into() }
    }

    pub(crate) fn contradiction(&self, first: &str, second: &str, detail: String) -> ConfigError {
        ConfigError::Contradiction { path: self.path.into(), first: self.key(first), second: self.key(second), detail }
    }

    /// An integer in `1..=max`.
    pub(crate) fn size(&self, key: &str, max: usize) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if n >= 1 && n <= max as u64 => Ok(Some(n as usize)),
            _ => Err(self.invalid(key, value, format!("an integer from 1 to {max}"))),
        }
    }

    /// The same where there is no default.
    pub(crate) fn required_size(&self, key: &str, max: usize) -> Result<usize, ConfigError> {
        self.size(key, max)?.ok_or_else(|| self.missing(key, format!("an integer from 1 to {max}")))
    }

    /// A finite number that fulfils `accept`.
    pub(crate) fn number(
        &self,
        key: &str,
        expected: &str,
        accept: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64() {
            Some(x) if x.is_finite() && accept(x) => Ok(Some(x)),
            _ => Err(self.invalid(key, value, expected)),
        }
    }

    /// A positive number that stays positive and finite in f32.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.number(key, "a positive number that f32 can hold", |x| (x as f32).is_normal() && x > 0.0)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.invalid(key, value, "true or false"))
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(key, value, "a string"))
    }

    /// The first key that holds an object.
    pub(crate) fn nested(&self) -> Option<(&'a str, &'a Value)> {
        self.map.iter().find(|(_, v)| v.is_object()).map(|(k, v)| (k.as_str(), v))
    }

    /// A nested object.
    pub(crate) fn object(&self, key: &'a str) -> Result<Option<Fields<'a>>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.invalid(key, value, "an object"))?;
        Ok(Some(Fields { path: self.path, prefix: key, map }))
    }

    /// A token id below `vocab`, or a list of such.
    pub(crate) fn tokens(&self, key: &str, vocab: usize) -> Result<Option<Vec<u32>>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let one = |v: &Value| v.as_u64().filter(|&id| id < vocab as u64).map(|id| id as u32);
        let ids = match value {
            Value::Array(list) => list.iter().map(one).collect(),
            single => one(single).map(|id| vec![id]),
        };
        ids.map(Some).ok_or_else(|| {
            self.invalid(key, value, format!("a token id below vocab_size = {vocab}, or a list of such ids"))
        })
    }
}
