//! Several sequences from one prompt or a file of prompts, run together; each one's output apart, in their order.

use crate::generate::{Source, count, rate, sampling};
use crate::options::{GenerateArgs, RunFormat};
use crate::output;
use crate::prompts::Prompt;
use crate::{Result, say, threads, warn};
use llamac_runtime::sample::Sampler;
use llamac_runtime::text::TextStream;
use llamac_runtime::{Batch, Generator};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Why a sequence ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Token,
    Count,
    Context,
    Interrupted,
}

impl End {
    /// As servers call it.
    fn name(self) -> &'static str {
        match self {
            End::Token => "stop",
            End::Count => "length",
            End::Context => "context",
            End::Interrupted => "interrupted",
        }
    }
}

struct Sequence<'a> {
    index: usize,
    seed: u64,
    prompt: &'a Prompt,
    ids: Vec<u32>,
    /// None where there is no tokenizer.
    stream: Option<TextStream<'a>>,
    text: String,
    end: Option<End>,
}

impl Sequence<'_> {
    /// The text's end is what was held back.
    fn finish(&mut self, end: End) -> Result<()> {
        if let Some(stream) = self.stream.take() {
            self.text.push_str(&stream.finish()?);
        }
        self.end = Some(end);
        Ok(())
    }

    fn push(&mut self, id: u32) -> Result<()> {
        self.ids.push(id);
        match &mut self.stream {
            Some(stream) => self.text.push_str(&stream.push(id)?),
            None if self.ids.len() > 1 => self.text.push_str(&format!(",{id}")),
            None => self.text.push_str(&id.to_string()),
        }
        Ok(())
    }

    /// `==> sequence 2 (line 3, seed 9) <==`
    fn header(&self) -> String {
        let line = self.prompt.line.map_or(String::new(), |line| format!("line {line}, "));
        format!("==> sequence {} ({line}seed {}) <==\n", self.index, self.seed)
    }

    fn record(&self, has_text: bool) -> Value {
        let mut record = json!({
            "sequence": self.index,
            "seed": self.seed,
            "prompt": self.prompt.text,
            "prompt_ids": self.prompt.ids,
            "ids": self.ids,
            "text": has_text.then_some(&self.text),
            "finish_reason": self.end.map(End::name),
        });
        if let Some(line) = self.prompt.line {
            record["line"] = json!(line);
        }
        record
    }
}

/// Shows sequences in their order, whatever order they end in: the first that has not ended as its text comes.
struct Printer {
    format: RunFormat,
    has_text: bool,
    /// The first that is not wholly shown.
    front: usize,
    /// Bytes of its text that are shown, once its header is.
    shown: Option<usize>,
    /// For one object at the end.
    records: Vec<Value>,
}

impl Printer {
    fn show(&mut self, sequences: &mut BTreeMap<usize, Sequence<'_>>) -> Result<()> {
        while let Some(sequence) = sequences.get(&self.front) {
            match self.format {
                RunFormat::Text => self.stream(sequence)?,
                RunFormat::Jsonl if sequence.end.is_some() => {
                    output::print(&format!("{}\n", sequence.record(self.has_text)))?;
                }
                RunFormat::Json if sequence.end.is_some() => self.records.push(sequence.record(self.has_text)),
                RunFormat::Json | RunFormat::Jsonl => {}
            }
            if sequence.end.is_none() {
                break;
            }
            sequences.remove(&self.front);
            self.front += 1;
            self.shown = None;
        }
        Ok(())
    }

    fn stream(&mut self, sequence: &Sequence<'_>) -> Result<()> {
        let mut out = String::new();
        if self.shown.is_none() {
            out.push_str(if self.front == 0 { "" } else { "\n" });
            out.push_str(&sequence.header());
        }
        out.push_str(&sequence.text[self.shown.unwrap_or(0)..]);
        self.shown = Some(sequence.text.len());
        if sequence.end.is_some() && !sequence.text.ends_with('\n') {
            out.push('\n');
        }
        if !out.is_empty() {
            output::print(&out)?;
        }
        Ok(())
    }
}

/// What was done, and how long it took.
#[derive(Default)]
struct Timings {
    sequences: usize,
    full: usize,
    prompt_tokens: usize,
    prompt_time: Duration,
    tokens: usize,
    /// Tokens that came out of steps of one row each.
    decoded: usize,
    steps: usize,
    time: Duration,
}

