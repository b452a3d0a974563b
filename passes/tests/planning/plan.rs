//! Plans of whole models: they pass the checker, and their arenas are small.

use crate::llama::{ONE_B, SMALL, Shape, llama};
use crate::meaning::{Weights, two_steps};
use llamac_ir::Bounds;
use llamac_passes::layout;
use llamac_passes::plan::picture::{Summary, picture};
use llamac_passes::plan::{Options, Plan, plan, plan_with};

const BOUNDS: Bounds = Bounds { rows: 512, outputs: 1, tokens: 512, slots: 1 };

fn barriers(plan: &Plan) -> Vec<usize> {
    plan.entries.iter().map(|e| e.steps.iter().filter(|s| s.barrier).count()).collect()
}

fn assert_small(plan: &Plan) {
    for e in &plan.entries {
        let (arena, bound) = (e.arena_bytes as f64, e.arena_lower_bound as f64);
        assert!(arena <= 1.05 * bound, "{}: {arena} bytes over a lower bound of {bound}", e.name);
    }
}

#[test]
fn unfused_models_plan_close_to_the_lower_bound() {
    let mut untied: Shape = SMALL;
    untied.tied = false;
    for shape in [SMALL, untied, ONE_B] {
        for bounds in [BOUNDS, Bounds { rows: 7, outputs: 7, tokens: 33, slots: 3 }] {
            let plan = plan(&llama(shape, bounds)).expect("a plan");
            assert_eq!(plan.entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["decode", "rows"]);
            assert_small(&plan);
        }
    }
}

#[test]
fn switched_off_parts_cost_barriers_and_memory() {
    let graph = llama(SMALL, BOUNDS);
    let all = plan(&graph).expect("a plan");
    let unordered = plan_with(&graph, Options { schedule: false, plan: true }).expect("a plan");
    let unshared = plan_with(&graph, Options { schedule: true, plan: false }).expect("a plan");
    for i in 0..2 {
        assert!(barriers(&all)[i] < barriers(&unordered)[i], "{:?} {:?}", barriers(&all), barriers(&unordered));
        assert!(all.entries[i].arena_bytes < unshared.entries[i].arena_bytes / 2);
        assert!(unshared.entries[i].in_place.is_empty() && !all.entries[i].in_place.is_empty());
    }
}

#[test]
fn the_picture_shows_every_buffer_that_matters() {
    let plan = plan(&llama(SMALL, BOUNDS)).expect("a plan");
    for entry in &plan.entries {
        let text = picture(entry);
        let summary = Summary::of(entry);
        let mut lines = text.lines();
        let head = lines.next().expect("a headline");
        assert!(head.starts_with(&format!("{}: {} steps, {} barriers", entry.name, summary.steps, summary.barriers)));
        let drawn: Vec<&str> = lines.clone().filter(|l| l.contains('|')).collect();
        assert!((20..=24).contains(&drawn.len()), "{text}");
        assert!(drawn.iter().all(|l| l.chars().count() <= 112), "{text}");
        // The mask lives from before the first layer to the last, in one place.
        let legend: Vec<&str> = lines.filter(|l| !l.contains('|')).collect();
        let mask = legend.iter().find(|l| l.contains(" cmp, ")).expect("the mask is in the legend").trim();
        let letter = mask.chars().next().expect("a letter");
        assert!(drawn.iter().any(|l| l.chars().filter(|&c| c == letter).count() > 40), "{text}");
        assert!(legend.iter().any(|l| l.contains("layers.*.mlp.gate dot ×5")), "{text}");
    }
}

#[test]
fn a_planned_model_computes_what_it_did() {
    let bounds = Bounds { rows: 5, outputs: 1, tokens: 12, slots: 2 };
    let given = llama(Shape { layers: 2, dtype: llamac_ir::DType::BF16, ..SMALL }, bounds);
    let weights = Weights::of(&given);
    let mut graph = given.clone();
    layout::run(&mut graph).expect("a layout");
    for entry in plan(&graph).expect("a plan").entries {
        let rows = if entry.name == "decode" { 1 } else { 5 };
        assert_eq!(two_steps(&entry.graph, &weights, rows, &bounds), two_steps(&given, &weights, rows, &bounds));
    }
}
