//! `llamac explain`: every decision of the compiler.

use super::args::{ExplainArgs, TableFormat};
use super::table::{Table, pretty, rounded};
use super::{Result, artifact, output, setup};
use llamac::artifact::reopen;
use llamac::compile::{self, Compiled};
use llamac::report::Report;
use llamac::traffic::outside_gemms;
use llamac_formats::Bounds;
use llamac_formats::program::Program;
use llamac_ir::Sizes;
use llamac_passes::FusionSet;
use llamac_passes::plan::picture::{Summary, in_place, picture};
use llamac_passes::plan::{EntryPlan, Plan, PlannedBuffer};
use llamac_runtime::OpenOptions;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

/// What there is to explain: a compilation just done, or what an artifact keeps of one.
struct Explained<'a> {
    program: &'a Program,
    bounds: Bounds,
    plan: &'a Plan,
    /// Absent in artifacts made without it.
    report: Option<Report>,
    /// How long each pass took, where they just ran.
    times: Vec<Duration>,
    /// The same without fusion, to compare with.
    unfused: Option<&'a Compiled>,
    code_bytes: usize,
}

/// Prints passes, ledger, recipes, plan, and what fusion saved.
pub fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let opening = OpenOptions::default();
    if let Some(program) = artifact::opened(&args.model, &args.compile, args.fusion.fusion, &opening)? {
        let reopened = reopen(&program)?;
        let explained = Explained {
            program: program.executable().program(),
            bounds: reopened.graph.bounds,
            plan: &reopened.plan,
            report: reopened.report,
            times: vec![],
            unfused: None,
            code_bytes: program.code().len(),
        };
        if explained.report.is_none() && matches!(args.format, TableFormat::Csv | TableFormat::Jsonl) {
            return Err(artifact::lacks(program.path(), "a table of the ledger", "a report"));
        }
        return print(&explained, args.format);
    }
    let options = setup::options(args.fusion.fusion, &args.compile)?;
    let model = setup::open(&args.model, &args.compile, None)?;
    let compiled = compile::compile(model.graph.clone(), &options, false)?;
    setup::warn_of_kept(&args.compile, setup::notes(&compiled.passes));
    let mut plain = options.clone();
    plain.fusion = FusionSet::None;
    let unfused = compile::compile(model.graph.clone(), &plain, false)?;
    let explained = Explained {
        program: &compiled.code.program,
        bounds: compiled.graph.bounds,
        plan: &compiled.plan,
        report: Some(Report::new(&compiled)),
        times: compiled.passes.ran.iter().map(|ran| ran.time).collect(),
        unfused: Some(&unfused),
        code_bytes: compiled.code.code.len(),
    };
    print(&explained, args.format)
}

