//! `llamac inspect`: what a file or a model directory holds.

use super::args::{InspectArgs, InspectFormat, TableFormat};
use super::table::{Table, pretty};
use super::{Result, failure, inspect_gguf, output};
use llamac_formats::artifact::{FORMAT_VERSION, Header, HeaderError, MAGIC};
use llamac_models::ModelDir;
use llamac_runner::artifact::describe;
use llamac_runtime::{ArtifactError, Features, OpenOptions, Program};
use serde_json::{Value, json};
use std::fmt::Write;
use std::io::Read;
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

/// An artifact, or an executable that carries one. One of another machine is read as that machine would.
fn artifact(args: &InspectArgs) -> Result<String> {
    let header = match Program::read_header(&args.path) {
        Ok(header) => header,
        Err(ArtifactError::Header { error: HeaderError::Version { found }, .. }) => return Ok(of_version(args, found)),
        Err(other) => return Err(other.into()),
    };
    let names = header.features.iter().cloned().collect();
    let features = Features { architecture: header.architecture.clone(), names };
    let program = Program::open_with(
        &args.path,
        &OpenOptions { features, verify_weights: args.verify, ..OpenOptions::default() },
    )?;
    let runs = runs(&header, &Features::detect());
    let carried = if is_executable(&args.path) { "an executable that carries an artifact" } else { "an artifact" };
    let checked = if args.verify { "all sections" } else { "all sections but the weights (--verify)" };
    let info = program.executable().program();
    let (weights, entries) = (weights(info), entries(info));
    let manifest = program.manifest();
    if args.format == InspectFormat::Json {
        let mut all = describe(&header, manifest);
        all["kind"] = json!(carried);
        all["runs_here"] = json!(runs.is_none());
        all["why_not"] = json!(runs);
        all["weights"] = weights.records();
        all["entries"] = entries.records();
        all["chat_template"] = json!(program.chat_template());
        all["checked"] = json!(checked);
        return Ok(format!("{}\n", pretty(&all)));
    }
    let mut sections = Table::new(&["section", "offset", "bytes", "xxh3"]);
    for s in &header.sections {
        let sum = format!("{:016x}", s.checksum);
        sections.row(vec![json!(s.kind.name()), json!(s.offset), json!(s.bytes), json!(sum)]);
    }
    let (b, m) = (manifest.bounds, manifest.memory);
    let mut text = format!(
        "# {}\n\nThis is {carried}: format {FORMAT_VERSION}, compiler {}, {} bytes; target {}, {}, needs {}.\nIt {}.\n\
         Tokens T <= {}, rows S <= {}, outputs R <= {}, slots {}; act {}, kv {}, fusion {}{}.\nMemory while running: {} \
         bytes (weights {}, states {}, arena {}, inputs and outputs {}, process {}). Checked: {checked}.\n\n",
        manifest.name,
        header.compiler,
        header.bytes,
        header.target,
        header.architecture,
        if header.features.is_empty() { "no features".to_owned() } else { header.features.join(", ") },
        runs.map_or_else(|| "runs here".to_owned(), |why| format!("cannot run here: {why}")),
        b.tokens,
        b.rows,
        b.outputs,
        b.slots,
        manifest.act,
        manifest.kv,
        manifest.fusion,
        manifest.disabled.iter().map(|pass| format!(", without {pass}")).collect::<String>(),
        m.total(),
        m.weights,
        m.states,
        m.arena,
        m.ports,
        m.process,
    );
    for (title, table) in [("Sections", sections), ("Entries", entries), ("Weights", weights)] {
        write!(text, "## {title}\n\n{}\n", table.render(TableFormat::Md))?;
    }
    if let Some(template) = program.chat_template() {
        write!(text, "## Chat template\n\n```jinja\n{template}\n```\n")?;
    }
    Ok(text)
}

fn weights(program: &llamac_formats::program::Program) -> Table {
    let mut table = Table::new(&["recipe", "type", "layout", "offset", "bytes"]);
    for w in &program.weights {
        let layout = if w.panels { "panels" } else { "rows" };
        let ty = format!("{}{:?}", w.dtype, w.dims);
        table.row(vec![json!(w.recipe), json!(ty), json!(layout), json!(w.offset), json!(w.bytes)]);
    }
    table
}

fn entries(program: &llamac_formats::program::Program) -> Table {
    let mut table = Table::new(&["entry", "steps", "barriers", "arena bytes", "lower bound", "buffers"]);
    for e in &program.entries {
        let barriers = e.steps.iter().filter(|s| s.barrier).count();
        let numbers = [e.steps.len(), barriers, e.arena_bytes, e.arena_lower_bound, e.buffers.len()];
        table.row(std::iter::once(json!(e.name)).chain(numbers.iter().map(|n| json!(n))).collect());
    }
    table
}

/// Why the code cannot run on a machine; nothing where it can.
fn runs(header: &Header, machine: &Features) -> Option<String> {
    if header.architecture != machine.architecture {
        return Some(format!("its code is for {}, this machine is {}", header.architecture, machine.architecture));
    }
    let missing = machine.missing(&header.features);
    (!missing.is_empty()).then(|| {
        let remedy = machine.target();
        format!("this CPU lacks {}; `llamac compile MODEL --target {remedy}` makes one that runs", missing.join(", "))
    })
}

/// Nothing behind the version can be read: the format may be any.
fn of_version(args: &InspectArgs, found: u32) -> String {
    let why =
        format!("this llamac reads format {FORMAT_VERSION}: compile the model again, or use the llamac that made it");
    if args.format == InspectFormat::Json {
        return format!("{}\n", pretty(&json!({ "format": found, "runs_here": false, "why_not": why })));
    }
    format!("# {}\n\nThis is an artifact of format {found}.\nIt cannot run here: {why}.\n", args.path.display())
}

/// Whether an artifact does not begin the file.
fn is_executable(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic != MAGIC
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
    let template = directory.chat_template()?;
    if args.format == InspectFormat::Json {
        let all = json!({
            "name": directory.name(),
            "config": config,
            "parameters": parameters,
            "tensors": tensors.records(),
            "tokenizer": directory.tokenizer().is_some(),
            "chat_template": template,
        });
        return Ok(format!("{}\n", pretty(&all)));
    }
    let tokenizer = if directory.tokenizer().is_some() { "a tokenizer" } else { "no tokenizer" };
    let mut text = format!(
        "# {}\n\n{parameters} parameters, {tokenizer}.\n\n## Configuration\n\n```json\n{}\n```\n\n## Tensors\n\n{}",
        directory.name(),
        pretty(&config),
        tensors.render(TableFormat::Md)
    );
    if let Some(template) = template {
        write!(text, "\n## Chat template\n\n```jinja\n{template}\n```\n")?;
    }
    Ok(text)
}

/// The configuration as it stands in the directory, which `ModelDir` has read already.
fn config(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(path.join("config.json"))?)?)
}
