//! What GGUF calls the tensors that a Hugging Face checkpoint has, and how their rows are ordered.

use crate::{Architecture, Config};
use llamac_ir::Recipe;

/// The tensor of RoPE's divisors.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// The embedding.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// The head.
pub(super) const HEAD: &str = "output.weight";

/// The value of `general.architecture`, which also begins the model's keys.
pub(super) const fn architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Llama => "llama",
        Architecture::Olmo2 => "olmo2",
        Architecture::Qwen2 => "qwen2",
    }
}

/// Parts of a layer: the checkpoint's name, and GGUF's.
const PARTS: [(&str, &str); 9] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
/// Norms of a layer that has them before attention and MLP.
const NORMS_FIRST: [(&str, &str); 2] = [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")];
/// Norms of a layer that has them after.
const NORMS_LAST: [(&str, &str); 2] =
    [("post_attention_layernorm", "post_attention_norm"), ("post_feedforward_layernorm", "post_ffw_norm")];

/// What GGUF calls a tensor of [`Config::tensors`].
pub(super) fn gguf_name(architecture: Architecture, name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some(EMBEDDING.into()),
        "model.norm.weight" => return Some("output_norm.weight".into()),
        "lm_head.weight" => return Some(HEAD.into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, suffix) = rest.rsplit_once('.')?;
    let norms = if architecture == Architecture::Olmo2 { NORMS_LAST } else { NORMS_FIRST };
    let (_, found) = PARTS.into_iter().chain(norms).find(|(from, _)| *from == part)?;
    Some(format!("blk.{layer}.{found}.{suffix}"))
}

/// The heads whose rows GGUF keeps in interleaved RoPE order, for a tensor of [`Config::tensors`]: weights and biases of q
/// and k where the architecture is `llama`.
pub(super) fn interleaved_heads(config: &Config, name: &str) -> Option<usize> {
    if config.architecture != Architecture::Llama {
        return None;
    }
    let part = name.strip_prefix("model.layers.")?.split_once('.')?.1;
    match part.rsplit_once('.')?.0 {
        "self_attn.q_proj" => Some(config.heads),
        "self_attn.k_proj" => Some(config.kv_heads),
        _ => None,
    }
}

/// How a tensor of [`Config::tensors`] is made from a GGUF file's.
pub(super) fn recipe(config: &Config, name: &str) -> Option<Recipe> {
    let tensor = Recipe::tensor(gguf_name(config.architecture, name)?);
    Some(match interleaved_heads(config, name) {
        Some(heads) => Recipe::PermuteRows { of: Box::new(tensor), heads },
        None => tensor,
    })
}
