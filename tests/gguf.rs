//! GGUF files, exported and opened again: numbers against the goldens of the directories that they were made of, tokens
//! against the goldens of their tokenizers, bytes against each other.

mod library;

use library::{Build, Golden, directory, distance, golden_text, pool, tolerance};
use llamac::export::{ExportFileError, export};
use llamac::model::{Model, Sizes};
use llamac_ir::{DType, TensorSource};
use llamac_models::GgufModel;
use llamac_models::gguf::write::Numbers;
use llamac_models::synth::Synth;
use llamac_passes::{FusionSet, Options};
use llamac_runtime::Tier;
use llamac_runtime::text::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(path: &Path) -> Model {
    Model::open(path, None, &Sizes::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Exports a model under its own name.
fn exported(model: &Path, to: &TempDir, numbers: Option<&str>) -> PathBuf {
    let numbers = numbers.map(|name| Numbers::from_name(name).expect("a known name"));
    let path = to.path().join(format!("{}.gguf", open(model).name));
    export(&open(model), &path, numbers, 2, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
    path
}

fn last_logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut generator = Build::new(model, &Options::fusing(FusionSet::All)).generator(&pool(2), Tier::detect());
    generator.prefill(0, ids).expect("a prompt that fits").to_vec()
}

/// The worst case of a golden.
fn error(model: &Model, golden: &str) -> f64 {
    let cases = Golden::read(golden).cases;
    let errors = cases.iter().map(|case| distance(&last_logits(model, &case.ids), &case.logits_last));
    errors.fold(0.0, f64::max)
}

#[test]
fn exported_models_keep_the_goldens() {
    for name in library::MODELS {
        let to = temporary();
        let model = open(&exported(&directory(name), &to, Some("f32")));
        let found = error(&model, name);
        assert!(found <= tolerance(&open(&directory(name)).graph), "{name}: relative error {found:e}");
        let config = model.config().expect("a configuration");
        assert_eq!(config.eos.first(), open(&directory(name)).eos().first(), "{name}");
    }
}

/// Biases are permuted with their rows, and linear scaling has its keys: the numbers are the same to the bit.
#[test]
fn biases_and_linear_scaling_survive() {
    let llama = r#"{
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32",
        "hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": 2, "vocab_size": 70,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0},
        "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": false
    }"#;
    let qwen2 = r#"{
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "float16",
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "vocab_size": 70,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": true
    }"#;
    for (config, bias) in [(llama, "blk.1.attn_q.bias"), (qwen2, "blk.0.attn_v.bias")] {
        let to = temporary();
        let (described, path) = (to.path().join("described.json"), to.path().join("model"));
        std::fs::write(&described, config).expect("written");
        Synth::named(described.to_str().expect("UTF-8")).expect("a configuration").write(&path, 11).expect("a model");
        let file = exported(&path, &to, None);
        let gguf = GgufModel::open(&file).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(gguf.tensor(bias).map(|t| t.dtype), Some(DType::F32), "{bias}");
        let ids = [3, 60, 17, 17, 0, 42, 5, 63, 29];
        let found = library::bits(&last_logits(&open(&file), &ids));
        assert_eq!(found, library::bits(&last_logits(&open(&path), &ids)), "{config}");
    }
}

/// Texts, ids with and without what stands around them, and the text again.
fn keeps_tokens(tokenizer: &Tokenizer, golden: &str) {
    let golden: Value = serde_json::from_str(&golden_text(golden)).expect("JSON");
    let ids = |v: &Value| -> Vec<u32> {
        v.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
    };
    let cases = golden.as_array().or_else(|| golden["cases"].as_array()).expect("cases");
    assert!(cases.len() > 10, "a golden with cases");
    for case in cases {
        let text = case["text"].as_str().expect("a text");
        for (key, special) in [("ids", true), ("ids_no_special", false)] {
            let Some(want) = case.get(key) else { panic!("{key} of {text:?}") };
            assert_eq!(tokenizer.encode(text, special).expect("ids"), ids(want), "{key} of {text:?}");
        }
    }
}

#[test]
fn vocabularies_keep_the_goldens() {
    let to = temporary();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/bard.gguf/bard-q4_0.gguf");
    let (bard, stories) = (exported(&directory("bard"), &to, None), exported(&directory("stories260K"), &to, None));
    for (file, golden) in [(bundled, "bard"), (bard, "bard"), (stories, "stories260K")] {
        let model = open(&file);
        let vocab = model.config().map_or(0, |config| config.vocab);
        let tokenizer = model.open_tokenizer(vocab).unwrap_or_else(|e| panic!("{e}")).expect("a tokenizer");
        keeps_tokens(&tokenizer, &format!("{golden}.tokens.json"));
    }
}

/// The bytes do not depend on the threads, and a file that is exported as it is comes out as it was.
#[test]
fn the_same_model_gives_the_same_bytes() {
    let to = temporary();
    let model = open(&directory("bard"));
    let numbers = Numbers::from_name("q4_k_m");
    let [one, three] = [1, 3].map(|threads| {
        let path = to.path().join(format!("{threads}.gguf"));
        let written = export(&model, &path, numbers, threads, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        let bytes = std::fs::read(path).expect("the file");
        assert_eq!(written.bytes, bytes.len() as u64);
        bytes
    });
    assert!(one == three, "threads show in the bytes");
    let again = temporary();
    let first = to.path().join("bard.gguf");
    std::fs::write(&first, &one).expect("written");
    assert!(std::fs::read(exported(&first, &again, None)).expect("the file") == one, "the copy differs");
}

/// The types of a mix are those that llama.cpp's quantiser chose for the bundled file.
#[test]
fn mixes_choose_as_the_bundled_file_has_it() {
    for mix in ["q4_0", "q4_k_m"] {
        let to = temporary();
        let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/models/bard.gguf/bard-{mix}.gguf"));
        let open = |path: &Path| GgufModel::open(path).unwrap_or_else(|e| panic!("{e}"));
        let (ours, theirs) = (open(&exported(&directory("bard"), &to, Some(mix))), open(&bundled));
        for (name, place) in theirs.header().tensors() {
            let found = ours.header().place(name).map(|p| (p.dtype, &p.dims));
            assert_eq!(found, Some((place.dtype, &place.dims)), "{mix}: {name}");
        }
    }
}

#[test]
fn what_cannot_be_exported_is_said() {
    let to = temporary();
    let path = to.path().join("x.gguf");
    let fails = |model: &Model, path: &Path, numbers: Option<&str>| -> ExportFileError {
        let numbers = numbers.and_then(Numbers::from_name);
        export(model, path, numbers, 1, &mut |_, _| {}).expect_err("it cannot be exported")
    };
    let text = open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mlp.lir"));
    assert!(matches!(fails(&text, &path, None), ExportFileError::NoModel { .. }));
    let file = exported(&directory("bard"), &to, Some("q8_0"));
    let error = fails(&open(&file), &path, Some("q4_0")).to_string();
    assert!(error.contains("is q8_0 and would be rounded again to q6_k"), "{error}");
    let error = fails(&open(&file), &file, None).to_string();
    assert!(error.contains("would be overwritten"), "{error}");
    assert!(!path.exists(), "nothing is left of a file that was not finished");
}
