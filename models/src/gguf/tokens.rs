//! The vocabulary inside a file.

use super::{Gguf, GgufError, Kind, Value};
use llamac_formats::vocabulary::{Class, Description, Kind as Made, MAX_TOKENS, Merging, Prefix, Split, Token};

const MODEL: &str = "tokenizer.ggml.model";
/// Names of no model at all.
const NONE: [&str; 2] = ["none", "no_vocab"];
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Tokens that mean something to whoever generates.
pub(super) struct Special {
    /// Begins a text.
    pub(super) bos: Option<u32>,
    /// End one: of the text, of a turn, of a message.
    pub(super) end_of_generation: Vec<u32>,
}

/// The special tokens that the keys name.
pub(super) fn special<B: AsRef<[u8]>>(gguf: &Gguf<B>, vocab: usize) -> Result<Special, GgufError> {
    let mut end_of_generation = vec![];
    for name in ["eos", "eot", "eom"] {
        if let Some(id) = id(gguf, name, vocab)?.filter(|id| !end_of_generation.contains(id)) {
            end_of_generation.push(id);
        }
    }
    Ok(Special { bos: id(gguf, "bos", vocab)?, end_of_generation })
}

fn id<B: AsRef<[u8]>>(gguf: &Gguf<B>, name: &str, vocab: usize) -> Result<Option<u32>, GgufError> {
    /// How writers say that there is none.
    const NONE: i128 = u32::MAX as i128;
    let key = format!("tokenizer.ggml.{name}_token_id");
    let Some(value) = gguf.value(&key) else { return Ok(None) };
    match value.integer() {
        Some(NONE | -1) => Ok(None),
        Some(n) if (0..vocab as i128).contains(&n) => Ok(u32::try_from(n).ok()),
        _ => Err(gguf.invalid(&key, value.show(), format!("a token id below {vocab}, the size of the vocabulary"))),
    }
}

/// The chat template.
pub(super) fn chat_template<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<Option<&str>, GgufError> {
    gguf.text(TEMPLATE)
}

/// Whether the file names a vocabulary.
pub(super) fn is_there<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> bool {
    // What is no name is an error of whoever reads it.
    gguf.text(MODEL).map_or(true, |name| name.is_some_and(|name| !NONE.contains(&name)))
}

/// What the vocabulary is made of; `None` where the file has none. `vocab` is the number of the model's embeddings.
pub(super) fn description<B: AsRef<[u8]>>(gguf: &Gguf<B>, vocab: usize) -> Result<Option<Description>, GgufError> {
    let made = match gguf.text(MODEL)? {
        None => return Ok(None),
        Some(name) if NONE.contains(&name) => return Ok(None),
        Some("gpt2") => Made::ByteLevel,
        Some("llama") => Made::SentencePiece,
        Some(other) => return Err(gguf.unsupported(MODEL, format!("{other:?}"), "gpt2, llama")),
    };
    let tokens = tokens(gguf, vocab)?;
    let mut description = match made {
        Made::ByteLevel => {
            let mut description = Description::byte_level(tokens, merges(gguf)?);
            (description.split, description.ignore_merges) = split(gguf)?;
            if gguf.flag("tokenizer.ggml.add_space_prefix")? == Some(true) {
                description.prefix = Prefix::Missing;
            }
            description
        }
        Made::SentencePiece => {
            let scores = scores(gguf, tokens.len())?;
            let mut description = Description::sentence_piece(tokens, scores);
            if gguf.flag("tokenizer.ggml.add_space_prefix")? == Some(false) {
                (description.prefix, description.strip) = (Prefix::None, false);
            }
            if let Some(unknown) = id(gguf, "unknown", description.tokens.len())? {
                description.unknown = Some(unknown);
            }
            description
        }
    };
    let around = |name: &str, default: bool| {
        let wanted = gguf.flag(&format!("tokenizer.ggml.add_{name}_token"))?.unwrap_or(default);
        Ok::<_, GgufError>(if wanted { id(gguf, name, description.tokens.len())? } else { None })
    };
    let begins = made == Made::SentencePiece || description.split == Split::Llama3;
    let (before, after) = (around("bos", begins)?, around("eos", false)?);
    description.before.extend(before);
    description.after.extend(after);
    Ok(Some(description))
}

/// The stored form of a vocabulary.
pub(super) fn encode<B: AsRef<[u8]>>(gguf: &Gguf<B>, description: &Description) -> Result<Vec<u8>, GgufError> {
    description.encode().map_err(|error| GgufError::Vocabulary { origin: gguf.origin().into(), error })
}

fn tokens<B: AsRef<[u8]>>(gguf: &Gguf<B>, vocab: usize) -> Result<Vec<Token>, GgufError> {
    let Some(texts) = gguf.array(TOKENS, &[Kind::Text])? else {
        return Err(gguf.missing(TOKENS, "an array of strings"));
    };
    // Before anything of that length is made.
    let most = vocab.min(MAX_TOKENS);
    if texts.count > most {
        return Err(gguf.invalid(TOKENS, format!("{} tokens", texts.count), format!("at most {most}, the embeddings")));
    }
    let classes = gguf.array(TYPES, &[Kind::I32, Kind::U32])?;
    if let Some(classes) = classes.filter(|c| c.count != texts.count) {
        let expected = format!("{}, one for each token", texts.count);
        return Err(gguf.invalid(TYPES, format!("{} types", classes.count), expected));
    }
    let mut classes = classes.map(|c| c.iter());
    let mut tokens = Vec::with_capacity(texts.count);
    for (id, text) in texts.iter().enumerate() {
        let text = utf8(gguf, TOKENS, id, text)?;
        let class = match classes.as_mut().and_then(Iterator::next) {
            None => Class::Normal,
            Some(value) => {
                let known = value.integer().and_then(|n| u8::try_from(n).ok()).and_then(Class::from_code);
                known.ok_or_else(|| {
                    gguf.invalid(TYPES, format!("{} for token {id}", value.show()), "a type from 1 to 6")
                })?
            }
        };
        tokens.push(Token { text, class });
    }
    Ok(tokens)
}

