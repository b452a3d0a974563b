//! Compiled code against a forward pass written down in plain f64, apart from importer, passes and interpreter: biases on
//! every projection, linear RoPE in both spellings, head widths off the usual, for which there are no goldens.

mod library;

use half::{bf16, f16};
use library::{Build, distance, exact, pool, tolerance};
use llamac::model::{Model, Sizes};
use llamac_ir::{DType, TensorSource};
use llamac_models::synth::Synth;
use llamac_models::{Architecture, Checkpoint, Config, ModelDir};
use llamac_passes::FusionSet;
use llamac_runtime::Tier;

/// A position's vector.
type Vector = Vec<f64>;

const PROMPT: [u32; 9] = [3, 60, 17, 17, 0, 42, 5, 63, 29];

/// A model as its files describe it.
struct Reference<'a> {
    config: &'a Config,
    weights: &'a Checkpoint,
    /// The divisor of the rotation frequencies.
    rope_factor: f64,
}

impl Reference<'_> {
    fn find(&self, name: &str) -> Option<Vector> {
        let tensor = self.weights.tensor(name)?;
        let sixteen = |b: &[u8]| [b[0], b[1]];
        Some(match tensor.dtype {
            DType::F32 => tensor.bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect(),
            DType::F16 => tensor.bytes.chunks(2).map(|b| f16::from_le_bytes(sixteen(b)).to_f64()).collect(),
            DType::BF16 => tensor.bytes.chunks(2).map(|b| bf16::from_le_bytes(sixteen(b)).to_f64()).collect(),
            other => panic!("{name} is {other:?}"),
        })
    }

    fn get(&self, name: &str) -> Vector {
        self.find(name).unwrap_or_else(|| panic!("{name} is missing"))
    }

    /// `weight · x + bias`, with whatever bias the checkpoint holds.
    fn linear(&self, name: &str, xs: &[Vector]) -> Vec<Vector> {
        let weight = self.get(&format!("{name}.weight"));
        let bias = self.find(&format!("{name}.bias"));
        let each = |x: &Vector| {
            let rows = weight.chunks(x.len()).enumerate();
            rows.map(|(i, row)| dot(row, x) + bias.as_ref().map_or(0.0, |b| b[i])).collect()
        };
        xs.iter().map(each).collect()
    }

    fn norm(&self, name: &str, xs: &[Vector]) -> Vec<Vector> {
        let weight = self.get(&format!("{name}.weight"));
        let each = |x: &Vector| {
            let scale = (dot(x, x) / x.len() as f64 + self.config.norm_eps).sqrt().recip();
            x.iter().zip(&weight).map(|(x, w)| x * scale * w).collect()
        };
        xs.iter().map(each).collect()
    }

    /// Turns element i of each head with element i + head_dim / 2, by an angle that grows with the position.
    fn rope(&self, xs: &mut [Vector]) {
        let (width, half) = (self.config.head_dim, self.config.head_dim / 2);
        for (position, x) in xs.iter_mut().enumerate() {
            for head in x.chunks_mut(width) {
                for i in 0..half {
                    let frequency = self.config.rope.theta.powf(-((2 * i) as f64) / width as f64) / self.rope_factor;
                    let (sin, cos) = (position as f64 * frequency).sin_cos();
                    let (a, b) = (head[i], head[i + half]);
                    (head[i], head[i + half]) = (a * cos - b * sin, b * cos + a * sin);
                }
            }
        }
    }

    fn attention(&self, prefix: &str, xs: &[Vector]) -> Vec<Vector> {
        let c = self.config;
        let projection = |name: &str| self.linear(&format!("{prefix}.{name}_proj"), xs);
        let (mut q, mut k, v) = (projection("q"), projection("k"), projection("v"));
        if c.architecture == Architecture::Olmo2 {
            (q, k) = (self.norm(&format!("{prefix}.q_norm"), &q), self.norm(&format!("{prefix}.k_norm"), &k));
        }
        self.rope(&mut q);
        self.rope(&mut k);
        let mut attended = vec![vec![]; xs.len()];
        for (t, out) in attended.iter_mut().enumerate() {
            for (head, query) in q[t].chunks(c.head_dim).enumerate() {
                let start = head / (c.heads / c.kv_heads) * c.head_dim;
                let part = start..start + c.head_dim;
                let score = |key: &Vector| (dot(query, &key[part.clone()]) / (c.head_dim as f64).sqrt()).exp();
                let scores: Vector = k[..=t].iter().map(score).collect();
                let sum: f64 = scores.iter().sum();
                out.extend(part.map(|i| scores.iter().zip(&v).map(|(s, v)| s / sum * v[i]).sum::<f64>()));
            }
        }
        self.linear(&format!("{prefix}.o_proj"), &attended)
    }

    fn mlp(&self, prefix: &str, xs: &[Vector]) -> Vec<Vector> {
        let gate = self.linear(&format!("{prefix}.gate_proj"), xs);
        let up = self.linear(&format!("{prefix}.up_proj"), xs);
        let act = |(g, u): (&Vector, &Vector)| g.iter().zip(u).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        let inner: Vec<Vector> = gate.iter().zip(&up).map(act).collect();
        self.linear(&format!("{prefix}.down_proj"), &inner)
    }

    /// The logits after the last token.
    fn logits(&self, ids: &[u32]) -> Vector {
        let c = self.config;
        let embedding = self.get("model.embed_tokens.weight");
        let row = |&id: &u32| embedding[id as usize * c.hidden..][..c.hidden].to_vec();
        let mut x: Vec<Vector> = ids.iter().map(row).collect();
        for layer in 0..c.layers {
            let at = |name: &str| format!("model.layers.{layer}.{name}");
            if c.architecture == Architecture::Olmo2 {
                let y = self.attention(&at("self_attn"), &x);
                add(&mut x, &self.norm(&at("post_attention_layernorm"), &y));
                let y = self.mlp(&at("mlp"), &x);
                add(&mut x, &self.norm(&at("post_feedforward_layernorm"), &y));
            } else {
                let h = self.norm(&at("input_layernorm"), &x);
                add(&mut x, &self.attention(&at("self_attn"), &h));
                let h = self.norm(&at("post_attention_layernorm"), &x);
                add(&mut x, &self.mlp(&at("mlp"), &h));
            }
        }
        let last = self.norm("model.norm", &x[ids.len() - 1..]);
        let head = if c.tied { "model.embed_tokens" } else { "lm_head" };
        self.linear(head, &last).remove(0)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(xs: &mut [Vector], ys: &[Vector]) {
    for (x, y) in xs.iter_mut().zip(ys) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
}

/// Writes the model that `config` describes, and runs it both ways. `biases` is how many tensors of biases it must have.
fn check(config: &str, dtype: DType, biases: usize, rope_factor: f64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (description, path) = (dir.path().join("described.json"), dir.path().join("model"));
    std::fs::write(&description, config).expect("written");
    let synth = Synth::named(description.to_str().expect("UTF-8")).expect("a configuration");
    synth.write(&path, 11).expect("a model");

    let directory = ModelDir::open(&path).expect("its configuration");
    let weights = directory.weights().expect("its weights");
    let reference = Reference { config: directory.config(), weights: &weights, rope_factor };
    let names: Vec<&str> = weights.names().filter(|name| name.ends_with(".bias")).collect();
    assert_eq!(names.len(), biases, "{names:?}");
    for name in names {
        assert!(reference.get(name).iter().any(|b| b.abs() > 1e-3), "{name} has an effect");
    }
    assert_eq!(weights.tensor("model.norm.weight").map(|t| t.dtype), Some(dtype));

    let expected = reference.logits(&PROMPT);
    let model = Model::open(&path, None, &Sizes::default()).expect("a model that opens");
    for fusion in [FusionSet::None, FusionSet::All] {
        let mut generator = Build::new(&model, &exact(fusion)).generator(&pool(1), Tier::detect());
        let found = distance(generator.prefill(0, &PROMPT).expect("a prompt that fits"), &expected);
        assert!(found <= tolerance(&model.graph), "--fusion {fusion}: relative error {found:e} of the last logits");
    }
}

#[test]
fn llama_with_biases_everywhere_and_linear_rope() {
    let config = r#"{
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": 2, "vocab_size": 70,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0},
        "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": false
    }"#;
    check(config, DType::BF16, 2 * 7, 2.0);
}

#[test]
fn qwen2_tied() {
    let config = r#"{
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "float16",
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "vocab_size": 70,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": true
    }"#;
    check(config, DType::F16, 2 * 3, 1.0);
}

#[test]
fn olmo2_with_linear_rope() {
    let config = r#"{
        "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "dtype": "float32",
        "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "vocab_size": 70,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0},
        "attention_bias": false, "tie_word_embeddings": false
    }"#;
    check(config, DType::F32, 0, 4.0);
}
