//! The command line as `clap` sees it.

use super::profile::ProfileArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use llamac_models::quant::Quant;
use std::path::PathBuf;

use llamac_runner::options::sequences;
pub use llamac_runner::options::{GenerateArgs, ThreadArgs};

/// A graph compiler for Llama-family models: compiles a model for this CPU, shows every decision, runs it.
#[derive(Debug, Parser)]
#[command(
    name = "llamac",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "Examples:
  llamac run examples/models/bard \"ROMEO:\" -n 80
  llamac compile examples/models/bard -o bard.llamac && llamac run bard.llamac \"ROMEO:\"
  llamac ir examples/models/bard --print-after fuse-rows
  llamac explain examples/models/bard
  llamac bench examples/models/bard -p 512 -n 128 --fusion none,all

Results go to stdout, everything else to stderr. MODEL is a Hugging Face directory, a GGUF file, a graph in text
form (.lir), or an artifact that `llamac compile` made.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile a model to a file that runs: an artifact, or an executable
    Compile(BuildArgs),
    /// Show what an artifact, a GGUF file or a model directory holds
    Inspect(InspectArgs),
    /// Generate text, from a model compiled in memory or an artifact
    Run(RunArgs),
    /// Print the logits of a prompt's last position and the likeliest token after each
    Logits(LogitsArgs),
    /// Measure how well a model predicts a text
    Perplexity(PerplexityArgs),
    /// Print the graph before and after any pass, the plan, the loops or the machine code
    Ir(IrArgs),
    /// Show what was fused and why not, recipes, memory plan, copies and barriers
    Explain(ExplainArgs),
    /// Compare interpreter, unfused and fused execution
    Verify(VerifyArgs),
    /// Measure prefill and decode speed, and the memory bandwidth that decode reaches
    Bench(BenchArgs),
    /// Show where the time goes, beside what the machine can do
    Profile(ProfileArgs),
    /// Measure what this machine can do: memory, arithmetic, threads
    Machine(MachineArgs),
    /// Write a model as a GGUF file, as llama.cpp reads it
    Export(ExportArgs),
    /// Write a model directory with seeded random weights
    Synth(SynthArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    Man {
        /// Where to.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
    },
}

/// The model, on every command that reads one.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// A Hugging Face directory, a GGUF file, a graph in text form (.lir), or an artifact (.llamac)
    #[arg(value_name = "MODEL", required_unless_present = "model_flag")]
    pub model: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short = 'm', long = "model", value_name = "MODEL")]
    pub model_flag: Option<PathBuf>,
    /// Where a text graph's weights are: a model directory, a GGUF file or a .safetensors file; for `verify` of an artifact, its model
    #[arg(long, value_name = "PATH")]
    pub weights: Option<PathBuf>,
}

/// Which kinds of fusion to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FusionArg {
    /// Every primitive is a kernel of its own
    None,
    /// Only row kernels: norms, RoPE, softmax
    Rows,
    /// Only elementwise work on GEMM tiles
    Epilogue,
    /// Only tiled attention
    Attention,
    /// All three
    All,
}

/// Number format of activations at dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ActArg {
    /// q8 at weights in block formats, bf16 at weights of bf16, f32 at all others
    Auto,
    /// 32-bit floats
    F32,
    /// 16-bit floats with 8 bits of mantissa
    Bf16,
    /// Blocks of 8-bit integers, at weights in block formats
    Q8,
}

/// Number format of the key-value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvArg {
    /// 32-bit floats
    F32,
    /// Their upper halves
    Bf16,
    /// Blocks of 32 eight-bit integers
    #[value(name = "q8_0")]
    Q8_0,
}

/// What decides how a model is compiled.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Compiling")]
pub struct CompileArgs {
    /// Leave a pass out (may be repeated)
    #[arg(long, value_name = "PASS", value_delimiter = ',')]
    pub disable: Vec<String>,
    /// Activations at dots: the default follows the weights [default: auto]
    #[arg(long, value_enum)]
    pub act: Option<ActArg>,
    /// What the matrices become: q8_0, q4_0, q4_1, q5_0, q5_1, q4_k_m, q5_k_m, q6_k, bf16, f16, f32 [default: as they are]
    #[arg(long, value_name = "TYPE")]
    pub quant: Option<Quant>,
    /// The key-value cache [default: f32]
    #[arg(long, value_enum)]
    pub kv: Option<KvArg>,
    /// Tokens a sequence may have [default: the model's, at most 4096]
    #[arg(short = 'c', long = "ctx", alias = "ctx-size", value_name = "CONTEXT")]
    pub context: Option<usize>,
    /// Most rows of a step [default: 512]
    #[arg(long, value_name = "ROWS")]
    pub chunk: Option<usize>,
    /// Sequences that may be in the cache together [default: 1]
    #[arg(long, value_name = "N")]
    pub slots: Option<usize>,
}

