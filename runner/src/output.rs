//! Standard output: buffered, and an error rather than a panic when its reader has gone.

use std::io::{self, BufWriter, Write};

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
    let mut out = BufWriter::new(io::stdout().lock());
    out.write_all(bytes).and_then(|()| out.flush()).map_err(StdoutError)
}

/// Stdout could not be written.
#[derive(Debug)]
pub struct StdoutError(io::Error);

impl std::fmt::Display for StdoutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.kind() {
            io::ErrorKind::BrokenPipe => f.write_str("stdout was closed before all output was written"),
            _ => write!(f, "stdout cannot be written: {}", self.0),
        }
    }
}

impl std::error::Error for StdoutError {}
