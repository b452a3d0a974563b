//! What an artifact says of itself.

use crate::Bounds;
use serde::{Deserialize, Serialize};

/// The manifest: what a program is, for those who run or look at it. Nothing here decides where memory is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The model's name.
    pub name: String,
    /// The version of the compiler.
    pub compiler: String,
    /// What was asked for: `native`, `x86-64-v3`, …
    pub target: String,
    /// The largest sizes of a step.
    pub bounds: Bounds,
    /// What the activations are at each dot.
    pub act: String,
    /// What the key-value cache holds.
    pub kv: String,
    /// What both were asked to be.
    pub asked: Asked,
    /// The fusion setting.
    pub fusion: String,
    /// Passes that were left out.
    pub disabled: Vec<String>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// The token that begins one.
    pub bos: Option<u32>,
    /// The tokenizer, if there is one.
    pub tokenizer: Option<TokenizerInfo>,
    /// Kernels.
    pub kernels: usize,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Bytes of packed weights by element type, sorted by name.
    pub weight_bytes: Vec<(String, usize)>,
    /// What it needs while it runs.
    pub memory: Memory,
}

/// What was asked for of numbers, which not every graph can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// `--act`.
    pub act: String,
    /// `--kv`.
    pub kv: String,
}

/// The tokenizer section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenizerInfo {
    /// What it holds: `vocabulary`, or `tokenizer.json` with the reason in brackets.
    pub format: String,
    /// Ids are below this.
    pub vocab: usize,
}

/// Bytes that a running session needs, at the bounds: pages that no step touches are not resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The weight section, mapped from the file.
    pub weights: usize,
    /// Key-value caches and other states.
    pub states: usize,
    /// The arena.
    pub arena: usize,
    /// Inputs and outputs.
    pub ports: usize,
    /// The process itself: its code, heap and stacks, and the opened tokenizer. An estimate.
    #[serde(default)]
    pub process: usize,
}

impl Memory {
    /// What the process takes beside the session, with a tokenizer of that many bytes: measured, as what a runner has
    /// resident beyond the parts that are known.
    pub const fn of_process(tokenizer: usize) -> usize {
        (10 << 20) + tokenizer.saturating_mul(16)
    }
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> usize {
        [self.weights, self.states, self.arena, self.ports, self.process].iter().fold(0, |a, b| a.saturating_add(*b))
    }
}
