//! The artifact container: one file that holds a program with all that it needs.
//!
//! ```text
//! 0    magic, 8 bytes
//! 8    format version, u32
//! 12   bytes of the header, u32: everything up to the end of the section table
//! 16   XXH3-64 of the header from byte 24 on, u64
//! 24   bytes of the whole artifact, u64
//! 32   compiler version, target, architecture: strings
//!      features that the code needs: u32 count, strings
//!      sections: u32 count, then for each kind u32, zero u32, offset u64, bytes u64, XXH3-64 u64
//! ```
//!
//! All numbers are little-endian; a string is a u32 length and UTF-8. Sections start at multiples of 4096 from the start of
//! the artifact, in the order of the table, and what lies between them is zero. An executable that carries an artifact has
//! it at a multiple of 4096 too, and ends with a [`Trailer`].
//!
//! Nothing here opens a file: a header becomes bytes, and bytes become a header, or an error that says what to do.

mod bytes;
mod code;
mod error;
mod header;
mod manifest;
mod trailer;

pub use code::{CodeTable, join_code, split_code};
pub use error::HeaderError;
pub use header::{Header, Section, SectionKind};
pub use manifest::{Asked, Manifest, Memory, TokenizerInfo};
pub use trailer::Trailer;

/// The first bytes of an artifact: no text, and damaged by a transfer that changes line ends.
pub const MAGIC: [u8; 8] = *b"\x89llamac\n";

/// The version of the container and of everything in it.
pub const FORMAT_VERSION: u32 = 4;

/// Alignment of sections, and of an artifact in an executable, bytes.
pub const SECTION_ALIGN: usize = 4096;

/// The most bytes of a header: far more than the features of any CPU need.
pub const MAX_HEADER: usize = 64 << 10;

/// The checksum of a section: XXH3-64.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// A checksum of bytes that come piece by piece.
#[derive(Default)]
pub struct Checksum(xxhash_rust::xxh3::Xxh3);

impl Checksum {
    /// Of no bytes yet.
    pub fn new() -> Checksum {
        Checksum::default()
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn value(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests;
