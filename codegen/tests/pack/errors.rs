//! What does not fit is refused with source, tensor, found and expected, before anything is written.

use crate::tensors::{Tensors, convert, pack_one, panels, permute, rows, t};
use llamac_codegen::pack::{PackError, WeightPlan, pack};
use llamac_formats::block::BlockFormat;
use llamac_formats::{RopeScaling, RopeTable};
use llamac_ir::{DType, Dim, Recipe, RopePart, Type};

fn source() -> Tensors {
    let mut source = Tensors::default();
    source.add("a", DType::BF16, &[4, 8]);
    source.add("b", DType::F32, &[4, 8]);
    source.add("vector", DType::BF16, &[8]);
    source.put("ids", DType::I32, &[4, 8], vec![0; 128]);
    source.put("cut", DType::BF16, &[4, 8], vec![0; 63]);
    source.put("huge", DType::BF16, &[usize::MAX, 8], vec![0; 64]);
    source
}

/// The error's text, which must name all of `parts`.
fn refused(recipe: Recipe, ty: Type, parts: &[&str]) -> PackError {
    let error = pack_one(recipe, ty, &source()).unwrap_err();
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    error
}

#[test]
fn missing_tensors() {
    let error = refused(t("c"), rows(DType::BF16, &[4, 8]), &["test tensors", "`c`", "bf16 of shape [4, 8]"]);
    assert!(matches!(error, PackError::Missing { .. }));
    let parts = vec![t("a"), t("c")];
    refused(Recipe::Concat(parts), rows(DType::BF16, &[8, 8]), &["`c`", "[_, 8]"]);
}

#[test]
fn tensors_of_other_types() {
    let error = refused(t("a"), panels(DType::F32, &[4, 8]), &["test tensors", "`a` is bf16", "expected f32"]);
    assert!(matches!(error, PackError::DType { found: DType::BF16, .. }));
    refused(t("b"), panels(DType::BF16, &[4, 8]), &["`b` is f32", "expected bf16"]);
    refused(convert(t("ids")), panels(DType::F32, &[4, 8]), &["`ids` is i32", "f32, f16, bf16 or a block format"]);
    let mixed = Recipe::Concat(vec![convert(t("a")), t("a")]);
    refused(mixed, rows(DType::F32, &[8, 8]), &["`a` is bf16", "expected f32"]);
}

#[test]
fn tensors_of_other_shapes() {
    for (name, ty) in [
        ("a", rows(DType::BF16, &[4, 7])),
        ("a", rows(DType::BF16, &[5, 8])),
        ("a", rows(DType::BF16, &[32])),
        ("a", rows(DType::BF16, &[])),
        ("a", panels(DType::BF16, &[3, 8])),
        ("vector", panels(DType::BF16, &[8, 1])),
        ("vector", rows(DType::BF16, &[])),
    ] {
        let expected: Vec<usize> = ty.dims.iter().filter_map(|d| d.as_const()).collect();
        let error = refused(t(name), ty, &["test tensors", &format!("`{name}`"), &format!("expected {expected:?}")]);
        assert!(matches!(error, PackError::Shape { .. }));
    }
    let parts = vec![t("a"), t("a")];
    let uneven = Recipe::InterleavePanels(parts.clone());
    refused(uneven, panels(DType::BF16, &[10, 8]), &["`a` has shape [4, 8]", "expected [5, 8]"]);
    let error = refused(Recipe::Concat(parts), panels(DType::BF16, &[9, 8]), &["8 rows in all", "expected 9"]);
    assert!(matches!(error, PackError::Rows { found: 8, expected: 9, .. }));
}

#[test]
fn sources_that_contradict_themselves() {
    let error = refused(t("cut"), rows(DType::BF16, &[4, 8]), &["`cut`", "63 bytes", "say 64"]);
    assert!(matches!(error, PackError::Bytes { .. }));
    let both = Recipe::Concat(vec![t("huge"), t("huge")]);
    assert!(matches!(refused(both, rows(DType::BF16, &[8, 8]), &["`huge`"]), PackError::Bytes { .. }));
}

