//! Text in, text out: `filetests/PASS/*.lir` goes through the pass of that name and must come out as the `.expect` beside it.
//! In `layout`, `schedule` and `plan` the first line names the fusions, and the passes before run first; of the last two the
//! `rows` entry is shown: its steps with their barriers, and its buffers too.
//! A line `// act: q8` says what the activations are to be, `// kv: bf16` what caches are; where `precision` makes them narrower the numbers may differ by 2%.
//! `filetests/ledger` holds graphs whose whole ledger is expected; their first line names the fusions: `// fusion: rows`.
//! `UPDATE_EXPECT=1 cargo test -p llamac-passes --test filetests` writes what comes out.
//!
//! Whatever is expected, the numbers must be the same before and after.

mod support;

use llamac_ir::interp::Interpreter;
use llamac_ir::random::steps;
use llamac_ir::seeded::SeededSource;
use llamac_ir::{DType, Graph, Inst, parse, print, verify};
use llamac_passes::pipeline::{self, Stage};
use llamac_passes::plan::{EntryPlan, plan};
use llamac_passes::schedule::step_name;
use llamac_passes::{Activations, CacheType, Context, FusionSet, Options, precision};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use support::{error, optimized, stop_after};

fn sorted(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> (String, Graph) {
    let text = fs::read_to_string(path).expect("a file");
    let graph = parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    verify(&graph).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (text, graph)
}

/// The value of a line `// key: value`.
fn said<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|l| l.strip_prefix("// ")?.strip_prefix(key)?.strip_prefix(": "))
}

/// The options of a file, apart from its fusions.
fn options_of(text: &str) -> Options {
    let act = said(text, "act").map_or(Activations::default(), |act| act.parse().expect("activations"));
    let mut options = Options::default();
    options.act = act;
    options.kv = said(text, "kv").map_or(CacheType::default(), |kv| kv.parse().expect("a type of cache"));
    options
}

/// The pass alone on the graph: its report and the graph after it.
fn pass(name: &str, text: &str, graph: &Graph) -> (String, Graph) {
    let Stage::Graph(run) = pipeline::find(name).expect("a pass").stage else { panic!("{name} is no graph pass") };
    let mut after = graph.clone();
    let report = run(&mut after, &mut Context::new(options_of(text))).expect("a pass that runs");
    (format!("// {name}: {report}\n{}", print(&after)), after)
}

/// The ledger after the last fusing pass.
fn ledger(text: &str, graph: &Graph) -> (String, Graph) {
    let options = fusing(text);
    let last = finally(&options);
    let (after, finished) = stop_after(graph, &options, last);
    (format!("{}\n", finished.ledger), after)
}

/// The options that the first line names.
fn fusing(text: &str) -> Options {
    let fusion = text.lines().next().and_then(|l| l.strip_prefix("// fusion: "));
    let fusion = fusion.expect("a first line that says fusion").parse::<FusionSet>().expect("a set of fusions");
    let mut options = options_of(text);
    options.fusion = fusion;
    options
}

/// The graph after `layout` and all before it.
fn layout(text: &str, graph: &Graph) -> (String, Graph) {
    let (after, finished) = optimized(graph, &fusing(text));
    let ran = finished.ran.last().expect("a pass that ran");
    (format!("// {}: {}\n{}", ran.name, ran.report, print(&after)), after)
}

/// The plan of the entry `rows`, and its graph.
fn planned(text: &str, graph: &Graph, show: fn(&EntryPlan) -> String) -> (String, Graph) {
    let (after, _) = optimized(graph, &fusing(text));
    let entries = plan(&after).expect("a plan").entries;
    let rows = entries.into_iter().find(|e| e.name == "rows").expect("an entry for many rows");
    (show(&rows), rows.graph)
}

/// Steps in order, a line where threads meet.
fn steps_of(plan: &EntryPlan) -> String {
    let mut out = String::new();
    for (i, step) in plan.steps.iter().enumerate() {
        if step.barrier {
            out.push_str("---- barrier\n");
        }
        writeln!(out, "{i}: {}", step_name(&plan.graph, step.inst)).expect("a string");
    }
    out
}

/// Steps, buffers and results that took the memory of an operand.
fn plan_of(plan: &EntryPlan) -> String {
    let mut out = steps_of(plan);
    writeln!(out, "arena of {} bytes, at least {}", plan.arena_bytes, plan.arena_lower_bound).expect("a string");
    for (i, b) in plan.buffers.iter().enumerate() {
        writeln!(out, "buffer {i}: {} bytes at {}, steps {} to {}: {}", b.bytes, b.offset, b.first, b.last, b.name)
            .expect("a string");
    }
    for i in &plan.in_place {
        writeln!(out, "step {} works in place", i.step).expect("a string");
    }
    out
}

fn finally(options: &Options) -> &'static str {
    let before = pipeline::PIPELINE.iter().take_while(|p| p.name != "layout");
    before.filter(|p| options.enables(p.name)).last().expect("a pass").name
}

fn numbers(graph: &Graph, like: &Graph) -> Vec<f64> {
    let source = SeededSource::new(like, 7).expect("weights");
    let mut interpreter = Interpreter::<f64>::new(graph, &source);
    let mut all = Vec::new();
    for step in steps(like, 7, 4) {
        for output in interpreter.step(step.sizes, &step.inputs()).expect("a step") {
            match &output.data {
                llamac_ir::interp::Data::Int(v) => all.extend(v.iter().map(|&i| f64::from(i))),
                _ => all.extend_from_slice(&output.floats()),
            }
        }
    }
    all
}

fn makes_blocks(graph: &Graph, inst: Inst) -> bool {
    graph.results(inst).iter().any(|&v| graph.ty(v).dtype == DType::Q8)
}

#[test]
fn expectations() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let (mut wrong, mut files) = (Vec::new(), 0);
    for passes in sorted(&folder) {
        let name = passes.file_name().and_then(|n| n.to_str()).expect("a name").to_string();
        for path in sorted(&passes).into_iter().filter(|p| p.extension().is_some_and(|e| e == "lir")) {
            files += 1;
            let (text, graph) = read(&path);
            let (found, after) = match name.as_str() {
                "ledger" => ledger(&text, &graph),
                "layout" => layout(&text, &graph),
                "schedule" => planned(&text, &graph, steps_of),
                "plan" => planned(&text, &graph, plan_of),
                other => pass(other, &text, &graph),
            };
            verify(&after).unwrap_or_else(|e| panic!("{} after the pass: {e}", path.display()));
            let difference = error(&numbers(&after, &graph), &numbers(&graph, &graph));
            let narrowed = after.order().iter().any(|&i| makes_blocks(&after, i))
                || said(&text, "act") == Some("bf16")
                || said(&text, "kv").is_some()
                || precision::in_use(&after) != precision::in_use(&graph);
            let most = if narrowed { 2e-2 } else { 1e-7 };
            assert!(difference <= most, "{}: the numbers differ by {difference:e}", path.display());
            let expect = path.with_extension("expect");
            if update {
                fs::write(&expect, &found).expect("a written file");
            } else if fs::read_to_string(&expect).unwrap_or_default() != found {
                wrong.push(format!("{}: found\n{found}", path.display()));
            }
        }
    }
    assert!(files >= 40, "only {files} files were found");
    assert!(wrong.is_empty(), "{}\nrun with UPDATE_EXPECT=1 if that is right", wrong.join("\n"));
}
