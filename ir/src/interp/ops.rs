//! What each op computes.

use super::real::Real;
use super::tensor::{Data, Tensor, offsets, strides};
use crate::{BinaryOp, CompareOp, DType, DotSpec, ReduceOp, UnaryOp};
use half::{bf16, f16};
use llamac_formats::q8;
use std::sync::Arc;

pub(super) fn unary<F: Real>(op: UnaryOp, x: &Tensor<F>) -> Tensor<F> {
    if let Data::Int(v) = &x.data {
        let f = |&x: &i32| if op == UnaryOp::Neg { x.wrapping_neg() } else { x.wrapping_abs() };
        return Tensor { dims: x.dims.clone(), data: Data::Int(Arc::new(v.iter().map(f).collect())) };
    }
    let one = F::from_f32(1.0);
    let f = |x: F| match op {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Exp => x.exp(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Rsqrt => one / x.sqrt(),
        UnaryOp::Recip => one / x,
        UnaryOp::Tanh => x.tanh(),
    };
    Tensor::float(x.dims.clone(), x.floats().iter().map(|&x| f(x)).collect())
}

pub(super) fn binary<F: Real>(op: BinaryOp, x: &Tensor<F>, y: &Tensor<F>) -> Tensor<F> {
    if let (Data::Int(x_data), Data::Int(y_data)) = (&x.data, &y.data) {
        let f = |x: i32, y: i32| match op {
            BinaryOp::Add => x.wrapping_add(y),
            BinaryOp::Sub => x.wrapping_sub(y),
            BinaryOp::Mul => x.wrapping_mul(y),
            BinaryOp::Max => x.max(y),
            BinaryOp::Min => x.min(y),
            BinaryOp::Div => unreachable!("the typing rules allow no integer division"),
        };
        let data = x_data.iter().zip(y_data.iter()).map(|(&x, &y)| f(x, y)).collect();
        return Tensor { dims: x.dims.clone(), data: Data::Int(Arc::new(data)) };
    }
    let f = |x: F, y: F| match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::Max => {
            if x > y {
                x
            } else {
                y
            }
        }
        BinaryOp::Min => {
            if x < y {
                x
            } else {
                y
            }
        }
    };
    Tensor::float(x.dims.clone(), x.floats().iter().zip(y.floats().iter()).map(|(&x, &y)| f(x, y)).collect())
}

pub(super) fn compare<F: Real>(op: CompareOp, x: &Tensor<F>, y: &Tensor<F>) -> Tensor<F> {
    fn apply<T: PartialOrd>(op: CompareOp, x: &T, y: &T) -> bool {
        match op {
            CompareOp::Eq => x == y,
            CompareOp::Ne => x != y,
            CompareOp::Lt => x < y,
            CompareOp::Le => x <= y,
            CompareOp::Gt => x > y,
            CompareOp::Ge => x >= y,
        }
    }
    let data = match (&x.data, &y.data) {
        (Data::Int(a), Data::Int(b)) => a.iter().zip(b.iter()).map(|(a, b)| apply(op, a, b)).collect(),
        _ => x.floats().iter().zip(y.floats().iter()).map(|(a, b)| apply(op, a, b)).collect(),
    };
    Tensor { dims: x.dims.clone(), data: Data::Bool(Arc::new(data)) }
}

pub(super) fn select<F: Real>(c: &Tensor<F>, x: &Tensor<F>, y: &Tensor<F>) -> Tensor<F> {
    fn choose<T: Copy>(c: &[bool], x: &[T], y: &[T]) -> Arc<Vec<T>> {
        Arc::new(c.iter().zip(x.iter().zip(y)).map(|(&c, (&x, &y))| if c { x } else { y }).collect())
    }
    let c = c.bools();
    let data = match (&x.data, &y.data) {
        (Data::Int(a), Data::Int(b)) => Data::Int(choose(c, a, b)),
        (Data::Bool(a), Data::Bool(b)) => Data::Bool(choose(c, a, b)),
        _ => Data::Float(choose(c, &x.floats(), &y.floats())),
    };
    Tensor { dims: x.dims.clone(), data }
}

