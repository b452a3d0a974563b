//! A loaded program: what `codegen` wrote, checked once and for all.
//!
//! After [`Executable::new`] every index and offset in the program is known to be good at its bounds, so that steps run
//! without looking again. Compiled kernels are machine code; they and what they are said to touch ([`llamac_formats::Reach`])
//! are trusted, the steps that call them are not.

mod calls;
mod check;
mod error;
mod reach;
mod steps;

pub use check::MOST_ROWS;
pub use error::{Fault, LoadError, OpenError};

use crate::memory::{ALIGN, Region};
use llamac_formats::program::Program;
use std::sync::Arc;

/// Bytes of a program's states, all slots and tokens of them.
pub fn state_bytes(program: &Program) -> usize {
    let bytes = program.states.iter().map(|s| s.dtype.storage_of(&s.dims).unwrap_or(usize::MAX));
    bytes.fold(0, usize::saturating_add)
}

/// Where the machine code of a program's kernels lies.
///
/// # Safety
/// For every kernel of the program, by its `KernelId`, `address` must always give the same entry address of executable
/// code that stays in place as long as the value lives. The code must have the signature with which the program's
/// steps call it, and called as one of the [`llamac_formats::Reach`]es of its `KernelInfo` says, it must touch only what that
/// says, and no more scratch than the `KernelInfo` says.
pub unsafe trait Code: Send + Sync {
    /// The entry address of a kernel.
    fn address(&self, kernel: usize) -> *const u8;
}

/// The inputs that say what the rows of a step are, where a program has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowPorts {
    /// `i32[S]`: each row's position.
    pub positions: Option<usize>,
    /// `i32[S]`: each row's cache slot.
    pub slots: Option<usize>,
    /// `i32[R]`: the rows whose outputs are wanted.
    pub outputs: Option<usize>,
}

/// A program that is safe to run, with its code and weights. Sessions share it.
pub struct Executable {
    program: Program,
    code: Arc<dyn Code>,
    weights: Arc<Region>,
    ports: RowPorts,
}

impl Executable {
    /// Checks a program. `weights` is its weight section.
    ///
    /// # Errors
    /// [`LoadError`] naming the first weight, port, entry or step that is not good.
    pub fn new(program: Program, code: Arc<dyn Code>, weights: Arc<Region>) -> Result<Executable, LoadError> {
        let ports = check::check(&program, &*code, &weights)?;
        Ok(Executable { program, code, weights, ports })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The weight section.
    pub fn weights(&self) -> &Region {
        &self.weights
    }

    /// The inputs that say what the rows are.
    pub fn row_ports(&self) -> RowPorts {
        self.ports
    }

    /// The entry address of a kernel that the program calls.
    pub(crate) fn kernel(&self, kernel: usize) -> *const u8 {
        self.code.address(kernel)
    }

    /// What a session needs beside the weights and the threads' scratch.
    ///
    /// # Errors
    /// [`OpenError::Size`] where a total overflows.
    pub fn layout(&self) -> Result<Layout, OpenError> {
        let program = &self.program;
        let sizes = program.bounds.sizes();
        let place = |what, parts: &mut dyn Iterator<Item = Option<usize>>| {
            lay_out(parts).ok_or(OpenError::Size { what, program: program.name.clone() })
        };
        let states = program.states.iter();
        let mut states = states.map(|s| reach::bytes(reach::product(s.dims.iter().copied())?, s.dtype));
        let port = |p: &llamac_formats::program::PortInfo| {
            let dims = p.dims.iter().map(|d| reach::value(*d, &sizes)).collect::<Option<Vec<_>>>()?;
            reach::bytes(reach::product(dims)?, p.dtype)
        };
        let (states, state_bytes) = place("states", &mut states)?;
        let (inputs, input_bytes) = place("inputs", &mut program.inputs.iter().map(port))?;
        let (outputs, output_bytes) = place("outputs", &mut program.outputs.iter().map(port))?;
        let arena_bytes = program.entries.iter().map(|e| e.arena_bytes).max().unwrap_or(0);
        Ok(Layout { states, state_bytes, inputs, input_bytes, outputs, output_bytes, arena_bytes })
    }
}

/// Where a session keeps states and ports, and how large everything is, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of each state.
    pub states: Vec<usize>,
    /// All states.
    pub state_bytes: usize,
    /// Offset of each input.
    pub inputs: Vec<usize>,
    /// All inputs, at the bounds.
    pub input_bytes: usize,
    /// Offset of each output.
    pub outputs: Vec<usize>,
    /// All outputs, at the bounds.
    pub output_bytes: usize,
    /// The largest arena of an entry: they share one.
    pub arena_bytes: usize,
}

fn lay_out(parts: &mut dyn Iterator<Item = Option<usize>>) -> Option<(Vec<usize>, usize)> {
    let mut offsets = Vec::new();
    let mut end = 0usize;
    for bytes in parts {
        offsets.push(end);
        end = end.checked_add(bytes?)?.checked_next_multiple_of(ALIGN)?;
    }
    Some((offsets, end))
}
