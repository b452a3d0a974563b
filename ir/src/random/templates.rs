//! Operations of several instructions: products, norms, rotations, caches.

use super::pool::{Item, Made, Pool};
use crate::infer::TypeError;
use crate::{BinaryOp, CompareOp, DType, Dim, DotSpec, Op, ReduceOp, RopePart, UnaryOp, Value};
use llamac_formats::rope::{RopeScaling, RopeTable};

impl Pool {
    /// A product with weights, or of two activations.
    pub(super) fn dot(&mut self) -> Made {
        let x = self.any();
        let dims = self.dims(x.value);
        let Some(&Dim::Const(k)) = dims.last() else { return Ok(()) };
        if self.prng.once_in(4) && dims.len() >= 2 {
            return self.product_of_activations(x, &dims, k);
        }
        let parts = if self.prng.once_in(4) { 2 } else { 1 };
        let mut operands = vec![x.value];
        let dtype = self.weight_dtype();
        for _ in 0..parts {
            let Dim::Const(n) = self.width() else { continue };
            operands.push(self.weight(dtype, &[n, k])?);
        }
        let value = self.b.op(Op::Dot(DotSpec::linear(dims.len())), &operands, None)?;
        // The weights are below √(3/K).
        self.push(value, x.bound * (3.0 * k as f32).sqrt() * 1.01, false)
    }

    /// `x[batch…, M, K] · tanh(x)[batch…, N = M, K]`
    fn product_of_activations(&mut self, x: Item, dims: &[Dim], k: usize) -> Made {
        let rank = dims.len();
        let across = dims[rank - 2].as_const().is_none();
        let result: Vec<Dim> = dims[..rank - 1].iter().chain([&dims[rank - 2]]).copied().collect();
        if (across && !self.config.across_rows) || !self.fits(&result) {
            return Ok(());
        }
        let other = self.b.unary(UnaryOp::Tanh, x.value)?;
        let batch: Vec<(usize, usize)> = (0..rank - 2).map(|i| (i, i)).collect();
        let value = self.b.dot(x.value, other, &batch, &[(rank - 1, rank - 1)])?;
        self.push(value, x.bound * k as f32, false)
    }

    /// A norm, a softmax or a gated activation.
    pub(super) fn template(&mut self) -> Made {
        let x = self.any();
        let dims = self.dims(x.value);
        match self.prng.below(4) {
            0 => self.norm(x, &dims),
            1 => self.softmax(x, &dims),
            2 => self.silu(x, &dims),
            _ => self.rotation(x, &dims),
        }
    }

    fn norm(&mut self, x: Item, dims: &[Dim]) -> Made {
        let Some((&Dim::Const(n), rows)) = dims.split_last() else { return Ok(()) };
        let rows = rows.to_vec();
        let square = self.b.mul(x.value, x.value)?;
        let sum = self.b.reduce(ReduceOp::Sum, square, rows.len())?;
        let mean = self.b.splat(1.0 / n as f32, &rows)?;
        let mean = self.b.mul(sum, mean)?;
        let eps = self.b.splat(0.1, &rows)?;
        let mean = self.b.add(mean, eps)?;
        let root = self.b.unary(UnaryOp::Rsqrt, mean)?;
        let axes: Vec<usize> = (0..rows.len()).collect();
        let root = self.b.broadcast(root, dims, &axes)?;
        let scaled = self.b.mul(x.value, root)?;
        let dtype = self.weight_dtype();
        let w = self.weight(dtype, &[n])?;
        let w = self.b.cast(w, DType::F32)?;
        let w = self.b.broadcast(w, dims, &[rows.len()])?;
        let value = self.b.mul(scaled, w)?;
        self.push(value, (x.bound * 3.2).min((n as f32).sqrt()) * 1.5, false)
    }

    fn softmax(&mut self, x: Item, dims: &[Dim]) -> Made {
        if dims.is_empty() || (dims[dims.len() - 1].as_const().is_none() && !self.config.across_rows) {
            return Ok(());
        }
        let value = self.softmax_of(x.value, dims)?;
        self.push(value, 1.01, false)
    }

    fn softmax_of(&mut self, x: Value, dims: &[Dim]) -> Result<Value, TypeError> {
        let axis = dims.len() - 1;
        let axes: Vec<usize> = (0..axis).collect();
        let max = self.b.reduce(ReduceOp::Max, x, axis)?;
        let max = self.b.broadcast(max, dims, &axes)?;
        let shifted = self.b.sub(x, max)?;
        let e = self.b.unary(UnaryOp::Exp, shifted)?;
        let sum = self.b.reduce(ReduceOp::Sum, e, axis)?;
        let sum = self.b.broadcast(sum, dims, &axes)?;
        self.b.div(e, sum)
    }

    fn silu(&mut self, x: Item, dims: &[Dim]) -> Made {
        let y = self.any();
        let gated = self.dims(y.value) == dims;
        let neg = self.b.unary(UnaryOp::Neg, x.value)?;
        let e = self.b.unary(UnaryOp::Exp, neg)?;
        let one = self.b.splat(1.0, dims)?;
        let d = self.b.add(one, e)?;
        let silu = self.b.div(x.value, d)?;
        let value = if gated { self.b.mul(silu, y.value)? } else { silu };
        self.push(value, if gated { x.bound * y.bound } else { x.bound }, false)
    }

    /// Half-split RoPE by position.
    fn rotation(&mut self, x: Item, dims: &[Dim]) -> Made {
        let (Some(&Dim::ROWS), Some(&Dim::Const(n))) = (dims.first(), dims.last()) else { return Ok(()) };
        if dims.len() < 2 || n % 2 != 0 {
            return Ok(());
        }
        let value = self.rotate(x.value, dims, n)?;
        self.push(value, 1.5 * x.bound, false)
    }

