//! Bad input gets one clear error that names the file, the tensor or key, what was found and what was expected.

mod support;

use serde_json::json;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Broken, bard, finished, llamac, model, root};

fn llama2() -> Broken {
    Broken::copy("tiny-llama2")
}

const Q: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn model_path_that_is_not_there() {
    llamac(["run", "/no/such/model", "x"]).refuses(&["/no/such/model"]);
    llamac(["run"]).refuses(&["MODEL"]);
}

#[test]
fn files_missing_empty_or_truncated() {
    let m = llama2();
    m.remove("config.json").logits().refuses(&["config.json"]);
    let m = llama2();
    m.remove("model.safetensors").logits().refuses(&["model.safetensors"]);
    for name in ["config.json", "model.safetensors"] {
        let m = llama2();
        m.write(name, b"").logits().refuses(&[name]);
    }
    for len in [4, 8, 100, 5000, 1_000_000] {
        let m = llama2();
        m.truncate("model.safetensors", len).logits().refuses(&["model.safetensors"]);
    }
    let m = llama2();
    m.truncate("config.json", 100).logits().refuses(&["config.json"]);
}

#[test]
fn safetensors_header_too_long() {
    let m = llama2();
    let mut bytes = m.read("model.safetensors");
    let whole = bytes.len() as u64;
    bytes[..8].copy_from_slice(&whole.to_le_bytes());
    m.write("model.safetensors", &bytes).logits().refuses(&["model.safetensors", "header"]);
    bytes[..8].copy_from_slice(&(200u64 << 20).to_le_bytes());
    m.write("model.safetensors", &bytes).logits().refuses(&["model.safetensors", "header"]);
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    m.write("model.safetensors", &bytes).logits().refuses(&["model.safetensors", "header"]);
}

#[test]
fn safetensors_offsets() {
    let m = llama2();
    m.header(|h| {
        let (begin, end) = (h[Q]["data_offsets"][0].as_u64().unwrap(), h[Q]["data_offsets"][1].as_u64().unwrap());
        h[Q]["data_offsets"] = json!([begin - 4, end - 4]);
    });
    m.logits().refuses(&["model.safetensors", "overlap"]);
    let m = llama2();
    m.header(|h| {
        h.as_object_mut().unwrap().remove(Q);
    });
    m.logits().refuses(&["model.safetensors"]);
    let m = llama2();
    m.header(|h| h[Q]["data_offsets"] = json!([0, 1u64 << 60]));
    m.logits().refuses(&["model.safetensors", "q_proj"]);
    let m = llama2();
    m.header(|h| h[Q]["data_offsets"] = json!([4096, 0]));
    m.logits().refuses(&["model.safetensors", "q_proj"]);
}

#[test]
fn tensors_of_wrong_shape_or_type() {
    let m = llama2();
    m.header(|h| h[Q]["shape"] = json!([48, 192])).logits().refuses(&[Q, "[48, 192]", "[96, 96]"]);
    let m = llama2();
    m.header(|h| h[Q]["dtype"] = json!("I32")).logits().refuses(&[Q, "I32"]);
    let m = llama2();
    m.header(|h| h[Q]["shape"] = json!([u64::MAX, u64::MAX])).logits().refuses(&["model.safetensors"]);
}

