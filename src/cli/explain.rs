//! `llamac explain`: every decision of the compiler.

use super::args::{ExplainArgs, TableFormat};
use super::table::{Table, pretty, rounded};
use super::{Result, artifact, output, setup};
use llamac::compile::{self, Compiled};
use llamac::traffic::outside_gemms;
use llamac_ir::Sizes;
use llamac_passes::FusionSet;
use llamac_passes::ledger::{Ledger, Outcome};
use llamac_passes::plan::EntryPlan;
use llamac_passes::plan::picture::{Summary, in_place, picture};
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;

/// Prints passes, ledger, recipes, plan, and what fusion saved.
pub fn run(args: &ExplainArgs) -> Result<ExitCode> {
    if let Some(path) = artifact::path(&args.model) {
        let what =
            "the passes' ledger and an unfused build to compare with (`llamac inspect` shows the plan and the weights)";
        return Err(artifact::lacks(&path, "explain", what));
    }
    let options = setup::options(args.fusion.fusion, &args.compile)?;
    let model = setup::open(&args.model, &args.compile, None)?;
    let compiled = compile::compile(model.graph.clone(), &options, false)?;
    let mut plain = options.clone();
    plain.fusion = FusionSet::None;
    let unfused = compile::compile(model.graph.clone(), &plain, false)?;
    let text = match args.format {
        TableFormat::Md => report(&compiled, &unfused)?,
        TableFormat::Json => format!("{}\n", pretty(&object(&compiled, &unfused))),
        format => ledger_table(&compiled.passes.ledger).render(format),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn report(compiled: &Compiled, unfused: &Compiled) -> Result<String> {
    let mut text = String::new();
    let b = compiled.graph.bounds;
    let program = &compiled.code.program;
    writeln!(
        text,
        "# {}\n\nRows S <= {}, outputs R <= {}, tokens T <= {}, slots {}; act {}, kv {}, fusion {}.\n",
        compiled.graph.name, b.rows, b.outputs, b.tokens, b.slots, program.act, program.kv, program.fusion
    )?;
    writeln!(text, "## Passes\n\n{}", passes(compiled).render(TableFormat::Md))?;
    for ran in compiled.passes.ran.iter().filter(|r| !r.report.notes.is_empty()) {
        for note in &ran.report.notes {
            writeln!(text, "- `{}`: {note}", ran.name)?;
        }
    }
    writeln!(text, "\n## Ledger\n\n{}", compiled.passes.ledger)?;
    writeln!(text, "\n## Weights\n\n{}", weights(compiled).render(TableFormat::Md))?;
    writeln!(text, "## Kernels\n\n{}", kernels(compiled).render(TableFormat::Md))?;
    writeln!(text, "## Copies\n")?;
    let copies = compiled.passes.layout.iter().flat_map(|l| &l.copies);
    let mut any = false;
    for copy in copies {
        any = true;
        writeln!(text, "- {} for {}: {} ({} bytes)", copy.of, copy.reader, copy.reason, copy.bytes)?;
    }
    if !any {
        writeln!(text, "No copies: every view is read through.")?;
    }
    for entry in &compiled.plan.entries {
        let s = Summary::of(entry);
        writeln!(
            text,
            "\n## Memory of entry {}\n\n{} steps, {} barriers, {} copies, {} buffers, {} in place; arena {} bytes, lower \
             bound {} bytes, ratio {:.3}.\n\n```\n{}```\n",
            entry.name,
            s.steps,
            s.barriers,
            s.copies,
            s.buffers,
            s.in_place,
            s.arena_bytes,
            s.arena_lower_bound,
            s.ratio(),
            ensure_newline(picture(entry))
        )?;
        let reused = in_place(entry);
        if !reused.is_empty() {
            writeln!(text, "Results in the memory of an operand:\n\n```\n{}```", ensure_newline(reused))?;
        }
    }
    writeln!(text, "\n## What fusion saved\n\n{}", saved(compiled, unfused).render(TableFormat::Md))?;
    Ok(text)
}

fn ensure_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn passes(compiled: &Compiled) -> Table {
    let mut table = Table::new(&["pass", "instructions before", "after", "ms", "what it did"]);
    for ran in &compiled.passes.ran {
        let counts: Vec<String> = ran.report.counts.iter().map(|(what, n)| format!("{what}: {n}")).collect();
        let ms = rounded(ran.time.as_secs_f64() * 1e3, 2);
        table.row(vec![json!(ran.name), json!(ran.before), json!(ran.after), ms, json!(counts.join(", "))]);
    }
    table
}

fn ledger_table(ledger: &Ledger) -> Table {
    let mut table = Table::new(&["producer", "consumer", "type", "bytes", "outcome", "reason", "rule"]);
    for e in &ledger.entries {
        let (outcome, reason, rule) = match e.outcome {
            Outcome::Fused { kind, kernel } => ("fused", format!("{kind} kernel {kernel}"), ""),
            Outcome::Refused(reason) => ("refused", reason.to_string(), reason.rule()),
        };
        table.row(vec![
            json!(e.producer),
            json!(e.consumer),
            json!(e.ty),
            json!(e.bytes.to_string()),
            json!(outcome),
            json!(reason),
            json!(rule),
        ]);
    }
    table
}

fn weights(compiled: &Compiled) -> Table {
    let mut table = Table::new(&["recipe", "type", "layout", "bytes"]);
    for w in &compiled.code.program.weights {
        let dims: Vec<String> = w.dims.iter().map(usize::to_string).collect();
        table.row(vec![
            json!(w.recipe),
            json!(format!("{}[{}]", w.dtype, dims.join(", "))),
            json!(if w.panels { "panels" } else { "rows" }),
            json!(w.bytes),
        ]);
    }
    table
}

fn kernels(compiled: &Compiled) -> Table {
    let mut table = Table::new(&["kernel", "name", "code bytes", "scratch bytes"]);
    for (i, k) in compiled.code.program.kernels.iter().enumerate() {
        table.row(vec![json!(i), json!(k.name), json!(k.bytes), json!(k.scratch)]);
    }
    table
}

/// Each entry fused beside unfused, at its bounds.
fn saved(compiled: &Compiled, unfused: &Compiled) -> Table {
    let columns = ["entry", "what", "unfused", "this build", "saved"];
    let mut table = Table::new(&columns);
    let mut line = |entry: &str, what: &str, before: usize, after: usize| {
        table.row(vec![
            json!(entry),
            json!(what),
            json!(before),
            json!(after),
            json!(i64::try_from(before as i128 - after as i128).unwrap_or(i64::MAX)),
        ]);
    };
    for (a, b) in unfused.plan.entries.iter().zip(&compiled.plan.entries) {
        let (sa, sb) = (Summary::of(a), Summary::of(b));
        line(&b.name, "steps", sa.steps, sb.steps);
        line(&b.name, "barriers", sa.barriers, sb.barriers);
        line(&b.name, "copies", sa.copies, sb.copies);
        line(&b.name, "arena bytes", sa.arena_bytes, sb.arena_bytes);
        line(&b.name, "bytes moved outside GEMMs at the bounds", moved(a), moved(b));
    }
    line("all", "kernels", unfused.code.program.kernels.len(), compiled.code.program.kernels.len());
    line("all", "code bytes", unfused.code.code.len(), compiled.code.code.len());
    table
}

fn moved(entry: &EntryPlan) -> usize {
    let b = entry.graph.bounds;
    outside_gemms(entry, &Sizes { rows: b.rows, outputs: b.outputs, tokens: b.tokens })
}

fn object(compiled: &Compiled, unfused: &Compiled) -> Value {
    let records = |table: Table| table.records();
    let entries: Vec<Value> = compiled
        .plan
        .entries
        .iter()
        .map(|e| {
            let s = Summary::of(e);
            let buffers: Vec<Value> = e
                .buffers
                .iter()
                .map(
                    |b| json!({"name": b.name, "offset": b.offset, "bytes": b.bytes, "first": b.first, "last": b.last}),
                )
                .collect();
            json!({
                "name": e.name,
                "steps": s.steps,
                "barriers": s.barriers,
                "copies": s.copies,
                "in_place": s.in_place,
                "arena_bytes": s.arena_bytes,
                "arena_lower_bound": s.arena_lower_bound,
                "buffers": buffers,
            })
        })
        .collect();
    json!({
        "name": compiled.graph.name,
        "fusion": compiled.code.program.fusion,
        "passes": records(passes(compiled)),
        "ledger": records(ledger_table(&compiled.passes.ledger)),
        "weights": records(weights(compiled)),
        "kernels": records(kernels(compiled)),
        "entries": entries,
        "saved": records(saved(compiled, unfused)),
    })
}
