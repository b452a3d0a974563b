//! Memory from the system: zeroed, lazily committed, on huge pages where the system gives them; or a part of a file.

mod huge;

pub use huge::{Backing, Shortage, policy};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
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

/// An anonymous private mapping: zeroed, page-aligned, committed page by page as it is first written. Or a read-only
/// mapping of a part of a file ([`Region::map_file`]), whose pages come in as they are first read.
///
/// It owns its memory and frees it when dropped. Steps reach into it through raw pointers, so nothing may hold a slice
/// of it while a step runs; `Session` sees to that by borrowing itself mutably for a step.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
    mapped: usize,
    /// Bytes before `base` in the mapping: what lies before the part of a file on its first page.
    before: usize,
    /// Whether it is memory of its own, which can be written.
    own: bool,
    /// Whether it is a part of a file.
    file: bool,
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
        if slack > 0 {
            ask_for_huge_pages(base, mapped);
        }
        let base = NonNull::new(base).ok_or_else(|| refuse(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Region { base, bytes, mapped, before: 0, own: true, file: false })
    }

    /// Maps `bytes` bytes of a file from `offset` on, read-only and shared with whoever else maps them: nothing is copied,
    /// and pages come in as they are read: huge ones where the file system has such, small ones elsewhere.
    ///
    /// The caller has checked that the file has these bytes. Whoever shortens the file while it is mapped ends the process
    /// on its next read, as with any mapped program.
    ///
    /// # Errors
    /// [`MemoryError`] where the system refuses.
    pub fn map_file(file: &File, offset: u64, bytes: usize, what: &str) -> Result<Region, MemoryError> {
        let refuse = |source| MemoryError { what: what.to_owned(), bytes, source };
        if bytes == 0 {
            return Region::new(0, what);
        }
        let before = (offset % page_size() as u64) as usize;
        let start =
            libc::off_t::try_from(offset - before as u64).map_err(|_| refuse(io::ErrorKind::OutOfMemory.into()))?;
        let mapped = bytes.checked_add(before).filter(|b| *b <= isize::MAX as usize);
        let mapped = mapped.ok_or_else(|| refuse(io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: a new mapping overlaps nothing, and it can only be read.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), start)
        };
        if address == libc::MAP_FAILED {
            return Err(refuse(io::Error::last_os_error()));
        }
        if bytes >= HUGE_PAGE {
            ask_for_huge_pages(address.cast(), mapped);
        }
        let base = NonNull::new(address.cast::<u8>().wrapping_add(before));
        let base = base.ok_or_else(|| refuse(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Region { base, bytes, mapped, before, own: false, file: true })
    }

    /// Reads `bytes` bytes of a file from `offset` on into memory of its own, on huge pages where the system gives them, on
    /// this many threads: slower to open than [`Region::map_file`], and as many bytes beside the file's own pages, but faster
    /// to read through.
    ///
    /// # Errors
    /// [`MemoryError`] where memory cannot be had, or the file cannot be read to there.
    pub fn read_file(
        file: &File,
        offset: u64,
        bytes: usize,
        threads: usize,
        what: &str,
    ) -> Result<Region, MemoryError> {
        let mut region = Region::new(bytes, what)?;
        let part = bytes.div_ceil(threads.max(1)).next_multiple_of(HUGE_PAGE).max(HUGE_PAGE);
        let read = std::thread::scope(|scope| {
            let mut reads = vec![];
            for (i, piece) in region.as_mut_slice().chunks_mut(part).enumerate() {
                let from = offset + (i * part) as u64;
                reads.push(std::thread::Builder::new().spawn_scoped(scope, move || file.read_exact_at(piece, from))?);
            }
            let joined = |read: std::thread::ScopedJoinHandle<'_, io::Result<()>>| {
                read.join().unwrap_or_else(|_| Err(io::Error::other("a thread that reads it ended")))
            };
            reads.into_iter().try_for_each(joined)
        });
        match read {
            Ok(()) => Ok(region),
            Err(source) => Err(MemoryError { what: what.to_owned(), bytes, source }),
        }
    }

    /// Whether it is a part of a file, mapped.
    pub fn is_file(&self) -> bool {
        self.file
    }

    /// Makes the memory executable and no longer writable; the caller gave it its contents.
    ///
    /// # Errors
    /// [`MemoryError`] where the system refuses.
    pub(crate) fn make_executable(&mut self) -> Result<(), MemoryError> {
        self.own = false;
        // SAFETY: the range is our own mapping, and `self` is borrowed mutably: nobody holds a slice of it.
        let status = unsafe { libc::mprotect(self.start(), self.mapped, libc::PROT_READ | libc::PROT_EXEC) };
        if status == 0 {
            return Ok(());
        }
        let (bytes, source) = (self.bytes, io::Error::last_os_error());
        Err(MemoryError { what: "executable code".to_owned(), bytes, source })
    }

    /// Where the mapping starts.
    fn start(&self) -> *mut libc::c_void {
        self.base.as_ptr().wrapping_sub(self.before).cast()
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
    ///
    /// # Panics
    /// If it is a part of a file, or executable.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        assert!(self.own, "mapped files and code are only read");
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }

    /// Makes every byte zero, and gives the pages back to the system where it takes them.
    ///
    /// # Panics
    /// If it is a part of a file, or executable.
    pub fn zero(&mut self) {
        assert!(self.own, "mapped files and code are only read");
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
        unsafe { libc::munmap(self.start(), self.mapped) };
    }
}

/// Asks the system to back a mapping with huge pages, from its first page on. Refusal costs only speed: its pages are small then.
fn ask_for_huge_pages(start: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the advice changes no contents, whatever the range.
    unsafe {
        libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE)
    };
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
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
    fn parts_of_files_are_mapped_where_they_are() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        for (offset, n) in [(0, 20_000), (4096, 100), (8192 + 64, 5000), (19_999, 1), (3, 0)] {
            let region = Region::map_file(&file, offset as u64, n, "a test").unwrap();
            assert_eq!(region.as_slice(), &bytes[offset..offset + n]);
            assert!(n == 0 || region.is_file());
        }
    }

    #[test]
    fn parts_of_files_are_read_as_they_are_mapped() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        for (offset, n) in [(0, 5_000_000), (4096, 4_500_000), (8192 + 64, 5000), (4_999_999, 1), (3, 0)] {
            for threads in [0, 1, 2, 7] {
                let region = Region::read_file(&file, offset as u64, n, threads, "a test").unwrap();
                assert!(!region.is_file());
                assert!(region.as_slice() == &bytes[offset..offset + n], "{offset} {n} on {threads} threads");
            }
        }
        let error = Region::read_file(&file, 4_000_000, 1_000_001, 2, "the section weights").unwrap_err().to_string();
        assert!(error.contains("the section weights") && error.contains("1000001"), "{error}");
    }

    #[test]
    fn absurd_sizes_are_refused_with_what_they_were_for() {
        for bytes in [usize::MAX, usize::MAX - 4095, isize::MAX as usize, 1 << 60] {
            let error = Region::new(bytes, "the cache").unwrap_err();
            assert!(error.to_string().contains("the cache") && error.to_string().contains(&bytes.to_string()));
        }
    }
}
