//! Every command takes an artifact where it takes a model.

#[path = "support/changed.rs"]
mod changed;
mod support;

use llamac_formats::artifact::{CodeTable, Header, SectionKind, join_code, split_code};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{bard, finished, llamac, model};
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

#[test]
fn the_cache_and_the_activations_are_those_that_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (narrow, plain) = (dir.path().join("narrow.llamac"), dir.path().join("plain.llamac"));
    let b = bard();
    let compile = |file: &Path, options: &[&str]| {
        llamac(["compile", text(&b), "-o", text(file), "-c", "64"].iter().chain(options))
    };
    let of = |what: &str| format!("dots keep f32, not q8: {what}");
    let no_blocks = of("not all of their weights are in block formats");
    let warned = |run: &support::Run| run.stderr.lines().filter(|l| l.starts_with("warning: --act q8: ")).count();
    // bf16 weights take no q8: it is told at once, and the artifact remembers what was asked for.
    let made = compile(&narrow, &["--kv", "q8_0", "--act", "q8"]);
    assert!(warned(&made) == 1 && made.stderr.contains(&no_blocks), "{}", made.stderr);
    assert!(made.stderr.contains("act f32, kv q8_0"), "{}", made.stderr);
    compile(&plain, &[]).ok();
    let text_file = dir.path().join("text");
    fs::write(&text_file, "ROMEO: But, soft! what light through yonder window breaks?").unwrap();
    let commands: [&[&str]; 8] = [
        &["run", "--ids", "1", "-n", "1"],
        &["bench", "-p", "4", "-n", "0", "-r", "1"],
        &["profile", "-p", "4", "-n", "0", "-r", "1"],
        &["perplexity", "-f", text(&text_file), "--window", "8"],
        &["logits", "--ids", "1"],
        &["explain"],
        &["verify"],
        &["ir"],
    ];
    for command in commands {
        let on = |file: &Path, options: &[&str]| {
            let args = [command[0], text(file)];
            llamac(args.iter().chain(&command[1..]).chain(options))
        };
        on(&narrow, &["--kv", "f32"]).refuses(&["--kv: found f32", "compiled with q8_0", "--kv f32 -o"]);
        on(&plain, &["--kv", "bf16"]).refuses(&["--kv: found bf16", "compiled with f32"]);
        on(&plain, &["--act", "q8"]).refuses(&["--act: found q8", "compiled with auto (bf16)"]);
        on(&narrow, &["--act", "bf16"]).refuses(&["--act: found bf16", "compiled with q8 (f32)"]);
    }
    // What was asked for may be asked for again; that it could not be is told again, where it is asked for.
    let run = |file: &Path, options: &[&str]| {
        llamac(["run", text(file), "--ids", "1", "-n", "1", "-t", "1"].iter().chain(options))
    };
    let again = run(&narrow, &["--kv", "q8_0", "--act", "q8"]);
    assert!(warned(&again) == 1 && again.stderr.contains(&no_blocks), "{}", again.stderr);
    assert!(again.stderr.contains("kv q8_0"), "{}", again.stderr);
    again.ok();
    assert_eq!(warned(&run(&narrow, &["--act", "f32"])), 0);
    for options in [&["--act", "auto", "--kv", "f32"][..], &["--act", "bf16"]] {
        run(&plain, options).ok();
    }
    // A model compiled in memory says the same.
    for command in [&["run", "--ids", "1", "-n", "1", "-c", "64"][..], &["explain"], &["verify", "-c", "64"]] {
        let run = llamac([command[0], text(&b), "--act", "q8"].iter().chain(&command[1..]));
        assert!(warned(&run) == 1 && run.stderr.contains(&no_blocks), "{}", run.stderr);
        run.ok();
    }
    // Heads of 8 elements are no blocks of 32.
    let tiny = llamac(["logits", text(&model("stories260K")), "--ids", "1", "--kv", "q8_0"]);
    let needles = ["warning: --kv q8_0: ", "caches keep f32, not q8_0: heads of 8 elements"];
    assert!(needles.iter().all(|n| tiny.stderr.contains(n)), "{}", tiny.stderr);
}