fn print(explained: &Explained<'_>, format: TableFormat) -> Result<ExitCode> {
    let text = match format {
        TableFormat::Md => explained.text()?,
        TableFormat::Json => format!("{}\n", pretty(&explained.object())),
        format => ledger(explained.report.as_ref()).render(format),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

impl Explained<'_> {
    fn text(&self) -> Result<String> {
        let mut text = String::new();
        let (b, program) = (self.bounds, self.program);
        writeln!(
            text,
            "# {}\n\nRows S <= {}, outputs R <= {}, tokens T <= {}, slots {}; act {}, kv {}, fusion {}.\n",
            program.name, b.rows, b.outputs, b.tokens, b.slots, program.act, program.kv, program.fusion
        )?;
        match &self.report {
            Some(report) => self.decisions(report, &mut text)?,
            None => {
                text.push_str("The artifact was written without the passes' report: no passes, ledger or copies.\n\n")
            }
        }
        writeln!(text, "## Weights\n\n{}", weights(program).render(TableFormat::Md))?;
        writeln!(text, "## Kernels\n\n{}", kernels(program).render(TableFormat::Md))?;
        for entry in &self.plan.entries {
            memory(entry, &mut text)?;
        }
        text.push_str("\n## What fusion saved\n\n");
        match self.unfused {
            Some(unfused) => writeln!(text, "{}", self.saved(unfused).render(TableFormat::Md))?,
            None => writeln!(
                text,
                "An artifact holds one build. What it saves against an unfused one: `llamac explain MODEL`, or `llamac bench` \
                 with an artifact compiled with `--fusion none` beside it."
            )?,
        }
        Ok(text)
    }

    fn decisions(&self, report: &Report, text: &mut String) -> Result<()> {
        writeln!(text, "## Passes\n\n{}", self.passes(report).render(TableFormat::Md))?;
        for (pass, note) in report.passes.iter().flat_map(|p| p.notes.iter().map(move |n| (p, n))) {
            writeln!(text, "- `{}`: {note}", pass.name)?;
        }
        writeln!(text, "\n## Ledger\n\n{}\n\n## Copies\n", report.ledger)?;
        for copy in &report.copies {
            writeln!(text, "- {} for {}: {} ({} bytes)", copy.of, copy.reader, copy.reason, copy.bytes)?;
        }
        if report.copies.is_empty() {
            writeln!(text, "No copies: every view is read through.")?;
        }
        text.push('\n');
        Ok(())
    }

    fn passes(&self, report: &Report) -> Table {
        let timed = self.times.len() == report.passes.len();
        let columns = ["pass", "instructions before", "after", "ms", "what it did"];
        let mut table = Table::new(&columns.into_iter().filter(|c| timed || *c != "ms").collect::<Vec<_>>());
        for (i, pass) in report.passes.iter().enumerate() {
            let mut cells = vec![json!(pass.name), json!(pass.before), json!(pass.after)];
            if timed {
                cells.push(rounded(self.times[i].as_secs_f64() * 1e3, 2));
            }
            cells.push(json!(pass.did));
            table.row(cells);
        }
        table
    }

    /// Each entry fused beside unfused, at its bounds.
    fn saved(&self, unfused: &Compiled) -> Table {
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
        for (a, b) in unfused.plan.entries.iter().zip(&self.plan.entries) {
            let (sa, sb) = (Summary::of(a), Summary::of(b));
            line(&b.name, "steps", sa.steps, sb.steps);
            line(&b.name, "barriers", sa.barriers, sb.barriers);
            line(&b.name, "copies", sa.copies, sb.copies);
            line(&b.name, "arena bytes", sa.arena_bytes, sb.arena_bytes);
            line(&b.name, "bytes moved outside GEMMs at the bounds", moved(a), moved(b));
        }
        line("all", "kernels", unfused.code.program.kernels.len(), self.program.kernels.len());
        line("all", "code bytes", unfused.code.code.len(), self.code_bytes);
        table
    }

    fn object(&self) -> Value {
        let report = self.report.as_ref();
        json!({
            "name": self.program.name,
            "fusion": self.program.fusion,
            "passes": report.map(|r| self.passes(r).records()),
            "ledger": report.map(|r| ledger(Some(r)).records()),
            "weights": weights(self.program).records(),
            "kernels": kernels(self.program).records(),
            "entries": self.plan.entries.iter().map(entry).collect::<Vec<_>>(),
            "saved": self.unfused.map(|u| self.saved(u).records()),
        })
    }
}

fn memory(entry: &EntryPlan, text: &mut String) -> Result<()> {
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
    Ok(())
}

fn ensure_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn ledger(report: Option<&Report>) -> Table {
    let mut table = Table::new(&["producer", "consumer", "type", "bytes", "outcome", "reason", "rule"]);
    for e in report.into_iter().flat_map(|r| &r.edges) {
        let cells = [&e.producer, &e.consumer, &e.ty, &e.bytes, &e.outcome, &e.reason, &e.rule];
        table.row(cells.into_iter().map(|c| json!(c)).collect());
    }
    table
}

fn weights(program: &Program) -> Table {
    let mut table = Table::new(&["recipe", "type", "layout", "bytes"]);
    for w in &program.weights {
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

fn kernels(program: &Program) -> Table {
    let mut table = Table::new(&["kernel", "name", "code bytes", "scratch bytes"]);
    for (i, k) in program.kernels.iter().enumerate() {
        table.row(vec![json!(i), json!(k.name), json!(k.bytes), json!(k.scratch)]);
    }
    table
}

fn moved(entry: &EntryPlan) -> usize {
    let b = entry.graph.bounds;
    outside_gemms(entry, &Sizes { rows: b.rows, outputs: b.outputs, tokens: b.tokens }, b.slots.min(b.rows))
}

fn entry(e: &EntryPlan) -> Value {
    let s = Summary::of(e);
    let buffer = |b: &PlannedBuffer| json!({"name": b.name, "offset": b.offset, "bytes": b.bytes, "first": b.first, "last": b.last});
    json!({
        "name": e.name,
        "steps": s.steps,
        "barriers": s.barriers,
        "copies": s.copies,
        "in_place": s.in_place,
        "arena_bytes": s.arena_bytes,
        "arena_lower_bound": s.arena_lower_bound,
        "buffers": e.buffers.iter().map(buffer).collect::<Vec<_>>(),
    })
}
