//! One meaning, however it is run: the interpreter in f64, unfused code, fused code, code without any one pass, every tier,
//! one, two and three threads, the entry for one row and the entry for many. Activations stay f32, so that all agree but for f32
//! rounding; `quantised_differential` is about rounded ones.

mod library;

use library::{Build, MODELS, bits, distance, exact, model_of, open, pool, tiers, tolerance};
use llamac::model::{Model, Sizes};
use llamac_ir::interp::{self, Interpreter};
use llamac_ir::random::{Config, Step, Values, graph, steps};
use llamac_ir::seeded::SeededSource;
use llamac_ir::{Bounds, DType, FusionKind, Graph, Op, print};
use llamac_passes::pipeline::PIPELINE;
use llamac_passes::{FusionSet, Options};
use llamac_runtime::{Data, Pool, Session, Tier};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How many graphs are made up.
const GRAPHS: u64 = 240;
/// What two ways to run a graph may differ in.
#[derive(Clone, Copy)]
struct Allowed {
    /// How far the numbers found are from those expected.
    measure: fn(&[f32], &[f64]) -> f64,
    most: f64,
}

/// Models: relative to the norm of all logits.
fn logits(model: &Model) -> Allowed {
    Allowed { measure: distance, most: tolerance(&model.graph) }
}

/// Random graphs, whose values are small but may be all that is left of larger ones.
const ELEMENTS: Allowed = Allowed { measure: farthest, most: 4e-5 };

/// The largest |found − expected| / (1 + |expected|).
fn farthest(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many numbers");
    let one = |(&a, &b): (&f32, &f64)| if f64::from(a) == b { 0.0 } else { (f64::from(a) - b).abs() / (1.0 + b.abs()) };
    found.iter().zip(expected).map(one).fold(0.0, |most, d| if d.is_nan() { f64::INFINITY } else { d.max(most) })
}

/// Shows the graph if the test fails below, wherever that is.
struct Shown<'a>(&'a Graph, String);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.1, print(self.0));
        }
    }
}

/// The outputs of all steps, and every state after the last.
type Found = Vec<(String, Vec<f32>)>;
type Expected = Vec<(String, Vec<f64>)>;

/// What the interpreter says.
fn interpreted(model: &Model, given: &[Step]) -> Expected {
    let source = model.source.as_deref().expect("weights");
    let mut interpreter = Interpreter::<f64>::new(&model.graph, source);
    let mut all = vec![];
    for (n, step) in given.iter().enumerate() {
        let tensors = interpreter.step(step.sizes, &step.inputs()).expect("a step");
        for ((name, _), tensor) in model.graph.outputs().iter().zip(tensors) {
            let values = match &tensor.data {
                interp::Data::Int(v) => v.iter().map(|&x| f64::from(x)).collect(),
                interp::Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
                _ => tensor.floats().to_vec(),
            };
            all.push((format!("step {n} ({:?}), output {name}", step.sizes), values));
        }
    }
    for name in states(&model.graph) {
        let values = interpreter.state(&name).expect("a state").to_vec();
        all.push((format!("state {name}"), values));
    }
    all
}

/// What a session says.
fn ran(model: &Model, session: &mut Session, given: &[Step]) -> Found {
    let mut all = vec![];
    for (n, step) in given.iter().enumerate() {
        let inputs: Vec<(&str, Data<'_>)> = step
            .inputs
            .iter()
            .map(|(name, values)| match values {
                Values::Float(v) => (name.as_str(), Data::F32(v)),
                Values::Int(v) => (name.as_str(), Data::I32(v)),
            })
            .collect();
        let outputs = session.step(&inputs).expect("a step");
        for (name, _) in model.graph.outputs() {
            let values = numbers(outputs.get(name).expect("an output"));
            all.push((format!("step {n} ({:?}), output {name}", step.sizes), values));
        }
    }
    for name in states(&model.graph) {
        // What nothing uses is not kept.
        let values = session.state(&name).map(numbers).unwrap_or_default();
        all.push((format!("state {name}"), values));
    }
    all
}

fn states(graph: &Graph) -> Vec<String> {
    let state = |i: &llamac_ir::Inst| match graph.op(*i) {
        Op::State { name } => Some(name.clone()),
        _ => None,
    };
    graph.order().iter().filter_map(state).collect()
}

fn numbers(data: Data<'_>) -> Vec<f32> {
    match data {
        Data::F32(v) => v.to_vec(),
        Data::I32(v) => v.iter().map(|&x| x as f32).collect(),
        Data::Bool(v) => v.iter().map(|&x| f32::from(x)).collect(),
        Data::F16(v) => v.iter().map(|&b| half::f16::from_bits(b).to_f32()).collect(),
        Data::BF16(v) => v.iter().map(|&b| half::bf16::from_bits(b).to_f32()).collect(),
        Data::Blocks(_, v) => v.iter().map(|&b| b.into()).collect(),
    }
}

#[track_caller]
fn agrees(found: &Found, expected: &Expected, allowed: Allowed, at: &str) {
    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        // A state that neither side has touched lies in no memory of the interpreter, or of the program.
        if name.starts_with("state") && (found.is_empty() || expected.is_empty()) {
            let zeros = found.iter().all(|&x| x == 0.0) && expected.iter().all(|&x| x == 0.0);
            assert!(zeros, "{at}: {name} is used by one side only");
            continue;
        }
        let error = (allowed.measure)(found, expected);
        let numbers = || {
            let pair = |(i, (a, b)): (usize, (&f32, &f64))| format!("\n{i}: {a:e}, expected {b:e}");
            found.iter().zip(expected).enumerate().map(pair).take(300).collect::<String>()
        };
        assert!(error <= allowed.most, "{at}: {name}: error {error:e}{}", numbers());
    }
}