#[test]
fn sizes_that_nothing_backs() {
    let sparse = |m: &Broken, name: &str, len: u64| {
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(m.file(name))
            .unwrap()
            .set_len(len)
            .unwrap();
    };
    let m = llama2();
    m.config("vocab_size", json!(1 << 24)).config("hidden_size", json!(1 << 20)).config("head_dim", json!(1024));
    m.config("num_attention_heads", json!(1024)).config("num_key_value_heads", json!(1024));
    m.logits().refuses(&["model.safetensors", "embed_tokens", "[320, 96]", "[16777216, 1048576]"]);
    let m = llama2();
    m.config("num_hidden_layers", json!(4096)).logits().refuses(&["model.layers.3.", "missing"]);
    let m = llama2();
    m.config("num_hidden_layers", json!(100_000)).logits().refuses(&["config.json", "num_hidden_layers", "4096"]);
    let m = llama2();
    sparse(&m, "config.json", 10 << 30);
    m.logits().refuses(&["config.json", "bytes"]);
    let m = llama2();
    sparse(&m, "model.safetensors", 50 << 30);
    m.logits().refuses(&["model.safetensors"]);
    let m = llama2();
    sparse(&m, "model.safetensors.index.json", 10 << 30);
    m.remove("model.safetensors").logits().refuses(&["model.safetensors.index.json", "bytes"]);
    for len in [300 << 20, 100 << 20] {
        let m = Broken::copy("bard");
        sparse(&m, "tokenizer.json", len);
        llamac(["run".as_ref(), m.path().as_os_str(), "x".as_ref()]).refuses(&["tokenizer.json"]);
    }
    let m = llama2();
    m.config("max_position_embeddings", json!(i32::MAX));
    let path = m.path().to_str().unwrap();
    let logits = |options: &[&str]| llamac(["logits", path, "--ids", "1"].iter().chain(options));
    logits(&["-c", "2147483647"]).refuses(&["bytes", "context"]);
    logits(&["-c", "20000000", "--chunk", "20000000"]).refuses(&["--chunk", "20000000", "1048576"]);
}

#[test]
fn nests_without_end() {
    let m = llama2();
    m.write("config.json", "{\"a\":".repeat(100_000).as_bytes()).logits().refuses(&["config.json"]);
    m.write("config.json", "[".repeat(100_000).as_bytes()).logits().refuses(&["config.json"]);
    let m = llama2();
    let header = "{\"a\":".repeat(100_000);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    m.write("model.safetensors", &file).logits().refuses(&["model.safetensors", "header"]);
}

#[test]
fn directories_in_place_of_files_and_files_in_place_of_directories() {
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        let m = llama2();
        m.remove(name);
        std::fs::create_dir(m.file(name)).unwrap();
        m.logits().refuses(&[name]);
    }
    let m = Broken::copy("bard");
    m.remove("tokenizer.json");
    std::fs::create_dir(m.file("tokenizer.json")).unwrap();
    llamac(["run".as_ref(), m.path().as_os_str(), "x".as_ref()]).refuses(&["tokenizer.json"]);
    let m = llama2();
    for name in ["config.json", "model.safetensors"] {
        llamac(["run".as_ref(), m.file(name).as_os_str()]).refuses(&[name, "directory"]);
    }
    m.write("model.gguf", b"GGUF\x03\0\0\0");
    llamac(["run".as_ref(), m.file("model.gguf").as_os_str()]).refuses(&["model.gguf", "truncated"]);
    llamac(["run", "/dev/null"]).refuses(&["/dev/null"]);
    llamac(["run", "/dev/zero"]).refuses(&["/dev/zero"]);
    llamac(["run", ""]).refuses(&["MODEL"]);
}

/// To open a pipe is to wait for its writer: a command that does hangs here until `timeout` ends it.
#[test]
fn pipes_in_place_of_files() {
    let made = |path: &Path| Command::new("mkfifo").arg(path).status().is_ok_and(|status| status.success());
    let refuses = |args: &[&OsStr], name: &str| {
        let mut command = Command::new("timeout");
        command.args(["60", env!("CARGO_BIN_EXE_llamac")]).args(args).stdin(Stdio::null());
        let run = finished(&command.output().expect("timeout starts"));
        assert_ne!(run.code, Some(124), "{name}: still waiting for a writer");
        run.refuses(&[name, "found a pipe"]);
    };
    let probe = llama2();
    let works = Command::new("timeout").args(["60", "true"]).status().is_ok_and(|status| status.success());
    if !works || !made(&probe.file("pipe")) {
        eprintln!("skipped: this machine has no mkfifo or no timeout");
        return;
    }
    let index = "model.safetensors.index.json";
    for name in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors", index] {
        let m = Broken::copy("bard");
        m.remove(if name == index { "model.safetensors" } else { name });
        assert!(made(&m.file(name)), "{name}");
        refuses(&["run".as_ref(), m.path().as_os_str(), "x".as_ref()], name);
    }
    let m = llama2();
    m.remove("model.safetensors")
        .write(index, br#"{"weight_map": {"model.embed_tokens.weight": "shard.safetensors"}}"#);
    assert!(made(&m.file("shard.safetensors")));
    refuses(&["logits".as_ref(), m.path().as_os_str(), "--ids".as_ref(), "1".as_ref()], "shard.safetensors");
    let graph = m.file("g.lir");
    std::fs::write(&graph, llamac(["ir".as_ref(), model("tiny-llama2").as_os_str()]).ok()).unwrap();
    let pipe = probe.file("pipe");
    let of_pipe = ["--ids".as_ref(), "1".as_ref(), "--weights".as_ref(), pipe.as_os_str()];
    refuses(&[&["logits".as_ref(), graph.as_os_str()], &of_pipe[..]].concat(), "pipe");
}

