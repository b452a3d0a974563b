//! Files that are wrong, and what is said of them.

use super::build::{File, array, bool_value, f32_value, text, text_value, texts, u32_value};
use llamac_models::GgufModel;
use llamac_models::gguf::Gguf;
use tempfile::TempDir;

/// What is said of the bytes of a file, which is one sentence that names it.
fn refused(bytes: Vec<u8>) -> String {
    let error = Gguf::parse("x.gguf", bytes).expect_err("the file is wrong").to_string();
    assert!(error.starts_with("x.gguf: ") && !error.contains('\n'), "{error}");
    error
}

/// Asserts that a file, changed, is refused with these words.
fn says(change: impl FnOnce(&mut File), parts: &[&str]) {
    let mut file = File::small();
    change(&mut file);
    has(&refused(file.bytes()), parts);
}

fn has(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

/// Asserts that a file that is well-formed is refused as a model, or its vocabulary is.
fn model_says(file: &File, parts: &[&str]) {
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("x.gguf");
    std::fs::write(&path, file.bytes()).expect("a written file");
    let error = match GgufModel::open(&path) {
        Err(error) => error,
        Ok(model) => model.stored_vocabulary().expect_err("the model is wrong"),
    };
    has(&error.to_string(), parts);
    has(&error.to_string(), &["x.gguf: "]);
}

fn model_with(key: &str, value: Vec<u8>, parts: &[&str]) {
    let mut file = File::with_vocabulary();
    file.set(key, value);
    model_says(&file, &[parts, &[key]].concat());
}

#[test]
fn small_is_right() {
    let gguf = Gguf::parse("x.gguf", File::with_vocabulary().bytes()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((gguf.version(), gguf.alignment(), gguf.tensors().count()), (3, 32, 11));
    let mut two = File::small();
    two.version = 2;
    assert_eq!(Gguf::parse("x.gguf", two.bytes()).map(|g| g.version()).ok(), Some(2));
}

#[test]
fn magic_and_version() {
    has(&refused(vec![]), &["empty", "no GGUF file"]);
    has(&refused(b"PK\x03\x04....".to_vec()), &["begins with", "PK", "no GGUF file"]);
    says(|f| f.version = 1, &["version 1", "2 or 3"]);
    says(|f| f.version = 9, &["version 9", "2 or 3"]);
    says(|f| f.version = 3_u32.swap_bytes(), &["big-endian", "little-endian", "gguf-convert-endian"]);
}

#[test]
fn counts_past_the_file() {
    says(|f| f.tensor_count = Some(5000), &["tensors", "truncated"]);
    says(|f| f.tensor_count = Some(u64::MAX), &["tensors", "at most"]);
    says(|f| f.tensor_count = Some(13), &["tensor"]);
    says(|f| f.key_count = Some(5000), &["keys", "truncated"]);
    says(|f| f.key_count = Some(1 << 63), &["keys", "at most"]);
    says(|f| f.set("a", array(4, u64::MAX, &[])), &["key `a`", "truncated"]);
    says(|f| f.set("a", array(4, 1 << 62, &[])), &["key `a`", "truncated"]);
    says(|f| f.set("a", array(8, 1 << 61, &[])), &["key `a`", "truncated"]);
    says(|f| f.set("a", array(8, 3, &text(b"b"))), &["key `a`"]);
}

#[test]
fn lengths_past_the_file() {
    let long = |n: u64| [&8_u32.to_le_bytes()[..], &n.to_le_bytes(), b"abc"].concat();
    says(|f| f.set("a", long(u64::MAX)), &["key `a`", "truncated"]);
    says(|f| f.set("a", long(1 << 40)), &["key `a`", "truncated"]);
    let mut bytes = File::small().bytes();
    // The length of the first key.
    bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    has(&refused(bytes), &["key 0", "truncated"]);
}

#[test]
fn keys() {
    says(|f| f.keys.push((vec![], u32_value(1))), &["0 bytes long", "1 to 65535"]);
    says(|f| f.keys.push((vec![b'a'; 70_000], u32_value(1))), &["70000 bytes long"]);
    says(|f| f.keys.push((vec![0xff, 0xfe], u32_value(1))), &["UTF-8"]);
    says(|f| f.keys.push((b"llama.block_count".to_vec(), u32_value(1))), &["llama.block_count", "given twice"]);
    says(|f| f.set("a", vec![13, 0, 0, 0]), &["key `a`", "type 13"]);
    says(|f| f.set("a", array(13, 0, &[])), &["key `a`", "an array of type 13"]);
    says(|f| f.set("a", array(9, 1, &array(4, 0, &[]))), &["key `a`", "an array of arrays"]);
    says(|f| f.set("a", bool_value(2)), &["key `a`", "0 or 1"]);
}

#[test]
fn alignment() {
    for bad in [0, 1, 4, 12, 33, 1 << 17, u32::MAX] {
        says(
            |f| f.set("general.alignment", u32_value(bad)),
            &["general.alignment", &bad.to_string(), "a power of two from 8 to 65536"],
        );
    }
    says(|f| f.set("general.alignment", text_value("32")), &["general.alignment", "a power of two"]);
    let mut other = File::small();
    (other.alignment, other.tensors, other.data) = (64, vec![], 0);
    other.set("general.alignment", u32_value(64));
    other.tensor("a", &[3], 0, 12);
    other.tensor("b", &[3], 0, 12);
    assert_eq!(Gguf::parse("x.gguf", other.bytes()).map(|g| g.alignment()).ok(), Some(64));
}

#[test]
fn tensors() {
    let q = "blk.0.attn_q.weight";
    says(|f| f.entry(q).name = vec![], &["tensor `3`", "1 to 64 bytes"]);
    says(|f| f.entry(q).name = vec![b'a'; 65], &["65 bytes", "1 to 64 bytes"]);
    says(|f| f.entry(q).name = b"blk.0.attn_k.weight".to_vec(), &["blk.0.attn_k.weight", "listed twice"]);
    says(|f| f.entry(q).dims = vec![], &[q, "0 axes"]);
    says(|f| f.entry(q).dims = vec![1; 5], &[q, "5 axes"]);
    says(|f| f.entry(q).dims = vec![8, 0], &[q, "axes of at least 1"]);
    says(|f| f.entry(q).dims = vec![1 << 32, 1 << 32], &[q, "2⁶⁴"]);
    says(|f| f.entry(q).dims = vec![1 << 62, 4, 4, 4], &[q, "2⁶⁴"]);
    says(|f| f.entry(q).dims = vec![u64::MAX - 7, 1], &[q, "2⁶⁴"]);
    says(|f| f.entry(q).dims = vec![8, 1 << 40], &[q, "truncated"]);
    says(|f| f.entry(q).kind = 10, &[q, "q2_k", "quantise the model"]);
    says(|f| f.entry(q).kind = 31, &[q, "unknown type 31"]);
    says(|f| f.entry(q).kind = u32::MAX, &[q, "unknown type"]);
    says(|f| f.entry(q).kind = 2, &[q, "rows of 8", "q4_0", "a multiple of 32"]);
    says(|f| (f.entry(q).kind, f.entry(q).dims) = (14, vec![128, 2]), &[q, "a multiple of 256"]);
    says(|f| f.entry(q).offset += 4, &[q, "a multiple of the alignment 32"]);
    says(|f| f.entry(q).offset = 1 << 40, &[q, "truncated"]);
    says(|f| f.entry(q).offset = u64::MAX - 31, &[q, "truncated"]);
    says(|f| f.entry(q).offset -= 32, &["inside `", "damaged"]);
}

#[test]
fn keys_of_the_model() {
    model_with("general.architecture", text_value("gemma3"), &["\"gemma3\"", "supported: llama, olmo2"]);
    model_with("general.architecture", u32_value(1), &["a string"]);
    model_with("llama.block_count", u32_value(0), &["0", "an integer from 1"]);
    model_with("llama.block_count", text_value("1"), &["an integer from 1"]);
    model_with("llama.embedding_length", u32_value(u32::MAX), &["an integer from 1"]);
    model_with("llama.attention.head_count_kv", array(4, 1, &[1, 0, 0, 0]), &["an integer from 1"]);
    model_with("llama.attention.head_count", u32_value(3), &["a divisor of"]);
    model_with("llama.attention.value_length", u32_value(2), &["the width of a head, 4"]);
    model_with("llama.rope.dimension_count", u32_value(2), &["the width of a head, 4"]);
    model_with("llama.rope.freq_base", f32_value(f32::NAN), &["a positive number"]);
    model_with("llama.rope.scaling.type", text_value("yarn"), &["\"yarn\"", "none, linear"]);
    model_with("llama.attention.layer_norm_rms_epsilon", f32_value(-1.0), &["from 0 to below 1"]);
    model_with("llama.expert_count", u32_value(8), &["8", "supported: 0"]);
    model_with("llama.attention.sliding_window", u32_value(512), &["512", "supported: 0"]);
    model_with("llama.vocab_size", u32_value(7), &["7", "the rows of `token_embd.weight`"]);
    model_with("split.count", u32_value(3), &["gguf-split --merge"]);
    let mut file = File::small();
    file.remove("llama.context_length");
    model_says(&file, &["llama.context_length", "missing"]);
    let mut file = File::small();
    file.remove("general.architecture");
    model_says(&file, &["general.architecture", "missing"]);
}

#[test]
fn tensors_of_the_model() {
    let mut file = File::small();
    file.entry("blk.0.ffn_up.weight").name = b"blk.0.ffn_u.weight".to_vec();
    model_says(&file, &["blk.0.ffn_up.weight", "missing", "[12, 8]"]);
    let mut file = File::small();
    file.entry("blk.0.attn_q.weight").dims = vec![8, 7];
    model_says(&file, &["blk.0.attn_q.weight", "[7, 8]", "[8, 8]"]);
    let mut file = File::small();
    file.entry("token_embd.weight").name = b"t".to_vec();
    model_says(&file, &["token_embd.weight", "missing"]);
    let mut file = File::small();
    file.tensor("rope_freqs.weight", &[2], 0, 8);
    model_says(&file, &["rope_freqs.weight", "holds 0", "positive numbers"]);
    let mut file = File::small();
    file.tensor("rope_freqs.weight", &[3], 0, 12);
    model_says(&file, &["rope_freqs.weight", "f32[2]"]);
}

#[test]
fn vocabularies() {
    let tokens = "tokenizer.ggml.tokens";
    model_with("tokenizer.ggml.model", text_value("bert"), &["\"bert\"", "gpt2, llama"]);
    model_with("tokenizer.ggml.pre", text_value("tekken"), &["\"tekken\"", "llama-bpe"]);
    model_with(tokens, array(4, 1, &[0; 4]), &["an array of string"]);
    model_with(tokens, text_value("a"), &["an array of string"]);
    model_with(tokens, texts(&["a"; 7]), &["7 tokens", "at most 6"]);
    model_with(tokens, array(8, 6, &text(&[0xff]).repeat(6)), &["UTF-8"]);
    model_with("tokenizer.ggml.token_type", array(5, 1, &[1, 0, 0, 0]), &["1 types", "6"]);
    model_with("tokenizer.ggml.token_type", array(5, 6, &[9; 24]), &["a type from 1 to 6"]);
    model_with("tokenizer.ggml.token_type", array(6, 6, &[0; 24]), &["an array of i32 or u32"]);
    model_with("tokenizer.ggml.merges", texts(&["ab"]), &["two tokens with a space"]);
    model_with("tokenizer.ggml.merges", array(0, 1, &[1]), &["an array of string"]);
    model_with("tokenizer.ggml.eos_token_id", u32_value(6), &["a token id below 6"]);
    model_with("tokenizer.ggml.bos_token_id", f32_value(1.0), &["a token id below 6"]);
    model_with("tokenizer.ggml.add_bos_token", u32_value(1), &["a truth value"]);
    let mut file = File::with_vocabulary();
    file.set("tokenizer.ggml.merges", texts(&["a z"]));
    model_says(&file, &["merge 0", "no token"]);
    let mut file = File::with_vocabulary();
    file.set("tokenizer.ggml.model", text_value("llama"));
    model_says(&file, &["tokenizer.ggml.scores", "missing"]);
    file.set("tokenizer.ggml.scores", array(6, 5, &[0; 20]));
    model_says(&file, &["5 scores", "6"]);
    file.set("tokenizer.ggml.scores", array(4, 6, &[0; 24]));
    model_says(&file, &["an array of f32"]);
}
