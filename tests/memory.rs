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
