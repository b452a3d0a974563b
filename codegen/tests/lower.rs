//! Graphs with the loop IR that becomes of them: `filetests/lower/*.lir` are planned and lowered as they stand, or after the
//! passes where the first line says `// fusion=…`. What is expected stands beside each in `.expect`; `UPDATE_EXPECT=1` writes
//! it anew, to be read in the diff.

mod support;

use llamac_codegen::Options;
use llamac_formats::program::{Entry, Work};
use llamac_ir::parse;
use llamac_passes::FusionSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

fn lowered(text: &str) -> String {
    let graph = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let fusion = text.lines().next().and_then(|l| l.strip_prefix("// fusion="));
    let compiled = match fusion {
        None => support::build_fused(graph, &Options::default()),
        Some(set) => support::build(&graph, set.trim().parse::<FusionSet>().unwrap(), &Options::default()),
    };
    let mut out = String::new();
    for entry in &compiled.program.entries {
        steps(entry, &mut out);
    }
    for (id, kernel) in compiled.program.kernels.iter().enumerate() {
        write!(out, "\nk{id} {}: {}", kernel.name, kernel.loops).unwrap();
    }
    out
}

fn steps(entry: &Entry, out: &mut String) {
    writeln!(out, "{}:", entry.name).unwrap();
    for step in &entry.steps {
        match &step.work {
            Work::Rows(w) => {
                writeln!(out, "  {}: k{} over {} rows by {} of {:?}", step.name, w.kernel, w.count, w.grain, w.operands)
            }
            Work::Gemm(w) => match &w.epilogue {
                Some(e) => writeln!(
                    out,
                    "  {}: gemm of {} then k{} on {} of {:?}",
                    step.name,
                    w.segments.len(),
                    e.kernel,
                    if e.paired { "pairs" } else { "tiles" },
                    e.operands
                ),
                None => writeln!(out, "  {}: gemm of {}", step.name, w.segments.len()),
            },
            _ => writeln!(out, "  {}: {}", step.name, step.kind),
        }
        .unwrap();
    }
}

#[test]
fn lowering_texts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests/lower");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "lir"));
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = vec![];
    for file in files {
        let found = lowered(&fs::read_to_string(&file).unwrap());
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
