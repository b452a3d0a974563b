//! Artifacts: the same bytes for the same input, the same numbers as in memory, and every fault refused in one sentence.

#[path = "support/changed.rs"]
mod changed;
mod support;

use changed::{Random, header, put_header, replaced, section};
use llamac::compile::{CompileError, compile_for, pack_weights, session};
use llamac::model::{Model, Sizes};
use llamac_codegen::Target;
use llamac_formats::artifact::{FORMAT_VERSION, Header, Manifest, SectionKind};
use llamac_passes::{FusionSet, Options};
use llamac_runtime::{ArtifactError, Features, Generator, OpenOptions, Pool, Program, Tier};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use support::{bard, bounded, finished, llamac, model, root};
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// A small artifact in a directory of its own.
fn small() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("small.llamac");
    llamac(["compile", text(&model("stories260K")), "-o", text(&file), "-c", "64"]).ok();
    (dir, file)
}

/// The error of opening these bytes as a file.
fn refusal(dir: &Path, bytes: &[u8], options: &OpenOptions) -> String {
    let path = dir.join("changed.llamac");
    fs::write(&path, bytes).unwrap();
    let error = match Program::open_with(&path, options) {
        Ok(_) => panic!("a changed artifact was opened"),
        Err(e) => e.to_string(),
    };
    assert!(!error.contains('\n'), "one sentence: {error}");
    assert!(error.contains("changed.llamac"), "names the file: {error}");
    error
}

#[test]
fn weights_are_read_alike_by_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.llamac");
    let b = bard();
    llamac(["compile", b.to_str().unwrap(), "-o", file.to_str().unwrap(), "-c", "64"]).ok();
    let mapped = Program::open(&file).unwrap();
    let mapped = mapped.executable().weights();
    assert!(mapped.is_file() && mapped.len() > 4 << 20, "several threads have something to read");
    for read_threads in [0, 1, 2, 7] {
        let options = OpenOptions { map_weights: false, read_threads, ..OpenOptions::default() };
        let read = Program::open_with(&file, &options).unwrap();
        assert!(!read.executable().weights().is_file());
        assert!(read.executable().weights().as_slice() == mapped.as_slice(), "{read_threads} threads");
    }
}

fn verifying() -> OpenOptions {
    OpenOptions { verify_weights: true, ..OpenOptions::default() }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("elsewhere/bard");
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(bard()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let (a, b) = (dir.path().join("a.llamac"), dir.path().join("b.llamac"));
    llamac(["compile", text(&bard()), "-o", text(&a), "-t", "1"]).ok();
    llamac(["compile", text(&copy), "-o", text(&b), "-t", "3"]).ok();
    assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap());
}

/// All logits of a prompt, scored, and of three decoded tokens after it.
fn logits(generator: &mut Generator, prompt: &[u32]) -> Vec<u32> {
    let mut all = vec![];
    generator.score(0, prompt, |_, row| all.extend(row.iter().map(|x| x.to_bits()))).unwrap();
    for token in 1..4 {
        all.extend(generator.decode(&[(0, token)]).unwrap().data.iter().map(|x| x.to_bits()));
    }
    all
}

#[test]
fn artifacts_give_the_bits_of_the_in_memory_compile() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bard", "stories260K", "tiny-llama2", "tiny-llama31", "tiny-olmo2"] {
        let path = if name == "bard" { bard() } else { model(name) };
        for fusion in [FusionSet::None, FusionSet::All] {
            let opened = Model::open(&path, None, &Sizes { context: Some(64), ..Sizes::default() }).unwrap();
            let options = Options::fusing(fusion);
            let compiled = compile_for(opened.graph.clone(), &options, Target::Native, false).unwrap();
            let pool = Arc::new(Pool::new(2).unwrap());
            let (weights, _) = pack_weights(&compiled, &opened, 2, &mut |_, _| {}).unwrap();
            let session: Result<_, CompileError> = session(&compiled, weights, Arc::clone(&pool), Tier::detect());
            let mut memory = Generator::new(session.unwrap()).unwrap();

            let file = dir.path().join("m.llamac");
            let manifest = llamac::artifact::manifest(&opened, &compiled, &options, Target::Native);
            llamac::artifact::write(&file, &opened, &compiled, &manifest, None, 2, &mut |_, _| {}).unwrap();
            let program = Program::open_with(&file, &verifying()).unwrap();
            assert_eq!(program.executable().program(), &compiled.code.program);
            let mut artifact = program.session_on(pool, Tier::detect()).unwrap();
            let prompt: Vec<u32> = (1..20).map(|i| i * 13 % 256).collect();
            assert!(logits(&mut memory, &prompt) == logits(&mut artifact, &prompt), "{name}, fusion {fusion}");
        }
    }
}

