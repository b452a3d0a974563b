//! The importer on every model of the repository.

mod support;

use llamac_ir::{Bounds, DType, Dim, Op, TensorSource, Type};
use llamac_models::{ImportError, ModelDir, import};
use support::repository;

const BOUNDS: Bounds = Bounds { rows: 16, outputs: 2, tokens: 64, slots: 2 };

#[test]
fn every_model_becomes_primitives_over_its_own_tensors() {
    for path in [
        "examples/models/bard",
        "tests/models/stories260K",
        "tests/models/tiny-llama2",
        "tests/models/tiny-llama31",
        "tests/models/tiny-olmo2",
    ] {
        let model = ModelDir::open(&repository(path)).expect(path);
        let weights = model.weights().expect(path);
        let graph =
            import(model.config(), path, BOUNDS, &|name| weights.tensor(name).map(|t| t.dtype)).expect("a graph");
        let mut read = vec![];
        for inst in graph.order() {
            let op = &graph.inst(*inst).op;
            assert!(
                !matches!(op, Op::Fusion(_) | Op::Param { .. } | Op::Copy),
                "{path}: {} is no primitive",
                op.mnemonic()
            );
            if let Op::Weight(recipe) = op {
                for name in recipe.tensors() {
                    let view = weights.tensor(name).expect(name);
                    let ty = graph.ty(graph.result(*inst));
                    let dims: Vec<Dim> = view.dims.iter().map(|&d| Dim::Const(d)).collect();
                    assert_eq!(*ty, Type::new(view.dtype, dims), "{path}: {name}");
                    read.push(name.to_string());
                }
            }
        }
        read.sort();
        let mut expected: Vec<String> = model.config().tensors().into_iter().map(|t| t.name).collect();
        expected.sort();
        assert_eq!(read, expected, "{path}: every tensor is read once");
        let (name, logits) = &graph.outputs()[0];
        assert_eq!((name.as_str(), graph.outputs().len()), ("logits", 1));
        assert_eq!(*graph.ty(*logits), Type::new(DType::F32, [Dim::OUTPUTS, Dim::Const(model.config().vocab)]));
    }
}

#[test]
fn a_tensor_that_is_not_there_is_named() {
    let model = ModelDir::open(&repository("tests/models/tiny-olmo2")).expect("tiny-olmo2");
    let missing = "model.layers.1.self_attn.k_norm.weight";
    let error = import(model.config(), "m", BOUNDS, &|name| (name != missing).then_some(DType::F32));
    assert_eq!(error, Err(ImportError::MissingTensor(missing.into())));
}
