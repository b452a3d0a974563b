//! What the `tokenizers` crate takes for granted in a file, and panics over where it is not so.

use serde::Deserialize;
use serde_json::Value;

/// The parts that must be looked at; the crate itself reports what is wrong with the others.
#[derive(Deserialize)]
struct Parts {
    /// Any valid JSON will do.
    #[serde(rename = "decoder")]
    _decoder: Option<Value>,
    post_processor: Option<Value>,
    added_tokens: Option<Vec<Value>>,
}

/// An added token as the file has it.
pub(super) struct Added {
    pub content: String,
    pub id: u64,
}

/// Refuses a file that would make the crate panic, or put ids around a text that are not below `vocab`, with the reason.
/// Returns the added tokens: the crate numbers them by their order, whatever ids the file gives them.
pub(super) fn check(text: &str, vocab: usize) -> Result<Vec<Added>, String> {
    let parts: Parts = serde_json::from_str(text).map_err(|e| e.to_string())?;
    parts.post_processor.as_ref().map_or(Ok(()), |processor| check_processor(processor, vocab))?;
    let added = |token: &Value| Some(Added { content: token["content"].as_str()?.into(), id: token["id"].as_u64()? });
    Ok(parts.added_tokens.iter().flatten().filter_map(added).filter(|token| !token.content.is_empty()).collect())
}

fn check_processor(processor: &Value, vocab: usize) -> Result<(), String> {
    if let Some(inner) = processor["processors"].as_array() {
        inner.iter().try_for_each(|processor| check_processor(processor, vocab))?;
    }
    let described = &processor["special_tokens"];
    for sequence in ["single", "pair"] {
        for piece in processor[sequence].as_array().into_iter().flatten() {
            if let Some(name) = piece["SpecialToken"]["id"].as_str()
                && described.get(name).is_none()
            {
                return Err(format!(
                    "post_processor: `{sequence}` names the token {name:?}, which special_tokens lacks"
                ));
            }
            if sequence == "single" && piece["Sequence"]["id"] == "B" {
                return Err("post_processor: `single` names the sequence B; it has only A".into());
            }
        }
    }
    for (name, token) in described.as_object().into_iter().flatten() {
        let past = |id: &&Value| id.as_u64().is_some_and(|id| id >= vocab as u64);
        if let Some(id) = token["ids"].as_array().into_iter().flatten().find(past) {
            return Err(format!(
                "post_processor: special_tokens gives {name:?} the id {id}, past the model's vocabulary of {vocab}"
            ));
        }
    }
    Ok(())
}
