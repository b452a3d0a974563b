//! Joining tokens, the best pair first.

use llamac_formats::vocabulary::Vocabulary;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No neighbour.
const NONE: u32 = u32::MAX;

/// A part of a piece: a token, or a character that is none yet.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    /// [`NONE`] for a character that is no token.
    id: u32,
    /// Where its text is in the piece; gone if it is empty.
    start: u32,
    end: u32,
    previous: u32,
    next: u32,
}

/// Joins the tokens of one piece after the other. Time is n log n of the piece; memory is kept from piece to piece.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// (rank, place, token that comes of it), the least first.
    queue: BinaryHeap<Reverse<(u32, u32, u32)>>,
}

impl Merger {
    /// Begins with a new piece.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Adds a token that stands for the next `bytes` bytes of the piece; `None` for a character that is no token.
    pub fn push(&mut self, id: Option<u32>, bytes: usize) {
        let at = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |last| last.end);
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let previous = if at == 0 { NONE } else { at - 1 };
        let end = start + bytes as u32;
        self.symbols.push(Symbol { id: id.unwrap_or(NONE), start, end, previous, next: NONE });
    }

    /// Joins what can be joined. `text` is the piece.
    pub fn merge<B: AsRef<[u8]>>(&mut self, vocabulary: &Vocabulary<B>, text: &[u8]) {
        let scores = vocabulary.has_scores();
        let join = |left: &Symbol, right: &Symbol| {
            if !scores {
                return vocabulary.merge(left.id, right.id);
            }
            let id = vocabulary.find(text.get(left.start as usize..right.end as usize)?)?;
            Some((sooner(vocabulary.score(id)?), id))
        };
        for (place, pair) in (0_u32..).zip(self.symbols.windows(2)) {
            if let Some((rank, id)) = join(&pair[0], &pair[1]) {
                self.queue.push(Reverse((rank, place, id)));
            }
        }
        while let Some(Reverse((_, place, id))) = self.queue.pop() {
            let left = self.symbols[place as usize];
            if left.start == left.end || left.next == NONE {
                continue;
            }
            let right = self.symbols[left.next as usize];
            // What was queued may be joined to something else by now.
            if join(&left, &right).is_none_or(|(_, now)| now != id) {
                continue;
            }
            let joined = Symbol { id, end: right.end, next: right.next, ..left };
            self.symbols[place as usize] = joined;
            self.symbols[left.next as usize].end = right.start;
            if right.next != NONE {
                self.symbols[right.next as usize].previous = place;
                if let Some((rank, id)) = join(&joined, &self.symbols[right.next as usize]) {
                    self.queue.push(Reverse((rank, place, id)));
                }
            }
            if left.previous != NONE
                && let Some((rank, id)) = join(&self.symbols[left.previous as usize], &joined)
            {
                self.queue.push(Reverse((rank, left.previous, id)));
            }
        }
    }

    /// What is left, in order: tokens, or the bytes of a character that is none.
    pub fn results<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Result<u32, &'a [u8]>> {
        self.symbols.iter().filter(|symbol| symbol.start < symbol.end).map(move |symbol| match symbol.id {
            NONE => Err(text.get(symbol.start as usize..symbol.end as usize).unwrap_or_default()),
            id => Ok(id),
        })
    }
}

/// A score as a rank: the highest is the least.
fn sooner(score: f32) -> u32 {
    // Adding zero makes one of the two zeros.
    let bits = (score + 0.0).to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !rising
}
