//! Every recipe with every element type, at sizes that fill panels, blocks and pairs, and at sizes that do not.

use crate::naive;
use crate::tensors::{Tensors, pack_one, packed, panels, permute, rows, t, widen};
use llamac_codegen::pack::WeightPlan;
use llamac_formats::{RopeScaling, RopeTable};
use llamac_ir::{DType, Recipe, RopePart, Type};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
/// Around the panel, around the staged block (256 f32, 512 f16 or bf16), odd and even.
const SIZES: [(usize, usize); 10] =
    [(1, 1), (16, 2), (15, 3), (17, 64), (32, 255), (48, 256), (33, 257), (16, 512), (31, 513), (4, 1100)];

fn agrees(recipe: Recipe, ty: Type, source: &Tensors) {
    let expected = naive::bytes(&recipe, &ty, source).expect("a weight");
    let found = pack_one(recipe.clone(), ty.clone(), source).unwrap();
    assert!(found == expected, "{recipe} as {ty}: {:?}", found.iter().zip(&expected).position(|(a, b)| a != b));
}

#[test]
fn every_recipe_at_every_size_is_what_it_says() {
    for dtype in FLOATS {
        for (n, k) in SIZES {
            let mut source = Tensors::default();
            source.add("a", dtype, &[n, k]);
            source.add("b", dtype, &[n, k]);
            source.add("c", dtype, &[n + 5, k]);
            source.add("heads", dtype, &[6 * n, k]);
            source.add("vector", dtype, &[n * k]);
            for to in [rows, panels] {
                agrees(t("a"), to(dtype, &[n, k]), &source);
                agrees(permute(t("heads"), 3), to(dtype, &[6 * n, k]), &source);
                agrees(permute(t("heads"), 1), to(dtype, &[6 * n, k]), &source);
                agrees(Recipe::Concat(vec![t("a"), t("c"), t("b")]), to(dtype, &[3 * n + 5, k]), &source);
                let mixed = Recipe::Concat(vec![permute(t("heads"), n), t("b")]);
                agrees(mixed, to(dtype, &[7 * n, k]), &source);
                agrees(widen(t("a")), to(DType::F32, &[n, k]), &source);
                let joined = || Recipe::Concat(vec![widen(t("a")), widen(permute(t("heads"), n))]);
                agrees(joined(), to(DType::F32, &[7 * n, k]), &source);
            }
            let alternating = || Recipe::InterleavePanels(vec![t("a"), t("b")]);
            agrees(alternating(), panels(dtype, &[2 * n, k]), &source);
            agrees(widen(alternating()), panels(DType::F32, &[2 * n, k]), &source);
            let three = Recipe::InterleavePanels(vec![t("b"), t("a"), t("b")]);
            agrees(three, panels(dtype, &[3 * n, k]), &source);
            agrees(t("vector"), rows(dtype, &[n * k]), &source);
            let bias = Recipe::Concat(vec![t("vector"), t("vector")]);
            agrees(bias, rows(dtype, &[2 * n * k]), &source);
        }
    }
}

#[test]
fn other_ranks_are_row_major() {
    let mut source = Tensors::default();
    source.add("scalar", DType::BF16, &[]);
    source.add("cube", DType::F16, &[4, 3, 5]);
    agrees(t("scalar"), rows(DType::BF16, &[]), &source);
    agrees(widen(t("scalar")), rows(DType::F32, &[]), &source);
    agrees(t("cube"), rows(DType::F16, &[4, 3, 5]), &source);
    agrees(permute(t("cube"), 2), rows(DType::F16, &[4, 3, 5]), &source);
}

#[test]
fn empty_weights_take_no_room() {
    let mut source = Tensors::default();
    source.add("no rows", DType::BF16, &[0, 8]);
    source.add("no inputs", DType::BF16, &[5, 0]);
    source.add("a", DType::BF16, &[2, 8]);
    for to in [rows, panels] {
        agrees(t("no rows"), to(DType::BF16, &[0, 8]), &source);
        agrees(permute(t("no rows"), 2), to(DType::BF16, &[0, 8]), &source);
        agrees(t("no inputs"), to(DType::BF16, &[5, 0]), &source);
        agrees(Recipe::Concat(vec![t("no rows"), t("a"), t("no rows")]), to(DType::BF16, &[2, 8]), &source);
    }
    let alternating = Recipe::InterleavePanels(vec![t("no rows"), t("no rows")]);
    agrees(alternating, panels(DType::BF16, &[0, 8]), &source);
}

#[test]
fn every_16_bit_value_widens_exactly() {
    for dtype in [DType::F16, DType::BF16] {
        let mut source = Tensors::default();
        source.put("all", dtype, &[256, 256], (0..=u16::MAX).flat_map(u16::to_le_bytes).collect());
        agrees(widen(t("all")), rows(DType::F32, &[256, 256]), &source);
        agrees(widen(t("all")), panels(DType::F32, &[256, 256]), &source);
    }
}

#[test]
fn rope_tables_are_those_of_formats() {
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64.0,
    };
    let table = RopeTable { theta: 500_000.0, head_dim: 12, scaling };
    let (tokens, mut plan) = (1000, WeightPlan::new());
    plan.add_rope(table.clone(), RopePart::Sin, tokens).unwrap();
    plan.add_rope(table.clone(), RopePart::Cos, tokens).unwrap();
    let infos = plan.infos();
    let (out, report) = packed(&plan, &Tensors::default(), 2).unwrap();
    assert_eq!((report.bytes, report.source_bytes), (plan.total_bytes(), 0));
    for position in [0, 1, 63, 64, 65, 511, 999] {
        let (cos, sin) = table.cos_sin(position);
        for (info, expected) in infos.iter().zip([sin, cos]) {
            let row = &out[info.offset + position * 24..][..24];
            let found: Vec<f32> = row.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            assert_eq!(found, expected, "{} at {position}", info.recipe);
        }
    }
}
