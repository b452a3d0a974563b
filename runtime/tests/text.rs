//! Tokenizers against the golden ids, text as it streams, and tokenizers that are none.

use llamac_runtime::text::{Tokenizer, TokenizerError};
use proptest::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

static BARD: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::from_file(&repository("examples/models/bard/tokenizer.json"), 2048).expect("bard's tokenizer")
});
static STORIES: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::from_file(&repository("tests/models/stories260K/tokenizer.json"), 512).expect("the stories' tokenizer")
});

fn json(path: &str) -> Value {
    let bytes = std::fs::read(repository(path)).expect(path);
    serde_json::from_slice(&bytes).expect(path)
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list of ids");
    list.iter().map(|id| id.as_u64().and_then(|id| id.try_into().ok()).expect("an id")).collect()
}

/// All pieces of the tokens after a prompt.
fn streamed(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32]) -> String {
    try_streamed(tokenizer, prompt, ids).expect("text")
}

fn try_streamed(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32]) -> Result<String, TokenizerError> {
    let mut stream = tokenizer.stream(prompt)?;
    let mut text = String::new();
    for &id in ids {
        text.push_str(&stream.push(id)?);
    }
    Ok(text + &stream.finish()?)
}

fn matches_golden(tokenizer: &Tokenizer, path: &str) {
    let golden = json(path);
    let cases = golden["cases"].as_array().expect("cases");
    assert!(cases.len() >= 10);
    for case in cases {
        let text = case["text"].as_str().expect("a text");
        let with = ids(&case["ids"]);
        assert_eq!(tokenizer.encode(text, true).expect("ids"), with, "{text:?}");
        assert_eq!(tokenizer.encode(text, false).expect("ids"), ids(&case["ids_no_special"]), "{text:?}");
        let decoded = case["decoded"].as_str().expect("a text");
        assert_eq!(tokenizer.decode(&with[1..], true).expect("text"), decoded);
        let visible = tokenizer.decode(&with, false).expect("text");
        assert_eq!(streamed(tokenizer, &[], &with), visible);
        assert_eq!(streamed(tokenizer, &with[..1], &with[1..]), visible);
    }
}

#[test]
fn bard_matches_the_golden_ids() {
    matches_golden(&BARD, "tests/golden/bard.tokens.json");
}

#[test]
fn stories_match_the_golden_ids() {
    matches_golden(&STORIES, "tests/golden/stories260K.tokens.json");
}

#[test]
fn the_greedy_story_streams_to_the_letter() {
    let golden = json("tests/golden/stories260K.json");
    let expected = std::fs::read_to_string(repository("tests/golden/stories260K.expected.txt")).expect("the story");
    let case = golden["cases"].as_array().expect("cases").iter().find(|case| ids(&case["ids"]) == [1]);
    let greedy = ids(&case.expect("the begin token alone")["greedy"]);
    assert_eq!(streamed(&STORIES, &[1], &greedy), expected);
}

#[test]
fn the_space_before_the_first_generated_word_stays() {
    let all = STORIES.encode("Once upon a time", true).expect("ids");
    let prompt = STORIES.encode("Once upon", true).expect("ids");
    assert_eq!(all[..prompt.len()], prompt);
    assert_eq!(streamed(&STORIES, &prompt, &all[prompt.len()..]), " a time");
}

#[test]
fn half_a_character_is_never_shown() {
    for tokenizer in [&*BARD, &*STORIES] {
        let text = "a 🙂 é — 漢";
        let ids = tokenizer.encode(text, false).expect("ids");
        let mut stream = tokenizer.stream(&[]).expect("a stream");
        let mut shown = String::new();
        let mut held = 0;
        for &id in &ids {
            let piece = stream.push(id).expect("a piece");
            held += usize::from(piece.is_empty());
            shown.push_str(&piece);
            assert!(text.starts_with(&shown), "{shown:?}");
        }
        assert!(held >= 3, "the bytes of 🙂 come one by one");
        shown.push_str(&stream.finish().expect("the rest"));
        assert_eq!(shown, text);
    }
}

#[test]
fn what_never_becomes_a_character_is_shown_at_the_end() {
    for tokenizer in [&*BARD, &*STORIES] {
        let smile = tokenizer.encode("x🙂", false).expect("ids");
        let cut = &smile[..smile.len() - 1];
        let text = streamed(tokenizer, &[], cut);
        assert_eq!(text, tokenizer.decode(cut, false).expect("text"));
        assert!(text.starts_with('x') && text.ends_with('\u{fffd}'), "{text:?}");
        // Nothing was generated: nothing is shown.
        assert_eq!(streamed(tokenizer, cut, &[]), "");
    }
}

#[test]
fn ids_without_a_token_have_no_text() {
    assert_eq!(streamed(&BARD, &[2043], &[39, 99_999, 2044, 414]), BARD.decode(&[39, 414], false).expect("text"));
}

#[test]
fn files_that_are_no_tokenizer() {
    let error = Tokenizer::from_file(Path::new("no/tokenizer.json"), 10).expect_err("no file");
    assert!(error.to_string().contains("no/tokenizer.json: cannot be read"), "{error}");
    for bytes in [b"".as_slice(), b"{", b"{}", b"[]", b"\xff", br#"{"version": "1.0", "model": {"type": "Odd"}}"#] {
        let error = Tokenizer::from_bytes(bytes, "t.json", 10).expect_err("no tokenizer");
        assert!(matches!(error, TokenizerError::Invalid { .. }));
        assert!(error.to_string().starts_with("t.json: invalid tokenizer: "), "{error}");
    }
}

