//! Several sequences together, at the command line: `run --batch`, `run --prompts` and `bench -b`.

mod support;

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Broken, bard, bounded, finished, llamac, model};

const PROMPTS: [&str; 6] =
    ["ROMEO:", "JULIET:\nO", "What light through yonder window", "K", "First Citizen:", "ROMEO:"];

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The objects of JSON lines.
fn records(text: &str) -> Vec<Value> {
    text.lines().map(read).collect()
}

/// A file of prompts, one a line.
fn prompts(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("prompts.txt");
    std::fs::write(&path, PROMPTS.map(|p| p.replace('\n', " ")).join("\n")).unwrap();
    path
}

#[test]
fn a_file_of_prompts_gives_what_each_gives_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = prompts(&dir);
    let quantised = model("bard.gguf/bard-q4_k_m.gguf");
    for (model, kv) in [(bard(), "f32"), (bard(), "q8_0"), (quantised, "f32")] {
        let common = ["-m", text(&model), "-n", "20", "--temp", "0", "--act", "f32", "--kv", kv, "--ignore-eos"];
        let run = |options: &[&str]| llamac(["run"].iter().chain(&common).chain(options)).ok();
        let alone: Vec<Value> =
            PROMPTS.iter().map(|p| read(&run(&["-p", &p.replace('\n', " "), "--format", "json"]))).collect();
        for (batch, threads) in [("1", "2"), ("3", "1"), ("3", "2"), ("6", "2"), ("9", "2")] {
            let options = ["--prompts", text(&file), "--batch", batch, "-t", threads, "--format", "jsonl"];
            let found = records(&run(&options));
            assert_eq!(found.len(), PROMPTS.len());
            for (i, (found, alone)) in found.iter().zip(&alone).enumerate() {
                for key in ["prompt_ids", "ids", "text"] {
                    assert_eq!(found[key], alone[key], "{key} of {i}, {batch} at once, cache {kv}");
                }
                assert_eq!((&found["sequence"], &found["line"]), (&json!(i), &json!(i + 1)));
                assert_eq!(found["finish_reason"], "length");
            }
        }
    }
}

#[test]
fn one_prompt_with_several_seeds() {
    let b = bard();
    let run = |options: &[&str]| llamac(["run", text(&b), "ROMEO:", "-n", "16"].iter().chain(options));
    let seeds = ["7", "8", "9", "10"];
    let alone = seeds.map(|seed| read(&run(&["--seed", seed, "--format", "json"]).ok()));
    let found = records(&run(&["--seed", "7", "--batch", "4", "--format", "jsonl"]).ok());
    assert_eq!(found.len(), 4);
    for (i, (found, alone)) in found.iter().zip(&alone).enumerate() {
        assert_eq!((&found["ids"], &found["text"]), (&alone["ids"], &alone["text"]), "seed {}", seeds[i]);
        assert_eq!((&found["seed"], &found["prompt"]), (&json!(i + 7), &json!("ROMEO:")));
        assert_eq!(found.get("line"), None);
    }
    assert_ne!(found[0]["ids"], found[1]["ids"]);
    // The largest seed has a successor.
    let last = u64::MAX.to_string();
    let found = records(&run(&["--seed", &last, "--batch", "2", "--format", "jsonl"]).ok());
    assert_eq!(found[1]["seed"], 0);
    let same = run(&["--temp", "0", "--batch", "2"]);
    assert!(same.stderr.contains("warning: --temp 0"), "{}", same.stderr);
}

/// Whole contexts of 3000 sequences would be 12 GB, which the command may not have here.
#[test]
fn without_a_context_each_sequence_has_room_for_its_text_alone() {
    let b = bard();
    let run = |options: &[&str]| {
        llamac(["run", text(&b), "--ids", "1", "--ignore-eos", "--format", "jsonl"].iter().chain(options))
    };
    run(&["--batch", "3000", "-n", "1", "-c", "2048"]).refuses(&["bytes", "states", "slots"]);
    let found = records(&run(&["--batch", "3000", "-n", "2"]).ok());
    assert_eq!(found.len(), 3000);
    assert!(found.iter().all(|r| r["finish_reason"] == "length"));
    // The longest prompt and all tokens fit, whatever the others have, and the context is no larger than it was.
    let dir = tempfile::tempdir().unwrap();
    let file = prompts(&dir);
    let run = |options: &[&str]| {
        let args = ["run", text(&b), "--prompts", text(&file), "--ignore-eos", "--format", "jsonl", "--temp", "0"];
        llamac(args.iter().chain(options))
    };
    let short = run(&["--batch", "6", "-n", "40"]);
    assert!(!short.stderr.contains("warning"), "{}", short.stderr);
    assert_eq!(short.ok(), run(&["--batch", "6", "-n", "40", "-c", "2048"]).ok());
    let chars = "O ".repeat(2040);
    std::fs::write(&file, format!("K\n{chars}")).unwrap();
    let full = run(&["--batch", "2", "-n", "40"]);
    assert!(full.stderr.contains("context of 2048 tokens is full"), "{}", full.stderr);
    full.ok();
}

