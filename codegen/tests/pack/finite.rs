//! Values that are no numbers are counted where they are, once.

use crate::tensors::{Tensors, convert, packed, panels, permute, rows, t};
use llamac_codegen::pack::{NotFinite, WeightPlan};
use llamac_formats::block::BlockFormat;
use llamac_ir::{DType, Recipe};

/// NaN and infinity as the raw elements of a type.
fn specials(dtype: DType) -> [Vec<u8>; 3] {
    let narrow = |bits: [u16; 3]| bits.map(|b| b.to_le_bytes().to_vec());
    match dtype {
        DType::F32 => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|v| v.to_le_bytes().to_vec()),
        DType::F16 => narrow([0xfe01, 0x7c00, 0xfc00]),
        _ => narrow([0x7f81, 0x7f80, 0xff80]),
    }
}

fn poison(source: &mut Tensors, name: &str, places: [usize; 3]) {
    let tensor = source.named.get_mut(name).unwrap();
    let e = tensor.dtype.bytes();
    for (at, value) in places.into_iter().zip(specials(tensor.dtype)) {
        tensor.bytes[at * e..][..e].copy_from_slice(&value);
    }
}

fn expected(tensor: &str, nan: usize, infinite: usize, first: usize) -> NotFinite {
    NotFinite { tensor: tensor.to_owned(), nan, infinite, first }
}

#[test]
fn every_type_and_layout_finds_them() {
    let (n, k) = (40, 700);
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let mut source = Tensors::default();
        source.add("clean", dtype, &[n, k]);
        source.add("bad", dtype, &[n, k]);
        poison(&mut source, "bad", [17 * k + 690, 20 * k + 1, n * k - 1]);
        let both = |name| Recipe::Concat(vec![t("clean"), permute(t(name), 2)]);
        for (recipe, ty) in [
            (both("bad"), rows(dtype, &[2 * n, k])),
            (both("bad"), panels(dtype, &[2 * n, k])),
            (convert(both("bad")), rows(DType::F32, &[2 * n, k])),
            (convert(both("bad")), panels(DType::F32, &[2 * n, k])),
            (Recipe::InterleavePanels(vec![t("bad"), t("clean")]), panels(dtype, &[2 * n, k])),
        ] {
            let mut plan = WeightPlan::new();
            plan.add_weight(recipe.clone(), ty.clone()).unwrap();
            for threads in [1, 2, 5] {
                let (_, report) = packed(&plan, &source, threads).unwrap();
                assert_eq!(report.not_finite, [expected("bad", 1, 2, 17 * k + 690)], "{recipe} as {ty}");
            }
        }
    }
}

#[test]
fn a_tensor_of_many_weights_counts_once_and_in_their_order() {
    let mut source = Tensors::default();
    for name in ["z", "a", "clean"] {
        source.add(name, DType::BF16, &[32, 16]);
    }
    poison(&mut source, "z", [3, 4, 5]);
    poison(&mut source, "a", [500, 499, 501]);
    let mut plan = WeightPlan::new();
    plan.add_weight(Recipe::Concat(vec![t("z"), t("clean"), t("z")]), panels(DType::BF16, &[96, 16])).unwrap();
    plan.add_weight(t("z"), rows(DType::BF16, &[32, 16])).unwrap();
    plan.add_weight(convert(t("a")), rows(DType::F32, &[32, 16])).unwrap();
    plan.add_weight(t("a"), panels(DType::BF16, &[32, 16])).unwrap();
    let (_, report) = packed(&plan, &source, 3).unwrap();
    assert_eq!(report.not_finite, [expected("z", 1, 2, 3), expected("a", 1, 2, 499)]);
}

#[test]
fn the_largest_and_smallest_numbers_are_finite() {
    let mut source = Tensors::default();
    let narrow = |bits: &[u16]| bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    source.put("f16", DType::F16, &[4], narrow(&[0x7bff, 0xfbff, 0x0001, 0x8000]));
    source.put("bf16", DType::BF16, &[4], narrow(&[0x7f7f, 0xff7f, 0x0001, 0x8000]));
    let wide = [f32::MAX, f32::MIN, f32::from_bits(1), -0.0];
    source.put("f32", DType::F32, &[4], wide.iter().flat_map(|v| v.to_le_bytes()).collect());
    let mut plan = WeightPlan::new();
    for (name, dtype) in [("f16", DType::F16), ("bf16", DType::BF16), ("f32", DType::F32)] {
        plan.add_weight(t(name), rows(dtype, &[4])).unwrap();
    }
    assert_eq!(packed(&plan, &source, 1).unwrap().1.not_finite, []);
}

/// Scales and minima that are no numbers make all elements of their block such.
#[test]
fn blocks_with_scales_that_are_no_numbers() {
    for format in BlockFormat::ALL {
        let (n, k) = (20, 2 * format.elements());
        for &at in format.factors() {
            let mut source = Tensors::default();
            source.add("a", DType::Block(format), &[n, k]);
            let block = 7;
            let place = block * format.bytes() + at;
            source.named.get_mut("a").unwrap().bytes[place..place + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
            let mut plan = WeightPlan::new();
            plan.add_weight(t("a"), panels(DType::Block(format), &[n, k])).unwrap();
            let (_, report) = packed(&plan, &source, 2).unwrap();
            let elements = format.elements();
            assert_eq!(report.not_finite, [expected("a", elements, 0, block * elements)], "{format} at {at}");
        }
    }
}
