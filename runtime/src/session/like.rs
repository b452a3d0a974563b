//! The sizes by which a step's kernels are chosen, where the step's own shall not decide.

use crate::execute::StepSizes;
use llamac_formats::{Bounds, Sizes};

/// The sizes of the step whose entry and kernels a step has, where it is smaller itself. Kernels for few and for many rows may
/// round otherwise; with one choice for all steps of a batch, a row's numbers do not depend on how many rows come with it. All
/// zero: the step's own sizes decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Like {
    /// Rows.
    pub(super) rows: usize,
    /// Outputs.
    pub(super) outputs: usize,
    /// Rows of each slot.
    pub(super) of_a_slot: usize,
}

/// What the tokens present are rounded up to: a multiple of what a sweep over them takes at a time. What other slots hold more of
/// is then added to a row's sums as zeros, in places of its own.
const TOKENS: usize = 64;

impl Like {
    /// Those of a step that has these sizes itself.
    pub(super) fn sizes(&self, own: Sizes, bounds: &Bounds) -> StepSizes {
        if *self == Like::default() {
            return StepSizes { own, like: own };
        }
        let own = Sizes { tokens: own.tokens.next_multiple_of(TOKENS).min(bounds.tokens), ..own };
        let like = Sizes { rows: own.rows.max(self.rows), outputs: own.outputs.max(self.outputs), ..own };
        StepSizes { own, like }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_taken_for_a_larger_one() {
        let bounds = Bounds { rows: 32, outputs: 4, tokens: 100, slots: 4 };
        let own = Sizes { rows: 5, outputs: 0, tokens: 17 };
        assert_eq!(Like::default().sizes(own, &bounds), StepSizes { own, like: own });
        let like = Like { rows: 4, outputs: 2, of_a_slot: 0 };
        let rounded = Sizes { tokens: 64, ..own };
        assert_eq!(like.sizes(own, &bounds), StepSizes { own: rounded, like: Sizes { outputs: 2, ..rounded } });
        let like = Like { rows: 32, outputs: 2, of_a_slot: 32 };
        let full = Sizes { tokens: 65, ..own };
        let full = like.sizes(full, &bounds);
        assert_eq!(
            (full.own.tokens, full.like),
            (100, Sizes { rows: 32, outputs: 2, tokens: 100 }),
            "no more than there is"
        );
    }
}
