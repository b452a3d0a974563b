//! The `layout` pass: how weights lie in memory, and which views become real.
//!
//! **Weights.** A weight of rank 2 lies in panels if every reader is a kernel over packed weights: the right side of a `dot`
//! contracted on axis 1 (bare or in an epilogue), or the table of a gather to f32. All other weights are row-major. Several
//! right sides of one dot that nothing else reads become one weight where they have one dtype and every part is whole
//! panels (N a multiple of 16), so that each part keeps panels of its own: `concat(…)`, or `interleave_panels(…)` where an
//! epilogue combines the parts column by column. A weight that is read elsewhere too (a tied embedding) stays one weight; parts of
//! other dtypes or widths stay segments of the dot.
//!
//! **Views.** Row kernels pull elements through views; runtime kernels (GEMM, dot, attention, gather) read strided
//! operands. Where a reader cannot read through, a `copy` appears:
//!
//! | reader | operand | must be |
//! |---|---|---|
//! | row kernels, elementwise in regions | any | pullable: strided, or `slice`, `transpose`, `broadcast` of pullable `concat`s |
//! | GEMM | left side | strided in memory: inputs of stride 1, rows of one stride, nothing fetched by index |
//! | dot | both sides | f32, strided in memory: free axes of one stride, contracted axes of one stride, indices only on batch axes |
//! | attention | q | strided in memory, last stride 1, nothing fetched by index |
//! | attention, gather from panels | slots, positions, ids | dense in memory |
//! | gather, `index`, `state.write` | table, ids, slots, positions | strided in memory |
//! | graph output | value | a step's own result, of one output only |
//!
//! A 16-bit right side that cannot lie in panels is widened by a `cast`. A fusion that needs a packed weight which cannot
//! be one is taken apart.
//!
//! The pass is idempotent.

mod need;
mod panels;
mod real;
mod unfuse;

use llamac_ir::Graph;
use thiserror::Error;

/// What `layout` decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutReport {
    /// How many weights lie in panels.
    pub panels: usize,
    /// Matrices that stay row-major though a dot or a gather reads them.
    pub flat: Vec<FlatWeight>,
    /// Recipes of weights joined from several.
    pub joined: Vec<String>,
    /// Views made real.
    pub copies: Vec<CopyMade>,
    /// Fusions taken apart because their weight cannot lie in panels, or because a tied weight must.
    pub unfused: Vec<String>,
}

/// A matrix that is not in panels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatWeight {
    /// Its recipe.
    pub recipe: String,
    /// The step that cannot read panels.
    pub reader: String,
}

/// A copy (or widening) that the pass inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyMade {
    /// What is copied: where its view came from and what it is.
    pub of: String,
    /// The step, or `output …`, that needs it.
    pub reader: String,
    /// Why it cannot be read where it is.
    pub reason: String,
    /// Bytes written, at the bounds.
    pub bytes: usize,
}

/// Why a graph has no layout.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// An attention fusion over something else than queries and caches.
    #[error(
        "step `{step}`: `fusion attention` takes queries and a state each of keys and values, found {queries} and {caches}; \
         `--disable fuse-attention` compiles it without"
    )]
    NoAttention {
        /// The step.
        step: String,
        /// How many operands are states.
        caches: usize,
        /// How many are neither states nor indices.
        queries: usize,
    },
}

/// Runs the pass.
///
/// # Errors
/// A fusion that no kernel can run: see [`LayoutError`].
pub fn run(graph: &mut Graph) -> Result<LayoutReport, LayoutError> {
    let mut report = LayoutReport::default();
    panels::run(graph, &mut report);
    real::run(graph, &mut report)?;
    Ok(report)
}
