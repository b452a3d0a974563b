//! `llamac run`: compile in memory, or open an artifact, and generate.

use super::args::{RunArgs, TableFormat};
use super::setup::{self, Ready};
use super::table::{Table, rounded};
use super::{Result, artifact, failure, say};
use llamac::model::{Model, Sizes};
use llamac_runner::generate::{self, Source, generate};
use llamac_runtime::ProfileTable;
use llamac_runtime::text::Tokenizer;
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

pub use llamac_runner::prompts::check_prompt;

/// Generates, streaming text or as one JSON object; then timings on stderr.
pub fn run(mut args: RunArgs) -> Result<ExitCode> {
    settle(&mut args)?;
    let args = &args;
    let given = generate::check(&args.generate)?;
    let options = setup::options(args.fusion.fusion, &args.compile)?;

    let start = Instant::now();
    let opening = setup::opening(&args.threads)?;
    if let Some(program) = artifact::opened(&args.model, &args.compile, args.fusion.fusion, &opening)? {
        let (code, profile) = llamac_runner::artifact::run(&program, given, &args.generate, &args.threads, start)?;
        show(profile);
        return Ok(code);
    }
    let at_once = given.at_once(args.generate.batch);
    let sizes = sizes(args, at_once)?;
    let mut model = setup::open_sized(&args.model, &sizes)?;
    setup::check_generates(&model)?;
    let vocab = vocabulary(&model);
    let tokenizer = vocab.map(|vocab| model.open_tokenizer(vocab)).transpose()?.flatten();
    let bounds = model.graph.bounds;
    generate::check_batch("--batch", at_once, &bounds, &model.path)?;
    let text = |text: &str| encode(text, &model, tokenizer.as_ref());
    let prompts = given.prompts(text, model.bos(), vocab, bounds.tokens)?;
    if at_once > 1 && args.compile.context.is_none() && !model.is_text() {
        // Every slot's context becomes memory: no more than the texts can take.
        let longest = prompts.iter().map(|p| p.ids.len()).max().unwrap_or(1);
        let context = longest.saturating_add(generate::count(&args.generate)?).min(bounds.tokens);
        model.resize(&Sizes { context: Some(context), ..sizes })?;
    }
    setup::quantise(&mut model, &args.compile)?;
    let opened = start.elapsed();

    let Ready { compiled, session, load } = setup::ready(&model, &options, &args.compile, &args.threads)?;
    let mut generator = setup::generator(&model, session)?;
    let source =
        Source { tokenizer: tokenizer.as_ref(), eos: model.eos(), load: opened + load, compile: Some(compiled.time) };
    let (code, profile) = generate(&mut generator, &prompts, &args.generate, &source)?;
    show(profile);
    Ok(code)
}

/// A slot for each sequence that runs at once; a graph in text form has what it was written with.
fn sizes(args: &RunArgs, at_once: usize) -> Result<Sizes> {
    let path = args.model.model.as_deref().or(args.model.model_flag.as_deref());
    setup::batch_sizes(&args.compile, at_once, "--batch", path.is_some_and(setup::is_text))
}

fn show(profile: Option<ProfileTable>) {
    if let Some(profile) = profile {
        say(format_args!("\n{}", profile_table(&profile).render(TableFormat::Md).trim_end()));
    }
}

/// Where `-m` names the model, the one free argument is the prompt.
fn settle(args: &mut RunArgs) -> Result<()> {
    if args.model.model_flag.is_some() && args.model.model.is_some() {
        if args.generate.prompt.is_some() || args.generate.prompt_flag.is_some() {
            return Err(failure("with -m MODEL one prompt is expected, as PROMPT or with -p; found a second argument"));
        }
        let first = args.model.model.take().map(|path| path.into_os_string().into_string());
        args.generate.prompt = first.transpose().map_err(|_| failure("the prompt is not valid UTF-8"))?;
    }
    Ok(())
}

/// A prompt's ids, for a model that has a tokenizer.
pub fn encode(text: &str, model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>> {
    if tokenizer.is_none() && model.config().is_none() {
        return Err(failure(format!(
            "{}: a graph has no tokenizer, so text cannot be read: name its model with --weights, or give token \
             ids with --ids",
            model.path.display()
        )));
    }
    llamac_runner::prompts::encode(text, &model.path, tokenizer)
}

/// How many tokens the model knows: the limit of its input `tokens`.
pub fn vocabulary(model: &Model) -> Option<usize> {
    model.graph.order().iter().find_map(|&i| match model.graph.op(i) {
        llamac_ir::Op::Input { name, limit } if name == "tokens" => *limit,
        _ => None,
    })
}

/// A profile as a table whose shares sum to 100.
fn profile_table(profile: &ProfileTable) -> Table {
    let mut table = Table::new(&["name", "kind", "calls", "total ms", "share %"]);
    for row in &profile.rows {
        table.row(vec![
            json!(row.name),
            json!(row.kind),
            json!(row.calls),
            rounded(row.total.as_secs_f64() * 1e3, 3),
            rounded(row.share * 100.0, 2),
        ]);
    }
    table.row(vec![
        json!("total"),
        json!(""),
        json!(profile.calls),
        rounded(profile.total.as_secs_f64() * 1e3, 3),
        json!(100.0),
    ]);
    table
}
