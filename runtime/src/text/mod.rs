//! Text: tokens of it, and token by token back to text.
//!
//! A tokenizer works on a stored vocabulary (`llamac_formats::vocabulary`): special tokens are cut out (`special`), what lies
//! between is taken apart (`split`), and the tokens of each piece are joined (`merge`). [`to_vocabulary`] makes one of a
//! `tokenizer.json`. What such a file asks for beyond that is left to the `tokenizers` crate (`foreign`).

mod bytes;
mod check;
mod file;
mod foreign;
mod form;
mod json;
mod merge;
mod special;
mod split;
mod stream;

pub use json::{Inexpressible, to_description, to_vocabulary};
pub use stream::TextStream;

use crate::memory::Region;
use foreign::{Foreign, append_spelled};
use form::{Form, MAX_TEXT, Stored};
use llamac_formats::vocabulary::{fallback_byte, is_vocabulary};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    engine: Engine,
    joining: Joining,
}

#[derive(Debug)]
enum Engine {
    Form(Box<Form>),
    Foreign(Box<Foreign>),
}

/// How tokens become text, as far as text that comes piece by piece must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joining {
    /// Every token is bytes; text is their concatenation (GPT-2, Llama 3, Qwen).
    Bytes,
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

    /// The same from bytes: those of such a file, or a stored vocabulary (`llamac_formats::vocabulary`); `origin` is what
    /// errors call them.
    ///
    /// # Errors
    /// If they are no tokenizer, or have ids past the vocabulary.
    pub fn from_bytes(bytes: &[u8], origin: &str, vocab: usize) -> Result<Tokenizer, TokenizerError> {
        let invalid = |message: String| TokenizerError::Invalid { origin: origin.into(), message };
        if bytes.is_empty() {
            return Err(invalid("the file is empty".into()));
        }
        if is_vocabulary(bytes) {
            return Tokenizer::from_stored(Stored::Owned(bytes.to_vec()), origin, vocab);
        }
        match to_vocabulary(bytes) {
            Ok(stored) => Tokenizer::from_stored(Stored::Owned(stored), origin, vocab),
            Err(_) => Tokenizer::from_json(bytes, origin, vocab),
        }
    }

    /// The same from a section of an artifact, which is not copied if it is a stored vocabulary.
    ///
    /// # Errors
    /// As [`Tokenizer::from_bytes`].
    pub fn from_region(region: &Arc<Region>, origin: &str, vocab: usize) -> Result<Tokenizer, TokenizerError> {
        if is_vocabulary(region.as_slice()) {
            return Tokenizer::from_stored(Stored::Mapped(Arc::clone(region)), origin, vocab);
        }
        Tokenizer::from_bytes(region.as_slice(), origin, vocab)
    }

    /// A `tokenizer.json` read by the `tokenizers` crate, whether or not a stored vocabulary could express it.
    ///
    /// # Errors
    /// As [`Tokenizer::from_bytes`].
    pub fn from_json(bytes: &[u8], origin: &str, vocab: usize) -> Result<Tokenizer, TokenizerError> {
        let invalid = |message: String| TokenizerError::Invalid { origin: origin.into(), message };
        let text = str::from_utf8(bytes).map_err(|e| invalid(format!("not UTF-8 ({e})")))?;
        let foreign = Foreign::parse(text, origin, vocab)?;
        let joining = match foreign.decoders().as_slice() {
            [DecoderWrapper::ByteLevel(_)] => Joining::Bytes,
            steps if steps.iter().any(|step| matches!(step, DecoderWrapper::ByteFallback(_))) => Joining::ByteRuns,
            _ => Joining::Other,
        };
        Ok(Tokenizer { engine: Engine::Foreign(Box::new(foreign)), joining })
    }

    fn from_stored(stored: Stored, origin: &str, vocab: usize) -> Result<Tokenizer, TokenizerError> {
        let form = Form::open(stored)
            .map_err(|error| TokenizerError::Invalid { origin: origin.into(), message: error.to_string() })?;
        let tokens = form.vocabulary().len();
        if tokens > vocab {
            // Ids that no token has may lie past the vocabulary.
            let is_token = |id: &u32| !form.vocabulary().text(*id).is_empty();
            let mut past = (vocab as u32..tokens as u32).rev().filter(is_token);
            if let Some(id) = past.next() {
                let token = form.token(id).unwrap_or_default();
                return Err(TokenizerError::PastVocabulary {
                    origin: origin.into(),
                    token,
                    id,
                    others: past.count(),
                    vocab,
                });
            }
        }
        let joining = if form.is_bytes() { Joining::Bytes } else { Joining::ByteRuns };
        Ok(Tokenizer { engine: Engine::Form(Box::new(form)), joining })
    }

    /// Whether it works on a stored vocabulary, and not through the `tokenizers` crate.
    pub fn is_stored(&self) -> bool {
        matches!(self.engine, Engine::Form(_))
    }

    /// The ids of a text; `special` adds what the tokenizer puts around a text (the begin token).
    ///
    /// # Errors
    /// If the model of the tokenizer cannot represent the text, or the text is longer than a gigabyte.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        match &self.engine {
            Engine::Form(_) if text.len() > MAX_TEXT => Err(TokenizerError::Encode {
                message: format!("it has {} bytes, expected at most {MAX_TEXT}", text.len()),
            }),
            Engine::Form(form) => Ok(form.encode(text, special)),
            Engine::Foreign(foreign) => {
                foreign.encode(text, special).map_err(|message| TokenizerError::Encode { message })
            }
        }
    }

    /// The text of some ids; `special` includes the special tokens as they are spelled. Ids that are no token have no text.
    ///
    /// # Errors
    /// If the tokenizer's decoder refuses.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String, TokenizerError> {
        match &self.engine {
            Engine::Form(form) => Ok(form.decode(ids, special)),
            Engine::Foreign(foreign) => {
                foreign.decode(ids, special).map_err(|message| TokenizerError::Decode { message })
            }
        }
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
        match &self.engine {
            Engine::Form(form) => form.token(id),
            Engine::Foreign(foreign) => foreign.token(id),
        }
    }

    /// Whether an id is a token that has text: special tokens have none.
    fn is_visible(&self, id: u32) -> bool {
        match &self.engine {
            Engine::Form(form) => form.is_visible(id),
            Engine::Foreign(foreign) => foreign.token(id).is_some_and(|token| !foreign.is_special(&token)),
        }
    }

    /// Whether a token is a byte of byte fallback.
    fn is_fallback_byte(&self, id: u32) -> bool {
        match &self.engine {
            Engine::Form(form) => fallback_byte(form.vocabulary().text(id)).is_some(),
            Engine::Foreign(foreign) => {
                foreign.token(id).is_some_and(|token| fallback_byte(token.as_bytes()).is_some())
            }
        }
    }

    /// Appends the bytes of a token, where text is the concatenation of what tokens stand for.
    fn append_bytes(&self, id: u32, bytes: &mut Vec<u8>) {
        match &self.engine {
            Engine::Form(form) => bytes.extend_from_slice(form.vocabulary().text(id)),
            Engine::Foreign(foreign) => {
                if let Some(token) = foreign.token(id) {
                    append_spelled(&token, bytes);
                }
            }
        }
    }
}
