//! A made-up tokenizer of any size: bytes, and tokens made by joining shorter ones.

use crate::Config;
use llamac_formats::vocabulary::char_of;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};

/// Special tokens at the end of a vocabulary, the begin and end tokens among them.
const SPECIAL: usize = 256;
/// The fewest tokens that a tokenizer is made for.
const MIN_TOKENS: usize = 1024;
/// The longest token that is made, characters.
const MAX_CHARACTERS: usize = 14;
/// What words are made of, the frequent first. `Ġ` is a space.
const FREQUENT: &str = "Ġetaoinshrdlucmfwypvbgkqjxz.,'0123456789ETAOINSHRDLUCMFWYPVBGK-;:!?\"()Ċ";
/// How Llama 3 takes a text apart.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A `tokenizer.json` in the manner of Llama 3, with as many tokens as the model has. None for a vocabulary that has no
/// room for all bytes.
pub fn tokenizer_json(config: &Config, seed: u64) -> Option<Value> {
    let vocab = config.vocab;
    if !(MIN_TOKENS..=1 << 20).contains(&vocab) {
        return None;
    }
    let special = specials(config);
    let mut free = (0..vocab).filter(|id| !special.contains_key(id));
    let texts = texts(vocab - special.len(), seed);
    let ids: HashMap<&str, usize> = texts.iter().map(|text| (text.as_str(), free.next().unwrap_or(0))).collect();
    let tokens: Map<String, Value> = texts.iter().map(|text| (text.clone(), json!(ids[text.as_str()]))).collect();
    let added: Vec<Value> = special.iter().map(|(id, name)| added_token(*id, name)).collect();
    let begin = config.bos.and_then(|bos| special.get_key_value(&(bos as usize)));
    let sequence = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
    let (mut single, mut pair) = (vec![sequence("A")], vec![sequence("A"), sequence("B")]);
    let mut described = json!({});
    if let Some((id, name)) = begin {
        let token = json!({ "SpecialToken": { "id": name, "type_id": 0 } });
        single.insert(0, token.clone());
        pair.insert(0, token);
        described[name] = json!({ "id": name, "ids": [id], "tokens": [name] });
    }
    Some(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        ]},
        "post_processor": {
            "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": described,
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": with_specials(tokens, &special), "merges": merges(&texts, &ids),
        },
    }))
}

/// The special tokens by id: the last ones, and the begin and end tokens wherever they are.
fn specials(config: &Config) -> std::collections::BTreeMap<usize, String> {
    let vocab = config.vocab;
    let mut ids: BTreeSet<usize> = (vocab - SPECIAL..vocab).collect();
    let ends = config.eos.iter().map(|id| *id as usize);
    ids.extend(ends.clone().chain(config.bos.map(|id| id as usize)).filter(|id| *id < vocab));
    let name = |id: usize| match id {
        id if config.bos == u32::try_from(id).ok() => "<|begin_of_text|>".to_owned(),
        id if config.eos.first().is_some_and(|eos| *eos as usize == id) => "<|end_of_text|>".to_owned(),
        id => format!("<|reserved_special_token_{id}|>"),
    };
    ids.into_iter().map(|id| (id, name(id))).collect()
}

fn added_token(id: usize, name: &str) -> Value {
    json!({
        "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    })
}

/// Special tokens between others must be in the vocabulary: those outside of it are numbered from its end on.
fn with_specials(
    mut tokens: Map<String, Value>,
    special: &std::collections::BTreeMap<usize, String>,
) -> Map<String, Value> {
    tokens.extend(special.iter().map(|(id, name)| (name.clone(), json!(id))));
    tokens
}

/// `count` different texts in the byte alphabet: all bytes, then joined ones. Each is made of two texts before it.
fn texts(count: usize, seed: u64) -> Vec<String> {
    let mut texts: Vec<String> = (0..=255).map(|byte| char_of(byte).to_string()).collect();
    let mut known: std::collections::HashSet<String> = texts.iter().cloned().collect();
    // What is joined: words grow out of frequent letters, and frequent words.
    let mut parts: Vec<String> = FREQUENT.chars().map(String::from).collect();
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1_u64 << 24) as f64
    };
    while texts.len() < count {
        // The earlier a part, the likelier it is.
        let mut pick = || ((random().powi(3) * parts.len() as f64) as usize).min(parts.len() - 1);
        let (left, right) = (pick(), pick());
        let joined = format!("{}{}", parts[left], parts[right]);
        let within = parts[right].starts_with(['Ġ', 'Ċ']) || parts[left].ends_with('Ċ');
        if within || joined.chars().count() > MAX_CHARACTERS || !known.insert(joined.clone()) {
            continue;
        }
        parts.push(joined.clone());
        texts.push(joined);
    }
    texts
}

/// Every way to make a token of two tokens before it, in the order of the tokens.
fn merges(texts: &[String], ids: &HashMap<&str, usize>) -> Vec<Value> {
    let mut merges = vec![];
    for text in &texts[256..] {
        let id = ids[text.as_str()];
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            let earlier = |part: &str| ids.get(part).is_some_and(|part| *part < id);
            if earlier(left) && earlier(right) {
                merges.push(json!(format!("{left} {right}")));
            }
        }
    }
    merges
}