#[test]
fn every_format_holds_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (b, file) = (bard(), prompts(&dir));
    let args = ["run", text(&b), "--prompts", text(&file), "--batch", "4", "-n", "12", "--seed", "3"];
    let run = |format: &str| llamac(args.iter().chain(&["--format", format]));
    let lines = records(&run("jsonl").ok());
    let mut blocks = String::new();
    for (i, r) in lines.iter().enumerate() {
        let text = r["text"].as_str().unwrap();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let between = if i == 0 { "" } else { "\n" };
        blocks += &format!("{between}==> sequence {i} (line {}, seed {}) <==\n{text}{end}", i + 1, i + 3);
    }
    let out = run("text");
    assert!(
        ["6 sequences", "4 at once", "in all", "each", "a step"].iter().all(|w| out.stderr.contains(w)),
        "{}",
        out.stderr
    );
    assert_eq!(out.ok(), blocks);
    let whole = read(&run("json").ok());
    assert_eq!(whole["sequences"], json!(lines));
    assert_eq!(whole["timings"]["generation_tokens"], 6 * 12);
    // One sequence is an object on a line, too; ids go in and out where there is no tokenizer.
    let tiny = model("tiny-llama2");
    let run = |format: &str| llamac(["run", text(&tiny), "--ids", "1,5", "-n", "3", "--temp", "0", "--format", format]);
    let [one] = &records(&run("jsonl").ok())[..] else { panic!("one line") };
    assert_eq!((&one["ids"], &one["text"]), (&read(&run("json").ok())["ids"], &Value::Null));
    let run = llamac(["run", text(&tiny), "--ids", "1,5", "-n", "3", "--temp", "0", "--batch", "2"]).ok();
    let ids: Vec<String> = one["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
    let ids = ids.join(",");
    assert_eq!(run, format!("==> sequence 0 (seed 0) <==\n{ids}\n\n==> sequence 1 (seed 1) <==\n{ids}\n"));
}

#[test]
fn an_artifact_and_an_executable_do_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (b, file) = (bard(), prompts(&dir));
    let (artifact, exe) = (dir.path().join("b.llamac"), dir.path().join("b"));
    for (path, emit) in [(&artifact, "artifact"), (&exe, "exe")] {
        llamac(["compile", text(&b), "-o", text(path), "--emit", emit, "--slots", "3", "-c", "64"]).ok();
    }
    let options = ["--prompts", text(&file), "--batch", "3", "-n", "8", "--seed", "5"];
    let want = llamac(["run", text(&b)].iter().chain(&options)).ok();
    assert_eq!(llamac(["run", text(&artifact)].iter().chain(&options)).ok(), want);
    let of_exe = |options: &[&str]| finished(&Command::new(&exe).args(options).output().unwrap());
    assert_eq!(of_exe(&options).ok(), want);
    // A file of six prompts needs no more places than six.
    let wide = dir.path().join("wide.llamac");
    llamac(["compile", text(&b), "-o", text(&wide), "--slots", "6", "-c", "64"]).ok();
    let options = ["--prompts", text(&file), "--batch", "100", "-n", "8", "--seed", "5"];
    let out = llamac(["run", text(&wide)].iter().chain(&options));
    assert!(out.stderr.contains("6 sequences, 6 at once"), "{}", out.stderr);
    assert_eq!(out.ok(), llamac(["run", text(&b)].iter().chain(&options)).ok());
    let slots = ["--slots", "6", "--chunk", "6"];
    llamac(["run", text(&b)].iter().chain(&options).chain(&slots)).ok();
    let needles = ["--batch", "found 4", "at most 3", "--slots 4"];
    llamac(["run", text(&artifact), "x", "--batch", "4"]).refuses(&needles);
    of_exe(&["x", "--batch", "4"]).refuses(&needles);
}

