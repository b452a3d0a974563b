//! Bad input gets one clear error that names the file, the tensor or key, what was found and what was expected.

mod support;

use serde_json::json;
use support::{Broken, bard, bounded, finished, llamac, model, root};

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
    m.edit_json("tokenizer.json", |t| t["added_tokens"][0]["content"] = json!("<|far|>"));
    run(&m).refuses(&["tokenizer.json", "2048"]);
    let m = llama2();
    run(&m).refuses(&["tokenizer.json", "--ids"]);
}

#[test]
fn ids() {
    let run = |ids: &str| llamac(["logits", bard().to_str().unwrap(), "--ids", ids]);
    run("5,2048").refuses(&["2048"]);
    run("5,99999999999").refuses(&["99999999999"]);
    run("1,x").refuses(&["--ids"]);
    run("").refuses(&["--ids"]);
    let many: Vec<String> = (0..40).map(|i| i.to_string()).collect();
    llamac(["run", bard().to_str().unwrap(), "--ids", &many.join(","), "-c", "32"]).refuses(&["40", "32"]);
}

#[test]
fn prompts_and_options() {
    let bard = bard();
    let bard = bard.to_str().unwrap();
    llamac(["run", bard, "-p", ""]).refuses(&["prompt", "empty"]);
    llamac(["run", bard, "x", "-n", "0"]).refuses(&["-n"]);
    llamac(["run", bard, "x", "--temp", "nan"]).refuses(&["temp"]);
    llamac(["run", bard, "x", "--temp", "-1"]).refuses(&["temp", "-1"]);
    llamac(["run", bard, "x", "--top-p", "0"]).refuses(&["top", "0"]);
    llamac(["run", bard, "x", "-t", "0"]).refuses(&["-t"]);
    llamac(["run", bard, "x", "-c", "0"]).refuses(&["-c"]);
    llamac(["run", bard, "x", "--disable", "no-such-pass"]).refuses(&["no-such-pass", "fuse-rows"]);
    llamac(["ir", bard, "--print-after", "no-such-pass"]).refuses(&["no-such-pass", "fuse-rows"]);
    llamac(["run", bard, "x", "--fusion", "most"]).refuses(&["most"]);
    llamac(["run", bard, "x", "--tier", "sse9"]).refuses(&["sse9", "portable"]);
    llamac(["synth", "no-such-preset", "-o", "/tmp/never"]).refuses(&["no-such-preset", "stories-15m"]);
}

#[test]
#[cfg(unix)]
fn invalid_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let prompt = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    llamac(["run".as_ref(), bard().as_os_str(), prompt]).refuses(&["UTF-8"]);
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
    .refuses(&["g.lir", "state"]);
    graph(&format!(
        "{state}\n  %v: f32[S, 2, T, 4] = index %k, %s\n  %m: f32[S, 2, T] = reduce sum %v axis=3\n  return \"y\" = %m"
    ))
    .refuses(&["g.lir", "state"]);
    llamac(["ir", root().join("LICENSE").to_str().unwrap()]).refuses(&["LICENSE"]);
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
fn stdout_closed_or_full() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    if let Ok(full) = full {
        let out = bounded().arg("ir").arg(bard()).stdout(full).output().unwrap();
        finished(&out).refuses(&["stdout"]);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = bounded().arg("run").arg(bard()).args(["ROMEO:", "-n", "20"]).stdout(writer).output().unwrap();
    let run = finished(&out);
    assert!(run.stderr.contains("stdout was closed"), "{}", run.stderr);
    assert!(!run.stderr.contains("panicked") && run.code.is_some_and(|c| c != 0 && c != 101), "{:?}", run.code);
}
