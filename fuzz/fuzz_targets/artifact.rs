//! Bytes as an artifact, with every checksum made right: refused, or run without harm. The code section is trusted, so only
//! inputs that keep that of the seed are run.

#![no_main]

#[path = "../../tests/support/changed.rs"]
mod changed;

use changed::{Trial, sealed};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use tempfile::TempDir;

/// What the corpus starts from.
const SEED: &[u8] = include_bytes!("../../tests/data/version-2.llamac");

thread_local! {
    static TRIAL: RefCell<(TempDir, Trial)> = RefCell::new({
        let directory = tempfile::tempdir().expect("a temporary directory");
        let trial = Trial::new(&directory.path().join("changed.llamac"), SEED);
        (directory, trial)
    });
}

fuzz_target!(|bytes: &[u8]| {
    TRIAL.with_borrow_mut(|(_, trial)| drop(trial.run(&sealed(bytes))));
});
