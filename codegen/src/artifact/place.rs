//! The place of a file that appears as a whole or not at all.

use super::WriteError;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// How names of unfinished files end.
const SUFFIX: &str = ".partial";

/// An unfinished file beside its target. Dropped unfinished, it goes; killed, it is left to the next writer of the target,
/// who knows by the lock that nobody writes it any more.
pub struct Place {
    target: PathBuf,
    directory: PathBuf,
    file: NamedTempFile,
}

impl Place {
    /// Makes the file, after removing what killed writers left; `executable` says whether it may be run.
    ///
    /// # Errors
    /// [`WriteError`] where none can be made.
    pub fn new(target: &Path, executable: bool) -> Result<Place, WriteError> {
        let create = |error| WriteError::Create { path: target.into(), error };
        if target.is_dir() {
            return Err(WriteError::Directory { path: target.into() });
        }
        let name = target.file_name().ok_or_else(|| create(io::ErrorKind::InvalidInput.into()))?;
        let directory = match target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        sweep(&directory, &prefix);
        let mut builder = Builder::new();
        builder.prefix(&prefix).suffix(SUFFIX);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The user's mask is taken from it.
            builder.permissions(Permissions::from_mode(if executable { 0o777 } else { 0o666 }));
        }
        #[cfg(not(unix))]
        let _ = executable;
        let file = builder.tempfile_in(&directory).map_err(create)?;
        // A file system without locks: then leftovers of a killed writer stay, and nothing else changes.
        let _ = file.as_file().try_lock();
        Ok(Place { target: target.into(), directory, file })
    }

    /// The file, to be written.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Syncs the file and gives it the target's name.
    ///
    /// # Errors
    /// [`WriteError::Write`]; the target is what it was.
    pub fn finish(self) -> Result<(), WriteError> {
        let failed = |error| WriteError::Write { path: self.target.clone(), error };
        self.file.as_file().sync_all().map_err(failed)?;
        self.file.persist(&self.target).map_err(|e| failed(e.error))?;
        // The name is durable once its directory is.
        if let Ok(directory) = File::open(&self.directory) {
            let _ = directory.sync_all();
        }
        Ok(())
    }
}

/// Removes unfinished files of the same target that nobody has locked. What cannot be looked at stays.
fn sweep(directory: &Path, prefix: &OsStr) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        // What lies between is the random part, which has no dots: `.a.b.x.partial` is no leftover of `a`.
        let middle = bytes
            .strip_prefix(prefix.as_encoded_bytes())
            .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()))
            .filter(|random| !random.is_empty() && random.iter().all(u8::is_ascii_alphanumeric));
        if middle.is_some() && File::open(entry.path()).is_ok_and(|f| f.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
