//! Weights made up: a source of seeded random tensors for every weight that a graph names.
//!
//! Values are such that activations stay sane: of rank 2 and more, uniform with standard deviation 1/√K for a last axis K;
//! of lower rank, between 0.5 and 1.5. Block types hold what such values are encoded to.

use crate::prng::Prng;
use crate::{Graph, Op, Recipe, TensorSource, TensorView, Type};
use half::{bf16, f16};
use llamac_formats::DType;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use thiserror::Error;

/// The most bytes that are made up.
const MAX_BYTES: usize = 4 << 30;

/// Why tensors cannot be made up for a graph.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SeededError {
    /// Two weights need one tensor in two shapes.
    #[error("the tensor {tensor:?} is needed as {first} and as {second}")]
    Conflict {
        /// The tensor.
        tensor: String,
        /// One shape.
        first: String,
        /// Another.
        second: String,
    },
    /// The parts of a `concat` cannot be told apart.
    #[error("the rows of {weight} cannot be divided among the parts of {recipe}: expected an equal share for each")]
    Parts {
        /// The weight's type.
        weight: String,
        /// Its recipe.
        recipe: String,
    },
    /// Too much.
    #[error("the weights take {found} bytes, at most {MAX_BYTES} are made up")]
    TooLarge {
        /// Bytes of all tensors.
        found: usize,
    },
}

struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    bytes: OnceLock<Vec<u8>>,
}

/// The source. Tensors are made when they are first read.
pub struct SeededSource {
    seed: u64,
    tensors: BTreeMap<String, Tensor>,
}

impl SeededSource {
    /// A source for the weights of a graph. Of a `concat` only the sum of rows is known: parts whose tensors are used
    /// elsewhere by themselves keep their rows, the others get equal shares.
    ///
    /// # Errors
    /// Weights that contradict each other or are too large.
    pub fn new(graph: &Graph, seed: u64) -> Result<SeededSource, SeededError> {
        let mut source = SeededSource { seed, tensors: BTreeMap::new() };
        let weights: Vec<(&Recipe, &Type)> = graph
            .order()
            .iter()
            .filter_map(|&i| match graph.op(i) {
                Op::Weight(recipe) => Some((recipe, graph.ty(graph.result(i)))),
                _ => None,
            })
            .collect();
        // First what is certain, then what is shared out.
        for &(recipe, ty) in weights.iter().filter(|(r, _)| r.tensors().len() == 1) {
            source.need(recipe, ty)?;
        }
        for &(recipe, ty) in weights.iter().filter(|(r, _)| r.tensors().len() != 1) {
            source.need(recipe, ty)?;
        }
        let bytes = |t: &Tensor| t.dtype.storage_of(&t.dims).unwrap_or(usize::MAX);
        let found = source.tensors.values().map(bytes).fold(0, usize::saturating_add);
        if found > MAX_BYTES { Err(SeededError::TooLarge { found }) } else { Ok(source) }
    }

    /// Notes the tensors that a recipe of type `ty` needs.
    fn need(&mut self, recipe: &Recipe, ty: &Type) -> Result<(), SeededError> {
        match recipe {
            Recipe::Tensor(name) => {
                let dims: Vec<usize> = ty.dims.iter().filter_map(|d| d.as_const()).collect();
                let new = Tensor { dtype: ty.dtype, dims, bytes: OnceLock::new() };
                match self.tensors.get(name) {
                    Some(old) if old.dtype != new.dtype || old.dims != new.dims => Err(SeededError::Conflict {
                        tensor: name.clone(),
                        first: format!("{}{:?}", old.dtype, old.dims),
                        second: format!("{}{:?}", new.dtype, new.dims),
                    }),
                    Some(_) => Ok(()),
                    None => {
                        self.tensors.insert(name.clone(), new);
                        Ok(())
                    }
                }
            }
            Recipe::PermuteRows { of, .. } => self.need(of, ty),
            Recipe::Convert(of) => {
                let known = of.tensors().first().and_then(|n| self.tensors.get(*n)).map(|t| t.dtype);
                self.need(of, &ty.with_dtype(known.unwrap_or(DType::BF16)))
            }
            Recipe::Concat(parts) | Recipe::InterleavePanels(parts) => {
                let total = ty.dims.first().and_then(|d| d.as_const()).unwrap_or(0);
                let known: Vec<Option<usize>> = parts.iter().map(|p| self.rows(p)).collect();
                let unknown = known.iter().filter(|k| k.is_none()).count();
                let rest = total.checked_sub(known.iter().flatten().fold(0, |n: usize, &k| n.saturating_add(k)));
                let share = match rest {
                    Some(rest) if unknown > 0 && rest > 0 && rest % unknown == 0 => rest / unknown,
                    Some(0) if unknown == 0 => 0,
                    _ => return Err(SeededError::Parts { weight: ty.to_string(), recipe: recipe.to_string() }),
                };
                for (part, known) in parts.iter().zip(known) {
                    let mut dims = ty.dims.clone();
                    dims[0] = known.unwrap_or(share).into();
                    self.need(part, &ty.with_dims(dims))?;
                }
                Ok(())
            }
        }
    }

    /// The rows of a recipe, if its tensors are known already.
    fn rows(&self, recipe: &Recipe) -> Option<usize> {
        recipe.tensors().into_iter().map(|n| self.tensors.get(n)?.dims.first().copied()).sum()
    }
}

impl TensorSource for SeededSource {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let t = self.tensors.get(name)?;
        let bytes = t.bytes.get_or_init(|| make(t.dtype, &t.dims, Prng::named(self.seed, name)));
        Some(TensorView { dtype: t.dtype, dims: &t.dims, bytes })
    }

    fn describe(&self) -> String {
        format!("random weights of seed {}", self.seed)
    }
}

fn make(dtype: DType, dims: &[usize], mut prng: Prng) -> Vec<u8> {
    let count: usize = dims.iter().product();
    let mut out = Vec::with_capacity(dtype.storage(count).unwrap_or(0));
    // Uniform in −a to a has the standard deviation a/√3.
    let scale = dims.last().map_or(1.0, |&k| (3.0 / k as f32).sqrt());
    let mut value = || {
        let u = prng.uniform();
        if dims.len() >= 2 { u * scale } else { 1.0 + 0.5 * u }
    };
    if let DType::Block(format) = dtype {
        let mut row = vec![0.0; format.elements()];
        let mut block = vec![0; format.bytes()];
        for _ in 0..count / row.len() {
            row.iter_mut().for_each(|v| *v = value());
            format.encode(&row, &mut block);
            out.extend_from_slice(&block);
        }
        return out;
    }
    for _ in 0..count {
        let value = value();
        match dtype {
            DType::F16 => out.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
            DType::BF16 => out.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
            // The typing rules allow only weights.
            _ => out.extend_from_slice(&value.to_le_bytes()),
        }
    }
    out
}
