//! Configuration and vocabulary as keys.

use super::{Export, ExportError, Keys, Planned};
use crate::gguf::{names, tokens};
use llamac_formats::vocabulary::{Class, Description, Kind, Prefix};
use llamac_formats::{BlockFormat, DType, RopeScaling};

/// All keys of the file.
pub(super) fn keys(export: &Export<'_>, tensors: &[Planned]) -> Result<Keys, ExportError> {
    let c = export.config;
    let arch = names::architecture(c.architecture);
    let mut keys = Keys::default();
    keys.text("general.architecture", arch);
    keys.text("general.name", export.name);
    // Sizes are within limits far below 2³² ([`crate::config::limits`]).
    let mut size = |name: &str, n: usize| keys.u32(&format!("{arch}.{name}"), u32::try_from(n).unwrap_or(u32::MAX));
    size("context_length", c.context);
    size("embedding_length", c.hidden);
    size("block_count", c.layers);
    size("feed_forward_length", c.intermediate);
    size("attention.head_count", c.heads);
    size("attention.head_count_kv", c.kv_heads);
    size("attention.key_length", c.head_dim);
    size("attention.value_length", c.head_dim);
    size("rope.dimension_count", c.head_dim);
    size("vocab_size", c.vocab);
    keys.f32(&format!("{arch}.rope.freq_base"), c.rope.theta as f32);
    if let RopeScaling::Linear { factor } = c.rope.scaling {
        keys.text(&format!("{arch}.rope.scaling.type"), "linear");
        keys.f32(&format!("{arch}.rope.scaling.factor"), factor as f32);
    }
    keys.f32(&format!("{arch}.attention.layer_norm_rms_epsilon"), c.norm_eps as f32);
    vocabulary(export, &mut keys)?;
    if let Some(template) = export.chat_template {
        keys.text("tokenizer.chat_template", template);
    }
    if tensors.iter().any(|t| matches!(t.dtype, DType::Block(_))) {
        keys.u32("general.quantization_version", 2);
    }
    keys.u32("general.file_type", file_type(export, tensors));
    Ok(keys)
}

fn vocabulary(export: &Export<'_>, keys: &mut Keys) -> Result<(), ExportError> {
    let c = export.config;
    let Some(description) = export.vocabulary else {
        // llama.cpp's word for a model that is fed ids.
        keys.text("tokenizer.ggml.model", "none");
        special(export, None, keys);
        return Ok(());
    };
    let said = tokens::keys(description);
    keys.text("tokenizer.ggml.model", said.model);
    keys.text("tokenizer.ggml.pre", said.pre);
    // Every embedding has a token, or llama.cpp counts wrong.
    let pads = (description.tokens.len()..c.vocab).map(|id| format!("[PAD{id}]"));
    let texts: Vec<String> = description.tokens.iter().map(|t| t.text.clone()).chain(pads).collect();
    if texts.len() > c.vocab {
        return Err(ExportError::Inexpressible {
            what: format!("a vocabulary of {} tokens for {} embeddings", texts.len(), c.vocab),
        });
    }
    keys.texts("tokenizer.ggml.tokens", &texts);
    let mut classes: Vec<i32> = description.tokens.iter().map(|t| t.class as i32).collect();
    classes.resize(texts.len(), Class::Unused as i32);
    if let Some(mut scores) = said.scores {
        scores.resize(texts.len(), 0.0);
        keys.f32s("tokenizer.ggml.scores", &scores);
    }
    keys.i32s("tokenizer.ggml.token_type", &classes);
    if let Some(merges) = said.merges {
        keys.texts("tokenizer.ggml.merges", &merges);
    }
    if description.kind == Kind::SentencePiece {
        keys.flag("tokenizer.ggml.add_space_prefix", description.prefix != Prefix::None);
        if let Some(unknown) = description.unknown {
            keys.u32("tokenizer.ggml.unknown_token_id", unknown);
        }
    }
    special(export, Some(description), keys);
    Ok(())
}

/// Begin and end tokens.
fn special(export: &Export<'_>, description: Option<&Description>, keys: &mut Keys) {
    let before = description.and_then(|d| d.before.first().copied());
    if let Some(bos) = before.or(export.config.bos) {
        keys.u32("tokenizer.ggml.bos_token_id", bos);
    }
    for (name, id) in ["eos", "eot", "eom"].into_iter().zip(&export.config.eos) {
        keys.u32(&format!("tokenizer.ggml.{name}_token_id"), *id);
    }
    if let Some(description) = description {
        keys.flag("tokenizer.ggml.add_bos_token", before.is_some());
        let ends = description.after.first().is_some_and(|id| export.config.eos.first() == Some(id));
        keys.flag("tokenizer.ggml.add_eos_token", ends);
    }
}

/// llama.cpp's number for what most of the file is.
fn file_type(export: &Export<'_>, tensors: &[Planned]) -> u32 {
    let most = tensors.iter().find(|t| t.name == "blk.0.ffn_gate.weight").map_or(DType::F32, |t| t.dtype);
    let most = export.numbers.map_or(most, |numbers| numbers.most());
    match most {
        DType::F16 => 1,
        DType::BF16 => 32,
        DType::Block(format) => match format {
            BlockFormat::Q4_0 => 2,
            BlockFormat::Q4_1 => 3,
            BlockFormat::Q8_0 => 7,
            BlockFormat::Q5_0 => 8,
            BlockFormat::Q5_1 => 9,
            BlockFormat::Q4K => 15,
            BlockFormat::Q5K => 17,
            BlockFormat::Q6K => 18,
        },
        _ => 0,
    }
}
