//! A model small enough to be compiled and changed thousands of times.
#![allow(dead_code, reason = "each test program uses its own part")]

use llamac::compile::compile_for;
use llamac::model::{Model, Sizes};
use llamac_codegen::Target;
use llamac_models::synth::Synth;
use llamac_passes::{FusionSet, Options};
use std::fs;
use std::path::Path;

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 48,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 512,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": false, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2
}"#;

/// Compiles it in a directory, for the least machine that there is code for, and gives the file's bytes.
pub fn artifact(directory: &Path, fusion: FusionSet) -> Vec<u8> {
    let (description, path, file) =
        (directory.join("described.json"), directory.join("tiny"), directory.join("tiny.llamac"));
    fs::write(&description, CONFIG).expect("written");
    let synth = Synth::named(description.to_str().expect("UTF-8")).expect("a configuration");
    if !path.is_dir() {
        synth.write(&path, 11).expect("a model");
    }
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/stories260K/tokenizer.json");
    fs::copy(tokenizer, path.join("tokenizer.json")).expect("a tokenizer");
    let sizes = Sizes { context: Some(32), chunk: Some(8), slots: Some(2), ..Sizes::default() };
    let model = Model::open(&path, None, &sizes).expect("a model");
    let options = Options::fusing(fusion);
    let compiled = compile_for(model.graph.clone(), &options, Target::X86V2, false).expect("code");
    let manifest = llamac::artifact::manifest(&model, &compiled, &options, Target::X86V2);
    llamac::artifact::write(&file, &model, &compiled, &manifest, None, 1, &mut |_, _| {}).expect("an artifact");
    fs::read(&file).expect("its bytes")
}