/// `--fusion` with one value.
#[derive(Debug, Args)]
#[command(next_help_heading = "Compiling")]
pub struct FusionArgs {
    /// Which kinds of fusion to use [default: all]
    #[arg(long, value_enum)]
    pub fusion: Option<FusionArg>,
}

/// `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llamac run examples/models/bard \"ROMEO:\" -n 80
  llamac run -m examples/models/bard -p \"JULIET:\" -n 40 --temp 0
  llamac run examples/models/bard --ids 2043,866,266 -n 16 --format json
  llamac run -m examples/models/bard -p \"KING:\" -n -1 --ignore-eos -c 256 --profile
  llamac run examples/models/bard \"ROMEO:\" -n 40 --batch 4 --seed 7
  llamac run examples/models/bard --prompts examples/prompts.txt --batch 4 -n 32
  llamac run examples/models/bard --prompts - --batch 4 -n 32 --format jsonl < examples/prompts.txt

--batch and --prompts generate several sequences, a step for all of them at once. Sequence 0, 1, 2, … has the seed SEED,
SEED + 1, SEED + 2, …; they are shown in this order, the first that has not ended as its text comes. One that ends leaves its
place to the next line of the file. What each says depends on its seed and on how many run at once, not on what the others
say. As text each comes below a line `==> sequence 0 (line 1, seed 7) <==`; for programs,
`--format jsonl` gives an object for each on a line of its own.")]
pub struct RunArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Generation.
    #[command(flatten)]
    pub generate: GenerateArgs,
    /// Fusion.
    #[command(flatten)]
    pub fusion: FusionArgs,
    /// Compiling.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// Threads.
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// `logits`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llamac logits examples/models/bard --ids 2043,866,266
  llamac logits examples/models/bard --ids prompt.u32 --format npy > logits.npy")]
pub struct LogitsArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Token ids: `1,5,7`, or a file of little-endian u32
    #[arg(long, value_name = "IDS|FILE", allow_hyphen_values = true)]
    pub ids: Option<String>,
    /// A prompt, for a model with a tokenizer
    #[arg(short = 'p', long, value_name = "PROMPT", conflicts_with = "ids")]
    pub prompt: Option<String>,
    /// Output: JSON, or the last position's logits as a NumPy file
    #[arg(long, value_enum, default_value = "json")]
    pub format: LogitsFormat,
    /// Fusion.
    #[command(flatten)]
    pub fusion: FusionArgs,
    /// Compiling.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// Threads.
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// `perplexity`.
#[derive(Debug, Args)]
#[command(
    after_help = "The text is cut into windows of the begin token and W - 1 tokens of the text; every token of the text is
predicted from those before it in its window, and what fills no window is dropped.

Examples:
  llamac perplexity examples/models/bard -f examples/models/bard/README.md --window 128
  llamac perplexity examples/models/bard -f examples/models/bard/README.md --window 64 --format json"
)]
pub struct PerplexityArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The text, UTF-8
    #[arg(short = 'f', long = "file", value_name = "TEXT")]
    pub file: PathBuf,
    /// Tokens of a window, the begin token included
    #[arg(short = 'w', long, value_name = "W", default_value_t = 512)]
    pub window: usize,
    /// Output
    #[arg(long, value_enum, default_value = "md")]
    pub format: TableFormat,
    /// Fusion.
    #[command(flatten)]
    pub fusion: FusionArgs,
    /// Compiling.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// Threads.
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// Output of `logits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogitsFormat {
    /// `{"logits_last": […], "argmax_per_position": […]}`
    Json,
    /// The last position's logits, f32
    Npy,
}

/// `ir`.
#[derive(Debug, Args)]
#[command(after_help = "Without options the imported graph is printed. A printed graph can be edited and run.

Examples:
  llamac ir examples/models/bard --stop-after fuse-rows > g.lir
  llamac run g.lir --weights examples/models/bard -p \"ROMEO:\"
  llamac ir examples/models/bard --print-after-all
  llamac ir examples/models/bard --stage loops
  llamac ir examples/mlp.lir --dot | dot -Tsvg > mlp.svg")]
