//! Weights by recipe, widened to f32.

use crate::{DType, Recipe, TensorSource, Type};
use half::{bf16, f16};
use thiserror::Error;

/// A weight that cannot be made from the source.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum WeightError {
    #[error("{source_name}: the tensor {tensor:?} is missing")]
    Missing { source_name: String, tensor: String },
    #[error("{source_name}: tensor {tensor:?}: found {found}, expected {expected}")]
    Mismatch { source_name: String, tensor: String, found: String, expected: String },
}

/// The elements of a weight of type `ty`, row-major.
///
/// # Errors
/// A tensor that is missing or does not fit.
pub fn evaluate(recipe: &Recipe, ty: &Type, source: &dyn TensorSource) -> Result<Vec<f32>, WeightError> {
    let dims: Vec<usize> = ty.dims.iter().filter_map(|d| d.as_const()).collect();
    let mismatch = |tensor: &str, found: String, expected: String| WeightError::Mismatch {
        source_name: source.describe(),
        tensor: tensor.to_owned(),
        found,
        expected,
    };
    match recipe {
        Recipe::Tensor(name) => {
            let t = source
                .tensor(name)
                .ok_or_else(|| WeightError::Missing { source_name: source.describe(), tensor: name.clone() })?;
            if t.dims != dims || t.dtype != ty.dtype {
                return Err(mismatch(name, format!("{}{:?}", t.dtype, t.dims), format!("{}{dims:?}", ty.dtype)));
            }
            Ok(widen(t.dtype, t.bytes))
        }
        Recipe::Widen(of) => {
            let first = recipe.tensors().first().map_or_else(String::new, |s| (*s).to_owned());
            let t = source
                .tensor(&first)
                .ok_or_else(|| WeightError::Missing { source_name: source.describe(), tensor: first.clone() })?;
            evaluate(of, &ty.with_dtype(t.dtype), source)
        }
        Recipe::PermuteRows { of, heads } => {
            let rows = dims.first().copied().unwrap_or(0);
            let head = rows.checked_div(*heads).unwrap_or(0);
            if head == 0 || head * heads != rows || head % 2 != 0 {
                let name = recipe.tensors().first().map_or_else(String::new, |s| (*s).to_owned());
                return Err(mismatch(
                    &name,
                    format!("{rows} rows"),
                    format!("an even number of rows for each of {heads} heads"),
                ));
            }
            let from = evaluate(of, ty, source)?;
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
            let mut out = vec![];
            for part in parts {
                let rows = rows(part, source)?;
                let mut part_dims = ty.dims.clone();
                if let Some(d) = part_dims.first_mut() {
                    *d = rows.into();
                }
                out.extend(evaluate(part, &ty.with_dims(part_dims), source)?);
            }
            let expected: usize = dims.iter().product();
            if out.len() != expected {
                let first = recipe.tensors().first().map_or_else(String::new, |s| (*s).to_owned());
                return Err(mismatch(&first, format!("{} elements in all parts", out.len()), format!("{expected}")));
            }
            Ok(out)
        }
    }
}

/// The number of rows (axis 0) of a recipe.
fn rows(recipe: &Recipe, source: &dyn TensorSource) -> Result<usize, WeightError> {
    let mut total = 0;
    for name in recipe.tensors() {
        let t = source
            .tensor(name)
            .ok_or_else(|| WeightError::Missing { source_name: source.describe(), tensor: name.to_owned() })?;
        total += t.dims.first().copied().unwrap_or(1);
    }
    Ok(total)
}

fn widen(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        DType::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        DType::I32 | DType::Bool => unreachable!("a weight is a float"),
    }
}
