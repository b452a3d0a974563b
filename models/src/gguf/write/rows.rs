//! Rows of a source's tensor in the order and type of the file.

use super::{Export, ExportError, Planned};
use crate::gguf::names;
use half::{bf16, f16};
use llamac_formats::DType;
use llamac_ir::{Recipe, TensorView};
use std::io::Write;

/// Bytes of the file that are made at a time.
const CHUNK: usize = 8 << 20;

/// Rows of a tensor of the source.
pub(super) struct Rows {
    /// Its name there.
    tensor: String,
    dtype: DType,
    /// Rows of a head, where half-split rows become interleaved.
    head: Option<usize>,
}

impl Rows {
    /// Finds the tensor that is stored for `from` and checks it.
    pub(super) fn new(export: &Export<'_>, name: &str, from: &str, dims: &[usize]) -> Result<Rows, ExportError> {
        let wrong = |what: String| Err(ExportError::tensor(export, name, what));
        let Some(stored) = (export.stored)(from) else {
            return wrong(format!("is missing; expected shape {dims:?}: complete the model"));
        };
        let (tensor, interleaved) = match &stored.recipe {
            Recipe::Tensor(tensor) => (tensor, false),
            Recipe::PermuteRows { of, .. } => match of.as_ref() {
                Recipe::Tensor(tensor) => (tensor, true),
                other => return wrong(format!("is made by {other}, expected a tensor")),
            },
            other => return wrong(format!("is made by {other}, expected a tensor")),
        };
        let heads = names::interleaved_heads(export.config, from);
        let head = match (heads, interleaved) {
            (None, true) => return wrong("is interleaved, which its architecture is not".into()),
            (Some(heads), false) => Some(dims[0] / heads.max(1)),
            (None, false) | (Some(_), true) => None,
        };
        match export.source.tensor(tensor) {
            None => wrong(format!("is missing; expected shape {dims:?}: complete the model")),
            Some(view) if view.dims != dims => wrong(format!("has shape {:?}; expected {dims:?}", view.dims)),
            Some(view) if view.dtype.storage_of(view.dims) != Some(view.bytes.len()) || !view.dtype.is_weight() => {
                wrong(format!("is {} of {} bytes; expected weights", view.dtype, view.bytes.len()))
            }
            Some(view) => Ok(Rows { tensor: tensor.clone(), dtype: view.dtype, head }),
        }
    }

    /// What the source stores.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The row of the source that is row `row` of the file.
    fn from(&self, row: usize) -> usize {
        match self.head {
            None => row,
            Some(head) => {
                let (first, within) = (row / head * head, row % head);
                first + within % 2 * (head / 2) + within / 2
            }
        }
    }

    /// Writes all rows; `progress` is told bytes.
    pub(super) fn stream(
        &self,
        export: &Export<'_>,
        planned: &Planned,
        threads: usize,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), ExportError> {
        let missing = || ExportError::tensor(export, &planned.name, "is missing");
        let view = export.source.tensor(&self.tensor).ok_or_else(missing)?;
        // A vector is a matrix of rows of one element: biases of q and k are permuted too.
        let (rows, row) = match *planned.dims.as_slice() {
            [rows, row] => (rows, row),
            _ => (planned.dims.iter().product(), 1),
        };
        let bytes = planned.bytes / rows.max(1);
        let most = (CHUNK / bytes.max(1)).clamp(1, rows.max(1));
        let each = most.div_ceil(threads.max(1));
        let mut buffer = vec![0; most * bytes];
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            let chunk = &mut buffer[..count * bytes];
            let encoded: Result<(), String> = std::thread::scope(|scope| {
                let parts = chunk.chunks_mut(each * bytes).enumerate().map(|(i, part)| {
                    let start = first + i * each;
                    scope.spawn(move || self.encode(&view, row, start, bytes, planned.dtype, part))
                });
                let running: Vec<_> = parts.collect();
                running.into_iter().try_for_each(|r| r.join().unwrap_or_else(|_| Err("cannot be encoded".into())))
            });
            encoded.map_err(|what| ExportError::tensor(export, &planned.name, what))?;
            out.write_all(chunk)?;
            // Permuted rows lie in the same head: what is behind the last whole head is done with.
            let done = first + count;
            let passed = self.head.map_or(done, |head| done / head.max(1) * head);
            let of = view.bytes.len() / rows.max(1);
            export.source.release_part(&self.tensor, first * of..passed * of);
            progress(done * bytes);
        }
        Ok(())
    }

    /// Rows from `first` on, as many as `out` has room for.
    fn encode(
        &self,
        view: &TensorView<'_>,
        row: usize,
        first: usize,
        bytes: usize,
        to: DType,
        out: &mut [u8],
    ) -> Result<(), String> {
        let of = self.dtype.storage(row).unwrap_or(0);
        let mut numbers = vec![0.0_f32; row];
        for (i, out) in out.chunks_exact_mut(bytes).enumerate() {
            let at = self.from(first + i);
            let from = &view.bytes[at * of..(at + 1) * of];
            if to == self.dtype {
                out.copy_from_slice(from);
                continue;
            }
            decode(self.dtype, from, &mut numbers);
            if to != DType::F32
                && to != DType::BF16
                && let Some(bad) = numbers.iter().find(|x| !x.is_finite() || (to == DType::F16 && x.abs() >= 65520.0))
            {
                return Err(format!("holds {bad} in row {at}, which {to} cannot: export it as f32 or bf16"));
            }
            encode(to, &numbers, out);
        }
        Ok(())
    }
}

fn decode(dtype: DType, from: &[u8], out: &mut [f32]) {
    match dtype {
        DType::Block(format) => format.decode(from, out),
        DType::F16 => from.as_chunks::<2>().0.iter().zip(out).for_each(|(b, x)| *x = f16::from_le_bytes(*b).to_f32()),
        DType::BF16 => from.as_chunks::<2>().0.iter().zip(out).for_each(|(b, x)| *x = bf16::from_le_bytes(*b).to_f32()),
        _ => from.as_chunks::<4>().0.iter().zip(out).for_each(|(b, x)| *x = f32::from_le_bytes(*b)),
    }
}

fn encode(dtype: DType, from: &[f32], out: &mut [u8]) {
    match dtype {
        DType::Block(format) => format.encode(from, out),
        DType::F16 => {
            out.as_chunks_mut::<2>().0.iter_mut().zip(from).for_each(|(b, x)| *b = f16::from_f32(*x).to_le_bytes());
        }
        DType::BF16 => {
            out.as_chunks_mut::<2>().0.iter_mut().zip(from).for_each(|(b, x)| *b = bf16::from_f32(*x).to_le_bytes());
        }
        _ => out.as_chunks_mut::<4>().0.iter_mut().zip(from).for_each(|(b, x)| *b = x.to_le_bytes()),
    }
}
