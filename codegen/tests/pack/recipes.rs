//! Every recipe with every element type, at sizes that fill panels, blocks and pairs, and at sizes that do not.

use crate::naive;
use crate::tensors::{Tensors, convert, pack_one, packed, panels, permute, rows, t};
use llamac_codegen::pack::WeightPlan;
use llamac_formats::block::BlockFormat;
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
                agrees(convert(t("a")), to(DType::F32, &[n, k]), &source);
                let joined = || Recipe::Concat(vec![convert(t("a")), convert(permute(t("heads"), n))]);
                agrees(joined(), to(DType::F32, &[7 * n, k]), &source);
            }
            let alternating = || Recipe::InterleavePanels(vec![t("a"), t("b")]);
            agrees(alternating(), panels(dtype, &[2 * n, k]), &source);
            agrees(convert(alternating()), panels(DType::F32, &[2 * n, k]), &source);
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
    agrees(convert(t("scalar")), rows(DType::F32, &[]), &source);
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
        agrees(convert(t("all")), rows(DType::F32, &[256, 256]), &source);
        agrees(convert(t("all")), panels(DType::F32, &[256, 256]), &source);
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

/// Blocks are moved as they are, decoded, rounded to, and made of other blocks.
#[test]
fn block_formats() {
    for format in BlockFormat::ALL {
        let (n, k, block) = (19, 2 * format.elements(), DType::Block(format));
        for from in [DType::F32, DType::F16, DType::BF16, DType::Block(BlockFormat::Q8_0), block] {
            let mut source = Tensors::default();
            source.add("a", from, &[n, k]);
            source.add("heads", from, &[6 * n, k]);
            for to in [rows, panels] {
                agrees(convert(t("a")), to(block, &[n, k]), &source);
                let joined = || Recipe::Concat(vec![convert(t("a")), convert(permute(t("heads"), n))]);
                agrees(joined(), to(block, &[7 * n, k]), &source);
                for float in FLOATS {
                    agrees(convert(t("a")), to(float, &[n, k]), &source);
                }
                if from == block {
                    agrees(permute(t("heads"), 3), to(block, &[6 * n, k]), &source);
                }
            }
            let alternating = Recipe::InterleavePanels(vec![convert(t("a")), convert(t("a"))]);
            agrees(alternating, panels(block, &[2 * n, k]), &source);
        }
    }
}

/// What is lost is that of the blocks, whatever the threads.
#[test]
fn losses_are_told() {
    let mut source = Tensors::default();
    source.add("a", DType::F32, &[40, 64]);
    source.add("exact", DType::Block(BlockFormat::Q4_0), &[40, 64]);
    source.put("zero", DType::F32, &[1, 32], vec![0; 128]);
    let mut plan = WeightPlan::new();
    let format = BlockFormat::Q4_0;
    for (name, dims) in [("a", [40, 64]), ("exact", [40, 64]), ("zero", [1, 32])] {
        plan.add_weight(convert(t(name)), panels(DType::Block(format), &dims)).unwrap();
    }
    let bytes = &source.named["a"].bytes;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let (mut blocks, mut stored) = (vec![0; values.len() / 32 * 18], vec![0.0; values.len()]);
    format.encode(&values, &mut blocks);
    format.decode(&blocks, &mut stored);
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| values.iter().zip(&stored).map(|(&x, &y)| f(x.into(), y.into())).sum::<f64>();
    let expected = (sum(&|x, y| (x - y) * (x - y)) / sum(&|x, _| x * x)).sqrt();
    for threads in [1, 3] {
        let (_, report) = packed(&plan, &source, threads).unwrap();
        let [a, zero] = &report.rounded[..] else { panic!("{:?}", report.rounded) };
        assert_eq!((&a.tensor[..], a.from, a.to), ("a", DType::F32, DType::Block(format)));
        assert!((a.error - expected).abs() <= 1e-9 * expected && expected > 0.01, "{} for {expected}", a.error);
        assert_eq!((&zero.tensor[..], zero.error), ("zero", 0.0));
    }
}
