//! `config.json` and `generation_config.json`: what is understood, and one clear error for each thing that is not.

mod support;

use llamac_formats::{DType, RopeScaling};
use llamac_models::config::AttentionBias;
use llamac_models::{Architecture, Config, ConfigError, ModelDir};
use serde_json::{Map, Value, json};
use support::{directory_with, repository, says, small_config, write};

fn read(config: &Map<String, Value>) -> Result<Config, ConfigError> {
    ModelDir::open(directory_with(config).path()).map(|dir| dir.config().clone())
}

/// The small configuration with some keys replaced; `null` takes a key away.
fn changed(changes: Value) -> Map<String, Value> {
    let mut config = small_config();
    for (key, value) in changes.as_object().expect("an object of changes") {
        config.insert(key.clone(), value.clone());
    }
    config
}

#[track_caller]
fn refused(changes: Value, parts: &[&str]) {
    let error = read(&changed(changes)).expect_err("a refusal");
    says(&error, &["config.json"]);
    says(&error, parts);
}

#[test]
fn the_models_of_the_repository() {
    let bard = ModelDir::open(&repository("examples/models/bard")).expect("bard").config().clone();
    assert_eq!(bard.architecture, Architecture::Llama);
    assert_eq!((bard.hidden, bard.layers, bard.heads, bard.kv_heads, bard.head_dim), (256, 4, 8, 2, 32));
    assert_eq!((bard.intermediate, bard.vocab, bard.context, bard.tied), (768, 2048, 2048, true));
    assert_eq!((bard.bos, bard.eos, bard.dtype), (Some(2043), vec![2044], Some(DType::BF16)));
    assert_eq!(bard.rope.theta, 5e5);
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 256.0,
    };
    assert_eq!(bard.rope.scaling, scaling);

    let olmo = ModelDir::open(&repository("tests/models/tiny-olmo2")).expect("tiny-olmo2").config().clone();
    assert_eq!((olmo.architecture, olmo.head_dim, olmo.tied), (Architecture::Olmo2, 32, false));
    assert_eq!((olmo.rope.theta, olmo.rope.scaling), (5e5, RopeScaling::Default));

    let new = ModelDir::open(&repository("tests/models/tiny-llama31")).expect("tiny-llama31").config().clone();
    assert_eq!(new.rope.theta, 5e5);
    assert!(matches!(new.rope.scaling, RopeScaling::Llama3 { original_max_position_embeddings: 64.0, .. }));
}

#[test]
fn absent_keys_take_the_defaults_of_transformers() {
    let config = read(&changed(json!({
        "num_key_value_heads": null, "head_dim": null, "rms_norm_eps": null, "rope_theta": null,
        "max_position_embeddings": null, "tie_word_embeddings": null, "torch_dtype": null
    })))
    .expect("defaults");
    assert_eq!((config.kv_heads, config.head_dim, config.context), (2, 4, 2048));
    assert_eq!((config.norm_eps, config.rope.theta, config.tied), (1e-6, 1e4, false));
    assert_eq!((config.dtype, config.bos, config.eos), (None, None, vec![]));
}

#[test]
fn head_dim_may_differ_from_the_quotient() {
    assert_eq!(read(&changed(json!({"head_dim": 6}))).expect("an explicit width").q_width(), 12);
    assert_eq!(read(&changed(json!({"num_attention_heads": 3, "head_dim": 2}))).expect("8 / 3").q_width(), 6);
}

#[test]
fn biases() {
    let bias = |changes| read(&changed(changes)).expect("a configuration").attention_bias;
    assert_eq!(bias(json!({})), AttentionBias::None);
    assert_eq!(bias(json!({"attention_bias": true})), AttentionBias::All);
    assert_eq!(bias(json!({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})), AttentionBias::Qkv);
    assert!(read(&changed(json!({"mlp_bias": true}))).expect("biases in the MLP").mlp_bias);
}

