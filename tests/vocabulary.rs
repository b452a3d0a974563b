//! A vocabulary as large as Llama 3's: the stored form against the `tokenizers` crate.

use llamac_models::synth::{Synth, tokenizer_json};
use llamac_runtime::text::{Tokenizer, to_vocabulary};

#[test]
fn a_large_vocabulary_is_tokenized_as_the_crate_does() {
    let synth = Synth::preset("llama-3.2-1b").expect("a preset").expect("its configuration");
    let vocab = synth.config().vocab;
    let json = tokenizer_json(synth.config(), 7).expect("a tokenizer").to_string();
    assert_eq!(
        json,
        tokenizer_json(synth.config(), 7).expect("a tokenizer").to_string(),
        "the same seed, the same bytes"
    );
    let stored = to_vocabulary(json.as_bytes()).expect("the form expresses it");
    assert_eq!(stored, to_vocabulary(json.as_bytes()).expect("the form expresses it"));
    let ours = Tokenizer::from_bytes(&stored, "stored", vocab).expect("a tokenizer");
    let theirs = Tokenizer::from_json(json.as_bytes(), "t.json", vocab).expect("a tokenizer");
    assert!(ours.is_stored() && !theirs.is_stored());
    let play = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/bard.heldout.txt"));
    let play = play.expect("the play");
    let more =
        "  \n\n x 12345 don't DON'T <|begin_of_text|>Straße 漢字 🙂\u{301}\t<|reserved_special_token_128200|> \r\n";
    for text in [&play[..20_000], more] {
        let ids = ours.encode(text, true).expect("ids");
        assert_eq!(ids, theirs.encode(text, true).expect("ids"));
        assert_eq!(ours.decode(&ids, true).expect("text"), theirs.decode(&ids, true).expect("text"));
        assert!(ids.len() < text.len(), "tokens were joined");
    }
    for id in (0..vocab as u32).step_by(37) {
        assert_eq!(ours.token(id), theirs.token(id), "token {id}");
    }
    // Ids past the model's vocabulary are named as for any other file.
    let error = Tokenizer::from_bytes(&stored, "stored", vocab - 2).expect_err("two ids too many").to_string();
    for part in ["stored", "128255", "1 more", "ids below 128254"] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}
