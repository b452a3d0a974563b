//! RoPE tables: what describes them, and how they are computed.
//!
//! The numbers follow Hugging Face transformers (PyTorch on a CPU) to the bit: inverse frequencies in f32, every operation
//! rounded to f32 in the order in which it is written there; angles in f32; cosine and sine of those in f64, rounded once.
//! In PyTorch a number divided by a tensor is the tensor's reciprocal times the number: two roundings, and so here.

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
    /// Each divided by a number of its own, as GGUF's `rope_freqs.weight` gives them.
    Factors {
        /// The divisors, one per frequency.
        factors: Vec<f32>,
    },
}

impl RopeTable {
    /// Number of frequencies: half the width of a head.
    pub const fn frequencies(&self) -> usize {
        self.head_dim / 2
    }

    /// The inverse frequencies, one per pair of elements, after scaling.
    pub fn inv_freq(&self) -> Vec<f32> {
        let theta = f64::from(self.theta as f32);
        let plain = (0..self.frequencies()).map(|i| {
            let exponent = (2 * i) as f32 / self.head_dim as f32;
            // An f64 power rounded to f32 is the correctly rounded f32 power.
            theta.powf(f64::from(exponent)) as f32
        });
        plain.enumerate().map(|(i, power)| self.scaling.apply(i, 1.0 / power)).collect()
    }

    /// Fills cosines and sines, each row-major `[rows, head_dim / 2]`, of positions `first..first + rows`.
    ///
    /// # Panics
    /// If the two differ in length or the length is no multiple of `head_dim / 2`.
    pub fn fill(&self, first: usize, cos: &mut [f32], sin: &mut [f32]) {
        let inv_freq = self.inv_freq();
        assert_eq!(cos.len(), sin.len());
        if inv_freq.is_empty() {
            return;
        }
        assert_eq!(cos.len() % inv_freq.len(), 0);
        let rows = cos.chunks_exact_mut(inv_freq.len()).zip(sin.chunks_exact_mut(inv_freq.len()));
        for (row, (cos, sin)) in rows.enumerate() {
            let position = (first + row) as f32;
            for (i, &frequency) in inv_freq.iter().enumerate() {
                let angle = f64::from(position * frequency);
                cos[i] = angle.cos() as f32;
                sin[i] = angle.sin() as f32;
            }
        }
    }

    /// Cosines and sines of one position, one of each per frequency.
    pub fn cos_sin(&self, position: usize) -> (Vec<f32>, Vec<f32>) {
        let (mut cos, mut sin) = (vec![0.0; self.frequencies()], vec![0.0; self.frequencies()]);
        self.fill(position, &mut cos, &mut sin);
        (cos, sin)
    }
}

impl RopeScaling {
    /// The name that configurations use.
    pub const fn name(&self) -> &'static str {
        match self {
            RopeScaling::Default => "default",
            RopeScaling::Linear { .. } => "linear",
            RopeScaling::Llama3 { .. } => "llama3",
            RopeScaling::Factors { .. } => "factors",
        }
    }

    /// Inverse frequency `i` after scaling.
    fn apply(&self, i: usize, frequency: f32) -> f32 {
        match *self {
            RopeScaling::Default => frequency,
            RopeScaling::Factors { ref factors } => factors.get(i).map_or(frequency, |factor| frequency / factor),
            RopeScaling::Linear { factor } => frequency / factor as f32,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let wavelength = frequency.recip() * (2.0 * std::f64::consts::PI) as f32;
                let (long, short) = ((original / low) as f32, (original / high) as f32);
                let scaled = if wavelength > long { frequency / factor as f32 } else { frequency };
                if wavelength < short || wavelength > long {
                    return scaled;
                }
                let smooth = (wavelength.recip() * original as f32 - low as f32) / (high - low) as f32;
                (1.0 - smooth) * scaled / factor as f32 + smooth * scaled
            }
        }
    }
}
