//! The header, and where the parts lie.

use super::{
    HEADER_BYTES, Kind, MAGIC, MAX_AROUND, MAX_MERGES, MAX_TEXT_BYTES, MAX_TOKEN_BYTES, MAX_TOKENS, Prefix, Split,
    VERSION, VocabularyError, hash,
};
use std::ops::Range;

/// What the header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub kind: Kind,
    pub split: Split,
    pub prefix: Prefix,
    pub flags: u8,
    pub unknown: Option<u32>,
    pub tokens: usize,
    pub text_bytes: usize,
    pub longest: usize,
    pub token_slots: usize,
    pub token_probes: usize,
    pub merge_slots: usize,
    pub merge_probes: usize,
    pub before: usize,
    pub after: usize,
    pub first: usize,
    pub second: usize,
}

/// Bits of [`Header::flags`].
pub(super) const IGNORE_MERGES: u8 = 1;
pub(super) const BYTE_FALLBACK: u8 = 2;
pub(super) const FUSE_UNKNOWN: u8 = 4;
pub(super) const STRIP: u8 = 8;
pub(super) const SCORES: u8 = 16;

/// Where the parts lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub offsets: Range<usize>,
    pub classes: Range<usize>,
    pub bytes: Range<usize>,
    pub token_table: Range<usize>,
    pub merge_table: Range<usize>,
    pub scores: Range<usize>,
    pub before: Range<usize>,
    pub after: Range<usize>,
    pub first: Range<usize>,
    pub second: Range<usize>,
    pub text: Range<usize>,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend([self.kind as u8, self.split as u8, self.prefix as u8, self.flags]);
        let counts = [
            self.tokens,
            self.text_bytes,
            self.longest,
            self.token_slots,
            self.token_probes,
            self.merge_slots,
            self.merge_probes,
            self.before,
            self.after,
            self.first,
            self.second,
        ];
        out.extend(self.unknown.unwrap_or(u32::MAX).to_le_bytes());
        for count in counts {
            // All of them are limited far below; what is not is refused when it is opened.
            out.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.resize(HEADER_BYTES, 0);
        out
    }

    /// Reads the header and checks every number in it.
    pub fn decode(bytes: &[u8]) -> Result<Header, VocabularyError> {
        let damaged = |what: &str| VocabularyError::Damaged { what: what.into() };
        let bytes = bytes.get(..HEADER_BYTES).ok_or_else(|| damaged("it is shorter than its header"))?;
        if !bytes.starts_with(&MAGIC) {
            return Err(damaged("its first bytes are others"));
        }
        let word =
            |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(u32::MAX, u32::from_le_bytes);
        if word(8) != VERSION {
            return Err(VocabularyError::Version { found: word(8), expected: VERSION });
        }
        let count = |index: usize, limit: usize, what: &'static str| {
            let found = word(20 + 4 * index) as usize;
            if found > limit { Err(VocabularyError::TooMany { what, found, limit }) } else { Ok(found) }
        };
        let tokens = count(0, MAX_TOKENS, "tokens")?;
        let unknown = Some(word(16)).filter(|id| *id != u32::MAX);
        if let Some(id) = unknown.filter(|id| *id as usize >= tokens) {
            return Err(VocabularyError::Id { what: "the unknown token", id, tokens });
        }
        Ok(Header {
            kind: Kind::from_code(bytes[12]).ok_or_else(|| damaged("its kind is unknown"))?,
            split: Split::from_code(bytes[13]).ok_or_else(|| damaged("its way of splitting is unknown"))?,
            prefix: Prefix::from_code(bytes[14]).ok_or_else(|| damaged("its prefix is unknown"))?,
            flags: bytes[15],
            unknown,
            tokens,
            text_bytes: count(1, MAX_TEXT_BYTES, "bytes of text")?,
            longest: count(2, MAX_TOKEN_BYTES, "bytes in one token")?,
            token_slots: count(3, hash::slots(MAX_TOKENS) * 4, "slots for tokens")?,
            token_probes: count(4, hash::MAX_PROBES, "slots in a search for a token")?,
            merge_slots: count(5, hash::slots(MAX_MERGES) * 4, "slots for merges")?,
            merge_probes: count(6, hash::MAX_PROBES, "slots in a search for a merge")?,
            before: count(7, MAX_AROUND, "tokens before a text")?,
            after: count(8, MAX_AROUND, "tokens after a text")?,
            first: count(9, tokens, "tokens that are cut out first")?,
            second: count(10, tokens, "tokens that are cut out second")?,
        })
    }

    /// Where the parts lie, and how many bytes there are in all.
    pub fn parts(&self) -> Option<(Parts, usize)> {
        let mut end = HEADER_BYTES;
        let mut part = |count: usize, each: usize| {
            let start = end;
            let stop = count.checked_mul(each)?.checked_add(start)?;
            end = stop.checked_next_multiple_of(4)?;
            Some(start..stop)
        };
        let parts = Parts {
            offsets: part(self.tokens + 1, 4)?,
            classes: part(self.tokens, 1)?,
            bytes: part(256, 4)?,
            token_table: part(self.token_slots, 4)?,
            merge_table: part(self.merge_slots, 16)?,
            scores: part(if self.flags & SCORES == 0 { 0 } else { self.tokens }, 4)?,
            before: part(self.before, 4)?,
            after: part(self.after, 4)?,
            first: part(self.first, 4)?,
            second: part(self.second, 4)?,
            text: part(self.text_bytes, 1)?,
        };
        Some((parts, end))
    }
}
