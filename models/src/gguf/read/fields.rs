//! Typed access to keys, with errors that name file, key, found and expected.

use super::{Array, Gguf, Kind, Value};
use crate::gguf::GgufError;

impl<B: AsRef<[u8]>> Gguf<B> {
    /// The error of a value that is no use.
    pub(in crate::gguf) fn invalid(&self, key: &str, found: impl ToString, expected: impl Into<String>) -> GgufError {
        GgufError::Key {
            origin: self.origin().into(),
            key: key.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// The error of a value that llamac cannot follow.
    pub(in crate::gguf) fn unsupported(
        &self,
        key: &str,
        found: impl ToString,
        supported: impl Into<String>,
    ) -> GgufError {
        GgufError::Unsupported {
            origin: self.origin().into(),
            key: key.into(),
            found: found.to_string(),
            supported: supported.into(),
        }
    }

    /// The error of a key that must be there.
    pub(in crate::gguf) fn missing(&self, key: &str, expected: impl Into<String>) -> GgufError {
        GgufError::MissingKey { origin: self.origin().into(), key: key.into(), expected: expected.into() }
    }

    /// An integer in `least..=most`.
    pub(in crate::gguf) fn integer(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.integer().and_then(|n| u64::try_from(n).ok()) {
            Some(n) if (least..=most).contains(&n) => Ok(Some(n)),
            _ => Err(self.invalid(key, value.show(), format!("an integer from {least} to {most}"))),
        }
    }

    /// A size in `1..=most`.
    pub(in crate::gguf) fn size(&self, key: &str, most: usize) -> Result<Option<usize>, GgufError> {
        Ok(self.integer(key, 1, most as u64)?.map(|n| n as usize))
    }

    /// The same where there is no default.
    pub(in crate::gguf) fn required_size(&self, key: &str, most: usize) -> Result<usize, GgufError> {
        self.size(key, most)?.ok_or_else(|| self.missing(key, format!("an integer from 1 to {most}")))
    }

    /// A number that fulfils `accept`.
    pub(in crate::gguf) fn number(
        &self,
        key: &str,
        expected: &str,
        accept: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value {
            Value::Float(x) if x.is_finite() && accept(x) => Ok(Some(x)),
            _ => Err(self.invalid(key, value.show(), expected)),
        }
    }

    /// A positive number that stays positive and finite in f32.
    pub(in crate::gguf) fn positive(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.number(key, "a positive number that f32 can hold", |x| x > 0.0 && (x as f32).is_normal())
    }

    /// A truth value.
    pub(in crate::gguf) fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.invalid(key, other.show(), "a truth value")),
        }
    }

    /// A string.
    pub(in crate::gguf) fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value {
            Value::Text(text) => {
                str::from_utf8(text).map(Some).map_err(|_| self.invalid(key, value.show(), "a string in UTF-8"))
            }
            other => Err(self.invalid(key, other.show(), "a string")),
        }
    }

    /// An array of one of some kinds.
    pub(in crate::gguf) fn array(&self, key: &str, kinds: &[Kind]) -> Result<Option<Array<'_>>, GgufError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array(array)) if kinds.contains(&array.kind) => Ok(Some(array)),
            Some(other) => {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                Err(self.invalid(key, other.show(), format!("an array of {}", names.join(" or "))))
            }
        }
    }
}
