//! The values made so far, and the simple operations that grow them.

use super::Config;
use crate::infer::{MAX_RANK, TypeError};
use crate::prng::Prng;
use crate::{BinaryOp, Builder, CompareOp, DType, Dim, Graph, Op, Recipe, ReduceOp, Type, UnaryOp, Value};

pub(super) type Made = Result<(), TypeError>;

/// Odd ones, ones, and multiples of vector and panel widths.
const WIDTHS: [usize; 12] = [1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 32, 33];
/// No value gets larger than this.
const LARGEST: f32 = 16.0;
/// No tensor gets more elements at the bounds than this.
const MAX_ELEMENTS: usize = 1 << 14;

/// An f32 value and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub value: Value,
    /// No element is larger than this in magnitude.
    pub bound: f32,
    /// f32 and f64 agree to the last bit.
    pub exact: bool,
}

pub(super) struct Pool {
    pub b: Builder,
    pub prng: Prng,
    pub config: Config,
    pub items: Vec<Item>,
    pub positions: Value,
    pub slots: Value,
    outputs: Value,
    weights: usize,
    pub states: usize,
}

impl Pool {
    pub fn new(config: Config) -> Pool {
        let bounds = config.bounds;
        let mut b = Builder::new(format!("random.{}", config.seed), bounds);
        let mut index = |name: &str, dim: Dim, limit: usize| {
            b.input(name, Type::new(DType::I32, [dim]), Some(limit)).expect("an index is well typed")
        };
        let positions = index("positions", Dim::ROWS, bounds.tokens);
        let slots = index("slots", Dim::ROWS, bounds.slots);
        let outputs = index("outputs", Dim::OUTPUTS, bounds.rows);
        let prng = Prng::new(config.seed);
        let mut pool = Pool { b, prng, config, items: vec![], positions, slots, outputs, weights: 0, states: 0 };
        let inputs = 1 + pool.prng.below(2);
        for i in 0..inputs {
            let mut dims = vec![Dim::ROWS, pool.width()];
            if pool.prng.once_in(3) {
                dims.push(pool.width());
            }
            let ty = Type::new(DType::F32, dims);
            let value = pool.b.input(format!("x{i}"), ty, None).expect("an input is well typed");
            pool.items.push(Item { value, bound: 1.0, exact: true });
        }
        pool
    }

    /// The graph, returning what nothing uses, or the last value.
    pub fn finish(mut self) -> Graph {
        let uses = self.b.graph().uses();
        let mut unused: Vec<Value> = self.items.iter().map(|i| i.value).filter(|v| !uses.contains_key(v)).collect();
        unused.reverse();
        unused.truncate(4);
        if let (true, Some(last)) = (unused.is_empty(), self.items.last()) {
            unused.push(last.value);
        }
        // Now and then a value that is used as well, or an input itself.
        if self.prng.once_in(4) {
            let any = self.any().value;
            if !unused.contains(&any) {
                unused.push(any);
            }
        }
        for (i, v) in unused.into_iter().enumerate() {
            self.b.output(format!("y{i}"), v);
        }
        self.b.finish()
    }

    pub fn width(&mut self) -> Dim {
        Dim::Const(self.prng.choose(&WIDTHS))
    }

    /// Any item, newer ones more often.
    pub fn any(&mut self) -> Item {
        let n = self.items.len();
        let at = self.prng.below(n).max(self.prng.below(n));
        self.items[at]
    }

    pub fn dims(&self, v: Value) -> Vec<Dim> {
        self.b.ty(v).dims.clone()
    }

    pub fn fits(&self, dims: &[Dim]) -> bool {
        dims.len() <= MAX_RANK
            && Type::new(DType::F32, dims.iter().copied()).max_elements(&self.config.bounds) <= MAX_ELEMENTS
    }

