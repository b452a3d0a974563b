//! How a weight is made from the source's tensors.

use std::fmt;

/// A recipe over named tensors. Logical rows are outputs (axis 0).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// A tensor of the source, as it is: `"model.norm.weight"`.
    Tensor(String),
    /// Rows reordered per head from interleaved to half-split RoPE: of each head's `d` rows, row `2i` goes to `i` and row
    /// `2i+1` to `d/2 + i`: `permute_rows(R, heads=8)`.
    PermuteRows {
        /// What is permuted.
        of: Box<Recipe>,
        /// How many heads the rows belong to.
        heads: usize,
    },
    /// Parts one after the other along axis 0: `concat(R, R, …)`. In panels too: a panel may hold rows of two parts.
    Concat(Vec<Recipe>),
    /// Parts one after the other along axis 0 as far as indices go, but in memory panel 0 of each part comes first, then
    /// panel 1 of each, …: `interleave_panels(R, R)`. All parts have the same shape, and each part's last panel is padded.
    /// Only for weights in panels, and only outermost (or in `widen`).
    InterleavePanels(Vec<Recipe>),
    /// Widened to f32 while it is packed: `widen(R)`.
    Widen(Box<Recipe>),
}

impl Recipe {
    /// A tensor by name.
    pub fn tensor(name: impl Into<String>) -> Recipe {
        Recipe::Tensor(name.into())
    }

    /// The names of all tensors used, in order.
    pub fn tensors(&self) -> Vec<&str> {
        match self {
            Recipe::Tensor(name) => vec![name],
            Recipe::PermuteRows { of, .. } | Recipe::Widen(of) => of.tensors(),
            Recipe::Concat(parts) | Recipe::InterleavePanels(parts) => parts.iter().flat_map(Recipe::tensors).collect(),
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, parts: &[Recipe]| {
            write!(f, "{name}(")?;
            for (i, p) in parts.iter().enumerate() {
                write!(f, "{}{p}", if i == 0 { "" } else { ", " })?;
            }
            f.write_str(")")
        };
        match self {
            Recipe::Tensor(name) => write!(f, "{name:?}"),
            Recipe::PermuteRows { of, heads } => write!(f, "permute_rows({of}, heads={heads})"),
            Recipe::Concat(parts) => list(f, "concat", parts),
            Recipe::InterleavePanels(parts) => list(f, "interleave_panels", parts),
            Recipe::Widen(of) => write!(f, "widen({of})"),
        }
    }
}
