//! What a pass says it did.

use std::fmt;

/// Counts and remarks of one run of one pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was done and how often, in the pass's own order: `("dots merged", 6)`.
    pub counts: Vec<(&'static str, usize)>,
    /// Sentences: modes, refusals worth saying.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds to a count.
    pub fn count(&mut self, what: &'static str, n: usize) {
        match self.counts.iter_mut().find(|(w, _)| *w == what) {
            Some((_, total)) => *total += n,
            None => self.counts.push((what, n)),
        }
    }

    /// A count; 0 where nothing of the kind happened.
    pub fn get(&self, what: &str) -> usize {
        self.counts.iter().find(|(w, _)| *w == what).map_or(0, |&(_, n)| n)
    }

    /// Adds a sentence.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Whether something was counted.
    pub fn changed(&self) -> bool {
        self.counts.iter().any(|&(_, n)| n > 0)
    }
}

/// `3 dots merged, 1 bias joined; act=f32`, or `nothing to do`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> =
            self.counts.iter().filter(|&&(_, n)| n > 0).map(|(what, n)| format!("{n} {what}")).collect();
        match (counts.is_empty(), self.notes.is_empty()) {
            (true, true) => f.write_str("nothing to do"),
            (true, false) => f.write_str(&self.notes.join("; ")),
            (false, true) => f.write_str(&counts.join(", ")),
            (false, false) => write!(f, "{}; {}", counts.join(", "), self.notes.join("; ")),
        }
    }
}
