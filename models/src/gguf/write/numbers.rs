//! What matrices are stored as.

use super::is_output;
use crate::config::{Architecture, Config};
use crate::gguf::names::EMBEDDING;
use llamac_formats::DType;
use llamac_formats::block::Mix;
use llamac_formats::block::mix::{Place, Role, is_70b};

/// One type for all matrices, or a mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// f32, f16 or bf16.
    Float(DType),
    /// Block formats, chosen per tensor.
    Mix(Mix),
}

impl Numbers {
    /// By its name on the command line: `f32`, `f16`, `bf16`, or that of a mix.
    pub fn from_name(name: &str) -> Option<Numbers> {
        let float = DType::from_name(name).filter(|dtype| dtype.is_float()).map(Numbers::Float);
        float.or_else(|| Mix::from_name(name).map(Numbers::Mix))
    }

    /// The type of most matrices.
    pub(super) fn most(self) -> DType {
        match self {
            Numbers::Float(dtype) => dtype,
            Numbers::Mix(mix) => DType::Block(mix.format()),
        }
    }

    /// The type of a matrix of the file with rows of so many elements.
    pub(super) fn dtype(self, config: &Config, name: &str, row: usize) -> DType {
        let mix = match self {
            Numbers::Float(dtype) => return dtype,
            Numbers::Mix(mix) => mix,
        };
        let (layer, part) = name.strip_prefix("blk.").and_then(|n| n.split_once('.')).unwrap_or(("0", name));
        let role = match part {
            _ if is_output(config, name) => Role::Output,
            EMBEDDING => Role::Embedding,
            "attn_v.weight" => Role::Values,
            "ffn_down.weight" => Role::Down,
            _ => Role::Inner,
        };
        mix.tensor_type(&Place {
            role,
            layer: layer.parse().unwrap_or(0),
            layers: config.layers,
            row,
            is_70b: config.architecture == Architecture::Llama && is_70b(config.layers, config.heads, config.kv_heads),
        })
    }
}