#[test]
fn commands_take_an_artifact_for_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bard.llamac");
    let (b, f) = (bard(), text(&file).to_owned());
    let compiled = llamac(["compile", text(&b), "-o", &f]);
    for word in ["target", "native", "entries", "decode", "rows", "kernels", "weights", "memory"] {
        assert!(compiled.stderr.contains(word), "{word}: {}", compiled.stderr);
    }
    compiled.ok();
    let generate = |m: &str| llamac(["run", m, "ROMEO:", "-n", "16", "--seed", "5"]).ok();
    assert_eq!(generate(&f), generate(text(&b)));
    let info: Value = serde_json::from_str(&llamac(["inspect", &f, "--verify", "--format", "json"]).ok()).unwrap();
    assert_eq!(info["manifest"]["name"], "bard");
    assert_eq!(info["sections"].as_array().unwrap().len(), 8);
    assert!(llamac(["inspect", &f]).ok().contains("## Sections"));
    assert!(llamac(["inspect", text(&b)]).ok().contains("## Tensors"));
    assert_eq!(llamac(["ir", &f]).ok(), llamac(["ir", text(&b), "--stage", "graph"]).ok());
    assert_eq!(llamac(["ir", &f, "--stage", "loops"]).ok(), llamac(["ir", text(&b), "--stage", "loops"]).ok());
    llamac(["ir", &f, "--print-after", "fuse-rows"]).refuses(&["imported graph", "name the model"]);
    llamac(["run", &f, "x", "-c", "77"]).refuses(&["-c", "77", "2048", "compile the model again"]);
    llamac(["run", &f, "x", "--fusion", "none"]).refuses(&["--fusion", "none", "all"]);
    llamac(["compile", &f, "-o", "x.llamac"]).refuses(&["compiled already"]);
}

#[test]
fn an_executable_runs_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bard");
    llamac(["compile", text(&bard()), "-o", text(&file), "--emit", "exe"]).ok();
    let run = |args: &[&str]| finished(&Command::new(&file).args(args).env_clear().output().unwrap()).ok();
    assert_eq!(
        run(&["ROMEO:", "-n", "16", "--seed", "5"]),
        llamac(["run", text(&bard()), "ROMEO:", "-n", "16", "--seed", "5"]).ok()
    );
    let info: Value = serde_json::from_str(&run(&["--info"])).unwrap();
    assert_eq!(info["manifest"]["name"], "bard");
    // What carries an artifact can be named where one can.
    llamac(["run", text(&file), "ROMEO:", "-n", "2"]).ok();
}

