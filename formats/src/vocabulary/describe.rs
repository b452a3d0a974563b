//! From plain lists to the stored form.

use super::hash::{self, EMPTY, MAX_PROBES, pair_hash, probe, text_hash};
use super::layout::{BYTE_FALLBACK, FUSE_UNKNOWN, Header, IGNORE_MERGES, SCORES, STRIP};
use super::{
    Class, Kind, MAX_AROUND, MAX_MERGES, MAX_TEXT_BYTES, MAX_TOKEN_BYTES, MAX_TOKENS, Prefix, Split, VocabularyError,
    alphabet, fallback_byte,
};
use std::borrow::Cow;
use std::collections::HashMap;

/// A token as files list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// As it is spelled: in the byte alphabet where it is made of bytes, with `▁` for spaces in SentencePiece.
    pub text: String,
    /// What it is.
    pub class: Class,
}

/// What decides which tokens are joined first.
#[derive(Clone, Debug, PartialEq)]
pub enum Merging {
    /// Pairs of spelled tokens, the first pair first. Their concatenations are tokens.
    Ranks(Vec<(String, String)>),
    /// A score for each token: the pair whose concatenation has the highest first.
    Scores(Vec<f32>),
}

/// All that makes a vocabulary. Ids are places in `tokens`.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// What tokens are made of.
    pub kind: Kind,
    /// How a text is taken apart first.
    pub split: Split,
    /// Whether a space is put before a text.
    pub prefix: Prefix,
    /// Whether one space is left out where a decoded text begins with one.
    pub strip: bool,
    /// Whether a piece that is a token as a whole is taken as it is.
    pub ignore_merges: bool,
    /// Whether a character that is no token becomes the tokens of its bytes, in SentencePiece.
    pub byte_fallback: bool,
    /// Whether several unknown characters become one unknown token.
    pub fuse_unknown: bool,
    /// The tokens.
    pub tokens: Vec<Token>,
    /// What is joined first.
    pub merging: Merging,
    /// What stands for a character that is no token; without it such characters are left out.
    pub unknown: Option<u32>,
    /// What is put before a text (the begin token).
    pub before: Vec<u32>,
    /// What is put after a text.
    pub after: Vec<u32>,
    /// Of the tokens that are cut out of a text, those that are looked for only in what the others leave.
    pub second: Vec<u32>,
}

impl Description {
    /// A vocabulary of Llama 3's making, of these tokens and merges; the fields are to be changed as needed.
    pub fn byte_level(tokens: Vec<Token>, merges: Vec<(String, String)>) -> Description {
        Description {
            kind: Kind::ByteLevel,
            split: Split::Llama3,
            prefix: Prefix::None,
            strip: false,
            ignore_merges: true,
            byte_fallback: false,
            fuse_unknown: false,
            tokens,
            merging: Merging::Ranks(merges),
            unknown: None,
            before: vec![],
            after: vec![],
            second: vec![],
        }
    }

    /// A vocabulary of Llama 2's making, of these tokens and their scores; the fields are to be changed as needed.
    pub fn sentence_piece(tokens: Vec<Token>, scores: Vec<f32>) -> Description {
        let unknown = tokens.iter().position(|t| t.class == Class::Unknown).and_then(|id| u32::try_from(id).ok());
        Description {
            kind: Kind::SentencePiece,
            split: Split::None,
            prefix: Prefix::Always,
            strip: true,
            ignore_merges: false,
            byte_fallback: true,
            fuse_unknown: true,
            tokens,
            merging: Merging::Scores(scores),
            unknown,
            before: vec![],
            after: vec![],
            second: vec![],
        }
    }

