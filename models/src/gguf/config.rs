//! Metadata keys → [`Config`].

use super::names::{self, EMBEDDING, HEAD, ROPE_FACTORS};
use super::{Gguf, GgufError, Value, tokens};
use crate::config::{Architecture, AttentionBias, Config, limits};
use llamac_formats::{DType, RopeScaling, RopeTable};

/// What llama.cpp takes where no base is given.
const DEFAULT_THETA: f64 = 10_000.0;

/// Checks the keys that describe the model.
pub(super) fn config<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<Config, GgufError> {
    whole(gguf)?;
    let architecture = architecture(gguf)?;
    let arch = names::architecture(architecture);
    let key = |name: &str| format!("{arch}.{name}");
    refuse_unknown_computation(gguf, arch)?;

    let hidden = gguf.required_size(&key("embedding_length"), limits::WIDTH)?;
    let layers = gguf.required_size(&key("block_count"), limits::LAYERS)?;
    let heads = gguf.required_size(&key("attention.head_count"), limits::HEADS)?;
    let kv_heads = gguf.size(&key("attention.head_count_kv"), limits::HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of {} = {heads}", key("attention.head_count"));
        return Err(gguf.invalid(&key("attention.head_count_kv"), kv_heads, expected));
    }
    let head_dim = head_dim(gguf, arch, hidden, heads)?;
    let eps = key("attention.layer_norm_rms_epsilon");
    let norm_eps = gguf.number(&eps, "a number from 0 to below 1", |x| (0.0..1.0).contains(&x))?;
    let layer = |name: &str| gguf.place(&format!("blk.0.{name}")).is_some();
    let attention_bias = match (layer("attn_q.bias"), layer("attn_output.bias")) {
        (false, false) => AttentionBias::None,
        (true, false) => AttentionBias::Qkv,
        _ => AttentionBias::All,
    };
    let vocab = vocab(gguf, arch)?;
    let special = tokens::special(gguf, vocab)?;
    Ok(Config {
        architecture,
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        intermediate: gguf.required_size(&key("feed_forward_length"), limits::WIDTH)?,
        vocab,
        norm_eps: norm_eps.ok_or_else(|| gguf.missing(&eps, "a number from 0 to below 1"))?,
        context: gguf.required_size(&key("context_length"), limits::CONTEXT)?,
        rope: rope(gguf, arch, head_dim)?,
        attention_bias,
        mlp_bias: layer("ffn_gate.bias"),
        tied: gguf.place(HEAD).is_none(),
        dtype: None,
        bos: special.bos,
        eos: special.end_of_generation,
    })
}

/// A model cut into files is not put together here.
fn whole<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<(), GgufError> {
    match gguf.integer("split.count", 0, u64::from(u16::MAX))? {
        Some(parts) if parts > 1 => Err(gguf.unsupported(
            "split.count",
            parts,
            "a model in one file: join the parts with llama-gguf-split --merge",
        )),
        _ => Ok(()),
    }
}

fn architecture<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<Architecture, GgufError> {
    const KEY: &str = "general.architecture";
    let known = Architecture::ALL.map(names::architecture).join(", ");
    let Some(name) = gguf.text(KEY)? else { return Err(gguf.missing(KEY, format!("one of {known}"))) };
    let found = Architecture::ALL.into_iter().find(|a| names::architecture(*a) == name);
    found.ok_or_else(|| gguf.unsupported(KEY, format!("{name:?}"), known))
}

/// Keys that change what is computed, with the one value that changes nothing.
fn refuse_unknown_computation<B: AsRef<[u8]>>(gguf: &Gguf<B>, arch: &str) -> Result<(), GgufError> {
    let neutral = |key: &str, neutral: f64| {
        let Some(value) = gguf.value(key) else { return Ok(()) };
        let number = match value {
            Value::Bool(b) => Some(f64::from(u8::from(b))),
            Value::Float(x) => Some(x),
            other => other.integer().map(|n| n as f64),
        };
        if number == Some(neutral) { Ok(()) } else { Err(gguf.unsupported(key, value.show(), neutral.to_string())) }
    };
    for (name, value) in [
        ("expert_count", 0.0),
        ("use_parallel_residual", 0.0),
        ("attention.causal", 1.0),
        ("attention.sliding_window", 0.0),
        ("attention.max_alibi_bias", 0.0),
        ("attention.clamp_kqv", 0.0),
        ("attention.temperature_scale", 0.0),
        ("attn_logit_softcapping", 0.0),
        ("final_logit_softcapping", 0.0),
        ("logit_scale", 1.0),
        ("embedding_scale", 1.0),
        ("residual_scale", 1.0),
        ("rope.scaling.attn_factor", 1.0),
        ("rope.scaling.yarn_ext_factor", 0.0),
    ] {
        neutral(&format!("{arch}.{name}"), value)?;
    }
    Ok(())
}