#[test]
fn missing_tensor_or_shard() {
    let m = llama2();
    m.header(|h| {
        let o = h.as_object_mut().unwrap();
        let q = o.remove(Q).unwrap();
        o.insert("another".into(), q);
    });
    m.logits().refuses(&[Q]);
    let m = llama2();
    m.remove("model.safetensors");
    m.write(
        "model.safetensors.index.json",
        br#"{"weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}}"#,
    );
    m.logits().refuses(&["model-00001-of-00002.safetensors"]);
    m.write("model.safetensors.index.json", br#"{"weight_map": {"model.embed_tokens.weight": "../../etc/passwd"}}"#);
    m.logits().refuses(&["model.safetensors.index.json"]);
}

#[test]
fn configurations_that_cannot_be() {
    let cases = [
        ("num_attention_heads", json!(5), vec!["num_key_value_heads"]),
        ("num_key_value_heads", json!(4), vec!["num_key_value_heads", "4", "6"]),
        ("head_dim", json!(15), vec!["head_dim", "15"]),
        ("head_dim", json!(0), vec!["head_dim", "0"]),
        ("num_hidden_layers", json!(0), vec!["num_hidden_layers", "0"]),
        ("num_hidden_layers", json!(1u64 << 60), vec!["num_hidden_layers"]),
        ("hidden_size", json!("wide"), vec!["hidden_size"]),
        ("hidden_size", json!(-3), vec!["hidden_size", "-3"]),
        ("architectures", json!(["MambaForCausalLM"]), vec!["MambaForCausalLM"]),
        ("hidden_act", json!("gelu"), vec!["hidden_act", "gelu"]),
        ("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4}), vec!["yarn"]),
        ("vocab_size", json!(0), vec!["vocab_size", "0"]),
        ("num_attention_heads", json!(0), vec!["num_attention_heads", "0"]),
        ("num_key_value_heads", json!(0), vec!["num_key_value_heads", "0"]),
        ("hidden_size", json!(96.5), vec!["hidden_size", "96.5"]),
        ("hidden_size", json!(1e300), vec!["hidden_size"]),
        ("intermediate_size", json!(null), vec!["intermediate_size"]),
        ("rms_norm_eps", json!(-1), vec!["rms_norm_eps", "-1"]),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": 0}), vec!["rope_theta", "0"]),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": 1e300}), vec!["rope_theta", "1e+300"]),
        ("rope_parameters", json!({"rope_type": "linear", "rope_theta": 1e4}), vec!["factor"]),
        ("rope_scaling", json!("linear"), vec!["rope_scaling", "linear"]),
        ("eos_token_id", json!([1, 320]), vec!["eos_token_id", "320"]),
        ("tie_word_embeddings", json!("yes"), vec!["tie_word_embeddings", "yes"]),
        ("quantization_config", json!({"bits": 4}), vec!["quantization_config"]),
        ("architectures", json!([]), vec!["architectures", "LlamaForCausalLM"]),
        ("architectures", json!("LlamaForCausalLM"), vec!["architectures"]),
    ];
    for (key, value, needles) in cases {
        let m = llama2();
        m.config(key, value);
        let mut all = vec!["config.json"];
        all.extend(needles);
        m.logits().refuses(&all);
    }
    let m = Broken::copy("tiny-llama31");
    m.config("architectures", json!(["Qwen2ForCausalLM"]))
        .config("model_type", json!("qwen2"))
        .config("use_sliding_window", json!(true));
    m.logits().refuses(&["use_sliding_window"]);
}

