//! What the tests share: the repository's small models, running the pipeline, comparing by the interpreter.
#![allow(dead_code, reason = "each test file uses its own part")]

use llamac_ir::{Bounds, Graph, TensorSource};
use llamac_models::{ModelDir, import};
use llamac_passes::{FusionSet, Options, pipeline};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A model of the repository as a graph of primitives, for steps of at most 8 rows over 16 tokens of 2 slots.
pub fn model(name: &str) -> (Graph, impl TensorSource) {
    let directory = ModelDir::open(&root().join("tests/models").join(name)).expect("a model");
    let weights = directory.weights().expect("weights");
    let bounds = Bounds { rows: 8, outputs: 2, tokens: 16, slots: 2 };
    let graph = import(directory.config(), name, bounds, &|n| weights.tensor(n).map(|t| t.dtype)).expect("a graph");
    (graph, weights)
}

/// Runs all graph passes.
pub fn optimized(graph: &Graph, options: &Options) -> (Graph, llamac_passes::Finished) {
    let mut graph = graph.clone();
    let finished = pipeline::run(&mut graph, options, &mut |_, _, _| ControlFlow::Continue(())).expect("a valid run");
    (graph, finished)
}

pub fn fusing(fusion: FusionSet) -> Options {
    Options::fusing(fusion)
}
