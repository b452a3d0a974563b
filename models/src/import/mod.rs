//! A configuration → a graph of primitives.
//!
//! One importer serves the whole family; what differs between architectures (where norms stand, which projections have
//! biases) is read off the configuration. The conventions that it keeps are in `docs/ARCHITECTURE.md`.

mod attention;
mod block;

use crate::config::{Architecture, Config};
use block::Shared;
use llamac_ir::infer::TypeError;
use llamac_ir::{Bounds, Builder, CompareOp, DType, Dim, Graph, Recipe, RopePart, Type, Value};
use thiserror::Error;

/// Why no graph could be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImportError {
    /// The checkpoint has no tensor of that name.
    #[error("the model has no tensor {0:?}: complete the checkpoint, or correct its config.json")]
    MissingTensor(String),
    /// A typing rule was broken.
    #[error("while importing: {0}")]
    Type(#[from] TypeError),
}

/// How a source stores a tensor of [`Config::tensors`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How it is made from the source's tensors.
    pub recipe: Recipe,
    /// Its elements.
    pub dtype: DType,
}

/// Writes the model as a graph with inputs `tokens`, `positions`, `slots` (`i32[S]`) and `outputs` (`i32[R]`), and the
/// output `logits` (`f32[R, vocab]`). `dtype` tells how the checkpoint stores a tensor.
///
/// # Errors
/// A tensor that `dtype` does not know.
pub fn import(
    config: &Config,
    name: &str,
    bounds: Bounds,
    dtype: &dyn Fn(&str) -> Option<DType>,
) -> Result<Graph, ImportError> {
    import_stored(config, name, bounds, &|tensor| {
        Some(Stored { recipe: Recipe::tensor(tensor), dtype: dtype(tensor)? })
    })
}

/// The same from a source that has names and orders of its own. A tensor may be in any format that weights have, each in
/// its own; those of one axis must be floats.
///
/// # Errors
/// A tensor that `stored` does not know.
pub fn import_stored(
    config: &Config,
    name: &str,
    bounds: Bounds,
    stored: &dyn Fn(&str) -> Option<Stored>,
) -> Result<Graph, ImportError> {
    let mut importer = Importer { builder: Builder::new(name, bounds), config, stored };
    importer.model()?;
    Ok(importer.builder.finish())
}

/// What every part of the importer needs.
struct Importer<'a> {
    builder: Builder,
    config: &'a Config,
    stored: &'a dyn Fn(&str) -> Option<Stored>,
}

type Result<T, E = ImportError> = std::result::Result<T, E>;

impl Importer<'_> {
    fn model(&mut self) -> Result<()> {
        let c = self.config;
        let bounds = self.builder.graph().bounds;
        let ids = |dim| Type::new(DType::I32, [dim]);
        let tokens = self.builder.input("tokens", ids(Dim::ROWS), Some(c.vocab))?;
        let positions = self.builder.input("positions", ids(Dim::ROWS), Some(bounds.tokens))?;
        let slots = self.builder.input("slots", ids(Dim::ROWS), Some(bounds.slots))?;
        let outputs = self.builder.input("outputs", ids(Dim::OUTPUTS), Some(bounds.rows))?;

        let embed = self.weight("model.embed_tokens.weight", &[c.vocab, c.hidden])?;
        let mut x = self.scope("embed", |s| Ok(s.builder.gather(embed, tokens)?))?;
        let shared = self.shared(positions, slots)?;
        for layer in 0..c.layers {
            let last = layer + 1 == c.layers;
            x = self.scope(format!("layers.{layer}"), |s| s.layer(layer, x, &shared, last.then_some(outputs)))?;
        }
        x = self.scope("norm", |s| s.rms_norm(x, "model.norm.weight"))?;
        let head = if c.tied { embed } else { self.weight("lm_head.weight", &[c.vocab, c.hidden])? };
        let logits = self.scope("head", |s| Ok(s.builder.linear(x, head)?))?;
        self.builder.output("logits", logits);
        Ok(())
    }

    /// What all layers use: RoPE's cosines and sines of the rows, and the causal mask.
    fn shared(&mut self, positions: Value, slots: Value) -> Result<Shared> {
        let c = self.config;
        let (cos, sin) = self.scope("rope", |s| {
            let cos = s.builder.rope_table(c.rope.clone(), RopePart::Cos)?;
            let sin = s.builder.rope_table(c.rope.clone(), RopePart::Sin)?;
            Ok((s.builder.gather(cos, positions)?, s.builder.gather(sin, positions)?))
        })?;
        let mask = self.scope("mask", |s| {
            let group = c.heads / c.kv_heads;
            let dims = [Dim::ROWS, Dim::Const(c.kv_heads), Dim::Const(group), Dim::TOKENS];
            let t = s.builder.iota(Dim::TOKENS)?;
            let t = s.builder.broadcast(t, &dims, &[3])?;
            let p = s.builder.broadcast(positions, &dims, &[0])?;
            Ok(s.builder.compare(CompareOp::Le, t, p)?)
        })?;
        Ok(Shared { positions, slots, cos, sin, mask })
    }

    fn scope<T>(&mut self, name: impl Into<String>, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.builder.enter(name);
        let result = f(self);
        self.builder.leave();
        result
    }

    fn weight(&mut self, name: &str, dims: &[usize]) -> Result<Value> {
        let stored = (self.stored)(name).ok_or_else(|| ImportError::MissingTensor(name.to_owned()))?;
        Ok(self.builder.weight(stored.recipe, stored.dtype, dims)?)
    }

    /// `x · Wᵀ`, plus the bias where there is one.
    fn linear(&mut self, x: Value, name: &str, n: usize, bias: bool) -> Result<Value> {
        let k = match self.builder.ty(x).dims.last() {
            Some(Dim::Const(k)) => *k,
            _ => self.config.hidden,
        };
        let w = self.weight(&format!("{name}.weight"), &[n, k])?;
        let y = self.builder.linear(x, w)?;
        if !bias {
            return Ok(y);
        }
        let b = self.weight(&format!("{name}.bias"), &[n])?;
        let b = self.builder.cast(b, DType::F32)?;
        let dims = self.builder.ty(y).dims.clone();
        let b = self.builder.broadcast(b, &dims, &[1])?;
        Ok(self.builder.add(y, b)?)
    }

    /// Whether norms stand before attention and MLP (Llama, Qwen) or after (OLMo 2).
    fn norms_first(&self) -> bool {
        self.config.architecture != Architecture::Olmo2
    }
}