pub struct IrArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print the graph as it is before this pass
    #[arg(long, value_name = "PASS", group = "print")]
    pub print_before: Option<String>,
    /// Print the graph as it is after this pass
    #[arg(long, value_name = "PASS", group = "print")]
    pub print_after: Option<String>,
    /// Print the graph after every pass
    #[arg(long, group = "print")]
    pub print_after_all: bool,
    /// Stop after this pass and print the graph
    #[arg(long, value_name = "PASS", group = "print")]
    pub stop_after: Option<String>,
    /// Which form of the finished program to print
    #[arg(long, value_enum, group = "print")]
    pub stage: Option<Stage>,
    /// Print as a DOT graph
    #[arg(long)]
    pub dot: bool,
    /// Fusion.
    #[command(flatten)]
    pub fusion: FusionArgs,
    /// Compiling.
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// A form of the finished program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The graph after all graph passes
    Graph,
    /// Steps, barriers and buffers
    Plan,
    /// Loop IR of every kernel
    Loops,
    /// Cranelift IR of every kernel
    Clif,
    /// Machine code of every kernel
    Asm,
}

/// `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llamac explain examples/models/bard
  llamac explain examples/models/bard --fusion rows --format json")]
pub struct ExplainArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Output
    #[arg(long, value_enum, default_value = "md")]
    pub format: TableFormat,
    /// Fusion.
    #[command(flatten)]
    pub fusion: FusionArgs,
    /// Compiling.
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llamac verify examples/models/bard
  llamac verify examples/mlp.lir
  llamac verify bard.llamac
  llamac verify bard.llamac --weights examples/models/bard

An artifact is compared with the interpreter of the graph in it on the weights in it; with --weights MODEL, of the
model that it was made of.")]
pub struct VerifyArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Token ids to verify with: `1,5,7`, or a file of little-endian u32 [default: seeded]
    #[arg(long, value_name = "IDS|FILE", allow_hyphen_values = true)]
    pub ids: Option<String>,
    /// Rows of the verified prefill, where no ids are given [default: 9, or as many as fit]
    #[arg(long, value_name = "N", conflicts_with = "ids")]
    pub rows: Option<usize>,
    /// Seed of absent inputs and weights
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// Output
    #[arg(long, value_enum, default_value = "md")]
    pub format: TableFormat,
    /// Fusion.
    #[command(flatten)]
    pub fusion: FusionArgs,
    /// Compiling.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// Threads.
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llamac bench examples/models/bard
  llamac bench examples/models/bard -p 512 -n 128 -r 5 -t 1,2 --format json
  llamac bench examples/models/bard --fusion none,rows,epilogue,attention,all
  llamac bench examples/models/bard -p 0 -n 64 -d 128 -b 1,8,32
  llamac bench bard-unfused.llamac bard.llamac -p 128

-p, -n and -d count tokens of each sequence; the cache has room for all of them. t/s is that of all sequences together,
t/s each that of one of them, ms/step the time in which each gets a token (in a prefill, that of a chunk of rows).")]
pub struct BenchArgs {
    /// Models and artifacts; several are measured in turn and compared
    #[arg(value_name = "MODEL", required_unless_present = "model_flag")]
    pub models: Vec<PathBuf>,
    /// The same as MODEL
    #[arg(short = 'm', long = "model", value_name = "MODEL")]
    pub model_flag: Vec<PathBuf>,
    /// Where a text graph's weights are: a model directory or a .safetensors file
    #[arg(long, value_name = "PATH")]
    pub weights: Option<PathBuf>,
    /// Prompt lengths; 0 leaves prefill out
    #[arg(short = 'p', long = "n-prompt", value_name = "N,…", value_delimiter = ',', default_value = "512")]
    pub prompt: Vec<usize>,
    /// Tokens to generate; 0 leaves decode out
    #[arg(short = 'n', long = "n-gen", value_name = "N,…", value_delimiter = ',', default_value = "128")]
    pub generate: Vec<usize>,
    /// Repetitions
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5)]
    pub repetitions: usize,
    /// Threads, a list [default: the physical cores this process may use, by affinity and CPU quota]
    #[arg(short = 't', long, value_name = "N,…", value_delimiter = ',')]
    pub threads: Vec<usize>,
    /// Bind each thread to a processor of its own among those this process may use
    #[arg(long)]
    pub pin: bool,
    /// Read the weights of artifacts into memory of their own, on huge pages, rather than map the files
    #[arg(long)]
    pub no_mmap: bool,
    /// Tokens in the cache before measuring, a list
    #[arg(short = 'd', long = "n-depth", value_name = "N,…", value_delimiter = ',', default_value = "0")]
    pub depth: Vec<usize>,
    /// Sequences run together, a list: a step of decode has a row of each, prompts share their steps
    #[arg(short = 'b', long, value_name = "N,…", value_delimiter = ',', default_value = "1")]
    #[arg(allow_negative_numbers = true, value_parser = sequences)]
    pub batch: Vec<usize>,
    /// Instruction tier of the GEMM runtime: portable, avx2, avx512, avx512vnni, amx [default: the best of this CPU]
    #[arg(long, value_name = "TIER")]
    pub tier: Option<String>,
    /// Kinds of fusion; several are measured in turn and compared [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub fusion: Vec<FusionArg>,
    /// Output
    #[arg(long, value_enum, default_value = "md")]
    pub format: TableFormat,
    /// Compiling.
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// `machine`.
#[derive(Debug, Args)]
#[command(
    after_help = "What was measured is saved for `llamac profile`, in llamac/machine.json of $XDG_CACHE_HOME or ~/.cache.

