//! What the tests of the library share: the repository's models and goldens, building them, measuring differences.
#![allow(dead_code, reason = "each test program uses its own part")]

use llamac::compile::{self, Compiled};
use llamac::model::{Model, Sizes};
use llamac_ir::{DType, Graph, Op, TensorSource};
use llamac_passes::{Activations, CacheType, FusionSet, Options};
use llamac_runtime::{Generator, Pool, Region, Session, Tier};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Every model that has a golden.
pub const MODELS: [&str; 5] = ["bard", "stories260K", "tiny-llama2", "tiny-llama31", "tiny-olmo2"];

/// Where a model of the repository is.
pub fn directory(name: &str) -> PathBuf {
    let folder = if name == "bard" { "examples/models" } else { "tests/models" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name)
}

/// A model of the repository.
pub fn open(name: &str, sizes: &Sizes) -> Model {
    Model::open(&directory(name), None, sizes).expect("a model that opens")
}

/// A graph with weights as a model.
pub fn model_of(graph: Graph, source: impl TensorSource + 'static) -> Model {
    let name = graph.name.clone();
    Model {
        path: PathBuf::from(&name),
        name,
        graph,
        source: Some(Box::new(source)),
        directory: None,
        gguf: None,
        warnings: vec![],
    }
}

/// Switches: these fusions, activations and caches.
pub fn options(fusion: FusionSet, act: Activations, kv: CacheType) -> Options {
    let mut options = Options::fusing(fusion);
    (options.act, options.kv) = (act, kv);
    options
}

/// These fusions, and nothing rounded that the model does not have rounded: what is compared exactly says so.
pub fn exact(fusion: FusionSet) -> Options {
    options(fusion, Activations::F32, CacheType::F32)
}

/// Threads.
pub fn pool(threads: usize) -> Arc<Pool> {
    Arc::new(Pool::new(threads).expect("threads"))
}

/// The tiers that this machine has; the others are named on stderr.
pub fn tiers() -> Vec<Tier> {
    let (available, missing): (Vec<Tier>, Vec<Tier>) = Tier::ALL.into_iter().partition(|t| t.available());
    for tier in missing {
        eprintln!("skipped: this machine has no {}", tier.name());
    }
    available
}

/// A compiled model with its weights, of which sessions are made.
#[derive(Clone)]
pub struct Build {
    pub compiled: Arc<Compiled>,
    weights: Arc<Region>,
}

impl Build {
    pub fn new(model: &Model, options: &Options) -> Build {
        let compiled = compile::compile(model.graph.clone(), options, false).expect("a graph that compiles");
        let (weights, _) = compile::pack_weights(&compiled, model, 1, &mut |_, _| {}).expect("weights that pack");
        Build { compiled: Arc::new(compiled), weights }
    }

    pub fn session(&self, pool: &Arc<Pool>, tier: Tier) -> Session {
        self.without(&[], pool, tier)
    }

    pub fn generator(&self, pool: &Arc<Pool>, tier: Tier) -> Generator {
        Generator::new(self.session(pool, tier)).expect("a language model")
    }

    /// A session that lacks the entries of these names, so that others must run their steps.
    pub fn without(&self, entries: &[&str], pool: &Arc<Pool>, tier: Tier) -> Session {
        let c = &self.compiled;
        let mut code = c.code.clone();
        code.program.entries.retain(|e| !entries.contains(&e.name.as_str()));
        let compiled =
            Compiled { graph: c.graph.clone(), passes: c.passes.clone(), plan: c.plan.clone(), code, time: c.time };
        compile::session(&compiled, Arc::clone(&self.weights), Arc::clone(pool), tier).expect("a session")
    }
}

/// The relative error of the last logits that is allowed: rounding of f32 sums, and of products with weights of 16 bits,
/// which are fewer and larger in spread.
pub fn tolerance(graph: &Graph) -> f64 {
    let sixteen = graph
        .order()
        .iter()
        .any(|&i| matches!(graph.op(i), Op::Weight(_)) && graph.ty(graph.result(i)).dtype != DType::F32);
    if sixteen { 2e-5 } else { 1e-5 }
}

/// ‖found − expected‖ / ‖expected‖. Equal infinities agree; a NaN agrees with a NaN only.
pub fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many numbers");
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&a, &b) in found.iter().zip(expected) {
        let a = f64::from(a);
        let d = if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { a - b };
        difference += if d.is_nan() { f64::INFINITY } else { d * d };
        norm += if b.is_finite() { b * b } else { 0.0 };
    }
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// The bits, so that zeros have signs and NaNs are equal to themselves.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// A golden: see `tests/golden/README.md`.
pub struct Golden {
    pub cases: Vec<Case>,
}

/// One prompt and what the reference says to it.
pub struct Case {
    pub ids: Vec<u32>,
    pub logits_last: Vec<f64>,
    pub argmax_per_position: Vec<usize>,
    pub gap_per_position: Vec<f64>,
    pub greedy: Vec<u32>,
}

/// A file of `tests/golden`.
pub fn golden_text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    std::fs::read_to_string(path).expect("a golden")
}

impl Golden {
    pub fn read(name: &str) -> Golden {
        let json: Value = serde_json::from_str(&golden_text(&format!("{name}.json"))).expect("JSON");
        let case = |c: &Value| {
            let numbers = |key: &str| -> Vec<f64> {
                c[key].as_array().expect("an array").iter().map(|x| x.as_f64().expect("a number")).collect()
            };
            let ids = |key: &str| numbers(key).iter().map(|&x| x as u32).collect();
            Case {
                ids: ids("ids"),
                logits_last: numbers("logits_last"),
                argmax_per_position: numbers("argmax_per_position").iter().map(|&x| x as usize).collect(),
                gap_per_position: numbers("gap_per_position"),
                greedy: ids("greedy"),
            }
        };
        let cases: Vec<Case> = json["cases"].as_array().expect("cases").iter().map(case).collect();
        assert!(!cases.is_empty() && cases.iter().all(|c| !c.greedy.is_empty()), "a golden with cases");
        Golden { cases }
    }
}
