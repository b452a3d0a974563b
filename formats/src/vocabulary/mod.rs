//! A tokenizer as flat bytes that open at once.
//!
//! [`Description`] is what a vocabulary is made of: plain lists, as `tokenizer.json` and GGUF have them. [`Description::encode`]
//! makes the stored form: token texts, their classes, and two hash tables ready to be used where they lie. [`Vocabulary`]
//! opens it: it checks the sizes, copies nothing, and answers questions about tokens. It does not tokenize; that is the
//! runtime's part.
//!
//! The form, little-endian, every part at a multiple of four bytes:
//!
//! | part | bytes |
//! |---|---|
//! | header | [`HEADER_BYTES`]: magic, version, kind, flags, counts |
//! | begin of each token's text, and the end of the last | 4 × (tokens + 1) |
//! | class of each token | tokens, padded |
//! | token of each byte | 4 × 256 |
//! | text → token, open addressing | 4 × slots |
//! | (left, right) → (rank, token), open addressing | 16 × slots |
//! | scores, where merging goes by score | 4 × tokens |
//! | tokens before a text, after it, cut out of it first, cut out of it second | 4 × counts |
//! | texts | the rest |
//!
//! All sizes follow from the counts, so the only thing to check when opening is that they add up to the length. Whatever
//! lies in the parts is checked where it is used: bytes that were changed give other tokens, and nothing worse.

mod alphabet;
mod describe;
mod error;
mod hash;
mod layout;
mod view;

#[cfg(test)]
mod tests;

pub use alphabet::{byte_of, char_of, spell, unspell};
pub use describe::{Description, Merging, Token, gguf_pre, merge_sides};
pub use error::VocabularyError;
pub use view::Vocabulary;

/// The first bytes of the stored form. A `tokenizer.json` begins with a brace, or with blanks before one.
pub const MAGIC: [u8; 8] = *b"\x8eLLVOCAB";

/// The version of the stored form that this crate writes and reads.
pub const VERSION: u32 = 1;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 72;

/// The most tokens of a vocabulary.
pub const MAX_TOKENS: usize = 1 << 22;

/// The most bytes of all token texts together.
pub const MAX_TEXT_BYTES: usize = 256 << 20;

/// The most bytes of one token's text.
pub const MAX_TOKEN_BYTES: usize = 1 << 16;

/// The most merges.
pub const MAX_MERGES: usize = 1 << 24;

/// The most tokens put before a text, or after it.
pub const MAX_AROUND: usize = 64;

/// Whether bytes are the stored form, as far as their first ones tell.
pub fn is_vocabulary(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// An enumeration that is stored as its number.
macro_rules! stored {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $code:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$item])* $variant = $code,)+ }

        impl $name {
            /// What a stored number stands for.
            pub fn from_code(code: u8) -> Option<$name> {
                match code { $($code => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

stored! {
    /// What tokens are made of.
    Kind {
        /// Bytes, each spelled as one printable character (GPT-2, Llama 3).
        ByteLevel = 0,
        /// Characters, with `▁` for a space; what is no token becomes bytes `<0x0A>` (Llama 2).
        SentencePiece = 1,
    }
}

stored! {
    /// How a text is taken apart before tokens are looked for: no token goes across two pieces.
    Split {
        /// Not at all (SentencePiece).
        None = 0,
        /// As GPT-2 does: contractions, words, numbers, marks, each with a space before it; blanks. GGUF calls it `gpt-2`.
        Gpt2 = 1,
        /// As Llama 3 does: like GPT-2, with numbers of up to three digits, and lines. GGUF calls it `llama-bpe`.
        Llama3 = 2,
        /// As Qwen 2 does: like Llama 3, with every digit by itself. GGUF calls it `qwen2`.
        Qwen2 = 3,
        /// What llama.cpp does where a GGUF names no way, or `default`: marks by themselves, GPT-2's pieces, three digits.
        Default = 4,
    }
}

stored! {
    /// Whether a space is put before a piece of text that lies between special tokens.
    Prefix {
        /// Never.
        None = 0,
        /// Always.
        Always = 1,
        /// Where there is none.
        Missing = 2,
        /// Where there is none, and only at the begin of the whole text.
        FirstMissing = 3,
    }
}

stored! {
    /// What a token is. The numbers are those of GGUF's `token_type`.
    Class {
        /// A part of texts.
        Normal = 1,
        /// Stands for what is no token; has no text.
        Unknown = 2,
        /// Cut out of a text before anything else; has no text of its own (`<|eot_id|>`).
        Control = 3,
        /// Cut out of a text before anything else; is its own text.
        UserDefined = 4,
        /// Never made from a text.
        Unused = 5,
        /// One byte, spelled `<0x0A>`.
        Byte = 6,
    }
}

impl Class {
    /// Whether a token of this class shows in a text.
    pub fn is_visible(self) -> bool {
        !matches!(self, Class::Control | Class::Unknown)
    }
}

/// The byte that a token of byte fallback spells: `<0x0A>`.
pub fn fallback_byte(token: &[u8]) -> Option<u8> {
    let digits = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = str::from_utf8(digits).ok().filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}