Examples:
  llamac machine --no-save
  llamac machine -t 1 --format json -o target/machine.json"
)]
pub struct MachineArgs {
    /// Most threads; fewer are measured too [default: the physical cores this process may use]
    #[arg(short = 't', long, value_name = "THREADS")]
    pub threads: Option<usize>,
    /// Where to save
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Save nothing
    #[arg(long, conflicts_with = "output")]
    pub no_save: bool,
    /// Output
    #[arg(long, value_enum, default_value = "md")]
    pub format: TableFormat,
}

/// Output of tabular commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// A Markdown table
    Md,
    /// Comma-separated values
    Csv,
    /// One JSON array
    Json,
    /// One JSON object a line
    Jsonl,
}

/// `export`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llamac export examples/models/bard -o bard.gguf
  llamac export examples/models/bard -o bard-q4.gguf --quant q4_k_m")]
pub struct ExportArgs {
    /// A Hugging Face directory or a GGUF file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What matrices are stored as: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k_m, q5_k_m, q6_k [default: as the
    /// model has them]
    #[arg(long, value_name = "KIND")]
    pub quant: Option<String>,
    /// Threads that encode [default: the physical cores this process may use]
    #[arg(short = 't', long, value_name = "N")]
    pub threads: Option<usize>,
}

/// `synth`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llamac synth llama-3.2-1b -o /tmp/llama-1b
  llamac synth my/config.json -o /tmp/mine --seed 7")]
pub struct SynthArgs {
    /// A preset (llama-3.2-1b, stories-15m, olmo2-1b) or a config.json
    #[arg(value_name = "PRESET|CONFIG")]
    pub what: String,
    /// The directory to write
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// The same seed gives the same bytes
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
}

/// `compile`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llamac compile examples/models/bard -o bard.llamac && llamac run bard.llamac \"ROMEO:\"
  llamac compile examples/models/bard -o bard --emit exe && ./bard \"ROMEO:\"
  llamac compile examples/models/bard -o bard.llamac --target x86-64-v3 -c 1024
  llamac compile examples/models/bard -o bard.llamac --quant q4_k_m -v
  llamac compile examples/mlp.lir --emit asm -o mlp.s")]
pub struct BuildArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value = "artifact")]
    pub emit: Emit,
    /// The CPU to compile for: native, x86-64-v2, x86-64-v3, x86-64-v4
    #[arg(long, value_name = "TARGET", default_value = "native")]
    pub target: String,
    /// Threads that pack weights [default: the cores this process may use]
    #[arg(short = 't', long, value_name = "THREADS")]
    pub threads: Option<usize>,
    /// Print for each tensor what blocks lose of it
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// Fusion.
    #[command(flatten)]
    pub fusion: FusionArgs,
    /// Compiling.
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// What `compile` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// One file that llamac and programs with its runtime run
    Artifact,
    /// One executable file
    Exe,
    /// The graph after all graph passes
    Ir,
    /// Cranelift IR of every kernel
    Clif,
    /// Machine code of every kernel, disassembled
    Asm,
}

/// `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llamac inspect bard.llamac
  llamac inspect bard.llamac --verify
  llamac inspect examples/models/bard --format json")]
pub struct InspectArgs {
    /// An artifact, an executable made with --emit exe, a GGUF file, or a model directory
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// Read everything and check it against the checksums, weights too
    #[arg(long)]
    pub verify: bool,
    /// Output
    #[arg(long, value_enum, default_value = "md")]
    pub format: InspectFormat,
}

/// Output of `inspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InspectFormat {
    /// Markdown
    Md,
    /// One JSON object
    Json,
}
