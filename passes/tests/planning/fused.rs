//! Whole models through the real passes: plans of every fusion are small, and compute what the model does.

use crate::llama::{ONE_B, SMALL, Shape, llama};
use crate::meaning::{Weights, two_steps};
use llamac_ir::{Bounds, DType, Graph, Op};
use llamac_passes::plan::picture::Summary;
use llamac_passes::plan::{EntryPlan, plan};
use llamac_passes::schedule::step_name;
use llamac_passes::{Activations, FusionSet, Options, layout, pipeline};
use std::ops::ControlFlow;

const BOUNDS: Bounds = Bounds { rows: 512, outputs: 1, tokens: 512, slots: 1 };

fn compiled(shape: Shape, bounds: Bounds, fusion: FusionSet) -> Graph {
    let mut graph = llama(shape, bounds);
    let mut options = Options::fusing(fusion);
    options.act = Activations::F32;
    pipeline::run(&mut graph, &options, &mut |_, _, _| ControlFlow::Continue(())).expect("passes");
    layout::run(&mut graph).expect("a layout");
    llamac_ir::verify(&graph).expect("layout keeps the rules");
    graph
}

fn plans(shape: Shape, bounds: Bounds, fusion: FusionSet) -> Vec<EntryPlan> {
    let plan = plan(&compiled(shape, bounds, fusion)).expect("a plan");
    for entry in &plan.entries {
        llamac_ir::verify(&entry.graph).expect("scheduling keeps the rules");
    }
    plan.entries
}

#[test]
fn arenas_are_close_to_the_lower_bound_whatever_is_fused() {
    for &fusion in FusionSet::ALL {
        for shape in [SMALL, ONE_B] {
            for entry in plans(shape, BOUNDS, fusion) {
                let ratio = Summary::of(&entry).ratio();
                assert!(ratio <= 1.05, "{fusion} {}: {ratio}", entry.name);
            }
        }
    }
}

#[test]
fn a_fused_layer_takes_eight_barriers_and_no_copy() {
    for entry in plans(SMALL, BOUNDS, FusionSet::All) {
        let summary = Summary::of(&entry);
        assert_eq!(summary.copies, 0);
        // Norm, projections, RoPE with both cache writes, attention, output, norm, gate and up, down; and gathers, the
        // last norm and the head around the layers.
        assert!(summary.barriers <= 8 * SMALL.layers + 4, "{summary:?}");
        // The residual stream lies in one place from the embedding to the last layer.
        let residuals: Vec<&llamac_passes::plan::InPlace> = entry
            .in_place
            .iter()
            .filter(|i| step_name(&entry.graph, entry.steps[i.step].inst).contains("residual"))
            .collect();
        assert!(residuals.len() >= 2 * SMALL.layers - 1, "{:?}", entry.in_place);
    }
}

#[test]
fn gate_and_up_of_whole_panels_are_interleaved() {
    let recipes = |ffn: usize| -> Vec<String> {
        let graph = compiled(Shape { ffn, layers: 1, ..SMALL }, BOUNDS, FusionSet::All);
        let text = |op: &Op| match op {
            Op::Weight(recipe) => Some(recipe.to_string()),
            _ => None,
        };
        graph.order().iter().filter_map(|&i| text(graph.op(i))).filter(|r| r.contains('(')).collect()
    };
    let gate_up = r#"interleave_panels("layers.0.mlp.gate.weight", "layers.0.mlp.up.weight")"#;
    let qkv = r#"concat("layers.0.attn.q.weight", "layers.0.attn.k.weight", "layers.0.attn.v.weight")"#;
    let has = |recipes: &[String], recipe: &str| recipes.iter().any(|r| r == recipe);
    assert!(has(&recipes(176), gate_up) && has(&recipes(176), qkv), "{:?}", recipes(176));
    assert!(!has(&recipes(172), gate_up) && has(&recipes(172), qkv), "{:?}", recipes(172));
}

#[test]
fn a_compiled_model_computes_what_it_did() {
    let bounds = Bounds { rows: 5, outputs: 1, tokens: 12, slots: 2 };
    for dtype in [DType::F32, DType::BF16] {
        let shape = Shape { layers: 2, dtype, ..SMALL };
        let given = llama(shape, bounds);
        let weights = Weights::of(&given);
        for &fusion in FusionSet::ALL {
            for entry in plans(shape, bounds, fusion) {
                let rows = if entry.name == "decode" { 1 } else { 5 };
                let numbers = |graph: &Graph| -> Vec<f64> {
                    two_steps(graph, &weights, rows, &bounds).into_iter().flatten().map(f64::from_bits).collect()
                };
                let (found, want) = (numbers(&entry.graph), numbers(&given));
                assert_eq!(found.len(), want.len());
                let worst = found.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-9, "{fusion} {}: {worst}", entry.name);
            }
        }
    }
}
