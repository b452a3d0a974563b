//! Artifacts of earlier days, as files: a llamac that reads their format gives the numbers that were written beside them, and
//! any other refuses them clearly.
//!
//! `UPDATE_EXPECT=1` writes the file of today's version and its numbers anew. Files of versions past stay as they are.

#[path = "support/tiny.rs"]
mod tiny;

use llamac_formats::artifact::FORMAT_VERSION;
use llamac_passes::FusionSet;
use llamac_runtime::{Generator, Pool, Program, Tier};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most bytes of a file here.
const MOST: usize = 300_000;

const PROMPT: [u32; 9] = [1, 17, 300, 511, 4, 4, 90, 2, 256];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The logits of a prompt and of two tokens after it.
fn logits(program: &Program) -> Vec<f32> {
    let pool = Arc::new(Pool::new(1).unwrap());
    let mut generator: Generator = program.session_on(pool, Tier::Portable).unwrap();
    let mut all = generator.prefill(1, &PROMPT).unwrap().to_vec();
    for token in [7, 8] {
        all.extend(generator.decode(&[(1, token)]).unwrap().data);
    }
    all
}

fn update() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = tiny::artifact(directory.path(), FusionSet::All);
    let file = folder().join(format!("version-{FORMAT_VERSION}.llamac"));
    fs::create_dir_all(folder()).unwrap();
    fs::write(&file, bytes).unwrap();
    let found = logits(&Program::open(&file).unwrap());
    let lines: Vec<String> = found.iter().map(f32::to_string).collect();
    fs::write(file.with_extension("logits"), lines.join("\n") + "\n").unwrap();
}

#[test]
fn files_of_every_version_are_read_rightly_or_refused() {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        update();
    }
    let mut versions = vec![];
    for entry in fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|e| e != "llamac") {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        assert!(bytes.len() <= MOST, "{} is small", file.display());
        let version = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
        versions.push(version);
        match Program::open(&file) {
            Ok(program) => {
                assert_eq!(version, FORMAT_VERSION, "{}", file.display());
                let expected = fs::read_to_string(file.with_extension("logits")).unwrap();
                let expected: Vec<f32> = expected.lines().map(|l| l.parse().unwrap()).collect();
                let found = logits(&program);
                assert_eq!(found.len(), expected.len());
                // Another machine's routines may round otherwise.
                let norm = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
                let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
                assert!(norm > 0.1 && difference <= 1e-5 * norm, "{difference} of {norm}");
            }
            Err(e) => {
                let e = e.to_string();
                assert_ne!(version, FORMAT_VERSION, "{e}: is it damaged? UPDATE_EXPECT=1 writes it anew");
                let sentence = format!("it has artifact format {version}, this llamac reads format {FORMAT_VERSION}");
                assert!(e.contains(&sentence) && e.contains("compile the model again"), "{e}");
            }
        }
    }
    assert!(versions.contains(&FORMAT_VERSION), "there is no file of today's version: UPDATE_EXPECT=1 writes it");
}

#[test]
fn another_version_is_refused_before_anything_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.llamac");
    let mut bytes = tiny::artifact(directory.path(), FusionSet::All);
    for version in [0, 1, FORMAT_VERSION + 1, u32::MAX] {
        if version == FORMAT_VERSION {
            continue;
        }
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        // Whatever another version has behind its number.
        bytes[12..].fill(0xaa);
        fs::write(&path, &bytes).unwrap();
        let error = Program::open(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("it has artifact format {version}, this llamac reads")), "{error}");
    }
}