/// Conversion; a float narrower than f32 is what f32 rounds to.
pub(super) fn cast<F: Real>(x: &Tensor<F>, dtype: DType) -> Tensor<F> {
    if let (Data::Int(v), true) = (&x.data, dtype.is_float()) {
        let wide = Tensor::float(x.dims.clone(), v.iter().map(|&i| F::from_i32(i)).collect());
        return cast(&wide, dtype);
    }
    match dtype {
        DType::I32 => match &x.data {
            Data::Int(_) => x.clone(),
            // Towards zero, saturating, NaN to 0.
            _ => Tensor {
                dims: x.dims.clone(),
                data: Data::Int(Arc::new(x.floats().iter().map(|x| x.to_f64() as i32).collect())),
            },
        },
        DType::F16 => round(x, |x| f16::from_f32(x).to_f32()),
        DType::BF16 => round(x, |x| bf16::from_f32(x).to_f32()),
        DType::Q8 => in_blocks(x),
        // Weights only: the typing rules allow no such cast.
        DType::F32 | DType::Bool | DType::Block(_) => x.clone(),
    }
}

/// What blocks of eight bits along the last axis make of the values.
fn in_blocks<F: Real>(x: &Tensor<F>) -> Tensor<F> {
    let narrow: Vec<f32> = x.floats().iter().map(|x| x.to_f32()).collect();
    let blocks = narrow.as_chunks::<{ q8::ELEMENTS }>().0.iter().flat_map(|x| {
        let mut block = [0; q8::BYTES];
        q8::encode(x, &mut block);
        q8::decode(&block)
    });
    Tensor::float(x.dims.clone(), blocks.map(F::from_f32).collect())
}

fn round<F: Real>(x: &Tensor<F>, to: impl Fn(f32) -> f32) -> Tensor<F> {
    Tensor::float(x.dims.clone(), x.floats().iter().map(|x| F::from_f32(to(x.to_f32()))).collect())
}

pub(super) fn reduce<F: Real>(op: ReduceOp, x: &Tensor<F>, axis: usize) -> Tensor<F> {
    let mut dims = x.dims.clone();
    let n = dims.remove(axis);
    let mut all = strides(&x.dims);
    let step = all.remove(axis);
    let starts = offsets(&dims, &all, 0);
    if let Data::Int(v) = &x.data {
        let max = |&s: &usize| (0..n).map(|i| v[s + i * step]).max().unwrap_or(i32::MIN);
        return Tensor { dims, data: Data::Int(Arc::new(starts.iter().map(max).collect())) };
    }
    let v = x.floats();
    let one = |&s: &usize| {
        let elements = (0..n).map(|i| v[s + i * step]);
        match op {
            ReduceOp::Sum => elements.fold(F::default(), |a, x| a + x),
            ReduceOp::Max => elements.fold(F::NEG_INFINITY, |a, x| if x > a { x } else { a }),
        }
    };
    Tensor::float(dims, starts.iter().map(one).collect())
}

