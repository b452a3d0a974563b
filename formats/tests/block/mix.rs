//! Mixes against the types that llama.cpp's quantiser gave small models of many shapes.

use crate::files;
use llamac_formats::block::mix::{Mix, Place, Role, is_70b};
use serde_json::Value;

#[test]
fn types_are_llama_cpps() {
    let cases: Value = serde_json::from_slice(&files::read("formats/tests/data/llama_cpp_mix.json")).unwrap();
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let layers = number("layers");
        let (hidden, attended) = (number("hidden"), number("heads") * number("head_dim"));
        let is_70b = case["arch"] == "llama" && is_70b(layers, number("heads"), number("kv_heads"));
        for (mix, tensors) in case["types"].as_object().unwrap() {
            let mix = Mix::from_name(mix).unwrap();
            for (name, types) in tensors.as_object().unwrap() {
                let (role, row) = match name.as_str() {
                    "token_embd" if case["tied"] == true => (Role::Output, hidden),
                    "token_embd" => (Role::Embedding, hidden),
                    "output" => (Role::Output, hidden),
                    "attn_v" => (Role::Values, hidden),
                    "ffn_down" => (Role::Down, number("ffn")),
                    "attn_output" => (Role::Inner, attended),
                    "attn_q" | "attn_k" | "ffn_gate" | "ffn_up" => (Role::Inner, hidden),
                    other => panic!("{other}"),
                };
                for layer in 0..layers {
                    let expected = types.as_str().unwrap_or_else(|| types[layer].as_str().unwrap());
                    let ours = mix.tensor_type(&Place { role, layer, layers, row, is_70b });
                    assert_eq!(ours.name(), expected, "{mix}, {name} of layer {layer}: {case}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 10_000, "{compared}");
}

#[test]
fn names() {
    for mix in Mix::ALL {
        assert_eq!(Mix::from_name(mix.name()), Some(mix));
    }
    assert_eq!(Mix::from_name("q4_k"), None);
}
