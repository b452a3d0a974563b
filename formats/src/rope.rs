//! RoPE tables (the description; see below for how they are computed).

use serde::{Deserialize, Serialize};

/// How the rotation angles of a model are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeTable {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Width of a head; even.
    pub head_dim: usize,
    /// What is done to the frequencies.
    pub scaling: RopeScaling,
}

/// Scaling of the inverse frequencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1's: long wavelengths divided, short ones kept, a ramp between.
    Llama3 {
        /// The divisor of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original / high` are short.
        high_freq_factor: f64,
        /// The context the model was first trained with.
        original_max_position_embeddings: f64,
    },
}
