//! Large weights stream through: any number of threads makes the same bytes, and sources are released behind the reader.

use crate::tensors::{Tensors, packed, panels, permute, rows, t};
use llamac_codegen::pack::{WeightPlan, pack};
use llamac_formats::{PANEL_WIDTH, PanelLayout};
use llamac_ir::{DType, Recipe, RopePart};

#[test]
fn any_number_of_threads_makes_the_same_section() {
    let mut source = Tensors::default();
    source.add("a", DType::BF16, &[1000, 1001]);
    source.add("b", DType::BF16, &[1000, 1001]);
    source.add("small", DType::BF16, &[7]);
    let mut plan = WeightPlan::new();
    plan.add_weight(Recipe::InterleavePanels(vec![t("a"), t("b")]), panels(DType::BF16, &[2000, 1001])).unwrap();
    plan.add_weight(t("small"), rows(DType::BF16, &[7])).unwrap();
    plan.add_weight(permute(t("b"), 50), rows(DType::BF16, &[1000, 1001])).unwrap();
    let table = llamac_formats::RopeTable { theta: 1e4, head_dim: 64, scaling: llamac_formats::RopeScaling::Default };
    plan.add_rope(table, RopePart::Cos, 9000).unwrap();
    let one = packed(&plan, &source, 1).unwrap();
    for threads in [0, 2, 3, 8] {
        assert!(packed(&plan, &source, threads).unwrap() == one, "{threads} threads");
    }
}

/// Rows that were released of a tensor with rows of that size, as far as whole rows go.
fn released_rows(source: &Tensors, name: &str, row_bytes: usize, rows: usize) -> Vec<bool> {
    let mut gone = vec![false; rows];
    for (tensor, bytes) in source.released.lock().unwrap().iter() {
        if tensor == name {
            let end = bytes.end.min(rows * row_bytes);
            gone[bytes.start.div_ceil(row_bytes)..end / row_bytes].fill(true);
        }
    }
    gone
}

#[test]
fn a_large_tensor_is_released_behind_the_reader_and_never_before() {
    let (n, k, heads) = (20_000, 1024, 4);
    let mut source = Tensors::default();
    source.add("w", DType::F32, &[n, k]);
    let layout = PanelLayout { dtype: DType::F32, k };
    let head = n / heads;
    let permuted = |row: usize| {
        let (first, i) = (row / head * head, row % head);
        first + if i < head / 2 { 2 * i } else { 2 * (i - head / 2) + 1 }
    };
    let plain: &dyn Fn(usize) -> usize = &|row| row;
    for (recipe, from) in [(t("w"), plain), (permute(t("w"), heads), &permuted)] {
        source.released.lock().unwrap().clear();
        let mut plan = WeightPlan::new();
        plan.add_weight(recipe.clone(), panels(DType::F32, &[n, k])).unwrap();
        let mut out = vec![0xaa; plan.total_bytes()];
        let (mut calls, mut last) = (0, 0);
        pack(&plan, &source, &mut out, 2, &mut |done, total| {
            assert_eq!(total, n * k * 4);
            assert!(done > last && done <= total, "{last}, then {done} of {total}");
            (calls, last) = (calls + 1, done);
            let gone = released_rows(&source, "w", k * 4, n);
            let packed = done / layout.panel_bytes() * PANEL_WIDTH;
            assert!((packed..n).all(|row| !gone[from(row)]), "{recipe}: a row that is still needed is gone");
            // All that is needed no more has gone, but for the head that is being reordered.
            let behind = if recipe == t("w") { packed } else { packed / head * head };
            assert!(gone[..behind].iter().all(|&g| g), "{recipe}: what was read is still there");
        })
        .unwrap();
        assert_eq!(last, n * k * 4);
        assert!(calls >= 2, "{calls} reports of progress");
        assert_eq!(source.released.lock().unwrap().last().unwrap(), &("w".to_owned(), 0..usize::MAX));
        let value = |row: usize, input: usize| &source.named["w"].bytes[(from(row) * k + input) * 4..][..4];
        for row in (0..n).step_by(7) {
            for input in (0..k).step_by(11) {
                let at = row / PANEL_WIDTH * layout.panel_bytes() + layout.index(row % PANEL_WIDTH, input) * 4;
                assert_eq!(&out[at..at + 4], value(row, input), "{recipe}: row {row}, input {input}");
            }
        }
    }
}

#[test]
fn every_tensor_is_released_when_its_weight_is_done() {
    let mut source = Tensors::default();
    let mut plan = WeightPlan::new();
    for name in ["a", "b", "c"] {
        source.add(name, DType::BF16, &[16, 8]);
    }
    plan.add_weight(Recipe::Concat(vec![t("b"), t("a")]), panels(DType::BF16, &[32, 8])).unwrap();
    plan.add_weight(t("c"), rows(DType::BF16, &[16, 8])).unwrap();
    packed(&plan, &source, 2).unwrap();
    let released = source.released.lock().unwrap();
    let names: Vec<&str> = released.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b", "a", "c"]);
    assert!(released.iter().all(|(_, bytes)| *bytes == (0..usize::MAX)));
}
