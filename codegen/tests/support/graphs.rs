//! Random graphs whose values stay moderate and whose functions are continuous, so that f32 and f64 agree.

use super::source::Numbers;
use llamac_formats::{Bounds, DType};
use llamac_ir::{BinaryOp, Builder, CompareOp, Dim, Graph, Op, Recipe, ReduceOp, Type, UnaryOp, Value};

/// The largest sizes of the graphs.
pub const BOUNDS: Bounds = Bounds { rows: 6, outputs: 1, tokens: 9, slots: 1 };

const S: Dim = Dim::ROWS;
const T: Dim = Dim::TOKENS;
/// Elements of a value at the bounds, at most.
const MOST: usize = 4000;

struct Grower<'a> {
    b: Builder,
    n: &'a mut Numbers,
    values: Vec<Value>,
    ids: Value,
    weights: usize,
}

/// A graph of about `size` operations.
pub fn random(seed: u64, size: usize) -> Graph {
    let mut numbers = Numbers::new(seed);
    let n = &mut numbers;
    let mut b = Builder::new("random", BOUNDS);
    let f32s = |dims: Vec<Dim>| Type::new(DType::F32, dims);
    let c = |n: &mut Numbers| Dim::Const([1, 2, 3, 4, 6, 8, 12, 17][n.below(8)]);
    let shapes = [vec![S, c(n), c(n)], vec![S, c(n)], vec![c(n), S], vec![S, T]];
    let mut values = vec![];
    for (i, shape) in shapes.into_iter().enumerate() {
        values.push(b.input(format!("x{i}"), f32s(shape), None).unwrap());
    }
    let ids = b.input("ids", Type::new(DType::I32, [S]), Some(11)).unwrap();
    let mut g = Grower { b, n, values, ids, weights: 0 };
    while g.values.len() < size + 4 {
        if let Some(v) = g.grow()
            && g.b.ty(v).max_elements(&BOUNDS) <= MOST
        {
            g.values.push(v);
        }
    }
    let last = g.values.len() - 1;
    let mut outputs = vec![last];
    for _ in 0..2 {
        outputs.push(4 + g.n.below(last - 3));
    }
    outputs.dedup();
    for (i, v) in outputs.into_iter().enumerate() {
        // An output of its own: several may be one value.
        let v = g.b.unary(UnaryOp::Neg, g.values[v]).unwrap();
        g.b.output(format!("y{i}"), v);
    }
    g.b.finish()
}

