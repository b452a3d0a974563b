//! Any recipe over any tensors as any type is packed exactly where the naive reading makes sense of it.

use crate::naive;
use crate::tensors::{Tensors, pack_one};
use llamac_formats::block::BlockFormat;
use llamac_ir::{DType, Dim, Layout, Recipe, Type};
use proptest::prelude::*;

fn dtype() -> impl Strategy<Value = DType> {
    let block = |f| Just(DType::Block(f));
    prop_oneof![
        3 => Just(DType::F32),
        3 => Just(DType::F16),
        3 => Just(DType::BF16),
        1 => block(BlockFormat::Q4_0),
        1 => block(BlockFormat::Q8_0),
        1 => block(BlockFormat::Q6K),
    ]
}

/// Tensors `0`, `1`, … mostly of one element type and one number of inputs.
fn tensors() -> impl Strategy<Value = Tensors> {
    let rows = || prop_oneof![0usize..40, Just(16), Just(32)];
    let inputs = prop_oneof![0usize..9, 250usize..260, 510usize..520, Just(1030), Just(32), Just(96), Just(256)];
    let own = (rows(), 0usize..8, dtype());
    (dtype(), inputs, rows(), prop::collection::vec(own, 1..5)).prop_map(|(dtype, inputs, common, own)| {
        let mut source = Tensors::default();
        for (i, (rows, odd, other)) in own.into_iter().enumerate() {
            let name = i.to_string();
            let whole = |dtype: DType, k: usize| if k.is_multiple_of(dtype.block().0) { dtype } else { DType::F16 };
            match odd {
                0 => source.add(&name, whole(other, inputs), &[rows, inputs]),
                1 => source.add(&name, whole(dtype, rows), &[rows]),
                2..5 => source.add(&name, whole(dtype, inputs), &[rows, inputs]),
                _ => source.add(&name, whole(dtype, inputs), &[common, inputs]),
            }
        }
        source
    })
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let leaf = (0usize..5).prop_map(|i| Recipe::tensor(i.to_string()));
    let inner = leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0usize..5).prop_map(|(of, heads)| Recipe::PermuteRows { of: Box::new(of), heads }),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Recipe::Concat),
            inner.prop_map(|of| Recipe::Convert(Box::new(of))),
        ]
    });
    prop_oneof![
        3 => inner.clone(),
        2 => prop::collection::vec(inner.clone(), 0..4).prop_map(Recipe::InterleavePanels),
        1 => prop::collection::vec(inner, 0..4).prop_map(|p| Recipe::Convert(Box::new(Recipe::InterleavePanels(p)))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn packing_agrees_with_the_naive_reading(
        source in tensors(),
        recipe in recipe(),
        to in dtype(),
        in_panels in prop::bool::weighted(0.7),
        wrong in prop::option::weighted(0.1, (dtype(), 0usize..3, 0usize..40)),
    ) {
        let mut ty = match naive::evaluate(&recipe, &source, to) {
            Some(matrix) => {
                let rows = [matrix.rows.len()];
                Type::new(matrix.dtype, rows.iter().chain(&matrix.inner).map(|&d| Dim::Const(d)))
            }
            None => Type::new(DType::F32, [Dim::Const(16), Dim::Const(8)]),
        };
        if in_panels {
            ty.layout = Layout::Panels;
        }
        if let Some((dtype, axis, size)) = wrong {
            ty.dtype = dtype;
            if let Some(dim) = ty.dims.get_mut(axis) {
                *dim = Dim::Const(size);
            }
        }
        let expected = naive::bytes(&recipe, &ty, &source);
        match (pack_one(recipe.clone(), ty.clone(), &source), expected) {
            (Ok(found), Some(expected)) => prop_assert!(found == expected, "{recipe} as {ty}"),
            (Err(_), None) => {}
            (Ok(_), None) => prop_assert!(false, "{recipe} as {ty} makes no sense, but is packed"),
            (Err(error), Some(_)) => prop_assert!(false, "{recipe} as {ty}: {error}"),
        }
    }
}
