//! The passes on whole models: numbers stay what they were, and as few kernels come out as there should.

mod support;

use llamac_ir::{FusionKind, Op};
use llamac_passes::fuse_attention::attention_parts;
use llamac_passes::ledger::Outcome;
use llamac_passes::refusal::Reason;
use llamac_passes::{FusionSet, Options, pipeline, precision};
use std::collections::HashSet;
use support::{MODELS, error, exact, fusions, logits, model, optimized, stages, steps, stop_after};

/// Everything is computed in f64; folded constants are rounded to f32.
const TOLERANCE: f64 = 1e-7;

#[test]
fn every_pass_keeps_the_numbers() {
    for name in MODELS {
        let (graph, weights) = model(name);
        let want = logits(&graph, &weights);
        for &fusion in FusionSet::ALL {
            for (pass, graph) in stages(&graph, &exact(fusion)) {
                let found = error(&logits(&graph, &weights), &want);
                assert!(found <= TOLERANCE, "{name}, --fusion {fusion}: {found:e} after {pass}");
            }
        }
    }
}

#[test]
fn every_pass_can_be_disabled() {
    for name in MODELS {
        let (graph, weights) = model(name);
        let want = logits(&graph, &weights);
        for pass in pipeline::PIPELINE.iter().filter(|p| p.optional) {
            let options = exact(FusionSet::All).disable(pass.name).unwrap();
            let (graph, finished) = optimized(&graph, &options);
            assert!(finished.ran.iter().all(|r| r.name != pass.name));
            let found = error(&logits(&graph, &weights), &want);
            assert!(found <= TOLERANCE, "{name}: {found:e} without {}", pass.name);
        }
    }
}

#[test]
fn a_llama_layer_is_ten_kernels() {
    let (graph, _) = model("tiny-llama31");
    let (graph, _) = stop_after(&graph, &exact(FusionSet::All), "fuse-rows");
    let layer = [
        "rows rmsnorm",
        "dot",
        "rows rope",
        "rows rope_write",
        "state.write",
        "attention attention",
        "epilogue residual",
        "rows rmsnorm",
        "epilogue silu_mul",
        "epilogue residual",
    ];
    let steps = steps(&graph);
    assert_eq!(steps[0], "gather");
    assert_eq!(steps[1..11], layer);
    // The last layer gathers its outputs before it goes on with them.
    assert_eq!(steps[11..17], layer[..6]);
    assert_eq!(steps[17..19], ["gather", "gather"]);
    assert_eq!(steps[19..23], layer[6..]);
    assert_eq!(steps[23..], ["rows rmsnorm", "dot"]);
}

#[test]
fn rows_alone_take_what_no_tile_took() {
    let (graph, _) = model("tiny-llama31");
    let (graph, _) = stop_after(&graph, &exact(FusionSet::Rows), "fuse-rows");
    let names = fusions(&graph, FusionKind::Rows);
    let first_layer = ["rmsnorm", "rope", "rope_write", "softmax", "add_rmsnorm", "silu_mul", "add_rmsnorm"];
    assert_eq!(names[..7], first_layer);
    assert_eq!(fusions(&graph, FusionKind::Epilogue), [""; 0]);
    assert_eq!(fusions(&graph, FusionKind::Attention), [""; 0]);
    let two_results = graph.order().iter().find(|&&i| matches!(graph.op(i), Op::Fusion(f) if f.name == "add_rmsnorm"));
    assert_eq!(graph.results(*two_results.unwrap()).len(), 2, "the sum goes on beside the norm");
}

/// The default rounds activations where weights are bf16, and there alone. Each rounding is 2⁻⁹ at most; what comes of it
/// stays below a hundredth of the logits. Only what attention gives is rounded by a kernel of its own, but for the last layer's,
/// which the gather of the wanted rows rounds.
#[test]
fn activations_follow_the_weights_by_default() {
    for name in MODELS {
        let (graph, weights) = model(name);
        let bf16 = graph.order().iter().any(|&i| {
            matches!(graph.op(i), Op::Weight(_)) && graph.ty(graph.result(i)).dtype == llamac_ir::DType::BF16
        });
        let (exactly, _) = optimized(&graph, &exact(FusionSet::All));
        let (default, _) = optimized(&graph, &Options::default());
        assert_eq!(precision::in_use(&exactly), "f32", "{name}");
        assert_eq!(precision::in_use(&default), if bf16 { "bf16" } else { "f32" }, "{name}");
        let found = error(&logits(&default, &weights), &logits(&graph, &weights));
        assert!(if bf16 { (1e-5..1e-2).contains(&found) } else { found <= TOLERANCE }, "{name}: {found:e}");
        let (more, less) = (steps(&default), steps(&exactly));
        let attentions = less.iter().filter(|s| s.starts_with("attention")).count();
        assert_eq!(more.len(), less.len() + if bf16 { attentions - 1 } else { 0 }, "{name}: {more:?}");
    }
}

