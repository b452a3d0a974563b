//! From a prompt to a text.

use crate::options::{GenerateArgs, RunFormat};
use crate::output::{self, StdoutError};
use crate::prompts::{self, Given, Prompt};
use crate::{Result, batch, failure, say, threads, warn};
use llamac_formats::Bounds;
use llamac_runtime::sample::{Sampler, SamplingParams};
use llamac_runtime::text::Tokenizer;
use llamac_runtime::{Generator, ProfileTable, Tier, machine};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Exit status after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// How the tokens are chosen.
pub fn sampling(args: &GenerateArgs) -> SamplingParams {
    SamplingParams { temperature: args.temp, top_k: args.top_k, top_p: args.top_p, seed: args.seed }
}

/// Refuses options that no model could make good, before one is opened, and reads the prompt's options.
///
/// # Errors
/// The option, what was found and what was expected.
pub fn check(args: &GenerateArgs) -> Result<Given> {
    count(args)?;
    // The real sampler needs the vocabulary.
    Sampler::new(sampling(args), 1)?;
    prompts::given(args)
}

/// Refuses more sequences at once than a program runs, and says what would run them. `option` is what asks for so many,
/// `origin` the program, as errors call it.
///
/// # Errors
/// What was found and what is there.
pub fn check_batch(option: &str, found: usize, bounds: &Bounds, origin: &Path) -> Result<()> {
    let most = bounds.sequences();
    if found <= most {
        return Ok(());
    }
    Err(failure(format!(
        "{option}: found {found}, but {} runs at most {most} sequences at once: its cache has {} slots, its steps have at \
         most {} rows. Take a smaller {option}, or a program made for as many: `llamac compile MODEL --slots {found} -o FILE`",
        origin.display(),
        bounds.slots,
        bounds.rows
    )))
}

/// How many tokens to generate at most; [`usize::MAX`] where the text or the context ends it.
///
/// # Errors
/// A number that is none.
pub fn count(args: &GenerateArgs) -> Result<usize> {
    match args.count {
        -1 => Ok(usize::MAX),
        n @ 1.. => Ok(usize::try_from(n)?),
        n => {
            let expected = "at least 1 token to generate, or -1 to go on until the text ends or the context is full";
            Err(failure(format!("-n: found {n}, expected {expected}")))
        }
    }
}

/// The tier asked for, or the best of this machine.
///
/// # Errors
/// A name that is none, or of a tier that the machine has not.
pub fn tier(name: Option<&str>) -> Result<Tier> {
    let Some(name) = name else {
        if let Some(withheld) = Tier::withheld() {
            warn(withheld);
        }
        return Ok(Tier::detect());
    };
    let all: Vec<&str> = Tier::ALL.iter().map(|t| t.name()).collect();
    let tier = Tier::from_name(name)
        .ok_or_else(|| failure(format!("--tier: found {name:?}, expected one of {}", all.join(", "))))?;
    if !tier.available() {
        if let (Tier::Amx, Some(withheld)) = (tier, Tier::withheld()) {
            return Err(failure(format!("--tier {name}: {withheld}")));
        }
        return Err(failure(format!("--tier {name}: this CPU ({}) does not have it", machine::processor())));
    }
    Ok(tier)
}

/// What is generated from.
pub struct Source<'a> {
    /// The tokenizer, if there is one.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Tokens that end a text.
    pub eos: &'a [u32],
    /// Opening, and packing where that was done.
    pub load: Duration,
    /// Compiling, where that was done.
    pub compile: Option<Duration>,
}

/// Generates after a prompt, streaming text or as one JSON object, or several sequences as `--batch` and `--prompts` say;
/// then timings on stderr. A profile, if one was asked for, is returned.
///
/// # Errors
/// Whatever stops it.
pub fn generate(
    generator: &mut Generator,
    prompts: &[Prompt],
    args: &GenerateArgs,
    source: &Source<'_>,
) -> Result<(ExitCode, Option<ProfileTable>)> {
    generator.session_mut().set_profiling(args.profile);
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    // A second Ctrl-C does not wait for a step that hangs.
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })?;
    match prompts {
        [one] if args.batch == 1 && args.prompts.is_none() && args.format != RunFormat::Jsonl => {
            single(generator, &one.ids, args, source, &interrupted)?;
        }
        _ => batch::generate(generator, prompts, args, source, &interrupted)?,
    }
    let interrupted = interrupted.load(Ordering::SeqCst);
    let code = if interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS };
    Ok((code, generator.session().profile(true)))
}

/// One sequence, shown as it comes.
fn single(
    generator: &mut Generator,
    prompt: &[u32],
    args: &GenerateArgs,
    source: &Source<'_>,
    interrupted: &AtomicBool,
) -> Result<()> {
    let mut generation = Generation {
        sampler: Sampler::new(sampling(args), generator.vocab())?,
        eos: if args.ignore_eos { &[] } else { source.eos },
        stream: args.format == RunFormat::Text,
        ids: vec![],
        text: source.tokenizer.map(|_| String::new()),
        full: false,
        prompt_time: Duration::ZERO,
        time: Duration::ZERO,
    };
    generation.go(generator, prompt, count(args)?, source.tokenizer, interrupted)?;
    let timings = Timings { load: source.load, compile: source.compile, prompt_tokens: prompt.len() };
    if generation.stream {
        let text_ends = generation.text.as_ref().is_some_and(|t| t.ends_with('\n'));
        if !text_ends {
            output::print("\n")?;
        }
    } else {
        let all = json!({
            "prompt_ids": prompt,
            "ids": generation.ids,
            "text": generation.text,
            "timings": timings.json(&generation),
        });
        output::print(&format!("{}\n", serde_json::to_string_pretty(&all).unwrap_or_default()))?;
    }
    timings.report(&generation, generator);
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
        // An interrupt need not wait for a long prompt.
        let logits = generator.prefill_while(0, prompt, || !interrupted.load(Ordering::Relaxed))?;
        self.prompt_time = start.elapsed();
        let Some(mut logits) = logits else { return Ok(()) };
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
    compile: Option<Duration>,
    prompt_tokens: usize,
}

/// Tokens per second; 0 where there was no time.
pub(crate) fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}

impl Timings {
    fn json(&self, g: &Generation<'_>) -> serde_json::Value {
        // The first token comes out of the prompt's step.
        let steps = g.ids.len().saturating_sub(1);
        json!({
            "load_s": self.load.as_secs_f64(),
            "compile_s": self.compile.map_or(0.0, |c| c.as_secs_f64()),
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
            "\nload {:.1} ms, {}{}",
            ms(self.load),
            self.compile.map_or(String::new(), |c| format!("compile {:.1} ms, ", ms(c))),
            threads::described(generator.session()),
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
            warn(format_args!(
                "the context of {} tokens is full; -c raises it if the model allows it",
                generator.context()
            ));
        }
    }
}
