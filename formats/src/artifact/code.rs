//! The code section: what its kernels are and touch, then their machine code.
//!
//! Both in one section, because both are trusted alike: an artifact runs what it says here. Everything else in the file is
//! held against it.

use crate::program::KernelInfo;
use serde::{Deserialize, Serialize};

/// Where machine code starts: a multiple of this.
const ALIGN: usize = 64;

/// What the machine code is: as JSON at the start of the section, behind its length as u64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodeTable {
    /// The architecture of the code; the header repeats it.
    pub architecture: String,
    /// CPU features that it needs; the header repeats them.
    pub features: Vec<String>,
    /// The kernels, by `KernelId`.
    pub kernels: Vec<KernelInfo>,
}

/// Puts a section together from the table's text and the machine code.
pub fn join_code(table: &[u8], code: &[u8]) -> Vec<u8> {
    let mut out = (table.len() as u64).to_le_bytes().to_vec();
    out.extend(table);
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    out.extend(code);
    out
}

/// Takes a section apart into the table's text and the machine code; `None` where the table does not fit into it.
pub fn split_code(section: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = section.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let table = rest.get(..length)?;
    let start = length.checked_add(8)?.checked_next_multiple_of(ALIGN)?;
    Some((table, section.get(start..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_apart_as_they_were_joined() {
        for table in [&b""[..], b"{}", &[b'x'; 56], &[b'x'; 57]] {
            let section = join_code(table, b"code");
            assert_eq!(split_code(&section), Some((table, &b"code"[..])));
            assert_eq!((section.len() - 4) % ALIGN, 0);
            assert_eq!(split_code(&section[..section.len() - 5]), None);
        }
        assert_eq!(split_code(&[0xff; 100]), None);
        assert_eq!(split_code(&[0; 7]), None);
    }
}