#[test]
fn truncated_files_are_refused() {
    let (dir, file) = small();
    let bytes = fs::read(&file).unwrap();
    let mut lengths: Vec<usize> =
        header(&bytes).sections.iter().flat_map(|s| [s.offset, s.offset + s.bytes]).map(|n| n as usize).collect();
    lengths.retain(|n| *n < bytes.len());
    let mut random = Random(1);
    lengths.extend((0..100).map(|_| random.below(bytes.len())));
    lengths.extend([0, 1, 7, 8, 12, 23, 24, bytes.len() - 1]);
    for n in lengths {
        let error = refusal(dir.path(), &bytes[..n], &OpenOptions::default());
        assert!(["again", "llamac compile"].iter().any(|w| error.contains(w)), "{n} bytes: {error}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(refusal(dir.path(), &longer, &OpenOptions::default()).contains("bytes"));
}

#[test]
fn a_flipped_bit_is_found_in_every_section() {
    let (dir, file) = small();
    let bytes = fs::read(&file).unwrap();
    let mut random = Random(2);
    for s in header(&bytes).sections {
        for _ in 0..8 {
            let mut changed = bytes.clone();
            changed[s.offset as usize + random.below(s.bytes as usize)] ^= 1 << random.below(8);
            let error = refusal(dir.path(), &changed, &verifying());
            assert!(error.contains(&format!("section {} is damaged", s.kind)), "{error}");
        }
    }
    let mut changed = bytes;
    let at = section(&changed, SectionKind::Weights).offset as usize;
    changed[at] ^= 1;
    fs::write(&file, changed).unwrap();
    llamac(["inspect", text(&file), "--verify"]).refuses(&["section weights is damaged"]);
    assert!(Program::open(&file).is_ok(), "weights are checked on request only");
}

#[test]
fn other_versions_and_machines_are_refused() {
    let (dir, file) = small();
    let bytes = fs::read(&file).unwrap();
    let mut version = bytes.clone();
    version[8] += 1;
    assert!(
        refusal(dir.path(), &version, &OpenOptions::default())
            .contains(&format!("format {}, this llamac reads format {FORMAT_VERSION}", FORMAT_VERSION + 1))
    );
    let mut magic = bytes.clone();
    magic[1] = b'L';
    assert!(refusal(dir.path(), &magic, &OpenOptions::default()).contains("no llamac artifact"));

    let mut other = bytes.clone();
    let mut h = header(&other);
    h.architecture = "vax_64".into();
    put_header(&mut other, &h);
    assert!(refusal(dir.path(), &other, &OpenOptions::default()).contains("compiled for vax_64"));

    let least = Features { architecture: "x86_64".into(), names: ["sse4.1", "sse4.2"].map(String::from).into() };
    let old = OpenOptions { features: least, ..OpenOptions::default() };
    if header(&bytes).features.iter().any(|f| f == "avx2") {
        let error = refusal(dir.path(), &bytes, &old);
        assert!(error.contains("avx2") && error.contains("--target x86-64-v2"), "{error}");
    }
    // What is compiled for less runs on less.
    let v2 = dir.path().join("v2.llamac");
    llamac(["compile", text(&model("stories260K")), "-o", text(&v2), "-c", "64", "--target", "x86-64-v2"]).ok();
    assert!(!header(&fs::read(&v2).unwrap()).features.iter().any(|f| f.starts_with("avx")));
    assert!(Program::open(&v2).is_ok());
}

#[test]
fn wrong_section_tables_are_refused() {
    let (dir, file) = small();
    let bytes = fs::read(&file).unwrap();
    type Edit = fn(&mut Header);
    let edits: [(Edit, &str); 5] = [
        (|h| h.sections[2].offset = h.sections[1].offset, "overlaps"),
        (|h| h.sections[6].bytes += 1, "the file"),
        (|h| h.sections[6].offset = !4095, "the file"),
        (|h| h.sections[3].offset += 8, "multiple"),
        (|h| h.sections.swap(0, 1), "wrong place"),
    ];
    for (edit, needle) in edits {
        let mut changed = bytes.clone();
        let mut h = header(&bytes);
        edit(&mut h);
        put_header(&mut changed, &h);
        let error = refusal(dir.path(), &changed, &OpenOptions::default());
        assert!(error.contains("section table") && error.contains(needle), "{error}");
    }
}

#[test]
fn contents_of_another_kind_are_refused() {
    let (dir, file) = small();
    let bytes = fs::read(&file).unwrap();
    for kind in [SectionKind::Manifest, SectionKind::Program, SectionKind::Code] {
        for contents in [&b""[..], b"{}", b"[", b"\xff", &[0xff; 100], &[0; 100]] {
            let error = refusal(dir.path(), &replaced(&bytes, kind, contents), &OpenOptions::default());
            assert!(error.contains(&format!("section {kind} cannot be used")), "{error}");
        }
    }
    let error = refusal(dir.path(), &replaced(&bytes, SectionKind::Graph, b"\xff"), &OpenOptions::default());
    assert!(error.contains("section graph cannot be used"), "{error}");
    // What the code needs stands in two places: a header that asks for less is found out.
    let mut less = header(&bytes);
    less.features.clear();
    let mut changed = bytes;
    put_header(&mut changed, &less);
    assert!(refusal(dir.path(), &changed, &OpenOptions::default()).contains("section code cannot be used"));
}

fn leftovers(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.ends_with(".partial")).collect()
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bard.llamac");
    fs::write(&file, "old").unwrap();
    // Blocks of 512 or 1024 bytes: 1 MB at most, where the weights have 7.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 1000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_llamac")]);
    let out = command.args(["compile", text(&bard()), "-o", text(&file)]).output().unwrap();
    finished(&out).refuses(&["bard.llamac", "could not be written", "nothing was changed"]);
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert_eq!(leftovers(dir.path()), [] as [&str; 0]);
}

#[test]
fn killed_compiles_leave_the_old_file_and_the_next_one_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bard.llamac");
    fs::write(&file, "old").unwrap();
    let b = bard();
    let args = ["compile", text(&b), "-o", text(&file)];
    for ms in [0, 3, 6, 10, 15, 20, 30, 45] {
        let mut child = bounded().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(ms));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = fs::read(&file).unwrap();
        assert!(now == b"old" || Program::open_with(&file, &verifying()).is_ok(), "after {ms} ms");
    }
    // A leftover for certain, and files that only look like one.
    fs::write(dir.path().join(".bard.llamac.AbCdEf.partial"), "x").unwrap();
    fs::write(dir.path().join(".bard.llamac.other.name.partial"), "x").unwrap();
    llamac(args).ok();
    assert_eq!(leftovers(dir.path()), [".bard.llamac.other.name.partial"]);
    Program::open_with(&file, &verifying()).unwrap();
}

