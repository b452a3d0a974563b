//! The last bytes of an executable that carries an artifact.

/// Where in an executable its artifact is: the last 24 bytes of the file, a magic and two u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes before the artifact.
    pub offset: u64,
    /// Bytes of the artifact.
    pub bytes: u64,
}

impl Trailer {
    /// Its size in the file.
    pub const BYTES: usize = 24;

    const MAGIC: [u8; 8] = *b"llamac\x89x";

    /// The trailer's bytes.
    pub fn encode(&self) -> [u8; Trailer::BYTES] {
        let mut out = [0; Trailer::BYTES];
        out[..8].copy_from_slice(&Trailer::MAGIC);
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..].copy_from_slice(&self.bytes.to_le_bytes());
        out
    }

    /// Reads the last bytes of a file of `file` bytes; `None` where they are no trailer that fits the file.
    pub fn decode(last: &[u8; Trailer::BYTES], file: u64) -> Option<Trailer> {
        let (words, _) = last.as_chunks::<8>();
        let trailer = Trailer { offset: u64::from_le_bytes(words[1]), bytes: u64::from_le_bytes(words[2]) };
        let end = trailer.offset.checked_add(trailer.bytes)?.checked_add(Trailer::BYTES as u64)?;
        (words[0] == Trailer::MAGIC && end == file).then_some(trailer)
    }
}
