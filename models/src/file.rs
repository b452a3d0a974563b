//! Opening what must be a file.

use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Opens a regular file, or a link to one.
///
/// # Errors
/// What the system says, or [`io::ErrorKind::InvalidInput`] with what was found in place of a file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Before it is opened: to open a pipe is to wait for its writer.
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("found {}, not a file", name(kind))));
    }
    File::open(path)
}

fn name(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}
