//! What `compile` says that a program needs while it runs, beside what the system says that it took.
#![cfg(target_os = "linux")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use support::{bard, llamac, model};

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// The most bytes that a process had resident (VmHWM). Its context is filled, so that it has touched what it can.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it, and says what it took")]
fn peak(command: &mut Command) -> usize {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut status = 0;
    // SAFETY: an all-zero rusage is one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals of the right types; the child is ours and nobody else waits for it.
    let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &raw mut status, 0, &raw mut usage) };
    assert!(waited > 0 && status == 0, "status {status}");
    usage.ru_maxrss as usize * 1024
}

#[test]
fn predicted_memory_is_what_running_takes_within_a_quarter() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.llamac");
    for (path, slots) in [(bard(), "1"), (bard(), "2"), (bard(), "8"), (model("stories260K"), "1")] {
        llamac(["compile", text(&path), "-o", text(&file), "--slots", slots, "-c", "512"]).ok();
        let info = llamac(["inspect", text(&file), "--format", "json"]).ok();
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let memory = info["manifest"]["memory"].as_object().unwrap();
        let predicted: u64 = memory.values().map(|v| v.as_u64().unwrap()).sum();
        let ids: Vec<String> = (0..500).map(|i| (i * 7 % 500).to_string()).collect();
        let mut run = Command::new(env!("CARGO_BIN_EXE_llamac"));
        run.args([
            "run",
            text(&file),
            "--ids",
            &ids.join(","),
            "-n",
            "12",
            "--ignore-eos",
            "-t",
            "2",
            "--batch",
            slots,
        ]);
        let found = peak(&mut run);
        let ratio = found as f64 / predicted as f64;
        assert!((0.75..1.25).contains(&ratio), "{found} bytes taken, {predicted} predicted, slots {slots}: {memory:?}");
    }
}

/// Reserved and not touched: a little less than the machine has altogether is more than is available.
#[test]
fn more_than_is_available_is_told_before_anything_runs() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap();
    let total: u64 = total.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024;
    // A token of the bundled model takes 2048 bytes of cache.
    let slots = (total / 1000 * 999 / (2048 * 2048)).clamp(1, 65536).to_string();
    let run = |slots: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamac"));
        let run = command.args(["run", text(&bard()), "--ids", "1", "-n", "1", "-c", "2048", "--slots", slots]);
        String::from_utf8_lossy(&run.output().unwrap().stderr).into_owned()
    };
    let warned =
        |said: &str| said.lines().filter(|l| l.contains("MB are available")).map(str::to_owned).collect::<Vec<_>>();
    let said = run(&slots);
    let [line] = &warned(&said)[..] else { panic!("one line: {said}") };
    assert!(line.starts_with("warning: weights (") && line.contains("states (") && line.contains("--kv"), "{line}");
    let said = run("2");
    assert!(warned(&said).is_empty(), "{said}");
}
