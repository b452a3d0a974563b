//! Letting go of what has been read.

use super::weight::Weight;
use llamac_ir::TensorSource;

/// How far the sources have been released.
pub(super) struct Released<'a> {
    source: &'a dyn TensorSource,
    weights: &'a [Weight<'a>],
    /// The first weight whose tensors have not been released as a whole.
    weight: usize,
    /// How many rows of its leaves have been.
    rows: Vec<usize>,
}

impl<'a> Released<'a> {
    pub(super) fn new(source: &'a dyn TensorSource, weights: &'a [Weight<'a>]) -> Released<'a> {
        Released { source, weights, weight: 0, rows: vec![] }
    }

    /// Releases what is not needed once all weights before `weight`, and the first `steps` steps of that one, are packed.
    pub(super) fn up_to(&mut self, weight: usize, steps: usize) {
        while self.weight < weight {
            for leaf in self.weights[self.weight].leaves() {
                self.source.release(leaf.name);
            }
            self.weight += 1;
            self.rows.clear();
        }
        let Some(weight) = self.weights.get(weight) else { return };
        let passed = weight.passed(steps);
        self.rows.resize(passed.len(), 0);
        for ((leaf, &now), before) in weight.leaves().iter().zip(&passed).zip(&mut self.rows) {
            if now > *before {
                self.source.release_part(leaf.name, *before * leaf.row_bytes..now * leaf.row_bytes);
                *before = now;
            }
        }
    }
}
