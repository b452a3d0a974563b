//! `llamac perplexity`: how well a model predicts a text.

use super::args::PerplexityArgs;
use super::progress::Progress;
use super::setup::{self, Ready};
use super::table::{Table, rounded};
use super::{Result, artifact, failure, logits, output, run, warn};
use llamac_runtime::Generator;
use llamac_runtime::text::Tokenizer;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// The longest text that is read, bytes.
const MOST_BYTES: u64 = 256 << 20;

/// Scores the text window by window.
pub fn run(args: &PerplexityArgs) -> Result<ExitCode> {
    if args.window < 2 {
        return Err(failure(format!(
            "--window: found {}, expected at least 2: from one token nothing is predicted",
            args.window
        )));
    }
    let text = read(&args.file)?;
    let opening = setup::opening(&args.threads)?;
    if let Some(program) = artifact::opened(&args.model, &args.compile, args.fusion.fusion, &opening)? {
        let bounds = program.executable().program().bounds;
        check_window(args.window, bounds.tokens)?;
        let tokens = encode(&text, args, program.path(), program.tokenizer()?)?;
        if bounds.outputs == 1 {
            let path = program.path().display();
            warn(format!("{path}: it gives the logits of 1 row a step, so a window is scored token by token"));
        }
        let mut generator = llamac_runner::artifact::generator(&program, &args.threads)?;
        return score(&mut generator, &tokens, program.bos(), args);
    }
    let options = setup::options(args.fusion.fusion, &args.compile)?;
    let model = setup::open(&args.model, &args.compile, Some(logits::OUTPUTS))?;
    setup::check_generates(&model)?;
    check_window(args.window, model.graph.bounds.tokens)?;
    let tokenizer = run::vocabulary(&model).map(|vocab| model.open_tokenizer(vocab)).transpose()?.flatten();
    let tokens = encode(&text, args, &model.path, tokenizer.as_ref())?;
    let Ready { session, .. } = setup::ready(&model, &options, &args.compile, &args.threads)?;
    score(&mut setup::generator(&model, session)?, &tokens, model.bos(), args)
}

fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let wrong = |what: String| failure(format!("-f: {shown}: {what}, expected a text file in UTF-8"));
    let metadata = std::fs::metadata(path).map_err(|e| wrong(format!("it cannot be read ({e})")))?;
    if !metadata.is_file() {
        return Err(wrong("found a directory or a device".to_owned()));
    }
    if metadata.len() > MOST_BYTES {
        return Err(wrong(format!("found {} bytes, which is more than {MOST_BYTES}", metadata.len())));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(format!("it cannot be read ({e})")))?;
    String::from_utf8(bytes).map_err(|e| wrong(format!("byte {} is not UTF-8", e.utf8_error().valid_up_to())))
}

fn check_window(window: usize, context: usize) -> Result<()> {
    if window > context {
        return Err(failure(format!(
            "--window: found {window}, but the context holds {context} tokens: take a smaller window, or a larger context \
             with -c if the model allows it"
        )));
    }
    Ok(())
}

/// The ids of the text alone: a begin token belongs to each window, not to the text.
fn encode(text: &str, args: &PerplexityArgs, origin: &Path, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>> {
    let Some(tokenizer) = tokenizer else {
        return Err(failure(format!(
            "{}: there is no tokenizer, so {} cannot be read: name a model with a tokenizer.json",
            origin.display(),
            args.file.display()
        )));
    };
    Ok(tokenizer.encode(text, false)?)
}

fn score(generator: &mut Generator, tokens: &[u32], begin: Option<u32>, args: &PerplexityArgs) -> Result<ExitCode> {
    let start = Instant::now();
    let mut progress = Progress::tokens("scoring");
    let found = generator.perplexity(tokens, begin, args.window, |done, all| progress.update(done, all));
    drop(progress);
    let found = found.map_err(|e| failure(format!("{}: {e}", args.file.display())))?;
    let program = generator.session().program();
    let columns = ["model", "act", "kv", "window", "windows", "tokens", "dropped", "nll", "perplexity", "±", "t/s"];
    let mut table = Table::new(&columns);
    table.row(vec![
        json!(program.name),
        json!(program.act),
        json!(program.kv),
        json!(args.window),
        json!(found.windows),
        json!(found.tokens),
        json!(found.dropped),
        rounded(found.nll_per_token(), 6),
        rounded(found.perplexity(), 4),
        rounded(found.error(), 4),
        rounded(found.tokens as f64 / start.elapsed().as_secs_f64(), 1),
    ]);
    output::print(&table.render(args.format))?;
    Ok(ExitCode::SUCCESS)
}
