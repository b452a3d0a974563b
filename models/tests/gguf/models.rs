//! Bundled files and what is made of them.

use llamac_formats::{BlockFormat, RopeScaling};
use llamac_ir::interp::{Input, Interpreter};
use llamac_ir::{Bounds, DType, Op, Recipe, Sizes, TensorSource, TensorView};
use llamac_models::weights::{NotFinite, not_finite};
use llamac_models::{Architecture, GgufModel, ModelDir};
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn bard(format: &str) -> GgufModel {
    let path = repository(&format!("tests/models/bard.gguf/bard-{format}.gguf"));
    GgufModel::open(&path).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn configuration_is_that_of_the_directory() {
    let directory = ModelDir::open(&repository("examples/models/bard")).unwrap_or_else(|e| panic!("{e}"));
    let (gguf, want) = (bard("q4_k_m"), directory.config());
    let found = gguf.config();
    assert_eq!(found.architecture, Architecture::Llama);
    assert_eq!(
        (found.hidden, found.layers, found.heads, found.kv_heads, found.head_dim, found.intermediate, found.vocab),
        (want.hidden, want.layers, want.heads, want.kv_heads, want.head_dim, want.intermediate, want.vocab)
    );
    assert_eq!((found.context, found.tied, found.bos), (want.context, want.tied, want.bos));
    assert_eq!((found.norm_eps as f32, found.rope.theta), (want.norm_eps as f32, want.rope.theta));
    assert!(matches!(&found.rope.scaling, RopeScaling::Factors { factors } if factors.len() == 16));
    // The factors are rounded once, and so are the frequencies that they are made of.
    for (a, b) in found.rope.inv_freq().iter().zip(want.rope.inv_freq()) {
        assert!((a / b - 1.0).abs() < 1e-6, "{a} and {b}");
    }
    assert_eq!(gguf.unused(), Vec::<String>::new());
}

/// Every tensor has the type that the file gives it, and q and k are permuted.
#[test]
fn graphs_keep_the_types_of_the_file() {
    let gguf = bard("q4_k_m");
    let graph = gguf.import(Bounds { rows: 8, outputs: 1, tokens: 16, slots: 1 }).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(llamac_ir::verify::verify(&graph).map_err(|e| e.to_string()), Ok(()));
    let text = llamac_ir::print::print(&graph);
    for line in [
        "q6_k[2048, 256] = weight \"token_embd.weight\"",
        "q4_k[256, 256] = weight permute_rows(\"blk.0.attn_q.weight\", heads=8)",
        "q4_k[64, 256] = weight permute_rows(\"blk.0.attn_k.weight\", heads=2)",
        "q4_k[64, 256] = weight \"blk.0.attn_v.weight\"",
        "q6_k[64, 256] = weight \"blk.2.attn_v.weight\"",
        "f32[256] = weight \"blk.0.attn_norm.weight\"",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let weights = graph.order().iter().filter(|&&i| matches!(graph.op(i), Op::Weight(_))).count();
    assert_eq!(weights, 38, "all tensors but the factors");
    let view = gguf.tensor("blk.0.attn_q.weight").expect("a tensor");
    assert_eq!((view.dtype, view.dims), (DType::Block(BlockFormat::Q4K), [256, 256].as_slice()));
    assert_eq!(Some(view.bytes.len()), view.dtype.storage_of(view.dims));
    let stored = gguf.stored("lm_head.weight");
    assert!(stored.is_none(), "the head is tied");
    assert!(matches!(gguf.stored("model.norm.weight").map(|s| s.recipe), Some(Recipe::Tensor(_))));
}

#[test]
fn vocabulary() {
    let gguf = bard("q4_0");
    let description = gguf.vocabulary().unwrap_or_else(|e| panic!("{e}")).expect("a vocabulary");
    assert_eq!((description.tokens.len(), description.before.as_slice()), (2048, [2043].as_slice()));
    assert!(gguf.stored_vocabulary().unwrap_or_else(|e| panic!("{e}")).is_some());
}

/// The interpreter on a bundled file against the f64 golden: at most what llama.cpp's own arithmetic on the same file is
/// off by (`bard.gguf` in the models' README), times 1.1.
#[test]
fn logits_are_as_near_as_the_blocks_allow() {
    let text = std::fs::read_to_string(repository("tests/golden/bard.json")).expect("the golden");
    let golden: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (format, allowed) in [("q4_0", 6.6e-2), ("q4_k_m", 7.4e-2)] {
        let gguf = bard(format);
        let graph =
            gguf.import(Bounds { rows: 64, outputs: 1, tokens: 64, slots: 1 }).unwrap_or_else(|e| panic!("{e}"));
        let numbers = |v: &serde_json::Value| -> Vec<f64> {
            v.as_array().expect("an array").iter().map(|x| x.as_f64().expect("a number")).collect()
        };
        let short = golden["cases"].as_array().expect("cases").iter().filter(|c| numbers(&c["ids"]).len() <= 64);
        let mut cases = 0;
        for case in short {
            let ids: Vec<i32> = numbers(&case["ids"]).iter().map(|&x| x as i32).collect();
            let n = ids.len();
            let positions: Vec<i32> = (0..n as i32).collect();
            let inputs = [
                ("tokens", Input::Int(&ids)),
                ("positions", Input::Int(&positions)),
                ("slots", Input::Int(&vec![0; n])),
                ("outputs", Input::Int(&[n as i32 - 1])),
            ];
            let mut interpreter = Interpreter::<f32>::new(&graph, &gguf);
            let outputs =
                interpreter.step(Sizes { rows: n, outputs: 1, tokens: n }, &inputs).unwrap_or_else(|e| panic!("{e}"));
            let want = numbers(&case["logits_last"]);
            let off: f64 = outputs[0].floats().iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
            let error = (off / want.iter().map(|b| b * b).sum::<f64>()).sqrt();
            assert!(error > 1e-3 && error <= 1.1 * allowed, "{format}: relative error {error:e}");
            cases += 1;
        }
        assert!(cases > 0, "a golden with short prompts");
    }
}

/// A scale that is no number makes a block of them; a minimum that is infinite likewise.
#[test]
fn blocks_that_are_no_numbers_are_counted() {
    for (format, at) in [(BlockFormat::Q4_0, 0), (BlockFormat::Q4K, 2), (BlockFormat::Q6K, 208)] {
        let mut bytes = vec![0x11; 3 * format.bytes()];
        let dims = [3, format.elements()];
        let scan = |bytes: &[u8]| not_finite(&TensorView { dtype: DType::Block(format), dims: &dims, bytes });
        assert_eq!(scan(&bytes), None, "{format}");
        bytes[format.bytes() + at..][..2].copy_from_slice(&0x7e00_u16.to_le_bytes());
        let found = scan(&bytes).expect("a block of no numbers");
        let want = NotFinite { nan: format.elements(), infinite: 0, first: format.elements() };
        assert_eq!(found, want, "{format}");
    }
}