    /// The stored form. The same lists give the same bytes.
    ///
    /// # Errors
    /// [`VocabularyError`] where a list is too long or of the wrong length, an id is no token, or a merge joins what is
    /// none.
    pub fn encode(&self) -> Result<Vec<u8>, VocabularyError> {
        self.check()?;
        let spelled = self.spelled();
        let texts: Vec<Cow<'_, [u8]>> = self.tokens.iter().map(|token| self.stored_text(token)).collect();
        let findable = (0_u32..).zip(&self.tokens).filter(|(_, token)| self.is_findable(token));
        let entries: Vec<(u64, u32)> = findable.map(|(id, _)| (text_hash(&texts[id as usize]), id)).collect();
        let (token_table, token_probes) = table(&entries, EMPTY, |a, b| texts[*a as usize] == texts[*b as usize])?;
        let merges = self.merges(&spelled)?;
        let entries: Vec<(u64, [u32; 4])> = merges.iter().map(|m| (pair_hash(m[0], m[1]), *m)).collect();
        let (merge_table, merge_probes) = table(&entries, [EMPTY; 4], |a, b| a[..2] == b[..2])?;
        let (first, second) = self.cut_out(&texts);
        let scores: &[f32] = if let Merging::Scores(scores) = &self.merging { scores } else { &[] };
        let flags = [
            (self.ignore_merges, IGNORE_MERGES),
            (self.byte_fallback, BYTE_FALLBACK),
            (self.fuse_unknown, FUSE_UNKNOWN),
            (self.strip, STRIP),
            (matches!(self.merging, Merging::Scores(_)), SCORES),
        ];
        let header = Header {
            kind: self.kind,
            split: self.split,
            prefix: self.prefix,
            flags: flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum(),
            unknown: self.unknown,
            tokens: self.tokens.len(),
            text_bytes: texts.iter().map(|text| text.len()).sum(),
            longest: texts.iter().map(|text| text.len()).max().unwrap_or(0),
            token_slots: token_table.len(),
            token_probes,
            merge_slots: merge_table.len(),
            merge_probes,
            before: self.before.len(),
            after: self.after.len(),
            first: first.len(),
            second: second.len(),
        };
        let mut out = header.encode();
        let mut words = |words: &mut dyn Iterator<Item = u32>| words.for_each(|word| out.extend(word.to_le_bytes()));
        let mut end = 0;
        words(&mut std::iter::once(0).chain(texts.iter().map(|text| {
            end += text.len() as u32;
            end
        })));
        out.extend(self.tokens.iter().map(|token| token.class as u8));
        out.resize(out.len().next_multiple_of(4), 0);
        let mut words = |words: &mut dyn Iterator<Item = u32>| words.for_each(|word| out.extend(word.to_le_bytes()));
        words(&mut (0..=255_u8).map(|byte| self.byte_token(byte, &spelled).unwrap_or(EMPTY)));
        words(&mut token_table.iter().copied());
        words(&mut merge_table.iter().flatten().copied());
        words(&mut scores.iter().map(|score| score.to_bits()));
        words(&mut [&self.before, &self.after, &first, &second].into_iter().flatten().copied());
        texts.iter().for_each(|text| out.extend_from_slice(text));
        out.resize(out.len().next_multiple_of(4), 0);
        Ok(out)
    }

    /// Counts and ids.
    fn check(&self) -> Result<(), VocabularyError> {
        let limited = |what, found, limit| {
            if found > limit { Err(VocabularyError::TooMany { what, found, limit }) } else { Ok(()) }
        };
        limited("tokens", self.tokens.len(), MAX_TOKENS)?;
        limited("bytes of text", self.tokens.iter().map(|t| t.text.len()).sum(), MAX_TEXT_BYTES)?;
        let longest = self.tokens.iter().map(|t| t.text.len()).max().unwrap_or(0);
        limited("bytes in one token", longest, MAX_TOKEN_BYTES)?;
        limited("tokens before a text", self.before.len(), MAX_AROUND)?;
        limited("tokens after a text", self.after.len(), MAX_AROUND)?;
        let tokens = self.tokens.len();
        let ids = |what: &'static str, ids: &[u32]| match ids.iter().find(|id| **id as usize >= tokens) {
            Some(&id) => Err(VocabularyError::Id { what, id, tokens }),
            None => Ok(()),
        };
        ids("the unknown token", self.unknown.as_slice())?;
        ids("a token before a text", &self.before)?;
        ids("a token after a text", &self.after)?;
        ids("a token that is cut out second", &self.second)?;
        match &self.merging {
            Merging::Ranks(merges) => limited("merges", merges.len(), MAX_MERGES),
            Merging::Scores(scores) if scores.len() != tokens => {
                Err(VocabularyError::Count { what: "scores", found: scores.len(), expected: tokens })
            }
            Merging::Scores(scores) => match scores.iter().position(|score| score.is_nan()) {
                Some(id) => Err(VocabularyError::Score { id }),
                None => Ok(()),
            },
        }
    }

    /// Every token by its spelling. Where two are spelled alike, the last counts.
    fn spelled(&self) -> HashMap<&str, u32> {
        (0_u32..).zip(&self.tokens).filter(|(_, t)| !t.text.is_empty()).map(|(id, t)| (t.text.as_str(), id)).collect()
    }

    /// What a token's text is stored as: its bytes, where it is spelled in the alphabet of bytes.
    fn stored_text<'a>(&self, token: &'a Token) -> Cow<'a, [u8]> {
        let bytes = (self.kind == Kind::ByteLevel && is_part(token)).then(|| alphabet::unspell(&token.text)).flatten();
        bytes.map_or_else(|| token.text.as_bytes().into(), Cow::Owned)
    }

    /// Whether the text of the token is looked up while a text is tokenized.
    fn is_findable(&self, token: &Token) -> bool {
        let spelled = match self.kind {
            Kind::ByteLevel => {
                token.class == Class::Normal && token.text.chars().all(|c| alphabet::byte_of(c).is_some())
            }
            Kind::SentencePiece => matches!(token.class, Class::Normal | Class::UserDefined),
        };
        spelled && !token.text.is_empty()
    }

    fn byte_token(&self, byte: u8, spelled: &HashMap<&str, u32>) -> Option<u32> {
        let spelling = match self.kind {
            Kind::ByteLevel => alphabet::char_of(byte).to_string(),
            Kind::SentencePiece => format!("<0x{byte:02X}>"),
        };
        spelled.get(spelling.as_str()).copied()
    }

    /// Every merge as (left, right, rank, what they become).
    fn merges(&self, spelled: &HashMap<&str, u32>) -> Result<Vec<[u32; 4]>, VocabularyError> {
        let Merging::Ranks(merges) = &self.merging else { return Ok(vec![]) };
        let mut joined = String::new();
        let mut resolved = Vec::with_capacity(merges.len());
        for (rank, (left, right)) in merges.iter().enumerate() {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let id = |text: &str| {
                let (left, right, missing) = (left.clone(), right.clone(), text.to_owned());
                spelled.get(text).copied().ok_or(VocabularyError::Merge { rank, left, right, missing })
            };
            resolved.push([id(left)?, id(right)?, rank as u32, id(&joined)?]);
        }
        Ok(resolved)
    }

    /// The tokens that are cut out of a text, first and second, each sorted by text.
    fn cut_out(&self, texts: &[Cow<'_, [u8]>]) -> (Vec<u32>, Vec<u32>) {
        let special = |id: &u32| {
            let class = self.tokens[*id as usize].class;
            matches!(class, Class::Control | Class::UserDefined | Class::Unknown) && !texts[*id as usize].is_empty()
        };
        let mut all: Vec<u32> = (0..self.tokens.len() as u32).filter(special).collect();
        all.sort_by(|a, b| texts[*a as usize].cmp(&texts[*b as usize]).then(a.cmp(b)));
        let mut late = vec![false; self.tokens.len()];
        self.second.iter().for_each(|id| late[*id as usize] = true);
        all.into_iter().partition(|id| !late[*id as usize])
    }
}

