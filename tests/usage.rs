//! What users type, and where their output goes: a wrong use gets one clear error, a lost reader no panic.

mod support;

use std::io::Read;
use std::process::Stdio;
use support::{Broken, bard, bounded, finished, llamac, model, root};

fn bard_run<'a>(options: &'a [&'a str]) -> support::Run {
    let bard = bard();
    llamac(["run", bard.to_str().unwrap()].iter().chain(options))
}

#[test]
fn ids() {
    let run = |ids: &str| llamac(["logits", bard().to_str().unwrap(), "--ids", ids]);
    run("5,2048").refuses(&["2048"]);
    run("5,99999999999").refuses(&["99999999999"]);
    run("1,x").refuses(&["--ids"]);
    run("").refuses(&["--ids"]);
    run(" ").refuses(&["--ids"]);
    run("-1").refuses(&["--ids", "-1"]);
    run("1,2,").refuses(&["--ids"]);
    let many: Vec<String> = (0..40).map(|i| i.to_string()).collect();
    bard_run(&["--ids", &many.join(","), "-c", "32"]).refuses(&["40", "32"]);
}

#[test]
fn files_of_ids() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ids.u32");
    let run = || llamac(["logits", bard().to_str().unwrap(), "--ids", path.to_str().unwrap()]);
    std::fs::write(&path, [1, 0, 0, 0, 2]).unwrap();
    run().refuses(&["ids.u32", "5 bytes", "multiple of 4"]);
    std::fs::write(&path, []).unwrap();
    run().refuses(&["ids.u32", "0 bytes"]);
    std::fs::write(&path, u32::MAX.to_le_bytes()).unwrap();
    run().refuses(&["4294967295", "2048"]);
    std::fs::File::create(&path).unwrap().set_len(10 << 30).unwrap();
    run().refuses(&["ids.u32", "bytes"]);
    bard_run(&["--ids", "/dev/zero"]).refuses(&["/dev/zero", "bytes"]);
    bard_run(&["--ids", dir.path().to_str().unwrap()]).refuses(&["--ids", "directory"]);
    bard_run(&["--ids", "/no/such/file"]).refuses(&["--ids", "/no/such/file"]);
}

#[test]
fn prompts() {
    bard_run(&["-p", ""]).refuses(&["prompt", "empty"]);
    bard_run(&["x", "y"]).refuses(&["y"]);
    bard_run(&["x", "-p", "y"]).refuses(&["PROMPT"]);
    bard_run(&["x", "--ids", "1"]).refuses(&["prompt", "--ids"]);
    let long = "To be, or not to be. ".repeat(300);
    bard_run(&[&long]).refuses(&["tokens", "2048"]);
    let b = bard();
    let b = b.to_str().unwrap();
    llamac(["logits", b]).refuses(&["--ids", "-p"]);
    llamac(["logits", b, "-p", ""]).refuses(&["prompt", "empty"]);
    llamac(["run", "-m", b, "-p", "x", "y"]).refuses(&["-m", "prompt"]);
    llamac(["logits", "-m", b, "another", "--ids", "1"]).refuses(&["another", "bard", "twice"]);
}