    /// Keeps a value, scaled down first if it might be large.
    pub fn push(&mut self, value: Value, bound: f32, exact: bool) -> Made {
        let (mut value, mut bound, mut exact) = (value, bound, exact);
        if bound > LARGEST {
            let dims = self.dims(value);
            // A power of two, so that no rounding is added.
            let scale = (1.0 / bound).log2().floor().exp2();
            let factor = self.b.splat(scale, &dims)?;
            value = self.b.mul(value, factor)?;
            bound *= scale;
            exact = exact && scale > 1e-3;
        }
        self.items.push(Item { value, bound, exact });
        Ok(())
    }

    pub fn weight(&mut self, dtype: DType, dims: &[usize]) -> Result<Value, TypeError> {
        self.weights += 1;
        self.b.weight(Recipe::tensor(format!("w{}", self.weights)), dtype, dims)
    }

    pub fn weight_dtype(&mut self) -> DType {
        self.prng.choose(&[DType::F32, DType::BF16, DType::BF16, DType::F16])
    }

    /// Another item of the same axes, or something broadcast to them.
    fn partner(&mut self, x: Item) -> Result<Item, TypeError> {
        let dims = self.dims(x.value);
        let alike: Vec<Item> = self.items.iter().copied().filter(|i| self.b.ty(i.value).dims == dims).collect();
        if !self.prng.once_in(3) {
            return Ok(self.prng.choose(&alike));
        }
        match dims.last() {
            Some(Dim::Const(n)) if self.prng.once_in(2) => {
                let n = *n;
                let dtype = self.weight_dtype();
                let w = self.weight(dtype, &[n])?;
                let wide = self.b.cast(w, DType::F32)?;
                let value = self.b.broadcast(wide, &dims, &[dims.len() - 1])?;
                Ok(Item { value, bound: 1.5, exact: true })
            }
            _ => {
                let c = self.prng.uniform();
                Ok(Item { value: self.b.splat(c, &dims)?, bound: c.abs(), exact: true })
            }
        }
    }

    /// One random operation.
    pub fn grow(&mut self) -> Made {
        let c = self.config;
        match self.prng.below(16) {
            0 | 1 => self.unary(),
            2 | 3 => self.binary(),
            4 => self.guarded(),
            5 => self.reduce(),
            6 => self.reshape(),
            7 => self.transpose(),
            8 => self.slice_and_concat(),
            9 => self.mask(),
            10 => self.cast(),
            11 if c.gathers => self.gather(),
            12 | 13 if c.dots => self.dot(),
            14 => self.template(),
            15 if c.states => self.cache(),
            _ => self.binary(),
        }
    }

    fn unary(&mut self) -> Made {
        let x = self.any();
        let op = self.prng.choose(UnaryOp::ALL);
        let (bound, exact) = match op {
            UnaryOp::Neg | UnaryOp::Abs => (x.bound, x.exact),
            UnaryOp::Exp if x.bound <= 2.5 => (x.bound.exp(), false),
            UnaryOp::Tanh => (1.0, false),
            _ => return self.guarded(),
        };
        let value = self.b.unary(op, x.value)?;
        self.push(value, bound, exact)
    }

    fn binary(&mut self) -> Made {
        let x = self.any();
        let y = self.partner(x)?;
        let (op, bound) = match self.prng.below(5) {
            0 => (BinaryOp::Add, x.bound + y.bound),
            1 => (BinaryOp::Sub, x.bound + y.bound),
            2 => (BinaryOp::Mul, x.bound * y.bound),
            3 => (BinaryOp::Max, x.bound.max(y.bound)),
            _ => (BinaryOp::Min, x.bound.max(y.bound)),
        };
        let value = self.b.binary(op, x.value, y.value)?;
        let exact = x.exact && y.exact && matches!(op, BinaryOp::Max | BinaryOp::Min);
        self.push(value, bound, exact)
    }

