//! Standard output: buffered, and an error rather than a panic when its reader has gone.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes text to stdout and flushes it.
///
/// # Errors
/// [`StdoutError`] where stdout is closed or full.
pub fn print(text: &str) -> Result<(), StdoutError> {
    write_bytes(text.as_bytes())
}

/// Writes bytes to stdout and flushes them.
///
/// # Errors
/// [`StdoutError`] where stdout is closed or full.
pub fn write_bytes(bytes: &[u8]) -> Result<(), StdoutError> {
    if CLOSED.load(Ordering::Relaxed) {
        return Err(StdoutError(io::ErrorKind::BrokenPipe.into()));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    out.write_all(bytes).and_then(|()| out.flush()).map_err(StdoutError)
}

/// Stdout could not be written.
#[derive(Debug)]
pub struct StdoutError(io::Error);

impl From<io::Error> for StdoutError {
    fn from(error: io::Error) -> StdoutError {
        StdoutError(error)
    }
}

impl std::fmt::Display for StdoutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.kind() {
            io::ErrorKind::BrokenPipe => f.write_str("stdout was closed before all output was written"),
            _ => write!(f, "stdout cannot be written: {}", self.0),
        }
    }
}

impl std::error::Error for StdoutError {}

/// Whether the process was started without a stdout (`>&-`).
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Before `main` the standard library opens /dev/null in the place of a descriptor that is closed: results would be lost
/// without a word. So it is looked at before that.
#[cfg(target_os = "linux")]
#[used]
// SAFETY: the section holds functions that the loader calls with C's convention once, before `main`; this one is such a
// function, and it touches an atomic and the descriptor table only.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = {
    extern "C" fn look() {
        // SAFETY: F_GETFD takes no pointer and changes nothing.
        let closed = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1;
        CLOSED.store(closed, Ordering::Relaxed);
    }
    look
};