#[test]
fn end_tokens_past_the_vocabulary() {
    let m = llama2();
    m.write("generation_config.json", br#"{"eos_token_id": 99999}"#);
    m.logits().refuses(&["generation_config.json", "eos_token_id", "99999", "320"]);
    m.write("generation_config.json", b"");
    m.logits().refuses(&["generation_config.json", "empty"]);
}

#[test]
fn a_tied_flag_that_contradicts_the_file() {
    let m = llama2();
    m.config("tie_word_embeddings", json!(false)).logits().refuses(&["tie_word_embeddings", "lm_head.weight"]);
    let m = Broken::copy("tiny-llama31");
    m.config("tie_word_embeddings", json!(true)).logits().refuses(&["tie_word_embeddings", "lm_head.weight"]);
}

#[test]
fn nan_weights_are_named_in_a_warning() {
    let m = llama2();
    m.tensor(Q, |bytes| bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    let run = m.logits();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("warning:") && run.stderr.contains(Q), "{}", run.stderr);
    assert_eq!(run.stderr.matches("warning:").count(), 1, "{}", run.stderr);
}

#[test]
fn tokenizers() {
    let run =
        |m: &Broken| llamac(["run".as_ref(), m.path().as_os_str(), "hello".as_ref(), "-n".as_ref(), "1".as_ref()]);
    let m = Broken::copy("bard");
    m.write("tokenizer.json", b"{\"version\": \"1.0\"}");
    run(&m).refuses(&["tokenizer.json"]);
    m.write("tokenizer.json", b"\xff\xfe not json");
    run(&m).refuses(&["tokenizer.json"]);
    let m = Broken::copy("bard");
    m.edit_json("tokenizer.json", |t| t["added_tokens"][0]["id"] = json!(5000));
    run(&m).refuses(&["tokenizer.json", "5000", "2048"]);
    m.edit_json("tokenizer.json", |t| t["added_tokens"][0]["content"] = json!("<|far|>"));
    run(&m).refuses(&["tokenizer.json", "<|far|>", "5000", "2048"]);
    let m = llama2();
    run(&m).refuses(&["tokenizer.json", "--ids"]);
}

#[test]
fn configurations_in_no_known_encoding() {
    let m = llama2();
    m.write("config.json", b"\xff{}").logits().refuses(&["config.json"]);
}

/// Runs a text graph.
fn graph(body: &str) -> support::Run {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.lir");
    std::fs::write(&path, format!("graph @g S<=8 R<=1 T<=16 slots=1 {{\n{body}\n}}\n")).unwrap();
    llamac(["verify".as_ref(), path.as_os_str()])
}

#[test]
fn text_graphs() {
    graph("  %0: f32[S, 4] = input \"x\"\n  %1: f32[S, 4] = ad %0, %0\n  return \"y\" = %1")
        .refuses(&["g.lir:3", "ad", "^"]);
    graph("  %0: f32[S, 4] = input \"x\"\n  %1: f32[S, 5] = add %0, %0\n  return \"y\" = %1").refuses(&[
        "g.lir:3",
        "f32[S, 4]",
        "f32[S, 5]",
    ]);
    graph("  %1: f32[S, 4] = neg %0\n  %0: f32[S, 4] = input \"x\"\n  return \"y\" = %1").refuses(&["g.lir:2", "%0"]);
    graph("  %0: f32[S, 4] = input \"x\"").refuses(&["g.lir", "return"]);
    let state = "  %p: i32[S] = input \"p\" limit=16\n  %s: i32[S] = input \"s\" limit=1
  %x: f32[S, 2, 4] = input \"x\"
  %k: f32[1, 2, 16, 4] = state \"k\"
  %k1: f32[1, 2, 16, 4] = state.write %k, %x, %s, %p";
    graph(&format!(
        "{state}\n  %k2: f32[1, 2, 16, 4] = state.write %k, %x, %s, %p\n  %v: f32[S, 2, T, 4] = index %k2, %s
  %m: f32[S, 2, T] = reduce sum %v axis=3\n  return \"y\" = %m"
    ))
    .refuses(&["g.lir:7:27: rule `linear-state`: %k is written twice", "%k2: f32", "^^^^^^^^^^^"]);
    graph(&format!(
        "{state}\n  %v: f32[S, 2, T, 4] = index %k, %s\n  %m: f32[S, 2, T] = reduce sum %v axis=3\n  return \"y\" = %m"
    ))
    .refuses(&["g.lir:7:25: rule `linear-state`", "%k", "^^^^^"]);
    llamac(["ir", root().join("LICENSE").to_str().unwrap()]).refuses(&["LICENSE"]);
}

#[test]
fn rules_of_graphs_are_shown_at_their_place() {
    graph("  %table: f32[9, 4] = weight \"w\"\n  %i: i32[S] = input \"i\"\n  %y: f32[S, 4] = gather %table, %i\n  return \"y\" = %y")
        .refuses(&["g.lir:4:19: rule `indices`: the ids %i have no known limit", "gather %table, %i", "^^^^^^"]);
    graph("  %x: f32[S, 4] = input \"x\"\n  return \"y\" = %x, \"y\" = %x")
        .refuses(&["g.lir:3:3: rule `outputs`", "^^^^^^"]);
    graph("  %x: f32[S, 4] = input \"x\"\n  %y: f32[S, 4] = input \"x\"\n  return \"y\" = %y")
        .refuses(&["g.lir:3:19: rule `leaves`", "^^^^^"]);
    graph(
        "  %x: f32[S, 4] = input \"x\"\n  %y: f32[S] = fusion epilogue \"e\" (%x) {\n    %0: f32[S, 4] = param 0
    %1: f32[S] = reduce sum %0 axis=1\n    yield %1\n  }\n  return \"y\" = %y",
    )
    .refuses(&["g.lir:3:16: rule `region`", "0 dots, expected 1", "^^^^^^"]);
}

