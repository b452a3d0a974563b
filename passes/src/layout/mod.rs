//! The layout pass.
