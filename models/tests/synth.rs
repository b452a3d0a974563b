//! Models with random weights: whole directories that read back, the same for the same seed.

mod support;

use llamac_ir::{DType, TensorSource};
use llamac_models::synth::{PRESETS, Synth};
use llamac_models::weights::{Fit, fit, not_finite};
use llamac_models::{Architecture, ModelDir};
use serde_json::{Map, Value, json};
use std::fs;
use support::{directory_with, says, small_config, write};
use tempfile::TempDir;

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

fn small(changes: &[(&str, Value)]) -> (TempDir, Synth) {
    let mut config = small_config();
    config.extend(changes.iter().map(|(k, v)| (k.to_string(), v.clone())));
    let dir = directory_with(&config);
    let synth = Synth::named(dir.path().to_str().expect("a path in UTF-8")).expect("a configuration");
    (dir, synth)
}

#[test]
fn presets_are_the_published_shapes() {
    let parameters: Vec<(&str, u64)> =
        PRESETS.iter().map(|(name, _)| (*name, Synth::named(name).expect("a preset").config().parameters())).collect();
    let expected = [("llama-3.2-1b", 1_235_814_400), ("stories-15m", 15_191_712), ("olmo2-1b", 1_484_916_736)];
    assert_eq!(parameters, expected);
    let olmo = Synth::named("olmo2-1b").expect("a preset");
    assert_eq!((olmo.config().architecture, olmo.dtype()), (Architecture::Olmo2, DType::F32));
    says(&Synth::named("llama-9").expect_err("no preset"), &["llama-9", "llama-3.2-1b, stories-15m, olmo2-1b"]);
    says(&Synth::named("no/config.json").expect_err("no file"), &["no/config.json", "cannot be read"]);
}

#[test]
fn what_is_written_reads_back() {
    for (architecture, kind, dtype, expected) in [
        ("LlamaForCausalLM", "llama", "bfloat16", DType::BF16),
        ("Olmo2ForCausalLM", "olmo2", "float32", DType::F32),
        ("Qwen2ForCausalLM", "qwen2", "float16", DType::F16),
    ] {
        let (_source, synth) = small(&[
            ("architectures", json!([architecture])),
            ("model_type", json!(kind)),
            ("torch_dtype", json!(dtype)),
            ("eos_token_id", json!([2, 3])),
            ("vocab_size", json!(70_000)),
        ]);
        let dir = temporary();
        let written = synth.write(&dir.path().join("made/here"), 1).expect("a written model");
        let model = ModelDir::open(&dir.path().join("made/here")).expect("a model");
        assert_eq!(model.config(), synth.config());
        assert_eq!(model.config().eos, [2, 3]);
        let weights = model.weights().expect("sound files");
        assert_eq!(fit(model.config(), &weights).expect("a fitting file"), Fit::default());
        assert_eq!(written.parameters, model.config().parameters());
        let size = fs::metadata(dir.path().join("made/here/model.safetensors")).expect("a file").len();
        assert_eq!(written.bytes, size);
        for name in weights.names() {
            let view = weights.tensor(name).expect("a listed tensor");
            assert_eq!((view.dtype, not_finite(&view)), (expected, None), "{name}");
            assert_eq!(view.bytes.as_ptr().addr() % 4, 0, "{name} is aligned");
        }
        let entries = fs::read_dir(dir.path().join("made/here")).expect("a directory").count();
        assert_eq!(entries, 4, "nothing is left beside the four files");
    }
}

#[test]
fn the_seed_decides_the_bytes() {
    let (_source, synth) = small(&[("vocab_size", json!(300_000))]);
    let dir = temporary();
    let bytes = |name: &str, seed| {
        synth.write(&dir.path().join(name), seed).expect("a written model");
        fs::read(dir.path().join(name).join("model.safetensors")).expect("its weights")
    };
    let first = bytes("a", 7);
    assert!(first == bytes("b", 7));
    assert!(first != bytes("c", 8));
    assert!(first == bytes("c", 7), "its own directories are written over");
    let values = support::floats(&first[first.len() - 4096..]);
    assert!(values.iter().any(|v| *v != values[0]));
}

#[test]
fn matrices_and_norms_have_their_spread() {
    let (_source, synth) = small(&[("hidden_size", json!(256)), ("intermediate_size", json!(512))]);
    let dir = temporary();
    synth.write(dir.path(), 3).expect("a written model");
    let weights = ModelDir::open(dir.path()).expect("a model").weights().expect("its weights");
    let moments = |name| {
        let values = support::floats(weights.tensor(name).expect(name).bytes);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        (mean, variance.sqrt())
    };
    let (mean, deviation) = moments("model.layers.0.mlp.up_proj.weight");
    assert!(mean.abs() < 1e-3 && (0.06..0.065).contains(&deviation), "{mean} {deviation}");
    let (mean, deviation) = moments("model.norm.weight");
    assert!((0.99..1.01).contains(&mean) && (0.015..0.025).contains(&deviation), "{mean} {deviation}");
}

#[test]
fn other_peoples_models_stay() {
    let (source, synth) = small(&[]);
    says(&synth.write(source.path(), 0).expect_err("a config.json"), &["did not make"]);
    let dir = temporary();
    write(&dir, "model.safetensors", b"precious");
    says(&synth.write(dir.path(), 0).expect_err("weights"), &["did not make"]);
    assert_eq!(fs::read(dir.path().join("model.safetensors")).expect("the file"), b"precious");
}

#[test]
fn what_cannot_be_written() {
    let (_source, synth) = small(&[]);
    let dir = temporary();
    write(&dir, "file", b"");
    says(&synth.write(&dir.path().join("file/sub"), 0).expect_err("no directory"), &["sub", "cannot be written"]);
    let (_source, absurd) = small(&[
        ("num_hidden_layers", json!(4096)),
        ("hidden_size", json!(1 << 20)),
        ("intermediate_size", json!(1 << 20)),
        ("num_attention_heads", json!(1 << 10)),
    ]);
    says(&absurd.write(&dir.path().join("absurd"), 0).expect_err("petabytes"), &["at most 1099511627776"]);
    assert!(!dir.path().join("absurd").exists());
    let mut none = Map::new();
    none.insert("architectures".into(), json!(["Nothing"]));
    let dir = directory_with(&none);
    says(&Synth::named(dir.path().to_str().expect("a path")).expect_err("no model"), &["Nothing"]);
}
