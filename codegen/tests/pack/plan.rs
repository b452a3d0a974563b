//! Places, texts and segments.

use crate::naive;
use crate::tensors::{Tensors, packed, panels, permute, rows, t};
use llamac_codegen::pack::WeightPlan;
use llamac_formats::program::GemmSegment;
use llamac_formats::{PANEL_WIDTH, PanelLayout, RopeScaling, RopeTable};
use llamac_ir::{DType, Recipe, RopePart};

#[test]
fn equal_weights_are_one() {
    let mut plan = WeightPlan::new();
    assert!(plan.is_empty());
    let a = plan.add_weight(t("a"), panels(DType::BF16, &[20, 8])).unwrap();
    let flat = plan.add_weight(t("a"), rows(DType::BF16, &[20, 8])).unwrap();
    let b = plan.add_weight(t("b"), panels(DType::BF16, &[20, 8])).unwrap();
    assert_eq!(plan.add_weight(t("a"), panels(DType::BF16, &[20, 8])).unwrap(), a);
    assert_eq!(plan.add_weight(t("a"), rows(DType::BF16, &[20, 8])).unwrap(), flat);
    let table = RopeTable { theta: 1e4, head_dim: 8, scaling: RopeScaling::Default };
    let cos = plan.add_rope(table.clone(), RopePart::Cos, 16).unwrap();
    let sin = plan.add_rope(table.clone(), RopePart::Sin, 16).unwrap();
    let longer = plan.add_rope(table.clone(), RopePart::Cos, 17).unwrap();
    let other = plan.add_rope(RopeTable { theta: 1e5, ..table.clone() }, RopePart::Cos, 16).unwrap();
    assert_eq!(plan.add_rope(table, RopePart::Cos, 16).unwrap(), cos);
    assert_eq!([a, flat, b, cos, sin, longer, other], [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(plan.len(), 7);
    assert_eq!(plan.infos().len(), 7);
}

#[test]
fn infos_tell_recipe_shape_and_size() {
    let mut plan = WeightPlan::new();
    let recipe = Recipe::InterleavePanels(vec![permute(t("q"), 2), t("k")]);
    plan.add_weight(recipe, panels(DType::BF16, &[40, 7])).unwrap();
    plan.add_weight(t("norm"), rows(DType::F16, &[33])).unwrap();
    let scaling = RopeScaling::Linear { factor: 2.5 };
    plan.add_rope(RopeTable { theta: 10000.0, head_dim: 8, scaling }, RopePart::Sin, 16).unwrap();
    let infos = plan.infos();
    assert_eq!(infos[0].recipe, r#"interleave_panels(permute_rows("q", heads=2), "k")"#);
    // Two parts of two panels each (20 outputs), 7 inputs padded to 8.
    assert_eq!((infos[0].bytes, infos[0].panels), (4 * 16 * 8 * 2, true));
    assert_eq!((infos[0].dtype, infos[0].dims.as_slice()), (DType::BF16, [40, 7].as_slice()));
    assert_eq!((infos[1].bytes, infos[1].panels, infos[1].dims.as_slice()), (66, false, [33].as_slice()));
    assert_eq!(infos[2].recipe, "rope_sin theta=10000 head_dim=8 scaling=linear factor=2.5");
    assert_eq!((infos[2].bytes, infos[2].dims.as_slice()), (16 * 4 * 4, [16, 4].as_slice()));
}

#[test]
fn places_are_aligned_and_gaps_are_zero() {
    let mut source = Tensors::default();
    let mut plan = WeightPlan::new();
    for (i, n) in [33, 70_000, 1, 64, 40_000, 5].into_iter().enumerate() {
        source.add(&i.to_string(), DType::BF16, &[n]);
        plan.add_weight(t(&i.to_string()), rows(DType::BF16, &[n])).unwrap();
    }
    let (out, report) = packed(&plan, &source, 2).unwrap();
    assert_eq!(report.bytes, out.len());
    assert_eq!(report.source_bytes, 2 * (33 + 70_000 + 1 + 64 + 40_000 + 5));
    let mut end = 0usize;
    for (i, info) in plan.infos().iter().enumerate() {
        let align = if info.bytes >= 65536 { 4096 } else { 64 };
        assert_eq!(info.offset, end.next_multiple_of(align));
        assert!(out[end..info.offset].iter().all(|&b| b == 0));
        end = info.offset + info.bytes;
        assert_eq!(out[info.offset..end], source.named[&i.to_string()].bytes);
    }
    assert_eq!(end, plan.total_bytes());
}

#[test]
fn segments_cover_the_rows_in_order() {
    let (n, k) = (20, 6);
    let mut source = Tensors::default();
    let mut plan = WeightPlan::new();
    for name in ["a", "b", "c"] {
        source.add(name, DType::F16, &[n, k]);
    }
    let parts = || vec![t("a"), t("b"), t("c")];
    let recipes = [Recipe::Concat(parts()), Recipe::InterleavePanels(parts())];
    let ty = panels(DType::F16, &[3 * n, k]);
    let weights: Vec<usize> = recipes.iter().map(|r| plan.add_weight(r.clone(), ty.clone()).unwrap()).collect();
    assert_eq!(plan.segments(weights[0]), [GemmSegment { weight: 0, first: 0, step: 1, n: 60 }]);
    let alternating = (0..3).map(|first| GemmSegment { weight: 1, first, step: 3, n: 20 }).collect::<Vec<_>>();
    assert_eq!(plan.segments(weights[1]), alternating);

    let (out, _) = packed(&plan, &source, 1).unwrap();
    let layout = PanelLayout { dtype: DType::F16, k };
    for (recipe, weight) in recipes.iter().zip(weights) {
        let offset = plan.infos()[weight].offset;
        let mut rows = naive::evaluate(recipe, &source, DType::F16).unwrap().rows.into_iter();
        for segment in plan.segments(weight) {
            for row in 0..segment.n {
                let panel = segment.first + row / PANEL_WIDTH * segment.step;
                for (input, element) in rows.next().unwrap().into_iter().enumerate() {
                    let at = offset + panel * layout.panel_bytes() + layout.index(row % PANEL_WIDTH, input) * 2;
                    assert_eq!(out[at..at + 2], element, "{recipe}: row {row} of {segment:?}, input {input}");
                }
            }
        }
        assert!(rows.next().is_none());
    }
}
