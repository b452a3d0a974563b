//! Tokenizing with a stored vocabulary.

use super::bytes::append_run;
use super::merge::Merger;
use super::special::Cutter;
use super::split::pieces;
use crate::memory::Region;
use llamac_formats::vocabulary::{Kind, Prefix, Vocabulary, VocabularyError, fallback_byte, spell};
use std::borrow::Cow;
use std::sync::Arc;

/// The longest text that is tokenized, bytes: places in it are counted with 32 bits, and spaces may take three.
pub(super) const MAX_TEXT: usize = 1 << 30;

/// What stands for a space in SentencePiece.
const SPACE: &str = "▁";

/// Where a stored vocabulary lies.
#[derive(Debug)]
pub(super) enum Stored {
    /// Made just now.
    Owned(Vec<u8>),
    /// In a mapped file.
    Mapped(Arc<Region>),
}

impl AsRef<[u8]> for Stored {
    fn as_ref(&self) -> &[u8] {
        match self {
            Stored::Owned(bytes) => bytes,
            Stored::Mapped(region) => region.as_slice(),
        }
    }
}

/// A vocabulary and what is made of it when it is opened.
#[derive(Debug)]
pub(super) struct Form {
    vocabulary: Vocabulary<Stored>,
    first: Cutter,
    second: Cutter,
    before: Vec<u32>,
    after: Vec<u32>,
}

/// What encoding a text needs beside the text.
struct Encoding {
    merger: Merger,
    escaped: String,
    ids: Vec<u32>,
}

impl Form {
    pub fn open(stored: Stored) -> Result<Form, VocabularyError> {
        let vocabulary = Vocabulary::open(stored)?;
        Ok(Form {
            first: Cutter::new(&vocabulary, vocabulary.first()),
            second: Cutter::new(&vocabulary, vocabulary.second()),
            before: vocabulary.before(),
            after: vocabulary.after(),
            vocabulary,
        })
    }

    pub fn vocabulary(&self) -> &Vocabulary<Stored> {
        &self.vocabulary
    }

    /// Whether text is the concatenation of what tokens stand for.
    pub fn is_bytes(&self) -> bool {
        self.vocabulary.kind() == Kind::ByteLevel
    }

    /// `text` has at most [`MAX_TEXT`] bytes.
    pub fn encode(&self, text: &str, special: bool) -> Vec<u32> {
        let mut encoding = Encoding { merger: Merger::default(), escaped: String::new(), ids: vec![] };
        if special {
            encoding.ids.extend(&self.before);
        }
        self.first.cut(&self.vocabulary, text, &mut |part| match part {
            Ok(id) => encoding.ids.push(id),
            Err(between) => self.second.cut(&self.vocabulary, between, &mut |part| match part {
                Ok(id) => encoding.ids.push(id),
                Err(between) => {
                    let is_first = std::ptr::eq(between.as_ptr(), text.as_ptr());
                    self.encode_between(between, is_first, &mut encoding);
                }
            }),
        });
        if special {
            encoding.ids.extend(&self.after);
        }
        encoding.ids
    }

    /// Encodes a text without special tokens, which is not empty.
    fn encode_between(&self, text: &str, is_first: bool, encoding: &mut Encoding) {
        let missing = || !(text.starts_with(' ') || self.escapes() && text.starts_with(SPACE));
        let prefixed = match self.vocabulary.prefix() {
            Prefix::None => false,
            Prefix::Always => true,
            Prefix::Missing => missing(),
            Prefix::FirstMissing => is_first && missing(),
        };
        let mut escaped = std::mem::take(&mut encoding.escaped);
        let whole = if prefixed || self.escapes() {
            let space = if self.escapes() { SPACE } else { " " };
            escaped.clear();
            if prefixed {
                escaped.push_str(space);
            }
            for (index, part) in text.split(' ').enumerate() {
                if index > 0 {
                    escaped.push_str(space);
                }
                escaped.push_str(part);
            }
            escaped.as_str()
        } else {
            text
        };
        pieces(whole, self.vocabulary.split(), &mut |piece| self.encode_piece(piece, encoding));
        encoding.escaped = escaped;
    }

    fn escapes(&self) -> bool {
        self.vocabulary.kind() == Kind::SentencePiece
    }

