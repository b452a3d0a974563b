//! Text as tokens come.
//!
//! What is shown never changes later: characters whose bytes are not all there are held back, and so are runs of fallback
//! bytes, which are text or not as a whole. All pieces together are what the prompt and the generated tokens decode
//! to, less what the prompt decodes to. A piece costs the same however long the text already is.

use super::bytes::take_complete;
use super::{Joining, Tokenizer, TokenizerError};

/// The most tokens that a text of unknown making is held back for.
const MAX_HELD: usize = 16;

/// Turns the tokens that follow a prompt into text, piece by piece.
#[derive(Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    state: State,
    /// Whether a visible token came after the prompt.
    begun: bool,
}

#[derive(Debug)]
enum State {
    /// Bytes that are no complete character yet.
    Bytes(Vec<u8>),
    /// The last tokens, decoded together: a decoder may treat the first of a text differently.
    Window {
        /// Visible tokens.
        ids: Vec<u32>,
        /// The text of the first `shown_ids` of them, all shown before.
        shown: String,
        /// How many tokens that is.
        shown_ids: usize,
    },
}

impl<'t> TextStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, prompt: &[u32]) -> Result<TextStream<'t>, TokenizerError> {
        let state = match tokenizer.joining {
            Joining::Bytes => State::Bytes(vec![]),
            Joining::ByteRuns | Joining::Other => {
                let ids: Vec<u32> = prompt.iter().copied().filter(|&id| tokenizer.is_visible(id)).collect();
                State::Window { shown: tokenizer.decode(&ids, false)?, shown_ids: ids.len(), ids }
            }
        };
        let mut stream = TextStream { tokenizer, state, begun: false };
        if let State::Bytes(_) = stream.state {
            // A prompt may end within a character, which the first token then completes.
            for &id in prompt {
                stream.push(id)?;
            }
            stream.begun = false;
        }
        Ok(stream)
    }

    /// Takes the next token; returns the text that is complete with it, often none.
    ///
    /// # Errors
    /// If the tokenizer's decoder refuses.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        if !self.tokenizer.is_visible(id) {
            return Ok(String::new());
        }
        self.begun = true;
        match &mut self.state {
            State::Bytes(pending) => {
                let mut text = String::new();
                self.tokenizer.append_bytes(id, pending);
                take_complete(pending, &mut text);
                Ok(text)
            }
            State::Window { ids, .. } => {
                ids.push(id);
                if matches!(self.tokenizer.joining, Joining::ByteRuns) && self.tokenizer.is_fallback_byte(id) {
                    return Ok(String::new());
                }
                self.advance(false)
            }
        }
    }

    /// The rest, at the end of the text: what was held back for tokens that never came, with U+FFFD for bytes that are
    /// no text.
    ///
    /// # Errors
    /// If the tokenizer's decoder refuses.
    pub fn finish(mut self) -> Result<String, TokenizerError> {
        match &self.state {
            _ if !self.begun => Ok(String::new()),
            State::Bytes(pending) => Ok(String::from_utf8_lossy(pending).into_owned()),
            State::Window { .. } => self.advance(true),
        }
    }

    /// Shows what the window's text has beyond what was shown, and moves the window on.
    fn advance(&mut self, last: bool) -> Result<String, TokenizerError> {
        let State::Window { ids, shown, shown_ids } = &mut self.state else { return Ok(String::new()) };
        let text = self.tokenizer.decode(ids, false)?;
        let incomplete =
            text.ends_with(char::REPLACEMENT_CHARACTER) && matches!(self.tokenizer.joining, Joining::Other);
        if incomplete && !last && ids.len() - *shown_ids <= MAX_HELD {
            return Ok(String::new());
        }
        let piece = text[common_prefix(shown, &text)..].to_string();
        // The next window begins with the tokens shown just now, so that they, and not the next token, are the first of
        // a text; they must have text themselves for that.
        let next = ids.split_off(*shown_ids);
        let next_text = self.tokenizer.decode(&next, false)?;
        if next_text.is_empty() {
            ids.extend(next);
            *shown = text;
        } else {
            *ids = next;
            *shown = next_text;
        }
        *shown_ids = ids.len();
        Ok(piece)
    }
}

/// Bytes of the longest common prefix of whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum()
}
