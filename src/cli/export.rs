//! `llamac export`: a model as a GGUF file.

use super::args::ExportArgs;
use super::progress::Progress;
use super::{Result, failure, output, say, setup, warn};
use llamac::export::export;
use llamac::model::{Model, Sizes};
use llamac_models::gguf::write::Numbers;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

/// Writes the file, names it on stdout and says on stderr what is in it.
pub fn run(args: &ExportArgs) -> Result<ExitCode> {
    const KINDS: &str = "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k_m, q5_k_m, q6_k";
    let unknown = |name: &str| failure(format!("--quant: found {name:?}, expected one of {KINDS}"));
    let numbers =
        args.quant.as_deref().map(|name| Numbers::from_name(name).ok_or_else(|| unknown(name))).transpose()?;
    let start = Instant::now();
    let model = Model::open(&args.model, None, &Sizes::default())?;
    model.warnings.iter().for_each(warn);
    let threads = setup::threads::count(args.threads)?;
    let mut progress = Progress::new("writing");
    let written = export(&model, &args.output, numbers, threads, &mut |done, all| progress.update(done, all))?;
    drop(progress);
    let mut kinds = BTreeMap::new();
    for (_, dtype, _) in &written.tensors {
        *kinds.entry(dtype.name()).or_insert(0) += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(name, count)| format!("{count} {name}")).collect();
    say(format_args!(
        "{}: {:.2} MB in {:.2} s; tensors: {}",
        args.output.display(),
        written.bytes as f64 / 1e6,
        start.elapsed().as_secs_f64(),
        kinds.join(", ")
    ));
    output::print(&format!("{}\n", args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}
