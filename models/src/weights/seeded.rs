//! Tensors that are in no file: seeded values, made when they are first asked for.

use super::WeightsError;
use crate::synth::Filler;
use llamac_ir::{DType, TensorSource, TensorView};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Small normal-ish values for declared tensors, for graphs that come without weights. The values of a tensor depend on
/// the seed and on its name alone.
#[derive(Debug)]
pub struct SeededTensors {
    seed: u64,
    tensors: BTreeMap<String, Seeded>,
}

/// The most bytes of values that are made.
const MAX_BYTES: usize = 4 << 30;

#[derive(Debug)]
struct Seeded {
    dtype: DType,
    dims: Vec<usize>,
    bytes: OnceLock<Vec<u8>>,
}

impl SeededTensors {
    /// A source of the declared tensors (name, element type, shape). Integers and truth values are all zero.
    ///
    /// # Errors
    /// [`WeightsError::TooLarge`] if all together need more memory than a test graph should.
    pub fn new(
        seed: u64,
        declared: impl IntoIterator<Item = (String, DType, Vec<usize>)>,
    ) -> Result<SeededTensors, WeightsError> {
        let mut tensors = BTreeMap::new();
        let mut left = MAX_BYTES;
        for (tensor, dtype, dims) in declared {
            let bytes = dims.iter().try_fold(dtype.bytes(), |bytes, &dim| bytes.checked_mul(dim));
            left = match bytes.and_then(|bytes| left.checked_sub(bytes)) {
                Some(left) => left,
                None => return Err(WeightsError::TooLarge { tensor, dims, limit: MAX_BYTES }),
            };
            tensors.insert(tensor, Seeded { dtype, dims, bytes: OnceLock::new() });
        }
        Ok(SeededTensors { seed, tensors })
    }
}

impl TensorSource for SeededTensors {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let Seeded { dtype, dims, bytes } = self.tensors.get(name)?;
        let bytes = bytes.get_or_init(|| {
            let mut bytes = vec![0; dims.iter().product::<usize>() * dtype.bytes()];
            Filler::for_tensor(self.seed, name, *dtype, dims).fill(0, &mut bytes);
            bytes
        });
        Some(TensorView { dtype: *dtype, dims, bytes })
    }

    fn describe(&self) -> String {
        format!("seeded values (seed {})", self.seed)
    }
}
