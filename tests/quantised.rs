//! Quantised models against the reference in f64 and against llama.cpp: logits and perplexity of GGUF files that llama.cpp
//! made, and of those that we export.

mod library;

use library::{Build, Golden, directory, distance, golden_text, options, pool};
use llamac::export::export;
use llamac::model::{Model, Sizes};
use llamac_models::gguf::write::Numbers;
use llamac_passes::{Activations, CacheType, FusionSet, Options};
use llamac_runtime::{Generator, Tier};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The relative error of llama.cpp's logits for its own files of bard, the worst of the golden's four cases.
const LLAMA_CPP: [(&str, f64); 6] =
    [("f16", 1.7e-4), ("q8_0", 1.3e-2), ("q6_k", 1.8e-2), ("q5_k_m", 3.5e-2), ("q4_k_m", 7.4e-2), ("q4_0", 6.6e-2)];

/// Files of llama.cpp's quantiser in the repository.
const BUNDLED: [&str; 2] = ["q4_0", "q4_k_m"];

fn bundled(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/models/bard.gguf/bard-{kind}.gguf"))
}

/// The bundled file of this kind, or one that we export.
fn file(kind: &str, to: &TempDir) -> PathBuf {
    if BUNDLED.contains(&kind) { bundled(kind) } else { exported(kind, to) }
}

fn exported(kind: &str, to: &TempDir) -> PathBuf {
    let path = to.path().join(format!("bard-{kind}.gguf"));
    let model = Model::open(&directory("bard"), None, &Sizes::default()).expect("bard");
    let numbers = Numbers::from_name(kind).expect("a kind");
    export(&model, &path, Some(numbers), 2, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
    path
}

fn open(path: &Path, sizes: &Sizes) -> Model {
    Model::open(path, None, sizes).unwrap_or_else(|e| panic!("{e}"))
}

/// Nothing but the weights is rounded.
fn exact() -> Options {
    options(FusionSet::All, Activations::F32, CacheType::F32)
}

/// The worst case of bard's golden.
fn worst(generator: &mut Generator) -> f64 {
    let cases = Golden::read("bard").cases;
    assert_eq!(cases.len(), 4);
    let mut error = |ids: &[u32], want: &[f64]| {
        generator.clear();
        distance(generator.prefill(0, ids).expect("a prompt that fits"), want)
    };
    cases.iter().map(|case| error(&case.ids, &case.logits_last)).fold(0.0, f64::max)
}

/// With nothing rounded but the weights, logits are as near to the reference as llama.cpp's, which rounds activations as well:
/// at most 1.1 times as far. With activations rounded as they are by default, at most 1.6 times.
#[test]
fn logits_are_as_near_to_the_reference_as_llama_cpp_has_them() {
    let (to, pool) = (TempDir::new().expect("a directory"), pool(2));
    for (kind, theirs) in LLAMA_CPP {
        let model = open(&file(kind, &to), &Sizes::default());
        let build = Build::new(&model, &exact());
        assert_eq!((&*build.compiled.code.program.act, &*build.compiled.code.program.kv), ("f32", "f32"));
        let found = worst(&mut build.generator(&pool, Tier::detect()));
        assert!(found <= 1.1 * theirs, "{kind}, --act f32 --kv f32: {found:.2e}, llama.cpp {theirs:.2e}");

        let build = Build::new(&model, &Options::default());
        let default = worst(&mut build.generator(&pool, Tier::detect()));
        assert!(default <= 1.6 * theirs, "{kind}: {default:.2e}, llama.cpp {theirs:.2e}");
        eprintln!("{kind}: {found:.2e}, by default {default:.2e}, llama.cpp {theirs:.2e}");
        // A file that is not quantised at all would pass above.
        assert!(kind == "f16" || found > 1e-3, "{kind}: {found:.2e} is too near");
    }
}

/// What is read from a file is what is computed from it in every tier and without fusion.
#[test]
fn every_tier_is_as_near() {
    let pool = pool(2);
    for kind in BUNDLED {
        let model = open(&bundled(kind), &Sizes::default());
        let theirs = LLAMA_CPP.iter().find(|(name, _)| *name == kind).expect("a figure").1;
        for (options, factor) in [(exact(), 1.1), (Options::default(), 1.6)] {
            let build = Build::new(&model, &options);
            for tier in library::tiers() {
                let found = worst(&mut build.generator(&pool, tier));
                assert!(found <= factor * theirs, "{kind}, {}, act {}: {found:.2e}", tier.name(), options.act);
            }
        }
        let unfused = Options::fusing(FusionSet::None);
        let found = worst(&mut Build::new(&model, &unfused).generator(&pool, Tier::detect()));
        assert!(found <= 1.6 * theirs, "{kind}, unfused: {found:.2e}");
    }
}

/// The perplexity of the held-out text, as `tests/golden/README.md` cuts it.
fn perplexity(path: &Path) -> f64 {
    let golden: Value = serde_json::from_str(&golden_text("bard.json")).expect("JSON");
    let window = golden["heldout"]["window"].as_u64().expect("a window") as usize;
    let model = open(path, &Sizes { context: Some(window), outputs: Some(32), ..Sizes::default() });
    let tokenizer = model.open_tokenizer(2048).unwrap_or_else(|e| panic!("{e}")).expect("a tokenizer");
    let tokens = tokenizer.encode(&golden_text("bard.heldout.txt"), false).expect("ids");
    let mut generator = Build::new(&model, &Options::default()).generator(&pool(2), Tier::detect());
    let found = generator.perplexity(&tokens, model.bos(), window, |_, _| {}).expect("a text of several windows");
    assert_eq!(golden["heldout"]["tokens"], found.tokens);
    found.perplexity()
}

/// By default, with activations rounded to eight bits at block formats.
#[test]
fn perplexity_is_that_of_the_reference_or_of_llama_cpp() {
    let to = TempDir::new().expect("a directory");
    let reference = 129.7276;
    for (kind, want, most) in
        [("f16", reference, 5e-3), ("q8_0", reference, 5e-3), ("q4_k_m", 129.948, 2e-3), ("q4_0", 130.028, 2e-3)]
    {
        let found = perplexity(&file(kind, &to));
        eprintln!("{kind}: {found:.3}, expected {want}");
        assert!((found / want - 1.0).abs() <= most, "{kind}: perplexity {found:.3}, expected {want}");
    }
}
