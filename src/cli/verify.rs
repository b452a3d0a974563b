//! `llamac verify`: interpreter against unfused against fused, or against an artifact.

use super::args::{TableFormat, VerifyArgs};
use super::table::Table;
use super::{Result, artifact, failure, ids, output, run, say, setup};
use llamac::compile::run_passes;
use llamac::model::{Sizes, is_gguf};
use llamac::verify::{Difference, Settings, verify, verify_artifact};
use llamac_passes::Options;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

/// Rows whose outputs are compared in one step of a language model.
const OUTPUTS: usize = 16;

/// Prints a line per entry, output and comparison; fails if one is past its tolerance.
pub fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let ids = args.ids.as_deref().map(|list| ids::parse(list).map_err(failure)).transpose()?;
    if let Some(path) = artifact::path(&args.model) {
        return of_artifact(&path, args, ids);
    }
    let options = setup::options(args.fusion.fusion, &args.compile)?;
    let tier = setup::tier(args.threads.tier.as_deref())?;
    let mut model = setup::open(&args.model, &args.compile, Some(OUTPUTS))?;
    if let Some(ids) = &ids {
        run::check_prompt(ids, run::vocabulary(&model), model.graph.bounds.tokens)?;
    }
    if model.source.is_none() {
        say(format_args!("weights and inputs: seeded ({})", args.seed));
        model.seed_weights(args.seed)?;
    }
    let pool = setup::pool(args.threads.threads, args.threads.pin)?;
    if args.compile.act.is_some() || args.compile.kv.is_some() {
        let passes = run_passes(&mut model.graph.clone(), &options, &mut |_, _, _| ControlFlow::Continue(()))?;
        setup::warn_of_kept(&args.compile, setup::notes(&passes));
    }
    let settings = Settings { options, tier, ids, rows: args.rows, seed: args.seed };
    print(&verify(&model, &settings, &pool)?, args)
}

/// An artifact beside the interpreter of its own graph, or of its model.
fn of_artifact(path: &Path, args: &VerifyArgs, ids: Option<Vec<u32>>) -> Result<ExitCode> {
    let program = artifact::open(path, &args.compile, args.fusion.fusion.as_slice(), &setup::opening(&args.threads)?)?;
    let info = program.executable().program();
    if let Some(ids) = &ids {
        run::check_prompt(ids, info.vocab, info.bounds.tokens)?;
    }
    let b = info.bounds;
    let sizes = Sizes { context: Some(b.tokens), chunk: Some(b.rows), slots: Some(b.slots), outputs: Some(b.outputs) };
    // A text graph has sizes of its own, which are compared.
    let sizes = |model: &Path| if model.is_dir() || is_gguf(model) { sizes } else { Sizes::default() };
    let model = args.model.weights.as_deref().map(|m| setup::open_at(m, None, &sizes(m))).transpose()?;
    say(match &model {
        Some(model) => format!(
            "compared: the code in {} with the interpreter of {}, its graph and its tensors as they are there, matrices in the \
             types that the artifact has them in",
            path.display(),
            model.path.display()
        ),
        None => format!(
            "compared: the code in {0} with the interpreter of the graph in it, on the weights in it; that these are the \
             model's is not (--weights MODEL compares with the model)",
            path.display()
        ),
    });
    let tier = setup::tier(args.threads.tier.as_deref())?;
    let pool = setup::pool(args.threads.threads, args.threads.pin)?;
    let settings = Settings { options: Options::default(), tier, ids, rows: args.rows, seed: args.seed };
    print(&verify_artifact(&program, model.as_ref(), &settings, &pool)?, args)
}

fn print(differences: &[Difference], args: &VerifyArgs) -> Result<ExitCode> {
    let columns = [
        "entry",
        "output",
        "found",
        "expected",
        "relative error",
        "allowed",
        "largest difference",
        "at",
        "NaN or ∞",
        "verdict",
    ];
    let mut table = Table::new(&columns);
    let scientific = |x: f64| match args.format {
        TableFormat::Md => json!(format!("{x:.2e}")),
        _ => json!(x),
    };
    for d in differences {
        table.row(vec![
            json!(d.entry),
            json!(d.output),
            json!(d.found),
            json!(d.expected),
            scientific(d.relative),
            scientific(d.tolerance),
            scientific(d.largest),
            json!(d.at),
            json!(d.not_finite),
            json!(if d.agrees() { "agrees" } else { "DIFFERS" }),
        ]);
    }
    output::print(&table.render(args.format))?;
    match differences.iter().find(|d| !d.agrees()) {
        None => Ok(ExitCode::SUCCESS),
        Some(d) if d.values > 0 && d.not_finite == d.values => Err(failure(format!(
            "entry {}, output {:?}: all {} values are NaN or infinite, so nothing was compared: look at the weights and inputs",
            d.entry, d.output, d.values
        ))),
        Some(d) => Err(failure(format!(
            "{} code differs from the {} in entry {}, output {:?}: relative error {:.2e}, allowed {:.0e}, largest at {}",
            d.found, d.expected, d.entry, d.output, d.relative, d.tolerance, d.at
        ))),
    }
}
