//! The command line, as its users type it.

mod support;

use serde_json::{Value, json};
use support::{Broken, bard, llamac, model, root};

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn golden(name: &str) -> Value {
    read(&std::fs::read_to_string(root().join(format!("tests/golden/{name}.json"))).unwrap())
}

/// ‖a − b‖ / ‖b‖
fn relative(a: &Value, b: &Value) -> f64 {
    let numbers = |v: &Value| v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(&b).map(|(x, y)| x - y)) / norm(&mut b.iter().copied())
}

#[test]
fn run_streams_the_text_that_json_holds() {
    let b = bard();
    let args = ["run", text(&b), "ROMEO:", "-n", "24", "--seed", "7"];
    let out = llamac(args);
    assert!(
        ["load", "compile", "prompt", "generation", "tokens/s"].iter().all(|w| out.stderr.contains(w)),
        "{}",
        out.stderr
    );
    let streamed = out.ok();
    let out = read(&llamac(args.iter().copied().chain(["--format", "json"])).ok());
    assert_eq!(out["ids"].as_array().unwrap().len(), 24);
    assert_eq!(out["text"].as_str().unwrap().trim_end_matches('\n'), streamed.trim_end_matches('\n'));
    assert_eq!(out["prompt_ids"][0], 2043);
    assert!(out["timings"].is_object());
    let keys: Vec<&String> = out.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ids", "prompt_ids", "text", "timings"]);
}

#[test]
fn greedy_ids_are_the_golden_ones() {
    for name in ["tiny-llama2", "tiny-llama31", "tiny-olmo2"] {
        let m = model(name);
        for case in golden(name)["cases"].as_array().unwrap() {
            let ids: Vec<String> = case["ids"].as_array().unwrap().iter().map(|v| v.to_string()).collect();
            let n = case["greedy"].as_array().unwrap().len().to_string();
            let ids = ids.join(",");
            let args = ["run", text(&m), "--ids", &ids, "-n", &n, "--temp", "0", "--ignore-eos", "--format", "json"];
            let out = read(&llamac(args.iter().chain(&["--act", "f32"])).ok());
            assert_eq!(out["ids"], case["greedy"], "{name}");
            assert_eq!(out["text"], Value::Null);
        }
    }
}

#[test]
fn stories_to_the_letter() {
    let m = model("stories260K");
    let want = std::fs::read_to_string(root().join("tests/golden/stories260K.expected.txt")).unwrap();
    let out = llamac(["run", text(&m), "--ids", "1", "-n", "200", "--temp", "0", "--ignore-eos"]).ok();
    assert_eq!(out.trim_end(), want.trim_end());
}

#[test]
fn an_end_token_ends_the_text() {
    let generated = |m: &Broken, options: &[&str]| {
        let args = ["run", text(m.path()), "ROMEO:", "-n", "12", "--temp", "0", "--format", "json"];
        read(&llamac(args.iter().chain(options)).ok())
    };
    let m = Broken::copy("bard");
    let all = generated(&m, &["--ignore-eos"]);
    let ids: Vec<u64> = all["ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
    assert_eq!(ids.len(), 12);
    let first = ids.iter().position(|&id| id == ids[7]).unwrap();
    // One of several end tokens.
    m.edit_json("generation_config.json", |c| c["eos_token_id"] = json!([2044, ids[7]]));
    let ended = generated(&m, &[]);
    assert_eq!(ended["ids"], json!(ids[..first]));
    assert!(all["text"].as_str().unwrap().starts_with(ended["text"].as_str().unwrap()));
    assert_eq!(generated(&m, &["--ignore-eos"])["ids"], all["ids"]);
}

#[test]
fn half_a_character_is_never_shown() {
    let m = Broken::copy("bard");
    let run = |n: &str, options: &[&str]| {
        llamac(["run", text(m.path()), "--ids", "2043,50", "-n", n, "--temp", "0"].iter().chain(options)).ok()
    };
    let ids = read(&run("3", &["--ignore-eos", "--format", "json"]))["ids"].clone();
    let (a, b) = (ids[0].clone(), ids[1].clone());
    assert_ne!(a, b);
    // The two tokens that come first are now the two bytes of an é.
    m.edit_json("tokenizer.json", |t| {
        let vocab = t["model"]["vocab"].as_object_mut().unwrap();
        for (id, byte) in [(&a, "Ã"), (&b, "©")] {
            let name = vocab.iter().find(|(_, v)| *v == id).unwrap().0.clone();
            let old = vocab.insert(byte.to_owned(), id.clone()).unwrap();
            vocab.insert(name, old);
        }
    });
    assert!(run("2", &[]).starts_with('é'));
    assert_eq!(run("1", &[]), "\u{fffd}\n", "no second byte came: the first is no text");
    assert_eq!(read(&run("1", &["--format", "json"]))["text"], "\u{fffd}");
}

#[test]
fn the_seed_decides() {
    let b = bard();
    let run = |seed: &str, threads: &str| {
        llamac(["run", text(&b), "JULIET:", "-n", "30", "--temp", "1", "--seed", seed, "-t", threads]).ok()
    };
    assert_eq!(run("3", "1"), run("3", "2"));
    assert_ne!(run("3", "1"), run("4", "1"));
}

#[test]
fn logits_have_exactly_two_keys() {
    let m = model("tiny-llama2");
    let out = read(&llamac(["logits", text(&m), "--ids", "1,5,7"]).ok());
    let keys: Vec<&String> = out.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["argmax_per_position", "logits_last"]);
    assert_eq!(out["logits_last"].as_array().unwrap().len(), 320);
    assert_eq!(out["argmax_per_position"].as_array().unwrap().len(), 3);
}

