//! Attention: projections, RoPE, the cache, softmax, in primitives.

use super::block::Shared;
use super::{Importer, Result};
use crate::config::{Architecture, AttentionBias};
use llamac_ir::{Dim, ReduceOp, UnaryOp, Value};

impl Importer<'_> {
    /// Attention of x `[S, hidden]` up to, and without, the output projection: `[S, heads × head_dim]`.
    pub(super) fn attend(&mut self, layer: usize, x: Value, shared: &Shared) -> Result<Value> {
        let c = self.config;
        let prefix = format!("model.layers.{layer}.self_attn");
        let bias = c.attention_bias != AttentionBias::None;
        let q = self.scope("q", |s| s.linear(x, &format!("{prefix}.q_proj"), c.q_width(), bias))?;
        let k = self.scope("k", |s| s.linear(x, &format!("{prefix}.k_proj"), c.kv_width(), bias))?;
        let v = self.scope("v", |s| s.linear(x, &format!("{prefix}.v_proj"), c.kv_width(), bias))?;
        let (q, k) = if c.architecture == Architecture::Olmo2 {
            (
                self.scope("q_norm", |s| s.rms_norm(q, &format!("{prefix}.q_norm.weight")))?,
                self.scope("k_norm", |s| s.rms_norm(k, &format!("{prefix}.k_norm.weight")))?,
            )
        } else {
            (q, k)
        };
        let q = self.scope("q_rope", |s| s.rope(q, c.heads, shared))?;
        let k = self.scope("k_rope", |s| s.rope(k, c.kv_heads, shared))?;
        let keys = self.scope("k_write", |s| {
            let state = s.builder.state(format!("layers.{layer}.k"), c.kv_heads, c.head_dim)?;
            Ok(s.builder.state_write(state, k, shared.slots, shared.positions)?)
        })?;
        let values = self.scope("v_write", |s| {
            let state = s.builder.state(format!("layers.{layer}.v"), c.kv_heads, c.head_dim)?;
            let v = s.builder.reshape(v, &[Dim::ROWS, Dim::Const(c.kv_heads), Dim::Const(c.head_dim)])?;
            Ok(s.builder.state_write(state, v, shared.slots, shared.positions)?)
        })?;
        self.core(q, keys, values, shared)
    }

    /// `softmax(scale · q·keys, causal) · values`
    fn core(&mut self, q: Value, keys: Value, values: Value, shared: &Shared) -> Result<Value> {
        let c = self.config;
        let group = c.heads / c.kv_heads;
        let heads = [Dim::ROWS, Dim::Const(c.kv_heads), Dim::Const(group)];
        let scores = self.scope("scores", |s| {
            let b = &mut s.builder;
            let q = b.reshape(q, &[heads[0], heads[1], heads[2], Dim::Const(c.head_dim)])?;
            let keys = b.index(keys, shared.slots)?;
            Ok(b.dot(q, keys, &[(0, 0), (1, 1)], &[(3, 3)])?)
        })?;
        let weights = self.scope("softmax", |s| {
            let b = &mut s.builder;
            let dims = b.ty(scores).dims.clone();
            let scale = b.splat((1.0 / (c.head_dim as f64).sqrt()) as f32, &dims)?;
            let scaled = b.mul(scores, scale)?;
            let never = b.splat(f32::NEG_INFINITY, &dims)?;
            let masked = b.select(shared.mask, scaled, never)?;
            let max = b.reduce(ReduceOp::Max, masked, 3)?;
            let max = b.broadcast(max, &dims, &[0, 1, 2])?;
            let shifted = b.sub(masked, max)?;
            let exp = b.unary(UnaryOp::Exp, shifted)?;
            let sum = b.reduce(ReduceOp::Sum, exp, 3)?;
            let sum = b.broadcast(sum, &dims, &[0, 1, 2])?;
            Ok(b.div(exp, sum)?)
        })?;
        self.scope("values", |s| {
            let values = s.builder.index(values, shared.slots)?;
            let out = s.builder.dot(weights, values, &[(0, 0), (1, 1)], &[(3, 2)])?;
            Ok(s.builder.reshape(out, &[Dim::ROWS, Dim::Const(c.q_width())])?)
        })
    }

    /// The output projection of attention.
    pub(super) fn output_projection(&mut self, layer: &str, attended: Value) -> Result<Value> {
        let bias = self.config.attention_bias == AttentionBias::All;
        self.linear(attended, &format!("{layer}.self_attn.o_proj"), self.config.hidden, bias)
    }

    /// Rotates x `[S, heads × head_dim]` in half-split order: `[S, heads, head_dim]`.
    fn rope(&mut self, x: Value, heads: usize, shared: &Shared) -> Result<Value> {
        let half = self.config.head_dim / 2;
        let b = &mut self.builder;
        let x = b.reshape(x, &[Dim::ROWS, Dim::Const(heads), Dim::Const(2 * half)])?;
        let dims = [Dim::ROWS, Dim::Const(heads), Dim::Const(half)];
        let cos = b.broadcast(shared.cos, &dims, &[0, 2])?;
        let sin = b.broadcast(shared.sin, &dims, &[0, 2])?;
        let (x1, x2) = (b.slice(x, 2, 0, half)?, b.slice(x, 2, half, half)?);
        let (a, c) = (b.mul(x1, cos)?, b.mul(x2, sin)?);
        let (d, e) = (b.mul(x2, cos)?, b.mul(x1, sin)?);
        let (low, high) = (b.sub(a, c)?, b.add(d, e)?);
        Ok(b.concat(&[low, high], 2)?)
    }
}
