//! What the tests share: the repository's small models, running the pipeline, comparing by the interpreter.
#![allow(dead_code, reason = "each test file uses its own part")]

use llamac_ir::interp::{Input, Interpreter};
use llamac_ir::{Bounds, FusionKind, Graph, Op, Sizes, TensorSource};
use llamac_models::{ModelDir, import};
use llamac_passes::manager::Finished;
use llamac_passes::{Activations, FusionSet, Options, When, pipeline};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Where the models of this repository are.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The models that are small enough for the interpreter.
pub const MODELS: &[&str] = &["tiny-llama2", "tiny-llama31", "tiny-olmo2"];

/// A model of the repository as a graph of primitives, for steps of at most 8 rows over 16 tokens of 2 slots.
pub fn model(name: &str) -> (Graph, impl TensorSource) {
    let directory = ModelDir::open(&root().join("tests/models").join(name)).expect("a model");
    let weights = directory.weights().expect("weights");
    let bounds = Bounds { rows: 8, outputs: 2, tokens: 16, slots: 2 };
    let graph = import(directory.config(), name, bounds, &|n| weights.tensor(n).map(|t| t.dtype)).expect("a graph");
    (graph, weights)
}

/// These fusions, and activations that are not rounded: what a graph computes stays the same, not only nearly.
pub fn exact(fusion: FusionSet) -> Options {
    let mut options = Options::fusing(fusion);
    options.act = Activations::F32;
    options
}

/// Runs all graph passes.
pub fn optimized(graph: &Graph, options: &Options) -> (Graph, Finished) {
    let mut graph = graph.clone();
    let finished = pipeline::run(&mut graph, options, &mut |_, _, _| ControlFlow::Continue(())).expect("a valid run");
    (graph, finished)
}

/// The graph after each pass.
pub fn stages(graph: &Graph, options: &Options) -> Vec<(&'static str, Graph)> {
    let mut graph = graph.clone();
    let mut stages = Vec::new();
    pipeline::run(&mut graph, options, &mut |pass, when, g| {
        if when == When::After {
            stages.push((pass, g.clone()));
        }
        ControlFlow::Continue(())
    })
    .expect("a valid run");
    stages
}

/// The graph after one pass of the pipeline.
pub fn stop_after(graph: &Graph, options: &Options, last: &str) -> (Graph, Finished) {
    let mut graph = graph.clone();
    let finished = pipeline::run(&mut graph, options, &mut |pass, when, _| {
        if when == When::After && pass == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("a valid run");
    assert!(finished.stopped, "{last} runs");
    (graph, finished)
}

/// Logits of a language model over four steps: a prefill of two slots, a row of each, and a mixed batch.
pub fn logits(graph: &Graph, source: &dyn TensorSource) -> Vec<f64> {
    // Tokens, positions, slots, outputs.
    let steps: &[[&[i32]; 4]] = &[
        [&[5, 9, 2, 7, 11], &[0, 1, 2, 0, 1], &[0, 0, 0, 1, 1], &[2, 4]],
        [&[3, 4], &[3, 2], &[0, 1], &[0, 1]],
        [&[8], &[4], &[0], &[0]],
        [&[1, 6, 3, 2], &[5, 3, 4, 5], &[0, 1, 1, 1], &[3, 0]],
    ];
    let mut interpreter = Interpreter::<f64>::new(graph, source);
    let mut all = Vec::new();
    for &[tokens, positions, slots, outputs] in steps {
        let present = positions.iter().max().map_or(0, |&p| p as usize + 1);
        let sizes = Sizes { rows: tokens.len(), outputs: outputs.len(), tokens: present };
        let inputs = [
            ("tokens", Input::Int(tokens)),
            ("positions", Input::Int(positions)),
            ("slots", Input::Int(slots)),
            ("outputs", Input::Int(outputs)),
        ];
        all.extend_from_slice(&interpreter.step(sizes, &inputs).expect("a step")[0].floats());
    }
    all
}

/// ‖a − b‖ / ‖b‖
pub fn error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(x, y)| x - y)) / norm(&mut b.iter().copied()).max(1e-30)
}

/// Names of the fusions of a kind, in order.
pub fn fusions(graph: &Graph, kind: FusionKind) -> Vec<&str> {
    let named = graph.order().iter().filter_map(|&i| match graph.op(i) {
        Op::Fusion(f) if f.kind == kind => Some(f.name.as_str()),
        _ => None,
    });
    named.collect()
}

/// The steps of a graph: what is neither a leaf nor a view. A fusion as `kind name`.
pub fn steps(graph: &Graph) -> Vec<String> {
    let steps = graph.order().iter().map(|&i| graph.op(i)).filter(|op| !op.is_leaf() && !op.is_view());
    steps
        .map(|op| match op {
            Op::Fusion(f) => format!("{} {}", f.kind, f.name),
            op => op.mnemonic().to_string(),
        })
        .collect()
}