#[track_caller]
fn same(found: &Found, expected: &Found, at: &str) {
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        let other = bits(found).iter().zip(&bits(expected)).position(|(a, b)| a != b);
        assert!(found.len() == expected.len() && other.is_none(), "{at}: {name}: other bits at {other:?}");
    }
}

/// Everything fused, without any one pass.
fn without_one_pass() -> Vec<Options> {
    let optional = PIPELINE.iter().filter(|p| p.optional);
    optional.map(|p| exact(FusionSet::All).disable(p.name).expect("an optional pass")).collect()
}

fn named(options: &Options) -> String {
    let disabled: String = options.disabled().map(|pass| format!(" --disable {pass}")).collect();
    format!("--fusion {}{disabled}", options.fusion)
}

/// Pools of one, two and three threads.
fn pools() -> [Arc<Pool>; 3] {
    [pool(1), pool(2), pool(3)]
}

/// Threads change no bit; tiers, fusions and entries no more than rounding does.
fn check(model: &Model, given: &[Step], options: &Options, allowed: Allowed, tiers: &[Tier], pools: &[Arc<Pool>]) {
    let want = interpreted(model, given);
    let build = Build::new(model, options);
    let entries = build.compiled.code.program.entries.len();
    for &tier in tiers {
        let at = format!("{}, {}", named(options), tier.name());
        let mut first = None;
        for pool in pools {
            let at = format!("{at}, {} threads", pool.threads());
            let found = ran(model, &mut build.session(pool, tier), given);
            agrees(&found, &want, allowed, &at);
            same(&found, first.get_or_insert_with(|| found.clone()), &at);
        }
        if entries > 1 {
            let mut session = build.without(&["decode"], &pools[0], tier);
            agrees(&ran(model, &mut session, given), &want, allowed, &format!("{at}, single rows by the entry `rows`"));
        }
    }
}

/// A prompt of each of two slots, a row of each, one row, and rows of a prompt beside a row of the other.
fn conversation(vocab: usize) -> Vec<Step> {
    // Tokens, positions, slots, outputs.
    let steps: &[[&[i32]; 4]] = &[
        [&[5, 9, 2, 7, 11], &[0, 1, 2, 0, 1], &[0, 0, 0, 1, 1], &[2, 4]],
        [&[3, 4], &[3, 2], &[0, 1], &[0, 1]],
        [&[8], &[4], &[0], &[0]],
        [&[1, 6, 3, 2], &[5, 3, 4, 5], &[0, 1, 1, 1], &[3, 0]],
        [&[10], &[6], &[1], &[0]],
    ];
    let step = |&[tokens, positions, slots, outputs]: &[&[i32]; 4]| {
        let tokens = tokens.iter().map(|&t| t * 29 % vocab as i32).collect();
        let present = positions.iter().max().map_or(0, |&p| p as usize + 1);
        let sizes = llamac_ir::Sizes { rows: positions.len(), outputs: outputs.len(), tokens: present };
        let inputs = [
            ("tokens", tokens),
            ("positions", positions.to_vec()),
            ("slots", slots.to_vec()),
            ("outputs", outputs.to_vec()),
        ];
        Step { sizes, inputs: inputs.into_iter().map(|(n, v)| (n.to_owned(), Values::Int(v))).collect() }
    };
    steps.iter().map(step).collect()
}

