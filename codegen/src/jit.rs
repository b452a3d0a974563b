//! Compiled kernels, executable in this process.

use crate::error::{CodegenError, Result};
use cranelift_codegen::ir::{AbiParam, types::I64};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};

/// Executable kernels. The addresses are valid as long as this lives.
pub struct JitCode {
    module: Option<JITModule>,
    addresses: Vec<*const u8>,
}

// SAFETY: after `map` the module is only kept alive and freed; nothing reads or writes it through this type.
unsafe impl Send for JitCode {}
// SAFETY: as above; the addresses point to immutable code.
unsafe impl Sync for JitCode {}

impl std::fmt::Debug for JitCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JitCode").field("kernels", &self.addresses.len()).finish()
    }
}

impl JitCode {
    /// Maps each kernel's bytes into executable memory. Pages are written first and made executable (and no longer
    /// writable) afterwards.
    ///
    /// # Errors
    /// If the system refuses the memory.
    pub fn map<'a>(kernels: impl IntoIterator<Item = &'a [u8]>) -> Result<JitCode> {
        let failed = |e: &dyn std::fmt::Display| CodegenError::Map(e.to_string());
        let isa = crate::Target::Native.isa()?;
        let mut module = JITModule::new(JITBuilder::with_isa(isa, default_libcall_names()));
        let mut signature = module.make_signature();
        signature.params.extend([AbiParam::new(I64); 3]);
        let mut ids = vec![];
        for (i, code) in kernels.into_iter().enumerate() {
            let id =
                module.declare_function(&format!("kernel{i}"), Linkage::Local, &signature).map_err(|e| failed(&e))?;
            module.define_function_bytes(id, 64, code, &[]).map_err(|e| failed(&e))?;
            ids.push(id);
        }
        module.finalize_definitions().map_err(|e| failed(&e))?;
        let addresses = ids.into_iter().map(|id| module.get_finalized_function(id)).collect();
        Ok(JitCode { module: Some(module), addresses })
    }

    /// The kernels' addresses, by `KernelId`.
    pub fn addresses(&self) -> &[*const u8] {
        &self.addresses
    }
}

impl Drop for JitCode {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: the addresses are documented to be valid only while this lives; nothing runs them any more.
            unsafe { module.free_memory() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_where_nothing_can_write() {
        let code = JitCode::map([[0xc3u8].as_slice(), &[0x90, 0xc3]]).unwrap();
        assert_eq!(code.addresses().len(), 2);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
            assert!(!(rights.contains('w') && rights.contains('x')), "{line}");
            let Some((begin, end)) = range.split_once('-') else { continue };
            let bound = |hex| usize::from_str_radix(hex, 16).unwrap_or(0);
            for &address in code.addresses() {
                if (bound(begin)..bound(end)).contains(&(address as usize)) {
                    assert!(rights.starts_with("r-x"), "{line}");
                }
            }
        }
    }

    #[test]
    fn kernels_start_on_cache_lines() {
        let code = JitCode::map([[0xc3u8].as_slice(), &[0xc3]]).unwrap();
        assert!(code.addresses().iter().all(|&a| (a as usize).is_multiple_of(64)));
    }
}
