//! `llamac run`: compile in memory and generate.

use super::args::{RunArgs, RunFormat};
use super::output::{self, StdoutError};
use super::setup::{self, Ready};
use super::table::{Table, pretty, rounded};
use super::{Result, failure, ids, say, warn};
use llamac::model::Model;
use llamac_runtime::sample::{Sampler, SamplingParams};
use llamac_runtime::text::Tokenizer;
use llamac_runtime::{Generator, ProfileTable};
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Exit status after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Generates, streaming text or as one JSON object; then timings on stderr.
pub fn run(mut args: RunArgs) -> Result<ExitCode> {
    settle(&mut args)?;
    let count = match args.count {
        -1 => usize::MAX,
        n @ 1.. => usize::try_from(n)?,
        n => {
            let expected = "at least 1 token to generate, or -1 to go on until the text ends or the context is full";
            return Err(failure(format!("-n: found {n}, expected {expected}")));
        }
    };
    let params = SamplingParams { temperature: args.temp, top_k: args.top_k, top_p: args.top_p, seed: args.seed };
    // Checked before a model is opened; the real one needs the vocabulary.
    Sampler::new(params, 1)?;
    let given = prompt_given(&args)?;
    let options = setup::options(args.fusion.fusion, &args.compile)?;

    let start = Instant::now();
    let model = setup::open(&args.model, &args.compile, None)?;
    setup::check_generates(&model)?;
    let vocab = vocabulary(&model);
    let tokenizer = match (model.tokenizer(), vocab) {
        (Some(path), Some(vocab)) => Some(Tokenizer::from_file(&path, vocab)?),
        _ => None,
    };
    let prompt = prompt_ids(&given, &model, tokenizer.as_ref())?;
    check_prompt(&prompt, vocab, model.graph.bounds.tokens)?;
    let opened = start.elapsed();

    let Ready { compiled, session, load } = setup::ready(&model, &options, &args.threads)?;
    let mut generator = setup::generator(&model, session)?;
    generator.session_mut().set_profiling(args.profile);
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    // A second Ctrl-C does not wait for a step that hangs.
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })?;

    let mut generation = Generation {
        sampler: Sampler::new(params, generator.vocab())?,
        eos: if args.ignore_eos { &[] } else { model.eos() },
        stream: args.format == RunFormat::Text,
        ids: vec![],
        text: tokenizer.as_ref().map(|_| String::new()),
        full: false,
        prompt_time: Duration::ZERO,
        time: Duration::ZERO,
    };
    generation.go(&mut generator, &prompt, count, tokenizer.as_ref(), &interrupted)?;
    let timings = Timings { load: opened + load, compile: compiled.time, prompt_tokens: prompt.len() };
    match args.format {
        RunFormat::Text => {
            let text_ends = generation.text.as_ref().is_some_and(|t| t.ends_with('\n'));
            if !text_ends {
                output::print("\n")?;
            }
        }
        RunFormat::Json => {
            let all = json!({
                "prompt_ids": prompt,
                "ids": generation.ids,
                "text": generation.text,
                "timings": timings.json(&generation),
            });
            output::print(&format!("{}\n", pretty(&all)))?;
        }
    }
    timings.report(&generation, &generator);
    if let Some(profile) = generator.session().profile(true) {
        say(format_args!("\n{}", profile_table(&profile).render(super::args::TableFormat::Md).trim_end()));
    }
    Ok(if interrupted.load(Ordering::SeqCst) { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Where `-m` names the model, the one free argument is the prompt.
fn settle(args: &mut RunArgs) -> Result<()> {
    if args.model.model_flag.is_some() && args.prompt.is_none() && args.prompt_flag.is_none() {
        let first = args.model.model.take().map(|path| path.into_os_string().into_string());
        args.prompt = first.transpose().map_err(|_| failure("the prompt is not valid UTF-8"))?;
    }
    Ok(())
}

/// What the options give to begin with.
enum Given {
    Text(String),
    Ids(Vec<u32>),
    Nothing,
}

fn prompt_given(args: &RunArgs) -> Result<Given> {
    let text = args.prompt.as_ref().or(args.prompt_flag.as_ref());
    match (text, &args.ids) {
        (Some(_), Some(_)) => Err(failure("a prompt and --ids were given: expected one of them")),
        (Some(text), None) if text.is_empty() => {
            Err(failure("the prompt is empty: give some text, or leave it out to start from the begin token"))
        }
        (Some(text), None) => Ok(Given::Text(text.clone())),
        (None, Some(list)) => Ok(Given::Ids(ids::parse(list).map_err(failure)?)),
        (None, None) => Ok(Given::Nothing),
    }
}

fn prompt_ids(given: &Given, model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>> {
    match given {
        Given::Ids(ids) => Ok(ids.clone()),
        Given::Text(text) => encode(text, model, tokenizer),
        Given::Nothing => match model.bos() {
            Some(bos) => Ok(vec![bos]),
            None => Err(failure("no prompt was given and the model has no begin token: give a prompt or --ids")),
        },
    }
}

/// A prompt's ids, for a model that has a tokenizer.
pub fn encode(text: &str, model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>> {
    let Some(tokenizer) = tokenizer else {
        if model.directory.is_none() {
            return Err(failure(format!(
                "{}: a graph has no tokenizer, so text cannot be read: name a model directory with --weights, or give token \
                 ids with --ids",
                model.path.display()
            )));
        }
        return Err(failure(format!(
            "{}: there is no tokenizer.json, so text cannot be read: give token ids with --ids",
            model.path.display()
        )));
    };
    let ids = tokenizer.encode(text, true)?;
    if ids.is_empty() {
        return Err(failure("the prompt has no tokens: give some text, or ids with --ids"));
    }
    Ok(ids)
}

/// How many tokens the model knows: the limit of its input `tokens`.
pub fn vocabulary(model: &Model) -> Option<usize> {
    model.graph.order().iter().find_map(|&i| match model.graph.op(i) {
        llamac_ir::Op::Input { name, limit } if name == "tokens" => *limit,
        _ => None,
    })
}

/// Refuses ids past the vocabulary and prompts longer than the context before anything is compiled.
pub fn check_prompt(prompt: &[u32], vocab: Option<usize>, context: usize) -> Result<()> {
    if let Some((at, id)) = vocab.and_then(|v| prompt.iter().enumerate().find(|&(_, &id)| id as usize >= v)) {
        let vocab = vocab.unwrap_or(0);
        return Err(failure(format!("token {at} of the prompt is {id}, expected 0..{vocab} (the model's vocabulary)")));
    }
    if prompt.len() > context {
        return Err(failure(format!(
            "the prompt has {} tokens, the context {context}: shorten it, or raise -c if the model allows it",
            prompt.len()
        )));
    }
    Ok(())
}

struct Generation<'a> {
    sampler: Sampler,
    eos: &'a [u32],
    stream: bool,
    ids: Vec<u32>,
    text: Option<String>,
    /// Whether it ended because the context was full.
    full: bool,
    prompt_time: Duration,
    time: Duration,
}

impl Generation<'_> {
    fn go(
        &mut self,
        generator: &mut Generator,
        prompt: &[u32],
        count: usize,
        tokenizer: Option<&Tokenizer>,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let mut text = tokenizer.map(|t| t.stream(prompt)).transpose()?;
        let start = Instant::now();
        let chunks = prompt.chunks(generator.session().program().bounds.rows);
        // A chunk at a time, so that an interrupt need not wait for a long prompt.
        for chunk in chunks {
            generator.prefill(0, chunk)?;
            if interrupted.load(Ordering::Relaxed) {
                self.prompt_time = start.elapsed();
                return Ok(());
            }
        }
        let mut logits = generator.logits().data;
        self.prompt_time = start.elapsed();
        let start = Instant::now();
        loop {
            let id = self.sampler.sample(logits);
            if self.eos.contains(&id) {
                break;
            }
            self.ids.push(id);
            let piece = match &mut text {
                Some(text) => text.push(id)?,
                None => String::new(),
            };
            self.emit(&piece, tokenizer.is_none().then_some(id))?;
            // The token just chosen has no place in the cache any more: it can be shown, but not gone on from.
            self.full = generator.len(0)? == generator.context() && self.ids.len() < count;
            if self.ids.len() == count || self.full || interrupted.load(Ordering::Relaxed) {
                break;
            }
            logits = generator.decode(&[(0, id)])?.data;
        }
        self.time = start.elapsed();
        if let Some(text) = text {
            let rest = text.finish()?;
            self.emit(&rest, None)?;
        }
        Ok(())
    }

    /// Shows and keeps a piece of text, or an id where there is no tokenizer.
    fn emit(&mut self, piece: &str, id: Option<u32>) -> Result<(), StdoutError> {
        if let Some(text) = &mut self.text {
            text.push_str(piece);
        }
        if self.stream {
            match id {
                Some(id) if self.ids.len() > 1 => output::print(&format!(",{id}"))?,
                Some(id) => output::print(&id.to_string())?,
                None if !piece.is_empty() => output::print(piece)?,
                None => {}
            }
        }
        Ok(())
    }
}

struct Timings {
    load: Duration,
    compile: Duration,
    prompt_tokens: usize,
}

/// Tokens per second; 0 where there was no time.
fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}

impl Timings {
    fn json(&self, g: &Generation<'_>) -> serde_json::Value {
        // The first token comes out of the prompt's step.
        let steps = g.ids.len().saturating_sub(1);
        json!({
            "load_s": self.load.as_secs_f64(),
            "compile_s": self.compile.as_secs_f64(),
            "prompt_s": g.prompt_time.as_secs_f64(),
            "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_per_s": rate(self.prompt_tokens, g.prompt_time),
            "generation_s": g.time.as_secs_f64(),
            "generation_tokens": g.ids.len(),
            "generation_tokens_per_s": rate(steps, g.time),
        })
    }

    fn report(&self, g: &Generation<'_>, generator: &Generator) {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let steps = g.ids.len().saturating_sub(1);
        say(format_args!(
            "\nload {:.1} ms, compile {:.1} ms, {} threads, tier {}, act {}, kv {}",
            ms(self.load),
            ms(self.compile),
            generator.session().pool().threads(),
            generator.session().tier().name(),
            generator.session().program().act,
            generator.session().program().kv
        ));
        say(format_args!(
            "prompt {} tokens in {:.1} ms ({:.1} tokens/s), generation {} tokens in {:.1} ms ({:.1} tokens/s)",
            self.prompt_tokens,
            ms(g.prompt_time),
            rate(self.prompt_tokens, g.prompt_time),
            g.ids.len(),
            ms(g.time),
            rate(steps, g.time)
        ));
        if g.full {
            warn(format!("the context of {} tokens is full; -c raises it if the model allows it", generator.context()));
        }
    }
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
