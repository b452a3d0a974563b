//! Runs the steps of an entry: every thread of the pool walks the same list.
//!
//! `prepare` turns a step into addresses and numbers: addresses once, when a session is made; numbers whenever the sizes
//! that they depend on have changed. `walk` is what each thread does with them. Nothing here allocates once prepared.

mod prepare;
mod walk;

pub(crate) use prepare::{Bases, Prepared, StepSizes, kernel_scratch, routine_scratch, shared_scratch};
pub(crate) use walk::{Run, walk};