    fn encode_piece(&self, piece: &str, encoding: &mut Encoding) {
        let bytes = piece.as_bytes();
        if self.vocabulary.ignore_merges()
            && let Some(id) = self.vocabulary.find(bytes)
        {
            encoding.ids.push(id);
            return;
        }
        let Encoding { merger, ids, .. } = encoding;
        merger.clear();
        match self.vocabulary.kind() {
            // A byte that is no token is left out.
            Kind::ByteLevel => {
                bytes.iter().filter_map(|b| self.vocabulary.byte(*b)).for_each(|id| merger.push(Some(id), 1))
            }
            Kind::SentencePiece if self.vocabulary.has_scores() => {
                for (at, c) in piece.char_indices() {
                    let length = c.len_utf8();
                    merger.push(self.vocabulary.find(&bytes[at..at + length]), length);
                }
            }
            Kind::SentencePiece => self.push_characters(piece, merger),
        }
        merger.merge(&self.vocabulary, bytes);
        let mut unknown = false;
        for result in merger.results(bytes) {
            match result {
                Ok(id) => ids.push(id),
                Err(character) => match self.fallback(character) {
                    Some(fallback) => ids.extend(fallback),
                    None => {
                        if !(unknown && self.vocabulary.fuse_unknown()) {
                            ids.extend(self.vocabulary.unknown());
                        }
                        unknown = true;
                        continue;
                    }
                },
            }
            unknown = false;
        }
    }

    /// The tokens of the characters of a piece, before they are joined.
    fn push_characters(&self, piece: &str, merger: &mut Merger) {
        // The bytes of unknown characters that are not pushed yet.
        let mut unknown = 0;
        let id = self.vocabulary.unknown();
        for (at, c) in piece.char_indices() {
            let character = &piece.as_bytes()[at..at + c.len_utf8()];
            if let Some(found) = self.vocabulary.find(character) {
                if unknown > 0 {
                    merger.push(id, unknown);
                    unknown = 0;
                }
                merger.push(Some(found), character.len());
            } else if let Some(bytes) = self.fallback(character) {
                // An unknown character before them is put behind them, as the tokenizers that are followed do.
                bytes.into_iter().for_each(|byte| merger.push(Some(byte), 1));
            } else if id.is_some() {
                if unknown > 0 && !self.vocabulary.fuse_unknown() {
                    merger.push(id, unknown);
                    unknown = 0;
                }
                unknown += character.len();
            }
        }
        if unknown > 0 {
            merger.push(id, unknown);
        }
    }

    /// The tokens of a character's bytes, if each has one.
    fn fallback(&self, character: &[u8]) -> Option<Vec<u32>> {
        if !self.vocabulary.byte_fallback() {
            return None;
        }
        character.iter().map(|byte| self.vocabulary.byte(*byte)).collect()
    }

    /// The text of ids; `special` includes special tokens as they are spelled.
    pub fn decode(&self, ids: &[u32], special: bool) -> String {
        let shown = ids.iter().copied().filter(|id| special || self.is_visible(*id));
        if self.is_bytes() {
            let bytes: Vec<u8> = shown.flat_map(|id| self.vocabulary.text(id)).copied().collect();
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        let mut text = String::new();
        let mut run = vec![];
        for id in shown.filter(|id| !self.vocabulary.text(*id).is_empty()) {
            let token = self.vocabulary.text(id);
            match fallback_byte(token) {
                Some(byte) => run.push(byte),
                None => {
                    append_run(&mut run, &mut text);
                    text.push_str(&String::from_utf8_lossy(token).replace(SPACE, " "));
                }
            }
        }
        append_run(&mut run, &mut text);
        if self.vocabulary.strip() && text.starts_with(' ') {
            text.remove(0);
        }
        text
    }

    /// Whether an id is a token that has text.
    pub fn is_visible(&self, id: u32) -> bool {
        self.vocabulary.class(id).is_some_and(|class| class.is_visible())
    }

    /// A token as it is spelled.
    pub fn token(&self, id: u32) -> Option<String> {
        self.vocabulary.class(id)?;
        let text = self.vocabulary.text(id);
        if text.is_empty() {
            return None;
        }
        let spelled = self.is_bytes() && self.vocabulary.find(text) == Some(id);
        let text = if spelled { Cow::Owned(spell(text)) } else { String::from_utf8_lossy(text) };
        Some(text.into_owned())
    }
}