#[test]
fn options_of_run() {
    bard_run(&["x", "-n", "0"]).refuses(&["-n", "0", "at least 1"]);
    bard_run(&["x", "-n", "-2"]).refuses(&["-n", "-2"]);
    bard_run(&["x", "-n", "99999999999999999999"]).refuses(&["99999999999999999999"]);
    bard_run(&["x", "--temp", "nan"]).refuses(&["temp"]);
    bard_run(&["x", "--temp", "inf"]).refuses(&["temp", "inf"]);
    bard_run(&["x", "--temp", "-1"]).refuses(&["temp", "-1"]);
    bard_run(&["x", "--temp", "warm"]).refuses(&["temp", "warm"]);
    bard_run(&["x", "--top-p", "0"]).refuses(&["top", "0"]);
    bard_run(&["x", "--top-p", "1.5"]).refuses(&["top", "1.5"]);
    bard_run(&["x", "--top-p", "nan"]).refuses(&["top"]);
    bard_run(&["x", "--seed", "-1"]).refuses(&["seed", "-1"]);
    bard_run(&["x", "-t", "0"]).refuses(&["-t", "0"]);
    bard_run(&["x", "-t", "100000"]).refuses(&["-t", "100000", "1024"]);
    bard_run(&["x", "-c", "0"]).refuses(&["-c", "0"]);
    bard_run(&["x", "-c", "2049"]).refuses(&["-c", "2049", "2048"]);
    bard_run(&["x", "--chunk", "0"]).refuses(&["--chunk", "0"]);
    bard_run(&["x", "--chunk", "99999999999"]).refuses(&["--chunk", "99999999999"]);
    bard_run(&["x", "--slots", "0"]).refuses(&["--slots", "0"]);
    bard_run(&["x", "--slots", "65536"]).refuses(&["bytes", "states", "slots"]);
    bard_run(&["x", "--slots", "65537"]).refuses(&["--slots", "65537", "65536"]);
    bard_run(&["x", "--disable", "no-such-pass"]).refuses(&["no-such-pass", "fuse-rows"]);
    bard_run(&["x", "--disable", "layout"]).refuses(&["layout", "cannot be disabled"]);
    bard_run(&["x", "--fusion", "most"]).refuses(&["most", "epilogue"]);
    bard_run(&["x", "--tier", "sse9"]).refuses(&["sse9", "portable"]);
    bard_run(&["x", "--nonsense"]).refuses(&["--nonsense"]);
}

#[test]
fn options_of_the_others() {
    let b = bard();
    let b = b.to_str().unwrap();
    llamac::<&str>([]).refuses_use();
    llamac(["frobnicate"]).refuses(&["frobnicate"]);
    llamac(["ir", b, "--print-after", "no-such-pass"]).refuses(&["no-such-pass", "fuse-rows"]);
    llamac(["ir", b, "--print-before", "layout", "--print-after", "layout"]).refuses(&["--print-after"]);
    llamac(["ir", b, "--stage", "soup"]).refuses(&["soup", "clif"]);
    llamac(["ir", b, "--stage", "asm", "--dot"]).refuses(&["--dot"]);
    llamac(["verify", b, "--rows", "0"]).refuses(&["0", "512"]);
    llamac(["verify", b, "--rows", "600"]).refuses(&["600", "512"]);
    llamac(["verify", b, "--ids", "1,5000"]).refuses(&["5000", "2048"]);
    llamac(["bench", b, "-p", "0", "-n", "0"]).refuses(&["-p", "-n"]);
    llamac(["bench", b, "-r", "0"]).refuses(&["-r", "0"]);
    llamac(["bench", b, "-p", "99999"]).refuses(&["99999", "2048"]);
    llamac(["bench", b, "-t", "0"]).refuses(&["-t", "0"]);
    // Nothing runs there, so there is nothing to say about how.
    for command in ["explain", "ir"] {
        for option in [&["--tier", "amx"][..], &["--pin"], &["-t", "1"], &["--threads", "1"], &["--no-mmap"]] {
            let run = llamac([command, b].iter().chain(option));
            assert_eq!(run.code, Some(2), "{command} {option:?}: {}", run.stderr);
            run.refuses(&["unexpected argument", option[0]]);
        }
    }
    llamac(["completions", "klingon"]).refuses(&["klingon", "bash"]);
}

