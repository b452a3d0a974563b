//! The limits of this machine, kept between runs: `llamac machine` measures and writes them, `llamac profile` reads them.

use llamac_runtime::limits::{Limits, VERSION};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The saved limits could not be read or written.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum SavedError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {error}: it is no file that `llamac machine` wrote; measure again with `llamac machine`", path.display())]
    Format { path: PathBuf, error: serde_json::Error },
    #[error("{}: found version {found}, expected {VERSION}: measure again with `llamac machine`", path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("{}: found {bytes} bytes, expected at most {MOST_BYTES}: it is no file that `llamac machine` wrote", path.display())]
    Large { path: PathBuf, bytes: u64 },
}

/// Far more than limits ever take.
const MOST_BYTES: u64 = 16 << 20;

/// Where they are kept: `llamac/machine.json` in `$XDG_CACHE_HOME`, else in `~/.cache`; `None` without a home.
pub fn saved_path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // As the specification of base directories has it, a relative path is ignored.
    let cache = set("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("llamac").join("machine.json"))
}

/// Reads saved limits; `None` where there are none.
///
/// # Errors
/// [`SavedError`] where there is a file but no limits in it.
pub fn load(path: &Path) -> Result<Option<Limits>, SavedError> {
    let io = |error| SavedError::Io { path: path.into(), error };
    let bytes = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
        Ok(m) if !m.is_file() => return Err(io(io::Error::other("found a directory or a device, expected a file"))),
        Ok(m) if m.len() > MOST_BYTES => return Err(SavedError::Large { path: path.into(), bytes: m.len() }),
        Ok(_) => std::fs::read(path).map_err(io)?,
    };
    let limits: Limits =
        serde_json::from_slice(&bytes).map_err(|error| SavedError::Format { path: path.into(), error })?;
    if limits.version != VERSION {
        return Err(SavedError::Version { path: path.into(), found: limits.version });
    }
    Ok(Some(limits))
}

/// Writes limits, with the folders that lead there.
///
/// # Errors
/// [`SavedError::Io`]; what was there stays then.
pub fn save(path: &Path, limits: &Limits) -> Result<(), SavedError> {
    let text = serde_json::to_string_pretty(limits).map_err(|error| SavedError::Format { path: path.into(), error })?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), std::fs::create_dir_all);
    let written = made.and_then(|()| write_atomically(path, format!("{text}\n").as_bytes()));
    written.map_err(|error| SavedError::Io { path: path.into(), error })
}

/// Writes a file beside its place and renames it: whoever looks sees the old one or the new one.
///
/// # Errors
/// Whatever the system says.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(io::Error::other("found a directory, expected the name of a file"));
    }
    let mut file = tempfile::Builder::new().prefix(".llamac.").suffix(".partial").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// `2026-11-21 15:04 UTC` of seconds since 1970.
pub fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0, in eras of 400 years, which all are alike.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    format!("{:04}-{month:02}-{day:02} {:02}:{:02} UTC", era * 400 + year, rest / 3600, rest % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_709_251_200), "2024-03-01 00:00 UTC");
    }
}
