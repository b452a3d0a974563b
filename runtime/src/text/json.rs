//! From a `tokenizer.json` to a stored vocabulary, where it asks for nothing that the stored form lacks.

use llamac_formats::vocabulary::{
    Class, Description, Kind, MAX_TOKENS, Merging, Prefix, Split, Token, VocabularyError, byte_of, char_of,
    fallback_byte, unspell,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use thiserror::Error;

/// Why a `tokenizer.json` is not stored as a vocabulary: the file may be good all the same, and is then stored as it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Inexpressible {
    /// It is no JSON of the expected making.
    #[error("{0}")]
    Syntax(String),
    /// It asks for something else than byte pairs of bytes or of SentencePiece, or a setting of theirs that is not stored.
    #[error("its {part} is {found}, which the stored form does not express")]
    Setting {
        /// Which part of the file.
        part: &'static str,
        /// What it asks for, shortened.
        found: String,
    },
    /// Its tokens make no vocabulary.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
}

/// The stored vocabulary that tokenizes as a `tokenizer.json` says.
///
/// # Errors
/// [`Inexpressible`] where the form cannot express the file, or it is none.
pub fn to_vocabulary(json: &[u8]) -> Result<Vec<u8>, Inexpressible> {
    Ok(to_description(json)?.encode()?)
}

/// What the vocabulary of a `tokenizer.json` is made of.
///
/// # Errors
/// [`Inexpressible`] where a description cannot express the file, or it is none.
pub fn to_description(json: &[u8]) -> Result<Description, Inexpressible> {
    let file: File = serde_json::from_slice(json).map_err(|e| Inexpressible::Syntax(e.to_string()))?;
    file.describe()
}

