//! The code section: its table of kernels, and their machine code made executable.

use crate::memory::{MemoryError, Region};
use crate::program::Code;
use llamac_formats::artifact::{CodeTable, Header, split_code};
use llamac_formats::program::KernelInfo;

/// Where kernels start in the machine code: multiples of this.
const KERNEL_ALIGN: usize = 64;

/// All kernels of an artifact, in memory that was written once and can only be read and executed since.
pub(super) struct MappedCode {
    region: Region,
    offsets: Vec<usize>,
}

impl MappedCode {
    /// Copies the machine code and makes the copy executable: what was checked cannot change with the file any more, and a file
    /// system without executable files does not matter.
    pub(super) fn new(code: &[u8], kernels: &[KernelInfo]) -> Result<MappedCode, MemoryError> {
        let mut region = Region::new(code.len(), "the code")?;
        region.as_mut_slice().copy_from_slice(code);
        region.make_executable()?;
        Ok(MappedCode { region, offsets: kernels.iter().map(|k| k.offset).collect() })
    }
}

/// Reads what the section says of its kernels, and finds where their machine code begins in it. The header must need what
/// the code needs: that is what was held against this machine.
pub(super) fn table(section: &[u8], header: &Header) -> Result<(CodeTable, usize), String> {
    let (text, code) = split_code(section).ok_or("its table of kernels does not fit into it")?;
    let table: CodeTable = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    if table.architecture != header.architecture || table.features != header.features {
        return Err(format!(
            "its code needs {} with [{}], the header says {} with [{}]",
            table.architecture,
            table.features.join(", "),
            header.architecture,
            header.features.join(", ")
        ));
    }
    check(&table.kernels, code.len())?;
    Ok((table, section.len() - code.len()))
}

/// Checks that the kernels lie one after the other, each where the one before it ends, and fill what there is. So none
/// starts within another, whatever the numbers say.
fn check(kernels: &[KernelInfo], section: usize) -> Result<(), String> {
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

// That the code has the signature and the reach that its table says is what the user vouches for by running the file: the
// section is as trusted as any program, and every step was held against it.
// SAFETY: the region keeps the code in place as long as it lives, and the offsets were checked to be starts of kernels.
unsafe impl Code for MappedCode {
    fn address(&self, kernel: usize) -> *const u8 {
        self.region.address().wrapping_add(self.offsets[kernel])
    }
}
