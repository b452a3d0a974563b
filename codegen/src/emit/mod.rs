//! Loop IR to CLIF to machine code.
//!
//! The emitter decides nothing: every loop, lane and accumulator of the loop IR is spelled as it stands. Kernels call nothing
//! but routines of the runtime and need no relocations; all they read, and those routines, come through
//! [`llamac_formats::program::KernelArgs`].

mod convert;
mod function;
mod lanes;
mod math;

use crate::error::{CodegenError, Result};
use crate::loops::Kernel;
use crate::target::has_fma;
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::TargetIsa;

pub use math::probe_unary;

/// A kernel as machine code.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The bytes; position-independent.
    pub code: Vec<u8>,
    /// The CLIF it was made of, if asked for.
    pub clif: Option<String>,
    /// Its disassembly (Cranelift's), if asked for.
    pub asm: Option<String>,
}

/// Compiles a kernel.
///
/// # Errors
/// If Cranelift refuses it or it came out with relocations: mistakes of ours.
pub fn compile(isa: &dyn TargetIsa, kernel: &Kernel, name: &str, listings: bool) -> Result<Machine> {
    let function = function::build(isa, kernel, has_fma(isa));
    machine(isa, function, name, listings)
}

fn machine(isa: &dyn TargetIsa, function: Function, name: &str, listings: bool) -> Result<Machine> {
    let clif = listings.then(|| function.display().to_string());
    let mut context = Context::for_function(function);
    context.set_disasm(listings);
    let compiled = context
        .compile(isa, &mut ControlPlane::default())
        .map_err(|e| CodegenError::Backend { kernel: name.into(), reason: format!("{:?}", e.inner) })?;
    let count = compiled.buffer.relocs().len();
    if count > 0 {
        return Err(CodegenError::Relocations { kernel: name.into(), count });
    }
    Ok(Machine { code: compiled.code_buffer().to_vec(), clif, asm: compiled.vcode.clone() })
}
