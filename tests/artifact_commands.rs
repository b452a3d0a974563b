//! Every command takes an artifact where it takes a model.

mod support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use support::{bard, llamac, model};
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// An artifact of a small model with these options.
fn artifact(name: &str, options: &[&str]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("small.llamac");
    let model = model(name);
    let args = ["compile", text(&model), "-o", text(&file), "-c", "64"];
    llamac(args.iter().chain(options)).ok();
    (dir, file)
}

#[test]
fn verify_runs_the_artifacts_graph_on_its_weights() {
    // Between them: tied and separate heads, bf16 and f32, interleaved panels and none.
    for (name, options) in [
        ("stories260K", &[][..]),
        ("tiny-llama31", &["--slots", "2"]),
        ("tiny-olmo2", &[]),
        ("tiny-llama2", &["--fusion", "none"]),
    ] {
        let (_dir, file) = artifact(name, options);
        let run = llamac(["verify", text(&file), "--format", "json"]);
        assert!(run.stderr.contains("the graph in it"), "{}", run.stderr);
        let records = read(&run.ok());
        let records = records.as_array().unwrap();
        assert_eq!(records.len(), 2, "{name}");
        for r in records {
            assert_eq!((&r["found"], &r["expected"]), (&"artifact".into(), &"interpreter".into()));
            assert_eq!(r["verdict"], "agrees", "{name}: {r}");
        }
        let run = llamac(["verify", text(&file), "--weights", text(&model(name)), "--ids", "1,5,9"]);
        assert!(run.stderr.contains("its tensors as they are there"), "{}", run.stderr);
        assert_eq!(run.ok().matches("agrees").count(), 2, "{name}");
    }
}

#[test]
fn verify_tells_another_models_artifact_and_damaged_weights() {
    let (dir, file) = artifact("stories260K", &[]);
    llamac(["verify", text(&file), "--weights", "examples/mlp.lir"]).refuses(&["do not belong together"]);
    // A copy of the model with one tensor changed is another model.
    let other = support::Broken::copy("stories260K");
    other.tensor("model.layers.0.mlp.down_proj.weight", |bytes| {
        bytes.chunks_exact_mut(4).for_each(|b| b.swap(0, 1));
    });
    let run = llamac(["verify", text(&file), "--weights", text(other.path())]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("DIFFERS"), "{}", run.stdout);
    // A graph that the code in the file was not made of.
    let bytes = fs::read(&file).unwrap();
    let changed = support::with_graph(&bytes, |graph| {
        assert!(graph.contains(" exp "));
        graph.replacen(" exp ", " neg ", 1)
    });
    let edited = dir.path().join("edited.llamac");
    fs::write(&edited, changed).unwrap();
    let run = llamac(["verify", text(&edited)]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("DIFFERS"), "{}", run.stdout);
}

#[test]
fn explain_tells_what_the_compilation_decided() {
    let (_dir, file) = artifact("tiny-llama31", &[]);
    let path = model("tiny-llama31");
    let of_model = read(&llamac(["explain", text(&path), "-c", "64", "--format", "json"]).ok());
    let of_file = read(&llamac(["explain", text(&file), "--format", "json"]).ok());
    for key in ["name", "fusion", "ledger", "weights", "kernels", "entries"] {
        assert_eq!(of_model[key], of_file[key], "{key}");
    }
    assert!(of_file["saved"].is_null() && !of_model["saved"].is_null());
    assert!(!of_file["ledger"].as_array().unwrap().is_empty());
    let out = llamac(["explain", text(&file)]).ok();
    for needle in ["## Passes", "## Ledger", "## Kernels", "## Memory of entry decode", "holds one build"] {
        assert!(out.contains(needle), "{needle} is not in {out}");
    }
    let out = llamac(["explain", text(&file), "--format", "csv"]).ok();
    assert_eq!(out, llamac(["explain", text(&path), "-c", "64", "--format", "csv"]).ok());
    llamac(["explain", text(&file), "--fusion", "none"]).refuses(&["compiled with all", "--fusion none -o"]);
}

#[test]
fn bench_measures_artifacts_beside_each_other_and_beside_models() {
    let (_dir, file) = artifact("stories260K", &[]);
    let (_other, unfused) = artifact("stories260K", &["--fusion", "none"]);
    let m = model("stories260K");
    let options = ["-p", "8", "-n", "2", "-r", "1", "-t", "1"];
    let bench = |models: &[&str], more: &[&str]| llamac(["bench"].iter().chain(models).chain(&options).chain(more));
    let json = read(&bench(&[text(&unfused), text(&file), text(&m)], &["--format", "json"]).ok());
    let records = json.as_array().unwrap();
    assert_eq!(records.len(), 6);
    for (i, fusion) in ["none", "all", "all"].iter().enumerate() {
        let r = records.iter().filter(|r| r["fusion"] == *fusion && r["n_prompt"] == 8).collect::<Vec<_>>();
        assert_eq!(r.len(), if *fusion == "none" { 1 } else { 2 }, "{i}");
        assert!(r.iter().all(|r| r["bytes_outside_gemms"].as_u64() > Some(0)), "{r:?}");
    }
    let out = bench(&[text(&unfused), text(&file)], &[]).ok();
    assert!(out.contains("times the first") && out.contains("small.llamac"), "{out}");
    bench(&[text(&file)], &["--fusion", "none,all"]).refuses(&["--fusion", "compiled with all", "compile MODEL"]);
    bench(&[text(&file)], &["-c", "32"]).refuses(&["-c", "compiled with 64"]);
    llamac(["bench", text(&file), "-p", "65", "-n", "0"]).refuses(&["65", "64", "shorter"]);
    bench(&[text(&file)], &["--weights", text(&bard())]).refuses(&["leave --weights out"]);
}

#[test]
fn what_was_asked_for_by_name_is_not_ignored() {
    let (_dir, file) = artifact("stories260K", &["--fusion", "none"]);
    llamac(["run", text(&file), "--ids", "1", "-n", "1", "--fusion", "all"]).refuses(&["--fusion", "all", "none"]);
    llamac(["run", text(&file), "--ids", "1", "-n", "1", "--disable", "schedule"])
        .refuses(&["--disable", "all passes"]);
    llamac(["run", text(&file), "--ids", "1", "-n", "1", "--fusion", "none"]).ok();
}
