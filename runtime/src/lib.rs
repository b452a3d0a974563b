//! The room that opens a program and runs it.
//!
//! [`artifact`] opens a compiled file: [`Program::open`] is where a program that uses this crate begins.
//!
//! A program (`llamac_formats::program::Program`), its machine code and its weights come in; [`program::Executable`]
//! checks them once. A [`session::Session`] owns states, arena and scratch and runs steps: inputs are checked, the sizes
//! S, R and T found, the first entry that holds them is resolved, and every thread of the [`pool::Pool`] walks its steps
//! (`execute`): compiled kernels, [`gemm`], [`attention`], [`dot`] and [`gather`]. [`session::Generator`] gives the rows of
//! a language model their meaning, [`session::Batch`] runs several sequences together. [`profile`] says where the time went, [`limits`] what the machine could do. [`text`]
//! and [`sample`] stand at the two ends: text to tokens and back, and logits to the next token.
//!
//! It knows nothing of graphs, never links a compiler, and allocates nothing in a step. Only [`tiers`] and the kernels
//! name an instruction set. What comes from a file or a caller is checked before any address is made of it; compiled
//! kernels are trusted, as code must be.

pub mod artifact;
pub mod attention;
pub mod dot;
mod execute;
pub mod exp;
pub mod gate;
pub mod gather;
pub mod gemm;
pub mod limits;
pub mod machine;
pub mod memory;
pub mod narrow;
pub mod pool;
mod prefetch;
pub mod profile;
pub mod program;
pub mod quantise;
pub mod routines;
pub mod sample;
pub mod session;
pub mod strided;
pub mod text;
pub mod tiers;

pub use artifact::{ArtifactError, OpenOptions, Program};
pub use memory::Region;
pub use pool::{Pool, Worker};
pub use profile::{EntryTimes, Event, ProfileRow, ProfileTable, ThreadTrace};
pub use program::{Code, Executable, LoadError, OpenError};
pub use session::{Batch, Chosen, Data, GenerateError, Generator, Logits, Row, Session, StepError};
pub use tiers::{Features, Tier};

#[cfg(test)]
mod testing;
