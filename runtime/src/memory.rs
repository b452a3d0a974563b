//! Memory from the system: zeroed, lazily committed, on huge pages where the system gives them.

use std::io;
use std::ptr::NonNull;

/// Alignment that every region has at least, bytes: a cache line.
pub const ALIGN: usize = 64;

/// From this size on a region starts at a multiple of it, so that huge pages can back all of it.
const HUGE_PAGE: usize = 2 << 20;

/// Memory could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot reserve {bytes} bytes for {what}: {source}. Take a smaller model, context, chunk or number of slots")]
pub struct MemoryError {
    /// What it was for.
    pub what: String,
    /// How much was asked for.
    pub bytes: usize,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// An anonymous private mapping: zeroed, page-aligned, committed page by page as it is first written.
///
/// It owns its memory and frees it when dropped. Steps reach into it through raw pointers, so nothing may hold a slice
/// of it while a step runs; `Session` sees to that by borrowing itself mutably for a step.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
    mapped: usize,
}

// SAFETY: a region is plain memory that it alone owns; shared access is read-only, writing needs `&mut` or an unsafe
// pointer access whose author vouches for it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Reserves `bytes` zeroed bytes; `what` names them in the error.
    ///
    /// # Errors
    /// [`MemoryError`] where the system refuses, or the size is past what an address can span.
    pub fn new(bytes: usize, what: &str) -> Result<Region, MemoryError> {
        let refuse = |source| MemoryError { what: what.to_owned(), bytes, source };
        let slack = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let page = page_size();
        let whole = bytes
            .max(1)
            .checked_next_multiple_of(page)
            .and_then(|b| b.checked_add(slack))
            .filter(|b| *b <= isize::MAX as usize)
            .ok_or_else(|| refuse(io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: a fresh anonymous mapping overlaps nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                whole,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(refuse(io::Error::last_os_error()));
        }
        let start = start.cast::<u8>();
        let skip = if slack == 0 { 0 } else { (start as usize).next_multiple_of(HUGE_PAGE) - start as usize };
        let mapped = whole - slack;
        // SAFETY: `skip < slack`, so both cut pieces and what stays lie within the mapping, in whole pages.
        let base = unsafe {
            if skip > 0 {
                libc::munmap(start.cast(), skip);
            }
            if slack > skip {
                libc::munmap(start.add(skip + mapped).cast(), slack - skip);
            }
            start.add(skip)
        };
        #[cfg(target_os = "linux")]
        if slack > 0 {
            // Refusal costs only speed: the pages are small then.
            // SAFETY: the range is the mapping just made.
            unsafe { libc::madvise(base.cast(), mapped, libc::MADV_HUGEPAGE) };
        }
        let base = NonNull::new(base).ok_or_else(|| refuse(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Region { base, bytes, mapped })
    }

    /// Bytes asked for.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The first byte's address.
    pub fn address(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// All bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping holds `bytes` initialised bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.bytes) }
    }

    /// All bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }

    /// Makes every byte zero, and gives the pages back to the system where it takes them.
    pub fn zero(&mut self) {
        #[cfg(target_os = "linux")]
        // SAFETY: the range is our own private anonymous mapping, whose discarded pages read as zeros.
        if unsafe { libc::madvise(self.base.as_ptr().cast(), self.mapped, libc::MADV_DONTNEED) } == 0 {
            return;
        }
        self.as_mut_slice().fill(0);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

fn page_size() -> usize {
    // SAFETY: `sysconf` only reads.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(4096).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zeroed_aligned_and_writable() {
        for bytes in [0, 1, 4096, 5000, HUGE_PAGE - 1, HUGE_PAGE, 3 * HUGE_PAGE + 17] {
            let mut region = Region::new(bytes, "a test").unwrap();
            assert_eq!(region.len(), bytes);
            assert_eq!(region.address() as usize % ALIGN, 0);
            assert!(region.as_slice().iter().all(|b| *b == 0));
            region.as_mut_slice().fill(7);
            assert!(region.as_slice().iter().all(|b| *b == 7));
            region.zero();
            assert!(region.as_slice().iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn absurd_sizes_are_refused_with_what_they_were_for() {
        for bytes in [usize::MAX, usize::MAX - 4095, isize::MAX as usize, 1 << 60] {
            let error = Region::new(bytes, "the cache").unwrap_err();
            assert!(error.to_string().contains("the cache") && error.to_string().contains(&bytes.to_string()));
        }
    }
}