#[test]
fn models_however_they_are_run() {
    let (pools, tiers) = (pools(), tiers());
    for name in MODELS {
        let model = open(name, &Sizes { context: Some(24), chunk: Some(9), slots: Some(2), outputs: Some(2) });
        let given = conversation(300);
        for &fusion in FusionSet::ALL {
            eprintln!("{name} --fusion {fusion}");
            check(&model, &given, &exact(fusion), logits(&model), &tiers, &pools);
        }
        for options in without_one_pass() {
            eprintln!("{name} {}", named(&options));
            check(&model, &given, &options, logits(&model), &[Tier::detect()], &pools[..1]);
        }
    }
}

/// The kinds of random graphs: bounds of odd and of panel width, with and without states, gathers, products.
fn config(seed: u64) -> Config {
    let bounds = |rows, outputs, tokens, slots| Bounds { rows, outputs, tokens, slots };
    let bounds =
        [bounds(6, 3, 12, 2), bounds(2, 2, 7, 2), bounds(17, 5, 33, 2), bounds(33, 2, 40, 3), bounds(9, 4, 16, 2)];
    let size = [6, 12, 20, 30][seed as usize % 4];
    let across_rows = seed % 3 != 2;
    Config { bounds: bounds[seed as usize % bounds.len()], size, across_rows, ..Config::new(seed) }
}

/// Threads, tiers and builds that random graphs are judged in.
struct Judge {
    pools: [Arc<Pool>; 3],
    tiers: Vec<Tier>,
    others: Vec<Options>,
}

impl Judge {
    fn new() -> Judge {
        let mut others = without_one_pass();
        others.extend([FusionSet::Rows, FusionSet::Epilogue, FusionSet::Attention].map(exact));
        Judge { pools: pools(), tiers: tiers(), others }
    }

    /// Unfused and fused in every way; of the other builds two for each graph, in turn.
    fn graph(&self, graph: &Graph, seed: u64, what: &str) {
        let _shown = Shown(graph, what.to_owned());
        let source = SeededSource::new(graph, seed).expect("weights");
        let given = steps(graph, seed, 4);
        assert!(!given.is_empty());
        let model = model_of(graph.clone(), source);
        for fusion in [FusionSet::None, FusionSet::All] {
            check(&model, &given, &exact(fusion), ELEMENTS, &self.tiers, &self.pools);
        }
        for i in 0..2 {
            let options = &self.others[(seed as usize * 2 + i) % self.others.len()];
            check(&model, &given, options, ELEMENTS, &[Tier::detect()], &self.pools[..1]);
        }
    }
}

fn random_graphs(seeds: impl Iterator<Item = u64>) {
    let judge = Judge::new();
    for seed in seeds {
        judge.graph(&graph(&config(seed)), seed, &format!("seed {seed}"));
    }
}

#[test]
fn random_graphs_of_even_seed() {
    random_graphs((0..GRAPHS).filter(|s| s % 2 == 0));
}

#[test]
fn random_graphs_of_odd_seed() {
    random_graphs((0..GRAPHS).filter(|s| s % 2 == 1));
}

