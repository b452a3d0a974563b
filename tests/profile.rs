//! `llamac profile` and `llamac machine`: what they print adds up.

mod library;
mod support;

use library::{Build, open, pool};
use llamac::model::Sizes;
use llamac::profile::{Phase, measure, steps};
use llamac::work;
use llamac_formats::program::Work;
use llamac_passes::{FusionSet, Options};
use llamac_runtime::Tier;
use llamac_runtime::limits::{Limits, VERSION};
use serde_json::Value;
use std::path::Path;
use support::{bard, finished, llamac};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

/// Runs with limits that need not be measured.
fn profile(args: &[&str]) -> support::Run {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("llamac");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("machine.json"), serde_json::to_string(&limits()).unwrap()).unwrap();
    let mut command = support::bounded();
    finished(&command.arg("profile").args(args).env("XDG_CACHE_HOME", home.path()).output().unwrap())
}

fn limits() -> Limits {
    let bandwidth = |level: &str, threads, bytes| serde_json::json!({ "level": level, "threads": threads, "bytes": bytes, "gbs": 50.0 });
    let peaks = llamac_runtime::tiers::peak::Arithmetic::ALL
        .iter()
        .flat_map(|a| [1, 2].map(|t| serde_json::json!({ "arithmetic": a.name(), "threads": t, "gops": 100.0 })));
    let json = serde_json::json!({
        "version": VERSION,
        "measured": 0,
        "processor": llamac_runtime::machine::processor(),
        "features": [],
        "processors": llamac_runtime::machine::allowed_cpus(),
        "caches": [],
        "bandwidth": [
            bandwidth("L2", 1, 1 << 20), bandwidth("DRAM", 1, 1 << 30), bandwidth("L2", 2, 2 << 20),
            bandwidth("DRAM", 2, 1 << 30)
        ],
        "peaks": peaks.collect::<Vec<_>>(),
        "barriers": [],
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn the_lines_sum_to_the_whole() {
    for by in [None, Some("layer"), Some("kind"), Some("kernel")] {
        let b = bard();
        let mut args = vec![text(&b), "-p", "20", "-n", "4", "-r", "2", "-t", "2", "--format", "json"];
        args.extend(by.iter().flat_map(|by| ["--by", by]));
        let out = read(&profile(&args).ok());
        for phase in ["prefill", "decode"] {
            let rows: Vec<&Value> = out.as_array().unwrap().iter().filter(|r| r["phase"] == phase).collect();
            let depth = |d: u64| rows.iter().filter(move |r| r["depth"] == d);
            let sum = |d: u64, key: &str| depth(d).map(|r| r[key].as_f64().unwrap_or(0.0)).sum::<f64>();
            assert_eq!(depth(0).count(), 1);
            assert!((sum(1, "total ms") - sum(0, "total ms")).abs() < 1e-5 * rows.len() as f64, "{phase} {by:?}");
            assert!((sum(1, "share %") - 100.0).abs() < 1e-3 * rows.len() as f64);
            assert!((sum(1, "MFLOP") - sum(0, "MFLOP")).abs() < 1e-2);
            let last: Vec<&str> = depth(1).map(|r| r["name"].as_str().unwrap()).collect();
            assert_eq!(last[last.len() - 2..], ["waiting", "rest"]);
            assert!(depth(0).all(|r| r["overhead %"].is_f64()));
            if by.is_none() {
                // What is in groups is all but waiting and rest.
                let left = depth(1).filter(|r| r["name"] == "waiting" || r["name"] == "rest");
                let left: f64 = left.map(|r| r["total ms"].as_f64().unwrap()).sum();
                assert!((sum(2, "total ms") + left - sum(0, "total ms")).abs() < 1e-4 * rows.len() as f64);
            }
        }
    }
}

/// Every step of the entry that runs is there once, and ran as often as the phase has steps.
#[test]
fn every_step_of_the_program_is_counted_once_per_call() {
    let sizes = Sizes { context: Some(32), chunk: Some(8), ..Sizes::default() };
    let build = Build::new(&open("bard", &sizes), &Options::fusing(FusionSet::All));
    let mut generator = build.generator(&pool(2), Tier::detect());
    let prompt: Vec<u32> = (0..20).collect();
    for (phase, entry, runs) in [(Phase::Prefill(20), "rows", 3), (Phase::Decode(20, 5), "decode", 5)] {
        let measured = measure(&mut generator, phase, &prompt, 2).unwrap();
        let lines = steps(&generator, &measured, &limits());
        let program = generator.session().program();
        let entry = program.entries.iter().find(|e| e.name == entry).unwrap();
        let names: Vec<&str> = lines.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, entry.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>());
        assert!(lines.iter().all(|l| l.calls == 2 * runs));
        assert_eq!(phase.steps(&generator).len() as u64, runs);
        let spent: std::time::Duration = lines.iter().map(|l| l.total).sum();
        assert!(spent <= measured.whole);
    }
}

/// A decode reads every weight of its GEMMs once, and computes two operations for each element of them.
#[test]
fn amounts_of_a_decode() {
    let build = Build::new(&open("bard", &Sizes::default()), &Options::fusing(FusionSet::All));
    let program = &build.compiled.code.program;
    let entry = program.entries.iter().find(|e| e.name == "decode").unwrap();
    let sizes = llamac_formats::Sizes { rows: 1, outputs: 1, tokens: 10 };
    let (mut bytes, mut operations, mut seen) = (0, 0, std::collections::BTreeSet::new());
    for step in &entry.steps {
        let amount = work::of(program, step, &sizes);
        match &step.work {
            Work::Gemm(g) => {
                bytes += amount.lasting;
                operations += amount.operations;
                seen.extend(g.segments.iter().map(|s| s.weight));
            }
            Work::Attention(a) => {
                let heads = (a.kv_heads * a.group * a.head_dim) as u64;
                assert_eq!(amount.operations, 4 * 10 * heads);
                assert_eq!(amount.lasting, 2 * 10 * 4 * (a.kv_heads * a.head_dim) as u64);
            }
            // A compiled kernel computes something, unless it only moves.
            Work::Rows(_) => assert!(amount.bytes() > 0, "{}", step.name),
            _ => {}
        }
    }
    let weights: Vec<_> = seen.iter().map(|&w| &program.weights[w]).collect();
    assert_eq!(bytes, weights.iter().map(|w| w.bytes as u64).sum::<u64>());
    assert_eq!(operations, weights.iter().map(|w| 2 * w.dims.iter().product::<usize>() as u64).sum::<u64>());
}

/// What kernels make by routines of the runtime is read off their loops as well: here the blocks of activations.
#[test]
fn amounts_of_blocks() {
    let mut model = open("bard", &Sizes::default());
    model.quantise("q8_0".parse().unwrap()).unwrap();
    let build = Build::new(&model, &Options::fusing(FusionSet::All));
    let program = &build.compiled.code.program;
    let sizes = llamac_formats::Sizes { rows: 1, outputs: 1, tokens: 10 };
    let mut casts = 0;
    for entry in &program.entries {
        for step in &entry.steps {
            let amount = work::of(program, step, &sizes);
            assert!(amount.bytes() > 0, "{}", step.name);
            if step.name.ends_with(" cast") {
                // 32 f32 read for every block of 40 bytes written.
                assert_eq!(amount.bytes() % (128 + 40), 0, "{}", step.name);
                casts += 1;
            }
        }
    }
    assert!(casts > 0);
}

#[test]
fn the_trace_is_one_track_per_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (b, file) = (bard(), dir.path().join("trace.json"));
    profile(&[text(&b), "-p", "8", "-n", "3", "-r", "1", "-t", "2", "--trace", text(&file)]).ok();
    let trace = read(&std::fs::read_to_string(&file).unwrap());
    let events = trace["traceEvents"].as_array().unwrap();
    for process in [0, 1] {
        let mut steps = vec![];
        for thread in [0, 1] {
            let of: Vec<&Value> =
                events.iter().filter(|e| e["ph"] == "X" && e["pid"] == process && e["tid"] == thread).collect();
            // Events follow each other: none begins before the one before it has ended.
            let end = |e: &Value| e["ts"].as_f64().unwrap() + e["dur"].as_f64().unwrap();
            assert!(of.windows(2).all(|e| e[1]["ts"].as_f64().unwrap() >= end(e[0]) - 1e-2));
            steps.push(of.iter().filter(|e| e["name"] != "waiting").count());
        }
        assert!(steps[0] > 0 && steps[0] == steps[1], "{steps:?}");
    }
    assert_eq!(events.iter().filter(|e| e["name"] == "thread_name").count(), 4);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn artifacts_and_formats() {
    let dir = tempfile::tempdir().unwrap();
    let (b, artifact) = (bard(), dir.path().join("bard.llamac"));
    llamac(["compile", text(&b), "-o", text(&artifact), "-c", "64"]).ok();
    for format in ["md", "csv", "jsonl"] {
        let out = profile(&[text(&artifact), "-p", "8", "-n", "2", "-r", "1", "-t", "1", "--format", format]).ok();
        for needle in ["prefill", "decode", "layers.*", "waiting", "rest", "head"] {
            assert!(out.contains(needle), "{format}: {needle} is not in\n{out}");
        }
    }
}

#[test]
fn bad_input_is_refused() {
    let (b, dir) = (bard(), tempfile::tempdir().unwrap());
    profile(&[text(&b), "-p", "0", "-n", "0"]).refuses(&["-p 0 -n 0"]);
    profile(&[text(&b), "-r", "0"]).refuses(&["-r"]);
    profile(&[text(&b), "-p", "60", "-n", "8", "-c", "64"]).refuses(&["-p 60 -n 8", "64"]);
    let bad = ["-p", "4", "-n", "1", "-r", "1", "--trace", text(dir.path())];
    profile(&[&[text(&b)], &bad[..]].concat()).refuses(&["--trace", "directory"]);
    let colour = profile(&[text(&b), "--by", "colour"]);
    assert!(colour.code == Some(2) && colour.stderr.contains("layer, kind, kernel"), "{}", colour.stderr);
    llamac(["machine", "--no-save", "-o", "x"]).refuses_use();
    llamac(["machine", "-t", "0"]).refuses(&["threads"]);
}

/// What is no file of limits is said, and the limits are measured.
#[test]
fn saved_limits_are_checked() {
    use llamac::machine::{load, save};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/machine.json");
    assert_eq!(load(&path).unwrap(), None);
    save(&path, &limits()).unwrap();
    assert_eq!(load(&path).unwrap(), Some(limits()));
    save(&path, &Limits { version: VERSION + 1, ..limits() }).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("version"));
    std::fs::write(&path, b"{").unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("llamac machine"));
    assert!(load(dir.path()).is_err());
}