#[test]
fn a_norm_of_whole_projections_fuses_with_rope() {
    let (graph, _) = model("tiny-olmo2");
    let (graph, _) = stop_after(&graph, &Options::default(), "fuse-rows");
    let names: Vec<&str> = fusions(&graph, FusionKind::Rows)[..4].to_vec();
    assert_eq!(names, ["rmsnorm_rope", "rmsnorm_rope_write", "rmsnorm_add", "rmsnorm_add"]);
}

#[test]
fn layers_share_regions() {
    for name in MODELS {
        let (graph, _) = model(name);
        let (graph, _) = optimized(&graph, &Options::default());
        let regions: Vec<_> = graph
            .order()
            .iter()
            .filter_map(|&i| match graph.op(i) {
                Op::Fusion(f) if graph.origin(i).starts_with("layers.0") => Some((graph.origin(i), f)),
                _ => None,
            })
            .collect();
        let mut shared = 0;
        for (origin, first) in regions {
            let second = origin.replace("layers.0", "layers.1");
            let fused = |i: &&llamac_ir::Inst| matches!(graph.op(**i), Op::Fusion(_)) && graph.origin(**i) == second;
            // The last layer gathers its outputs on the way, so that not every fusion has a counterpart.
            let Some(&other) = graph.order().iter().find(fused) else { continue };
            let Op::Fusion(other) = graph.op(other) else { unreachable!("it is a fusion") };
            if !has_outputs(&other.region) {
                assert!(first.region == other.region, "{name}: {origin} and {second}");
                shared += 1;
            }
        }
        assert!(shared >= 3, "{name}: {shared}");
    }
}

/// Whether a region is of the last layer's last part, whose rows are the wanted outputs.
fn has_outputs(region: &llamac_ir::Graph) -> bool {
    region.order().iter().any(|&i| region.ty(region.result(i)).dims.first() == Some(&llamac_ir::Dim::OUTPUTS))
}

#[test]
fn attention_says_what_the_runtime_asks() {
    let (graph, _) = model("tiny-llama31");
    let (graph, _) = optimized(&graph, &Options::default());
    let mut found = 0;
    for &inst in graph.order() {
        if let Op::Fusion(f) = graph.op(inst)
            && f.kind == FusionKind::Attention
        {
            let parts = attention_parts(f).expect("attention");
            assert_eq!([parts.q, parts.keys, parts.values, parts.slots, parts.positions], [0, 1, 2, 3, 4]);
            assert_eq!((parts.kv_heads, parts.group, parts.head_dim), (2, 4, 32));
            assert!((parts.scale - 1.0 / 32f32.sqrt()).abs() < 1e-7);
            found += 1;
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn the_ledger_has_every_edge_with_a_reason() {
    let every: HashSet<&str> = HashSet::from(["fuse-attention", "fuse-epilogue", "fuse-rows"]);
    for name in MODELS {
        let (graph, _) = model(name);
        let (_, all) = optimized(&graph, &Options::default());
        let (_, none) = optimized(&graph, &Options::fusing(FusionSet::None));
        assert!(all.ledger.fused().count() > all.ledger.refused().count(), "{name}");
        assert_eq!(none.ledger.fused().count(), 0, "{name}");
        let off: HashSet<&str> = none
            .ledger
            .refused()
            .filter_map(|(_, reason)| match reason {
                Reason::DisabledByOption(pass) => Some(pass),
                _ => None,
            })
            .collect();
        assert_eq!(off, every, "{name}");
        assert!(
            all.ledger.refused().all(|(_, r)| !matches!(r, Reason::DisabledByOption(_) | Reason::TooLarge)),
            "{name}"
        );
        let (one, most) = all.ledger.saved().expect("the fusing passes were reached");
        assert!(one > 0 && most > one, "{name}: {one} {most}");
        assert_eq!(none.ledger.saved(), Some((0, 0)), "{name}");
        for entry in &all.ledger.entries {
            if let Outcome::Fused { kernel, .. } = entry.outcome {
                assert!(entry.producer.starts_with(&all.ledger.kernels[kernel].label));
            }
        }
    }
}

#[test]
fn the_pipeline_is_a_fixpoint() {
    for name in MODELS {
        let (graph, _) = model(name);
        for &fusion in FusionSet::ALL {
            let options = Options::fusing(fusion);
            let (once, _) = optimized(&graph, &options);
            let (twice, _) = optimized(&once, &options);
            assert!(once == twice, "{name}: --fusion {fusion} does more the second time");
        }
    }
}
