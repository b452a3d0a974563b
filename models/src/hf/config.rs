//! `config.json` and `generation_config.json` → [`Config`].

use super::ConfigError;
use super::fields::{Fields, read_object};
use super::rope::rope_table;
use crate::config::{Architecture, AttentionBias, Config, limits};
use llamac_formats::DType;
use serde_json::{Map, Value};
use std::path::Path;

/// Reads `config.json` (the file itself) and, beside it, `generation_config.json` where that exists.
///
/// # Errors
/// Everything that makes the configuration unusable, with file and key.
pub fn read_config(path: &Path) -> Result<Config, ConfigError> {
    let map = read_object(path, "a Hugging Face config.json")?;
    let mut config = parse_config(path, &map)?;
    let generation = path.with_file_name("generation_config.json");
    match generation.try_exists() {
        Ok(false) => {}
        _ => {
            let map = read_object(&generation, "a Hugging Face generation_config.json")?;
            override_tokens(&Fields::new(&generation, &map), &mut config)?;
        }
    }
    Ok(config)
}

/// The end tokens of `generation_config.json` are the ones that generation stops at; the model's own only stand in.
fn override_tokens(fields: &Fields<'_>, config: &mut Config) -> Result<(), ConfigError> {
    if let Some(eos) = fields.tokens("eos_token_id", config.vocab)? {
        config.eos = eos;
    }
    if let Some(bos) = single(fields, "bos_token_id", config.vocab)? {
        config.bos = Some(bos);
    }
    Ok(())
}

fn single(fields: &Fields<'_>, key: &str, vocab: usize) -> Result<Option<u32>, ConfigError> {
    match fields.tokens(key, vocab)? {
        Some(ids) if ids.len() == 1 => Ok(Some(ids[0])),
        Some(_) => {
            let found = fields.value(key).unwrap_or(&Value::Null);
            Err(fields.invalid(key, found, "one token id"))
        }
        None => Ok(None),
    }
}

/// Checks a parsed `config.json`; `path` is only named in errors.
///
/// Keys that transformers has a default for may be absent (but not the sizes); keys that change the computation in a way
/// that llamac does not know are refused.
///
/// # Errors
/// Everything that makes the configuration unusable, with file and key.
pub fn parse_config(path: &Path, map: &Map<String, Value>) -> Result<Config, ConfigError> {
    let top = Fields::new(path, map);
    let architecture = architecture(&top)?;
    refuse_unknown_computation(&top)?;

    let hidden = top.required_size("hidden_size", limits::WIDTH)?;
    let layers = top.required_size("num_hidden_layers", limits::LAYERS)?;
    let heads = top.required_size("num_attention_heads", limits::HEADS)?;
    let kv_heads = top.size("num_key_value_heads", limits::HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of num_attention_heads = {heads}");
        return Err(top.invalid("num_key_value_heads", &Value::from(kv_heads), expected));
    }
    let head_dim = head_dim(&top, hidden, heads)?;
    let intermediate = top.required_size("intermediate_size", limits::WIDTH)?;
    let vocab = top.required_size("vocab_size", limits::VOCAB)?;
    let default_eps = if architecture == Architecture::Olmo2 { 1e-5 } else { 1e-6 };
    let norm_eps = top.number("rms_norm_eps", "a number from 0 to below 1", |x| (0.0..1.0).contains(&x))?;
    let default_context = if architecture == Architecture::Qwen2 { 32_768 } else { 2048 };

    let bias = top.flag("attention_bias")?.unwrap_or(false);
    let attention_bias = match (architecture, bias) {
        // Qwen 2 has them whatever the configuration says; its class has no such key.
        (Architecture::Qwen2, _) => AttentionBias::Qkv,
        (_, true) => AttentionBias::All,
        (_, false) => AttentionBias::None,
    };
    Ok(Config {
        architecture,
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        intermediate,
        vocab,
        norm_eps: norm_eps.unwrap_or(default_eps),
        context: top.size("max_position_embeddings", limits::CONTEXT)?.unwrap_or(default_context),
        rope: rope_table(&top, head_dim)?,
        attention_bias,
        // Only Llama's class reads the key.
        mlp_bias: architecture == Architecture::Llama && top.flag("mlp_bias")?.unwrap_or(false),
        tied: top.flag("tie_word_embeddings")?.unwrap_or(false),
        dtype: dtype(&top)?,
        bos: single(&top, "bos_token_id", vocab)?,
        eos: top.tokens("eos_token_id", vocab)?.unwrap_or_default(),
    })
}

