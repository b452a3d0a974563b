//! The pipeline's switches and its observer.

mod support;

use llamac_ir::parse;
use llamac_passes::pipeline::{self, PIPELINE, Stage};
use llamac_passes::plan::plan_with;
use llamac_passes::{FusionSet, OptionError, Options, PassError, When};
use std::ops::ControlFlow;
use support::{MODELS, model, optimized};

#[test]
fn the_pipeline_reads_top_to_bottom() {
    let names: Vec<&str> = PIPELINE.iter().map(|p| p.name).collect();
    let expected = [
        "canonicalize",
        "merge-linear",
        "precision",
        "fuse-attention",
        "fuse-epilogue",
        "fuse-rows",
        "layout",
        "schedule",
        "plan",
        "lower",
        "emit",
    ];
    assert_eq!(names, expected);
    let graph = |p: &&pipeline::Pass| matches!(p.stage, Stage::Graph(_));
    assert_eq!(PIPELINE.iter().filter(graph).count(), 7);
}

#[test]
fn unknown_names_are_refused_with_those_that_exist() {
    let error = Options::default().disable("fuse-raws").unwrap_err();
    assert!(matches!(&error, OptionError::UnknownPass { found, .. } if found == "fuse-raws"));
    let text = error.to_string();
    assert!(PIPELINE.iter().all(|p| text.contains(p.name)), "{text}");

    let text = Options::default().disable("layout").unwrap_err().to_string();
    assert!(text.contains("`layout` cannot be disabled") && text.contains("fuse-rows"), "{text}");

    let text = "some".parse::<FusionSet>().unwrap_err().to_string();
    assert_eq!(text, "--fusion some: expected one of none, rows, epilogue, attention, all");
    let text = "f16".parse::<llamac_passes::Activations>().unwrap_err().to_string();
    assert_eq!(text, "--act f16: expected one of auto, f32, bf16, q8");
    let text = "q4_0".parse::<llamac_passes::CacheType>().unwrap_err().to_string();
    assert_eq!(text, "--kv q4_0: expected one of f32, bf16, q8_0");
}

#[test]
fn fusion_sets_enable_their_pass_alone() {
    let fusing = ["fuse-attention", "fuse-epilogue", "fuse-rows"];
    let enabled = |set: FusionSet| {
        let options = Options::fusing(set);
        assert!(options.enables("merge-linear") && options.enables("canonicalize"));
        fusing.map(|p| options.enables(p))
    };
    assert_eq!(enabled(FusionSet::None), [false, false, false]);
    assert_eq!(enabled(FusionSet::Attention), [true, false, false]);
    assert_eq!(enabled(FusionSet::Epilogue), [false, true, false]);
    assert_eq!(enabled(FusionSet::Rows), [false, false, true]);
    assert_eq!(enabled(FusionSet::All), [true, true, true]);
    let options = Options::default().disable("fuse-rows").unwrap();
    assert!(!options.enables("fuse-rows") && options.enables("fuse-epilogue"));
    assert_eq!(options.disabled().collect::<Vec<_>>(), ["fuse-rows"]);
    let plan = Options::default().disable("schedule").unwrap().plan();
    assert!(!plan.schedule && plan.plan);
}

#[test]
fn the_observer_sees_every_pass_and_may_stop() {
    let (given, _) = model("tiny-llama2");
    let options = Options::default().disable("precision").unwrap();
    let mut graph = given.clone();
    let mut seen = Vec::new();
    let finished = pipeline::run(&mut graph, &options, &mut |pass, when, g| {
        seen.push((pass, when, g.order().len()));
        if pass == "fuse-attention" && when == When::After { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert!(finished.stopped && finished.layout.is_none());
    let names: Vec<&str> = seen.iter().map(|s| s.0).collect();
    let twice = ["canonicalize", "canonicalize", "merge-linear", "merge-linear", "fuse-attention", "fuse-attention"];
    assert_eq!(names, twice);
    assert!(seen.chunks(2).all(|s| s[0].1 == When::Before && s[1].1 == When::After));
    assert_eq!(finished.ran.len(), 3);
    for (ran, seen) in finished.ran.iter().zip(seen.chunks(2)) {
        assert_eq!((ran.name, ran.before, ran.after), (seen[0].0, seen[0].2, seen[1].2));
    }

    let mut graph = given.clone();
    let finished = pipeline::run(&mut graph, &options, &mut |_, _, _| ControlFlow::Break(())).unwrap();
    assert!(finished.stopped && finished.ran.is_empty());
    assert!(graph == given, "stopped before the first pass");
}

#[test]
fn an_invalid_graph_is_refused_before_the_first_pass() {
    let text = "graph @bad S<=4 R<=1 T<=8 slots=1 {\n  %0: f32[S] = input \"x\"\n  %1: f32[S] = input \"x\"\n  return \"y\" = %1\n}";
    let mut graph = parse(text).unwrap();
    let error = pipeline::run(&mut graph, &Options::default(), &mut |_, _, _| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(&error, PassError::Given { pass: "canonicalize", .. }), "{error}");
    assert!(error.to_string().contains("leaves"), "{error}");
}

#[test]
fn every_build_has_a_plan() {
    for name in MODELS {
        let (graph, _) = model(name);
        for &fusion in FusionSet::ALL {
            let options = Options::fusing(fusion);
            let (graph, finished) = optimized(&graph, &options);
            assert!(finished.layout.is_some());
            let plan = plan_with(&graph, options.plan()).unwrap_or_else(|e| panic!("{name}, --fusion {fusion}: {e}"));
            for entry in &plan.entries {
                let (arena, least) = (entry.arena_bytes as f64, entry.arena_lower_bound as f64);
                assert!(arena <= 1.05 * least, "{name}, --fusion {fusion}, {}: {arena} over {least}", entry.name);
            }
        }
    }
}
