//! Texts with what becomes of them: `filetests/parse/*.lir` are read and printed, `filetests/verify/*.lir` are read and
//! verified. What is expected stands beside each in `.expect`; `UPDATE_EXPECT=1` writes it anew, to be read in the diff.

use llamac_ir::verify::{RULES, VerifyError};
use llamac_ir::{parse, print, verify};
use std::fs;
use std::path::{Path, PathBuf};

fn texts(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "lir"));
    files.sort();
    assert!(!files.is_empty());
    files
}

fn check(kind: &str, outcome: impl Fn(&str) -> String) {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = vec![];
    for file in texts(kind) {
        let found = outcome(&fs::read_to_string(&file).unwrap());
        let expect = file.with_extension("expect");
        if update {
            fs::write(&expect, &found).unwrap();
        }
        let expected = fs::read_to_string(&expect).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}\n--- expected\n{expected}\n--- found\n{found}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn parse_texts() {
    check("parse", |text| match parse(text) {
        Ok(graph) => {
            let printed = print(&graph);
            assert_eq!(parse(&printed).unwrap(), graph);
            printed
        }
        Err(e) => format!("{e}\n"),
    });
}

#[test]
fn verify_texts() {
    for file in texts("verify") {
        let valid = file.file_stem().is_some_and(|n| n.to_string_lossy().starts_with("ok_"));
        let found = verify(&parse(&fs::read_to_string(&file).unwrap()).unwrap());
        assert_eq!(found.is_ok(), valid, "{}: {found:?}", file.display());
    }
    check("verify", |text| {
        let graph = parse(text).unwrap_or_else(|e| panic!("a text to verify must be readable: {e}"));
        match verify(&graph) {
            Ok(()) => "ok\n".into(),
            Err(e) => format!("{e}\n"),
        }
    });
}

/// Rules that no text can break, because it cannot be read then; tests in Rust break them.
const NOT_IN_TEXT: [&str; 3] = ["single-definition", "dominance", "types"];

#[test]
fn every_rule_is_broken_by_some_text() {
    let broken: Vec<VerifyError> =
        texts("verify").iter().filter_map(|f| verify(&parse(&fs::read_to_string(f).unwrap()).unwrap()).err()).collect();
    for rule in RULES {
        let found = broken.iter().any(|e| e.rule == rule.name);
        assert_ne!(found, NOT_IN_TEXT.contains(&rule.name), "{}", rule.name);
    }
}

#[test]
fn the_examples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    let files: Vec<&PathBuf> = files.iter().filter(|f| f.extension().is_some_and(|e| e == "lir")).collect();
    assert!(!files.is_empty());
    for file in files {
        let graph = parse(&fs::read_to_string(file).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        verify(&graph).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(parse(&print(&graph)).unwrap(), graph);
    }
}