#[test]
fn rope_in_all_its_spellings() {
    let rope = |changes| read(&changed(changes)).expect("RoPE parameters").rope;
    let linear = RopeScaling::Linear { factor: 4.0 };
    assert_eq!(rope(json!({"rope_scaling": {"type": "linear", "factor": 4}})).scaling, linear);
    assert_eq!(rope(json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0}})).scaling, linear);
    let new =
        rope(json!({"rope_theta": null, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 7.5}}));
    assert_eq!((new.theta, new.scaling), (7.5, linear));
    assert_eq!(rope(json!({"rope_parameters": {"rope_type": "default"}})).scaling, RopeScaling::Default);
    assert_eq!(rope(json!({"rope_scaling": null})).scaling, RopeScaling::Default);
}

#[test]
fn end_tokens_of_the_generation_config_win() {
    let dir = directory_with(&changed(json!({"eos_token_id": 2, "bos_token_id": 1})));
    write(&dir, "generation_config.json", r#"{"eos_token_id": [3, 4], "temperature": 0.6}"#);
    let model = ModelDir::open(dir.path()).expect("two end tokens");
    assert_eq!((model.config().eos.as_slice(), model.config().bos), ([3, 4].as_slice(), Some(1)));
    write(&dir, "generation_config.json", "{}");
    assert_eq!(ModelDir::open(dir.path()).expect("no end tokens").config().eos, [2]);
    for bad in [r#"{"eos_token_id": 10}"#, r#"{"eos_token_id": "x"}"#, r#"{"eos_token_id": [1, -1]}"#] {
        write(&dir, "generation_config.json", bad);
        let error = ModelDir::open(dir.path()).expect_err("a bad end token");
        says(&error, &["generation_config.json", "eos_token_id", "below vocab_size = 10"]);
    }
}

#[test]
fn files_that_are_no_configuration() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    says(&ModelDir::open(dir.path()).expect_err("nothing there"), &["config.json", "cannot be read"]);
    says(&ModelDir::open(&dir.path().join("absent")).expect_err("no directory"), &["absent", "cannot be read"]);
    for (bytes, part) in [
        (b"".as_slice(), "empty"),
        (b"{\"hidden_size\": ", "line 1"),
        (b"[1, 2]", "expected a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
    ] {
        write(&dir, "config.json", bytes);
        says(&ModelDir::open(dir.path()).expect_err("no configuration"), &["config.json", part]);
    }
    write(&dir, "config.json", vec![b' '; (16 << 20) + 1]);
    says(&ModelDir::open(dir.path()).expect_err("too large"), &["config.json", "more than 16777216 bytes"]);
    write(&dir, "config.json", "[".repeat(100_000));
    says(&ModelDir::open(dir.path()).expect_err("deep nesting"), &["config.json"]);
}

#[test]
fn sizes_that_are_none() {
    for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"] {
        refused(json!({key: null}), &[key, "is missing"]);
        for bad in [json!(0), json!(-8), json!(8.5), json!("8"), json!(true), json!([8]), json!(u64::MAX), json!(1e30)]
        {
            refused(json!({key: bad}), &[key, &bad.to_string(), "expected an integer from 1 to"]);
        }
    }
    refused(json!({"num_key_value_heads": 0}), &["num_key_value_heads"]);
    refused(json!({"max_position_embeddings": 3_000_000_000_u64}), &["max_position_embeddings", "2147483647"]);
    refused(json!({"rms_norm_eps": "1e-5"}), &["rms_norm_eps", "\"1e-5\""]);
    refused(json!({"rms_norm_eps": -1e-5}), &["rms_norm_eps"]);
    refused(json!({"rope_theta": 0}), &["rope_theta", "positive"]);
    refused(json!({"rope_theta": 1e300}), &["rope_theta", "positive"]);
    refused(json!({"tie_word_embeddings": 1}), &["tie_word_embeddings", "true or false"]);
}

