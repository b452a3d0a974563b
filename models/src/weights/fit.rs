//! Whether a checkpoint has what a configuration says.

use super::{Checkpoint, WeightsError};
use crate::Config;
use llamac_ir::TensorSource;

/// What a fitting checkpoint has besides the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// Tensors that the model does not use: worth a warning.
    pub unused: Vec<String>,
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
/// Bytes compared before their pages are let go.
const BLOCK: usize = 16 << 20;

/// Checks every tensor's presence and shape, and a tied head against the embedding.
///
/// # Errors
/// The first tensor that is missing or has another shape, or a head that contradicts `tie_word_embeddings`.
pub fn fit(config: &Config, checkpoint: &Checkpoint) -> Result<Fit, WeightsError> {
    let tensors = config.tensors();
    for tensor in &tensors {
        checkpoint.expect(&tensor.name, &tensor.dims).map_err(|error| match error {
            WeightsError::Missing { origin, tensor, expected, .. } if tensor == HEAD => WeightsError::Missing {
                origin,
                tensor,
                expected,
                hint: "; set tie_word_embeddings to true in config.json if the embedding is the head".into(),
            },
            other => other,
        })?;
    }
    if config.tied && checkpoint.tensor(HEAD).is_some() && !same(checkpoint)? {
        return Err(WeightsError::Tied { origin: checkpoint.file_of(HEAD).display().to_string() });
    }
    let mut used: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    used.sort_unstable();
    let tied_copy = |name: &str| config.tied && name == HEAD;
    // Old checkpoints store the frequencies that the configuration already gives.
    let frequencies = |name: &str| name.ends_with("rotary_emb.inv_freq");
    let unused = checkpoint.names().filter(|n| used.binary_search(n).is_err() && !tied_copy(n) && !frequencies(n));
    Ok(Fit { unused: unused.map(String::from).collect() })
}

/// Whether head and embedding are equal byte for byte.
fn same(checkpoint: &Checkpoint) -> Result<bool, WeightsError> {
    let (Some(embedding), Some(head)) = (checkpoint.tensor(EMBEDDING), checkpoint.tensor(HEAD)) else {
        return Ok(false);
    };
    if (embedding.dtype, embedding.dims) != (head.dtype, head.dims) {
        return Ok(false);
    }
    let mut equal = true;
    for (block, (a, b)) in embedding.bytes.chunks(BLOCK).zip(head.bytes.chunks(BLOCK)).enumerate() {
        equal &= a == b;
        for name in [EMBEDDING, HEAD] {
            checkpoint.release_part(name, block * BLOCK..(block + 1) * BLOCK);
        }
    }
    Ok(equal)
}