#[test]
fn a_sequence_that_ends_leaves_its_place() {
    let m = Broken::copy("bard");
    let dir = tempfile::tempdir().unwrap();
    let file = prompts(&dir);
    let run = |batch: &str| {
        let options = ["--prompts", text(&file), "--batch", batch, "-n", "24", "--temp", "0", "--format", "jsonl"];
        records(&llamac(["run", text(m.path())].iter().chain(&options)).ok())
    };
    // An end token that the first text has soon: some texts end with it, others go on.
    let end = run("1")[0]["ids"][5].clone();
    m.edit_json("generation_config.json", |c| c["eos_token_id"] = end.clone());
    let alone = run("1");
    let reasons: Vec<&str> = alone.iter().map(|r| r["finish_reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"stop") && reasons.contains(&"length"), "{reasons:?}");
    for record in &alone {
        let ids = record["ids"].as_array().unwrap();
        assert!(!ids.contains(&end));
        assert_eq!(ids.len() == 24, record["finish_reason"] == "length");
    }
    assert_eq!(run("2"), alone);
    assert_eq!(run("4"), alone);
}

#[test]
fn contexts_that_fill_up() {
    let dir = tempfile::tempdir().unwrap();
    let (b, file) = (bard(), prompts(&dir));
    let common = ["run", text(&b), "--prompts", text(&file), "-c", "16", "--ignore-eos", "--format", "jsonl"];
    let out = llamac(common.iter().chain(&["-n", "-1", "--batch", "2"]));
    assert!(out.stderr.contains("warning: 6 sequences ended where the context of 16 tokens is full"), "{}", out.stderr);
    for record in records(&out.ok()) {
        assert_eq!(record["finish_reason"], "context");
        let tokens = |key: &str| record[key].as_array().unwrap().len();
        assert_eq!(tokens("prompt_ids") + tokens("ids"), 17, "the last token needs no place");
    }
    let out = llamac(common.iter().chain(&["-n", "4", "--batch", "2"]));
    assert!(!out.stderr.contains("warning:"), "{}", out.stderr);
}

#[test]
fn prompts_from_a_pipe() {
    let mut command = bounded();
    command.args(["run", text(&bard()), "--prompts", "-", "-n", "2", "--format", "jsonl"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all("\u{feff}ROMEO:\r\n\n  \nJULIET:".as_bytes()).unwrap();
    let found = records(&finished(&child.wait_with_output().unwrap()).ok());
    let of = |key: &str| found.iter().map(|r| r[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("prompt"), ["ROMEO:", "JULIET:"]);
    assert_eq!(of("line"), [1, 4]);
    assert_eq!(of("sequence"), [0, 1]);
}

#[test]
#[cfg(unix)]
fn an_interrupt_shows_what_there_is() {
    let mut command = bounded();
    let options = ["ROMEO:", "--batch", "3", "-n", "-1", "--ignore-eos", "-t", "1"];
    command.arg("run").arg(bard()).args(options);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut shown = vec![0];
    stdout.read_exact(&mut shown).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    stdout.read_to_end(&mut shown).unwrap();
    let out = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{stderr}");
    let shown = String::from_utf8(shown).unwrap();
    for i in 0..3 {
        assert!(shown.contains(&format!("==> sequence {i} (seed {i}) <==\n")), "{shown}");
    }
    assert!(shown.ends_with('\n') && stderr.contains("3 sequences") && !stderr.contains("error:"), "{stderr}");
}

#[test]
fn wrong_batches_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let b = bard();
    let run = |options: &[&str]| llamac(["run", text(&b)].iter().chain(options));
    for (option, found) in [("--batch", "0"), ("--batch", "-3"), ("-b", "0"), ("-b", "-1"), ("-b", "8,-1")] {
        let command = if option == "-b" { "bench" } else { "run" };
        let run = llamac([command, text(&b), option, found]);
        let found = found.trim_start_matches("8,");
        assert_eq!(run.code, Some(2), "{option} {found}: {}", run.stderr);
        run.refuses(&["--batch", &format!("found {found}, expected 1 to 65536 sequences")]);
    }
    run(&["x", "--batch", "many"]).refuses(&["--batch", "many"]);
    run(&["x", "--batch", "65537"]).refuses(&["--batch", "65537", "65536"]);
    run(&["x", "--batch", "99999999999999999999"]).refuses(&["--batch", "99999999999999999999"]);
    // More than memory has.
    run(&["x", "--batch", "65536"]).refuses(&["bytes", "states", "slots"]);
    run(&["x", "--batch", "4", "--slots", "3"]).refuses(&["--slots", "3", "4 sequences of --batch"]);
    run(&["x", "--batch", "4", "--chunk", "3"]).refuses(&["--chunk", "3", "4 sequences of --batch"]);
    run(&["x", "--prompts", "f"]).refuses(&["prompt", "--prompts"]);
    run(&["--ids", "1", "--prompts", "f"]).refuses(&["--ids", "--prompts"]);
    run(&["--prompts", "/no/such/file"]).refuses(&["--prompts", "/no/such/file", "No such file"]);
    run(&["--prompts", text(dir.path())]).refuses(&["--prompts", "directory"]);
    run(&["--prompts", "/dev/zero"]).refuses(&["/dev/zero", "bytes"]);
    for (name, bytes, needles) in [
        ("empty", &b""[..], &["no prompt", "one a line"][..]),
        ("blank", b"\n  \r\n\n", &["no prompt"]),
        ("binary", b"ROMEO:\n\xff\xfe\x00\n", &["binary:2", "UTF-8"]),
        ("nul", b"ROMEO:\nJUL\0IET:\n", &["nul:2"]),
        ("long", b"ROMEO:\n\nTo be, or not to be, that is the question\n", &["long:3", "context 8", "-c"]),
    ] {
        std::fs::write(at(name), bytes).unwrap();
        run(&["--prompts", text(&at(name)), "--batch", "2", "-c", "8"]).refuses(needles);
    }
    // A model without a tokenizer reads no text; a graph in text form runs as many as it was written for.
    std::fs::write(at("one"), "x").unwrap();
    llamac(["run", text(&model("tiny-llama2")), "--prompts", text(&at("one"))]).refuses(&["one:1", "tokenizer.json"]);
    let graph = llamac(["ir", text(&b), "-c", "64"]).ok();
    std::fs::write(at("g.lir"), graph).unwrap();
    let graph = at("g.lir");
    let graph = ["run", text(&graph), "--weights", text(&b), "-p", "x"];
    llamac(graph.iter().chain(&["--batch", "2"])).refuses(&["--batch", "found 2", "g.lir", "at most 1"]);
    llamac(graph.iter().chain(&["-n", "2", "--format", "jsonl"])).ok();
}

#[test]
fn bench_counts_sequences_in_every_format() {
    let b = bard();
    let bench = |options: &[&str]| llamac(["bench", text(&b), "-r", "1", "-t", "1"].iter().chain(options)).ok();
    let sizes = ["-p", "6", "-n", "3", "-d", "0,5", "-b", "1,4", "--kv", "bf16", "--act", "f32"];
    let bench_as = |format: &str| bench(&[&sizes[..], &["--format", format]].concat());
    let found = records(&bench_as("jsonl"));
    let of = |key: &str| found.iter().map(|r| r[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("sequences"), [1, 4, 1, 4, 1, 4, 1, 4]);
    assert_eq!(of("n_depth"), [0, 0, 0, 0, 5, 5, 5, 5]);
    assert_eq!(of("n_prompt"), [6, 6, 0, 0, 6, 6, 0, 0]);
    let number = |r: &Value, key: &str| r[key].as_f64().unwrap_or_else(|| panic!("{key} in {r}"));
    for r in &found {
        let (sequences, all) = (number(r, "sequences"), number(r, "avg_ts"));
        assert!((number(r, "avg_ts_each") * sequences / all - 1.0).abs() < 1e-9, "{r}");
        // A step is the whole prompt of all, or a token of each.
        let tokens = sequences * number(r, "n_prompt").max(1.0);
        assert!((number(r, "ms_per_step") / 1e3 * all / tokens - 1.0).abs() < 1e-9, "{r}");
        // The longest test has 11 tokens of bf16.
        let bytes = state_bytes(&b, 11, 2);
        assert_eq!(r["cache_bytes"], bytes * r["sequences"].as_u64().unwrap());
        // What lies before a step's tokens is read once for each sequence.
        let same = |s: &&Value| ["sequences", "n_prompt"].iter().all(|key| s[*key] == r[*key]) && s["n_depth"] == 0;
        let shallow = found.iter().find(same).expect("the same test at no depth");
        let deeper = number(r, "bytes_outside_gemms") - number(shallow, "bytes_outside_gemms");
        assert_eq!(deeper, sequences * state_bytes(&b, r["n_depth"].as_u64().unwrap(), 2) as f64, "{r}");
    }
    for (format, mark) in [("md", "| sequences |"), ("csv", ",sequences,")] {
        let table = bench_as(format);
        let head = table.lines().next().unwrap();
        assert!(head.contains(mark) && head.contains("t/s each") && head.contains("ms/step"), "{head}");
        let separator = if format == "md" { '|' } else { ',' };
        let column = head.split(separator).position(|c| c.trim() == "sequences").unwrap();
        let cells: Vec<&str> = table
            .lines()
            .filter(|l| l.contains("bard"))
            .map(|l| l.split(separator).nth(column).unwrap().trim())
            .collect();
        assert_eq!(cells, ["1", "4", "1", "4", "1", "4", "1", "4"]);
    }
    // One sequence unless told otherwise, in a cache of its own.
    let default = read(&bench(&["-p", "0", "-n", "2", "--format", "json"]));
    let [record] = &default.as_array().unwrap()[..] else { panic!("one test: {default}") };
    assert_eq!((&record["sequences"], &record["cache_bytes"]), (&json!(1), &json!(state_bytes(&b, 2, 4))));
}

/// Bytes of the states of one sequence of bard with so many tokens and bytes an element, from its configuration.
fn state_bytes(bard: &Path, tokens: u64, element: u64) -> u64 {
    let config = read(&std::fs::read_to_string(bard.join("config.json")).unwrap());
    let number = |key: &str| config[key].as_u64().unwrap();
    let head = config["head_dim"].as_u64().unwrap_or_else(|| number("hidden_size") / number("num_attention_heads"));
    2 * number("num_hidden_layers") * number("num_key_value_heads") * head * tokens * element
}

#[test]
fn bench_takes_artifacts_and_gguf_and_refuses_what_they_cannot_hold() {
    let dir = tempfile::tempdir().unwrap();
    let (b, file) = (bard(), dir.path().join("b.llamac"));
    llamac(["compile", text(&b), "-o", text(&file), "--slots", "4", "-c", "32"]).ok();
    let gguf = model("bard.gguf/bard-q4_0.gguf");
    let options = ["-p", "8", "-n", "2", "-d", "4", "-r", "1", "-b", "4,2", "--format", "jsonl"];
    let found = records(&llamac(["bench", text(&file), text(&gguf)].iter().chain(&options)).ok());
    assert_eq!(found.len(), 8);
    // The artifact's context is its own; a GGUF file gets one that fits.
    let cache = |path: &Path| {
        let of = found.iter().find(|r| r["model_filename"] == text(path) && r["sequences"] == 4);
        of.expect("a record")["cache_bytes"].clone()
    };
    assert_eq!(cache(&file), 4 * state_bytes(&b, 32, 4));
    assert_eq!(cache(&gguf), 4 * state_bytes(&b, 12, 4));
    let bench = |model: &Path, options: &[&str]| llamac(["bench", text(model)].iter().chain(options));
    bench(&file, &["-b", "5"]).refuses(&["context has 32"]);
    bench(&file, &["-b", "1,5", "-p", "0", "-n", "2"]).refuses(&["-b", "found 5", "at most 4", "--slots 5"]);
    bench(&b, &["-b", "8,none"]).refuses(&["none"]);
    bench(&b, &["-b", "8,65537"]).refuses(&["-b", "65537", "65536"]);
    bench(&b, &["-b", "8", "--slots", "7"]).refuses(&["--slots", "7", "8 sequences of -b"]);
    bench(&b, &["-b", "8", "--chunk", "7"]).refuses(&["--chunk", "7", "8 sequences of -b"]);
    bench(&b, &["-b", "2", "-c", "9", "-p", "0", "-n", "10"]).refuses(&["-c", "9", "10"]);
    bench(&gguf, &["-b", "2", "-p", "0", "-n", "2049"]).refuses(&["2049", "2048"]);
    bench(&b, &["-b", "60000", "-p", "0", "-n", "2048"]).refuses(&["bytes", "states"]);
}
