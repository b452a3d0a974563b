//! `llamac perplexity` and what it stands on: windows, likelihoods, errors.

mod library;
mod support;

use library::{Build, golden_text, open, pool};
use llamac::model::Sizes;
use llamac_passes::{FusionSet, Options};
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
    Build::new(&open("bard", &sizes), &Options::fusing(FusionSet::All)).generator(&pool(2), Tier::detect())
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
    let out = llamac(["perplexity", text(&bard()), "-f", text(&file), "--format", "json", "-t", "2"]).ok();
    let out: Value = serde_json::from_str(&out).unwrap();
    let row = &out[0];
    assert_eq!(row["tokens"], golden["tokens"]);
    assert_eq!(row["window"], golden["window"]);
    let (found, want) = (row["perplexity"].as_f64().unwrap(), golden["perplexity"].as_f64().unwrap());
    assert!((found / want - 1.0).abs() < 1e-5, "{found}, expected {want}");
    let (found, want) = (row["nll"].as_f64().unwrap(), golden["nll_per_token"].as_f64().unwrap());
    assert!((found - want).abs() < 2e-6, "{found}, expected {want}");
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
    llamac(["compile", text(&bard()), "-o", text(&artifact), "-c", "64"]).ok();
    let score = |path: &Path| {
        let run = llamac(["perplexity", text(path), "-f", text(&file), "-w", "64", "--format", "jsonl"]);
        let out: Value = serde_json::from_str(&run.ok()).unwrap();
        (out["tokens"].clone(), out["perplexity"].as_f64().unwrap())
    };
    let (one, other) = (score(&bard()), score(&artifact));
    assert_eq!(one.0, other.0);
    assert!((one.1 / other.1 - 1.0).abs() < 1e-4, "{one:?} {other:?}");
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
