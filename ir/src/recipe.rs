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
    /// Parts one after the other along axis 0: `concat(R, R, …)`. In panels it is the whole matrix that is cut into panels;
    /// `layout` joins only parts of whole panels (N a multiple of 16), so that no panel holds rows of two parts.
    Concat(Vec<Recipe>),
    /// Parts one after the other along axis 0 as far as indices go, but in memory panel 0 of each part comes first, then
    /// panel 1 of each, …: `interleave_panels(R, R)`. All parts have the same shape, whole panels each. Only for weights in
    /// panels, read by a paired epilogue: panel `p` of part `i` of `parts` is panel `p·parts + i` of the weight.
    InterleavePanels(Vec<Recipe>),
    /// Converted to the weight's element type while it is packed: `convert(R)`. Elements are decoded exactly and rounded
    /// once: to the nearest 16-bit float, or row by row into blocks.
    Convert(Box<Recipe>),
}

impl Recipe {
    /// A tensor by name.
    pub fn tensor(name: impl Into<String>) -> Recipe {
        Recipe::Tensor(name.into())
    }

    /// Whether elements are converted anywhere in it.
    pub fn converts(&self) -> bool {
        match self {
            Recipe::Tensor(_) => false,
            Recipe::Convert(_) => true,
            Recipe::PermuteRows { of, .. } => of.converts(),
            Recipe::Concat(parts) | Recipe::InterleavePanels(parts) => parts.iter().any(Recipe::converts),
        }
    }

    /// The names of all tensors used, in order.
    pub fn tensors(&self) -> Vec<&str> {
        match self {
            Recipe::Tensor(name) => vec![name],
            Recipe::PermuteRows { of, .. } | Recipe::Convert(of) => of.tensors(),
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
            Recipe::Convert(of) => write!(f, "convert({of})"),
        }
    }
}
