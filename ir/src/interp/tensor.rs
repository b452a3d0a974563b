//! Dense tensors at actual sizes.

use super::real::Real;
use std::sync::Arc;

/// A value while it is interpreted.
#[derive(Clone, Debug)]
pub struct Tensor<F> {
    /// Axes at their actual sizes.
    pub dims: Vec<usize>,
    /// Elements, row-major.
    pub data: Data<F>,
}

/// Elements of one kind.
#[derive(Clone, Debug)]
pub enum Data<F> {
    /// Floats of any width.
    Float(Arc<Vec<F>>),
    /// A weight or a table: kept as f32, widened where it is used.
    Narrow(Arc<Vec<f32>>),
    /// Integers.
    Int(Arc<Vec<i32>>),
    /// Truth values.
    Bool(Arc<Vec<bool>>),
    /// The state of that number, wherever it stands now.
    State(usize),
}

impl<F: Real> Tensor<F> {
    /// A tensor of floats.
    pub fn float(dims: Vec<usize>, data: Vec<F>) -> Tensor<F> {
        Tensor { dims, data: Data::Float(Arc::new(data)) }
    }

    /// The elements as floats; the graph's types promise that they are.
    pub fn floats(&self) -> Arc<Vec<F>> {
        match &self.data {
            Data::Float(v) => v.clone(),
            Data::Narrow(v) => Arc::new(v.iter().map(|&x| F::from_f32(x)).collect()),
            _ => unreachable!("the typing rules allow only floats here"),
        }
    }

    /// The elements as integers; the graph's types promise that they are.
    pub fn ints(&self) -> &[i32] {
        match &self.data {
            Data::Int(v) => v,
            _ => unreachable!("the typing rules allow only i32 here"),
        }
    }

    /// The elements as truth values; the graph's types promise that they are.
    pub fn bools(&self) -> &[bool] {
        match &self.data {
            Data::Bool(v) => v,
            _ => unreachable!("the typing rules allow only bool here"),
        }
    }

    /// Which state this is; the verifier promises that it is one.
    pub(super) fn state(&self) -> usize {
        match self.data {
            Data::State(index) => index,
            _ => unreachable!("the verifier allows only a state here"),
        }
    }

    /// The tensor with elements picked by index: element `i` of the result is element `index[i]` of this.
    pub fn pick(&self, dims: Vec<usize>, index: &[usize]) -> Tensor<F> {
        fn take<T: Copy>(from: &[T], index: &[usize]) -> Arc<Vec<T>> {
            Arc::new(index.iter().map(|&i| from[i]).collect())
        }
        let data = match &self.data {
            Data::Float(v) => Data::Float(take(v, index)),
            Data::Narrow(v) => Data::Narrow(take(v, index)),
            Data::Int(v) => Data::Int(take(v, index)),
            Data::Bool(v) => Data::Bool(take(v, index)),
            Data::State(_) => unreachable!("a state is read through `index` only"),
        };
        Tensor { dims, data }
    }
}

/// Row-major strides.
pub fn strides(dims: &[usize]) -> Vec<usize> {
    let mut out = vec![1; dims.len()];
    for i in (0..dims.len().saturating_sub(1)).rev() {
        out[i] = out[i + 1] * dims[i + 1];
    }
    out
}

/// The offsets `offset + Σ strides[d]·i_d` of all elements of `dims`, row-major.
pub fn offsets(dims: &[usize], strides: &[usize], offset: usize) -> Vec<usize> {
    let count = dims.iter().product();
    let mut out = Vec::with_capacity(count);
    if count == 0 {
        return out;
    }
    let mut index = vec![0; dims.len()];
    let mut at = offset;
    loop {
        out.push(at);
        let mut axis = dims.len();
        loop {
            if axis == 0 {
                return out;
            }
            axis -= 1;
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < dims[axis] {
                break;
            }
            at -= strides[axis] * dims[axis];
            index[axis] = 0;
        }
    }
}
