//! How well a model predicts a text: the mean negative log-likelihood of its tokens, window by window.

use super::{GenerateError, Generator};

/// How well a text was predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Perplexity {
    /// Tokens predicted.
    pub tokens: usize,
    /// Windows scored.
    pub windows: usize,
    /// Tokens at the end of the text that fill no window.
    pub dropped: usize,
    /// The sum of the negative logarithms of the predicted tokens' probabilities, nats.
    pub nll: f64,
    /// The sum of their squares.
    squares: f64,
}

impl Perplexity {
    /// Mean negative log-likelihood of a token, nats.
    pub fn nll_per_token(&self) -> f64 {
        self.nll / self.tokens as f64
    }

    /// e to the mean.
    pub fn perplexity(&self) -> f64 {
        self.nll_per_token().exp()
    }

    /// The standard error of the perplexity, were the tokens independent.
    pub fn error(&self) -> f64 {
        let n = self.tokens as f64;
        let mean = self.nll_per_token();
        let variance = (self.squares / n - mean * mean).max(0.0);
        self.perplexity() * (variance / (n - 1.0).max(1.0)).sqrt()
    }

    fn add(&mut self, nll: f64) {
        self.tokens += 1;
        self.nll += nll;
        self.squares += nll * nll;
    }
}

/// A text could not be scored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PerplexityError {
    /// A window that predicts nothing or does not fit.
    #[error("a window of {window} tokens: expected 2 to {context} (the context)")]
    Window {
        /// Asked for.
        window: usize,
        /// Tokens of a slot.
        context: usize,
    },
    /// Not one full window.
    #[error("the text has {tokens} tokens, and one window takes {needed}: give more text or a smaller window")]
    Short {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of the text in a window.
        needed: usize,
    },
    /// Logits that are no numbers, or a token that is impossible.
    #[error(
        "window {window}: the token at position {position} has no finite likelihood: the weights hold NaN or infinities, or \
         an activation overflowed"
    )]
    NotFinite {
        /// Which window.
        window: usize,
        /// Which position.
        position: usize,
    },
    /// A step failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// `−ln softmax(logits)[target]`, in f64.
fn negative_log_likelihood(logits: &[f32], target: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - f64::from(most)).exp()).sum();
    match logits.get(target as usize) {
        Some(&logit) => sum.ln() - (f64::from(logit) - f64::from(most)),
        None => f64::NAN,
    }
}

impl Generator {
    /// Scores a text in windows of `window` tokens that do not overlap: each is `begin`, where there is such a token, and
    /// the text's next tokens; all but a window's first token are predicted from those before them in the window. What
    /// fills no window is dropped. `progress` is told tokens done and tokens in all. All slots are cleared.
    ///
    /// # Errors
    /// [`PerplexityError`].
    pub fn perplexity(
        &mut self,
        text: &[u32],
        begin: Option<u32>,
        window: usize,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Perplexity, PerplexityError> {
        let context = self.context();
        if window < 2 || window > context {
            return Err(PerplexityError::Window { window, context });
        }
        let needed = window - usize::from(begin.is_some());
        let mut found = Perplexity { dropped: text.len() % needed, ..Perplexity::default() };
        if text.len() < needed {
            return Err(PerplexityError::Short { tokens: text.len(), needed });
        }
        let all = text.len() - found.dropped;
        let mut tokens = Vec::with_capacity(window);
        for (index, part) in text.chunks_exact(needed).enumerate() {
            progress(index * needed, all);
            tokens.clear();
            tokens.extend(begin.into_iter().chain(part.iter().copied()));
            self.clear();
            let mut bad = None;
            // Nothing is predicted from the last token.
            self.score(0, &tokens[..window - 1], |i, logits| {
                let nll = negative_log_likelihood(logits, tokens[i + 1]);
                if !nll.is_finite() && bad.is_none() {
                    bad = Some(i + 1);
                }
                found.add(nll);
            })?;
            if let Some(position) = bad {
                return Err(PerplexityError::NotFinite { window: index, position });
            }
            found.windows += 1;
        }
        progress(all, all);
        self.clear();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihoods() {
        assert!((negative_log_likelihood(&[0.0; 8], 3) - 8f64.ln()).abs() < 1e-12);
        // Far outside of what exp can take.
        assert!((negative_log_likelihood(&[1000.0, 1001.0], 0) - (1.0 + (-1f64).exp().ln_1p())).abs() < 1e-12);
        assert!(negative_log_likelihood(&[0.0, f32::NAN], 0).is_nan());
        assert!(!negative_log_likelihood(&[0.0, f32::NEG_INFINITY], 1).is_finite());
        assert!(negative_log_likelihood(&[0.0], 1).is_nan());
    }

    #[test]
    fn means_and_errors() {
        let mut p = Perplexity::default();
        p.add(1.0);
        p.add(3.0);
        assert_eq!((p.tokens, p.nll_per_token()), (2, 2.0));
        assert!((p.perplexity() - 2f64.exp()).abs() < 1e-12);
        assert!((p.error() - 2f64.exp()).abs() < 1e-12);
    }
}
