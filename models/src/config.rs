//! The shape of a decoder of the Llama family, whatever file it came from.

use llamac_formats::{DType, RopeTable};
use std::fmt;

/// The families that there are importers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3: norms before attention and MLP.
    Llama,
    /// OLMo 2: norms after attention and MLP, and over whole q and k projections.
    Olmo2,
    /// Qwen 2: Llama with biases on q, k and v.
    Qwen2,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Architecture; 3] = [Architecture::Llama, Architecture::Olmo2, Architecture::Qwen2];

    /// The class name in `architectures` of a `config.json`.
    pub const fn class(self) -> &'static str {
        match self {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Olmo2 => "Olmo2ForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
        }
    }

    /// The `model_type` of a `config.json`.
    pub const fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Olmo2 => "olmo2",
            Architecture::Qwen2 => "qwen2",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class())
    }
}

/// A validated configuration: every size is at least 1 and within [`limits`], the heads divide, head_dim is even.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Added to the mean square in every RMSNorm.
    pub norm_eps: f64,
    /// The most positions the model was made for.
    pub context: usize,
    /// How the rotation angles are made.
    pub rope: RopeTable,
    /// Biases on the attention projections.
    pub attention_bias: AttentionBias,
    /// Biases on gate, up and down.
    pub mlp_bias: bool,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// What the weights are said to be stored as; the checkpoint itself decides.
    pub dtype: Option<DType>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The tokens that end one; empty: none does.
    pub eos: Vec<u32>,
}

/// Which attention projections have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionBias {
    /// None.
    None,
    /// q, k and v, but not the output projection (Qwen 2).
    Qkv,
    /// All four.
    All,
}

/// A tensor that a checkpoint of a configuration must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape: outputs first.
    pub dims: Vec<usize>,
}

/// The largest sizes that are believed. They are far beyond every real model and keep all products below 2⁶³.
pub mod limits {
    /// Width of the residual stream, inside of the MLP, and of all query heads together.
    pub const WIDTH: usize = 1 << 20;
    /// Layers.
    pub const LAYERS: usize = 1 << 12;
    /// Heads.
    pub const HEADS: usize = 1 << 14;
    /// Width of a head.
    pub const HEAD_DIM: usize = 1 << 13;
    /// Vocabulary.
    pub const VOCAB: usize = 1 << 24;
    /// Positions: they are `i32` everywhere.
    pub const CONTEXT: usize = i32::MAX as usize;
}

impl Config {
    /// Width of all query heads together.
    pub const fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Every tensor of the model with its name in a Hugging Face checkpoint and its shape, in the order of the layers.
    /// A tied head is not among them.
    pub fn tensors(&self) -> Vec<ExpectedTensor> {
        let mut all = Tensors(Vec::with_capacity(3 + 12 * self.layers));
        let (q, kv) = (self.q_width(), self.kv_width());
        let (qkv_bias, o_bias) = match self.attention_bias {
            AttentionBias::None => (false, false),
            AttentionBias::Qkv => (true, false),
            AttentionBias::All => (true, true),
        };
        all.push("model.embed_tokens.weight".into(), &[self.vocab, self.hidden]);
        for i in 0..self.layers {
            let layer = format!("model.layers.{i}");
            if self.architecture != Architecture::Olmo2 {
                all.push(format!("{layer}.input_layernorm.weight"), &[self.hidden]);
            }
            all.linear(format!("{layer}.self_attn.q_proj"), q, self.hidden, qkv_bias);
            all.linear(format!("{layer}.self_attn.k_proj"), kv, self.hidden, qkv_bias);
            all.linear(format!("{layer}.self_attn.v_proj"), kv, self.hidden, qkv_bias);
            if self.architecture == Architecture::Olmo2 {
                all.push(format!("{layer}.self_attn.q_norm.weight"), &[q]);
                all.push(format!("{layer}.self_attn.k_norm.weight"), &[kv]);
            }
            all.linear(format!("{layer}.self_attn.o_proj"), self.hidden, q, o_bias);
            all.push(format!("{layer}.post_attention_layernorm.weight"), &[self.hidden]);
            all.linear(format!("{layer}.mlp.gate_proj"), self.intermediate, self.hidden, self.mlp_bias);
            all.linear(format!("{layer}.mlp.up_proj"), self.intermediate, self.hidden, self.mlp_bias);
            all.linear(format!("{layer}.mlp.down_proj"), self.hidden, self.intermediate, self.mlp_bias);
            if self.architecture == Architecture::Olmo2 {
                all.push(format!("{layer}.post_feedforward_layernorm.weight"), &[self.hidden]);
            }
        }
        all.push("model.norm.weight".into(), &[self.hidden]);
        if !self.tied {
            all.push("lm_head.weight".into(), &[self.vocab, self.hidden]);
        }
        all.0
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|t| t.dims.iter().map(|&d| d as u64).product::<u64>()).sum()
    }
}

struct Tensors(Vec<ExpectedTensor>);

impl Tensors {
    fn push(&mut self, name: String, dims: &[usize]) {
        self.0.push(ExpectedTensor { name, dims: dims.to_vec() });
    }

    fn linear(&mut self, name: String, outputs: usize, inputs: usize, bias: bool) {
        self.push(format!("{name}.weight"), &[outputs, inputs]);
        if bias {
            self.push(format!("{name}.bias"), &[outputs]);
        }
    }
}
