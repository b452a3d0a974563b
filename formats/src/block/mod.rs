//! Codecs of the block formats that GGUF stores weights in.
//!
//! A row of weights is cut into blocks of 32 or 256 elements; a block holds small unsigned integers, the *quants*, and
//! what turns them back into numbers. Eight formats exist, in three families ([`Fields`] says what is in a block):
//!
//! | format | elements | bytes | an element is |
//! |---|---|---|---|
//! | `q8_0` | 32 | 34 | `d · (q − 128)` |
//! | `q4_0`, `q5_0` | 32 | 18, 22 | `d · (q − 8)`, `d · (q − 16)` |
//! | `q4_1`, `q5_1` | 32 | 20, 24 | `d · q + m` |
//! | `q4_k`, `q5_k` | 256 | 144, 176 | `d · scales[e/32] · q − m · mins[e/32]` |
//! | `q6_k` | 256 | 210 | `d · scales[e/16] · (q − 32)` |
//!
//! Decoding is exact: every product above fits the 24 bits of an f32, so only the addition of a minimum rounds, once, and
//! the order of evaluation cannot matter. Encoding is a search for the least squared error ([`BlockFormat::encode`]);
//! nothing else may depend on how it searches. Data flows `row → encode → Fields → join → bytes` and
//! `bytes → split → Fields → decode → row`; only `fields` knows where in a block a bit lies.

mod decode;
mod encode;
mod fields;
pub mod mix;

pub use fields::Fields;
pub use mix::Mix;

use serde::{Deserialize, Serialize};
use std::fmt;

/// A block format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockFormat {
    /// 8 bits, one scale for 32 elements.
    Q8_0,
    /// 4 bits, one scale for 32 elements.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 elements.
    Q4_1,
    /// 5 bits, one scale for 32 elements.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 elements.
    Q5_1,
    /// 4 bits, 256 elements in 8 parts with 6-bit scales and minima.
    #[serde(rename = "q4_k")]
    Q4K,
    /// 5 bits, 256 elements in 8 parts with 6-bit scales and minima.
    #[serde(rename = "q5_k")]
    Q5K,
    /// 6 bits, 256 elements in 16 parts with 8-bit scales.
    #[serde(rename = "q6_k")]
    Q6K,
}

impl BlockFormat {
    /// Every format.
    pub const ALL: [BlockFormat; 8] = [
        BlockFormat::Q8_0,
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q5_0,
        BlockFormat::Q5_1,
        BlockFormat::Q4K,
        BlockFormat::Q5K,
        BlockFormat::Q6K,
    ];

    /// Elements of a block: 32 or 256.
    pub const fn elements(self) -> usize {
        match self {
            BlockFormat::Q4K | BlockFormat::Q5K | BlockFormat::Q6K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block as GGUF stores it.
    pub const fn bytes(self) -> usize {
        match self {
            BlockFormat::Q8_0 => 34,
            BlockFormat::Q4_0 => 18,
            BlockFormat::Q4_1 => 20,
            BlockFormat::Q5_0 => 22,
            BlockFormat::Q5_1 => 24,
            BlockFormat::Q4K => 144,
            BlockFormat::Q5K => 176,
            BlockFormat::Q6K => 210,
        }
    }

    /// Elements that share one scale: 32, or 16 in `q6_k`.
    pub const fn part(self) -> usize {
        match self {
            BlockFormat::Q6K => 16,
            _ => 32,
        }
    }

    /// The quant that stands for zero where the format has no minimum; 0 where it has one.
    pub const fn zero(self) -> u8 {
        match self {
            BlockFormat::Q8_0 => 128,
            BlockFormat::Q4_0 => 8,
            BlockFormat::Q5_0 => 16,
            BlockFormat::Q6K => 32,
            _ => 0,
        }
    }

    /// Bits of a quant: 4, 5, 6 or 8.
    pub const fn bits(self) -> u32 {
        match self {
            BlockFormat::Q8_0 => 8,
            BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q4K => 4,
            BlockFormat::Q5_0 | BlockFormat::Q5_1 | BlockFormat::Q5K => 5,
            BlockFormat::Q6K => 6,
        }
    }

    /// Where in a block its f16 factors begin: the scale d and, where there is one, the minimum m.
    pub const fn factors(self) -> &'static [usize] {
        match self {
            BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q5_0 => &[0],
            BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
            BlockFormat::Q6K => &[208],
        }
    }

    /// The name in the text form and on the command line: `q8_0`, `q4_0`, `q4_1`, `q5_0`, `q5_1`, `q4_k`, `q5_k`, `q6_k`.
    pub const fn name(self) -> &'static str {
        match self {
            BlockFormat::Q8_0 => "q8_0",
            BlockFormat::Q4_0 => "q4_0",
            BlockFormat::Q4_1 => "q4_1",
            BlockFormat::Q5_0 => "q5_0",
            BlockFormat::Q5_1 => "q5_1",
            BlockFormat::Q4K => "q4_k",
            BlockFormat::Q5K => "q5_k",
            BlockFormat::Q6K => "q6_k",
        }
    }

    /// The inverse of [`BlockFormat::name`].
    pub fn from_name(name: &str) -> Option<BlockFormat> {
        BlockFormat::ALL.into_iter().find(|format| format.name() == name)
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
