//! Tensors for the tests, and a source that remembers what was released.

use llamac_codegen::pack::{PackError, PackReport, WeightPlan, pack};
use llamac_ir::{DType, Dim, Layout, Recipe, TensorSource, TensorView, Type};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

/// A tensor in memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// Named tensors in memory.
#[derive(Debug, Default)]
pub struct Tensors {
    pub named: BTreeMap<String, Tensor>,
    /// What was released, in order.
    pub released: Mutex<Vec<(String, Range<usize>)>>,
}

impl Tensors {
    /// Adds a tensor whose elements all differ from their neighbours and from those of other tensors.
    pub fn add(&mut self, name: &str, dtype: DType, dims: &[usize]) {
        let seed = name.bytes().fold(7u32, |seed, b| seed.wrapping_mul(31).wrapping_add(b.into()));
        let elements = 0..dims.iter().product::<usize>() as u32;
        let value = |i: u32| i.wrapping_mul(0x9e37_79b1).wrapping_add(seed) >> 8;
        let bytes = match dtype {
            // 24 bits of mantissa: finite values in [-8, 8).
            DType::F32 => elements.flat_map(|i| (value(i) as f32 / (1 << 20) as f32 - 8.0).to_le_bytes()).collect(),
            DType::Block(format) => {
                let values: Vec<f32> = elements.map(|i| value(i) as f32 / (1 << 20) as f32 - 8.0).collect();
                let mut bytes = vec![0; dtype.storage(values.len()).unwrap()];
                format.encode(&values, &mut bytes);
                bytes
            }
            // Below every exponent of only ones.
            _ => elements.flat_map(|i| ((value(i) % 0x7c00) as u16 | (i as u16) << 15).to_le_bytes()).collect(),
        };
        self.put(name, dtype, dims, bytes);
    }

    /// Adds a tensor of these bytes.
    pub fn put(&mut self, name: &str, dtype: DType, dims: &[usize], bytes: Vec<u8>) {
        self.named.insert(name.to_owned(), Tensor { dtype, dims: dims.to_vec(), bytes });
    }
}

impl TensorSource for Tensors {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let Tensor { dtype, dims, bytes } = self.named.get(name)?;
        Some(TensorView { dtype: *dtype, dims, bytes })
    }

    fn release_part(&self, name: &str, bytes: Range<usize>) {
        self.released.lock().unwrap().push((name.to_owned(), bytes));
    }

    fn describe(&self) -> String {
        "test tensors".to_owned()
    }
}

pub fn rows(dtype: DType, dims: &[usize]) -> Type {
    Type::new(dtype, dims.iter().map(|&d| Dim::Const(d)))
}

pub fn panels(dtype: DType, dims: &[usize]) -> Type {
    Type { layout: Layout::Panels, ..rows(dtype, dims) }
}

pub fn t(name: &str) -> Recipe {
    Recipe::tensor(name)
}

pub fn convert(of: Recipe) -> Recipe {
    Recipe::Convert(Box::new(of))
}

pub fn permute(of: Recipe, heads: usize) -> Recipe {
    Recipe::PermuteRows { of: Box::new(of), heads }
}

/// The section, over memory that was not zero before.
pub fn packed(plan: &WeightPlan, source: &Tensors, threads: usize) -> Result<(Vec<u8>, PackReport), PackError> {
    let mut out = vec![0xaa; plan.total_bytes()];
    let report = pack(plan, source, &mut out, threads, &mut |_, _| ())?;
    Ok((out, report))
}

/// The section of a single weight.
pub fn pack_one(recipe: Recipe, ty: Type, source: &Tensors) -> Result<Vec<u8>, PackError> {
    let mut plan = WeightPlan::new();
    plan.add_weight(recipe, ty)?;
    Ok(packed(&plan, source, 2)?.0)
}
