//! What can go wrong while a plan becomes a program.

use thiserror::Error;

/// An error of code generation: what it was about, what was found, what would do.
#[derive(Debug, Error)]
pub enum CodegenError {
    /// A region that no kernel can be made of.
    #[error("{at}: {what}")]
    Region {
        /// The step's origin and name.
        at: String,
        /// What is not possible.
        what: String,
    },
    /// A value that the plan gives no place.
    #[error("{at}: the plan keeps {value} nowhere; plan the graph again with the `plan` pass")]
    NoStorage {
        /// The step's origin and name.
        at: String,
        /// The value and its type.
        value: String,
    },
    /// A plan that contradicts itself.
    #[error("the plan does not fit together: {0}")]
    Plan(String),
    /// A target that code cannot be generated for.
    #[error(
        "no code can be generated for target {target}: {reason}; choose one of native, x86-64-v2, x86-64-v3, x86-64-v4"
    )]
    Target {
        /// The target's name.
        target: String,
        /// Why not.
        reason: String,
    },
    /// Cranelift refused a kernel: a mistake in the code generator.
    #[error("internal error: Cranelift refused kernel {kernel}: {reason}")]
    Backend {
        /// The kernel's name.
        kernel: String,
        /// What Cranelift says.
        reason: String,
    },
    /// A kernel would need something outside itself: a mistake in the code generator.
    #[error("internal error: kernel {kernel} has {count} relocations, expected none")]
    Relocations {
        /// The kernel's name.
        kernel: String,
        /// How many.
        count: usize,
    },
    /// A kernel that would touch what it was not given: a mistake in the code generator, or indices without bounds.
    #[error("internal error: {at}: its kernel would leave its operands: {what}")]
    Reach {
        /// The step's origin and name.
        at: String,
        /// Where to.
        what: String,
    },
    /// A weight that cannot be planned.
    #[error(transparent)]
    Weight(#[from] crate::pack::PackError),
    /// The code could not be made executable.
    #[error("the compiled code could not be mapped: {0}")]
    Map(String),
}

pub(crate) type Result<T> = std::result::Result<T, CodegenError>;
