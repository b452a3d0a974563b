//! `llamac ir`: the graph before and after every pass, and every form that follows it.

use super::args::{IrArgs, Stage};
use super::{Result, artifact, failure, output, setup};
use llamac::compile::{self, Compiled};
use llamac_codegen::Listing;
use llamac_ir::Graph;
use llamac_ir::derived::dot_text;
use llamac_ir::print::print;
use llamac_passes::manager::When;
use llamac_passes::pipeline::{self, PIPELINE, Stage as PassStage};
use llamac_passes::plan::Plan;
use llamac_passes::schedule::step_name;
use llamac_runtime::OpenOptions;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Prints what was asked for; the imported graph, if nothing was.
pub fn run(args: &IrArgs) -> Result<ExitCode> {
    let options = setup::options(args.fusion.fusion, &args.compile)?;
    for name in [&args.print_before, &args.print_after, &args.stop_after].into_iter().flatten() {
        pipeline::find(name)?;
    }
    let opening = OpenOptions::default();
    if let Some(program) = artifact::opened(&args.model, &args.compile, args.fusion.fusion, &opening)? {
        return artifact::ir(&program, args);
    }
    let mut model = setup::open(&args.model, &args.compile, None)?;
    let spell = |graph: &Graph| if args.dot { dot_text(graph) } else { print(graph) };
    if let Some(stage) = args.stage {
        return stage_of(&model.graph, args, stage, &options, &spell);
    }
    let wanted = match (&args.print_before, args.print_after.as_ref().or(args.stop_after.as_ref())) {
        (Some(name), _) => Some((name, When::Before)),
        (None, Some(name)) => Some((name, When::After)),
        (None, None) if args.print_after_all => None,
        (None, None) => {
            output::print(&spell(&model.graph))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut text = String::new();
    let mut watch = |pass: &'static str, when: When, graph: &Graph| {
        match wanted {
            Some((name, at)) if name == pass && at == when => {
                text = spell(graph);
                return ControlFlow::Break(());
            }
            None if when == When::After => {
                let _ = write!(text, "// after {pass}\n{}\n", spell(graph));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    };
    let finished = compile::run_passes(&mut model.graph, &options, &mut watch)?;
    if let Some((name, when)) = wanted
        && !finished.stopped
    {
        text = late(&model.graph, name, when, args, &options)?;
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The passes after the last graph pass have their own forms: before and after them.
fn late(graph: &Graph, name: &str, when: When, args: &IrArgs, options: &llamac_passes::Options) -> Result<String> {
    let pass = pipeline::find(name)?;
    if matches!(pass.stage, PassStage::Graph { .. }) {
        return Err(failure(format!("pass `{name}` does not run with these options (--fusion, --disable)")));
    }
    if args.dot {
        return Err(failure(format!("--dot: what surrounds pass `{name}` is no graph")));
    }
    // What a late pass starts from is what the one before it made.
    let name = match when {
        When::After => name,
        When::Before => {
            let at = PIPELINE.iter().position(|p| p.name == name).unwrap_or(0);
            PIPELINE[at.saturating_sub(1)].name
        }
    };
    if matches!(pipeline::find(name)?.stage, PassStage::Graph { .. }) {
        return Ok(print(graph));
    }
    let plan = compile::plan(graph, options)?;
    Ok(match name {
        "schedule" => plan.entries.iter().map(|e| format!("// entry {}\n{}\n", e.name, print(&e.graph))).collect(),
        "plan" => plan_text(&plan),
        "lower" => listing(&compile::compile(graph.clone(), options, true)?, Stage::Loops),
        _ => listing(&compile::compile(graph.clone(), options, true)?, Stage::Asm),
    })
}

fn stage_of(
    graph: &Graph,
    args: &IrArgs,
    stage: Stage,
    options: &llamac_passes::Options,
    spell: &dyn Fn(&Graph) -> String,
) -> Result<ExitCode> {
    if args.dot && stage != Stage::Graph {
        return Err(failure("--dot: only --stage graph is a graph"));
    }
    let text = match stage {
        Stage::Graph => {
            let mut graph = graph.clone();
            compile::run_passes(&mut graph, options, &mut |_, _, _| ControlFlow::Continue(()))?;
            spell(&graph)
        }
        Stage::Plan => plan_text(&compile::compile(graph.clone(), options, false)?.plan),
        Stage::Loops | Stage::Clif | Stage::Asm => listing(&compile::compile(graph.clone(), options, true)?, stage),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Every kernel in one form.
fn listing(compiled: &Compiled, stage: Stage) -> String {
    listing_text(
        compiled,
        match stage {
            Stage::Clif => |k| &k.clif,
            Stage::Asm => |k| &k.asm,
            _ => |k| &k.loops,
        },
    )
}

/// Every kernel in the form that is picked.
pub fn listing_text(compiled: &Compiled, form: fn(&Listing) -> &String) -> String {
    let mut text = String::new();
    for (i, kernel) in compiled.code.listings.iter().enumerate() {
        let _ = writeln!(text, "// kernel {i}: {}\n{}", kernel.name, form(kernel).trim_end());
        text.push('\n');
    }
    text
}

/// Steps with their barriers, then buffers with their places.
fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    for entry in &plan.entries {
        let _ = writeln!(
            text,
            "entry {}: {} steps, arena {} bytes, lower bound {} bytes",
            entry.name,
            entry.steps.len(),
            entry.arena_bytes,
            entry.arena_lower_bound
        );
        for (i, step) in entry.steps.iter().enumerate() {
            if step.barrier {
                text.push_str("  -- barrier --\n");
            }
            let _ = writeln!(text, "  {i:4} {}", step_name(&entry.graph, step.inst));
        }
        for b in &entry.buffers {
            let (end, name) = (b.offset + b.bytes, &b.name);
            let _ = writeln!(text, "  {:>10}..{end:<10} steps {:4}..{:<4} {name}", b.offset, b.first, b.last);
        }
        text.push('\n');
    }
    text
}