fn utf8<B: AsRef<[u8]>>(gguf: &Gguf<B>, key: &str, at: usize, value: Value<'_>) -> Result<String, GgufError> {
    match value {
        Value::Text(bytes) => match str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(gguf.invalid(key, format!("{} at {at}", value.show()), "UTF-8")),
        },
        other => Err(gguf.invalid(key, other.show(), "a string")),
    }
}

fn scores<B: AsRef<[u8]>>(gguf: &Gguf<B>, tokens: usize) -> Result<Vec<f32>, GgufError> {
    let Some(scores) = gguf.array(SCORES, &[Kind::F32])? else {
        return Err(gguf.missing(SCORES, "an array of f32, a score for each token"));
    };
    if scores.count != tokens {
        let expected = format!("{tokens}, one for each token");
        return Err(gguf.invalid(SCORES, format!("{} scores", scores.count), expected));
    }
    let number = |value| if let Value::Float(x) = value { x as f32 } else { 0.0 };
    Ok(scores.iter().map(number).collect())
}

fn merges<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<Vec<(String, String)>, GgufError> {
    const EXPECTED: &str = "two tokens with a space between";
    let Some(merges) = gguf.array(MERGES, &[Kind::Text])? else {
        return Err(gguf.missing(MERGES, format!("an array of strings, each {EXPECTED}")));
    };
    let mut pairs = vec![];
    for (rank, merge) in merges.iter().enumerate() {
        let text = utf8(gguf, MERGES, rank, merge)?;
        // A part may begin with a space where a writer left it so; none is empty.
        let space = text.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
        match space.map(|at| (&text[..at], &text[at + 1..])) {
            Some((left, right)) if !right.is_empty() => pairs.push((left.to_owned(), right.to_owned())),
            _ => return Err(gguf.invalid(MERGES, format!("{text:?} at {rank}"), EXPECTED)),
        }
    }
    Ok(pairs)
}

/// How texts are taken apart, and whether a piece that is a token is taken whole.
fn split<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<(Split, bool), GgufError> {
    match gguf.text(PRE)? {
        None | Some("default") => Ok((Split::Default, false)),
        Some("gpt-2") => Ok((Split::Gpt2, false)),
        Some("llama-bpe" | "llama3" | "llama-v3") => Ok((Split::Llama3, true)),
        // OLMo 2's tokenizer is that of GPT-4 in spelling.
        Some("dbrx") => Ok((Split::Llama3, false)),
        Some("qwen2") => Ok((Split::Qwen2, false)),
        Some(other) => {
            Err(gguf.unsupported(PRE, format!("{other:?}"), "llama-bpe, llama3, dbrx, qwen2, gpt-2, default"))
        }
    }
}

/// The keys of a vocabulary, for a file that is written.
pub(super) struct Keys {
    /// `tokenizer.ggml.model`
    pub(super) model: &'static str,
    /// `tokenizer.ggml.pre`
    pub(super) pre: &'static str,
    /// `tokenizer.ggml.scores`
    pub(super) scores: Option<Vec<f32>>,
    /// `tokenizer.ggml.merges`
    pub(super) merges: Option<Vec<String>>,
}

/// How a description is said in keys.
pub(super) fn keys(description: &Description) -> Keys {
    let (model, pre) = match (description.kind, description.split) {
        (Made::SentencePiece, _) => ("llama", "default"),
        (_, Split::Llama3) if description.ignore_merges => ("gpt2", "llama-bpe"),
        (_, Split::Llama3) => ("gpt2", "dbrx"),
        (_, Split::Qwen2) => ("gpt2", "qwen2"),
        (_, Split::Gpt2) => ("gpt2", "gpt-2"),
        (_, Split::Default | Split::None) => ("gpt2", "default"),
    };
    match (&description.merging, description.kind) {
        (Merging::Ranks(merges), Made::ByteLevel) => {
            let merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
            Keys { model, pre, scores: None, merges: Some(merges) }
        }
        (Merging::Ranks(merges), Made::SentencePiece) => {
            Keys { model, pre, scores: Some(scores_of(&description.tokens, merges)), merges: None }
        }
        (Merging::Scores(scores), _) => Keys { model, pre, scores: Some(scores.clone()), merges: None },
    }
}

/// Scores that join in the order of ranks: a token's is minus the rank of the first merge that makes it.
fn scores_of(tokens: &[Token], merges: &[(String, String)]) -> Vec<f32> {
    let mut first = std::collections::HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        first.entry(format!("{left}{right}")).or_insert(rank);
    }
    let score = |token: &Token| match first.get(&token.text) {
        Some(&rank) => -(rank as f32),
        // Never joined from two: any score will do, and the least is the safest.
        None => -(merges.len() as f32) - 1.0,
    };
    tokens.iter().map(score).collect()
}