fn architecture(top: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let classes = Architecture::ALL.map(Architecture::class).join(", ");
    let known = |name| Architecture::ALL.into_iter().find(|a| a.model_type() == name);
    let by_type = top.text("model_type")?.map(|name| (name, known(name)));
    let Some(value) = top.value("architectures") else {
        return match by_type {
            Some((_, Some(architecture))) => Ok(architecture),
            Some((name, None)) => {
                let types = Architecture::ALL.map(Architecture::model_type).join(", ");
                Err(top.unsupported("model_type", &Value::from(name), types))
            }
            None => Err(top.missing("architectures", format!("a list with one of {classes}"))),
        };
    };
    let class = match value.as_array().map(Vec::as_slice) {
        Some([Value::String(class)]) => class,
        _ => return Err(top.invalid("architectures", value, format!("a list with one of {classes}"))),
    };
    let Some(architecture) = Architecture::ALL.into_iter().find(|a| a.class() == class) else {
        return Err(top.unsupported("architectures", &Value::from(class.as_str()), classes));
    };
    match by_type {
        Some((name, found)) if found != Some(architecture) => {
            Err(top.contradiction("architectures", "model_type", format!("{class} and {name}")))
        }
        _ => Ok(architecture),
    }
}

/// Keys that change what is computed.
fn refuse_unknown_computation(top: &Fields<'_>) -> Result<(), ConfigError> {
    match top.text("hidden_act")? {
        Some("silu") | None => {}
        Some(other) => return Err(top.unsupported("hidden_act", &Value::from(other), "silu")),
    }
    if top.flag("use_sliding_window")? == Some(true) {
        return Err(top.unsupported("use_sliding_window", &Value::from(true), "false (full attention)"));
    }
    if let Some(value) = top.value("layer_types") {
        let full = |kinds: &Vec<Value>| kinds.iter().all(|kind| kind == "full_attention");
        if !value.as_array().is_some_and(full) {
            return Err(top.unsupported("layer_types", value, "a list of \"full_attention\""));
        }
    }
    if let Some(value) = top.value("quantization_config") {
        return Err(top.unsupported("quantization_config", value, "weights stored as f32, f16 or bf16"));
    }
    Ok(())
}

fn head_dim(top: &Fields<'_>, hidden: usize, heads: usize) -> Result<usize, ConfigError> {
    let (key, width) = match top.size("head_dim", limits::HEAD_DIM)? {
        Some(width) => ("head_dim", width),
        None if hidden.is_multiple_of(heads) => ("hidden_size", hidden / heads),
        None => {
            let expected = format!("a divisor of hidden_size = {hidden}, or an explicit head_dim");
            return Err(top.invalid("num_attention_heads", &Value::from(heads), expected));
        }
    };
    if width % 2 != 0 {
        let (found, expected) = match key {
            "head_dim" => (width, "an even number (RoPE turns pairs)".to_string()),
            _ => (hidden, format!("an even multiple of num_attention_heads = {heads} (RoPE turns pairs)")),
        };
        return Err(top.invalid(key, &Value::from(found), expected));
    }
    if heads.saturating_mul(width) > limits::WIDTH {
        let expected = format!("num_attention_heads × head_dim of at most {} (head_dim is {width})", limits::WIDTH);
        return Err(top.invalid("num_attention_heads", &Value::from(heads), expected));
    }
    Ok(width)
}

/// The stored type, under its old or its new name. What the tensors are is decided by the files.
fn dtype(top: &Fields<'_>) -> Result<Option<DType>, ConfigError> {
    let key = if top.value("dtype").is_some() { "dtype" } else { "torch_dtype" };
    match top.text(key)? {
        None => Ok(None),
        Some("float32") => Ok(Some(DType::F32)),
        Some("float16") => Ok(Some(DType::F16)),
        Some("bfloat16") => Ok(Some(DType::BF16)),
        Some(other) => Err(top.unsupported(key, &Value::from(other), "float32, float16, bfloat16")),
    }
}
