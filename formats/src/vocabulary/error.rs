//! Why there is no vocabulary.

use thiserror::Error;

/// Why lists make no vocabulary, or bytes are none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VocabularyError {
    /// A count past what is believable.
    #[error("the vocabulary has {found} {what}; expected at most {limit}")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A list that should have an entry for each token has not.
    #[error("the vocabulary has {found} {what} for {expected} tokens; expected one for each")]
    Count {
        /// What the list holds.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The number of tokens.
        expected: usize,
    },
    /// An id that is no token.
    #[error("{what} is the id {id}, but the vocabulary has {tokens} tokens (ids below {tokens})")]
    Id {
        /// What the id is for.
        what: &'static str,
        /// The id.
        id: u32,
        /// The number of tokens.
        tokens: usize,
    },
    /// A merge of something that is no token.
    #[error("merge {rank} joins {left:?} and {right:?}, but {missing:?} is no token of the vocabulary")]
    Merge {
        /// Which merge, from 0.
        rank: usize,
        /// Its left side.
        left: String,
        /// Its right side.
        right: String,
        /// What was not found.
        missing: String,
    },
    /// A score that orders nothing.
    #[error("the score of token {id} is not a number; expected one that can be compared")]
    Score {
        /// The token.
        id: usize,
    },
    /// Bytes that are not the stored form.
    #[error("the stored vocabulary is damaged: {what}; compile the model again")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// Another version of the stored form.
    #[error("the stored vocabulary has version {found}, expected {expected}; compile the model again")]
    Version {
        /// The version found.
        found: u32,
        /// The version that is read.
        expected: u32,
    },
}