#[test]
fn inspect_reads_artifacts_of_other_machines_and_versions() {
    let (dir, file) = artifact("stories260K", &["--disable", "schedule"]);
    let bytes = fs::read(&file).unwrap();
    let other = dir.path().join("other.llamac");
    // Both places that say what the code needs.
    let edited = |edit: &dyn Fn(&mut Header)| {
        let (table, code) = split_code(changed::contents(&bytes, SectionKind::Code)).unwrap();
        let mut table: CodeTable = serde_json::from_slice(table).unwrap();
        let mut header = changed::header(&bytes);
        edit(&mut header);
        (table.architecture, table.features) = (header.architecture.clone(), header.features.clone());
        let code = join_code(&serde_json::to_vec(&table).unwrap(), code);
        let mut out = changed::replaced(&bytes, SectionKind::Code, &code);
        let mut header = changed::header(&out);
        edit(&mut header);
        out[..4096].fill(0);
        changed::put_header(&mut out, &header);
        fs::write(&other, out).unwrap();
    };
    let json = |path: &Path| read(&llamac(["inspect", text(path), "--format", "json"]).ok());
    let here = json(&file);
    assert_eq!((&here["runs_here"], &here["kind"]), (&true.into(), &"an artifact".into()));
    assert!(here["why_not"].is_null());
    assert!(llamac(["inspect", text(&file)]).ok().contains("without schedule"));

    edited(&|h| h.architecture = "riscv64".into());
    let out = llamac(["inspect", text(&other), "--verify"]).ok();
    assert!(out.contains("cannot run here") && out.contains("riscv64") && out.contains("## Weights"), "{out}");
    llamac(["run", text(&other), "--ids", "1"]).refuses(&["riscv64"]);

    edited(&|h| h.features = vec!["avx".into(), "telepathy".into()]);
    let foreign = json(&other);
    assert_eq!((&foreign["runs_here"], &foreign["weights"]), (&false.into(), &here["weights"]));
    let why = foreign["why_not"].as_str().unwrap();
    assert!(why.contains("lacks telepathy") && why.contains("--target x86-64-v"), "{why}");

    let mut version = bytes.clone();
    version[8..12].copy_from_slice(&77u32.to_le_bytes());
    fs::write(&other, version).unwrap();
    let out = llamac(["inspect", text(&other)]).ok();
    assert!(out.contains("format 77") && out.contains("compile the model again"), "{out}");
    assert_eq!(json(&other)["format"], 77);
    llamac(["run", text(&other), "--ids", "1"]).refuses(&["format 77"]);

    // Damage is no other machine.
    let mut damaged = bytes.clone();
    let graph = Header::decode(&bytes, bytes.len() as u64).unwrap().sections[1].offset as usize;
    damaged[graph] ^= 1;
    fs::write(&other, damaged).unwrap();
    llamac(["inspect", text(&other)]).refuses(&["section graph is damaged"]);
    fs::write(&other, &bytes[..bytes.len() - 5]).unwrap();
    llamac(["inspect", text(&other)]).refuses(&["bytes where", "copy the file again"]);
}

/// What an executable does in an empty directory, with nothing in its environment.
fn alone(exe: &Path, args: &[&str]) -> support::Run {
    let empty = tempfile::tempdir().unwrap();
    finished(&Command::new(exe).args(args).env_clear().current_dir(empty.path()).output().unwrap())
}

#[test]
fn executables_need_nothing_and_llamac_itself_stands_in_for_the_runner() {
    let dir = tempfile::tempdir().unwrap();
    // llamac alone, with nothing beside it.
    let lonely = dir.path().join("llamac");
    fs::copy(env!("CARGO_BIN_EXE_llamac"), &lonely).unwrap();
    let exe = dir.path().join("bard");
    let b = bard();
    let out = Command::new(&lonely).args(["compile", text(&b), "-o", text(&exe), "--emit", "exe"]).output().unwrap();
    let out = finished(&out);
    assert!(out.stderr.contains("there is no runner; llamac itself is put in front"), "{}", out.stderr);
    out.ok();
    fs::remove_file(&lonely).unwrap();
    let want = llamac(["run", text(&b), "ROMEO:", "-n", "12", "--temp", "0"]).ok();
    assert_eq!(alone(&exe, &["ROMEO:", "-n", "12", "--temp", "0"]).ok(), want);
    assert_eq!(alone(&exe, &["-p", "ROMEO:", "-n", "12", "--temp", "0", "-t", "1"]).ok(), want);
    let out = read(&alone(&exe, &["--ids", "1,2", "-n", "3", "--format", "json", "--seed", "4", "--top-k", "5"]).ok());
    assert_eq!(out["ids"].as_array().unwrap().len(), 3);
    assert_eq!(read(&alone(&exe, &["--info"]).ok())["manifest"]["name"], "bard");
    alone(&exe, &["x", "-n", "0"]).refuses(&["-n", "0"]);
    assert!(llamac(["inspect", text(&exe)]).ok().contains("an executable that carries an artifact"));
    llamac(["verify", text(&exe)]).ok();
}

#[test]
fn chat_templates_travel_with_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.llamac");
    let template = "{% for m in messages %}{{ m.content }}\n{% endfor %}";
    let compile = |m: &support::Broken| {
        llamac(["compile", text(m.path()), "-o", text(&file), "-c", "64"]).ok();
        llamac_runtime::Program::open(&file).unwrap()
    };
    let m = support::Broken::copy("stories260K");
    assert_eq!(compile(&m).chat_template(), None);
    m.write("tokenizer_config.json", serde_json::json!({ "chat_template": template }).to_string().as_bytes());
    assert_eq!(compile(&m).chat_template(), Some(template));
    assert!(llamac(["inspect", text(&file)]).ok().contains(template));
    assert!(llamac(["inspect", text(m.path())]).ok().contains(template));
    let several = serde_json::json!([{ "name": "tools", "template": "no" }, { "name": "default", "template": "yes" }]);
    m.write("tokenizer_config.json", serde_json::json!({ "chat_template": several }).to_string().as_bytes());
    assert_eq!(compile(&m).chat_template(), Some("yes"));
    // A file of its own is what transformers takes first.
    m.write("chat_template.jinja", b"its own");
    assert_eq!(compile(&m).chat_template(), Some("its own"));
    m.write("chat_template.jinja", b"\xff\xfe");
    llamac(["compile", text(m.path()), "-o", text(&file)]).refuses(&["chat_template.jinja", "Jinja"]);
    m.remove("chat_template.jinja").write("tokenizer_config.json", br#"{"chat_template": 7}"#);
    llamac(["compile", text(m.path()), "-o", text(&file)]).refuses(&["tokenizer_config.json", "chat_template", "7"]);
}
