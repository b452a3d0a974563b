//! CPU features by name, as compiled code asks for them.

use std::collections::BTreeSet;

/// The features that code may rely on. What is detected can be replaced, which is how tests see another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// The architecture, as Rust names it: `x86_64`.
    pub architecture: String,
    /// Names as in Rust's target features: `avx2`, `fma`, ….
    pub names: BTreeSet<String>,
}

impl Features {
    /// Those of this machine.
    pub fn detect() -> Features {
        Features { architecture: std::env::consts::ARCH.to_owned(), names: detected() }
    }

    /// Those of `needed` that are not there.
    pub fn missing<'a>(&self, needed: &'a [String]) -> Vec<&'a str> {
        needed.iter().map(String::as_str).filter(|n| !self.names.contains(*n)).collect()
    }
}

#[cfg(target_arch = "x86_64")]
fn detected() -> BTreeSet<String> {
    macro_rules! present {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    // What Cranelift's x64 backend can be told to use.
    let all = present!(
        "sse3",
        "ssse3",
        "sse4.1",
        "sse4.2",
        "popcnt",
        "cmpxchg16b",
        "avx",
        "avx2",
        "fma",
        "bmi1",
        "bmi2",
        "lzcnt",
        "avx512f",
        "avx512dq",
        "avx512vl",
        "avx512bitalg",
        "avx512vbmi",
        "avx512vnni",
        "avxvnni"
    );
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> BTreeSet<String> {
    BTreeSet::new()
}

/// The levels of x86-64 that a compiler can be asked for, the most demanding first, with a feature or two that tell them.
const LEVELS: [(&str, &[&str]); 2] = [
    ("x86-64-v4", &["avx2", "fma", "avx512f", "avx512dq", "avx512vl"]),
    ("x86-64-v3", &["avx2", "fma", "bmi2", "lzcnt"]),
];

impl Features {
    /// The most demanding target that `llamac compile --target` knows and these features can run.
    pub fn target(&self) -> &'static str {
        let has = |names: &[&str]| names.iter().all(|n| self.names.contains(*n));
        LEVELS.iter().find(|(_, names)| has(names)).map_or("x86-64-v2", |(name, _)| *name)
    }
}
