//! Large weights stream through: any number of threads makes the same bytes, and sources are released behind the reader.

use crate::tensors::{Tensors, packed, panels, permute, rows, t};
use llamac_codegen::pack::{WeightPlan, pack};
use llamac_formats::{PANEL_WIDTH, PanelLayout, RopeScaling, RopeTable};
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
    let table = RopeTable { theta: 1e4, head_dim: 64, scaling: RopeScaling::Default };
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

/// A recipe over large tensors: where each tensor's rows go, and how many rows of a tensor are let go together.
struct Case {
    recipe: Recipe,
    /// From tensor and row to panel and lane.
    place: fn(&str, usize) -> (usize, usize),
    together: usize,
}

/// Rows of each of the tensors `v` and `w`, and their inputs.
const ROWS: usize = 10_000;
const INPUTS: usize = 1024;

fn row_of(logical: usize) -> (usize, usize) {
    (logical / PANEL_WIDTH, logical % PANEL_WIDTH)
}

fn cases() -> [Case; 3] {
    const HEAD: usize = ROWS / 4;
    let parts = || vec![t("v"), t("w")];
    [
        Case {
            recipe: Recipe::Concat(parts()),
            place: |name, row| row_of(usize::from(name == "w") * ROWS + row),
            together: 1,
        },
        Case {
            recipe: Recipe::InterleavePanels(parts()),
            place: |name, row| (row / PANEL_WIDTH * 2 + usize::from(name == "w"), row % PANEL_WIDTH),
            together: 1,
        },
        Case {
            recipe: permute(Recipe::Concat(parts()), 8),
            place: |name, row| {
                let row = usize::from(name == "w") * ROWS + row;
                let i = row % HEAD;
                row_of(row - i + i / 2 + i % 2 * (HEAD / 2))
            },
            together: HEAD,
        },
    ]
}

#[test]
fn large_tensors_are_released_behind_the_reader_and_never_before() {
    let mut source = Tensors::default();
    source.add("v", DType::F32, &[ROWS, INPUTS]);
    source.add("w", DType::F32, &[ROWS, INPUTS]);
    let layout = PanelLayout { dtype: DType::F32, k: INPUTS };
    let bytes = 2 * ROWS * INPUTS * 4;
    for Case { recipe, place, together } in cases() {
        source.released.lock().unwrap().clear();
        let mut plan = WeightPlan::new();
        plan.add_weight(recipe.clone(), panels(DType::F32, &[2 * ROWS, INPUTS])).unwrap();
        let mut out = vec![0xaa; plan.total_bytes()];
        let (mut calls, mut last) = (0, 0);
        pack(&plan, &source, &mut out, 2, &mut |done, total| {
            assert_eq!(total, bytes);
            assert!(done > last && done <= total, "{last}, then {done} of {total}");
            (calls, last) = (calls + 1, done);
            let packed = |name: &str, row: usize| place(name, row).0 < done / layout.panel_bytes();
            for name in ["v", "w"] {
                let gone = released_rows(&source, name, INPUTS * 4, ROWS);
                for (row, &gone) in gone.iter().enumerate() {
                    assert!(packed(name, row) || !gone, "{recipe}: row {row} of {name} is gone and still needed");
                }
                let needed = (0..ROWS).find(|&row| !packed(name, row)).unwrap_or(ROWS);
                let behind = needed / together * together;
                assert!(gone[..behind].iter().all(|&g| g), "{recipe}: rows of {name} before {behind} are still there");
            }
        })
        .unwrap();
        assert_eq!(last, bytes);
        assert!(calls >= 3, "{calls} reports of progress");
        for name in ["v", "w"] {
            assert!(source.released.lock().unwrap().contains(&(name.to_owned(), 0..usize::MAX)));
            for row in (0..ROWS).step_by(7) {
                let (panel, lane) = place(name, row);
                for input in (0..INPUTS).step_by(11) {
                    let at = panel * layout.panel_bytes() + layout.index(lane, input) * 4;
                    let value = &source.named[name].bytes[(row * INPUTS + input) * 4..][..4];
                    assert_eq!(&out[at..at + 4], value, "{recipe}: row {row} of {name}, input {input}");
                }
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
