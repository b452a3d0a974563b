//! A quantised model however it is run: every type of weights and of activations, fused and not, in every tier and with one,
//! two and three threads, against the interpreter on the same graph after `precision`; prompts whole, in chunks and row by row.

mod library;

use library::{Build, bits, distance, options, pool, tiers};
use llamac::compile::run_passes;
use llamac::export::export;
use llamac::model::{Model, Sizes};
use llamac_ir::Graph;
use llamac_ir::interp::{Input, Interpreter};
use llamac_models::gguf::write::Numbers;
use llamac_models::synth::Synth;
use llamac_passes::manager::When;
use llamac_passes::{Activations, CacheType, FusionSet, Options, precision};
use llamac_runtime::{Data, Pool, Session, Tier};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// Rows of 256, which every block divides, and 512.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "vocab_size": 77,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true
}"#;
/// More rows than any tier takes for few.
const SLOTS: usize = 26;
/// Where nothing but weights is rounded: f32 sums, as for weights of 16 bits.
const EXACT: f64 = 2e-5;

fn directory() -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a directory");
    let (description, path) = (dir.path().join("described.json"), dir.path().join("model"));
    std::fs::write(&description, CONFIG).expect("written");
    Synth::named(description.to_str().expect("UTF-8")).expect("a configuration").write(&path, 5).expect("a model");
    (dir, path)
}

/// With `--quant`.
fn model(quant: &str, sizes: &Sizes) -> Model {
    let (_dir, path) = directory();
    let mut model = Model::open(&path, None, sizes).expect("a model that opens");
    let done = model.quantise(quant.parse().expect("a type")).expect("from bf16");
    assert!(done.kept.is_empty() && (quant == "bf16") == done.changed.is_empty(), "{quant}: {done:?}");
    model
}

/// The same out of a GGUF file, whose blocks are made once and not for every build.
fn stored(quant: &str, sizes: &Sizes) -> Model {
    let (dir, path) = directory();
    let (file, model) = (dir.path().join("model.gguf"), Model::open(&path, None, sizes).expect("a model that opens"));
    export(&model, &file, Numbers::from_name(quant), 1, &mut |_, _| {}).expect("a file");
    Model::open(&file, None, sizes).expect("a model that opens")
}