/// Shapes at the edge: no dynamic dimension, widths of one, rows that are wider than any tile.
const EDGES: [&str; 5] = [
    r#"graph @static S<=1 R<=1 T<=1 slots=1 {
  %0: f32[7, 33] = input "x"
  %1: f32[7] = reduce max %0 axis=1
  %2: f32[7, 33] = broadcast %1 axes=[0]
  %3: f32[7, 33] = sub %0, %2
  %4: f32[7, 33] = exp %3
  %5: f32[7] = reduce sum %4 axis=1
  %6: f32[7, 33] = broadcast %5 axes=[0]
  %7: f32[7, 33] = div %4, %6
  %8: f32[33, 7] = transpose %7 perm=[1, 0]
  %9: f32[33, 7] = copy %8
  %10: bf16[5, 7] = weight "w"
  %11: f32[33, 5] = dot %9, %10 contract=[1]x[1]
  return "softmax" = %7, "y" = %11
}"#,
    r#"graph @narrow_gates S<=9 R<=2 T<=9 slots=1 {
  %0: f32[S, 3] = input "x"
  %1: f32[1, 3] = weight "gate"
  %2: f32[1, 3] = weight "up"
  %3: f32[S, 1] = dot %0, %1 contract=[1]x[1]
  %4: f32[S, 1] = dot %0, %2 contract=[1]x[1]
  %5: f32[S, 1] = neg %3
  %6: f32[S, 1] = exp %5
  %7: f32[] = const 1.0
  %8: f32[S, 1] = broadcast %7 axes=[]
  %9: f32[S, 1] = add %6, %8
  %10: f32[S, 1] = div %3, %9
  %11: f32[S, 1] = mul %10, %4
  return "y" = %11
}"#,
    r#"graph @heads_of_one S<=9 R<=2 T<=11 slots=2 {
  %0: i32[S] = input "positions" limit=11
  %1: i32[S] = input "slots" limit=2
  %2: f32[S, 5] = input "x"
  %3: f32[S, 5, 1] = reshape %2
  %4: f32[2, 5, 11, 1] = state "cache"
  %5: f32[2, 5, 11, 1] = state.write %4, %3, %1, %0
  %6: f32[S, 5, T, 1] = index %5, %1
  %7: f32[S, 5, 1] = reduce max %6 axis=2
  return "y" = %7
}"#,
    r#"graph @wide S<=3 R<=1 T<=3 slots=1 {
  %0: f32[S, 1031] = input "x"
  %1: f32[S, 1031] = mul %0, %0
  %2: f32[S] = reduce sum %1 axis=1
  %3: f32[S, 1031] = broadcast %2 axes=[0]
  %4: f32[S, 1031] = div %0, %3
  %5: f16[67, 1031] = weight "w"
  %6: f32[S, 67] = dot %4, %5 contract=[1]x[1]
  %7: f32[S, 67] = tanh %6
  return "y" = %7, "n" = %4
}"#,
    r#"graph @rotated S<=5 R<=5 T<=5 slots=1 {
  %0: f32[S, 3, 10] = input "x"
  %1: i32[R] = input "outputs" limit=5
  %2: f32[S, 3, 5] = slice %0 axis=2 start=0 len=5
  %3: f32[S, 3, 5] = slice %0 axis=2 start=5 len=5
  %4: f32[S, 3, 5] = neg %3
  %5: f32[S, 3, 10] = concat %4, %2 axis=2
  %6: f32[3, S, 10] = transpose %5 perm=[1, 0, 2]
  %7: f32[3, S, 10] = exp %6
  %8: f32[S, 3, 10] = transpose %7 perm=[1, 0, 2]
  %9: f32[S, 30] = reshape %8
  %10: f32[R, 30] = gather %9, %1
  return "y" = %10
}"#,
];

#[test]
fn edges() {
    let judge = Judge::new();
    for text in EDGES {
        let graph = llamac_ir::parse::parse(text).expect("a graph that parses");
        llamac_ir::verify(&graph).expect("a graph that verifies");
        for seed in 0..6 {
            judge.graph(&graph, seed, &graph.name);
        }
    }
}

/// What the random graphs are to exercise does occur among them.
#[test]
fn the_random_graphs_are_various() {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..GRAPHS {
        let mut graph = graph(&config(seed));
        let mut count = |what| *found.entry(what).or_default() += 1;
        for &inst in graph.order() {
            match graph.op(inst) {
                Op::Dot(_) => {
                    let weight = graph.ty(graph.operands(inst)[1]);
                    let dims: Vec<usize> = weight.dims.iter().filter_map(|d| d.as_const()).collect();
                    if weight.dtype != DType::F32 {
                        count("dots of 16-bit weights");
                    }
                    if dims.len() == 2 && dims.iter().all(|d| d % 2 == 1 && *d > 1) {
                        count("dots of odd sizes");
                    }
                }
                op => count(op.mnemonic()),
            }
        }
        let all = Options::default();
        llamac::compile::run_passes(&mut graph, &all, &mut |_, _, _| ControlFlow::Continue(())).expect("passes");
        for &inst in graph.order() {
            if let Op::Fusion(f) = graph.op(inst) {
                count(match f.kind {
                    FusionKind::Rows => "fusions of rows",
                    FusionKind::Epilogue => "epilogues",
                    FusionKind::Attention => "fused attention",
                });
            }
        }
    }
    let wanted = ["dots of 16-bit weights", "dots of odd sizes", "state.write", "index", "exp", "gather", "concat"];
    for what in wanted.into_iter().chain(["transpose", "fusions of rows", "epilogues", "fused attention"]) {
        assert!(found.get(what).is_some_and(|&n| n >= 5), "{what} in {found:?}");
    }
}
