//! Layout, specialising and scheduling keep what a graph computes: the interpreter gives the same numbers.

use llamac_ir::interp::{Data, Input, Interpreter, Tensor};
use llamac_ir::{Bounds, Graph, Op, Recipe, Sizes, TensorSource, TensorView};
use std::collections::BTreeMap;

/// Made-up numbers for every weight of a graph.
pub struct Weights(BTreeMap<String, (Vec<usize>, llamac_ir::DType, Vec<u8>)>);

impl Weights {
    /// Weights for a graph whose recipes are plain tensors.
    pub fn of(graph: &Graph) -> Weights {
        let mut tensors = BTreeMap::new();
        for &inst in graph.order() {
            let Op::Weight(Recipe::Tensor(name)) = graph.op(inst) else { continue };
            let ty = graph.ty(graph.result(inst));
            let dims: Vec<usize> = ty.dims.iter().filter_map(|d| d.as_const()).collect();
            let mut bytes = vec![];
            let mut seed = name.bytes().fold(17u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
            for _ in 0..dims.iter().product() {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let value = (seed >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
                // Little-endian: a bf16 is the upper half of an f32.
                bytes.extend(&value.to_le_bytes()[4 - ty.dtype.bytes()..]);
            }
            tensors.insert(name.clone(), (dims, ty.dtype, bytes));
        }
        Weights(tensors)
    }
}

impl TensorSource for Weights {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.0.get(name).map(|(dims, dtype, bytes)| TensorView { dtype: *dtype, dims, bytes })
    }

    fn describe(&self) -> String {
        "made-up weights".into()
    }
}

/// The outputs of two steps of `rows` rows each, as bits.
pub fn two_steps(graph: &Graph, weights: &Weights, rows: usize, bounds: &Bounds) -> Vec<Vec<u64>> {
    let mut interpreter = Interpreter::<f64>::new(graph, weights);
    let mut found = vec![];
    for first in [0, rows] {
        let positions: Vec<i32> = (first..first + rows).map(|p| p as i32).collect();
        let tokens: Vec<i32> = positions.iter().map(|p| p * 7 % 13).collect();
        let slots = vec![bounds.slots as i32 - 1; rows];
        let outputs = [rows as i32 - 1];
        let x: Vec<f32> = (0..rows * 8).map(|i| ((i + first) as f32).sin()).collect();
        let all = [
            ("tokens", Input::Int(&tokens)),
            ("positions", Input::Int(&positions)),
            ("slots", Input::Int(&slots)),
            ("outputs", Input::Int(&outputs)),
            ("x", Input::Float(&x)),
        ];
        let named =
            |name: &str| graph.order().iter().any(|&i| matches!(graph.op(i), Op::Input { name: n, .. } if n == name));
        let inputs: Vec<_> = all.into_iter().filter(|(name, _)| named(name)).collect();
        let sizes = Sizes { rows, outputs: 1, tokens: first + rows };
        let results = interpreter.step(sizes, &inputs).expect("a step");
        found.extend(results.iter().map(bits));
    }
    found
}

/// Elements as bits; all NaNs are one.
fn bits(tensor: &Tensor<f64>) -> Vec<u64> {
    match &tensor.data {
        Data::Int(v) => v.iter().map(|&x| x as u64).collect(),
        Data::Bool(v) => v.iter().map(|&x| u64::from(x)).collect(),
        _ => tensor.floats().iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect(),
    }
}
