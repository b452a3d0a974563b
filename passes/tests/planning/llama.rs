//! A Llama in primitives, as importers emit it (`docs/ARCHITECTURE.md`, "Import conventions").

use llamac_formats::rope::{RopeScaling, RopeTable};
use llamac_ir::infer::TypeError;
use llamac_ir::{
    BinaryOp, Bounds, Builder, CompareOp, DType, Dim, Graph, Recipe, ReduceOp, RopePart, Type, UnaryOp, Value,
};

/// The sizes of a model.
#[derive(Clone, Copy)]
pub struct Shape {
    pub dim: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub ffn: usize,
    pub vocab: usize,
    pub dtype: DType,
    pub tied: bool,
}

/// `stories260K`.
pub const SMALL: Shape =
    Shape { dim: 64, layers: 5, heads: 8, kv_heads: 4, ffn: 172, vocab: 512, dtype: DType::F32, tied: true };

/// Llama-3.2-1B.
pub const ONE_B: Shape =
    Shape { dim: 2048, layers: 16, heads: 32, kv_heads: 8, ffn: 8192, vocab: 128_256, dtype: DType::BF16, tied: true };

struct Model {
    b: Builder,
    shape: Shape,
    positions: Value,
    slots: Value,
    cos: Value,
    sin: Value,
    mask: Value,
}

type Result<T> = std::result::Result<T, TypeError>;

/// The graph of a model at some bounds.
pub fn llama(shape: Shape, bounds: Bounds) -> Graph {
    build(shape, bounds).expect("the model is well typed")
}

fn build(shape: Shape, bounds: Bounds) -> Result<Graph> {
    let mut b = Builder::new("llama", bounds);
    let s = Dim::ROWS;
    let ids = |d| Type::new(DType::I32, [d]);
    let tokens = b.input("tokens", ids(s), Some(shape.vocab))?;
    let positions = b.input("positions", ids(s), Some(bounds.tokens))?;
    let slots = b.input("slots", ids(s), Some(bounds.slots))?;
    let outputs = b.input("outputs", ids(Dim::OUTPUTS), Some(bounds.rows))?;
    let d = shape.dim / shape.heads;
    let kv = shape.kv_heads;
    let table = RopeTable { theta: 10000.0, head_dim: d, scaling: RopeScaling::Default };
    let tables = [RopePart::Cos, RopePart::Sin].map(|part| {
        let t = b.rope_table(table.clone(), part)?;
        b.gather(t, positions)
    });
    let [cos, sin] = tables;
    let (cos, sin) = (cos?, sin?);
    let scores = [s, Dim::Const(kv), Dim::Const(shape.heads / kv), Dim::TOKENS];
    let times = b.iota(Dim::TOKENS)?;
    let times = b.broadcast(times, &scores, &[3])?;
    let now = b.broadcast(positions, &scores, &[0])?;
    let mask = b.compare(CompareOp::Le, times, now)?;
    let embed = b.weight(Recipe::tensor("embed"), shape.dtype, &[shape.vocab, shape.dim])?;
    let mut x = b.scope("embed", |b| b.gather(embed, tokens))?;
    let mut m = Model { b, shape, positions, slots, cos, sin, mask };
    for layer in 0..shape.layers {
        let last = layer + 1 == shape.layers;
        x = m.layer(layer, x, last.then_some(outputs))?;
    }
    let x = m.norm("norm", x)?;
    let head = if shape.tied { embed } else { m.weight("head", &[shape.vocab, shape.dim])? };
    let logits = m.b.scope("head", |b| b.linear(x, head))?;
    m.b.output("logits", logits);
    Ok(m.b.finish())
}

impl Model {
    fn weight(&mut self, name: &str, dims: &[usize]) -> Result<Value> {
        let dtype = self.shape.dtype;
        self.b.weight(Recipe::tensor(format!("{name}.weight")), dtype, dims)
    }

    fn linear(&mut self, name: &str, x: Value, n: usize) -> Result<Value> {
        let k = self.b.ty(x).dims[1].as_const().expect("constant inputs");
        let w = self.weight(name, &[n, k])?;
        self.b.scope(name, |b| b.linear(x, w))
    }

    fn norm(&mut self, name: &str, x: Value) -> Result<Value> {
        let w = self.weight(name, &[self.shape.dim])?;
        self.b.scope(name, |b| {
            let dims = b.ty(x).dims.clone();
            let rows = [dims[0]];
            let sq = b.mul(x, x)?;
            let sum = b.reduce(ReduceOp::Sum, sq, 1)?;
            let scale = b.splat(1.0 / 64.0, &rows)?;
            let mean = b.mul(sum, scale)?;
            let eps = b.splat(1e-5, &rows)?;
            let mean = b.add(mean, eps)?;
            let r = b.unary(UnaryOp::Rsqrt, mean)?;
            let r = b.broadcast(r, &dims, &[0])?;
            let x = b.mul(x, r)?;
            let w = b.cast(w, DType::F32)?;
            let w = b.broadcast(w, &dims, &[1])?;
            b.mul(x, w)
        })
    }

