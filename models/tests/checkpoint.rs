//! Safetensors files, whole and broken: every way to be broken has its own words.

mod support;

use llamac_ir::{DType, TensorSource, TensorView};
use llamac_models::weights::{NotFinite, not_finite, not_finite_tensors};
use llamac_models::{Checkpoint, ModelDir, WeightsError};
use proptest::prelude::*;
use serde_json::json;
use std::fs;
use support::{repository, safetensors, says, tensors, write};
use tempfile::TempDir;

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// Opens a directory that holds only this `model.safetensors`.
fn open(bytes: &[u8]) -> Result<Checkpoint, WeightsError> {
    let dir = temporary();
    write(&dir, "model.safetensors", bytes);
    Checkpoint::open(dir.path())
}

#[track_caller]
fn refused(bytes: &[u8], parts: &[&str]) {
    let error = open(bytes).expect_err("a refusal");
    says(&error, &["model.safetensors"]);
    says(&error, parts);
}

#[test]
fn a_model_of_the_repository() {
    let model = ModelDir::open(&repository("examples/models/bard")).expect("bard");
    let weights = model.weights().expect("its weights");
    assert_eq!(weights.names().count(), 38);
    let embedding = weights.tensor("model.embed_tokens.weight").expect("the embedding");
    assert_eq!((embedding.dtype, embedding.dims), (DType::BF16, [2048, 256].as_slice()));
    assert_eq!(embedding.bytes.len(), 2048 * 256 * 2);
    assert_eq!(not_finite(&embedding), None);
    // Released pages come back with the same bytes.
    let before = embedding.bytes.to_vec();
    weights.release("model.embed_tokens.weight");
    weights.release_part("model.embed_tokens.weight", 10_000..usize::MAX);
    weights.release("no such tensor");
    assert!(weights.tensor("model.embed_tokens.weight").expect("still there").bytes == before);
    assert!(weights.tensor("lm_head.weight").is_none());
}

#[test]
fn a_file_by_itself() {
    let path = repository("tests/models/stories260K/model.safetensors");
    let weights = Checkpoint::open(&path).expect("a file");
    assert_eq!(weights.expect("model.norm.weight", &[64]).expect("a norm").dtype, DType::F32);
    assert!(weights.describe().ends_with("model.safetensors"));
}

#[test]
fn missing_and_unreadable() {
    let dir = temporary();
    says(&Checkpoint::open(dir.path()).expect_err("empty"), &["model.safetensors.index.json", "no weights found"]);
    says(&Checkpoint::open(&dir.path().join("x")).expect_err("absent"), &["x", "cannot be read"]);
    fs::create_dir(dir.path().join("model.safetensors")).expect("a directory in the way");
    says(&Checkpoint::open(dir.path()).expect_err("a directory"), &["model.safetensors", "not a file"]);
}

#[test]
fn truncated_and_empty() {
    refused(b"", &["0 bytes", "header ends at byte 8"]);
    refused(b"\x10\0\0", &["3 bytes", "truncated"]);
    refused(b"\x10\0\0\0\0\0\0\0{}", &["10 bytes", "header ends at byte 24"]);
    let whole = tensors(&[("a", &[3], 1.0), ("b", &[2, 2], 2.0)]);
    assert!(open(&whole).is_ok());
    refused(&whole[..whole.len() - 1], &["truncated", &format!("{} bytes", whole.len() - 1)]);
    refused(&[whole.as_slice(), b"x"].concat(), &["damaged", &format!("{} bytes", whole.len() + 1)]);
}

#[test]
fn headers_that_lie_about_their_length() {
    let mut file = tensors(&[("a", &[3], 1.0)]);
    file[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&file, &["claims 18446744073709551615 bytes", "at most 100000000"]);
    file[..8].copy_from_slice(&100_000_001_u64.to_le_bytes());
    refused(&file, &["claims 100000001 bytes"]);
    file[..8].copy_from_slice(&100_000_000_u64.to_le_bytes());
    refused(&file, &["header ends at byte 100000008"]);
}