#[test]
fn directories_that_cannot_be_written() {
    let config = model("tiny-llama2").join("config.json");
    let config = config.to_str().unwrap();
    llamac(["synth", "no-such-preset", "-o", "/tmp/never"]).refuses(&["no-such-preset", "stories-15m"]);
    llamac(["synth", config, "-o", "/dev/null"]).refuses(&["/dev/null"]);
    llamac(["synth", config, "-o", "/dev/null/x"]).refuses(&["/dev/null/x"]);
    llamac(["synth", config]).refuses(&["--output"]);
    llamac(["man", "-o", "/dev/null/x"]).refuses(&["/dev/null/x"]);
    let weights = model("tiny-llama2").join("model.safetensors");
    llamac(["synth", weights.to_str().unwrap(), "-o", "/tmp/never"]).refuses(&["model.safetensors", "JSON"]);
    let m = Broken::copy("tiny-llama2");
    m.config("vocab_size", serde_json::json!(1 << 24)).config("hidden_size", serde_json::json!(1 << 20));
    m.config("intermediate_size", serde_json::json!(1 << 20)).config("num_hidden_layers", serde_json::json!(4096));
    m.config("head_dim", serde_json::json!(1 << 10));
    llamac(["synth".as_ref(), m.path().as_os_str(), "-o".as_ref(), m.file("out").as_os_str()]).refuses(&["bytes"]);
    assert!(!m.file("out").join("model.safetensors").exists());
}

#[test]
#[cfg(unix)]
fn invalid_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let prompt = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    llamac(["run".as_ref(), bard().as_os_str(), prompt]).refuses(&["UTF-8"]);
    llamac(["run".as_ref(), "-m".as_ref(), bard().as_os_str(), prompt]).refuses(&["UTF-8"]);
    llamac(["run".as_ref(), prompt]).refuses(&["No such file"]);
}

/// Every subcommand, with little to do.
fn everything() -> Vec<Vec<String>> {
    let (bard, tiny) = (bard(), model("tiny-llama2"));
    let (bard, tiny) = (bard.to_str().unwrap(), tiny.to_str().unwrap());
    let all: [&[&str]; 16] = [
        &["run", bard, "ROMEO:", "-n", "5"],
        &["run", bard, "ROMEO:", "-n", "5", "--format", "json"],
        &["run", bard, "ROMEO:", "-n", "5", "--batch", "2"],
        &["run", bard, "ROMEO:", "-n", "5", "--batch", "2", "--format", "jsonl"],
        &["run", tiny, "--ids", "1", "-n", "5"],
        &["logits", tiny, "--ids", "1"],
        &["logits", tiny, "--ids", "1", "--format", "npy"],
        &["ir", tiny],
        &["ir", tiny, "--stage", "clif"],
        &["explain", tiny],
        &["verify", tiny],
        &["bench", tiny, "-p", "2", "-n", "1", "-r", "1"],
        &["completions", "bash"],
        &["help"],
        &["run", "--help"],
        &["--version"],
    ];
    all.iter().map(|args| args.iter().map(|&a| a.to_owned()).collect()).collect()
}

#[test]
fn stdout_full() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    for args in everything() {
        let out = bounded().args(&args).stdout(full.try_clone().unwrap()).output().unwrap();
        finished(&out).refuses(&["stdout"]);
    }
}

#[test]
fn stdout_without_a_reader() {
    for args in everything() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = bounded().args(&args).stdout(writer).output().unwrap();
        finished(&out).refuses(&["stdout was closed"]);
    }
}

#[test]
fn stdout_closed_from_the_start() {
    for args in everything() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec \"$@\" >&-", "sh", env!("CARGO_BIN_EXE_llamac")]);
        finished(&command.args(&args).output().unwrap()).refuses(&["stdout was closed"]);
    }
}

#[test]
fn stderr_full() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    for args in everything() {
        let out = bounded().args(&args).stderr(full.try_clone().unwrap()).output().unwrap();
        assert!(out.status.success() && !out.stdout.is_empty(), "{args:?}: {:?}", out.status);
    }
    let out = bounded().args(["run", "/no/such/model"]).stderr(full).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
}