/// The graph as it is after `precision`.
fn narrowed(graph: &Graph, options: &Options) -> Graph {
    let mut graph = graph.clone();
    run_passes(&mut graph, options, &mut |pass, when, _| match (pass, when) {
        ("precision", When::After) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .expect("passes");
    graph
}

/// A step with a row of every slot, then one with every fourth, then a row alone: no row sees another, but all see their past.
fn steps() -> Vec<[Vec<i32>; 4]> {
    let step = |position: i32, slots: Vec<i32>| {
        let tokens = slots.iter().map(|&s| (s * 31 + position * 7 + 3) % 77).collect();
        let outputs = (0..slots.len() as i32).collect();
        [tokens, vec![position; slots.len()], slots, outputs]
    };
    let all = SLOTS as i32;
    vec![step(0, (0..all).collect()), step(1, (0..all).step_by(4).collect()), step(2, vec![4])]
}

const NAMES: [&str; 4] = ["tokens", "positions", "slots", "outputs"];

/// The logits of every row of every step.
type Rows<T> = Vec<Vec<T>>;

fn interpreted(graph: &Graph, model: &Model, round: bool) -> Rows<f64> {
    let source = model.source.as_deref().expect("weights");
    let mut interpreter = Interpreter::<f64>::new(graph, source).round_casts(round);
    let mut rows = vec![];
    for step in steps() {
        let inputs: Vec<_> = NAMES.iter().zip(&step).map(|(n, v)| (*n, Input::Int(v))).collect();
        let n = step[0].len();
        let sizes = llamac_ir::Sizes { rows: n, outputs: n, tokens: step[1][0] as usize + 1 };
        let logits = interpreter.step(sizes, &inputs).expect("a step").remove(0);
        rows.extend(logits.floats().chunks_exact(77).map(<[f64]>::to_vec));
    }
    rows
}

fn ran(session: &mut Session) -> Rows<f32> {
    let mut rows = vec![];
    for step in steps() {
        let inputs: Vec<_> = NAMES.iter().zip(&step).map(|(n, v)| (*n, Data::I32(v))).collect();
        let outputs = session.step(&inputs).expect("a step");
        let Some(Data::F32(logits)) = outputs.get("logits") else { panic!("logits") };
        rows.extend(logits.chunks_exact(77).map(<[f32]>::to_vec));
    }
    rows
}

fn flat<T: Copy>(rows: &Rows<T>) -> Vec<T> {
    rows.concat()
}

/// What the interpreter says, and how near code must come.
struct Judge {
    want: Rows<f64>,
    /// What rounding the activations costs: ‖rounded − not rounded‖ / ‖not rounded‖; 0 where they are f32.
    cost: f64,
}

impl Judge {
    fn new(model: &Model, options: &Options) -> Judge {
        let graph = narrowed(&model.graph, options);
        let want = interpreted(&graph, model, true);
        if precision::in_use(&graph) == "f32" {
            return Judge { want, cost: 0.0 };
        }
        let exact = flat(&interpreted(&graph, model, false));
        let rounded: Vec<f32> = flat(&want).iter().map(|&x| x as f32).collect();
        let cost = distance(&rounded, &exact);
        assert!(cost > 1e-4, "{} rounds nothing", precision::in_use(&graph));
        Judge { want, cost }
    }

    /// Without rounding all rows agree up to f32. With it, a value at the boundary of two steps may round to either side, after
    /// which the row's later roundings are others: such rows differ by as much as the rounding costs, √2 of it if all
    /// roundings are others. Boundaries are met seldom, so of the rows that compute the same numbers most agree up to f32.
    fn agrees(&self, found: &Rows<f32>, same_numbers: bool, at: &str) {
        let all: Vec<f64> = flat(&self.want);
        let error = distance(&flat(found), &all);
        let most = if self.cost == 0.0 { EXACT } else { 2.0 * self.cost };
        assert!(error <= most, "{at}: relative error {error:.2e}, rounding costs {:.2e}", self.cost);
        if self.cost > 0.0 && same_numbers {
            let near = found.iter().zip(&self.want).filter(|(a, b)| distance(a, b) <= EXACT).count();
            assert!(near * 4 >= found.len(), "{at}: {near} of {} rows agree up to f32", found.len());
        }
    }
}

fn check(model: &Model, options: &Options, tiers: &[Tier], pools: &[Arc<Pool>], at: &str) {
    let judge = Judge::new(model, options);
    let build = Build::new(model, options);
    for &tier in tiers {
        let mut first: Option<Rows<f32>> = None;
        for pool in pools {
            let at = format!("{at}, {}, {} threads", tier.name(), pool.threads());
            let found = ran(&mut build.session(pool, tier));
            if let Some(first) = &first {
                assert!(bits(&flat(first)) == bits(&flat(&found)), "{at}: other bits than with one thread");
            } else {
                // Tiles of bf16 round bytes and block weights once more.
                judge.agrees(&found, tier != Tier::Amx, &at);
                first = Some(found);
            }
        }
    }
}

fn every_way(quants: &[&str], acts: &[Activations]) {
    let (tiers, pools) = (tiers(), [pool(1), pool(2), pool(3)]);
    let sizes = Sizes { context: Some(16), chunk: Some(SLOTS), slots: Some(SLOTS), outputs: Some(SLOTS) };
    for quant in quants {
        let model = stored(quant, &sizes);
        for &act in acts {
            for fusion in [FusionSet::None, FusionSet::All] {
                let options = options(fusion, act, CacheType::F32);
                let at = format!("--quant {quant} --act {act} --fusion {fusion}");
                // Unfused code has the same threads to divide by; three of them are enough for fused code.
                let pools = if fusion == FusionSet::All { &pools[..] } else { &pools[..2] };
                check(&model, &options, &tiers, pools, &at);
            }
        }
    }
}

#[test]
fn blocks_of_32_however_they_are_run() {
    every_way(&["q8_0"], Activations::ALL);
    every_way(&["q4_0", "q4_1", "q5_0", "q5_1"], &[Activations::F32, Activations::Bf16, Activations::Auto]);
}

#[test]
fn blocks_of_256_however_they_are_run() {
    every_way(&["q4_k_m"], Activations::ALL);
    every_way(&["q5_k_m", "q6_k"], &[Activations::F32, Activations::Bf16, Activations::Auto]);
}

#[test]
fn floats_however_they_are_run() {
    every_way(&["bf16"], Activations::ALL);
    every_way(&["f16", "f32"], &[Activations::F32, Activations::Bf16]);
}

/// A prompt whole, in chunks of 7 and row by row: the same, up to f32 where nothing is rounded, else up to what that costs.
#[test]
fn chunks_of_a_prompt_change_nothing() {
    let ids: Vec<u32> = (0..40).map(|i| (i * i * 5 + i) % 77).collect();
    let pool = pool(2);
    for quant in ["q8_0", "q4_0", "q4_k_m", "q6_k", "bf16"] {
        let model = model(quant, &Sizes { context: Some(64), chunk: Some(64), slots: Some(1), outputs: Some(1) });
        for act in [Activations::F32, Activations::Bf16, Activations::Auto] {
            let build = Build::new(&model, &options(FusionSet::All, act, CacheType::F32));
            let exact = Build::new(&model, &options(FusionSet::All, Activations::F32, CacheType::F32));
            for tier in tiers() {
                let prefill = |build: &Build, chunk: usize| {
                    let mut generator = build.generator(&pool, tier);
                    generator.set_chunk(chunk);
                    generator.prefill(0, &ids).expect("a prompt that fits").to_vec()
                };
                let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let whole = wide(&prefill(&build, 64));
                let cost = distance(&prefill(&exact, 64), &whole);
                for chunk in [7, 1] {
                    let error = distance(&prefill(&build, chunk), &whole);
                    let most = EXACT.max(3.0 * cost);
                    assert!(error <= most, "{quant}, act {act}, {}, chunks of {chunk}: {error:.2e}", tier.name());
                }
            }
        }
    }
}