#[test]
fn heads_that_do_not_fit() {
    refused(json!({"num_attention_heads": 3}), &["num_attention_heads", "3", "divisor of hidden_size = 8"]);
    refused(
        json!({"num_attention_heads": 4, "num_key_value_heads": 3}),
        &["num_key_value_heads", "3", "divisor of num_attention_heads = 4"],
    );
    refused(json!({"num_key_value_heads": 4}), &["num_key_value_heads", "divisor of num_attention_heads = 2"]);
    refused(json!({"head_dim": 0}), &["head_dim", "0"]);
    refused(json!({"head_dim": 5}), &["head_dim", "5", "even"]);
    refused(json!({"hidden_size": 6}), &["hidden_size", "even multiple of num_attention_heads"]);
    refused(
        json!({"num_attention_heads": 16384, "num_key_value_heads": 1, "head_dim": 8192}),
        &["num_attention_heads"],
    );
}

#[test]
fn computations_that_are_not_done() {
    refused(
        json!({"architectures": ["MistralForCausalLM"]}),
        &["architectures", "MistralForCausalLM", "LlamaForCausalLM"],
    );
    refused(json!({"architectures": []}), &["architectures", "[]"]);
    refused(json!({"architectures": null, "model_type": null}), &["architectures", "missing"]);
    refused(json!({"architectures": null, "model_type": "gemma"}), &["model_type", "gemma", "llama, olmo2, qwen2"]);
    refused(json!({"model_type": "mistral"}), &["architectures", "model_type", "mistral"]);
    refused(json!({"hidden_act": "gelu"}), &["hidden_act", "gelu", "silu"]);
    refused(json!({"use_sliding_window": true}), &["use_sliding_window", "true"]);
    refused(json!({"layer_types": ["sliding_attention"]}), &["layer_types", "sliding_attention"]);
    refused(json!({"quantization_config": {"bits": 4}}), &["quantization_config", "f32, f16 or bf16"]);
    refused(json!({"torch_dtype": "float8_e4m3fn"}), &["torch_dtype", "float8_e4m3fn"]);
    refused(json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor", "0.5"]);
}

#[test]
fn rope_kinds_that_are_not_done() {
    for kind in ["yarn", "dynamic", "longrope", "su"] {
        refused(
            json!({"rope_scaling": {"rope_type": kind, "factor": 2.0}}),
            &["rope_scaling.rope_type", kind, "default, linear, llama3"],
        );
    }
    refused(json!({"rope_scaling": {"type": "yarn"}}), &["rope_scaling.type", "yarn"]);
    refused(json!({"rope_scaling": {"type": "linear"}}), &["rope_scaling.factor", "missing"]);
    refused(json!({"rope_scaling": {"type": "linear", "factor": 0}}), &["rope_scaling.factor", "positive"]);
    refused(json!({"rope_scaling": {"factor": 2.0}}), &["rope_scaling.rope_type", "missing"]);
    for key in ["low_freq_factor", "high_freq_factor", "original_max_position_embeddings"] {
        let without_kind = json!({"rope_scaling": {"factor": 1.0, key: 4.0}});
        refused(without_kind, &["rope_scaling.rope_type", "missing", &format!("`{key}`"), "default, linear, llama3"]);
        assert!(read(&changed(json!({"rope_scaling": {"rope_type": "default", key: 4.0}}))).is_ok());
    }
    refused(json!({"rope_scaling": "linear"}), &["rope_scaling", "an object"]);
    refused(json!({"rope_scaling": {"type": "linear", "rope_type": "llama3", "factor": 2}}), &["contradict"]);
    let llama3 = |low: f64, high: f64| {
        json!({"rope_scaling": {
            "rope_type": "llama3", "factor": 8, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": 64
        }})
    };
    assert!(read(&changed(llama3(1.0, 4.0))).is_ok());
    refused(llama3(4.0, 4.0), &["rope_scaling.high_freq_factor", "more than low_freq_factor = 4"]);
    refused(llama3(-1.0, 4.0), &["rope_scaling.low_freq_factor", "positive"]);
    refused(
        json!({"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        &["rope_theta", "rope_parameters.rope_theta", "contradict"],
    );
    refused(
        json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
        &["rope_parameters.full_attention", "one set of parameters"],
    );
    refused(
        json!({"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "default"}}),
        &["rope_scaling", "rope_parameters", "contradict"],
    );
}