/// Contraction; several right sides are segments of the last axis.
pub(super) fn dot<F: Real>(spec: &DotSpec, lhs: &Tensor<F>, rhs: &[&Tensor<F>]) -> Tensor<F> {
    let pick = |dims: &[usize], axes: &[usize]| -> Vec<usize> { axes.iter().map(|&a| dims[a]).collect() };
    let side =
        |f: fn(&(usize, usize)) -> usize, pairs: &[(usize, usize)]| -> Vec<usize> { pairs.iter().map(f).collect() };
    let (lb, rb) = (side(|p| p.0, &spec.batch), side(|p| p.1, &spec.batch));
    let (lc, rc) = (side(|p| p.0, &spec.contract), side(|p| p.1, &spec.contract));
    let free = |rank: usize, b: &[usize], c: &[usize]| -> Vec<usize> {
        (0..rank).filter(|i| !b.contains(i) && !c.contains(i)).collect()
    };
    let lf = free(lhs.dims.len(), &lb, &lc);
    let batch = pick(&lhs.dims, &lb);
    let rows = pick(&lhs.dims, &lf);
    let (b, m): (usize, usize) = (batch.iter().product(), rows.iter().product());
    let k: usize = pick(&lhs.dims, &lc).iter().product();
    let a = ordered(lhs, &[&lb[..], &lf, &lc].concat()).floats();

    let mut parts = vec![];
    let mut columns = vec![];
    for r in rhs {
        let rf = free(r.dims.len(), &rb, &rc);
        columns = pick(&r.dims, &rf);
        parts.push((ordered(r, &[&rb[..], &rf, &rc].concat()), columns.iter().product::<usize>()));
    }
    let n: usize = parts.iter().map(|p| p.1).sum();
    if parts.len() > 1 {
        columns = vec![n];
    }
    let mut out = vec![F::default(); b * m * n];
    let mut first = 0;
    for (part, width) in &parts {
        for bi in 0..b {
            for mi in 0..m {
                let row = &a[(bi * m + mi) * k..][..k];
                let out = &mut out[(bi * m + mi) * n + first..][..*width];
                let begin = bi * width * k;
                match &part.data {
                    Data::Narrow(w) => columns_of(row, &w[begin..], out, |&w| F::from_f32(w)),
                    _ => columns_of(row, &part.floats()[begin..], out, |&w| w),
                }
            }
        }
        first += width;
    }
    Tensor::float([batch, rows, columns].concat(), out)
}

/// `out[n] = Σ_k row[k] · w[n, k]`
fn columns_of<F: Real, W>(row: &[F], w: &[W], out: &mut [F], widen: impl Fn(&W) -> F) {
    for (n, out) in out.iter_mut().enumerate() {
        let w = &w[n * row.len()..][..row.len()];
        *out = row.iter().zip(w).fold(F::default(), |sum, (&x, w)| sum + x * widen(w));
    }
}

/// The tensor with its axes in another order; itself where that is the order it has.
pub(super) fn ordered<F: Real>(x: &Tensor<F>, axes: &[usize]) -> Tensor<F> {
    if axes.iter().copied().eq(0..x.dims.len()) {
        return x.clone();
    }
    let s = strides(&x.dims);
    let dims: Vec<usize> = axes.iter().map(|&a| x.dims[a]).collect();
    let strides: Vec<usize> = axes.iter().map(|&a| s[a]).collect();
    x.pick(dims.clone(), &offsets(&dims, &strides, 0))
}

/// Parts one after the other along an axis.
pub(super) fn concat<F: Real>(parts: &[&Tensor<F>], axis: usize) -> Tensor<F> {
    let mut dims = parts[0].dims.clone();
    dims[axis] = parts.iter().map(|p| p.dims[axis]).sum();
    let outer: usize = dims[..axis].iter().product();
    let chunk = |p: &Tensor<F>| p.dims[axis..].iter().product::<usize>();
    fn join<T: Copy>(outer: usize, parts: &[(&[T], usize)]) -> Arc<Vec<T>> {
        let mut out = vec![];
        for o in 0..outer {
            for (data, chunk) in parts {
                out.extend_from_slice(&data[o * chunk..(o + 1) * chunk]);
            }
        }
        Arc::new(out)
    }
    let data = match &parts[0].data {
        Data::Int(_) => Data::Int(join(outer, &parts.iter().map(|p| (p.ints(), chunk(p))).collect::<Vec<_>>())),
        Data::Bool(_) => Data::Bool(join(outer, &parts.iter().map(|p| (p.bools(), chunk(p))).collect::<Vec<_>>())),
        _ => {
            let floats: Vec<_> = parts.iter().map(|p| (p.floats(), chunk(p))).collect();
            Data::Float(join(outer, &floats.iter().map(|(f, c)| (&f[..], *c)).collect::<Vec<_>>()))
        }
    };
    Tensor { dims, data }
}
