//! RoPE parameters: `rope_theta` with `rope_scaling`, or the newer `rope_parameters`.

use super::ConfigError;
use super::fields::Fields;
use llamac_formats::{RopeScaling, RopeTable};
use serde_json::Value;

/// What transformers takes where no base is given.
const DEFAULT_THETA: f64 = 10_000.0;
const KINDS: &str = "default, linear, llama3";
/// What kinds other than the default have beside their name.
const SCALING_KEYS: [&str; 4] = ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"];

/// The table that `config.json` describes, for heads of an (already checked) width.
pub(super) fn rope_table(top: &Fields<'_>, head_dim: usize) -> Result<RopeTable, ConfigError> {
    refuse_partial(top)?;
    let theta = top.positive("rope_theta")?;
    let old = top.object("rope_scaling")?;
    let new = top.object("rope_parameters")?;
    for (key, fields) in [("rope_scaling", &old), ("rope_parameters", &new)] {
        let Some(fields) = fields else { continue };
        refuse_partial(fields)?;
        if let Some((kind, value)) = fields.nested() {
            return Err(fields.unsupported(kind, value, "one set of parameters for all layers"));
        }
        if let (Some(outer), Some(inner)) = (theta, fields.positive("rope_theta")?)
            && outer != inner
        {
            return Err(top.contradiction("rope_theta", &format!("{key}.rope_theta"), format!("{outer} and {inner}")));
        }
    }
    let read = |fields: &Option<Fields<'_>>| match fields {
        Some(fields) => Ok(Some((fields.positive("rope_theta")?, scaling(fields)?))),
        None => Ok(None),
    };
    let (inner, scaling) = match (read(&old)?, read(&new)?) {
        (Some(old), Some(new)) if old.1 != new.1 => {
            let detail = format!("{} and {} scaling, or different factors", old.1.name(), new.1.name());
            return Err(top.contradiction("rope_scaling", "rope_parameters", detail));
        }
        (Some(old), Some(new)) => (new.0.or(old.0), new.1),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => (None, RopeScaling::Default),
    };
    Ok(RopeTable { theta: inner.or(theta).unwrap_or(DEFAULT_THETA), head_dim, scaling })
}

/// Rotation of a part of each head only is another graph.
fn refuse_partial(fields: &Fields<'_>) -> Result<(), ConfigError> {
    match fields.value("partial_rotary_factor") {
        Some(value) if value.as_f64() != Some(1.0) => {
            Err(fields.unsupported("partial_rotary_factor", value, "1.0 (rotation of whole heads)"))
        }
        _ => Ok(()),
    }
}

fn scaling(fields: &Fields<'_>) -> Result<RopeScaling, ConfigError> {
    let (kind, legacy) = (fields.text("rope_type")?, fields.text("type")?);
    if let (Some(kind), Some(legacy)) = (kind, legacy)
        && kind != legacy
    {
        return Err(fields.contradiction("rope_type", "type", format!("{kind} and {legacy}")));
    }
    let key = if kind.is_some() { "rope_type" } else { "type" };
    let required = |key: &str| fields.positive(key)?.ok_or_else(|| fields.missing(key, "a positive number"));
    match kind.or(legacy) {
        Some("default") | None => {
            // Without a kind the object must not hold anything that one would need.
            let scales = |key: &str| match fields.value(key) {
                Some(value) => key != "factor" || value.as_f64() != Some(1.0),
                None => false,
            };
            match SCALING_KEYS.into_iter().find(|key| scales(key)) {
                Some(key) if kind.or(legacy).is_none() => {
                    Err(fields.missing("rope_type", format!("the kind that `{key}` belongs to: {KINDS}")))
                }
                _ => Ok(RopeScaling::Default),
            }
        }
        Some("linear") => Ok(RopeScaling::Linear { factor: required("factor")? }),
        Some("llama3") => {
            let (low, high) = (required("low_freq_factor")?, required("high_freq_factor")?);
            if high as f32 <= low as f32 {
                let found = Value::from(high);
                return Err(fields.invalid("high_freq_factor", &found, format!("more than low_freq_factor = {low}")));
            }
            Ok(RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: required("original_max_position_embeddings")?,
            })
        }
        Some(other) => Err(fields.unsupported(key, &Value::from(other), KINDS)),
    }
}