    /// Roots and quotients of something that is at least a half: `x² + 1/2`.
    fn guarded(&mut self) -> Made {
        let x = self.any();
        let dims = self.dims(x.value);
        let square = self.b.mul(x.value, x.value)?;
        let half = self.b.splat(0.5, &dims)?;
        let d = self.b.add(square, half)?;
        let largest = x.bound * x.bound + 0.5;
        let (value, bound) = match self.prng.below(4) {
            0 => (self.b.unary(UnaryOp::Sqrt, d)?, largest.sqrt()),
            1 => (self.b.unary(UnaryOp::Rsqrt, d)?, 1.5),
            2 => (self.b.unary(UnaryOp::Recip, d)?, 2.0),
            _ => {
                let y = self.partner(x)?;
                (self.b.div(y.value, d)?, 2.0 * y.bound)
            }
        };
        self.push(value, bound, false)
    }

    fn reduce(&mut self) -> Made {
        let x = self.any();
        let dims = self.dims(x.value);
        let axes: Vec<usize> =
            (0..dims.len()).filter(|&a| self.config.across_rows || dims[a].as_const().is_some()).collect();
        if axes.is_empty() {
            return Ok(());
        }
        // The last axis most of the time: that is what fuses.
        let axis = if self.prng.once_in(4) { self.prng.choose(&axes) } else { axes[axes.len() - 1] };
        let op = self.prng.choose(ReduceOp::ALL);
        let most = dims[axis].value(&self.config.bounds.sizes()) as f32;
        let bound = if op == ReduceOp::Sum { x.bound * most } else { x.bound };
        let value = self.b.reduce(op, x.value, axis)?;
        let exact = x.exact && op == ReduceOp::Max;
        self.push(value, bound, exact)?;
        // Often back to the axes it came from.
        if self.prng.once_in(2) {
            return Ok(());
        }
        let Some(&small) = self.items.last() else { return Ok(()) };
        let axes: Vec<usize> = (0..dims.len()).filter(|&a| a != axis).collect();
        let wide = self.b.broadcast(small.value, &dims, &axes)?;
        let value = self.b.sub(x.value, wide)?;
        self.push(value, x.bound + small.bound, false)
    }

    fn reshape(&mut self) -> Made {
        let x = self.any();
        let mut dims = self.dims(x.value);
        let at = self.prng.below(dims.len().max(1));
        match self.prng.below(3) {
            // Two neighbours become one.
            0 if dims.len() >= 2 => {
                let at = at.min(dims.len() - 2);
                let (Dim::Const(a), Dim::Const(b)) = (dims[at], dims[at + 1]) else { return Ok(()) };
                dims.splice(at..at + 2, [Dim::Const(a * b)]);
            }
            // One becomes two.
            1 if !dims.is_empty() => {
                let Dim::Const(n) = dims[at] else { return Ok(()) };
                let factors: Vec<usize> = (1..=n).filter(|f| n % f == 0).collect();
                let f = self.prng.choose(&factors);
                dims.splice(at..at + 1, [Dim::Const(f), Dim::Const(n / f)]);
            }
            _ => dims.insert(at, Dim::Const(1)),
        }
        if !self.fits(&dims) {
            return Ok(());
        }
        let value = self.b.reshape(x.value, &dims)?;
        self.push(value, x.bound, x.exact)
    }

    fn transpose(&mut self) -> Made {
        let x = self.any();
        let rank = self.dims(x.value).len();
        let mut perm: Vec<usize> = (0..rank).collect();
        // Rows stay first unless they may move.
        let first = usize::from(!self.config.across_rows);
        for i in (first + 1..rank).rev() {
            let j = first + self.prng.below(i + 1 - first);
            perm.swap(i, j);
        }
        let mut value = self.b.transpose(x.value, &perm)?;
        if self.prng.once_in(3) {
            value = self.b.op(Op::Copy, &[value], None)?;
        }
        self.push(value, x.bound, x.exact)
    }

