//! The passes on random graphs: after each, the graph verifies (the manager sees to that) and gives the same numbers.

mod support;

use llamac_ir::interp::{Data, Interpreter};
use llamac_ir::random::{Config, Step, graph, shuffled, steps};
use llamac_ir::seeded::SeededSource;
use llamac_ir::{Graph, Op};
use llamac_passes::refusal::Reason;
use llamac_passes::{FusionSet, Options};
use proptest::prelude::*;
use support::{exact, optimized, stages, stop_after};

/// All outputs of all steps.
fn run(graph: &Graph, source: &SeededSource, steps: &[Step]) -> Vec<f64> {
    let mut interpreter = Interpreter::<f64>::new(graph, source);
    let mut all = Vec::new();
    for step in steps {
        for output in interpreter.step(step.sizes, &step.inputs()).expect("a step") {
            match &output.data {
                Data::Int(ints) => all.extend(ints.iter().map(|&i| f64::from(i))),
                Data::Bool(bools) => all.extend(bools.iter().map(|&b| f64::from(u8::from(b)))),
                _ => all.extend_from_slice(&output.floats()),
            }
        }
    }
    all
}

/// Everything is computed in f64; folded constants are rounded to f32.
fn close(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-5 * (1.0 + b.abs())
}

fn same(name: &str, found: &[f64], want: &[f64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), want.len());
    for (i, (&a, &b)) in found.iter().zip(want).enumerate() {
        prop_assert!(close(a, b), "element {} of all outputs is {} after {}, expected {}", i, a, name, b);
    }
    Ok(())
}

fn config(seed: u64, size: usize) -> Config {
    Config { size, ..Config::new(seed) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_pass_keeps_the_numbers(seed in any::<u64>(), size in 2usize..40, fusion in 0..FusionSet::ALL.len()) {
        let given = shuffled(&graph(&config(seed, size)), seed);
        let source = SeededSource::new(&given, seed).expect("weights");
        let steps = steps(&given, seed, 4);
        let want = run(&given, &source, &steps);
        for (pass, graph) in stages(&given, &exact(FusionSet::ALL[fusion])) {
            same(pass, &run(&graph, &source, &steps), &want)?;
        }
    }

    #[test]
    fn passes_find_nothing_left_to_do(seed in any::<u64>(), size in 2usize..40) {
        let given = graph(&config(seed, size));
        let (once, _) = stop_after(&given, &Options::default(), "canonicalize");
        let (twice, _) = stop_after(&once, &Options::default(), "canonicalize");
        prop_assert!(once == twice, "canonicalize is a fixpoint");
        for last in ["merge-linear", "fuse-attention", "fuse-epilogue"] {
            let (once, _) = stop_after(&given, &Options::default(), last);
            let (_, finished) = stop_after(&once, &Options::default(), last);
            let report = &finished.ran.last().expect("a pass").report;
            prop_assert!(!report.changed(), "{last} the second time: {report}");
        }
    }

    #[test]
    fn every_edge_is_fused_or_has_a_reason_that_holds(seed in any::<u64>(), size in 2usize..40) {
        let given = graph(&config(seed, size));
        let (after, finished) = stop_after(&given, &Options::default(), "fuse-rows");
        for (edge, reason) in finished.ledger.refused() {
            // Nothing is switched off, and no graph is large: what may be one kernel is one.
            let excuse = matches!(reason, Reason::DisabledByOption(_) | Reason::TooLarge);
            prop_assert!(!excuse, "{} -> {}: {reason}", edge.producer, edge.consumer);
        }
        let fusions = after.order().iter().filter(|&&i| matches!(after.op(i), Op::Fusion(_))).count();
        prop_assert_eq!(fusions > 0, finished.ledger.kernels.iter().any(|k| k.kind.is_some()));
        let (_, none) = optimized(&given, &Options::fusing(FusionSet::None));
        prop_assert_eq!(none.ledger.fused().count(), 0);
        let before = finished.ledger.before.as_ref().unwrap().value(&given.bounds.sizes());
        prop_assert!(finished.ledger.after.value(&given.bounds.sizes()) <= before, "fusion must not add traffic");
    }
}