#[derive(Deserialize)]
struct File {
    version: String,
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    r#type: String,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// Files have merges in two spellings.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

fn setting(part: &'static str, found: impl ToString) -> Inexpressible {
    let found: String = found.to_string();
    let short: String = found.chars().take(200).collect();
    Inexpressible::Setting { part, found: if short == found { found } else { short + "…" } }
}

impl File {
    fn describe(self) -> Result<Description, Inexpressible> {
        if self.version != "1.0" {
            return Err(setting("version", self.version));
        }
        self.model.check()?;
        let kind = match &self.decoder {
            Some(decoder) if decoder["type"] == "ByteLevel" => Kind::ByteLevel,
            Some(decoder) if decoder["type"] == "Sequence" => Kind::SentencePiece,
            other => return Err(setting("decoder", shown(other.as_ref()))),
        };
        let (split, prefix, strip) = match kind {
            Kind::ByteLevel => {
                let (split, prefix) = byte_level_splits(self.normalizer.as_ref(), self.pre_tokenizer.as_ref())?;
                (split, prefix, false)
            }
            Kind::SentencePiece => (
                Split::None,
                piece_prefix(self.normalizer.as_ref(), self.pre_tokenizer.as_ref())?,
                piece_decoder(self.decoder.as_ref())?,
            ),
        };
        let (before, after) = around(self.post_processor.as_ref())?;
        let unknown = match &self.model.unk_token {
            Some(token) => {
                Some(*self.model.vocab.get(token).ok_or_else(|| setting("unknown token", "not in its vocabulary"))?)
            }
            None => None,
        };
        if kind == Kind::ByteLevel {
            let bytes = (0..=255).filter(|b| self.model.vocab.contains_key(&char_of(*b).to_string())).count();
            if bytes < 256 && (unknown.is_some() || self.model.byte_fallback == Some(true)) {
                return Err(setting("vocabulary", format!("one of {bytes} bytes of 256 with an unknown token")));
            }
        }
        let normalizes = self.normalizer.is_some();
        let second = self.added_tokens.iter().filter(|t| t.normalized).map(|t| t.id).collect::<Vec<_>>();
        if normalizes && !second.is_empty() {
            return Err(setting("added_tokens", "one with a token that is normalized"));
        }
        let tokens = tokens(&self.model.vocab, &self.added_tokens, kind)?;
        Ok(Description {
            kind,
            split,
            prefix,
            strip,
            ignore_merges: self.model.ignore_merges == Some(true),
            byte_fallback: kind == Kind::SentencePiece && self.model.byte_fallback == Some(true),
            fuse_unknown: self.model.fuse_unk == Some(true),
            tokens,
            merging: Merging::Ranks(merges(self.model.merges)?),
            unknown,
            before,
            after,
            second,
        })
    }
}

impl Model {
    fn check(&self) -> Result<(), Inexpressible> {
        if self.r#type != "BPE" {
            return Err(setting("model", &self.r#type));
        }
        if self.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err(setting("model", "one with dropout"));
        }
        let parts = [&self.continuing_subword_prefix, &self.end_of_word_suffix];
        if let Some(part) = parts.into_iter().flatten().find(|part| !part.is_empty()) {
            return Err(setting("model", format!("one with {part:?} at tokens within words")));
        }
        if self.vocab.is_empty() {
            return Err(setting("vocabulary", "empty"));
        }
        Ok(())
    }
}

/// A part of a file, for a message.
fn shown(value: Option<&Value>) -> String {
    value.map_or("none".into(), Value::to_string)
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn byte_level_splits(
    normalizer: Option<&Value>,
    pre_tokenizer: Option<&Value>,
) -> Result<(Split, Prefix), Inexpressible> {
    if normalizer.is_some() {
        return Err(setting("normalizer", shown(normalizer)));
    }
    let refused = || setting("pre_tokenizer", shown(pre_tokenizer));
    let value = pre_tokenizer.ok_or_else(refused)?;
    let steps = match value["pretokenizers"].as_array() {
        Some(steps) if value["type"] == "Sequence" => steps.as_slice(),
        _ => std::slice::from_ref(value),
    };
    let flag = |step: &Value, name: &str| step[name].as_bool().ok_or_else(refused);
    match steps {
        [bytes] if bytes["type"] == "ByteLevel" => {
            let split = if flag(bytes, "use_regex")? { Split::Gpt2 } else { Split::None };
            let prefix = if flag(bytes, "add_prefix_space")? { Prefix::Missing } else { Prefix::None };
            Ok((split, prefix))
        }
        [split, bytes] if split["type"] == "Split" && bytes["type"] == "ByteLevel" => {
            let plain = split["behavior"] == "Isolated" && !flag(split, "invert")?;
            if !plain || flag(bytes, "use_regex")? || flag(bytes, "add_prefix_space")? {
                return Err(refused());
            }
            match split["pattern"]["Regex"].as_str() {
                Some(GPT2) => Ok((Split::Gpt2, Prefix::None)),
                Some(LLAMA3) => Ok((Split::Llama3, Prefix::None)),
                Some(QWEN2) => Ok((Split::Qwen2, Prefix::None)),
                _ => Err(refused()),
            }
        }
        _ => Err(refused()),
    }
}

fn piece_prefix(normalizer: Option<&Value>, pre_tokenizer: Option<&Value>) -> Result<Prefix, Inexpressible> {
    match (normalizer, pre_tokenizer) {
        (Some(normalizer), None) => {
            let steps = match normalizer["normalizers"].as_array() {
                Some(steps) if normalizer["type"] == "Sequence" => steps.as_slice(),
                _ => std::slice::from_ref(normalizer),
            };
            let prepends = |step: &Value| step["type"] == "Prepend" && step["prepend"] == "▁";
            let escapes =
                |step: &Value| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == "▁";
            match steps {
                [prepend, replace] if prepends(prepend) && escapes(replace) => Ok(Prefix::Always),
                [replace] if escapes(replace) => Ok(Prefix::None),
                _ => Err(setting("normalizer", normalizer)),
            }
        }
        (None, Some(space))
            if space["type"] == "Metaspace" && space["replacement"] == "▁" && space["split"] == false =>
        {
            match space["prepend_scheme"].as_str() {
                Some("always") => Ok(Prefix::Missing),
                Some("first") => Ok(Prefix::FirstMissing),
                Some("never") => Ok(Prefix::None),
                _ => Err(setting("pre_tokenizer", space)),
            }
        }
        (normalizer, pre_tokenizer) => {
            Err(setting("normalizer and pre_tokenizer", format!("{} and {}", shown(normalizer), shown(pre_tokenizer))))
        }
    }
}

/// Whether a space at the begin is left out.
fn piece_decoder(decoder: Option<&Value>) -> Result<bool, Inexpressible> {
    let refused = || setting("decoder", shown(decoder));
    let steps = decoder.and_then(|decoder| decoder["decoders"].as_array()).ok_or_else(refused)?;
    let [replace, bytes, fuse, strip @ ..] = steps.as_slice() else { return Err(refused()) };
    let replaces = replace["type"] == "Replace" && replace["pattern"]["String"] == "▁" && replace["content"] == " ";
    if !replaces || bytes["type"] != "ByteFallback" || fuse["type"] != "Fuse" {
        return Err(refused());
    }
    match strip {
        [] => Ok(false),
        [strip] if strip["type"] == "Strip" && strip["content"] == " " && strip["start"] == 1 && strip["stop"] == 0 => {
            Ok(true)
        }
        _ => Err(refused()),
    }
}

/// The ids before and after a text.
fn around(processor: Option<&Value>) -> Result<(Vec<u32>, Vec<u32>), Inexpressible> {
    let refused = || setting("post_processor", shown(processor));
    let Some(value) = processor else { return Ok((vec![], vec![])) };
    let steps = match value["processors"].as_array() {
        Some(steps) if value["type"] == "Sequence" => steps.as_slice(),
        _ => std::slice::from_ref(value),
    };
    // What bytes do here concerns places in the text only.
    let steps: Vec<&Value> = steps.iter().filter(|step| step["type"] != "ByteLevel").collect();
    let template = match steps.as_slice() {
        [] => return Ok((vec![], vec![])),
        [template] if template["type"] == "TemplateProcessing" => *template,
        _ => return Err(refused()),
    };
    let (mut before, mut after, mut seen) = (vec![], vec![], false);
    for piece in template["single"].as_array().ok_or_else(refused)? {
        if let Some(name) = piece["SpecialToken"]["id"].as_str() {
            let ids = template["special_tokens"][name]["ids"].as_array().ok_or_else(refused)?;
            for id in ids {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(refused)?;
                if seen { after.push(id) } else { before.push(id) }
            }
        } else if piece["Sequence"]["id"] == "A" && !seen {
            seen = true;
        } else {
            return Err(refused());
        }
    }
    // The template for two texts is not used, but a file whose template for them is wrong is refused as a whole.
    let named =
        |piece: &Value| piece["SpecialToken"]["id"].as_str().is_none_or(|n| !template["special_tokens"][n].is_null());
    let pair = template["pair"].as_array().ok_or_else(refused)?;
    if seen && pair.iter().all(named) { Ok((before, after)) } else { Err(refused()) }
}

/// Every token at the place of its id.
fn tokens(vocab: &HashMap<String, u32>, added: &[Added], kind: Kind) -> Result<Vec<Token>, Inexpressible> {
    let past = vocab.values().chain(added.iter().map(|t| &t.id)).max().map_or(0, |id| *id as usize + 1);
    if past > MAX_TOKENS {
        return Err(VocabularyError::TooMany { what: "tokens", found: past, limit: MAX_TOKENS }.into());
    }
    let mut tokens = vec![Token { text: String::new(), class: Class::Unused }; past];
    for (text, id) in vocab {
        let token = &mut tokens[*id as usize];
        if !token.text.is_empty() || text.is_empty() {
            return Err(setting("vocabulary", format!("one where {text:?} has the id {id}, as another token has")));
        }
        // A character outside of the alphabet never comes out of a text.
        let class = match kind {
            Kind::ByteLevel if unspell(text).is_none() => Class::Unused,
            Kind::SentencePiece if fallback_byte(text.as_bytes()).is_some() => Class::Byte,
            Kind::ByteLevel | Kind::SentencePiece => Class::Normal,
        };
        *token = Token { text: text.clone(), class };
    }
    let mut next = vocab.len();
    let mut seen = HashSet::new();
    for token in added {
        let refused = |why: &str| setting("added_tokens", format!("one where {:?} {why}", token.content));
        if token.single_word || token.lstrip || token.rstrip {
            return Err(refused("takes from what is around it"));
        }
        if token.content.is_empty() || !seen.insert(token.content.as_str()) {
            return Err(refused("is there again"));
        }
        let known = vocab.get(&token.content);
        let expected = known.map_or(next, |id| *id as usize);
        next += usize::from(known.is_none());
        let slot = &mut tokens[token.id as usize];
        if expected != token.id as usize || (known.is_none() && !slot.text.is_empty()) {
            return Err(refused(&format!("has the id {}, expected {expected}", token.id)));
        }
        let alters = match kind {
            // Its decoder takes it for bytes, and the splitter for characters.
            Kind::ByteLevel => !token.content.is_ascii() && token.content.chars().all(|c| byte_of(c).is_some()),
            Kind::SentencePiece => token.content.contains('▁') || fallback_byte(token.content.as_bytes()).is_some(),
        };
        if alters {
            return Err(refused("is spelled like a part of texts"));
        }
        let class = if token.special { Class::Control } else { Class::UserDefined };
        *slot = Token { text: token.content.clone(), class };
    }
    Ok(tokens)
}

fn merges(merges: Vec<Merge>) -> Result<Vec<(String, String)>, Inexpressible> {
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        match merge {
            Merge::Pair(left, right) => pairs.push((left, right)),
            Merge::Line(line) if line.starts_with("#version") => {}
            Merge::Line(line) => match line.split_once(' ') {
                Some((left, right)) if !right.contains(' ') => pairs.push((left.into(), right.into())),
                _ => return Err(setting("merges", format!("one with the line {line:?}"))),
            },
        }
    }
    Ok(pairs)
}
