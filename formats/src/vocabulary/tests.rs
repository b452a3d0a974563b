use super::*;
use proptest::prelude::*;

fn token(text: &str, class: Class) -> Token {
    Token { text: text.into(), class }
}

/// All bytes, two merges and two special tokens.
fn bytes_and_more() -> Description {
    let mut tokens: Vec<Token> = (0..=255).map(|b| token(&char_of(b).to_string(), Class::Normal)).collect();
    tokens.extend([token("ab", Class::Normal), token("Ġab", Class::Normal)]);
    tokens.extend([token("<|end|>", Class::Control), token("<|e", Class::UserDefined)]);
    let merges = vec![("a".into(), "b".into()), ("Ġ".into(), "ab".into())];
    let mut description = Description::byte_level(tokens, merges);
    description.before = vec![258];
    description
}

fn pieces() -> Description {
    let texts = ["<unk>", "<s>", "<0x0A>", "▁", "a", "▁a"];
    let classes = [Class::Unknown, Class::Control, Class::Byte, Class::Normal, Class::Normal, Class::Normal];
    let tokens = texts.iter().zip(classes).map(|(text, class)| token(text, class)).collect();
    Description::sentence_piece(tokens, vec![0.0, 0.0, 0.0, -1.0, -2.0, -0.5])
}

fn open(description: &Description) -> Vocabulary<Vec<u8>> {
    Vocabulary::open(description.encode().expect("a vocabulary")).expect("it opens")
}

#[test]
fn the_alphabet_spells_every_byte_differently() {
    let spelled: std::collections::BTreeSet<char> = (0..=255).map(char_of).collect();
    assert_eq!(spelled.len(), 256);
    for byte in 0..=255 {
        assert_eq!(byte_of(char_of(byte)), Some(byte));
    }
    assert_eq!((char_of(b' '), char_of(b'\n'), char_of(0xad), char_of(0x7f)), ('Ġ', 'Ċ', 'Ń', 'ġ'));
    assert_eq!(unspell("Ġa"), Some(b" a".to_vec()));
    assert_eq!(unspell("日"), None);
}

#[test]
fn bytes_are_found_and_joined() {
    let vocabulary = open(&bytes_and_more());
    assert_eq!((vocabulary.len(), vocabulary.kind()), (260, Kind::ByteLevel));
    assert_eq!(vocabulary.text(257), b" ab");
    assert_eq!(vocabulary.find(b" ab"), Some(257));
    assert_eq!(vocabulary.byte(b'a'), Some(u32::from(b'a')));
    assert_eq!(vocabulary.merge(97, 98), Some((0, 256)));
    assert_eq!(vocabulary.merge(32, 256), Some((1, 257)));
    assert_eq!(vocabulary.merge(98, 97), None);
    assert_eq!(vocabulary.find(b"<|end|>"), None, "special tokens are no parts of texts");
    assert_eq!(vocabulary.first(), [259, 258], "sorted by text");
    assert_eq!(vocabulary.before(), [258]);
    assert_eq!(vocabulary.class(258), Some(Class::Control));
    assert_eq!((vocabulary.class(260), vocabulary.text(260)), (None, &b""[..]));
}

#[test]
fn pieces_have_scores_and_bytes() {
    let vocabulary = open(&pieces());
    assert_eq!(vocabulary.unknown(), Some(0));
    assert_eq!(vocabulary.byte(b'\n'), Some(2));
    assert_eq!(vocabulary.byte(b'a'), None);
    assert_eq!(vocabulary.find("▁a".as_bytes()), Some(5));
    assert_eq!(vocabulary.find(b"<0x0A>"), None, "a byte is no text");
    assert_eq!(vocabulary.score(5), Some(-0.5));
    assert!(vocabulary.has_scores() && vocabulary.strip() && vocabulary.byte_fallback());
    assert_eq!(vocabulary.prefix(), Prefix::Always);
}