    fn slice_and_concat(&mut self) -> Made {
        let x = self.any();
        let dims = self.dims(x.value);
        let axes: Vec<usize> = (0..dims.len()).filter(|&a| dims[a].as_const().is_some_and(|n| n > 1)).collect();
        if axes.is_empty() {
            return Ok(());
        }
        let axis = self.prng.choose(&axes);
        let n = dims[axis].as_const().unwrap_or(1);
        let cut = 1 + self.prng.below(n - 1);
        let a = self.b.slice(x.value, axis, 0, cut)?;
        let b = self.b.slice(x.value, axis, cut, n - cut)?;
        match self.prng.below(3) {
            0 => self.push(a, x.bound, x.exact),
            1 => {
                let turned = self.b.concat(&[b, a], axis)?;
                self.push(turned, x.bound, x.exact)
            }
            _ => {
                let b = self.b.unary(UnaryOp::Neg, b)?;
                let turned = self.b.concat(&[b, a], axis)?;
                let y = self.partner(x)?;
                let value = self.b.mul(turned, y.value)?;
                self.push(value, x.bound * y.bound, false)
            }
        }
    }

    /// A choice by a comparison of exact values.
    fn mask(&mut self) -> Made {
        let x = self.any();
        let y = self.partner(x)?;
        let dims = self.dims(x.value);
        let op = self.prng.choose(CompareOp::ALL);
        let exact: Vec<Value> =
            self.items.iter().filter(|i| i.exact && self.b.ty(i.value).dims == dims).map(|i| i.value).collect();
        let rows = dims.iter().position(|&d| d == Dim::ROWS);
        let constant = dims.iter().rposition(|d| d.as_const().is_some());
        let mask = match (rows, constant) {
            _ if !exact.is_empty() && self.prng.once_in(2) => {
                let (a, b) = (self.prng.choose(&exact), self.prng.choose(&exact));
                self.b.compare(op, a, b)?
            }
            (Some(rows), Some(constant)) => {
                let iota = self.b.iota(dims[constant])?;
                let iota = self.b.broadcast(iota, &dims, &[constant])?;
                let positions = self.b.broadcast(self.positions, &dims, &[rows])?;
                self.b.compare(op, iota, positions)?
            }
            _ => return Ok(()),
        };
        let value = self.b.select(mask, x.value, y.value)?;
        self.push(value, x.bound.max(y.bound), x.exact && y.exact)
    }

    /// Through a narrower type and back, of exact values only.
    fn cast(&mut self) -> Made {
        let exact: Vec<Item> = self.items.iter().copied().filter(|i| i.exact).collect();
        if exact.is_empty() {
            return Ok(());
        }
        let x = self.prng.choose(&exact);
        let dtype = self.prng.choose(&[DType::BF16, DType::F16, DType::I32]);
        let narrow = self.b.cast(x.value, dtype)?;
        let value = self.b.cast(narrow, DType::F32)?;
        self.push(value, x.bound * 1.01, true)
    }

    /// Rows of a table, or of something computed.
    fn gather(&mut self) -> Made {
        if self.prng.once_in(3) {
            let x = self.any();
            let rows = self.dims(x.value).first() == Some(&Dim::ROWS);
            if rows && self.config.across_rows {
                let value = self.b.gather(x.value, self.outputs)?;
                return self.push(value, x.bound, x.exact);
            }
        }
        let (n, width) = (2 + self.prng.below(20), self.prng.choose(&WIDTHS));
        let dtype = self.weight_dtype();
        let table = self.weight(dtype, &[n, width])?;
        let name = format!("ids{}", self.weights);
        let ids = self.b.input(name, Type::new(DType::I32, [Dim::ROWS]), Some(n))?;
        let value = match dtype {
            // A 16-bit result, widened apart.
            DType::BF16 | DType::F16 if self.prng.once_in(2) => {
                let narrow = self.b.op(Op::Gather, &[table, ids], None)?;
                self.b.cast(narrow, DType::F32)?
            }
            _ => self.b.gather(table, ids)?,
        };
        self.push(value, (3.0 / width as f32).sqrt() * 1.01, true)
    }
}
