//! Text: a tokenizer as its `tokenizer.json` describes it, and token by token back to text.

mod bytes;
mod check;
mod file;
mod stream;

pub use stream::TextStream;

use bytes::ByteAlphabet;
use check::check;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokenizers::DecoderWrapper;

/// The largest `tokenizer.json` that is read, bytes. Those of vocabularies with 256 000 tokens have 35 MB.
const MAX_BYTES: u64 = 256 << 20;

/// Why there is no tokenizer, or no tokens, or no text.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The file is not there or not readable.
    #[error("{}: cannot be read ({error}); expected a Hugging Face tokenizer.json", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The bytes describe no tokenizer.
    #[error("{origin}: invalid tokenizer: {message}; expected a Hugging Face tokenizer.json")]
    Invalid {
        /// Where the bytes came from.
        origin: String,
        /// Why.
        message: String,
    },
    /// A token that the model has no embedding for.
    #[error(
        "{origin}: token {token:?} has id {id}, but the model's vocabulary has {vocab} tokens (ids below {vocab}); \
         {others} more ids are past it; the tokenizer belongs to another model"
    )]
    PastVocabulary {
        /// Where the tokenizer came from.
        origin: String,
        /// The token with the largest id.
        token: String,
        /// That id.
        id: u32,
        /// How many other ids are too large.
        others: usize,
        /// Size of the model's vocabulary.
        vocab: usize,
    },
    /// A text that the tokenizer cannot take apart.
    #[error("the text cannot be tokenized: {message}")]
    Encode {
        /// Why.
        message: String,
    },
    /// Tokens that the tokenizer cannot put together.
    #[error("the tokens cannot be turned into text: {message}")]
    Decode {
        /// Why.
        message: String,
    },
}

/// A tokenizer whose ids all belong to the model.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    joining: Joining,
}

/// How tokens become text, as far as text that comes piece by piece must know.
#[derive(Debug)]
enum Joining {
    /// Every token is bytes; text is their concatenation (GPT-2, Llama 3, Qwen).
    Bytes(ByteAlphabet),
    /// Tokens like `<0x0A>` are bytes, and a run of them is valid or invalid as a whole (Llama 2).
    ByteRuns,
    /// Anything else.
    Other,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` for a model with `vocab` tokens.
    ///
    /// # Errors
    /// If the file is unreadable, is no tokenizer, or has ids past the vocabulary.
    pub fn from_file(path: &Path, vocab: usize) -> Result<Tokenizer, TokenizerError> {
        let read = |error| TokenizerError::Read { path: path.into(), error };
        let mut bytes = vec![];
        file::open(path).map_err(read)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > MAX_BYTES {
            let message = format!("the file has more than {MAX_BYTES} bytes");
            return Err(TokenizerError::Invalid { origin: path.display().to_string(), message });
        }
        Tokenizer::from_bytes(&bytes, &path.display().to_string(), vocab)
    }

    /// The same from the bytes of such a file; `origin` is what errors call them.
    ///
    /// # Errors
    /// If they are no tokenizer, or have ids past the vocabulary.
    pub fn from_bytes(bytes: &[u8], origin: &str, vocab: usize) -> Result<Tokenizer, TokenizerError> {
        let invalid = |message: String| TokenizerError::Invalid { origin: origin.into(), message };
        if bytes.is_empty() {
            return Err(invalid("the file is empty".into()));
        }
        let text = str::from_utf8(bytes).map_err(|e| invalid(format!("not UTF-8 ({e})")))?;
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
        let joining = Joining::of(inner.get_decoder());
        Ok(Tokenizer { inner, joining })
    }

    /// The ids of a text; `special` adds what the tokenizer puts around a text (the begin token).
    ///
    /// # Errors
    /// If the model of the tokenizer cannot represent the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = guarded(|| self.inner.encode_fast(text, special));
        let encoding = encoding.map_err(|message| TokenizerError::Encode { message })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of some ids; `special` includes the special tokens as they are spelled. Ids that are no token have no text.
    ///
    /// # Errors
    /// If the tokenizer's decoder refuses.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String, TokenizerError> {
        guarded(|| self.inner.decode(ids, !special)).map_err(|message| TokenizerError::Decode { message })
    }

    /// Text that comes token by token, after a prompt.
    ///
    /// # Errors
    /// If the tokenizer's decoder refuses the prompt.
    pub fn stream(&self, prompt: &[u32]) -> Result<TextStream<'_>, TokenizerError> {
        TextStream::new(self, prompt)
    }

    /// The token as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token, where it has text: special tokens have none.
    fn visible_token(&self, id: u32) -> Option<String> {
        self.token(id).filter(|token| !self.inner.get_added_vocabulary().is_special_token(token))
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

impl Joining {
    fn of(decoder: Option<&DecoderWrapper>) -> Joining {
        let mut steps = vec![];
        flatten(decoder, &mut steps);
        match steps.as_slice() {
            [DecoderWrapper::ByteLevel(_)] => Joining::Bytes(ByteAlphabet::new()),
            steps if steps.iter().any(|step| matches!(step, DecoderWrapper::ByteFallback(_))) => Joining::ByteRuns,
            _ => Joining::Other,
        }
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
