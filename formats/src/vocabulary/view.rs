//! The stored form, opened.

use super::hash::{EMPTY, pair_hash, probe, text_hash};
use super::layout::{BYTE_FALLBACK, FUSE_UNKNOWN, Header, IGNORE_MERGES, Parts, SCORES, STRIP};
use super::{Class, Kind, Prefix, Split, VocabularyError};
use std::ops::Range;

/// A stored vocabulary where it lies: in memory, or in a mapped file.
#[derive(Clone, Debug)]
pub struct Vocabulary<B> {
    bytes: B,
    header: Header,
    parts: Parts,
}

impl<B: AsRef<[u8]>> Vocabulary<B> {
    /// Opens the stored form: reads its header, and checks that the parts fill the bytes. Takes the same time whatever the
    /// number of tokens.
    ///
    /// # Errors
    /// [`VocabularyError`] where they do not, or the bytes are something else.
    pub fn open(bytes: B) -> Result<Vocabulary<B>, VocabularyError> {
        let header = Header::decode(bytes.as_ref())?;
        let found = bytes.as_ref().len();
        let (parts, expected) = header.parts().filter(|(_, expected)| *expected == found).ok_or_else(|| {
            let expected = header.parts().map_or("more than there can be".into(), |(_, bytes)| bytes.to_string());
            VocabularyError::Damaged { what: format!("it has {found} bytes, expected {expected}") }
        })?;
        debug_assert_eq!(expected, found);
        let vocabulary = Vocabulary { bytes, header, parts };
        let tokens = vocabulary.len();
        let around = [("a token before a text", vocabulary.before()), ("a token after a text", vocabulary.after())];
        for (what, ids) in around {
            if let Some(id) = ids.into_iter().find(|id| *id as usize >= tokens) {
                return Err(VocabularyError::Id { what, id, tokens });
            }
        }
        Ok(vocabulary)
    }

    /// The number of tokens; ids are below it.
    pub fn len(&self) -> usize {
        self.header.tokens
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What tokens are made of.
    pub fn kind(&self) -> Kind {
        self.header.kind
    }

    /// How a text is taken apart first.
    pub fn split(&self) -> Split {
        self.header.split
    }

    /// Whether a space is put before a text.
    pub fn prefix(&self) -> Prefix {
        self.header.prefix
    }

    /// Whether one space is left out where a decoded text begins with one.
    pub fn strip(&self) -> bool {
        self.header.flags & STRIP != 0
    }

    /// Whether a piece that is a token as a whole is taken as it is.
    pub fn ignore_merges(&self) -> bool {
        self.header.flags & IGNORE_MERGES != 0
    }

    /// Whether a character that is no token becomes the tokens of its bytes.
    pub fn byte_fallback(&self) -> bool {
        self.header.flags & BYTE_FALLBACK != 0
    }

    /// Whether several unknown characters become one unknown token.
    pub fn fuse_unknown(&self) -> bool {
        self.header.flags & FUSE_UNKNOWN != 0
    }

    /// Whether tokens are joined by their scores and not by the ranks of merges.
    pub fn has_scores(&self) -> bool {
        self.header.flags & SCORES != 0
    }

    /// What stands for a character that is no token.
    pub fn unknown(&self) -> Option<u32> {
        self.header.unknown
    }

    /// What is put before a text.
    pub fn before(&self) -> Vec<u32> {
        self.words(&self.parts.before)
    }

    /// What is put after a text.
    pub fn after(&self) -> Vec<u32> {
        self.words(&self.parts.after)
    }

    /// The tokens that are cut out of a text before anything else, sorted by text.
    pub fn first(&self) -> Vec<u32> {
        self.words(&self.parts.first)
    }

    /// The tokens that are cut out of what the first ones leave, sorted by text.
    pub fn second(&self) -> Vec<u32> {
        self.words(&self.parts.second)
    }

    /// The text of a token: its bytes, or its spelling for a token that is no part of texts. Empty where there is no token.
    pub fn text(&self, id: u32) -> &[u8] {
        let at = id as usize;
        if at >= self.len() {
            return &[];
        }
        let offsets = self.part(&self.parts.offsets);
        let (start, end) = (word(offsets, at), word(offsets, at + 1));
        match (start, end) {
            (Some(start), Some(end)) if end.saturating_sub(start) as usize <= self.header.longest => {
                self.part(&self.parts.text).get(start as usize..end as usize).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// What a token is; none where there is no token.
    pub fn class(&self, id: u32) -> Option<Class> {
        self.part(&self.parts.classes).get(id as usize).copied().and_then(Class::from_code)
    }

    /// Bytes of the longest text of a token.
    pub fn longest(&self) -> usize {
        self.header.longest
    }

    /// The token that is this part of texts.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        if text.len() > self.header.longest || self.header.token_slots == 0 {
            return None;
        }
        let table = self.part(&self.parts.token_table);
        for slot in probe(text_hash(text), self.header.token_slots, self.header.token_probes) {
            let id = word(table, slot).filter(|id| *id != EMPTY)?;
            if self.text(id) == text {
                return self.known(id);
            }
        }
        None
    }

    /// The token of a byte.
    pub fn byte(&self, byte: u8) -> Option<u32> {
        word(self.part(&self.parts.bytes), byte.into()).and_then(|id| self.known(id))
    }

    /// What two tokens become, with the rank of that: less is sooner.
    pub fn merge(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        if self.header.merge_slots == 0 {
            return None;
        }
        let table = self.part(&self.parts.merge_table);
        for slot in probe(pair_hash(left, right), self.header.merge_slots, self.header.merge_probes) {
            let entry = table.get(16 * slot..16 * slot + 16)?;
            let found = (word(entry, 0)?, word(entry, 1)?);
            if found == (left, right) {
                return Some((word(entry, 2)?, self.known(word(entry, 3)?)?));
            }
            if found == (EMPTY, EMPTY) {
                return None;
            }
        }
        None
    }

    /// The score of a token, where tokens have scores.
    pub fn score(&self, id: u32) -> Option<f32> {
        word(self.part(&self.parts.scores), id as usize).map(f32::from_bits)
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.as_ref().get(range.clone()).unwrap_or_default()
    }

    fn words(&self, range: &Range<usize>) -> Vec<u32> {
        let part = self.part(range);
        (0..part.len() / 4).filter_map(|index| word(part, index)).collect()
    }

    fn known(&self, id: u32) -> Option<u32> {
        Some(id).filter(|id| (*id as usize) < self.len())
    }
}

/// One of the words of a part.
fn word(part: &[u8], index: usize) -> Option<u32> {
    part.get(4 * index..4 * index + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}