impl Grower<'_> {
    fn pick(&mut self) -> Value {
        // Later values more often: graphs grow deep.
        let len = self.values.len();
        let back = self.n.below(len).min(self.n.below(len));
        self.values[len - 1 - back]
    }

    fn like(&mut self, v: Value) -> Value {
        let dims = self.b.ty(v).dims.clone();
        let same: Vec<Value> = self.values.iter().copied().filter(|&o| self.b.ty(o).dims == dims).collect();
        same[self.n.below(same.len())]
    }

    fn const_axis(&mut self, v: Value, least: usize) -> Option<(usize, usize)> {
        let axes: Vec<(usize, usize)> = self
            .b
            .ty(v)
            .dims
            .iter()
            .enumerate()
            .filter_map(|(i, d)| d.as_const().filter(|&n| n >= least).map(|n| (i, n)))
            .collect();
        (!axes.is_empty()).then(|| axes[self.n.below(axes.len())])
    }

    fn weight(&mut self, dims: &[usize]) -> Value {
        self.weights += 1;
        let dtype = [DType::F32, DType::BF16, DType::F16][self.n.below(3)];
        self.b.weight(Recipe::tensor(format!("w{}", self.weights)), dtype, dims).unwrap()
    }

    /// −1..1
    fn tame(&mut self, v: Value) -> Value {
        self.b.unary(UnaryOp::Tanh, v).unwrap()
    }

    fn grow(&mut self) -> Option<Value> {
        let x = self.pick();
        let ty = self.b.ty(x).clone();
        let rank = ty.rank();
        match self.n.below(18) {
            0 => {
                let op = [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Tanh][self.n.below(3)];
                Some(self.b.unary(op, x).unwrap())
            }
            1 => {
                let t = self.tame(x);
                Some(self.b.unary(UnaryOp::Exp, t).unwrap())
            }
            2..=4 => {
                let y = self.like(x);
                let op = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Max, BinaryOp::Min][self.n.below(4)];
                let v = self.b.binary(op, x, y).unwrap();
                Some(self.tame(v))
            }
            5 => {
                let y = self.like(x);
                let (x, y) = (self.tame(x), self.tame(y));
                Some(self.b.mul(x, y).unwrap())
            }
            6 => {
                // Continuous, whichever side a tie falls on.
                let y = self.like(x);
                let c = self.b.compare(CompareOp::Lt, x, y).unwrap();
                Some(self.b.select(c, x, y).unwrap())
            }
            7 | 8 => {
                if rank == 0 {
                    return None;
                }
                let op = [ReduceOp::Sum, ReduceOp::Max][self.n.below(2)];
                let axis = self.n.below(rank);
                let t = self.tame(x);
                Some(self.b.reduce(op, t, axis).unwrap())
            }
            9 => {
                if rank > 3 {
                    return None;
                }
                let at = self.n.below(rank + 1);
                let mut dims = ty.dims.clone();
                dims.insert(at, [Dim::Const(3), S, T, Dim::Const(1)][self.n.below(4)]);
                let axes: Vec<usize> = (0..=rank).filter(|&i| i != at).collect();
                Some(self.b.broadcast(x, &dims, &axes).unwrap())
            }
            10 => {
                // Split or merge constant axes.
                let mut dims = ty.dims.clone();
                match self.const_axis(x, 4) {
                    Some((axis, n)) if n % 2 == 0 && rank < 5 => {
                        dims.splice(axis..=axis, [Dim::Const(2), Dim::Const(n / 2)]);
                    }
                    _ => {
                        let at = (0..rank.saturating_sub(1))
                            .find(|&i| dims[i].as_const().is_some() && dims[i + 1].as_const().is_some())?;
                        let n = dims[at].as_const()? * dims[at + 1].as_const()?;
                        dims.splice(at..=at + 1, [Dim::Const(n)]);
                    }
                }
                Some(self.b.reshape(x, &dims).unwrap())
            }
            11 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                for i in (1..rank).rev() {
                    perm.swap(i, self.n.below(i + 1));
                }
                Some(self.b.transpose(x, &perm).unwrap())
            }
            12 => {
                let (axis, n) = self.const_axis(x, 2)?;
                let len = 1 + self.n.below(n - 1);
                let start = self.n.below(n - len + 1);
                Some(self.b.slice(x, axis, start, len).unwrap())
            }
            13 => {
                let (axis, n) = self.const_axis(x, 1)?;
                let y = self.like(x);
                let part = self.b.slice(y, axis, 0, 1 + self.n.below(n)).unwrap();
                let parts = [[x, part], [part, x]][self.n.below(2)];
                Some(self.b.concat(&parts, axis).unwrap())
            }
            14 | 15 => {
                let k = ty.dims.last()?.as_const()?;
                let n = [1, 5, 16, 20][self.n.below(4)];
                let w = self.weight(&[n, k]);
                let x = self.tame(x);
                let v = self.b.linear(x, w).unwrap();
                Some(self.tame(v))
            }
            16 => {
                if rank != 2 {
                    return None;
                }
                let (x, y) = (self.tame(x), self.like(x));
                let y = self.tame(y);
                let v = self.b.dot(x, y, &[], &[(1, 1)]).unwrap();
                Some(self.tame(v))
            }
            _ => {
                let width = [1, 4, 7][self.n.below(3)];
                let table = self.weight(&[11, width]);
                let ids = self.ids;
                let v = self.b.gather(table, ids).unwrap();
                Some(if self.n.below(2) == 0 { v } else { self.b.op(Op::Copy, &[v], None).unwrap() })
            }
        }
    }
}
