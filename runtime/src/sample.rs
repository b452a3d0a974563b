//! Choosing the next token.
//!
//! The same logits, parameters and seed give the same tokens on every machine: only additions, multiplications and divisions
//! of IEEE 754 are used, in a fixed order, and the exponential is our own. The order of the filters is temperature, top-k,
//! top-p. Random numbers are SplitMix64, one for each token drawn (none for greedy choice).
//!
//! ```
//! use llamac_runtime::sample::{Sampler, SamplingParams};
//!
//! let logits = [0.5, 3.0, 2.9, -1.0];
//! assert_eq!(Sampler::new(SamplingParams::GREEDY, 4)?.sample(&logits), 1);
//!
//! let params = SamplingParams { temperature: 1.0, top_k: 2, top_p: 1.0, seed: 7 };
//! let draw = || -> Result<Vec<u32>, llamac_runtime::sample::SamplingError> {
//!     let mut sampler = Sampler::new(params, 4)?;
//!     Ok((0..20).map(|_| sampler.sample(&logits)).collect())
//! };
//! assert!(draw()?.iter().all(|token| [1, 2].contains(token)));
//! assert_eq!(draw()?, draw()?); // the same seed gives the same tokens
//! # Ok::<(), llamac_runtime::sample::SamplingError>(())
//! ```

use std::cmp::Ordering;
use thiserror::Error;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f32,
    /// Only the k likeliest; 0: all.
    pub top_k: usize,
    /// Only the likeliest whose probabilities reach p together; 1: all.
    pub top_p: f32,
    /// What the random numbers begin with.
    pub seed: u64,
}

impl SamplingParams {
    /// Always the likeliest token.
    pub const GREEDY: SamplingParams = SamplingParams { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
}

/// A parameter out of range.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum SamplingError {
    /// Negative, infinite or NaN.
    #[error("temperature is {0}; expected a number of at least 0 (0 takes the likeliest token)")]
    Temperature(f32),
    /// Not in (0, 1].
    #[error("top-p is {0}; expected a number above 0 and at most 1 (1 keeps all tokens)")]
    TopP(f32),
}

/// Chooses tokens; keeps the state of its random numbers. Allocates nothing after it is made.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    random: SplitMix64,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    token: u32,
    /// Probability times an unknown constant.
    weight: f64,
}

impl Sampler {
    /// A sampler for logits over `vocab` tokens.
    ///
    /// # Errors
    /// A parameter out of range.
    pub fn new(params: SamplingParams, vocab: usize) -> Result<Sampler, SamplingError> {
        if !(params.temperature >= 0.0 && params.temperature.is_finite()) {
            return Err(SamplingError::Temperature(params.temperature));
        }
        if !(params.top_p > 0.0 && params.top_p <= 1.0) {
            return Err(SamplingError::TopP(params.top_p));
        }
        let capacity = if params.temperature == 0.0 { 0 } else { vocab };
        Ok(Sampler { params, random: SplitMix64(params.seed), candidates: Vec::with_capacity(capacity) })
    }

    /// The next token. A NaN counts as −∞; where nothing else decides, the lowest index is taken.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        if self.params.temperature == 0.0 {
            return argmax(logits);
        }
        assert!(!logits.is_empty(), "logits of at least one token");
        self.take_top_k(logits);
        self.weigh();
        self.keep_top_p();
        self.draw()
    }

    /// Makes the k likeliest tokens candidates, likeliest first; or all, in their order.
    ///
    /// Most tokens are seen once and compared with the k-th of those before them: a vocabulary is large, k small.
    fn take_top_k(&mut self, logits: &[f32]) {
        let k = self.params.top_k;
        let all = k == 0 || k >= logits.len();
        let most = if all { logits.len() } else { k.saturating_mul(4).max(256) };
        let mut least = None;
        self.candidates.clear();
        for (token, &logit) in (0..).zip(logits) {
            let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
            // Among equals the lower index is likelier, and that was there before.
            if least.is_some_and(|least| logit <= least) {
                continue;
            }
            if self.candidates.len() == most {
                self.keep_likeliest(k);
                least = self.candidates.last().map(|c| c.logit);
                if least.is_some_and(|least| logit <= least) {
                    continue;
                }
            }
            self.candidates.push(Candidate { logit, token, weight: 0.0 });
        }
        if !all {
            self.keep_likeliest(k);
            // What the selection leaves is in no defined order.
            self.candidates.sort_unstable_by(likelier_first);
        }
    }

    /// Keeps the k likeliest candidates, the least likely of them last.
    fn keep_likeliest(&mut self, k: usize) {
        if k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, likelier_first);
            self.candidates.truncate(k);
        }
    }

    /// Weighs the candidates by e^((logit − max) / temperature).
    fn weigh(&mut self) {
        let max = self.candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        let temperature = f64::from(self.params.temperature);
        for candidate in &mut self.candidates {
            // Equal infinities have no difference.
            let below = if candidate.logit == max { 0.0 } else { f64::from(candidate.logit) - f64::from(max) };
            candidate.weight = exp(below / temperature);
        }
    }

    fn keep_top_p(&mut self) {
        let p = f64::from(self.params.top_p);
        if p == 1.0 {
            return;
        }
        let total: f64 = self.candidates.iter().map(|c| c.weight).sum();
        // All tokens that are this unlikely are together less likely than 1 − p: they need not be sorted.
        let negligible = total * (1.0 - p) / self.candidates.len() as f64;
        self.candidates.retain(|c| c.weight >= negligible);
        self.candidates.sort_unstable_by(likelier_first);
        let mut reached = 0.0;
        let enough = self.candidates.iter().position(|c| {
            reached += c.weight;
            reached >= p * total
        });
        if let Some(last) = enough {
            self.candidates.truncate(last + 1);
        }
    }

    fn draw(&mut self) -> u32 {
        let total: f64 = self.candidates.iter().map(|c| c.weight).sum();
        let mut left = self.random.unit() * total;
        for candidate in &self.candidates {
            left -= candidate.weight;
            if left < 0.0 {
                return candidate.token;
            }
        }
        // Rounding may leave a little: the last one that has any weight is meant.
        self.candidates.iter().rev().find(|c| c.weight > 0.0).map_or(0, |c| c.token)
    }
}

/// The index of the largest logit, the lowest among equals; NaN is never larger. 0 where there is none.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
}

/// A total order, so that no sort can leave a choice: logits hold no NaN here.
fn likelier_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.token.cmp(&b.token))
}

/// Sebastiano Vigna's SplitMix64.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// eˣ for x ≤ 0, to about 1e-15 relative; 0 below −700.
///
/// The standard library's may differ from system to system in the last bit, and with it the token that is drawn.
fn exp(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_588e-10;
    if x < -700.0 {
        return 0.0;
    }
    let n = (x * std::f64::consts::LOG2_E).round();
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // |r| ≤ 0.35: fourteen terms of the series, from the last.
    let series = (1..=14).rev().fold(1.0, |sum, k| 1.0 + sum * r / f64::from(k));
    let power = f64::from_bits(((n as i64 + 1023) as u64) << 52);
    series * power
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_close_to_the_true_one() {
        for i in 0..70_000 {
            let x = f64::from(i) * -0.01;
            let error = (exp(x) / x.exp() - 1.0).abs();
            assert!(error < 4e-15, "exp({x}) is off by {error}");
        }
        assert_eq!((exp(0.0), exp(-701.0), exp(f64::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }
}
