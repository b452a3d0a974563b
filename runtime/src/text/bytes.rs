//! Bytes as tokens spell them.

use std::collections::HashMap;

/// The alphabet of byte-level tokenizers: each byte is one printable character.
#[derive(Debug)]
pub(super) struct ByteAlphabet(HashMap<char, u8>);

impl ByteAlphabet {
    pub(super) fn new() -> ByteAlphabet {
        let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let as_they_are = (0..=255_u8).filter(printable).map(|b| (char::from(b), b));
        // The others follow each other from U+0100 on.
        let others = (0..=255_u8).filter(|b| !printable(b));
        let shifted = ('\u{100}'..).zip(others);
        ByteAlphabet(as_they_are.chain(shifted).collect())
    }

    /// Appends the bytes that a token stands for. A token with a character outside the alphabet stands for itself.
    pub(super) fn append(&self, token: &str, bytes: &mut Vec<u8>) {
        let before = bytes.len();
        for c in token.chars() {
            match self.0.get(&c) {
                Some(&byte) => bytes.push(byte),
                None => {
                    bytes.truncate(before);
                    bytes.extend_from_slice(token.as_bytes());
                    return;
                }
            }
        }
    }
}

/// Whether a token is a byte of byte fallback: `<0x0A>`.
pub(super) fn is_fallback_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Moves what can no longer change from `pending` to `text`: complete characters, and U+FFFD for bytes that no later
/// byte can complete. At most three bytes stay.
pub(super) fn take_complete(pending: &mut Vec<u8>, text: &mut String) {
    let mut rest = pending.as_slice();
    loop {
        match str::from_utf8(rest) {
            Ok(all) => {
                text.push_str(all);
                rest = &[];
                break;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = after;
                match error.error_len() {
                    Some(length) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &rest[length..];
                    }
                    None => break,
                }
            }
        }
    }
    let taken = pending.len() - rest.len();
    pending.drain(..taken);
}