/// Generates a sequence for each prompt, or as many as `--batch` says of one; `--batch` at once. Sequence i has the seed
/// `--seed` + i. A sequence that has ended leaves its place to the next.
///
/// # Errors
/// Whatever stops it.
pub(crate) fn generate(
    generator: &mut Generator,
    prompts: &[Prompt],
    args: &GenerateArgs,
    source: &Source<'_>,
    interrupted: &AtomicBool,
) -> Result<()> {
    let all = if args.prompts.is_some() { prompts.len() } else { args.batch };
    let prompt_of = |index: usize| &prompts[index.min(prompts.len() - 1)];
    if args.temp == 0.0 && all > 1 && prompts.len() == 1 && args.prompts.is_none() {
        warn(format_args!("--temp 0 takes the likeliest token always: all {all} sequences are the same"));
    }
    let most = count(args)?;
    let eos: &[u32] = if args.ignore_eos { &[] } else { source.eos };
    let vocab = generator.vocab();
    let how = threads::described(generator.session());
    let context = generator.context();
    let places = args.batch.min(all);
    let mut batch = Batch::new(generator, places)?;
    let mut by_slot: Vec<usize> = vec![0; places];
    let mut sequences: BTreeMap<usize, Sequence<'_>> = BTreeMap::new();
    let has_text = source.tokenizer.is_some();
    let mut printer = Printer { format: args.format, has_text, front: 0, shown: None, records: vec![] };
    let mut timings = Timings::default();
    let mut next = 0;
    while (next < all || batch.running() > 0) && !interrupted.load(Ordering::Relaxed) {
        while next < all && batch.free() > 0 {
            let prompt = prompt_of(next);
            // Neighbours with the same prompt run it once.
            let rest = next..all.min(next + batch.free());
            let same = rest.take_while(|&i| prompt_of(i).ids == prompt.ids);
            let seed = |index: usize| args.seed.wrapping_add(index as u64);
            let mut samplers = vec![];
            let first = next;
            for index in same {
                let mut params = sampling(args);
                params.seed = seed(index);
                samplers.push(Sampler::new(params, vocab)?);
            }
            timings.prompt_tokens += prompt.ids.len();
            for slot in batch.add(&prompt.ids, samplers)? {
                by_slot[slot] = next;
                let prompt = prompt_of(next);
                let stream = source.tokenizer.map(|t| t.stream(&prompt.ids)).transpose()?;
                let (ids, text) = (vec![], String::new());
                let sequence = Sequence { index: next, seed: seed(next), prompt, ids, stream, text, end: None };
                sequences.insert(next, sequence);
                next += 1;
            }
            debug_assert!(next > first, "a free place takes a sequence");
        }
        let of_prompts = batch.waiting() > 0;
        let start = Instant::now();
        let chosen = batch.step()?.to_vec();
        if of_prompts {
            timings.prompt_time += start.elapsed();
        } else {
            timings.time += start.elapsed();
            timings.steps += 1;
            timings.decoded += chosen.len();
        }
        for token in chosen {
            let Some(sequence) = sequences.get_mut(&by_slot[token.slot]) else { continue };
            let end = if eos.contains(&token.token) {
                Some(End::Token)
            } else {
                sequence.push(token.token)?;
                timings.tokens += 1;
                match sequence.ids.len() {
                    n if n == most => Some(End::Count),
                    // The token just chosen has no place in the cache any more: it can be shown, but not gone on from.
                    _ if batch.is_full(token.slot) => Some(End::Context),
                    _ => None,
                }
            };
            if let Some(end) = end {
                sequence.finish(end)?;
                timings.full += usize::from(end == End::Context);
                batch.remove(token.slot)?;
            }
        }
        printer.show(&mut sequences)?;
    }
    for sequence in sequences.values_mut().filter(|s| s.end.is_none()) {
        sequence.finish(End::Interrupted)?;
    }
    printer.show(&mut sequences)?;
    timings.sequences = next;
    if args.format == RunFormat::Json {
        let all = json!({ "sequences": printer.records, "timings": timings.json(source) });
        output::print(&format!("{}\n", serde_json::to_string_pretty(&all).unwrap_or_default()))?;
    }
    timings.report(source, places, &how, context);
    Ok(())
}

impl Timings {
    fn json(&self, source: &Source<'_>) -> Value {
        json!({
            "load_s": source.load.as_secs_f64(),
            "compile_s": source.compile.map_or(0.0, |c| c.as_secs_f64()),
            "prompt_s": self.prompt_time.as_secs_f64(),
            "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_per_s": rate(self.prompt_tokens, self.prompt_time),
            "generation_s": self.time.as_secs_f64(),
            "generation_tokens": self.tokens,
            "generation_tokens_per_s": rate(self.decoded, self.time),
            "generation_tokens_per_s_each": rate(self.steps, self.time),
            "steps": self.steps,
        })
    }

    fn report(&self, source: &Source<'_>, places: usize, how: &str, context: usize) {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let compile = source.compile.map_or(String::new(), |c| format!("compile {:.1} ms, ", ms(c)));
        say(format_args!("\nload {:.1} ms, {compile}{how}", ms(source.load)));
        say(format_args!(
            "{} sequences, {places} at once: prompt {} tokens in {:.1} ms ({:.1} tokens/s), generation {} tokens in {:.1} ms \
             ({:.1} tokens/s in all, {:.1} each, {:.2} ms a step)",
            self.sequences,
            self.prompt_tokens,
            ms(self.prompt_time),
            rate(self.prompt_tokens, self.prompt_time),
            self.tokens,
            ms(self.time),
            rate(self.decoded, self.time),
            rate(self.steps, self.time),
            ms(self.time) / self.steps.max(1) as f64,
        ));
        if self.full > 0 {
            warn(format_args!(
                "{} sequences ended where the context of {context} tokens is full; -c raises it if the model allows it",
                self.full
            ));
        }
    }
}
