//! Stored vocabularies against the `tokenizers` crate, and stored vocabularies that were changed.

use llamac_formats::vocabulary::{Class, Description, HEADER_BYTES, Split, Token};
use llamac_runtime::text::{Tokenizer, TokenizerError, to_vocabulary};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn json_of(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(repository(path)).expect(path)).expect(path)
}

fn bard() -> Value {
    json_of("examples/models/bard/tokenizer.json")
}

fn stories() -> Value {
    json_of("tests/models/stories260K/tokenizer.json")
}

/// The stored form and the crate for the same file.
fn both(file: &Value) -> (Tokenizer, Tokenizer) {
    let json = file.to_string();
    let stored = to_vocabulary(json.as_bytes()).expect("the form expresses it");
    let ours = Tokenizer::from_bytes(&stored, "stored", 5000).expect("a tokenizer");
    let theirs = Tokenizer::from_json(json.as_bytes(), "t.json", 5000).expect("a tokenizer");
    assert!(ours.is_stored() && !theirs.is_stored());
    (ours, theirs)
}

/// The files of the repository, and what else the form says it can express.
static PAIRS: LazyLock<Vec<(Tokenizer, Tokenizer)>> = LazyLock::new(|| {
    let changed = |mut file: Value, change: &dyn Fn(&mut Value)| {
        change(&mut file);
        both(&file)
    };
    let metaspace =
        |scheme: &str| json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false });
    let gpt2 = |prefix: bool| json!({ "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true });
    let added = |id: usize, content: &str, normalized: bool, special: bool| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": normalized, "special": special,
        })
    };
    let mut pairs = vec![
        both(&bard()),
        both(&stories()),
        changed(bard(), &|f| f["pre_tokenizer"] = gpt2(false)),
        changed(bard(), &|f| f["pre_tokenizer"] = gpt2(true)),
        changed(bard(), &|f| f["model"]["ignore_merges"] = false.into()),
        changed(bard(), &|f| {
            let pattern = &mut f["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"];
            *pattern = pattern.as_str().expect("a pattern").replace("{1,3}", "").into();
        }),
        changed(bard(), &|f| {
            f["post_processor"] = Value::Null;
            let list = f["added_tokens"].as_array_mut().expect("tokens");
            let next = 2048;
            list.push(added(next, "  ", false, false));
            list.push(added(next + 1, "  the", true, false));
            list.push(added(next + 2, "日本", true, false));
            list.push(added(next + 3, "<|eot_id|>!", false, true));
        }),
        changed(stories(), &|f| f["model"]["fuse_unk"] = false.into()),
        changed(stories(), &|f| f["model"]["byte_fallback"] = false.into()),
        changed(stories(), &|f| {
            f["model"]["byte_fallback"] = false.into();
            f["model"]["unk_token"] = Value::Null;
        }),
        // Half of the bytes: a character falls back to all of its bytes or to none.
        changed(stories(), &|f| {
            let vocab = f["model"]["vocab"].as_object_mut().expect("tokens");
            for id in (3..259).step_by(5) {
                let name = format!("<0x{:02X}>", id - 3);
                vocab.remove(&name);
                vocab.insert(format!("zz{id}"), json!(id));
            }
        }),
    ];
    for scheme in ["always", "first", "never"] {
        pairs.push(changed(stories(), &|f| {
            f["normalizer"] = Value::Null;
            f["pre_tokenizer"] = metaspace(scheme);
            let decoders = f["decoder"]["decoders"].as_array_mut().expect("decoders");
            decoders.truncate(if scheme == "never" { 3 } else { 4 });
        }));
    }
    pairs
});

