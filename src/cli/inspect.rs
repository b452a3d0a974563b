//! `llamac inspect`: what a file or a model directory holds.

use super::args::{InspectArgs, InspectFormat, TableFormat};
use super::table::{Table, pretty};
use super::{Result, failure, inspect_gguf, output};
use llamac_models::ModelDir;
use llamac_runner::artifact::describe;
use llamac_runtime::{OpenOptions, Program};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Prints header, sections, weights and plan of an artifact, or configuration and tensors of a model directory.
pub fn run(args: &InspectArgs) -> Result<ExitCode> {
    let text = if args.path.is_dir() {
        directory(args)?
    } else if llamac::model::is_gguf(&args.path) {
        inspect_gguf::text(args)?
    } else {
        artifact(args)?
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn artifact(args: &InspectArgs) -> Result<String> {
    let options = OpenOptions { verify_weights: args.verify, ..OpenOptions::default() };
    let program = Program::open_with(&args.path, &options)?;
    let info = program.executable().program();
    let mut weights = Table::new(&["recipe", "type", "layout", "offset", "bytes"]);
    for w in &info.weights {
        let layout = if w.panels { "panels" } else { "rows" };
        let ty = format!("{}{:?}", w.dtype, w.dims);
        weights.row(vec![json!(w.recipe), json!(ty), json!(layout), json!(w.offset), json!(w.bytes)]);
    }
    let mut entries = Table::new(&["entry", "steps", "barriers", "arena bytes", "lower bound", "buffers"]);
    for e in &info.entries {
        let barriers = e.steps.iter().filter(|s| s.barrier).count();
        let numbers = [e.steps.len(), barriers, e.arena_bytes, e.arena_lower_bound, e.buffers.len()];
        entries.row(std::iter::once(json!(e.name)).chain(numbers.iter().map(|n| json!(n))).collect());
    }
    let mut all = describe(program.header(), program.manifest());
    all["weights"] = weights.records();
    all["entries"] = entries.records();
    all["checked"] = json!(if args.verify { "all sections" } else { "all sections but the weights (--verify)" });
    if args.format == InspectFormat::Json {
        return Ok(format!("{}\n", pretty(&all)));
    }
    let header = program.header();
    let manifest = program.manifest();
    let mut sections = Table::new(&["section", "offset", "bytes", "xxh3"]);
    for s in &header.sections {
        let sum = format!("{:016x}", s.checksum);
        sections.row(vec![json!(s.kind.name()), json!(s.offset), json!(s.bytes), json!(sum)]);
    }
    let b = manifest.bounds;
    let mut text = format!(
        "# {}\n\nArtifact format {}, compiler {}, {} bytes; target {}, {}, needs {}.\nTokens T <= {}, rows S <= {}, outputs R \
         <= {}, slots {}; act {}, kv {}, fusion {}.\nMemory while running: {} bytes. Checked: {}.\n\n",
        manifest.name,
        llamac_formats::artifact::FORMAT_VERSION,
        header.compiler,
        header.bytes,
        header.target,
        header.architecture,
        header.features.join(", "),
        b.tokens,
        b.rows,
        b.outputs,
        b.slots,
        manifest.act,
        manifest.kv,
        manifest.fusion,
        manifest.memory.total(),
        all["checked"].as_str().unwrap_or_default(),
    );
    for (title, table) in [("Sections", sections), ("Entries", entries), ("Weights", weights)] {
        write!(text, "## {title}\n\n{}\n", table.render(TableFormat::Md))?;
    }
    Ok(text)
}

fn directory(args: &InspectArgs) -> Result<String> {
    if args.verify {
        return Err(failure("--verify: a model directory has no checksums; only an artifact does"));
    }
    let directory = ModelDir::open(&args.path)?;
    let weights = directory.weights()?;
    let mut tensors = Table::new(&["tensor", "type", "bytes"]);
    for tensor in directory.config().tensors() {
        if let Some(view) = llamac_ir::TensorSource::tensor(&weights, &tensor.name) {
            let ty = format!("{}{:?}", view.dtype, view.dims);
            tensors.row(vec![json!(tensor.name), json!(ty), json!(view.bytes.len())]);
        }
    }
    let config = config(&args.path)?;
    let parameters = directory.config().parameters();
    if args.format == InspectFormat::Json {
        let all = json!({
            "name": directory.name(),
            "config": config,
            "parameters": parameters,
            "tensors": tensors.records(),
            "tokenizer": directory.tokenizer().is_some(),
        });
        return Ok(format!("{}\n", pretty(&all)));
    }
    let tokenizer = if directory.tokenizer().is_some() { "a tokenizer" } else { "no tokenizer" };
    Ok(format!(
        "# {}\n\n{parameters} parameters, {tokenizer}.\n\n## Configuration\n\n```json\n{}\n```\n\n## Tensors\n\n{}",
        directory.name(),
        pretty(&config),
        tensors.render(TableFormat::Md)
    ))
}

/// The configuration as it stands in the directory, which `ModelDir` has read already.
fn config(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(path.join("config.json"))?)?)
}
