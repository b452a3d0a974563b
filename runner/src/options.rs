//! Options of generation.

use clap::{Args, ValueEnum};
use llamac_formats::Bounds;
use std::path::PathBuf;

/// Reads how many sequences are to run together.
///
/// # Errors
/// What was found and what was expected.
pub fn sequences(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|n| (1..=Bounds::MOST_SLOTS).contains(n));
    found.ok_or_else(|| format!("found {text}, expected 1 to {} sequences", Bounds::MOST_SLOTS))
}

/// What to generate, and how.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The prompt; without one the model begins a text of its own
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<String>,
    /// The same as PROMPT
    #[arg(short = 'p', long = "prompt", value_name = "PROMPT", conflicts_with = "prompt")]
    pub prompt_flag: Option<String>,
    /// Token ids in place of a prompt: `1,5,7`, or a file of little-endian u32
    #[arg(long, value_name = "IDS|FILE", allow_hyphen_values = true)]
    pub ids: Option<String>,
    /// A file of prompts in place of one: a line each, empty lines skipped; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Sequences generated together: so many from one prompt, with the seeds SEED, SEED + 1, …, or so many of the file at once.
    /// Without -c each has room for the longest prompt and -n tokens
    #[arg(long, alias = "parallel", value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    #[arg(value_parser = sequences)]
    pub batch: usize,
    /// Most tokens to generate; -1: until the text ends or the context is full
    #[arg(short = 'n', long = "n-predict", alias = "predict", value_name = "N", default_value_t = 128)]
    #[arg(allow_negative_numbers = true)]
    pub count: i64,
    /// Temperature; 0 takes the likeliest token always
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    pub temp: f32,
    /// Sample among the K likeliest; 0: all
    #[arg(long, value_name = "K", default_value_t = 40)]
    pub top_k: usize,
    /// Sample among the likeliest whose probabilities sum to P
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Seed of the choices. A text depends on its seed and on how many sequences run at once, which changes the rounding; not on
    /// what the others say
    #[arg(short = 's', long, value_name = "SEED", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Go on past end tokens
    #[arg(long)]
    pub ignore_eos: bool,
    /// Print a table of steps and their times at the end, on stderr
    #[arg(long)]
    pub profile: bool,
    /// Output
    #[arg(long, value_enum, default_value = "text")]
    pub format: RunFormat,
}

/// Output of generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunFormat {
    /// The text, as it comes; several sequences one after the other, each below a line `==> sequence 0 (seed 7) <==`
    Text,
    /// One JSON object: prompt_ids, ids, text, timings; of several sequences: sequences, timings
    Json,
    /// One JSON object a line for each sequence, in their order: sequence, line (of the file), seed, prompt, prompt_ids, ids,
    /// text, finish_reason (stop, length, context, interrupted)
    Jsonl,
}

/// How it runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Running")]
pub struct ThreadArgs {
    /// Threads [default: the physical cores this process may use, by affinity and CPU quota]
    #[arg(short = 't', long, value_name = "THREADS")]
    pub threads: Option<usize>,
    /// Bind each thread to a processor of its own among those this process may use
    #[arg(long)]
    pub pin: bool,
    /// Read the weights of an artifact into memory of its own, on huge pages, rather than map its file
    #[arg(long)]
    pub no_mmap: bool,
    /// Instruction tier of the GEMM runtime: portable, avx2, avx512, avx512vnni, amx [default: the best of this CPU]
    #[arg(long, value_name = "TIER")]
    pub tier: Option<String>,
}
