//! `llamac perplexity` and what it stands on: windows, likelihoods, errors.

mod library;
mod support;

use library::{Build, exact, golden_text, open, pool};
use llamac::model::Sizes;
use llamac_passes::FusionSet;
use llamac_runtime::session::PerplexityError;
use llamac_runtime::text::Tokenizer;
use llamac_runtime::{Generator, Tier};
use serde_json::Value;
use std::path::Path;
use support::{bard, llamac, model, root};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn heldout() -> Value {
    serde_json::from_str::<Value>(&golden_text("bard.json")).unwrap()["heldout"].clone()
}

fn generator(window: usize) -> Generator {
    let sizes = Sizes { context: Some(window), outputs: Some(32), ..Sizes::default() };
    Build::new(&open("bard", &sizes), &exact(FusionSet::All)).generator(&pool(2), Tier::detect())
}

fn tokens() -> Vec<u32> {
    let vocab = generator(16).tokens();
    let tokenizer = Tokenizer::from_file(&bard().join("tokenizer.json"), vocab).unwrap();
    tokenizer.encode(&golden_text("bard.heldout.txt"), false).unwrap()
}

/// The whole text against the reference in f64.
#[test]
fn the_held_out_text_is_predicted_as_well_as_in_f64() {
    let golden = heldout();
    let file = root().join("tests/golden/bard.heldout.txt");
    let model = bard();
    let score = |options: &[&str]| {
        let args = ["perplexity", text(&model), "-f", text(&file), "--format", "json", "-t", "2"];
        let out: Value = serde_json::from_str(&llamac(args.iter().chain(options)).ok()).unwrap();
        let row = out[0].clone();
        assert_eq!(row["tokens"], golden["tokens"]);
        assert_eq!(row["window"], golden["window"]);
        (row["act"].clone(), row["perplexity"].as_f64().unwrap(), row["nll"].as_f64().unwrap())
    };
    let (perplexity, nll) = (golden["perplexity"].as_f64().unwrap(), golden["nll_per_token"].as_f64().unwrap());
    let (act, found, entropy) = score(&["--act", "f32"]);
    assert_eq!(act, "f32");
    assert!((found / perplexity - 1.0).abs() < 1e-5, "{found}, expected {perplexity}");
    assert!((entropy - nll).abs() < 2e-6, "{entropy}, expected {nll}");
    // The weights are bf16, so the activations are by default: 129.732 for 129.728 where this was written.
    let (act, found, entropy) = score(&[]);
    assert_eq!(act, "bf16");
    assert!((found / perplexity - 1.0).abs() < 2e-4, "{found}, expected {perplexity}");
    assert!((entropy - nll).abs() < 2e-4, "{entropy}, expected {nll}");
}

/// Windows stand alone: each is what a prompt of its tokens gives, position by position.
#[test]
fn windows_begin_anew_and_the_rest_is_dropped() {
    let (tokens, begin, window) = (tokens(), 0, 24);
    let text = &tokens[..2 * (window - 1) + 5];
    let mut generator = generator(window);
    let mut seen = vec![];
    let found = generator.perplexity(text, Some(begin), window, |done, all| seen.push((done, all))).unwrap();
    assert_eq!((found.windows, found.tokens, found.dropped), (2, 2 * (window - 1), 5));
    assert_eq!(seen, [(0, 46), (23, 46), (46, 46)]);
    let mut sum = 0.0;
    for part in text.chunks_exact(window - 1) {
        for (i, &target) in part.iter().enumerate() {
            let mut prompt = vec![begin];
            prompt.extend(&part[..i]);
            generator.clear();
            let logits = generator.prefill(0, &prompt).unwrap();
            let e: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            sum += e.ln() - f64::from(logits[target as usize]);
        }
    }
    assert!((found.nll - sum).abs() < 1e-3, "{} and {sum}", found.nll);
    let without = generator.perplexity(text, None, window, |_, _| {}).unwrap();
    assert_eq!((without.windows, without.tokens, without.dropped), (2, 2 * (window - 1), 3));
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let mut generator = generator(16);
    let window = |window| Err(PerplexityError::Window { window, context: 16 });
    assert_eq!(generator.perplexity(&[1; 64], Some(0), 17, |_, _| {}), window(17));
    assert_eq!(generator.perplexity(&[1; 64], Some(0), 1, |_, _| {}), window(1));
    let short = Err(PerplexityError::Short { tokens: 14, needed: 15 });
    assert_eq!(generator.perplexity(&[1; 14], Some(0), 16, |_, _| {}), short);
    assert!(generator.perplexity(&[u32::MAX; 15], Some(0), 16, |_, _| {}).is_err());
}

#[test]
fn an_artifact_scores_as_its_model_does() {
    let dir = tempfile::tempdir().unwrap();
    let artifact = dir.path().join("bard.llamac");
    let file = root().join("examples/models/bard/README.md");
    let score = |path: &Path, options: &[&str]| {
        let args = ["perplexity", text(path), "-f", text(&file), "-w", "64", "--format", "jsonl"];
        let out: Value = serde_json::from_str(&llamac(args.iter().chain(options)).ok()).unwrap();
        (out["tokens"].clone(), out["act"].clone(), out["perplexity"].as_f64().unwrap())
    };
    // The artifact gives the logits of one row a step. In f32 that changes the order of sums; where values are rounded to bf16
    // in between, such a change may carry one over a boundary.
    for (act, most) in [("f32", 1e-4), ("bf16", 1e-3)] {
        llamac(["compile", text(&bard()), "-o", text(&artifact), "-c", "64", "--act", act]).ok();
        let (one, other) = (score(&bard(), &["--act", act]), score(&artifact, &[]));
        assert_eq!((&one.0, &one.1), (&other.0, &other.1));
        assert_eq!(one.1, act);
        assert!((one.2 / other.2 - 1.0).abs() < most, "{one:?} {other:?}");
    }
}

#[test]
fn bad_input_is_refused() {
    let (b, dir) = (bard(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("bad.txt"), b"ab\xff").unwrap();
    std::fs::write(at("short.txt"), b"ROMEO:").unwrap();
    let score = |model: &Path, file: &Path, rest: &[&str]| {
        llamac(["perplexity", text(model), "-f", text(file)].iter().chain(rest))
    };
    score(&b, &at("none.txt"), &[]).refuses(&["none.txt"]);
    score(&b, dir.path(), &[]).refuses(&["directory", "text file"]);
    score(&b, &at("bad.txt"), &[]).refuses(&["byte 2", "UTF-8"]);
    score(&b, &at("short.txt"), &[]).refuses(&["short.txt", "511", "smaller window"]);
    score(&b, &at("short.txt"), &["--window", "1"]).refuses(&["--window", "at least 2"]);
    score(&b, &at("short.txt"), &["--window", "100000"]).refuses(&["--window", "100000", "context"]);
    score(&b, &at("short.txt"), &["-c", "64"]).refuses(&["--window", "512", "64"]);
    score(&model("tiny-llama2"), &at("short.txt"), &["-w", "8"]).refuses(&["tokenizer"]);
    llamac(["perplexity", text(&b)]).refuses_use();
}
