//! Cutting special tokens out of a text.

use llamac_formats::vocabulary::Vocabulary;

/// Tokens that are cut out of a text wherever they are spelled, the longest where several begin at the same place.
#[derive(Debug)]
pub(super) struct Cutter {
    /// Sorted by text.
    ids: Vec<u32>,
    /// Whether a text begins with the byte.
    begins: [bool; 256],
}

impl Cutter {
    /// `ids` are sorted by their texts.
    pub fn new<B: AsRef<[u8]>>(vocabulary: &Vocabulary<B>, ids: Vec<u32>) -> Cutter {
        let mut begins = [false; 256];
        for id in &ids {
            if let Some(byte) = vocabulary.text(*id).first() {
                begins[usize::from(*byte)] = true;
            }
        }
        Cutter { ids, begins }
    }

    /// Calls `each` with what lies between the tokens, which is never empty, and with the tokens.
    pub fn cut<'t, B: AsRef<[u8]>>(
        &self,
        vocabulary: &Vocabulary<B>,
        text: &'t str,
        each: &mut dyn FnMut(Result<u32, &'t str>),
    ) {
        let (mut from, mut at) = (0, 0);
        while let Some(byte) = text.as_bytes().get(at) {
            if self.begins[usize::from(*byte)]
                && let Some((id, length)) = self.longest(vocabulary, &text.as_bytes()[at..])
                && text.is_char_boundary(at)
                && text.is_char_boundary(at + length)
            {
                if from < at {
                    each(Err(&text[from..at]));
                }
                each(Ok(id));
                at += length;
                from = at;
            } else {
                at += 1;
            }
        }
        if from < text.len() {
            each(Err(&text[from..]));
        }
    }

    /// The longest token that the bytes begin with, and its length, which is not 0.
    fn longest<B: AsRef<[u8]>>(&self, vocabulary: &Vocabulary<B>, bytes: &[u8]) -> Option<(u32, usize)> {
        let mut candidates = self.ids.as_slice();
        let mut found = None;
        for (at, byte) in bytes.iter().enumerate() {
            // Those that go on with the byte lie together.
            let next = |id: &u32| vocabulary.text(*id).get(at).copied();
            let start = candidates.partition_point(|id| next(id) < Some(*byte));
            let end = candidates.partition_point(|id| next(id) <= Some(*byte));
            candidates = candidates.get(start..end)?;
            let Some(first) = candidates.first() else { break };
            if vocabulary.text(*first).len() == at + 1 && (*first as usize) < vocabulary.len() {
                found = Some((*first, at + 1));
            }
        }
        found
    }
}