#[test]
fn graphs_too_large_for_any_machine() {
    let file = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g.lir");
        std::fs::write(&path, text).unwrap();
        llamac(["verify".as_ref(), path.as_os_str()])
    };
    file("graph @g S<=0 R<=1 T<=1 slots=1 {\n  %0: f32[S] = input \"x\"\n  return \"y\" = %0\n}")
        .refuses(&["g.lir:1:1: rule `bounds`", "^^^"]);
    file("graph @g S<=2147483647 R<=1 T<=1 slots=1 {\n  %0: f32[S] = input \"x\"\n  return \"y\" = %0\n}").refuses(&[
        "g.lir",
        "bound of S",
        "2147483647",
        "1048576",
    ]);
    file("graph @g S<=8 R<=1 T<=2147483647 slots=1 {\n  %0: i32[T] = iota\n  %1: f32[T] = cast %0\n  return \"y\" = %1\n}")
        .refuses(&["bytes", "outputs"]);
    graph("  %0: f32[S, 2147483647, 2147483647, 2147483647] = input \"x\"\n  return \"y\" = %0").refuses(&["g.lir:2"]);
    graph(
        "  %0: f32[S, 1000000] = input \"x\"\n  %1: f32[1000000, 1000000] = weight \"w\"
  %2: f32[S, 1000000] = dot %0, %1 contract=[1]x[1]\n  return \"y\" = %2",
    )
    .refuses(&["4000000000000", "--weights"]);
    graph(&"  %0: f32[4] = fusion rows \"a\" () {\n".repeat(100_000)).refuses(&["g.lir:4", "regions", "^"]);
}

#[test]
fn a_text_graph_and_weights_of_another_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.lir");
    std::fs::write(&path, llamac(["ir".as_ref(), model("tiny-llama2").as_os_str()]).ok()).unwrap();
    let path = path.to_str().unwrap();
    let with = |weights: &str| llamac(["logits", path, "--ids", "1", "--weights", weights]);
    with(model("tiny-olmo2").to_str().unwrap()).refuses(&["tiny-olmo2", "embed_tokens", "[512, 128]", "[320, 96]"]);
    with(bard().to_str().unwrap()).refuses(&["bard", "embed_tokens", "bf16", "f32"]);
    with("/no/such/model").refuses(&["/no/such/model"]);
    with(dir.path().to_str().unwrap()).refuses(&["model.safetensors"]);
    with(path).refuses(&["g.lir", "safetensors"]);
    llamac(["logits", bard().to_str().unwrap(), "--ids", "1", "--weights", path]).refuses(&["bard", "--weights"]);
    llamac(["logits", path, "--ids", "1", "-c", "100000"]).refuses(&["-c", "100000", "512", "g.lir"]);
}