    fn rope(&mut self, name: &str, x: Value, heads: usize) -> Result<Value> {
        let d = self.shape.dim / self.shape.heads;
        let (cos, sin) = (self.cos, self.sin);
        self.b.scope(name, |b| {
            let x = b.reshape(x, &[Dim::ROWS, heads.into(), d.into()])?;
            let half = [Dim::ROWS, heads.into(), (d / 2).into()];
            let cos = b.broadcast(cos, &half, &[0, 2])?;
            let sin = b.broadcast(sin, &half, &[0, 2])?;
            let x1 = b.slice(x, 2, 0, d / 2)?;
            let x2 = b.slice(x, 2, d / 2, d / 2)?;
            let a = b.mul(x1, cos)?;
            let c = b.mul(x2, sin)?;
            let first = b.sub(a, c)?;
            let a = b.mul(x2, cos)?;
            let c = b.mul(x1, sin)?;
            let second = b.add(a, c)?;
            b.concat(&[first, second], 2)
        })
    }

    fn layer(&mut self, layer: usize, x: Value, outputs: Option<Value>) -> Result<Value> {
        let Shape { dim, heads, kv_heads: kv, ffn, .. } = self.shape;
        let (d, g, s) = (dim / heads, heads / kv, Dim::ROWS);
        let name = |part: &str| format!("layers.{layer}.{part}");
        let (positions, slots, mask) = (self.positions, self.slots, self.mask);
        let normed = self.norm(&name("attn.norm"), x)?;
        let q = self.linear(&name("attn.q"), normed, heads * d)?;
        let k = self.linear(&name("attn.k"), normed, kv * d)?;
        let v = self.linear(&name("attn.v"), normed, kv * d)?;
        let q = self.rope(&name("attn.q_rope"), q, heads)?;
        let k = self.rope(&name("attn.k_rope"), k, kv)?;
        let b = &mut self.b;
        let keys = b.state(name("k"), kv, d)?;
        let values = b.state(name("v"), kv, d)?;
        let keys = b.scope(name("attn.k_write"), |b| b.state_write(keys, k, slots, positions))?;
        let values = b.scope(name("attn.v_write"), |b| {
            let v = b.reshape(v, &[s, kv.into(), d.into()])?;
            b.state_write(values, v, slots, positions)
        })?;
        let out = b.scope(name("attn"), |b| {
            let q = b.reshape(q, &[s, kv.into(), g.into(), d.into()])?;
            let keys = b.index(keys, slots)?;
            let values = b.index(values, slots)?;
            let scores = b.dot(q, keys, &[(0, 0), (1, 1)], &[(3, 3)])?;
            let dims = b.ty(scores).dims.clone();
            let scale = b.splat(1.0 / (d as f32).sqrt(), &dims)?;
            let scores = b.mul(scores, scale)?;
            let never = b.splat(f32::NEG_INFINITY, &dims)?;
            let scores = b.select(mask, scores, never)?;
            let max = b.reduce(ReduceOp::Max, scores, 3)?;
            let max = b.broadcast(max, &dims, &[0, 1, 2])?;
            let e = b.sub(scores, max)?;
            let e = b.unary(UnaryOp::Exp, e)?;
            let sum = b.reduce(ReduceOp::Sum, e, 3)?;
            let sum = b.broadcast(sum, &dims, &[0, 1, 2])?;
            let p = b.binary(BinaryOp::Div, e, sum)?;
            let out = b.dot(p, values, &[(0, 0), (1, 1)], &[(3, 2)])?;
            b.reshape(out, &[s, dim.into()])
        })?;
        let (out, x) = match outputs {
            Some(outputs) => (self.b.gather(out, outputs)?, self.b.gather(x, outputs)?),
            None => (out, x),
        };
        let out = self.linear(&name("attn.o"), out, dim)?;
        let x = self.b.scope(name("attn.residual"), |b| b.add(x, out))?;
        let normed = self.norm(&name("mlp.norm"), x)?;
        let gate = self.linear(&name("mlp.gate"), normed, ffn)?;
        let up = self.linear(&name("mlp.up"), normed, ffn)?;
        let act = self.b.scope(name("mlp.act"), |b| {
            let dims = b.ty(gate).dims.clone();
            let neg = b.unary(UnaryOp::Neg, gate)?;
            let e = b.unary(UnaryOp::Exp, neg)?;
            let one = b.splat(1.0, &dims)?;
            let e = b.add(one, e)?;
            let silu = b.binary(BinaryOp::Div, gate, e)?;
            b.mul(silu, up)
        })?;
        let down = self.linear(&name("mlp.down"), act, dim)?;
        self.b.scope(name("mlp.residual"), |b| b.add(x, down))
    }
}