#[test]
fn ids_past_the_vocabulary_are_named() {
    let bytes = std::fs::read(repository("examples/models/bard/tokenizer.json")).expect("bard's tokenizer");
    let error = Tokenizer::from_bytes(&bytes, "t.json", 2046).expect_err("two ids too many").to_string();
    for part in ["t.json", "<|eot_id|>", "2047", "ids below 2046", "1 more"] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn templates_that_cannot_be_filled() {
    let refused = |change: &dyn Fn(&mut Value), part: &str| {
        let mut file = json("tests/models/stories260K/tokenizer.json");
        change(&mut file["post_processor"]);
        let error = Tokenizer::from_bytes(file.to_string().as_bytes(), "t.json", 512).expect_err(part).to_string();
        assert!(error.contains("t.json") && error.contains(part), "{error:?} does not say {part:?}");
    };
    refused(&|p| p["special_tokens"] = serde_json::json!({}), "\"<s>\", which special_tokens lacks");
    refused(&|p| p["single"][1]["Sequence"]["id"] = "B".into(), "the sequence B");
    refused(&|p| p["special_tokens"]["<s>"]["ids"][0] = 512.into(), "the id 512");
    refused(
        &|p| *p = serde_json::json!({"type": "Sequence", "processors": [{"single": [{"Sequence": {"id": "B"}}]}]}),
        "the sequence B",
    );
}

#[test]
fn truncation_and_padding_of_the_file_are_left_out() {
    let mut file = json("examples/models/bard/tokenizer.json");
    file["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = serde_json::json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!"
    });
    let tokenizer = Tokenizer::from_bytes(file.to_string().as_bytes(), "t.json", 2048).expect("a tokenizer");
    let text = "A text of more than three tokens.";
    assert_eq!(tokenizer.encode(text, true).expect("ids"), BARD.encode(text, true).expect("ids"));
}

proptest! {
    /// Whatever tokens come, the pieces are what they decode to together.
    #[test]
    fn pieces_add_up_to_the_whole(
        bard in prop::collection::vec(0..2060_u32, 0..40),
        stories in prop::collection::vec(prop_oneof![0..520_u32, 3..259_u32], 0..40),
        prompt in "[a-zA-Z ,.]{0,20}",
    ) {
        for (tokenizer, ids) in [(&*BARD, bard), (&*STORIES, stories)] {
            prop_assert_eq!(streamed(tokenizer, &[], &ids), tokenizer.decode(&ids, false).expect("text"));
            let mut all = tokenizer.encode(&prompt, true).expect("ids");
            let begin = tokenizer.decode(&all, false).expect("text");
            let pieces = streamed(tokenizer, &all, &ids);
            all.extend(ids);
            prop_assert_eq!(begin + &pieces, tokenizer.decode(&all, false).expect("text"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// A damaged file is read or refused.
    #[test]
    fn damaged_tokenizers_never_panic(
        (path, vocab) in prop_oneof![Just(("tests/models/stories260K", 512)), Just(("examples/models/bard", 2048))],
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[0-9\\[\\]{}\",:a-zA-Z<>]"), 1..4),
        cut in prop::option::of((any::<prop::sample::Index>(), 1..400_usize)),
    ) {
        let mut bytes = std::fs::read(repository(path).join("tokenizer.json")).expect("a tokenizer");
        for (at, text) in changes {
            let at = at.index(bytes.len());
            bytes[at] = text.as_bytes()[0];
        }
        if let Some((at, length)) = cut {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + length).min(bytes.len()));
        }
        if let Ok(tokenizer) = Tokenizer::from_bytes(&bytes, "t.json", vocab)
            && let Ok(ids) = tokenizer.encode("Once upon a time 🙂", true)
        {
            drop(try_streamed(&tokenizer, &[], &ids));
        }
    }
}

/// Every value inside of `value`, but of a vocabulary and merges only the first few.
fn places(value: &mut Value) -> Vec<&mut Value> {
    // A list of raw places would borrow twice: the values are taken level by level.
    let mut all = vec![];
    match value {
        Value::Object(map) => map.values_mut().take(40).for_each(|v| all.extend(places(v))),
        Value::Array(list) => list.iter_mut().take(40).for_each(|v| all.extend(places(v))),
        leaf => all.push(leaf),
    }
    all
}

#[test]
fn odd_values_anywhere_are_read_or_refused() {
    let odd = [Value::Null, 0.into(), (-1).into(), 1e300.into(), u64::MAX.into(), "".into(), "<s>".into(), true.into()];
    for (path, vocab) in [("tests/models/stories260K", 512), ("examples/models/bard", 2048)] {
        let file = json(&format!("{path}/tokenizer.json"));
        let count = places(&mut file.clone()).len();
        let mut read = 0;
        for place in 0..count {
            for value in &odd {
                let mut changed = file.clone();
                *places(&mut changed)[place] = value.clone();
                if let Ok(tokenizer) = Tokenizer::from_bytes(changed.to_string().as_bytes(), "t.json", vocab)
                    && let Ok(ids) = tokenizer.encode("Once upon <s> a time 🙂", true)
                {
                    read += 1;
                    assert!(ids.iter().all(|&id| (id as usize) < vocab));
                    drop(try_streamed(&tokenizer, &[], &ids));
                }
            }
        }
        assert!(read > 0 && read < count * odd.len(), "some are read and some are refused");
    }
}