fn head_dim<B: AsRef<[u8]>>(gguf: &Gguf<B>, arch: &str, hidden: usize, heads: usize) -> Result<usize, GgufError> {
    let key = |name: &str| format!("{arch}.{name}");
    let width = match gguf.size(&key("attention.key_length"), limits::HEAD_DIM)? {
        Some(width) => width,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let expected = format!("a divisor of {} = {hidden}", key("embedding_length"));
            return Err(gguf.invalid(&key("attention.head_count"), heads, expected));
        }
    };
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(found) = gguf.size(&key(name), limits::HEAD_DIM)?.filter(|&found| found != width) {
            return Err(gguf.unsupported(&key(name), found, format!("the width of a head, {width}")));
        }
    }
    if width % 2 != 0 || heads.saturating_mul(width) > limits::WIDTH {
        let expected = format!("an even number whose product with {heads} heads is at most {}", limits::WIDTH);
        return Err(gguf.invalid(&key("attention.key_length"), width, expected));
    }
    Ok(width)
}

/// Rows of the embedding, which the keys must not contradict.
fn vocab<B: AsRef<[u8]>>(gguf: &Gguf<B>, arch: &str) -> Result<usize, GgufError> {
    let key = format!("{arch}.vocab_size");
    let said = gguf.size(&key, limits::VOCAB)?;
    let Some(place) = gguf.place(EMBEDDING) else {
        let expected = said.into_iter().collect();
        return Err(GgufError::MissingTensor { origin: gguf.origin().into(), tensor: EMBEDDING.into(), expected });
    };
    let rows = place.dims[0];
    match said {
        Some(found) if found != rows => Err(gguf.invalid(&key, found, format!("{rows}, the rows of `{EMBEDDING}`"))),
        _ if rows > limits::VOCAB => Err(GgufError::Tensor {
            origin: gguf.origin().into(),
            tensor: EMBEDDING.into(),
            found: format!("has {rows} rows"),
            expected: format!("at most {}", limits::VOCAB),
        }),
        _ => Ok(rows),
    }
}

fn rope<B: AsRef<[u8]>>(gguf: &Gguf<B>, arch: &str, head_dim: usize) -> Result<RopeTable, GgufError> {
    let key = |name: &str| format!("{arch}.rope.{name}");
    let theta = gguf.positive(&key("freq_base"))?.unwrap_or(DEFAULT_THETA);
    let factor = match gguf.positive(&key("scaling.factor"))? {
        // llama.cpp's older name.
        None => gguf.positive(&key("scale_linear"))?,
        some => some,
    };
    let kind = key("scaling.type");
    let linear = match gguf.text(&kind)? {
        Some("none") => None,
        Some("linear") | None => factor.filter(|&factor| factor != 1.0),
        Some(other) => return Err(gguf.unsupported(&kind, format!("{other:?}"), "none, linear")),
    };
    for name in ["rope_factors_long.weight", "rope_factors_short.weight"] {
        if gguf.place(name).is_some() {
            return Err(GgufError::Tensor {
                origin: gguf.origin().into(),
                tensor: name.into(),
                found: "scales frequencies by the length of the text".into(),
                expected: format!("`{ROPE_FACTORS}` or none"),
            });
        }
    }
    let scaling = match (linear, rope_factors(gguf, head_dim)?) {
        (Some(factor), Some(_)) => {
            let supported = format!("1 beside the tensor `{ROPE_FACTORS}`");
            return Err(gguf.unsupported(&key("scaling.factor"), factor, supported));
        }
        (Some(factor), None) => RopeScaling::Linear { factor },
        (None, Some(factors)) => RopeScaling::Factors { factors },
        (None, None) => RopeScaling::Default,
    };
    Ok(RopeTable { theta, head_dim, scaling })
}

/// The divisors of the frequencies, where the file has some.
fn rope_factors<B: AsRef<[u8]>>(gguf: &Gguf<B>, head_dim: usize) -> Result<Option<Vec<f32>>, GgufError> {
    let Some(place) = gguf.place(ROPE_FACTORS) else { return Ok(None) };
    let wrong = |found: String, expected: String| {
        Err(GgufError::Tensor { origin: gguf.origin().into(), tensor: ROPE_FACTORS.into(), found, expected })
    };
    if place.dtype != DType::F32 || place.dims != [head_dim / 2] {
        let expected = format!("f32[{}], half the width of a head", head_dim / 2);
        return wrong(format!("is {}{:?}", place.dtype, place.dims), expected);
    }
    let (values, _) = gguf.bytes(place).as_chunks::<4>();
    let factors: Vec<f32> = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
    match factors.iter().find(|f| !(f.is_normal() && **f > 0.0)) {
        Some(bad) => wrong(format!("holds {bad}"), "positive numbers".into()),
        None => Ok(Some(factors)),
    }
}