    fn rotate(&mut self, x: Value, dims: &[Dim], n: usize) -> Result<Value, TypeError> {
        let table = RopeTable { theta: 100.0, head_dim: n, scaling: RopeScaling::Default };
        let axis = dims.len() - 1;
        let mut half = dims.to_vec();
        half[axis] = Dim::Const(n / 2);
        let mut angle = |part| {
            let t = self.b.rope_table(table.clone(), part)?;
            let t = self.b.gather(t, self.positions)?;
            self.b.broadcast(t, &half, &[0, axis])
        };
        let (cos, sin) = (angle(RopePart::Cos)?, angle(RopePart::Sin)?);
        let x1 = self.b.slice(x, axis, 0, n / 2)?;
        let x2 = self.b.slice(x, axis, n / 2, n / 2)?;
        let mut turn = |a, op, b| {
            let (a, b) = (self.b.mul(a, cos)?, self.b.mul(b, sin)?);
            self.b.binary(op, a, b)
        };
        let (first, second) = (turn(x1, BinaryOp::Sub, x2)?, turn(x2, BinaryOp::Add, x1)?);
        self.b.concat(&[first, second], axis)
    }

    /// Rows of a step written to a cache and read back: by reductions, or by an attention.
    pub(super) fn cache(&mut self) -> Made {
        let rows: Vec<Item> =
            self.items.iter().copied().filter(|i| self.b.ty(i.value).dims.first() == Some(&Dim::ROWS)).collect();
        let wide: Vec<(Item, Vec<Dim>)> =
            rows.into_iter().map(|i| (i, self.dims(i.value))).filter(|(_, d)| d.len() == 2).collect();
        if wide.is_empty() || self.states >= 4 {
            return Ok(());
        }
        let (x, dims) = wide[self.prng.below(wide.len())].clone();
        let Dim::Const(k) = dims[1] else { return Ok(()) };
        if self.prng.once_in(2) {
            return self.attention(x, k);
        }
        let heads: Vec<usize> = (1..=k.min(4)).filter(|h| k % h == 0).collect();
        let heads = self.prng.choose(&heads);
        let new = [Dim::ROWS, heads.into(), (k / heads).into()];
        let rows = self.b.reshape(x.value, &new)?;
        self.states += 1;
        let state = self.b.state(format!("cache{}", self.states), heads, k / heads)?;
        let (slots, positions) = (self.slots, self.positions);
        // What was there before, read before it is overwritten.
        let old = if self.prng.once_in(2) {
            let old = self.b.index(state, slots)?;
            Some(self.b.reduce(ReduceOp::Sum, old, 2)?)
        } else {
            None
        };
        let written = self.b.state_write(state, rows, slots, positions)?;
        let now = self.b.index(written, slots)?;
        let now = self.b.reduce(self.prng.clone().choose(ReduceOp::ALL), now, 2)?;
        let most = self.config.bounds.tokens as f32 * x.bound;
        let (value, bound) = match old {
            Some(old) => (self.b.sub(now, old)?, 2.0 * most),
            None => (now, most),
        };
        self.push(value, bound, false)
    }

    /// Attention over a cache, as importers write it.
    fn attention(&mut self, x: Item, k: usize) -> Made {
        let (kv, group, d) = (1 + self.prng.below(2), 1 + self.prng.below(3), self.prng.choose(&[2, 4, 8, 16]));
        self.states += 2;
        let number = self.states / 2;
        let mut project = |n: usize| {
            let dtype = self.weight_dtype();
            let w = self.weight(dtype, &[n, k])?;
            self.b.linear(x.value, w)
        };
        let (q, key, value) = (project(kv * group * d)?, project(kv * d)?, project(kv * d)?);
        let q = self.b.reshape(q, &[Dim::ROWS, (kv * group).into(), d.into()])?;
        let key_dims = [Dim::ROWS, kv.into(), d.into()];
        let key = self.b.reshape(key, &key_dims)?;
        let value = self.b.reshape(value, &key_dims)?;
        let q = self.rotate(q, &[Dim::ROWS, (kv * group).into(), d.into()], d)?;
        let key = self.rotate(key, &key_dims, d)?;
        let (slots, positions) = (self.slots, self.positions);
        let mut cached = |name: &str, rows| {
            let state = self.b.state(format!("attention{number}.{name}"), kv, d)?;
            let state = self.b.state_write(state, rows, slots, positions)?;
            self.b.index(state, slots)
        };
        let (keys, values) = (cached("k", key)?, cached("v", value)?);
        let q = self.b.reshape(q, &[Dim::ROWS, kv.into(), group.into(), d.into()])?;
        let scores = self.b.dot(q, keys, &[(0, 0), (1, 1)], &[(3, 3)])?;
        let dims = self.dims(scores);
        let scale = self.b.splat((d as f32).sqrt().recip(), &dims)?;
        let scores = self.b.mul(scores, scale)?;
        let tokens = self.b.iota(Dim::TOKENS)?;
        let tokens = self.b.broadcast(tokens, &dims, &[3])?;
        let here = self.b.broadcast(positions, &dims, &[0])?;
        let seen = self.b.compare(CompareOp::Le, tokens, here)?;
        let hidden = self.b.splat(f32::NEG_INFINITY, &dims)?;
        let scores = self.b.select(seen, scores, hidden)?;
        let weights = self.softmax_of(scores, &dims)?;
        let out = self.b.dot(weights, values, &[(0, 0), (1, 1)], &[(3, 2)])?;
        let out = self.b.reshape(out, &[Dim::ROWS, (kv * group * d).into()])?;
        self.push(out, x.bound * (3.0 * k as f32).sqrt() * 1.01, false)
    }
}