/// What `tokenizer.ggml.pre` of a GGUF file means: how texts are taken apart, and whether a piece that is a token as a whole is
/// taken as it is ([`Description::ignore_merges`]). None for a way that is not among ours; files without the key mean `default`.
pub fn gguf_pre(name: &str) -> Option<(Split, bool)> {
    match name {
        "default" => Some((Split::Default, false)),
        "gpt-2" | "phi-2" | "olmo" => Some((Split::Gpt2, false)),
        "llama-bpe" | "llama3" | "llama-v3" => Some((Split::Llama3, true)),
        "dbrx" | "smaug-bpe" => Some((Split::Llama3, false)),
        "qwen2" | "deepseek-r1-qwen" => Some((Split::Qwen2, false)),
        _ => None,
    }
}

/// The two sides of a merge as GGUF and older `tokenizer.json` spell it: with a space between. None where there is none.
pub fn merge_sides(line: &str) -> Option<(&str, &str)> {
    // A side is never empty, so a space at the very begin belongs to the left one.
    let at = 1 + line.as_bytes().get(1..)?.iter().position(|byte| *byte == b' ')?;
    let (left, right) = (line.get(..at)?, line.get(at + 1..)?);
    (!right.is_empty()).then_some((left, right))
}

/// Whether a token is spelled as parts of texts are; special tokens are spelled as they are.
fn is_part(token: &Token) -> bool {
    match token.class {
        Class::Normal => true,
        Class::Byte => fallback_byte(token.text.as_bytes()).is_none(),
        Class::Unknown | Class::Control | Class::UserDefined | Class::Unused => false,
    }
}

/// A table of the entries and the longest search in it. Of entries with the same key the last counts.
fn table<T: Copy + PartialEq>(
    entries: &[(u64, T)],
    empty: T,
    same: impl Fn(&T, &T) -> bool,
) -> Result<(Vec<T>, usize), VocabularyError> {
    let mut slots = hash::slots(entries.len());
    let mut longest = usize::MAX;
    // A larger table has shorter searches; hashes that are all alike are nothing that texts have by chance.
    for _ in 0..3 {
        let mut table = vec![empty; slots];
        longest = 0;
        for (hash, entry) in entries {
            for (step, slot) in probe(*hash, slots, slots).enumerate() {
                if table[slot] == empty || same(&table[slot], entry) {
                    table[slot] = *entry;
                    longest = longest.max(step + 1);
                    break;
                }
            }
        }
        if longest <= MAX_PROBES {
            return Ok((table, longest));
        }
        slots = slots * 3 / 2;
    }
    Err(VocabularyError::TooMany { what: "tokens with the same hash", found: longest, limit: MAX_PROBES })
}