#[test]
fn recipes_that_make_no_weight() {
    let a = || t("a");
    let bf16 = |dims: &[usize]| rows(DType::BF16, dims);
    let two = || vec![a(), a()];
    let nested = |inner: Recipe| Recipe::Concat(vec![inner]);
    for (recipe, ty, reason) in [
        (a(), panels(DType::BF16, &[8]), "rank 2"),
        (a(), rows(DType::I32, &[4, 8]), "f32, f16, bf16 or in a block format"),
        (a(), Type::new(DType::BF16, [Dim::ROWS, Dim::Const(8)]), "constant"),
        (a(), rows(DType::Block(BlockFormat::Q4_0), &[4, 8]), "whole blocks of 32"),
        (permute(a(), 0), bf16(&[4, 8]), "at least one head"),
        (permute(a(), 3), bf16(&[4, 8]), "3 heads"),
        (permute(a(), 4), bf16(&[4, 8]), "even width"),
        (permute(a(), usize::MAX), bf16(&[4, 8]), "heads"),
        (permute(a(), 1), bf16(&[]), "a scalar has no rows"),
        (Recipe::Concat(vec![]), bf16(&[0, 8]), "no part"),
        (Recipe::InterleavePanels(vec![]), panels(DType::BF16, &[0, 8]), "no part"),
        (Recipe::InterleavePanels(two()), bf16(&[8, 8]), "row-major"),
        (Recipe::InterleavePanels(two()), panels(DType::BF16, &[9, 8]), "no 2 parts"),
        (nested(Recipe::InterleavePanels(two())), panels(DType::BF16, &[8, 8]), "outermost"),
        (nested(convert(Recipe::InterleavePanels(two()))), panels(DType::F32, &[8, 8]), "outermost"),
    ] {
        let error = refused(recipe.clone(), ty, &[reason, &recipe.to_string()]);
        assert!(matches!(error, PackError::Recipe { .. }), "{error}");
    }
}

#[test]
fn weights_beyond_the_address_space() {
    let huge = usize::MAX / 8;
    let mut plan = WeightPlan::new();
    for ty in [
        rows(DType::F32, &[huge, 8]),
        rows(DType::F32, &[huge, huge, huge]),
        panels(DType::F32, &[1, huge]),
        panels(DType::BF16, &[1, usize::MAX]),
        panels(DType::F32, &[huge, 2]),
    ] {
        let error = plan.add_weight(t("a"), ty).unwrap_err();
        assert!(matches!(error, PackError::TooLarge { .. }), "{error}");
    }
    plan.add_weight(t("a"), rows(DType::BF16, &[usize::MAX / 8])).unwrap();
    plan.add_weight(t("b"), rows(DType::BF16, &[usize::MAX / 8])).unwrap();
    let error = plan.add_weight(t("c"), rows(DType::BF16, &[usize::MAX / 8])).unwrap_err();
    assert!(matches!(error, PackError::TooLarge { .. }), "{error}");
    let table = RopeTable { theta: 1e4, head_dim: 128, scaling: RopeScaling::Default };
    assert!(matches!(plan.add_rope(table, RopePart::Cos, huge), Err(PackError::TooLarge { .. })));
    assert_eq!(plan.len(), 2);
}

#[test]
fn nothing_is_written_where_anything_is_wrong() {
    let mut plan = WeightPlan::new();
    plan.add_weight(t("a"), rows(DType::BF16, &[4, 8])).unwrap();
    plan.add_weight(t("c"), rows(DType::BF16, &[4, 8])).unwrap();
    let mut out = vec![0xaa; plan.total_bytes()];
    let mut told = 0;
    assert!(pack(&plan, &source(), &mut out, 2, &mut |_, _| told += 1).is_err());
    assert!(out.iter().all(|&b| b == 0xaa));
    assert_eq!(told, 0);
    let error = pack(&plan, &source(), &mut out[1..], 2, &mut |_, _| ()).unwrap_err();
    assert_eq!(error, PackError::Section { found: 127, expected: 128 });
}