#[test]
fn headers_that_are_none() {
    refused(&safetensors("", &[]), &["header is invalid"]);
    refused(&safetensors("{\"a\":", &[]), &["header is invalid", "line 1"]);
    refused(&safetensors("[]", &[]), &["header is invalid", "an object of tensors"]);
    refused(&safetensors(r#"{"a":{"dtype":"F32","shape":[1]}}"#, &[]), &["header is invalid", "data_offsets"]);
    refused(&safetensors(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, &[0; 4]), &["invalid"]);
    refused(&[&[2, 0, 0, 0, 0, 0, 0, 0], b"\xff\xfe".as_slice()].concat(), &["not UTF-8"]);
    let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[4,4]}"#;
    refused(&safetensors(&format!(r#"{{"a":{entry},"a":{empty}}}"#), &[0; 4]), &["`a`", "listed twice"]);
}

#[test]
fn offsets_that_do_not_fit() {
    let two = |a: [usize; 2], b: [usize; 2]| {
        let header = json!({
            "a": {"dtype": "F32", "shape": [2], "data_offsets": a},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": b}
        });
        safetensors(&header.to_string(), &[0; 16])
    };
    assert!(open(&two([0, 8], [8, 16])).is_ok());
    assert!(open(&two([8, 16], [0, 8])).is_ok());
    refused(&two([0, 8], [4, 12]), &["`b`", "4..12 overlap"]);
    refused(&two([0, 8], [12, 20]), &["`b`", "12..20 leave a hole"]);
    refused(&two([4, 12], [12, 20]), &["`a`", "hole"]);
    refused(&two([0, 8], [16, 8]), &["`b`", "end before they begin"]);
    refused(&two([0, 8], [8, 12]), &["`b`", "needs 8 bytes", "hold 4"]);
    let beyond = json!({"a": {"dtype": "F32", "shape": [4096], "data_offsets": [0, 16384]}});
    refused(&safetensors(&beyond.to_string(), &[0; 16]), &["truncated"]);
    let overflow = json!({"a": {"dtype": "F32", "shape": [1u64 << 62, 8], "data_offsets": [0, 16]}});
    refused(&safetensors(&overflow.to_string(), &[0; 16]), &["`a`", "more bytes than an address has"]);
    let deep = json!({"a": {"dtype": "F32", "shape": [1, 1, 1, 1, 1, 1, 1, 1, 1], "data_offsets": [0, 4]}});
    refused(&safetensors(&deep.to_string(), &[0; 4]), &["`a`", "9 axes"]);
}

#[test]
fn dtypes_that_are_not_read() {
    for (dtype, bytes) in [("F64", 8), ("I32", 4), ("U8", 1), ("F8_E4M3", 1), ("Q7", 4)] {
        let header = json!({"w": {"dtype": dtype, "shape": [1], "data_offsets": [0, bytes]}});
        refused(&safetensors(&header.to_string(), &vec![0; bytes]), &["`w`", dtype, "F32, F16, BF16"]);
    }
}

/// A directory of two shards and what its index says.
fn sharded(index: &str) -> TempDir {
    let dir = temporary();
    write(&dir, "one.safetensors", tensors(&[("a", &[3], 1.0), ("b", &[2, 2], 2.0)]));
    write(&dir, "two.safetensors", tensors(&[("c", &[1], 3.0)]));
    write(&dir, "model.safetensors.index.json", index);
    dir
}

const INDEX: &str = r#"{"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}"#;

#[test]
fn shards() {
    let dir = sharded(INDEX);
    let weights = Checkpoint::open(dir.path()).expect("two shards");
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(weights.tensor("c").expect("c").bytes, 3.0_f32.to_le_bytes());
    assert!(weights.file_of("c").ends_with("two.safetensors"));
}

#[test]
fn shards_and_index_that_disagree() {
    let refused = |index: &str, parts: &[&str]| {
        let error = Checkpoint::open(sharded(index).path()).expect_err("a refusal");
        says(&error, &["model.safetensors.index.json"]);
        says(&error, parts);
    };
    refused("", &["empty"]);
    refused("{", &["line 1"]);
    refused("{}", &["weight_map"]);
    refused(r#"{"weight_map": {}}"#, &["weight_map", "empty"]);
    refused(r#"{"weight_map": {"a": 1}}"#, &["weight_map.a", "1", "file name"]);
    for path in ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", ""] {
        refused(&json!({"weight_map": {"a": path}}).to_string(), &["weight_map.a", "without directories"]);
    }
    refused(&INDEX.replace("\"a\"", "\"x\""), &["one.safetensors", "`a`"]);
    refused(&INDEX.replace("\"b\": ", "\"b\": \"one.safetensors\", \"x\": "), &["`x`", "one.safetensors"]);
    refused(&INDEX.replace("\"c\": \"two.", "\"c\": \"one."), &["`c`", "one.safetensors"]);
    let dir = sharded(INDEX);
    fs::remove_file(dir.path().join("one.safetensors")).expect("a removed shard");
    says(&Checkpoint::open(dir.path()).expect_err("a missing shard"), &["one.safetensors", "missing", "`a`", "1 more"]);
}

#[test]
fn values_that_are_no_numbers() {
    let view = |dtype, dims, bytes| TensorView { dtype, dims, bytes };
    let mut values = vec![1.5_f32; 10_000];
    values[9_000] = f32::NAN;
    values[9_001] = f32::NEG_INFINITY;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let found = Some(NotFinite { nan: 1, infinite: 1, first: 9_000 });
    assert_eq!(not_finite(&view(DType::F32, &[10_000], &bytes)), found);
    assert_eq!(not_finite(&view(DType::F32, &[9_000], &bytes[..36_000])), None);
    let bf16 = [0x3f80_u16, 0xffc1, 0x7f80, 0x7f7f].map(u16::to_le_bytes).concat();
    assert_eq!(not_finite(&view(DType::BF16, &[4], &bf16)), Some(NotFinite { nan: 1, infinite: 1, first: 1 }));
    let f16 = [0x3c00_u16, 0x7bff, 0xfc00, 0x7c01].map(u16::to_le_bytes).concat();
    assert_eq!(not_finite(&view(DType::F16, &[4], &f16)), Some(NotFinite { nan: 1, infinite: 1, first: 2 }));
}

#[test]
fn a_tensor_with_nan_is_named() {
    // Larger than the blocks in which pages are let go: the index must count all of them.
    let dir = temporary();
    write(&dir, "model.safetensors", tensors(&[("clean", &[5], 1.0), ("large", &[5_000_000], 1.0)]));
    let path = dir.path().join("model.safetensors");
    let mut file = fs::read(&path).expect("the file");
    let end = file.len();
    file[end - 8..end - 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, file).expect("a damaged file");
    let weights = Checkpoint::open(dir.path()).expect("sound offsets");
    let found = not_finite_tensors(&weights, weights.names().chain(["absent"]));
    assert_eq!(found, [("large", NotFinite { nan: 1, infinite: 0, first: 4_999_998 })]);
}

proptest! {
    /// Whatever happens to a file, it is read or refused: no panic, and no view outside of it.
    #[test]
    fn damaged_files_never_panic(
        changes in prop::collection::vec((0..400_usize, any::<u8>()), 0..6),
        cut in 0..400_usize,
        insert in prop::option::of((0..400_usize, "[0-9\\[\\]{}\",:a-zA-Z]{1,12}")),
    ) {
        let mut file = tensors(&[("a", &[3], 1.0), ("b", &[2, 2], 2.0), ("layers.0.c", &[1, 5], 3.0)]);
        for (at, byte) in changes {
            let length = file.len();
            file[at % length] = byte;
        }
        if let Some((at, text)) = insert {
            let at = at % file.len();
            file.splice(at..at, text.bytes());
        }
        if cut < 100 {
            file.truncate(file.len().saturating_sub(cut));
        }
        if let Ok(weights) = open(&file) {
            for name in weights.names() {
                let view = weights.tensor(name).expect("a listed tensor");
                prop_assert_eq!(view.bytes.len(), view.dims.iter().product::<usize>() * view.dtype.bytes());
            }
        }
    }
}
