//! Tokenizing with the `tokenizers` crate, for what a stored vocabulary cannot express.

use super::TokenizerError;
use super::check::check;
use llamac_formats::vocabulary::byte_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::DecoderWrapper;

/// A tokenizer of the crate.
#[derive(Debug)]
pub(super) struct Foreign(tokenizers::Tokenizer);

impl Foreign {
    /// Reads a `tokenizer.json`.
    pub fn parse(text: &str, origin: &str, vocab: usize) -> Result<Foreign, TokenizerError> {
        let invalid = |message: String| TokenizerError::Invalid { origin: origin.into(), message };
        let added = check(text, vocab).map_err(invalid)?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(text)).map_err(invalid)?;
        // Some files carry the truncation and padding of a training run: a prompt is taken whole, and as it is.
        inner.with_truncation(None).map_err(|e| invalid(e.to_string()))?.with_padding(None);
        let all = inner.get_vocab(true);
        let past = || all.iter().filter(|(_, id)| **id as usize >= vocab);
        if let Some((token, id)) = past().max_by_key(|(token, id)| (**id, *token)) {
            return Err(TokenizerError::PastVocabulary {
                origin: origin.into(),
                token: token.clone(),
                id: *id,
                others: past().count() - 1,
                vocab,
            });
        }
        for token in &added {
            if inner.token_to_id(&token.content).map(u64::from) != Some(token.id) {
                let found = inner.token_to_id(&token.content).map_or("none".into(), |id| id.to_string());
                return Err(invalid(format!(
                    "added_tokens gives {:?} the id {}, expected {found} (what its place gives it; the model's vocabulary has \
                     {vocab} tokens)",
                    token.content, token.id
                )));
            }
        }
        Ok(Foreign(inner))
    }

    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, String> {
        Ok(guarded(|| self.0.encode_fast(text, special))?.get_ids().to_vec())
    }

    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String, String> {
        guarded(|| self.0.decode(ids, !special))
    }

    /// A token as it is spelled.
    pub fn token(&self, id: u32) -> Option<String> {
        self.0.id_to_token(id)
    }

    /// Whether a token is special, and so has no text.
    pub fn is_special(&self, token: &str) -> bool {
        self.0.get_added_vocabulary().is_special_token(token)
    }

    /// The steps that make text of tokens.
    pub fn decoders(&self) -> Vec<&DecoderWrapper> {
        let mut steps = vec![];
        flatten(self.0.get_decoder(), &mut steps);
        steps
    }
}

/// Appends the bytes that a spelled token stands for. A token with a character outside the alphabet stands for itself.
pub(super) fn append_spelled(token: &str, bytes: &mut Vec<u8>) {
    let before = bytes.len();
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(before);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// Calls into the `tokenizers` crate, whose panics over odd settings in a file (a `Strip` longer than its token) become
/// errors: a file must not end the process. Its values are only read, or dropped after a failure, so none is seen half made.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("the settings of the tokenizer contradict each other".into()),
    }
}

fn flatten<'a>(decoder: Option<&'a DecoderWrapper>, steps: &mut Vec<&'a DecoderWrapper>) {
    match decoder {
        Some(DecoderWrapper::Sequence(sequence)) => {
            sequence.get_decoders().iter().for_each(|step| flatten(Some(step), steps));
        }
        Some(step) => steps.push(step),
        None => {}
    }
}
