//! Options of running that change no result: threads, pinned or not, more than there are processors; weights mapped or read.

mod support;

use serde_json::Value;
use std::path::Path;
use support::{bard, llamac, model};

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// What `logits` says of a prompt, to the last digit.
fn logits(model: &Path, options: &[&str]) -> String {
    let ids = "5,900,31,7,2000,14,14,3,77,1024,8";
    llamac(["logits", text(model), "--ids", ids].iter().chain(options)).ok()
}

#[test]
fn results_do_not_depend_on_threads_nor_where_they_run() {
    let b = bard();
    for act in ["f32", "auto"] {
        let want = logits(&b, &["--act", act, "-t", "1"]);
        for options in
            [&["-t", "2"][..], &["-t", "8"], &["-t", "1", "--pin"], &["-t", "2", "--pin"], &["-t", "8", "--pin"]]
        {
            let given: Vec<&str> = ["--act", act].iter().chain(options).copied().collect();
            assert!(logits(&b, &given) == want, "{given:?} gives other logits");
        }
    }
}

#[test]
fn more_threads_than_processors_are_told_in_one_line() {
    let b = bard();
    let processors = llamac_runtime::machine::allowed_cpus();
    let run = |threads: usize| {
        let threads = threads.to_string();
        let run = llamac(["run", text(&b), "ROMEO:", "-n", "4", "--temp", "0", "-t", &threads]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        (run.stderr.lines().filter(|l| l.starts_with("warning:")).map(str::to_owned).collect::<Vec<_>>(), run.stdout)
    };
    let (few, want) = run(1);
    assert_eq!(few, [""; 0]);
    let (many, found) = run(processors + 6);
    assert_eq!(found, want);
    let [line] = &many[..] else { panic!("one line: {many:?}") };
    assert!(line.starts_with(&format!("warning: {} threads, but ", processors + 6)), "{line}");
    assert!(line.ends_with(&format!("-t {processors} is steadier")), "{line}");
}

#[test]
fn artifacts_run_alike_mapped_and_read_pinned_and_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (artifact, exe) = (dir.path().join("tiny.llamac"), dir.path().join("tiny"));
    let m = model("tiny-llama31");
    llamac(["compile", text(&m), "-o", text(&artifact)]).ok();
    let want = logits_of(&artifact, &[]);
    for options in [&["--no-mmap"][..], &["--no-mmap", "--pin", "-t", "8"], &["--pin"]] {
        assert!(logits_of(&artifact, options) == want, "{options:?} gives other logits");
    }
    // In front of the artifact is the runner, or llamac itself.
    llamac(["compile", text(&m), "-o", text(&exe), "--emit", "exe"]).ok();
    let said = |options: &[&str]| {
        let ids = ["--ids", "1,5,7", "-n", "6", "--temp", "0"];
        let out = std::process::Command::new(&exe).args(ids).args(options).output().expect("it starts");
        assert!(out.status.success(), "{options:?}: {}", String::from_utf8_lossy(&out.stderr));
        (out.stdout, String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (want, plain) = said(&["-t", "1"]);
    let (found, pinned) = said(&["-t", "1", "--pin", "--no-mmap"]);
    assert_eq!(found, want);
    assert!(pinned.contains("1 threads, pinned, tier ") && !plain.contains("pinned"), "{pinned}");
}

#[test]
fn one_sequence_and_several_say_how_they_run() {
    let b = bard();
    for several in [&[][..], &["--batch", "2"], &["--format", "jsonl"]] {
        for (pin, how) in [(&["--pin"][..], "1 threads, pinned, tier "), (&[], "1 threads, tier ")] {
            let args = ["run", text(&b), "ROMEO:", "-n", "2", "-t", "1"];
            let run = llamac(args.iter().chain(several).chain(pin));
            assert!(run.stderr.contains(how), "{several:?} {pin:?}: {}", run.stderr);
        }
    }
}

fn logits_of(artifact: &Path, options: &[&str]) -> String {
    llamac(["logits", text(artifact), "--ids", "5,100,31,7"].iter().chain(options)).ok()
}

#[test]
fn bench_says_what_it_ran_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let artifact = dir.path().join("bard.llamac");
    llamac(["compile", text(&bard()), "-o", text(&artifact), "-c", "64"]).ok();
    let bench = |options: &[&str]| {
        let args = ["bench", text(&artifact), "-p", "4", "-n", "2", "-r", "1", "-t", "1", "--format", "jsonl"];
        let run = llamac(args.iter().chain(options));
        let stderr = run.stderr.clone();
        let record: Value = serde_json::from_str(run.ok().lines().next().expect("a record")).expect("JSON");
        (record, stderr)
    };
    let (record, stderr) = bench(&[]);
    assert_eq!((&record["pinned"], &record["memory"]["weights"]["mapped"]), (&Value::Bool(false), &Value::Bool(true)));
    assert!(stderr.contains("memory: weights ") && stderr.contains(" MB mapped from the file"), "{stderr}");
    let (record, stderr) = bench(&["--pin", "--no-mmap"]);
    assert_eq!((&record["pinned"], &record["memory"]["weights"]["mapped"]), (&Value::Bool(true), &Value::Bool(false)));
    for (format, separator) in [("md", '|'), ("csv", ',')] {
        for (options, pinned) in [(&["--pin"][..], "true"), (&[], "false")] {
            let args = ["bench", text(&artifact), "-p", "4", "-n", "0", "-r", "1", "-t", "1", "--format", format];
            let out = llamac(args.iter().chain(options)).ok();
            let cells = |line: &str| line.split(separator).map(|c| c.trim().to_owned()).collect::<Vec<_>>();
            let column = cells(out.lines().next().unwrap_or_default()).iter().position(|c| c == "pinned");
            let row = out.lines().find(|l| l.contains("pp4")).map(cells).unwrap_or_default();
            assert_eq!(row[column.expect("a column")], pinned, "{out}");
        }
    }
    assert!(!stderr.contains("mapped") && stderr.contains("states ") && stderr.contains("arena "), "{stderr}");
}