#[test]
fn lists_that_make_no_vocabulary() {
    let refused = |change: &dyn Fn(&mut Description), part: &str| {
        let mut description = bytes_and_more();
        change(&mut description);
        let error = description.encode().expect_err(part).to_string();
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    };
    refused(&|d| d.before = vec![260], "260");
    refused(&|d| d.unknown = Some(999), "the unknown token is the id 999");
    refused(&|d| d.after = vec![0; MAX_AROUND + 1], "65 tokens after a text");
    refused(&|d| d.merging = Merging::Ranks(vec![("a".into(), "c".into())]), "\"ac\" is no token");
    refused(&|d| d.merging = Merging::Scores(vec![0.0]), "1 scores for 260 tokens");
    refused(&|d| d.merging = Merging::Scores(vec![f32::NAN; 260]), "the score of token 0");
    refused(&|d| d.tokens[3].text = "x".repeat(MAX_TOKEN_BYTES + 1), "bytes in one token");
}

#[test]
fn many_entries_are_found_again() {
    let tokens: Vec<Token> = (0..50_000).map(|i| token(&format!("t{i}"), Class::Normal)).collect();
    let bytes = Description::byte_level(tokens.clone(), vec![]).encode().expect("a vocabulary");
    assert_eq!(bytes, Description::byte_level(tokens, vec![]).encode().expect("a vocabulary"), "the same bytes");
    let vocabulary = Vocabulary::open(bytes.as_slice()).expect("it opens");
    for i in 0..50_000 {
        assert_eq!(vocabulary.find(format!("t{i}").as_bytes()), Some(i));
        assert_eq!(vocabulary.find(format!("u{i}").as_bytes()), None);
    }
}

#[test]
fn what_gguf_says() {
    assert_eq!(gguf_pre("llama-bpe"), Some((Split::Llama3, true)));
    assert_eq!(gguf_pre("default"), Some((Split::Default, false)));
    assert_eq!(gguf_pre("other"), None);
    assert_eq!(merge_sides("Ġ t"), Some(("Ġ", "t")));
    assert_eq!(merge_sides("  a"), Some((" ", "a")));
    assert_eq!([merge_sides(""), merge_sides("ab"), merge_sides("a "), merge_sides("é")], [None; 4]);
}

#[test]
fn no_tokens_at_all() {
    let vocabulary = open(&Description::byte_level(vec![], vec![]));
    assert!(vocabulary.is_empty());
    assert_eq!((vocabulary.find(b"a"), vocabulary.merge(0, 0), vocabulary.byte(0)), (None, None, None));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = bytes_and_more().encode().expect("a vocabulary");
    for length in 0..bytes.len() {
        assert!(Vocabulary::open(&bytes[..length]).is_err(), "{length} bytes");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(Vocabulary::open(longer).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Changed bytes are refused, or answer with tokens that there are.
    #[test]
    fn changed_bytes_are_harmless(
        scores in any::<bool>(),
        changes in prop::collection::vec((prop_oneof![0..HEADER_BYTES, 0..20_000_usize], any::<u8>()), 1..8),
    ) {
        let description = if scores { pieces() } else { bytes_and_more() };
        let mut bytes = description.encode().expect("a vocabulary");
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(vocabulary) = Vocabulary::open(bytes) {
            let tokens = vocabulary.len() as u32;
            let known = |id: Option<u32>| id.is_none_or(|id| id < tokens);
            prop_assert!(known(vocabulary.unknown()));
            for id in [0, 1, 97, 98, 256, 257, tokens, u32::MAX] {
                prop_assert!(vocabulary.text(id).len() <= vocabulary.longest());
                prop_assert!(vocabulary.class(id).is_none() || id < tokens);
                prop_assert!(known(vocabulary.find(&id.to_le_bytes())));
                prop_assert!(known(vocabulary.merge(id, 98).map(|(_, id)| id)));
                vocabulary.score(id);
            }
            for text in [&b"a"[..], b" ab", "▁a".as_bytes()] {
                prop_assert!(known(vocabulary.find(text)));
            }
            prop_assert!((0..=255).all(|byte| known(vocabulary.byte(byte))));
        }
    }
}
