//! Artifacts where a model may be named.

use super::args::{CompileArgs, FusionArg, IrArgs, ModelArgs, Stage};
use super::setup::{self, value_name};
use super::{Result, failure, output};
use llamac::artifact::cache_type;
use llamac::report::Report;
use llamac_formats::program as formats;
use llamac_runtime::{OpenOptions, Program};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The path that the options name, if an artifact lies there.
pub fn path(args: &ModelArgs) -> Option<PathBuf> {
    let path = args.model.as_deref().or(args.model_flag.as_deref())?;
    (path.is_file() && Program::is_artifact(path)).then(|| path.to_path_buf())
}

/// Opens the artifact that the options name; `None` where they name a model. Options that were decided when it was compiled
/// are refused where they ask for something else.
pub fn opened(
    args: &ModelArgs,
    compile: &CompileArgs,
    fusion: Option<FusionArg>,
    opening: &OpenOptions,
) -> Result<Option<Program>> {
    let Some(path) = path(args) else { return Ok(None) };
    if args.weights.is_some() {
        return Err(failure(format!("{}: an artifact holds its weights: leave --weights out", path.display())));
    }
    open(&path, compile, fusion.as_slice(), opening).map(Some)
}

/// Opens an artifact, and refuses options that ask for something else than it was compiled with.
pub fn open(path: &Path, compile: &CompileArgs, fusion: &[FusionArg], opening: &OpenOptions) -> Result<Program> {
    let program = llamac_runner::artifact::open(path, opening)?;
    let manifest = program.manifest();
    let decided = |option: &str, found: String, has: String| {
        Err(failure(format!(
            "{option}: found {found}, but {} was compiled with {has}: leave the option out, or compile the model again with \
             `llamac compile MODEL {option} {found} -o FILE`",
            path.display()
        )))
    };
    let bounds = manifest.bounds;
    for (option, given, has) in [
        ("-c", compile.context, bounds.tokens),
        ("--chunk", compile.chunk, bounds.rows),
        ("--slots", compile.slots, bounds.slots),
    ] {
        if let Some(given) = given.filter(|g| *g != has) {
            return decided(option, given.to_string(), has.to_string());
        }
    }
    for fusion in fusion {
        let name = value_name(fusion);
        if name != manifest.fusion {
            return decided("--fusion", name, manifest.fusion.clone());
        }
    }
    let (act, kv) = (compile.act.as_ref().map(value_name), compile.kv.as_ref().map(value_name));
    let kv_became = cache_type(manifest).to_string();
    for (option, given, asked, became) in
        [("--act", act, &manifest.asked.act, &manifest.act), ("--kv", kv, &manifest.asked.kv, &kv_became)]
    {
        let Some(given) = given else { continue };
        // Not every graph can have what was asked for; either is what it was compiled with.
        if given != *asked && given != *became {
            let has = if asked == became { became.clone() } else { format!("{asked} ({became})") };
            return decided(option, given, has);
        }
    }
    if let Some(quant) = compile.quant {
        let has: Vec<&str> = manifest.weight_bytes.iter().map(|(dtype, _)| dtype.as_str()).collect();
        return decided("--quant", quant.to_string(), format!("weights of {}", has.join(", ")));
    }
    if let Some(pass) = compile.disable.iter().find(|p| !manifest.disabled.contains(p)) {
        let has = if manifest.disabled.is_empty() {
            "all passes".to_owned()
        } else {
            format!("--disable {}", manifest.disabled.join(","))
        };
        return decided("--disable", pass.clone(), has);
    }
    if compile.act.is_some() || compile.kv.is_some() {
        let report = program.report().and_then(|bytes| serde_json::from_slice::<Report>(bytes).ok());
        setup::warn_of_kept(compile, report.iter().flat_map(|r| &r.passes).flat_map(|p| &p.notes));
    }
    Ok(program)
}

/// The error of a command that needs more than an artifact holds.
pub fn lacks(path: &Path, command: &str, what: &str) -> super::Failure {
    failure(format!("{}: {command} needs {what}, which an artifact does not hold: name the model", path.display()))
}

/// What `llamac ir` prints of an artifact: the final graph, the plan, or the loops of its kernels.
pub fn ir(program: &Program, args: &IrArgs) -> Result<ExitCode> {
    let path = program.path();
    let of_passes = args.print_before.is_some() || args.print_after.is_some() || args.print_after_all;
    if of_passes || args.stop_after.is_some() {
        return Err(lacks(path, "a pass", "the imported graph"));
    }
    let text = match args.stage {
        None | Some(Stage::Graph) if args.dot => {
            let graph = llamac_ir::parse::parse(program.graph())?;
            llamac_ir::derived::dot_text(&graph)
        }
        _ if args.dot => return Err(failure("--dot: only --stage graph is a graph")),
        None | Some(Stage::Graph) => program.graph().to_owned(),
        Some(Stage::Plan) => plan(program.executable().program()),
        Some(Stage::Loops) => loops(program.executable().program()),
        Some(Stage::Clif) => return Err(lacks(path, "--stage clif", "Cranelift's IR")),
        Some(Stage::Asm) => return Err(lacks(path, "--stage asm", "a disassembly")),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn loops(program: &formats::Program) -> String {
    let mut text = String::new();
    for (i, kernel) in program.kernels.iter().enumerate() {
        let _ = writeln!(text, "// kernel {i}: {}\n{}\n", kernel.name, kernel.loops.trim_end());
    }
    text
}

/// Steps with their barriers, then buffers with their places.
fn plan(program: &formats::Program) -> String {
    let mut text = String::new();
    for entry in &program.entries {
        let (n, arena, least) = (entry.steps.len(), entry.arena_bytes, entry.arena_lower_bound);
        let _ = writeln!(text, "entry {}: {n} steps, arena {arena} bytes, lower bound {least} bytes", entry.name);
        for (i, step) in entry.steps.iter().enumerate() {
            if step.barrier {
                text.push_str("  -- barrier --\n");
            }
            let _ = writeln!(text, "  {i:4} {}", step.name);
        }
        for b in &entry.buffers {
            let (end, name) = (b.offset.saturating_add(b.bytes), &b.name);
            let _ = writeln!(text, "  {:>10}..{end:<10} steps {:4}..{:<4} {name}", b.offset, b.first, b.last);
        }
        text.push('\n');
    }
    text
}
