//! Quantised models as files: the bits of the in-memory compile, the same bytes whatever the threads, `verify` on them, and
//! what `--quant` refuses.

mod library;
mod support;

use library::{Build, bits, pool};
use llamac::model::{Model, Sizes};
use llamac_codegen::Target;
use llamac_passes::{CacheType, FusionSet, Options};
use llamac_runtime::{Generator, OpenOptions, Program, Tier};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use support::{Broken, bard, llamac, model, root};
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn gguf(kind: &str) -> PathBuf {
    root().join(format!("tests/models/bard.gguf/bard-{kind}.gguf"))
}

/// bard, from its directory with `--quant` or from a GGUF file.
fn opened(what: &str) -> Model {
    let sizes = Sizes { context: Some(64), ..Sizes::default() };
    match what.strip_prefix("--quant ") {
        None => Model::open(&gguf(what), None, &sizes).unwrap(),
        Some(quant) => {
            let mut model = Model::open(&bard(), None, &sizes).unwrap();
            model.quantise(quant.parse().unwrap()).unwrap();
            model
        }
    }
}

/// All logits of a prompt and of three decoded tokens after it.
fn logits(generator: &mut Generator) -> Vec<u32> {
    let prompt: Vec<u32> = (1..40).map(|i| i * 13 % 2000).collect();
    let mut all = vec![];
    generator.score(0, &prompt, |_, row| all.extend(bits(row))).unwrap();
    for token in 1..4 {
        all.extend(bits(generator.decode(&[(0, token)]).unwrap().data));
    }
    all
}

