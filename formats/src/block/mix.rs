//! Mixes: which tensor of a model gets which type, as llama.cpp chooses.
//!
//! A mix spends more bits where errors cost most: on the matrix that makes the logits, and in some layers on the values
//! and on the way down out of the feed-forward network. It is a pure function of a tensor's place in the model and of its
//! row length: a row that is no multiple of the chosen block falls back to the nearest type in blocks of 32, then to f16.

use super::BlockFormat;
use crate::DType;
use std::fmt;

/// A way to quantise a whole model, named as llama.cpp's quantiser names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mix {
    /// `q8_0` throughout.
    Q8_0,
    /// `q4_0`, the output matrix `q6_k`.
    Q4_0,
    /// `q4_1`, the output matrix `q6_k`.
    Q4_1,
    /// `q5_0`, the output matrix `q6_k`.
    Q5_0,
    /// `q5_1`, the output matrix `q6_k`.
    Q5_1,
    /// `q4_k`; `q6_k` for the output matrix and in half the layers for the values and the feed-forward's way down.
    Q4KM,
    /// `q5_k`, and `q6_k` where [`Mix::Q4KM`] has it.
    Q5KM,
    /// `q6_k` throughout.
    Q6K,
}

/// What a matrix of the model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The token embedding, where the output matrix is another.
    Embedding,
    /// What makes the logits: the output matrix, or the token embedding where it is both.
    Output,
    /// The values' projection.
    Values,
    /// The feed-forward network's way down.
    Down,
    /// Any other matrix of a layer: queries, keys, attention output, gate, up.
    Inner,
}

/// A matrix's place in its model.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// What it is for.
    pub role: Role,
    /// Its layer, from 0; meaningless for the embedding and the output.
    pub layer: usize,
    /// The model's layers.
    pub layers: usize,
    /// Elements of a row: the inputs of the matrix.
    pub row: usize,
    /// Whether llama.cpp takes the model for the 70B: architecture `llama`, 80 layers, fewer key-value heads than heads.
    /// Its values are shared by eight heads and get `q5_k` at least. See [`is_70b`].
    pub is_70b: bool,
}

/// Whether a model of architecture `llama` and this shape is the 70B to llama.cpp. No other architecture has one.
pub const fn is_70b(layers: usize, heads: usize, kv_heads: usize) -> bool {
    layers == 80 && heads != kv_heads
}

impl Mix {
    /// Every mix.
    pub const ALL: [Mix; 8] = [Mix::Q8_0, Mix::Q4_0, Mix::Q4_1, Mix::Q5_0, Mix::Q5_1, Mix::Q4KM, Mix::Q5KM, Mix::Q6K];

    /// The name on the command line: `q8_0`, `q4_0`, `q4_1`, `q5_0`, `q5_1`, `q4_k_m`, `q5_k_m`, `q6_k`.
    pub const fn name(self) -> &'static str {
        match self {
            Mix::Q4KM => "q4_k_m",
            Mix::Q5KM => "q5_k_m",
            _ => self.format().name(),
        }
    }

    /// The inverse of [`Mix::name`].
    pub fn from_name(name: &str) -> Option<Mix> {
        Mix::ALL.into_iter().find(|mix| mix.name() == name)
    }

    /// The format of most tensors.
    pub const fn format(self) -> BlockFormat {
        match self {
            Mix::Q8_0 => BlockFormat::Q8_0,
            Mix::Q4_0 => BlockFormat::Q4_0,
            Mix::Q4_1 => BlockFormat::Q4_1,
            Mix::Q5_0 => BlockFormat::Q5_0,
            Mix::Q5_1 => BlockFormat::Q5_1,
            Mix::Q4KM => BlockFormat::Q4K,
            Mix::Q5KM => BlockFormat::Q5K,
            Mix::Q6K => BlockFormat::Q6K,
        }
    }

    /// The type of the matrix at `place`: a block format whose block divides the row, or f16 where none does.
    ///
    /// For matrices only: norms, biases and other vectors keep f32.
    pub fn tensor_type(self, place: &Place) -> DType {
        let mixed = matches!(self, Mix::Q4KM | Mix::Q5KM);
        let format = match place.role {
            Role::Output if self != Mix::Q8_0 => BlockFormat::Q6K,
            Role::Values | Role::Down if mixed && gets_more_bits(place.layer, place.layers) => BlockFormat::Q6K,
            Role::Values if place.is_70b && self == Mix::Q4KM => BlockFormat::Q5K,
            _ => self.format(),
        };
        fitting(format, place.row)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The first and the last eighth of the layers, and every third between.
const fn gets_more_bits(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

/// `format`, or what takes its place in rows that its blocks do not divide.
fn fitting(format: BlockFormat, row: usize) -> DType {
    let small = match format {
        BlockFormat::Q4K => BlockFormat::Q5_0,
        BlockFormat::Q5K => BlockFormat::Q5_1,
        BlockFormat::Q6K => BlockFormat::Q8_0,
        small => small,
    };
    [format, small].into_iter().find(|f| row.is_multiple_of(f.elements())).map_or(DType::F16, DType::Block)
}
