//! The switches of a compilation.

use crate::{pipeline, plan};
use llamac_ir::DType;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Which fusing passes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum FusionSet {
    /// None: every primitive is its own kernel, the baseline of every comparison.
    None,
    /// Only `fuse-rows`.
    Rows,
    /// Only `fuse-epilogue`.
    Epilogue,
    /// Only `fuse-attention`.
    Attention,
    /// All three.
    #[default]
    All,
}

/// What the activations are at each dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activations {
    /// What the weights ask for: q8 for block formats, bf16 for bf16, f32 for all others and for mixtures.
    #[default]
    Auto,
    /// IEEE 754 binary32.
    F32,
    /// The upper half of a binary32.
    Bf16,
    /// Blocks of eight-bit integers ([`llamac_formats::q8`]), at weights in block formats.
    Q8,
}

/// What the key-value cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum CacheType {
    /// IEEE 754 binary32.
    #[default]
    F32,
    /// The upper half of a binary32.
    Bf16,
    /// Blocks of eight-bit integers ([`llamac_formats::q8`]), of which a head must be whole ones.
    Q8_0,
}

impl CacheType {
    /// The element type.
    pub const fn dtype(self) -> DType {
        match self {
            CacheType::F32 => DType::F32,
            CacheType::Bf16 => DType::BF16,
            CacheType::Q8_0 => DType::Q8,
        }
    }
}

/// A switch that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionError {
    /// A value that an option does not take.
    #[error("--{option} {found}: expected one of {expected}")]
    Value {
        /// The option, without dashes.
        option: &'static str,
        /// What was given.
        found: String,
        /// What it takes.
        expected: String,
    },
    /// No pass has this name.
    #[error("there is no pass `{found}`; the passes are {names}")]
    UnknownPass {
        /// What was given.
        found: String,
        /// All names, in order.
        names: String,
    },
    /// A pass without which no program comes out.
    #[error("pass `{found}` cannot be disabled: no program comes out without it; those that can are {names}")]
    Needed {
        /// What was given.
        found: String,
        /// The passes that can be disabled.
        names: String,
    },
}

/// Defines the text form of a fieldless option: `Display`, `FromStr` and the list of all values.
macro_rules! option_values {
    ($name:ident, $option:literal, { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// All values, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The value as it is written.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = OptionError;

            fn from_str(s: &str) -> Result<$name, OptionError> {
                $name::ALL.iter().copied().find(|v| v.name() == s).ok_or_else(|| OptionError::Value {
                    option: $option,
                    found: s.to_string(),
                    expected: $name::ALL.iter().map(|v| v.name()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

option_values!(FusionSet, "fusion", {
    None = "none", Rows = "rows", Epilogue = "epilogue", Attention = "attention", All = "all"
});
option_values!(Activations, "act", { Auto = "auto", F32 = "f32", Bf16 = "bf16", Q8 = "q8" });
option_values!(CacheType, "kv", { F32 = "f32", Bf16 = "bf16", Q8_0 = "q8_0" });

/// All switches of a compilation. The default fuses everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// Which fusing passes run. The other passes run in every build: `merge-linear` is no fusion, it only stacks weights.
    pub fusion: FusionSet,
    /// What the activations are at each dot.
    pub act: Activations,
    /// What the cache holds.
    pub kv: CacheType,
    disable: BTreeSet<&'static str>,
}

impl Options {
    /// These fusions and nothing disabled.
    pub fn fusing(fusion: FusionSet) -> Options {
        Options { fusion, ..Options::default() }
    }

    /// Disables a pass by name.
    ///
    /// # Errors
    /// If there is no such pass, or no program comes out without it.
    pub fn disable(mut self, name: &str) -> Result<Options, OptionError> {
        let pass = pipeline::find(name)?;
        if !pass.optional {
            let names: Vec<&str> = pipeline::PIPELINE.iter().filter(|p| p.optional).map(|p| p.name).collect();
            return Err(OptionError::Needed { found: name.to_string(), names: names.join(", ") });
        }
        self.disable.insert(pass.name);
        Ok(self)
    }

    /// The switches of the passes that make a plan.
    pub fn plan(&self) -> plan::Options {
        plan::Options { schedule: self.enables("schedule"), plan: self.enables("plan") }
    }

    /// The disabled passes, in alphabetical order.
    pub fn disabled(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.disable.iter().copied()
    }

    /// Whether a pass of that name runs.
    pub fn enables(&self, name: &str) -> bool {
        let all = self.fusion == FusionSet::All;
        let chosen = match name {
            "fuse-attention" => all || self.fusion == FusionSet::Attention,
            "fuse-epilogue" => all || self.fusion == FusionSet::Epilogue,
            "fuse-rows" => all || self.fusion == FusionSet::Rows,
            _ => true,
        };
        chosen && !self.disable.contains(name)
    }
}