#[test]
fn outputs_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let b = bard();
    llamac(["compile", text(&b), "-o", text(dir.path())]).refuses(&["is a directory", "-o"]);
    let missing = dir.path().join("no/such/place.llamac");
    llamac(["compile", text(&b), "-o", text(&missing)]).refuses(&["no file can be made there", "-o"]);
    let broken = support::Broken::copy("stories260K");
    let before = broken.read("model.safetensors");
    let weights = broken.file("model.safetensors");
    llamac(["compile", text(broken.path()), "-o", text(&weights)]).refuses(&["part of the model", "-o"]);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&weights, &link).unwrap();
    llamac(["compile", text(broken.path()), "-o", text(&link)]).refuses(&["part of the model"]);
    assert_eq!(broken.read("model.safetensors"), before);
    let graph = dir.path().join("mlp.lir");
    fs::copy(root().join("examples/mlp.lir"), &graph).unwrap();
    llamac(["compile", text(&graph), "-o", text(&graph)]).refuses(&["part of the model"]);
    let compiled = dir.path().join("mlp");
    llamac(["compile", text(&graph), "-o", text(&compiled)]).refuses(&["without weights"]);
    llamac(["compile", text(&b), "-o", "x", "--target", "pdp-11"]).refuses(&["--target", "pdp-11", "x86-64-v3"]);
    let none = dir.path().join("none");
    llamac(["inspect", text(&none)]).refuses(&["cannot be read"]);
    llamac(["inspect", text(&graph)]).refuses(&["no llamac artifact"]);
}

#[test]
fn texts_of_the_compiler() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (emit, needle) in [("ir", "graph @bard"), ("clif", "function"), ("asm", "// kernel 0")] {
        llamac(["compile", text(&bard()), "-o", text(&out), "--emit", emit]).ok();
        assert!(fs::read_to_string(&out).unwrap().contains(needle), "{emit}");
    }
}

#[test]
fn errors_and_manifests_are_what_libraries_expect() {
    let (_dir, file) = small();
    let program = Program::open(&file).unwrap();
    let manifest: &Manifest = program.manifest();
    assert_eq!((manifest.bounds.tokens, manifest.name.as_str()), (64, "stories260K"));
    assert_eq!(manifest.memory.weights as u64, program.header().section(SectionKind::Weights).unwrap().bytes);
    let tokenizer = program.tokenizer().unwrap().unwrap();
    assert!(!tokenizer.encode("Once upon", true).unwrap().is_empty());
    let mut session = program.session().unwrap();
    session.prefill(0, &[1, 5, 9]).unwrap();
    let first = session.decode(&[(0, 2)]).unwrap().data.to_vec();
    session.rewind(0, 3).unwrap();
    assert_eq!(session.decode(&[(0, 2)]).unwrap().data, first);
    assert!(matches!(Program::open("/no/such/file"), Err(ArtifactError::Read { .. })));
}
