//! What code is generated for.

use crate::error::{CodegenError, Result};
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use std::fmt;
use target_lexicon::Triple;

/// The instruction set that kernels may use. The same target gives the same bytes and the same results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Target {
    /// What this machine has.
    #[default]
    Native,
    /// x86-64 with SSE 4.2.
    X86V2,
    /// x86-64 with AVX2 and FMA.
    X86V3,
    /// x86-64 with AVX-512.
    X86V4,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 4] = [Target::Native, Target::X86V2, Target::X86V3, Target::X86V4];

    /// Its name: `native`, `x86-64-v2`, `x86-64-v3`, `x86-64-v4`.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Native => "native",
            Target::X86V2 => "x86-64-v2",
            Target::X86V3 => "x86-64-v3",
            Target::X86V4 => "x86-64-v4",
        }
    }

    /// The inverse of [`Target::name`].
    pub fn from_name(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Cranelift's description of the target.
    ///
    /// # Errors
    /// If Cranelift does not know the machine, or the machine lacks what kernels need at least (SSE 4.1 on x86-64).
    pub fn isa(self) -> Result<OwnedTargetIsa> {
        let failed = |reason: String| CodegenError::Target { target: self.name().into(), reason };
        let builder = match self {
            Target::Native => cranelift_native::builder().map_err(|e| failed(e.into()))?,
            _ => {
                let triple = Triple { architecture: target_lexicon::Architecture::X86_64, ..Triple::host() };
                let mut builder = isa::lookup(triple).map_err(|e| failed(e.to_string()))?;
                // The presets of v3 and v4 leave out the features that theirs stand on.
                let implied: &[&str] = match self {
                    Target::X86V4 => &["has_avx", "has_avx512f"],
                    Target::X86V3 => &["has_avx"],
                    _ => &[],
                };
                for name in std::iter::once(&self.name()).chain(implied) {
                    builder.enable(name).map_err(|e| failed(e.to_string()))?;
                }
                builder
            }
        };
        let mut flags = settings::builder();
        for (name, value) in [
            ("opt_level", "speed"),
            ("enable_probestack", "false"),
            ("is_pic", "false"),
            ("use_colocated_libcalls", "false"),
            ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
            ("unwind_info", "false"),
            ("preserve_frame_pointers", "false"),
        ] {
            flags.set(name, value).map_err(|e| failed(e.to_string()))?;
        }
        builder.finish(settings::Flags::new(flags)).map_err(|e| failed(e.to_string()))
    }
}

/// What a machine must have to run code for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The architecture, as Rust names it: `x86_64`.
    pub architecture: String,
    /// CPU features beyond the architecture's least, as Rust names them, sorted: `avx2`, `fma`, `sse4.1`, ….
    pub features: Vec<String>,
}

/// What the instruction set that Cranelift generates for has beyond the architecture's least: all of it may be used.
pub fn needs(isa: &dyn isa::TargetIsa) -> Needs {
    let flags = isa.isa_flags();
    let enabled = flags.iter().filter(|f| f.as_bool() == Some(true));
    let mut features: Vec<String> = enabled
        .filter_map(|f| f.name.strip_prefix("has_"))
        .map(|name| match name {
            "sse41" => "sse4.1".to_owned(),
            "avx_vnni" => "avxvnni".to_owned(),
            "sse42" => "sse4.2".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    features.sort();
    Needs { architecture: isa.triple().architecture.to_string(), features }
}

/// Whether the target multiplies and adds in one instruction.
pub(crate) fn has_fma(isa: &dyn isa::TargetIsa) -> bool {
    let has = |name: &str| isa.isa_flags().iter().any(|f| f.name == name && f.as_bool() == Some(true));
    has("has_fma") && has("has_avx") || matches!(isa.triple().architecture, target_lexicon::Architecture::Aarch64(_))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
