//! Streaming files to disk: whole or not at all.

use super::{Filler, SynthError};
use crate::Config;
use llamac_formats::DType;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Elements made and written at once by a thread.
const BLOCK: usize = 1 << 20;
/// Data begin at a multiple of this, bytes.
const ALIGN: usize = 64;

/// A file under another name until it is whole; removed if that never happens.
struct Partial {
    target: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Partial {
    fn new(target: &Path) -> Partial {
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}.partial", std::process::id()));
        Partial { target: target.into(), path: target.with_file_name(name), done: false }
    }

    fn finish(mut self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            // Whatever went wrong is reported already; a file that is left is only litter.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Writes a small JSON file.
pub(super) fn write_json(target: &Path, value: &Value) -> Result<(), SynthError> {
    let partial = Partial::new(target);
    let text = format!("{value:#}\n");
    fs::write(&partial.path, text)
        .and_then(|()| partial.finish())
        .map_err(|error| SynthError::Write { path: target.into(), error })
}

/// Writes all tensors of a configuration; returns the size of the file.
pub(super) fn write_weights(target: &Path, config: &Config, dtype: DType, seed: u64) -> Result<u64, SynthError> {
    let partial = Partial::new(target);
    let written = stream(&partial.path, config, dtype, seed).and_then(|bytes| partial.finish().map(|()| bytes));
    written.map_err(|error| SynthError::Write { path: target.into(), error })
}

/// A run of elements of one tensor and where it goes.
struct Block {
    filler: Filler,
    first: usize,
    elements: usize,
    /// Byte offset in the file.
    offset: u64,
}

fn stream(path: &Path, config: &Config, dtype: DType, seed: u64) -> io::Result<u64> {
    let (header, blocks, bytes) = layout(config, dtype, seed);
    let file = File::create(path)?;
    file.set_len(bytes)?;
    file.write_all_at(&header, 0)?;
    let threads = thread::available_parallelism().map_or(1, usize::from).min(8);
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        let mut buffer = vec![0; BLOCK * dtype.bytes()];
        while let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let part = &mut buffer[..block.elements * dtype.bytes()];
            block.filler.fill(block.first, part);
            file.write_all_at(part, block.offset)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mine = work();
        others.into_iter().fold(mine, |result, thread| match thread.join() {
            Ok(theirs) => result.and(theirs),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(bytes)
}

/// The header (with its length before it), the blocks after it, and the size of the file.
fn layout(config: &Config, dtype: DType, seed: u64) -> (Vec<u8>, Vec<Block>, u64) {
    let name = match dtype {
        DType::BF16 => "BF16",
        DType::F16 => "F16",
        _ => "F32",
    };
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut blocks = vec![];
    let mut end = 0;
    for tensor in config.tensors() {
        let elements = tensor.dims.iter().product::<usize>();
        let start = end;
        end += (elements * dtype.bytes()) as u64;
        let filler = Filler::for_tensor(seed, &tensor.name, dtype, &tensor.dims);
        for first in (0..elements).step_by(BLOCK) {
            let offset = start + (first * dtype.bytes()) as u64;
            blocks.push(Block { filler, first, elements: BLOCK.min(elements - first), offset });
        }
        entries.insert(tensor.name, json!({ "dtype": name, "shape": tensor.dims, "data_offsets": [start, end] }));
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    // The format allows spaces after the JSON, so that data can be aligned.
    text.resize((8 + text.len()).next_multiple_of(ALIGN) - 8, b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(&text);
    let data = header.len() as u64;
    for block in &mut blocks {
        block.offset += data;
    }
    (header, blocks, data + end)
}
