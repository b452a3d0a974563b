//! `llamac compile`: a model as one file.

use super::args::{BuildArgs, Emit};
use super::ir::listing_text;
use super::progress::Progress;
use super::{Result, artifact, failure, output, say, setup, warn};
use llamac::artifact::{manifest, refuse_input, write};
use llamac::compile::{Compiled, compile_for};
use llamac_codegen::Target;
use llamac_codegen::artifact::Written;
use llamac_formats::artifact::Manifest;
use llamac_runtime::machine;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Compiles, writes, and says on stderr what was written.
pub fn run(args: &BuildArgs) -> Result<ExitCode> {
    let all: Vec<&str> = Target::ALL.iter().map(|t| t.name()).collect();
    let target = Target::from_name(&args.target)
        .ok_or_else(|| failure(format!("--target: found {:?}, expected one of {}", args.target, all.join(", "))))?;
    let options = setup::options(args.fusion.fusion, &args.compile)?;
    if let Some(path) = artifact::path(&args.model) {
        return Err(failure(format!("{}: it is compiled already: name the model it was made from", path.display())));
    }
    if args.output.is_dir() {
        return Err(failure(format!("{}: it is a directory: name a file with -o", args.output.display())));
    }
    let start = Instant::now();
    let model = setup::open(&args.model, &args.compile, None)?;
    refuse_input(&args.output, &model)?;
    let listings = matches!(args.emit, Emit::Clif | Emit::Asm);
    let compiled = compile_for(model.graph.clone(), &options, target, listings)?;
    setup::warn_of_kept(&args.compile, setup::notes(&compiled.passes));
    let text = match args.emit {
        Emit::Ir => Some(llamac_ir::print::print(&compiled.graph)),
        Emit::Clif => Some(listing_text(&compiled, |k| &k.clif)),
        Emit::Asm => Some(listing_text(&compiled, |k| &k.asm)),
        Emit::Artifact | Emit::Exe => None,
    };
    if let Some(text) = text {
        write_text(&args.output, &text)?;
        return Ok(ExitCode::SUCCESS);
    }
    machine::report_file_size_limit();
    let runner = if args.emit == Emit::Exe { Some(runner()?) } else { None };
    let threads = setup::threads::count(args.threads)?;
    let mut progress = Progress::new("packing weights");
    let manifest = manifest(&model, &compiled, &options, target);
    let written = write(&args.output, &model, &compiled, &manifest, runner.as_deref(), threads, &mut |done, all| {
        progress.update(done, all);
    })?;
    drop(progress);
    setup::warn_of_numbers(&model, &written.packed);
    if args.verbose {
        for r in &written.packed.rounded {
            say(format!("{}: {} to {}, relative error {:.5}", r.tensor, r.from, r.to, r.error).as_str());
        }
    }
    say(summary(&args.output, &compiled, &manifest, &written, start.elapsed().as_secs_f64()).trim_end());
    output::print(&format!("{}\n", args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Written beside its place and renamed, as an artifact is.
fn write_text(path: &Path, text: &str) -> Result<()> {
    let failed = |e: std::io::Error| failure(format!("{}: it could not be written ({e})", path.display()));
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".llamac").tempfile_in(directory).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// The runner beside llamac, or llamac itself.
fn runner() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|e| failure(format!("llamac does not find itself: {e}")))?;
    let runner = own.with_file_name(format!("llamac-runner{}", std::env::consts::EXE_SUFFIX));
    if runner.is_file() {
        return Ok(runner);
    }
    warn(format!(
        "{}: there is no runner; llamac itself is put in front of the artifact, which makes the executable larger",
        runner.display()
    ));
    Ok(own)
}

fn summary(path: &Path, compiled: &Compiled, manifest: &Manifest, written: &Written, seconds: f64) -> String {
    let mb = |bytes: usize| format!("{:.2} MB", bytes as f64 / 1e6);
    let entries: Vec<String> = compiled
        .code
        .program
        .entries
        .iter()
        .map(|e| format!("{} ({} steps, arena {})", e.name, e.steps.len(), mb(e.arena_bytes)))
        .collect();
    let weights: Vec<String> = manifest.weight_bytes.iter().map(|(dtype, b)| format!("{dtype} {}", mb(*b))).collect();
    let b = manifest.bounds;
    let memory = manifest.memory;
    format!(
        "{}: {} in {seconds:.2} s\n\
         target    {}, needs {}\n\
         bounds    {} tokens, {} rows a step, {} slots\n\
         entries   {}\n\
         numbers   act {}, kv {}\n\
         kernels   {}, {} bytes of code\n\
         weights   {}\n\
         memory    {} while running, at most: weights {} (mapped), states {}, arena {}, inputs and outputs {}, process {}\n",
        path.display(),
        mb(written.bytes as usize),
        if manifest.target == "native" { "native (this CPU; --target names another)" } else { &manifest.target },
        written.header.features.join(" "),
        b.tokens,
        b.rows,
        b.slots,
        entries.join(", "),
        manifest.act,
        manifest.kv,
        manifest.kernels,
        manifest.code_bytes,
        weights.join(", "),
        mb(memory.total()),
        mb(memory.weights),
        mb(memory.states),
        mb(memory.arena),
        mb(memory.ports),
        mb(memory.process),
    )
}
