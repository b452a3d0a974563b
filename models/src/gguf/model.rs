//! A model in a GGUF file.

use super::names::{self, ROPE_FACTORS};
use super::{Gguf, GgufError, config, tokens};
use crate::Config;
use crate::import::{ImportError, Stored, import_stored};
use crate::mapped::Mapped;
use llamac_formats::vocabulary::Description;
use llamac_ir::{Bounds, Graph, TensorSource, TensorView};
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file whose header was checked, whose configuration was read and whose tensors fit it.
#[derive(Debug)]
pub struct GgufModel {
    path: PathBuf,
    gguf: Gguf<Mapped>,
    config: Config,
}

impl GgufModel {
    /// Maps a file and checks header, configuration and the shape of every tensor. No weight is read.
    ///
    /// # Errors
    /// Whatever is wrong with the file, with key or tensor.
    pub fn open(path: &Path) -> Result<GgufModel, GgufError> {
        let origin = path.display().to_string();
        let file = Mapped::open(path).map_err(|error| GgufError::Read { origin: origin.clone(), error })?;
        let gguf = Gguf::parse(origin, file)?;
        let config = config::config(&gguf)?;
        fit(&gguf, &config)?;
        Ok(GgufModel { path: path.into(), gguf, config })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file itself says.
    pub fn header(&self) -> &Gguf<impl AsRef<[u8]> + use<>> {
        &self.gguf
    }

    /// The file's name without its ending, for reports.
    pub fn name(&self) -> String {
        self.path.file_stem().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model as a graph; weights have the types that the file stores.
    ///
    /// # Errors
    /// None, for a file that was opened.
    pub fn import(&self, bounds: Bounds) -> Result<Graph, ImportError> {
        import_stored(&self.config, &self.name(), bounds, &|name| self.stored(name))
    }

    /// How a tensor of [`Config::tensors`] is stored.
    pub fn stored(&self, name: &str) -> Option<Stored> {
        let tensor = names::gguf_name(self.config.architecture, name)?;
        let dtype = self.gguf.place(&tensor)?.dtype;
        Some(Stored { recipe: names::recipe(&self.config, name)?, dtype })
    }

    /// Tensors that the model does not use: worth a warning.
    pub fn unused(&self) -> Vec<String> {
        let all = self.config.tensors();
        let used: HashSet<String> =
            all.iter().filter_map(|t| names::gguf_name(self.config.architecture, &t.name)).collect();
        let unused = self.gguf.tensors().map(|(name, _)| name).filter(|n| *n != ROPE_FACTORS && !used.contains(*n));
        unused.map(String::from).collect()
    }

    /// Whether there is a vocabulary inside.
    pub fn has_vocabulary(&self) -> bool {
        tokens::is_there(&self.gguf)
    }

    /// What the vocabulary inside is made of; `None` where there is none.
    ///
    /// # Errors
    /// Keys of the tokenizer that are wrong or not supported.
    pub fn vocabulary(&self) -> Result<Option<Description>, GgufError> {
        tokens::description(&self.gguf, self.config.vocab)
    }

    /// The vocabulary in its stored form ([`llamac_formats::vocabulary`]).
    ///
    /// # Errors
    /// As [`GgufModel::vocabulary`], and lists that contradict each other.
    pub fn stored_vocabulary(&self) -> Result<Option<Vec<u8>>, GgufError> {
        self.vocabulary()?.map(|description| tokens::encode(&self.gguf, &description)).transpose()
    }

    /// The chat template inside.
    ///
    /// # Errors
    /// A value that is no text.
    pub fn chat_template(&self) -> Result<Option<&str>, GgufError> {
        tokens::chat_template(&self.gguf)
    }
}

impl TensorSource for GgufModel {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let place = self.gguf.place(name)?;
        Some(TensorView { dtype: place.dtype, dims: &place.dims, bytes: self.gguf.bytes(place) })
    }

    fn release_part(&self, name: &str, bytes: Range<usize>) {
        if let Some(place) = self.gguf.place(name) {
            self.gguf.file().release(&place.bytes, bytes);
        }
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

/// Reads all that there is to read in the bytes of a file, whatever they are, and forgets it: what a fuzzer runs.
pub fn read_all(bytes: &[u8]) {
    let Ok(gguf) = Gguf::parse("fuzzed.gguf", bytes) else { return };
    for (_, value) in gguf.keys() {
        drop(value.show());
    }
    for (_, place) in gguf.tensors() {
        assert_eq!(
            place.dtype.storage_of(&place.dims),
            Some(gguf.bytes(place).len()),
            "a tensor is as long as its shape"
        );
    }
    // What is wrong is an error; nothing else may happen.
    if let Ok(config) = config::config(&gguf) {
        drop(fit(&gguf, &config));
        drop(tokens::chat_template(&gguf));
        let description = tokens::description(&gguf, config.vocab);
        drop(description.and_then(|d| d.map(|d| tokens::encode(&gguf, &d)).transpose()));
    }
}

/// Every tensor's presence, shape and type.
fn fit<B: AsRef<[u8]>>(gguf: &Gguf<B>, config: &Config) -> Result<(), GgufError> {
    for expected in config.tensors() {
        let Some(tensor) = names::gguf_name(config.architecture, &expected.name) else { continue };
        let Some(place) = gguf.place(&tensor) else {
            let origin = gguf.origin().into();
            return Err(GgufError::MissingTensor { origin, tensor, expected: expected.dims });
        };
        let wrong = |found, expected| GgufError::Tensor { origin: gguf.origin().into(), tensor, found, expected };
        if place.dims != expected.dims {
            return Err(wrong(format!("has shape {:?}", place.dims), format!("{:?}", expected.dims)));
        }
        if expected.dims.len() == 1 && !place.dtype.is_float() {
            return Err(wrong(format!("is {}", place.dtype), "f32, f16 or bf16 for a norm or bias".into()));
        }
    }
    Ok(())
}
