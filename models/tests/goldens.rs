//! The importer and the reference interpreter against Hugging Face transformers in f64.

use llamac_ir::interp::{Input, Interpreter};
use llamac_ir::{Bounds, Sizes, TensorSource};
use llamac_models::{ModelDir, import};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn path(name: &str) -> PathBuf {
    let folder = if name == "bard" { "examples/models" } else { "tests/models" };
    root().join(folder).join(name)
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().expect("an array").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn argmax(v: &[f64]) -> usize {
    (0..v.len()).fold(0, |best, i| if v[i] > v[best] { i } else { best })
}

/// Everything is f64 in the reference but RoPE's angles, which are made alike; the constants 1/D, 1/√d and eps are f32 in
/// the graph, a relative 6e-8 at most.
const TOLERANCE: f64 = 2e-7;

/// Runs every case of a golden: the logits of all positions in one step, then `greedy` tokens of the greedy continuation.
fn check(name: &str, greedy: usize) {
    let directory = ModelDir::open(&path(name)).unwrap();
    let weights = directory.weights().unwrap();
    let text = std::fs::read_to_string(root().join(format!("tests/golden/{name}.json"))).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let context = directory.config().context.min(1024);
    let bounds = Bounds { rows: context, outputs: context, tokens: context, slots: 1 };
    let dtype = |n: &str| weights.tensor(n).map(|t| t.dtype);
    let graph = import(directory.config(), name, bounds, &dtype).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let ids: Vec<i32> = numbers(&case["ids"]).iter().map(|&x| x as i32).collect();
        let mut interpreter = Interpreter::<f64>::new(&graph, &weights);
        let mut step = |ids: &[i32], first: usize| {
            let n = ids.len();
            let positions: Vec<i32> = (first..first + n).map(|p| p as i32).collect();
            let outputs: Vec<i32> = (0..n as i32).collect();
            let sizes = Sizes { rows: n, outputs: n, tokens: first + n };
            let inputs = [
                ("tokens", Input::Int(ids)),
                ("positions", Input::Int(&positions)),
                ("slots", Input::Int(&vec![0; n])),
                ("outputs", Input::Int(&outputs)),
            ];
            interpreter.step(sizes, &inputs).unwrap()[0].floats().to_vec()
        };
        let vocab = directory.config().vocab;
        let logits = step(&ids, 0);
        let last = &logits[logits.len() - vocab..];
        let want = numbers(&case["logits_last"]);
        let difference: f64 = last.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let norm: f64 = want.iter().map(|b| b.powi(2)).sum::<f64>().sqrt();
        assert!(difference / norm <= TOLERANCE, "{name}: relative error {:e}", difference / norm);
        let got: Vec<f64> = logits.chunks(vocab).map(|row| argmax(row) as f64).collect();
        let gaps = numbers(&case["gap_per_position"]);
        for (i, want) in numbers(&case["argmax_per_position"]).into_iter().enumerate() {
            assert!(got[i] == want || gaps[i] < 1e-6, "{name}: position {i}: found {}, expected {want}", got[i]);
        }
        let mut next = argmax(last);
        for (i, want) in numbers(&case["greedy"]).into_iter().take(greedy).enumerate() {
            assert_eq!(next as f64, want, "{name}: greedy token {i}");
            next = argmax(&step(&[next as i32], ids.len() + i));
        }
    }
}

#[test]
fn tiny_llama2() {
    check("tiny-llama2", 16);
}

#[test]
fn tiny_llama31() {
    check("tiny-llama31", 16);
}

#[test]
fn tiny_olmo2() {
    check("tiny-olmo2", 16);
}

#[test]
fn stories() {
    check("stories260K", 200);
}

#[test]
fn bard() {
    check("bard", 16);
}
