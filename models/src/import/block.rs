//! A layer: norms, residuals, the MLP.

use super::{Importer, Result};
use llamac_ir::{BinaryOp, DType, ReduceOp, UnaryOp, Value};

/// Values that every layer reads.
pub(super) struct Shared {
    pub positions: Value,
    pub slots: Value,
    /// `f32[S, head_dim/2]`
    pub cos: Value,
    /// `f32[S, head_dim/2]`
    pub sin: Value,
    /// `bool[S, kv_heads, group, T]`
    pub mask: Value,
}

impl Importer<'_> {
    /// One layer on the residual stream x. In the last one `outputs` picks the rows that go on.
    pub(super) fn layer(&mut self, layer: usize, x: Value, shared: &Shared, outputs: Option<Value>) -> Result<Value> {
        let prefix = format!("model.layers.{layer}");
        let norms_first = self.norms_first();
        let x = self.scope("attn", |s| {
            let h = if norms_first {
                s.scope("norm", |s| s.rms_norm(x, &format!("{prefix}.input_layernorm.weight")))?
            } else {
                x
            };
            let mut attended = s.attend(layer, h, shared)?;
            let mut x = x;
            if let Some(outputs) = outputs {
                (attended, x) =
                    s.scope("outputs", |s| Ok((s.builder.gather(attended, outputs)?, s.builder.gather(x, outputs)?)))?;
            }
            let mut y = s.scope("o", |s| s.output_projection(&prefix, attended))?;
            if !norms_first {
                y = s.scope("norm", |s| s.rms_norm(y, &format!("{prefix}.post_attention_layernorm.weight")))?;
            }
            s.scope("residual", |s| Ok(s.builder.add(x, y)?))
        })?;
        self.scope("mlp", |s| {
            let h = if norms_first {
                s.scope("norm", |s| s.rms_norm(x, &format!("{prefix}.post_attention_layernorm.weight")))?
            } else {
                x
            };
            let mut y = s.mlp(&prefix, h)?;
            if !norms_first {
                y = s.scope("norm", |s| s.rms_norm(y, &format!("{prefix}.post_feedforward_layernorm.weight")))?;
            }
            s.scope("residual", |s| Ok(s.builder.add(x, y)?))
        })
    }

    /// `down(silu(gate(x)) · up(x))`
    fn mlp(&mut self, prefix: &str, x: Value) -> Result<Value> {
        let c = self.config;
        let gate =
            self.scope("gate", |s| s.linear(x, &format!("{prefix}.mlp.gate_proj"), c.intermediate, c.mlp_bias))?;
        let up = self.scope("up", |s| s.linear(x, &format!("{prefix}.mlp.up_proj"), c.intermediate, c.mlp_bias))?;
        let h = self.scope("act", |s| {
            let silu = s.silu(gate)?;
            Ok(s.builder.mul(silu, up)?)
        })?;
        self.scope("down", |s| s.linear(h, &format!("{prefix}.mlp.down_proj"), c.hidden, c.mlp_bias))
    }

    /// `x / (1 + e^−x)`
    fn silu(&mut self, x: Value) -> Result<Value> {
        let dims = self.builder.ty(x).dims.clone();
        let neg = self.builder.unary(UnaryOp::Neg, x)?;
        let exp = self.builder.unary(UnaryOp::Exp, neg)?;
        let one = self.builder.splat(1.0, &dims)?;
        let denominator = self.builder.add(one, exp)?;
        Ok(self.builder.binary(BinaryOp::Div, x, denominator)?)
    }

    /// RMSNorm over the last axis of x `[rows, width]`, times the weight of that name.
    pub(super) fn rms_norm(&mut self, x: Value, weight: &str) -> Result<Value> {
        let dims = self.builder.ty(x).dims.clone();
        let width = dims.last().and_then(|d| d.as_const()).unwrap_or(self.config.hidden);
        let eps = self.config.norm_eps as f32;
        let w = self.weight(weight, &[width])?;
        let b = &mut self.builder;
        let square = b.mul(x, x)?;
        let sum = b.reduce(ReduceOp::Sum, square, 1)?;
        let inverse_width = b.splat((1.0 / width as f64) as f32, &dims[..1])?;
        let mean = b.mul(sum, inverse_width)?;
        let eps = b.splat(eps, &dims[..1])?;
        let mean = b.add(mean, eps)?;
        let scale = b.unary(UnaryOp::Rsqrt, mean)?;
        let scale = b.broadcast(scale, &dims, &[0])?;
        let normed = b.mul(x, scale)?;
        let w = b.cast(w, DType::F32)?;
        let w = b.broadcast(w, &dims, &[1])?;
        Ok(b.mul(normed, w)?)
    }
}
