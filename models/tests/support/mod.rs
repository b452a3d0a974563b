//! Small model directories for tests, whole or broken on purpose.
#![allow(dead_code, reason = "each test file uses its own part")]

use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where the models of this repository are.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The smallest Llama that is one.
pub fn small_config() -> Map<String, Value> {
    let Value::Object(map) = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 10,
        "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "torch_dtype": "float32"
    }) else {
        unreachable!("json! of an object")
    };
    map
}

/// A directory that holds `config.json`.
pub fn directory_with(config: &Map<String, Value>) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    write(&dir, "config.json", serde_json::to_vec(config).expect("JSON"));
    dir
}

/// Writes a file into a directory.
pub fn write(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(dir.path().join(name), bytes).expect("a written file");
}

/// A safetensors file: the header's text and the data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A safetensors file of f32 tensors, all elements `value`.
pub fn tensors(list: &[(&str, &[usize], f32)]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), vec![]);
    for (name, dims, value) in list {
        let start = data.len();
        for _ in 0..dims.iter().product() {
            data.extend_from_slice(&value.to_le_bytes());
        }
        header.insert((*name).into(), json!({"dtype": "F32", "shape": dims, "data_offsets": [start, data.len()]}));
    }
    safetensors(&Value::Object(header).to_string(), &data)
}

/// Asserts that an error's text holds every part.
pub fn says(error: &dyn std::fmt::Display, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

/// Little-endian f32 values.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}