#[test]
fn a_printed_graph_is_read_back() {
    let m = model("tiny-olmo2");
    let dir = tempfile::tempdir().unwrap();
    let want = read(&llamac(["logits", text(&m), "--ids", "1,5,7"]).ok());
    let mut first = None;
    let stages: [&[&str]; 5] = [
        &[],
        &["--print-before", "merge-linear"],
        &["--print-after", "fuse-attention"],
        &["--stop-after", "fuse-rows"],
        &["--stage", "graph"],
    ];
    for (i, stage) in stages.iter().enumerate() {
        let printed = llamac(["ir", text(&m)].iter().chain(stage.iter())).ok();
        let path = dir.path().join(format!("{i}.lir"));
        std::fs::write(&path, &printed).unwrap();
        assert_eq!(llamac(["ir", text(&path)]).ok(), printed, "{stage:?}");
        let got = llamac(["logits", text(&path), "--weights", text(&m), "--ids", "1,5,7"]).ok();
        // The printed graph scores a row in a step, the model many: rounding may differ, and nothing else.
        assert_eq!(read(&got)["argmax_per_position"], want["argmax_per_position"], "{stage:?}");
        let difference = relative(&read(&got)["logits_last"], &want["logits_last"]);
        assert!(difference <= 1e-5, "{stage:?}: {difference}");
        assert_eq!(&got, first.get_or_insert(got.clone()), "{stage:?}");
    }
}

#[test]
fn ir_shows_every_stage() {
    let m = model("tiny-llama2");
    for (stage, needle) in
        [("graph", "fusion attention"), ("plan", "barrier"), ("loops", "for "), ("clif", "function"), ("asm", "ret")]
    {
        let out = llamac(["ir", text(&m), "--stage", stage]).ok();
        assert!(out.contains(needle), "{stage}: {out}");
    }
    let all = llamac(["ir", text(&m), "--print-after-all"]).ok();
    for pass in ["canonicalize", "merge-linear", "precision", "fuse-attention", "fuse-epilogue", "fuse-rows", "layout"]
    {
        assert!(all.contains(pass), "{pass}");
    }
    assert!(llamac(["ir", text(&m), "--dot"]).ok().starts_with("digraph"));
}

#[test]
fn explain_shows_ledger_recipes_and_memory() {
    let m = model("tiny-llama2");
    let out = llamac(["explain", text(&m)]).ok();
    for needle in ["fused", "refused", "interleave_panels", "lower bound", "barriers", "copies", "saved"] {
        assert!(out.contains(needle), "{needle} is not in:\n{out}");
    }
    let out = read(&llamac(["explain", text(&m), "--format", "json"]).ok());
    assert!(out["ledger"].as_array().is_some_and(|l| !l.is_empty()), "{out}");
}

#[test]
fn verify_a_llama_and_a_graph_that_is_none() {
    let out = llamac(["verify", text(&model("tiny-llama31"))]).ok();
    assert!(out.contains("logits"), "{out}");
    let out = llamac(["verify", text(&root().join("examples/mlp.lir"))]).ok();
    assert!(out.contains("classes"), "{out}");
}

#[test]
fn bench_has_llama_benchs_names() {
    let b = bard();
    let out = read(&llamac(["bench", text(&b), "-p", "16", "-n", "4", "-r", "2", "-t", "1", "--format", "json"]).ok());
    let records = out.as_array().unwrap();
    assert_eq!(records.len(), 2);
    for r in records {
        for key in ["model_filename", "n_threads", "n_prompt", "n_gen", "n_depth", "avg_ts", "stddev_ts", "samples_ts"]
        {
            assert!(!r[key].is_null(), "{key} is missing in {r}");
        }
        assert_eq!(r["samples_ts"].as_array().unwrap().len(), 2);
    }
    let out = llamac(["bench", text(&b), "-p", "8", "-n", "2", "-r", "1", "--fusion", "none,all"]).ok();
    for needle in ["none", "all", "kernels", "barriers", "arena"] {
        assert!(out.contains(needle), "{needle} is not in:\n{out}");
    }
}

#[test]
fn the_profile_sums_to_the_whole() {
    let b = bard();
    let out = llamac(["run", text(&b), "ROMEO:", "-n", "8", "--profile"]);
    let shares: f64 = out
        .stderr
        .lines()
        .filter(|l| l.starts_with('|') && !l.contains("total"))
        .filter_map(|l| {
            l.trim_end_matches('|').rsplit('|').next()?.trim().trim_end_matches('%').trim().parse::<f64>().ok()
        })
        .sum();
    assert!((shares - 100.0).abs() < 1.0, "{shares}: {}", out.stderr);
}

#[test]
fn synthetic_models_run() {
    let dir = tempfile::tempdir().unwrap();
    let a = dir.path().join("a");
    let b = dir.path().join("b");
    let config = model("tiny-llama31").join("config.json");
    for path in [&a, &b] {
        llamac(["synth", text(&config), "-o", text(path), "--seed", "5"]).ok();
    }
    let bytes = |p: &std::path::Path| std::fs::read(p.join("model.safetensors")).unwrap();
    assert!(bytes(&a) == bytes(&b), "the same seed gives the same bytes");
    llamac(["run", text(&a), "--ids", "1,2,3", "-n", "3"]).ok();
}

#[test]
fn help_completions_and_manual_pages() {
    let help = llamac(["run", "--help"]).ok();
    assert!(help.contains("Examples:") && help.contains("--top-k"), "{help}");
    assert!(llamac(["completions", "bash"]).ok().contains("llamac"));
    let dir = tempfile::tempdir().unwrap();
    llamac(["man", "-o", text(dir.path())]).ok();
    assert!(dir.path().join("llamac-run.1").is_file());
}
