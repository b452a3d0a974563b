//! Files mapped into memory, whose pages come in as they are read and go when they are let go.

use crate::file;
use memmap2::{Mmap, UncheckedAdvice};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A mapped file.
#[derive(Debug)]
pub(crate) struct Mapped {
    path: PathBuf,
    bytes: Mmap,
}

impl Mapped {
    /// Maps a regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Mapped> {
        let file = file::open(path)?;
        // SAFETY: the mapping is only read. Another process that writes to the file meanwhile changes what is read, and
        // one that truncates it ends this process with SIGBUS: the price of not copying, stated in the documentation.
        let bytes = unsafe { Mmap::map(&file)? };
        Ok(Mapped { path: path.into(), bytes })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets pages go that lie wholly in `part` of what lies at `whole`; `part` counts from its start and is cut at its end.
    pub(crate) fn release(&self, whole: &Range<usize>, part: Range<usize>) {
        let length = whole.len();
        let (start, end) = (part.start.min(length), part.end.min(length));
        let page = page_bytes();
        // Pages shared with a neighbour stay: someone may be reading it.
        let first = (whole.start + start).next_multiple_of(page);
        let last = (whole.start + end) / page * page;
        if first < last {
            // SAFETY: the mapping is read-only and backed by the file, so that its pages are fetched again, with the same
            // bytes, by the next read: no borrower sees a change.
            let advised = unsafe { self.bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, first, last - first) };
            // Only memory is at stake: a system that does not take the advice keeps the pages.
            drop(advised);
        }
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The size of a page, bytes.
fn page_bytes() -> usize {
    // SAFETY: sysconf only reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096).max(1)
}