#[test]
fn artifacts_give_the_bits_of_the_in_memory_compile() {
    let (dir, pool) = (TempDir::new().unwrap(), pool(2));
    let file = dir.path().join("m.llamac");
    for what in ["--quant q8_0", "--quant q4_0", "--quant q5_k_m", "q4_0", "q4_k_m"] {
        for fusion in [FusionSet::None, FusionSet::All] {
            let model = opened(what);
            let mut options = Options::fusing(fusion);
            options.kv = if fusion == FusionSet::All { CacheType::Q8_0 } else { CacheType::F32 };
            let build = Build::new(&model, &options);
            let manifest = llamac::artifact::manifest(&model, &build.compiled, &options, Target::Native);
            let kv = if fusion == FusionSet::All { "q8_0" } else { "f32" };
            assert_eq!((&*manifest.act, &*manifest.kv), ("q8", kv), "{what}");
            llamac::artifact::write(&file, &model, &build.compiled, &manifest, None, 2, &mut |_, _| {}).unwrap();
            let verifying = OpenOptions { verify_weights: true, ..OpenOptions::default() };
            let program = Program::open_with(&file, &verifying).unwrap();
            assert_eq!(program.executable().program(), &build.compiled.code.program);
            let mut artifact = program.session_on(pool.clone(), Tier::detect()).unwrap();
            let mut memory = build.generator(&pool, Tier::detect());
            assert!(logits(&mut memory) == logits(&mut artifact), "{what}, fusion {fusion}");
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    let dir = TempDir::new().unwrap();
    let (b, q4_k_m) = (bard(), gguf("q4_k_m"));
    for (model, options) in [(&b, &["--quant", "q4_k_m"][..]), (&b, &["--quant", "q8_0"]), (&q4_k_m, &[])] {
        let [one, three] = ["1", "3"].map(|threads| {
            let file = dir.path().join(threads);
            let args = ["compile", text(model), "-o", text(&file), "-t", threads, "-c", "64"];
            llamac(args.iter().chain(options)).ok();
            fs::read(file).unwrap()
        });
        assert!(one == three, "{} {options:?}", model.display());
    }
}

/// What `verify` says of each entry; all must agree.
fn agrees(args: &[&str]) {
    let run = llamac(["verify"].iter().chain(args).chain(&["--format", "json"]));
    let records: Value = serde_json::from_str(&run.ok()).unwrap();
    let records = records.as_array().unwrap();
    assert!(records.len() >= 2);
    for r in records {
        assert_eq!(r["verdict"], "agrees", "{args:?}: {r}");
    }
}

#[test]
fn verify_compares_quantised_models() {
    let (b, q4_0) = (bard(), gguf("q4_0"));
    for options in [
        &["--quant", "q4_k_m"][..],
        &["--quant", "q8_0", "--act", "f32"],
        &["--quant", "q8_0", "--act", "bf16"],
        &["--quant", "q6_k", "--kv", "q8_0"],
        &["--kv", "bf16"],
    ] {
        let args: Vec<&str> = [text(&b), "-c", "64"].iter().chain(options).copied().collect();
        agrees(&args);
    }
    agrees(&[text(&q4_0), "-c", "64"]);
}

/// An artifact against the interpreter of its own graph and weights, and against the model, whose matrices are then given the
/// types that the artifact has.
#[test]
fn verify_compares_artifacts_of_quantised_models() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("small.llamac");
    let (b, olmo, q4_k_m) = (bard(), model("tiny-olmo2"), gguf("q4_k_m"));
    for (model, options) in [
        (&b, &["--quant", "q8_0", "--kv", "q8_0"][..]),
        (&b, &["--quant", "q4_k_m", "--act", "f32"]),
        (&b, &["--quant", "q5_k_m", "--fusion", "none"]),
        (&olmo, &["--quant", "q4_0", "--act", "bf16", "--kv", "bf16"]),
        (&q4_k_m, &[]),
    ] {
        let compile = ["compile", text(model), "-o", text(&file), "-c", "64"];
        llamac(compile.iter().chain(options)).ok();
        agrees(&[text(&file)]);
        agrees(&[text(&file), "--weights", text(model)]);
    }
    // The last one is of a GGUF file, whose tensors have other names than the directory's.
    let run = llamac(["verify", text(&file), "--weights", text(&b)]);
    run.refuses(&["do not belong together", "no weight of the artifact is made of a tensor of the model"]);
}

/// Weights other than the artifact's are found out in spite of what rounding allows.
#[test]
fn verify_tells_another_models_weights() {
    let changed = Broken::copy("bard");
    changed.tensor("model.layers.2.mlp.down_proj.weight", |bytes| {
        let rows: Vec<u8> = bytes.chunks_exact(2 * 768).rev().flatten().copied().collect();
        bytes.copy_from_slice(&rows);
    });
    let file = changed.file("bard.llamac");
    llamac(["compile", text(&bard()), "-o", text(&file), "-c", "64", "--quant", "q4_k_m"]).ok();
    let run = llamac(["verify", text(&file), "--weights", text(changed.path())]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("DIFFERS") && run.stderr.contains("differs from the interpreter"), "{}", run.stderr);
}

#[test]
fn quant_refuses_what_it_cannot_do() {
    let dir = TempDir::new().unwrap();
    let (b, q4_k_m, file) = (bard(), gguf("q4_k_m"), dir.path().join("bard.llamac"));
    let logits = |path: &Path, quant: &str| llamac(["logits", text(path), "--ids", "1", "--quant", quant]);
    for name in ["q3_k", "Q8_0", "q4_k", "int4", ""] {
        logits(&b, name).refuses(&["--quant", name, "q4_k_m", "bf16"]);
        llamac(["export", text(&b), "-o", text(&file), "--quant", name]).refuses(&["--quant", name, "q4_k_m"]);
    }
    // What is in blocks already would lose twice; in floats it loses nothing more, and as it is nothing changes.
    let again = ["bard-q4_k_m.gguf", "token_embd.weight", "is q6_k", "rounded again to q8_0", "leave --quant out"];
    logits(&q4_k_m, "q8_0").refuses(&again);
    llamac(["compile", text(&q4_k_m), "-o", text(&file), "--quant", "q8_0"]).refuses(&again);
    llamac(["bench", text(&q4_k_m), "-p", "1", "-n", "1", "-r", "1", "--quant", "q8_0"]).refuses(&again);
    llamac(["export", text(&q4_k_m), "-o", text(&file), "--quant", "q8_0"])
        .refuses(&["bard-q4_k_m.gguf", "rounded again to q8_0"]);
    assert!(!file.exists());
    logits(&q4_k_m, "f32").ok();
    assert_eq!(logits(&q4_k_m, "q4_k_m").ok(), llamac(["logits", text(&q4_k_m), "--ids", "1"]).ok());
    // An artifact is what it is.
    llamac(["compile", text(&b), "-o", text(&file), "-c", "64"]).ok();
    logits(&file, "q8_0").refuses(&["--quant", "q8_0", "bf16"]);
    llamac(["export", text(&file), "-o", text(&dir.path().join("x.gguf"))])
        .refuses(&["bard.llamac", "compiled already"]);
}

/// Numbers that are none would spoil whole blocks: the tensor is named.
#[test]
fn tensors_that_are_no_numbers_are_named() {
    let changed = Broken::copy("bard");
    let name = "model.layers.1.mlp.up_proj.weight";
    changed.tensor(name, |bytes| bytes[..2].copy_from_slice(&0x7fc0u16.to_le_bytes()));
    let run = llamac(["logits", text(changed.path()), "--ids", "1", "--quant", "q4_0"]);
    assert!(run.stderr.contains(name) && run.stderr.contains("NaN"), "{}", run.stderr);
    let (out, name) = (changed.file("x.gguf"), "blk.1.ffn_up.weight");
    let run = llamac(["export", text(changed.path()), "-o", text(&out), "--quant", "q4_0"]);
    run.refuses(&[name, "NaN", "q4_0"]);
}
