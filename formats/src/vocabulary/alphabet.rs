//! The alphabet of byte-level tokenizers: each byte is one printable character.

/// The character that a byte is spelled as.
pub fn char_of(byte: u8) -> char {
    let code = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        // The others follow each other from U+0100 on.
        0..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character spells.
pub fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The bytes that a spelled token stands for; none where a character is outside of the alphabet.
pub fn unspell(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of).collect()
}

/// How bytes are spelled.
pub fn spell(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char_of).collect()
}