#[test]
fn a_graph_that_is_no_language_model() {
    let mlp = root().join("examples/mlp.lir");
    llamac(["run", mlp.to_str().unwrap(), "x"]).refuses(&["mlp.lir", "no language model", "llamac verify"]);
    llamac(["logits", mlp.to_str().unwrap(), "--ids", "1"]).refuses(&["mlp.lir", "no language model"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.lir");
    // What would be fed back is not what the graph takes.
    let text = "graph @g S<=8 R<=8 T<=16 slots=1 {\n  %t: i32[S] = input \"tokens\" limit=4\n  %p: i32[S] = input \"positions\" limit=16
  %s: i32[S] = input \"slots\" limit=1\n  %o: i32[R] = input \"outputs\" limit=8\n  %e: f32[4, 9] = weight \"e\"
  %x: f32[S, 9] = gather %e, %t\n  %y: f32[R, 9] = gather %x, %o\n  return \"logits\" = %y\n}";
    std::fs::write(&path, text).unwrap();
    let mut file = br#"{"e":{"dtype":"F32","shape":[4,9],"data_offsets":[0,144]}}"#.to_vec();
    file.splice(..0, (file.len() as u64).to_le_bytes());
    file.extend((0..36).flat_map(|i: u8| f32::from(i).to_le_bytes()));
    let weights = dir.path().join("e.safetensors");
    std::fs::write(&weights, file).unwrap();
    let run = llamac([
        "run",
        path.to_str().unwrap(),
        "--weights",
        weights.to_str().unwrap(),
        "--ids",
        "1",
        "-n",
        "5",
        "--temp",
        "0",
        "--format",
        "json",
    ]);
    run.refuses(&["token", "8"]);
}

#[test]
fn a_text_graph_without_its_weights() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.lir");
    let text = llamac(["ir".as_ref(), model("tiny-llama2").as_os_str()]).ok();
    std::fs::write(&path, text).unwrap();
    llamac(["logits".as_ref(), path.as_os_str(), "--ids".as_ref(), "1".as_ref()]).refuses(&["g.lir", "--weights"]);
}

#[test]
fn verify_makes_up_no_huge_inputs_and_proves_nothing_from_nan() {
    graph(
        "  %0: f32[S, 4294967296] = input \"x\"\n  %1: f32[S, 2] = slice %0 axis=1 start=3 len=2\n  return \"y\" = %1",
    )
    .refuses(&["\"x\""]);
    let m = llama2();
    m.tensor("model.norm.weight", |bytes| bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    let run = llamac(["verify".as_ref(), m.path().as_os_str()]);
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(run.stderr.contains("NaN") && run.stderr.contains("nothing was compared"), "{}", run.stderr);
}

#[test]
fn verify_keeps_to_the_limits_of_a_graph() {
    let graph = "graph @g S<=16 R<=1 T<=8 slots=4 {
  %t: f32[8, 4] = weight \"table\"
  %p: i32[S] = input \"positions\" limit=4
  %s: i32[S] = input \"slots\" limit=4
  %x: f32[S, 4] = gather %t, %p
  %r: f32[S, 2, 2] = reshape %x
  %k: f32[4, 2, 8, 2] = state \"k\"
  %w: f32[4, 2, 8, 2] = state.write %k, %r, %s, %p
  %v: f32[S, 2, T, 2] = index %w, %s
  %y: f32[S, 2, T] = reduce max %v axis=3
  %z: f32[S, 2] = reduce max %y axis=2
  return \"y\" = %z
}
";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.lir");
    std::fs::write(&path, graph).unwrap();
    let out = llamac(["verify".as_ref(), path.as_os_str()]).ok();
    assert!(out.contains("rows") && !out.contains("DIFFERS"), "{out}");
}
