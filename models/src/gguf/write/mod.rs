//! A model as a GGUF file, version 3, as llama.cpp reads it.
//!
//! Everything about the file is decided before its first byte: keys, names, types and offsets. Then the tensors are
//! streamed, some megabytes at a time, encoded on several threads. The bytes are a function of the model and the types: no
//! thread count, time or path goes in.

mod error;
mod keys;
mod metadata;
mod numbers;
mod rows;

pub use error::ExportError;
pub use numbers::Numbers;

use super::names::{self, EMBEDDING, HEAD, ROPE_FACTORS};
use super::read::{DEFAULT_ALIGNMENT, type_code};
use crate::config::{Architecture, Config};
use crate::import::Stored;
use keys::Keys;
use llamac_formats::vocabulary::Description;
use llamac_formats::{DType, RopeScaling, RopeTable};
use llamac_ir::TensorSource;
use rows::Rows;
use std::io::Write;

/// What becomes a file.
pub struct Export<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// What the model is called.
    pub name: &'a str,
    /// Its tensors.
    pub source: &'a dyn TensorSource,
    /// How the source stores a tensor of [`Config::tensors`].
    pub stored: &'a dyn Fn(&str) -> Option<Stored>,
    /// The vocabulary, of a model that has one.
    pub vocabulary: Option<&'a Description>,
    /// The chat template, Jinja.
    pub chat_template: Option<&'a str>,
    /// What matrices are stored as; `None`: as the source has them.
    pub numbers: Option<Numbers>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// Tensors with name, type and shape, in the order of the file.
    pub tensors: Vec<(String, DType, Vec<usize>)>,
}

/// A tensor of the file.
struct Planned {
    name: String,
    dtype: DType,
    dims: Vec<usize>,
    bytes: usize,
    from: From,
}

/// Where a tensor's elements come from.
enum From {
    /// The source.
    Rows(Rows),
    /// A few numbers.
    Numbers(Vec<f32>),
}

/// Writes the file. `progress(done, all)` is told bytes of tensors.
///
/// # Errors
/// A tensor that is missing or cannot be stored so, something that the format cannot say, or what `out` says.
pub fn write(
    export: &Export<'_>,
    out: &mut dyn Write,
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Written, ExportError> {
    let tensors = plan(export)?;
    let mut header = metadata::keys(export, &tensors)?.encode(tensors.len());
    let mut offset = 0_usize;
    for t in &tensors {
        keys::text(&mut header, t.name.as_bytes());
        header.extend((t.dims.len() as u32).to_le_bytes());
        // The elements of a row come first.
        t.dims.iter().rev().for_each(|&d| header.extend((d as u64).to_le_bytes()));
        let code =
            type_code(t.dtype).ok_or_else(|| ExportError::tensor(export, &t.name, "has a type that GGUF lacks"))?;
        header.extend(code.to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset = padded(offset.saturating_add(t.bytes));
    }
    header.resize(padded(header.len()), 0);
    out.write_all(&header)?;
    let (mut done, all) = (0, tensors.iter().map(|t| t.bytes).sum());
    for t in &tensors {
        match &t.from {
            From::Numbers(numbers) => {
                for x in numbers {
                    out.write_all(&x.to_le_bytes())?;
                }
            }
            From::Rows(rows) => rows.stream(export, t, threads, out, &mut |now| progress(done + now, all))?,
        }
        out.write_all(&[0; DEFAULT_ALIGNMENT][..padded(t.bytes) - t.bytes])?;
        done += t.bytes;
        progress(done, all);
    }
    out.flush()?;
    let tensors = tensors.into_iter().map(|t| (t.name, t.dtype, t.dims)).collect();
    Ok(Written { bytes: (header.len() + offset) as u64, tensors })
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(DEFAULT_ALIGNMENT)
}

/// Every tensor of the file with its type.
fn plan(export: &Export<'_>) -> Result<Vec<Planned>, ExportError> {
    let config = export.config;
    let mut planned = vec![];
    if let Some(factors) = rope_factors(export)? {
        let (dims, bytes) = (vec![factors.len()], 4 * factors.len());
        planned.push(Planned {
            name: ROPE_FACTORS.into(),
            dtype: DType::F32,
            dims,
            bytes,
            from: From::Numbers(factors),
        });
    }
    for tensor in config.tensors() {
        let name = names::gguf_name(config.architecture, &tensor.name)
            .ok_or_else(|| ExportError::tensor(export, &tensor.name, "has no name in GGUF"))?;
        planned.push(matrix(export, name, &tensor.name, &tensor.dims)?);
    }
    // llama.cpp takes the embedding as head for Llama and Qwen 2 alone.
    if config.tied && config.architecture == Architecture::Olmo2 {
        let dims = [config.vocab, config.hidden];
        planned.push(matrix(export, HEAD.into(), "model.embed_tokens.weight", &dims)?);
    }
    Ok(planned)
}

/// A tensor of the source under the name of the file.
fn matrix(export: &Export<'_>, name: String, from: &str, dims: &[usize]) -> Result<Planned, ExportError> {
    let rows = Rows::new(export, &name, from, dims)?;
    let dtype = match export.numbers {
        // Norms and biases are few, and llama.cpp adds them in f32.
        _ if dims.len() < 2 => DType::F32,
        None => rows.dtype(),
        Some(numbers) => numbers.dtype(export.config, &name, dims[1]),
    };
    if let (found @ DType::Block(_), DType::Block(_)) = (rows.dtype(), dtype)
        && found != dtype
    {
        let what = format!(
            "is {found} and would be rounded again to {dtype}: export from the model that it was made of, or leave --quant out"
        );
        return Err(ExportError::tensor(export, &name, what));
    }
    let bytes = dtype.storage_of(dims).ok_or_else(|| ExportError::tensor(export, &name, "is too large"))?;
    Ok(Planned { name, dtype, dims: dims.to_vec(), bytes, from: From::Rows(rows) })
}

/// The divisors of the frequencies that llama.cpp is to be told.
fn rope_factors(export: &Export<'_>) -> Result<Option<Vec<f32>>, ExportError> {
    let table = &export.config.rope;
    let factors = match &table.scaling {
        RopeScaling::Default | RopeScaling::Linear { .. } => return Ok(None),
        RopeScaling::Factors { factors } => factors.clone(),
        RopeScaling::Llama3 { .. } => {
            let plain = RopeTable { scaling: RopeScaling::Default, ..table.clone() }.inv_freq();
            let ratio = |(plain, scaled): (&f32, f32)| (f64::from(*plain) / f64::from(scaled)) as f32;
            plain.iter().zip(table.inv_freq()).map(ratio).collect()
        }
    };
    if export.config.architecture != Architecture::Llama {
        return Err(ExportError::Inexpressible {
            what: format!(
                "RoPE scaling of kind {} in the architecture {}",
                table.scaling.name(),
                export.config.architecture
            ),
        });
    }
    Ok(Some(factors))
}

/// Whether a tensor of the file is what makes the logits.
fn is_output(config: &Config, name: &str) -> bool {
    name == HEAD || (name == EMBEDDING && config.tied)
}
