//! Graphs with the code that Cranelift is given: every kernel of `filetests/emit/*.lir` as CLIF, for
//! x86-64-v3. The first line may say `// fusion=…`, as in `lower`. `UPDATE_EXPECT=1` writes what comes out.

mod support;

use llamac_codegen::Options;
use llamac_codegen::target::Target;
use llamac_ir::parse;
use llamac_passes::FusionSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

fn emitted(text: &str) -> String {
    let graph = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let options = Options { target: Target::X86V3, listings: true, ..Options::default() };
    let compiled = match text.lines().next().and_then(|l| l.strip_prefix("// fusion=")) {
        None => support::build_fused(graph, &options),
        Some(set) => support::build(&graph, set.trim().parse::<FusionSet>().unwrap(), &options),
    };
    assert!(!compiled.listings.is_empty());
    let mut out = String::new();
    for (id, listing) in compiled.listings.iter().enumerate() {
        assert!(!listing.clif.is_empty(), "{}", listing.name);
        writeln!(out, "; k{id} {}\n{}", listing.name, listing.clif.trim_end()).unwrap();
    }
    out
}

#[test]
fn emitted_texts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests/emit");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "lir"));
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = vec![];
    for file in files {
        let found = emitted(&fs::read_to_string(&file).unwrap());
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
