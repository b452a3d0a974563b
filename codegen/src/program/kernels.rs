//! The kernels of a program: equal loop IR is compiled once, whichever layer or entry it comes from.

use super::{Listing, Stats};
use crate::emit;
use crate::error::Result;
use crate::loops::Kernel;
use cranelift_codegen::isa::OwnedTargetIsa;
use llamac_formats::Reach;
use llamac_formats::program::KernelInfo;
use std::collections::HashMap;

/// Kernels start at multiples of this in the code section, bytes.
const ALIGN: usize = 64;

/// Kernels compiled so far.
pub struct Kernels {
    isa: OwnedTargetIsa,
    listings_wanted: bool,
    by_text: HashMap<String, usize>,
    infos: Vec<KernelInfo>,
    listings: Vec<Listing>,
    code: Vec<u8>,
    regions: usize,
}

impl Kernels {
    /// None yet.
    pub fn new(isa: OwnedTargetIsa, listings_wanted: bool) -> Kernels {
        Kernels {
            isa,
            listings_wanted,
            by_text: HashMap::new(),
            infos: vec![],
            listings: vec![],
            code: vec![],
            regions: 0,
        }
    }

    /// The id of a kernel, which is compiled if it is new. Of equal kernels the first one's name is kept, and every way in
    /// which one of them is called.
    pub fn add(&mut self, name: &str, kernel: &Kernel, reach: &Reach) -> Result<usize> {
        self.regions += 1;
        let text = kernel.to_string();
        if let Some(&id) = self.by_text.get(&text) {
            let reaches = &mut self.infos[id].reaches;
            if !reaches.contains(reach) {
                reaches.push(reach.clone());
            }
            return Ok(id);
        }
        let machine = emit::compile(&*self.isa, kernel, name, self.listings_wanted)?;
        let offset = self.code.len().next_multiple_of(ALIGN);
        self.code.resize(offset, 0);
        self.code.extend_from_slice(&machine.code);
        let id = self.infos.len();
        self.infos.push(KernelInfo {
            name: name.into(),
            offset,
            bytes: machine.code.len(),
            scratch: kernel.scratch,
            reaches: vec![reach.clone()],
            loops: text.clone(),
        });
        self.listings.push(Listing {
            name: name.into(),
            loops: text.clone(),
            clif: machine.clif.unwrap_or_default(),
            asm: machine.asm.unwrap_or_default(),
        });
        self.by_text.insert(text, id);
        Ok(id)
    }

    /// How much there is.
    pub fn stats(&self) -> Stats {
        Stats { regions: self.regions, kernels: self.infos.len(), code_bytes: self.code.len() }
    }

    /// Kernels, code section, listings.
    pub fn finish(self) -> (Vec<KernelInfo>, Vec<u8>, Vec<Listing>) {
        (self.infos, self.code, self.listings)
    }
}
