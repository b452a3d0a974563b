//! `llamac logits`: what the model says after a prompt.

use super::args::{LogitsArgs, LogitsFormat};
use super::setup::{self, Ready};
use super::{Failure, Result, artifact, failure, ids, npy, output, run};
use llamac_runtime::Generator;
use llamac_runtime::sample::argmax;
use serde_json::json;
use std::process::ExitCode;

/// Rows scored in one step.
pub(super) const OUTPUTS: usize = 32;

/// Prints the last position's logits and the likeliest token after every position.
pub fn run(args: &LogitsArgs) -> Result<ExitCode> {
    let given = args.ids.as_deref().map(|list| ids::parse(list).map_err(failure)).transpose()?;
    let opening = setup::opening(&args.threads)?;
    if let Some(program) = artifact::opened(&args.model, &args.compile, args.fusion.fusion, &opening)? {
        let prompt = match (given, &args.prompt) {
            (None, Some(text)) => Some(llamac_runner::prompts::encode(text, program.path(), program.tokenizer()?)?),
            (given, _) => given,
        };
        let prompt = prompt.ok_or_else(nothing)?;
        let info = program.executable().program();
        run::check_prompt(&prompt, info.vocab, info.bounds.tokens)?;
        return print(&mut llamac_runner::artifact::generator(&program, &args.threads)?, &prompt, args.format);
    }
    let options = setup::options(args.fusion.fusion, &args.compile)?;
    let model = setup::open(&args.model, &args.compile, Some(OUTPUTS))?;
    setup::check_generates(&model)?;
    let vocab = run::vocabulary(&model);
    let prompt = match (given, &args.prompt) {
        (Some(ids), _) => ids,
        (None, Some(text)) if text.is_empty() => return Err(failure("the prompt is empty: give some text, or --ids")),
        (None, Some(text)) => {
            let tokenizer = vocab.map(|vocab| model.open_tokenizer(vocab)).transpose()?.flatten();
            run::encode(text, &model, tokenizer.as_ref())?
        }
        (None, None) => return Err(nothing()),
    };
    run::check_prompt(&prompt, vocab, model.graph.bounds.tokens)?;
    let Ready { session, .. } = setup::ready(&model, &options, &args.compile, &args.threads)?;
    let mut generator = setup::generator(&model, session)?;
    print(&mut generator, &prompt, args.format)
}

fn nothing() -> Failure {
    failure("nothing to compute: give token ids with --ids, or a prompt with -p")
}

fn print(generator: &mut Generator, prompt: &[u32], format: LogitsFormat) -> Result<ExitCode> {
    let mut likeliest = Vec::with_capacity(prompt.len());
    let mut last = vec![];
    generator.score(0, prompt, |i, logits| {
        likeliest.push(argmax(logits));
        if i + 1 == prompt.len() {
            last = logits.to_vec();
        }
    })?;
    match format {
        LogitsFormat::Json => {
            let all = json!({ "logits_last": last, "argmax_per_position": likeliest });
            output::print(&format!("{all}\n"))?;
        }
        LogitsFormat::Npy => output::write_bytes(&npy::f32_array(&last))?,
    }
    Ok(ExitCode::SUCCESS)
}
