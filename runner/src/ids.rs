//! `--ids`: a list `1,5,7`, or a file of raw little-endian u32.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest file that is read, bytes: far more ids than any context holds.
const MOST_BYTES: u64 = 64 << 20;

/// Reads token ids. Text that is a list of numbers is one; anything else names a file.
///
/// # Errors
/// A sentence that says what was found and what was expected.
pub fn parse(text: &str) -> Result<Vec<u32>, String> {
    let looks_like_list = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | ' ' | '-'));
    if looks_like_list && !Path::new(text).is_file() {
        return text
            .split(',')
            .map(|part| {
                let part = part.trim();
                part.parse::<u32>()
                    .map_err(|_| format!("--ids: {part:?} is no token id: expected numbers from 0 up, like 1,5,7"))
            })
            .collect();
    }
    let mut bytes = vec![];
    let read = File::open(text).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|e| {
        format!("--ids: {text:?} is neither a list like 1,5,7 nor a readable file of little-endian u32: {e}")
    })?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("--ids: {text}: found more than {MOST_BYTES} bytes, expected a file of token ids"));
    }
    if bytes.is_empty() || bytes.len() % 4 != 0 {
        return Err(format!(
            "--ids: {text}: found {} bytes, expected a multiple of 4 (little-endian u32)",
            bytes.len()
        ));
    }
    Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lists() {
        assert_eq!(parse("1,5, 7"), Ok(vec![1, 5, 7]));
        assert!(parse("1,-5").unwrap_err().contains("\"-5\""));
        assert!(parse("1,,5").unwrap_err().contains("\"\""));
        assert!(parse("").is_err());
    }

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids.u32");
        std::fs::write(&path, [1, 0, 0, 0, 0, 1, 0, 0]).unwrap();
        assert_eq!(parse(path.to_str().unwrap()), Ok(vec![1, 256]));
        std::fs::write(&path, [1, 0, 0]).unwrap();
        assert!(parse(path.to_str().unwrap()).unwrap_err().contains("found 3 bytes"));
    }
}