#[test]
#[cfg(unix)]
fn an_interrupt_ends_the_text_and_shows_the_timings() {
    let mut command = bounded();
    command.arg("run").arg(bard()).args(["ROMEO:", "-n", "-1", "--ignore-eos", "-t", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = vec![0];
    stdout.read_exact(&mut text).unwrap();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    stdout.read_to_end(&mut text).unwrap();
    let out = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{stderr}");
    assert!(text.ends_with(b"\n") && str::from_utf8(&text).is_ok());
    assert!(stderr.contains("generation") && !stderr.contains("error:"), "{stderr}");
}

#[test]
fn the_context_is_full() {
    for n in ["100", "-1"] {
        let run = bard_run(&["ROMEO:", "-c", "16", "-n", n, "--ignore-eos"]);
        assert!(run.stderr.contains("warning: the context of 16 tokens is full"), "{}", run.stderr);
        run.ok();
    }
    let run = bard_run(&["ROMEO:", "-c", "16", "-n", "4", "--ignore-eos"]);
    assert!(!run.stderr.contains("warning:"), "{}", run.stderr);
}

#[test]
fn what_llama_cpp_calls_it() {
    let b = bard();
    let b = b.to_str().unwrap();
    let want = llamac(["run", b, "ROMEO:", "-n", "6", "--temp", "0"]).ok();
    for args in [
        &["run", "-m", b, "-p", "ROMEO:", "-n", "6", "--temp", "0", "-t", "2", "-c", "256", "-s", "1"][..],
        &["run", "-m", b, "ROMEO:", "--predict", "6", "--temp", "0", "--ctx-size", "256", "--threads", "1"],
        &["run", "--model", b, "--prompt", "ROMEO:", "--n-predict", "6", "--temp", "0", "--seed", "5"],
    ] {
        assert_eq!(llamac(args).ok(), want, "{args:?}");
    }
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = llamac(["completions", shell]).ok();
        assert!(script.contains("print-after-all"), "{shell}");
    }
}

/// Too much for a test: gigabytes, minutes, or a program that may not be there.
fn too_much(line: &str) -> bool {
    line.contains("llama-3.2-1b") || line.contains(" bench ") || line.contains("| dot")
}

/// Runs lines of shell in which `llamac` is the binary, beside the bundled models.
fn shell(lines: &[String]) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::os::unix::fs::symlink(root().join("examples"), at("examples")).unwrap();
    std::fs::create_dir(at("target")).unwrap();
    std::fs::create_dir(at("my")).unwrap();
    std::fs::copy(model("tiny-llama2").join("config.json"), at("my/config.json")).unwrap();
    std::fs::write(at("prompt.u32"), [1, 0, 0, 0, 5, 0, 0, 0]).unwrap();
    // Some examples take up the artifact of another.
    let made = "llamac compile examples/models/bard -o bard.llamac 2> compiled".to_owned();
    for line in std::iter::once(&made).chain(lines) {
        let script = format!("llamac() {{ {:?} \"$@\"; }}\n{line}", env!("CARGO_BIN_EXE_llamac"));
        let mut command = std::process::Command::new("sh");
        let out = command.args(["-ec", &script]).current_dir(dir.path()).output().unwrap();
        assert!(out.status.success(), "{line}\n{}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn the_examples_in_the_help_do_what_they_say() {
    for command in
        ["", "run", "logits", "perplexity", "ir", "explain", "verify", "bench", "profile", "machine", "synth"]
    {
        let help = llamac([command, "--help"].iter().filter(|a| !a.is_empty())).ok();
        let (_, examples) = help.split_once("Examples:").unwrap_or_else(|| panic!("{command} has no examples"));
        let lines = examples.lines().skip(1).take_while(|l| !l.is_empty()).map(|l| l.trim().to_owned());
        let lines: Vec<String> = lines.filter(|l| !too_much(l)).collect();
        assert!(
            lines.iter().all(|l| l.starts_with("llamac ")),
            "{command}: a line is too long for its place: {lines:?}"
        );
        shell(&lines);
    }
}

#[test]
fn the_commands_of_the_readme_do_what_they_say() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().filter_map(|l| l.strip_prefix("cargo run --release -- "));
    let lines: Vec<String> = lines.map(|l| format!("llamac {l}")).filter(|l| !too_much(l)).collect();
    assert!(!lines.is_empty());
    shell(&lines);
}
