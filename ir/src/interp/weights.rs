//! Weights by recipe, as f32.

use crate::{DType, Recipe, TensorSource, TensorView, Type};
use half::{bf16, f16};
use thiserror::Error;

/// A weight that cannot be made from the source.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WeightError {
    /// The source has no such tensor.
    #[error("{source_name}: the tensor {tensor:?} is missing")]
    Missing {
        /// What the source calls itself.
        source_name: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another dtype or shape.
    #[error("{source_name}: tensor {tensor:?}: found {found}, expected {expected}")]
    Mismatch {
        /// What the source calls itself.
        source_name: String,
        /// The tensor; the first, where several are joined.
        tensor: String,
        /// What it is.
        found: String,
        /// What the graph needs.
        expected: String,
    },
}

/// The elements of a weight of type `ty`, row-major: layouts mean nothing here, so `interleave_panels` is a `concat`. Each
/// tensor is released after it was read.
///
/// # Errors
/// A tensor that is missing or does not fit.
pub fn evaluate(recipe: &Recipe, ty: &Type, source: &dyn TensorSource) -> Result<Vec<f32>, WeightError> {
    let dims: Vec<usize> = ty.dims.iter().filter_map(|d| d.as_const()).collect();
    Evaluation { source, dtype: ty.dtype }.part(recipe, &dims, false)
}

struct Evaluation<'a> {
    source: &'a dyn TensorSource,
    /// The weight's.
    dtype: DType,
}

impl Evaluation<'_> {
    fn tensor(&self, name: &str) -> Result<TensorView<'_>, WeightError> {
        let missing = || WeightError::Missing { source_name: self.source.describe(), tensor: name.to_owned() };
        self.source.tensor(name).ok_or_else(missing)
    }

    fn mismatch(&self, recipe: &Recipe, found: String, expected: String) -> WeightError {
        let tensor = recipe.tensors().first().map_or_else(String::new, |s| (*s).to_owned());
        WeightError::Mismatch { source_name: self.source.describe(), tensor, found, expected }
    }

    /// A recipe of known shape; of any dtype where it is converted.
    fn part(&self, recipe: &Recipe, dims: &[usize], converted: bool) -> Result<Vec<f32>, WeightError> {
        match recipe {
            Recipe::Tensor(name) => {
                let t = self.tensor(name)?;
                if t.dims != dims || !converted && t.dtype != self.dtype || !t.dtype.is_weight() {
                    let wanted = if converted { "real numbers ".to_owned() } else { self.dtype.to_string() };
                    let (found, expected) = (format!("{}{:?}", t.dtype, t.dims), format!("{wanted}{dims:?}"));
                    return Err(self.mismatch(recipe, found, expected));
                }
                let mut out = widen(t.dtype, t.bytes);
                if t.dtype != self.dtype {
                    round(self.dtype, &mut out);
                }
                self.source.release(name);
                Ok(out)
            }
            Recipe::Convert(of) => self.part(of, dims, true),
            Recipe::PermuteRows { of, heads } => {
                let rows = dims.first().copied().unwrap_or(0);
                let head = rows.checked_div(*heads).unwrap_or(0);
                if head == 0 || head * heads != rows || head % 2 != 0 {
                    let expected = format!("an even number of rows for each of {heads} heads");
                    return Err(self.mismatch(recipe, format!("{rows} rows"), expected));
                }
                let from = self.part(of, dims, converted)?;
                let width = from.len() / rows;
                let mut out = Vec::with_capacity(from.len());
                for row in 0..rows {
                    let (h, j) = (row / head, row % head);
                    let source_row = h * head + if j < head / 2 { 2 * j } else { 2 * (j - head / 2) + 1 };
                    out.extend_from_slice(&from[source_row * width..(source_row + 1) * width]);
                }
                Ok(out)
            }
            Recipe::Concat(parts) | Recipe::InterleavePanels(parts) => {
                let rows = parts.iter().map(|p| self.rows(p)).collect::<Result<Vec<usize>, _>>()?;
                let total = rows.iter().fold(0, |n: usize, &r| n.saturating_add(r));
                // Before anything is read: a text may name one tensor very often.
                if dims.first() != Some(&total) {
                    let expected = format!("{} rows", dims.first().copied().unwrap_or(0));
                    return Err(self.mismatch(recipe, format!("{total} rows in all parts"), expected));
                }
                let mut out = vec![];
                for (part, rows) in parts.iter().zip(rows) {
                    let mut dims = dims.to_vec();
                    dims[0] = rows;
                    out.extend(self.part(part, &dims, converted)?);
                }
                Ok(out)
            }
        }
    }

    /// The number of rows (axis 0) of a recipe.
    fn rows(&self, recipe: &Recipe) -> Result<usize, WeightError> {
        let mut total = 0usize;
        for name in recipe.tensors() {
            total = total.saturating_add(self.tensor(name)?.dims.first().copied().unwrap_or(1));
        }
        Ok(total)
    }
}

fn widen(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        DType::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        DType::Block(format) => {
            let mut out = vec![0.0; bytes.len() / format.bytes() * format.elements()];
            format.decode(bytes, &mut out);
            out
        }
        DType::I32 | DType::Bool | DType::Q8 => unreachable!("the typing rules allow no such weight"),
    }
}

/// What becomes of values that are stored as `dtype`.
fn round(dtype: DType, values: &mut [f32]) {
    match dtype {
        DType::F16 => values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32()),
        DType::BF16 => values.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32()),
        DType::Block(format) => {
            let mut blocks = vec![0; values.len() / format.elements() * format.bytes()];
            format.encode(values, &mut blocks);
            format.decode(&blocks, values);
        }
        DType::F32 | DType::I32 | DType::Bool | DType::Q8 => {}
    }
}
