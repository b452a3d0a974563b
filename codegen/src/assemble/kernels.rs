//! The kernels of a program, each compiled once.

use crate::emit::{Emitter, Emitted};
use crate::error::Result;
use crate::loops::Kernel;
use crate::target::Target;
use llamac_formats::program::KernelInfo;
use std::collections::HashMap;

/// Kernels start at multiples of this in the code section.
const ALIGN: usize = 64;

/// A kernel as text.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Its name.
    pub name: String,
    /// Loop IR.
    pub loops: String,
    /// Cranelift IR.
    pub clif: String,
    /// Machine code.
    pub asm: String,
}

/// Kernels so far.
pub(super) struct Kernels {
    emitter: Emitter,
    by_loops: HashMap<String, usize>,
    infos: Vec<KernelInfo>,
    code: Vec<u8>,
    listings: Vec<Listing>,
}

impl Kernels {
    pub(super) fn new(target: Target) -> Result<Kernels> {
        Ok(Kernels {
            emitter: Emitter::new(target)?,
            by_loops: HashMap::new(),
            infos: vec![],
            code: vec![],
            listings: vec![],
        })
    }

    /// The index of the kernel with that loop IR; it is compiled if it is new, under that name.
    pub(super) fn add(&mut self, name: &str, kernel: Kernel) -> Result<usize> {
        let loops = kernel.to_string();
        if let Some(&index) = self.by_loops.get(&loops) {
            return Ok(index);
        }
        let Emitted { code, clif, asm } = self.emitter.compile(name, &kernel)?;
        let offset = self.code.len().next_multiple_of(ALIGN);
        self.code.resize(offset, 0);
        let index = self.infos.len();
        self.infos.push(KernelInfo {
            name: name.to_owned(),
            offset,
            bytes: code.len(),
            scratch: kernel.scratch,
            loops: loops.clone(),
        });
        self.code.extend(code);
        self.listings.push(Listing { name: name.to_owned(), loops: loops.clone(), clif, asm });
        self.by_loops.insert(loops, index);
        Ok(index)
    }

    pub(super) fn finish(self) -> (Vec<KernelInfo>, Vec<u8>, Vec<Listing>) {
        (self.infos, self.code, self.listings)
    }
}
