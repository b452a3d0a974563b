//! Weights of seeded values.

use llamac_formats::DType;
use llamac_ir::{Graph, Op, Recipe, TensorSource, TensorView};
use std::collections::HashMap;

/// A small generator of numbers (xorshift).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n.max(1)
    }

    /// In −1..1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// One tensor: dtype, shape, bytes.
type Tensor = (DType, Vec<usize>, Vec<u8>);

/// Tensors with seeded values for every weight of a graph.
#[derive(Default)]
pub struct Source {
    tensors: HashMap<String, Tensor>,
}

impl Source {
    /// Makes all tensors that the graph's weights name. Only recipes of one tensor are understood.
    pub fn of(graph: &Graph, seed: u64) -> Source {
        let mut source = Source::default();
        let mut numbers = Numbers::new(seed);
        for &inst in graph.order() {
            if let Op::Weight(recipe) = graph.op(inst) {
                let ty = graph.ty(graph.result(inst));
                let dims: Vec<usize> = ty.dims.iter().map(|d| d.as_const().unwrap()).collect();
                source.add(recipe, ty.dtype, &dims, &mut numbers);
            }
        }
        source
    }

    fn add(&mut self, recipe: &Recipe, dtype: DType, dims: &[usize], numbers: &mut Numbers) {
        match recipe {
            Recipe::Tensor(name) => {
                let count: usize = dims.iter().product();
                let mut bytes = vec![];
                if let DType::Block(format) = dtype {
                    let values: Vec<f32> = (0..count).map(|_| numbers.unit()).collect();
                    bytes.resize(dtype.storage(count).unwrap(), 0);
                    format.encode(&values, &mut bytes);
                    self.tensors.insert(name.clone(), (dtype, dims.to_vec(), bytes));
                    return;
                }
                for _ in 0..count {
                    let v = numbers.unit();
                    match dtype {
                        DType::F32 => bytes.extend(v.to_le_bytes()),
                        DType::BF16 => bytes.extend(half::bf16::from_f32(v).to_bits().to_le_bytes()),
                        DType::F16 => bytes.extend(half::f16::from_f32(v).to_bits().to_le_bytes()),
                        other => panic!("no weight: {other}"),
                    }
                }
                self.tensors.insert(name.clone(), (dtype, dims.to_vec(), bytes));
            }
            Recipe::PermuteRows { of, .. } => self.add(of, dtype, dims, numbers),
            Recipe::Convert(of) => self.add(of, DType::BF16, dims, numbers),
            Recipe::Concat(parts) | Recipe::InterleavePanels(parts) => {
                for p in parts {
                    let mut dims = dims.to_vec();
                    dims[0] /= parts.len();
                    self.add(p, dtype, &dims, numbers);
                }
            }
        }
    }
}

impl TensorSource for Source {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get(name).map(|(dtype, dims, bytes)| TensorView { dtype: *dtype, dims, bytes })
    }

    fn describe(&self) -> String {
        "seeded tensors".into()
    }
}