/// Texts of what tokenizers treat differently.
fn text() -> impl Strategy<Value = String> {
    let fixed = [
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "\u{85}",
        "'s",
        "'S",
        "'ſ",
        "'re",
        "'LL",
        "'",
        "12",
        "34567",
        "٣",
        "½",
        "Ⅷ",
        "the",
        " The",
        "upon a time",
        "é",
        "e\u{301}",
        "ß",
        "漢字",
        "日本語",
        "ひらがな",
        "🙂",
        "👩‍👩‍👧",
        "한국",
        "ʼn",
        "ª",
        "Ⓐ",
        "\u{200b}",
        "\u{feff}",
        "\u{fffd}",
        "\0",
        "\u{7f}",
        "<s>",
        "</s>",
        "<unk>",
        "<|eot_id|>",
        "<|eot_id|>!",
        "<|eot",
        "<0x0A>",
        "▁",
        "▁▁",
        "!!",
        "...",
        "$+=",
        "-",
        "_",
        "(",
        "Ġ",
    ];
    let piece = prop_oneof![
        4 => prop::sample::select(fixed.to_vec()).prop_map(String::from),
        2 => "[a-zA-Z]{1,8}",
        1 => "\\PC{1,4}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn streamed(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32]) -> Result<String, TokenizerError> {
    let mut stream = tokenizer.stream(prompt)?;
    let mut text = String::new();
    for &id in ids {
        text.push_str(&stream.push(id)?);
    }
    Ok(text + &stream.finish()?)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn texts_become_the_ids_of_the_crate(text in text()) {
        for (index, (ours, theirs)) in PAIRS.iter().enumerate() {
            for special in [true, false] {
                let expected = theirs.encode(&text, special).expect("ids");
                prop_assert_eq!(ours.encode(&text, special).expect("ids"), expected, "pair {}: {:?}", index, text);
            }
        }
    }

    #[test]
    fn ids_become_the_text_of_the_crate(ids in prop::collection::vec(prop_oneof![0..2060_u32, 0..520_u32], 0..24)) {
        for (index, (ours, theirs)) in PAIRS.iter().enumerate() {
            for special in [true, false] {
                let expected = theirs.decode(&ids, special).expect("text");
                prop_assert_eq!(ours.decode(&ids, special).expect("text"), expected, "pair {}", index);
            }
            let (prompt, rest) = ids.split_at(ids.len() / 2);
            let expected = streamed(theirs, prompt, rest).expect("text");
            prop_assert_eq!(streamed(ours, prompt, rest).expect("text"), expected, "pair {}", index);
        }
    }
}

#[test]
fn tokens_are_spelled_as_the_crate_spells_them() {
    for (ours, theirs) in PAIRS.iter() {
        for id in 0..2060 {
            assert_eq!(ours.token(id), theirs.token(id), "token {id}");
        }
    }
}

/// The stories' vocabulary with scores instead of merges, stored.
fn scored() -> Vec<u8> {
    let file = stories();
    let mut tokens = vec![Token { text: String::new(), class: Class::Unused }; 512];
    for (text, id) in file["model"]["vocab"].as_object().expect("tokens") {
        let id = id.as_u64().expect("an id") as usize;
        let class = match id {
            0 => Class::Unknown,
            1 | 2 => Class::Control,
            3..=258 => Class::Byte,
            _ => Class::Normal,
        };
        tokens[id] = Token { text: text.clone(), class };
    }
    // The trainer wrote the tokens in the order of their scores.
    let scores = (0..512).map(|id| if id < 259 { 0.0 } else { 259.0 - id as f32 }).collect();
    let mut description = Description::sentence_piece(tokens, scores);
    description.before = vec![1];
    description.encode().expect("a vocabulary")
}

/// Merging by score, as GGUF has SentencePiece, comes to the same as merging by rank.
#[test]
fn scores_give_the_golden_ids() {
    let ours = Tokenizer::from_bytes(&scored(), "stored", 512).expect("a tokenizer");
    let golden = json_of("tests/golden/stories260K.tokens.json");
    let cases = golden["cases"].as_array().expect("cases");
    assert!(cases.len() >= 10);
    for case in cases {
        let text = case["text"].as_str().expect("a text");
        let ids = ours.encode(text, true).expect("ids");
        assert_eq!(json!(ids), case["ids"], "{text:?}");
        assert_eq!(ours.decode(&ids[1..], true).expect("text"), case["decoded"].as_str().expect("a text"));
    }
}

/// The way of llama.cpp's files without one, against the same steps in the crate.
#[test]
fn the_default_way_takes_texts_apart_in_three_steps() {
    let mut file = bard();
    let split = |pattern: &str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let steps = &mut file["pre_tokenizer"]["pretokenizers"];
    let bytes = steps[1].clone();
    *steps = json!([
        split(r"[\p{P}\$\+<=>\^~\|]+"),
        split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
        split(r"\p{N}+"),
        split("[0-9][0-9][0-9]"),
        bytes
    ]);
    let theirs = Tokenizer::from_bytes(file.to_string().as_bytes(), "t.json", 2048).expect("a tokenizer");
    assert!(!theirs.is_stored(), "only GGUF asks for it");
    let mut stored = to_vocabulary(bard().to_string().as_bytes()).expect("the form expresses it");
    // Where the header has the way to split.
    stored[13] = Split::Default as u8;
    let ours = Tokenizer::from_bytes(&stored, "stored", 2048).expect("a tokenizer");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let compare = |text: String| {
        let expected = theirs.encode(&text, false).expect("ids");
        prop_assert_eq!(ours.encode(&text, false).expect("ids"), expected, "{:?}", text);
        Ok(())
    };
    runner.run(&text(), compare).expect("the same ids");
}

#[test]
fn what_the_form_lacks_is_said_and_left_to_the_crate() {
    let refused = |mut file: Value, change: &dyn Fn(&mut Value), part: &str| {
        change(&mut file);
        let json = file.to_string();
        let reason = to_vocabulary(json.as_bytes()).expect_err(part).to_string();
        assert!(reason.contains(part), "{reason:?} does not say {part:?}");
        if let Ok(tokenizer) = Tokenizer::from_bytes(json.as_bytes(), "t.json", 5000) {
            assert!(!tokenizer.is_stored());
        }
    };
    refused(bard(), &|f| f["normalizer"] = json!({ "type": "NFC" }), "normalizer");
    refused(bard(), &|f| f["pre_tokenizer"]["pretokenizers"][0]["invert"] = true.into(), "pre_tokenizer");
    refused(bard(), &|f| f["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "x+".into(), "x+");
    refused(bard(), &|f| f["added_tokens"][0]["lstrip"] = true.into(), "<|begin_of_text|>");
    refused(bard(), &|f| f["added_tokens"][0]["id"] = 7.into(), "expected 2043");
    refused(bard(), &|f| f["model"]["dropout"] = 0.5.into(), "dropout");
    refused(bard(), &|f| f["model"]["type"] = "WordPiece".into(), "WordPiece");
    refused(bard(), &|f| f["model"]["merges"][0] = "q q".into(), "\"qq\" is no token");
    refused(bard(), &|f| f["version"] = "2.0".into(), "version");
    refused(stories(), &|f| f["decoder"] = Value::Null, "decoder is none");
    refused(stories(), &|f| f["added_tokens"][0]["normalized"] = true.into(), "normalized");
    refused(stories(), &|f| f["post_processor"] = json!({ "type": "RobertaProcessing" }), "post_processor");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// A changed vocabulary is refused, or tokenizes in its own way: nothing panics, and ids stay below the vocabulary.
    #[test]
    fn changed_vocabularies_are_harmless(
        bytes in any::<bool>(),
        scores in any::<bool>(),
        changes in prop::collection::vec(
            (prop_oneof![2 => 0..HEADER_BYTES, 3 => 0..200_000_usize], prop_oneof![any::<u8>(), 0..4_u8]), 1..10),
        text in text(),
    ) {
        let file = if bytes { bard() } else { stories() };
        let mut stored = match scores {
            true => scored(),
            false => to_vocabulary(file.to_string().as_bytes()).expect("the form expresses it"),
        };
        for (at, value) in changes {
            let at = at % stored.len();
            stored[at] = value;
        }
        if let Ok(tokenizer) = Tokenizer::from_bytes(&stored, "stored", 2048) {
            let ids = tokenizer.encode(&text, true).expect("ids");
            prop_assert!(ids.iter().all(|id| *id < 2048), "{ids:?}");
            tokenizer.decode(&ids, true).expect("text");
            streamed(&tokenizer, &ids, &[5, 300, 2047]).expect("text");
            tokenizer.token(7);
        }
    }
}
