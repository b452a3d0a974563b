//! One safetensors file, or many with an index, as one set of named tensors.

use super::WeightsError;
use super::header::{Entry, read_header};
use crate::hf::{ConfigError, read_object_within, shorten};
use crate::mapped::Mapped;
use llamac_ir::{DType, TensorSource, TensorView};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// An index names every tensor once: far beyond what any has.
const MAX_INDEX: u64 = 100_000_000;

/// Mapped, checked weights.
#[derive(Debug)]
pub struct Checkpoint {
    /// What was opened.
    origin: PathBuf,
    files: Vec<Mapped>,
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    file: usize,
    dtype: DType,
    dims: Vec<usize>,
    bytes: Range<usize>,
}

impl Checkpoint {
    /// Opens a directory (`model.safetensors`, or shards with `model.safetensors.index.json`) or one safetensors file.
    /// Every header is checked whole; no tensor is read.
    ///
    /// # Errors
    /// Whatever is wrong with the files, with file and tensor.
    pub fn open(path: &Path) -> Result<Checkpoint, WeightsError> {
        let metadata = std::fs::metadata(path).map_err(|error| WeightsError::Read {
            path: path.into(),
            expected: "a model directory or a .safetensors file",
            error,
        })?;
        if !metadata.is_dir() {
            return Checkpoint::single(path, path);
        }
        let (single, index) = (path.join(SINGLE), path.join(INDEX));
        // A broken link or an unreadable file must be reported as itself, not as absent.
        if single.symlink_metadata().is_ok() {
            Checkpoint::single(path, &single)
        } else if index.symlink_metadata().is_ok() {
            Checkpoint::sharded(path, &index)
        } else {
            Err(WeightsError::NoWeights { path: path.into() })
        }
    }

    fn single(origin: &Path, path: &Path) -> Result<Checkpoint, WeightsError> {
        let file = Mapped::open(path).map_err(|error| WeightsError::Read {
            path: path.into(),
            expected: "a safetensors file",
            error,
        })?;
        let tensors = read_header(path, file.as_ref())?
            .into_iter()
            .map(|entry| (entry.name.clone(), Place::new(0, entry)))
            .collect();
        Ok(Checkpoint { origin: origin.into(), files: vec![file], tensors })
    }

    fn sharded(origin: &Path, index: &Path) -> Result<Checkpoint, WeightsError> {
        let shards = read_index(index)?;
        let wrong = |message: String| WeightsError::Index { path: index.into(), message };
        let mut checkpoint = Checkpoint { origin: origin.into(), files: vec![], tensors: BTreeMap::new() };
        for (number, (shard, mut listed)) in shards.into_iter().enumerate() {
            let path = origin.join(&shard);
            let file = Mapped::open(&path).map_err(|error| WeightsError::Shard {
                path: index.into(),
                shard: shard.clone(),
                tensor: listed[0].clone(),
                others: listed.len() - 1,
                error,
            })?;
            let entries = read_header(&path, file.as_ref())?;
            listed.sort_unstable();
            for entry in entries {
                if listed.binary_search(&entry.name).is_err() {
                    return Err(wrong(format!("shard {shard} holds `{}`, which the index does not say", entry.name)));
                }
                checkpoint.tensors.insert(entry.name.clone(), Place::new(number, entry));
            }
            let held = |name: &String| checkpoint.tensors.get(name).is_some_and(|place| place.file == number);
            if let Some(absent) = listed.iter().find(|name| !held(name)) {
                return Err(wrong(format!("tensor `{absent}` is said to be in {shard}, which does not hold it")));
            }
            checkpoint.files.push(file);
        }
        Ok(checkpoint)
    }

    /// What was opened.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The names of all tensors, in order of their bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The file that holds the tensor, or what was opened.
    pub fn file_of(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(&self.origin, |place| self.files[place.file].path())
    }

    /// The tensor of that name and shape.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn expect(&self, name: &str, dims: &[usize]) -> Result<TensorView<'_>, WeightsError> {
        let Some(view) = self.tensor(name) else {
            return Err(WeightsError::Missing {
                origin: self.origin.display().to_string(),
                tensor: name.into(),
                expected: dims.into(),
                hint: String::new(),
            });
        };
        if view.dims != dims {
            return Err(WeightsError::Shape {
                origin: self.file_of(name).display().to_string(),
                tensor: name.into(),
                found: view.dims.into(),
                expected: dims.into(),
            });
        }
        Ok(view)
    }
}

impl TensorSource for Checkpoint {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let place = self.tensors.get(name)?;
        let bytes = &self.files[place.file].as_ref()[place.bytes.clone()];
        Some(TensorView { dtype: place.dtype, dims: &place.dims, bytes })
    }

    fn release_part(&self, name: &str, bytes: Range<usize>) {
        let Some(place) = self.tensors.get(name) else { return };
        self.files[place.file].release(&place.bytes, bytes);
    }

    fn describe(&self) -> String {
        self.origin.display().to_string()
    }
}

impl Place {
    fn new(file: usize, entry: Entry) -> Place {
        Place { file, dtype: entry.dtype, dims: entry.dims, bytes: entry.bytes }
    }
}

/// The shards with the tensors of each, both in order of their names. No shard is without a tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, Vec<String>>, WeightsError> {
    let wrong = |message: String| WeightsError::Index { path: path.into(), message };
    let map = read_object_within(path, "an index of shards", MAX_INDEX).map_err(|error| match error {
        ConfigError::Read { path, expected, error } => WeightsError::Read { path, expected, error },
        ConfigError::Empty { .. } => wrong("the file is empty; expected a JSON object".into()),
        ConfigError::TooLarge { limit, .. } => {
            wrong(format!("has more than {limit} bytes; expected an index of tensors"))
        }
        other => wrong(other.to_string()),
    })?;
    let Some(weight_map) = map.get("weight_map").and_then(|v| v.as_object()) else {
        return Err(wrong("key `weight_map` is missing or no object; expected tensor names with their shards".into()));
    };
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for (tensor, shard) in weight_map {
        let Some(name) = shard.as_str() else {
            return Err(wrong(format!("weight_map.{tensor} is {}; expected a file name", shorten(shard))));
        };
        let mut components = Path::new(name).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(wrong(format!("weight_map.{tensor} is {name:?}; expected a file name without directories")));
        }
        shards.entry(name.into()).or_default().push(tensor.clone());
    }
    if shards.is_empty() {
        return Err(wrong("weight_map is empty; expected tensor names with their shards".into()));
    }
    Ok(shards)
}
