//! Whether a checkpoint has what its configuration says.

mod support;

use llamac_models::weights::{Fit, fit};
use llamac_models::{ModelDir, WeightsError};
use serde_json::{Map, Value, json};
use support::{directory_with, repository, says, small_config, tensors, write};

/// The tensors of the small configuration, each filled with one number.
fn small_tensors() -> Vec<(&'static str, &'static [usize], f32)> {
    vec![
        ("model.embed_tokens.weight", &[10, 8], 0.5),
        ("model.layers.0.input_layernorm.weight", &[8], 1.0),
        ("model.layers.0.self_attn.q_proj.weight", &[8, 8], 0.1),
        ("model.layers.0.self_attn.k_proj.weight", &[4, 8], 0.1),
        ("model.layers.0.self_attn.v_proj.weight", &[4, 8], 0.1),
        ("model.layers.0.self_attn.o_proj.weight", &[8, 8], 0.1),
        ("model.layers.0.post_attention_layernorm.weight", &[8], 1.0),
        ("model.layers.0.mlp.gate_proj.weight", &[12, 8], 0.1),
        ("model.layers.0.mlp.up_proj.weight", &[12, 8], 0.1),
        ("model.layers.0.mlp.down_proj.weight", &[8, 12], 0.1),
        ("model.norm.weight", &[8], 1.0),
    ]
}

fn check(config: &Map<String, Value>, list: &[(&str, &[usize], f32)]) -> Result<Fit, WeightsError> {
    let dir = directory_with(config);
    write(&dir, "model.safetensors", tensors(list));
    let model = ModelDir::open(dir.path()).expect("a configuration");
    fit(model.config(), &model.weights().expect("sound files"))
}

#[test]
fn the_models_of_the_repository_fit() {
    for path in [
        "examples/models/bard",
        "tests/models/stories260K",
        "tests/models/tiny-llama2",
        "tests/models/tiny-llama31",
        "tests/models/tiny-olmo2",
    ] {
        let model = ModelDir::open(&repository(path)).expect(path);
        let found = fit(model.config(), &model.weights().expect(path)).expect(path);
        assert_eq!(found, Fit::default(), "{path}");
    }
}

#[test]
fn every_tensor_is_needed_and_in_shape() {
    let all = small_tensors();
    assert_eq!(check(&small_config(), &all).expect("all of them"), Fit::default());
    for i in 0..all.len() {
        let mut less = all.clone();
        let (name, dims, _) = less.remove(i);
        let shape = format!("{dims:?}");
        says(&check(&small_config(), &less).expect_err(name), &[&format!("`{name}` is missing"), &shape]);
        let mut other = all.clone();
        other[i].1 = &[8, 3];
        says(&check(&small_config(), &other).expect_err(name), &[name, "has shape [8, 3]", &shape]);
    }
}

#[test]
fn biases_are_needed_where_the_configuration_has_them() {
    let mut config = small_config();
    config.insert("attention_bias".into(), json!(true));
    says(&check(&config, &small_tensors()).expect_err("no biases"), &["q_proj.bias", "missing", "[8]"]);
    let mut qwen = small_config();
    qwen.insert("architectures".into(), json!(["Qwen2ForCausalLM"]));
    qwen.insert("model_type".into(), json!("qwen2"));
    let mut all = small_tensors();
    for (name, dims) in [("q", [8].as_slice()), ("k", &[4]), ("v", &[4])] {
        assert!(check(&qwen, &all).is_err());
        let name: &str = ["model.layers.0.self_attn.", name, "_proj.bias"].concat().leak();
        all.push((name, dims, 0.0));
    }
    assert_eq!(check(&qwen, &all).expect("Qwen's biases"), Fit::default());
    assert_eq!(check(&small_config(), &all).expect("unused biases").unused.len(), 3);
}

#[test]
fn a_tied_flag_that_contradicts_the_file() {
    let mut all = small_tensors();
    all.push(("lm_head.weight", &[10, 8], 0.5));
    assert_eq!(check(&small_config(), &all).expect("an equal copy"), Fit::default());
    all[11].2 = 0.25;
    says(
        &check(&small_config(), &all).expect_err("another head"),
        &["lm_head.weight", "differs", "tie_word_embeddings: true"],
    );
    let mut untied = small_config();
    untied.insert("tie_word_embeddings".into(), json!(false));
    assert!(check(&untied, &all).is_ok());
    says(
        &check(&untied, &small_tensors()).expect_err("no head"),
        &["lm_head.weight", "missing", "tie_word_embeddings to true"],
    );
}
