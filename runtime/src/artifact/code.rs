//! The code section, executable.

use crate::memory::{MemoryError, Region};
use crate::program::Code;
use llamac_formats::program::KernelInfo;

/// Where kernels start in the section: multiples of this.
const KERNEL_ALIGN: usize = 64;

/// All kernels of an artifact, in memory that was written once and can only be read and executed since.
pub(super) struct MappedCode {
    region: Region,
    offsets: Vec<usize>,
}

impl MappedCode {
    /// Copies the section and makes the copy executable: what was checked cannot change with the file any more, and a file
    /// system without executable files does not matter.
    pub(super) fn new(code: &[u8], kernels: &[KernelInfo]) -> Result<MappedCode, MemoryError> {
        let mut region = Region::new(code.len(), "the code")?;
        region.as_mut_slice().copy_from_slice(code);
        region.make_executable()?;
        Ok(MappedCode { region, offsets: kernels.iter().map(|k| k.offset).collect() })
    }
}

/// Checks that the kernels lie one after the other, each where the one before it ends, and fill the section. So none
/// starts within another, whatever the numbers say.
pub(super) fn check(kernels: &[KernelInfo], section: usize) -> Result<(), String> {
    let mut end = 0usize;
    for (i, kernel) in kernels.iter().enumerate() {
        let place = format!("kernel {i} (\"{}\")", kernel.name);
        let expected = end.next_multiple_of(KERNEL_ALIGN);
        if kernel.offset != expected {
            return Err(format!("{place} starts at byte {}, expected {expected}", kernel.offset));
        }
        end = match kernel.offset.checked_add(kernel.bytes) {
            Some(e) if kernel.bytes > 0 && e <= section => e,
            _ => return Err(format!("{place} has {} bytes, the section {section}", kernel.bytes)),
        };
    }
    if end != section {
        return Err(format!("its kernels end at byte {end}, it has {section} bytes"));
    }
    Ok(())
}

// SAFETY: the region keeps the code in place as long as it lives, and the offsets were checked to be starts of kernels.
// That the code is what its kind says, and reaches only what its arguments give it, is what the user vouches for by
// running the file: it is as trusted as any program.
unsafe impl Code for MappedCode {
    fn address(&self, kernel: usize) -> *const u8 {
        self.region.address().wrapping_add(self.offsets[kernel])
    }
}
