//! A place in the file that only moves past bytes that exist.

use crate::gguf::GgufError;
use std::ops::Range;

/// Reads little-endian numbers one after the other.
pub(super) struct Cursor<'a> {
    origin: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(origin: &'a str, bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { origin, bytes, at: 0 }
    }

    /// Where the next byte is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// How many bytes follow.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The error of something that does not fit in what is left.
    pub(super) fn short(&self, what: &str, needed: impl ToString) -> GgufError {
        GgufError::Short {
            origin: self.origin.into(),
            what: what.into(),
            at: self.at,
            needed: needed.to_string(),
            bytes: self.bytes.len(),
        }
    }

    /// Where the next `count × size` bytes are.
    pub(super) fn skip(&mut self, count: u64, size: usize, what: &str) -> Result<Range<usize>, GgufError> {
        let bytes = usize::try_from(count).ok().and_then(|n| n.checked_mul(size));
        let Some(bytes) = bytes.filter(|&n| n <= self.left()) else {
            return Err(self.short(what, format!("{count} × {size}")));
        };
        let start = self.at;
        self.at += bytes;
        Ok(start..self.at)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let Some((next, _)) = self.bytes[self.at..].split_first_chunk::<N>() else { return Err(self.short(what, N)) };
        self.at += N;
        Ok(*next)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Where the bytes of a string are: a u64 length, then as many bytes.
    pub(super) fn string(&mut self, what: &str) -> Result<Range<usize>, GgufError> {
        let length = self.u64(what)?;
        self.skip(length, 1, what)
    }
}
