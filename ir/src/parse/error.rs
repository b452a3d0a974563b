//! Errors in text: where, what was expected, and the line with a caret.

use std::fmt;

/// How many characters of a long line are shown.
const SHOWN: usize = 140;

/// What is wrong with a text, and where. Displays as the message, the line and a caret under the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong: what was found and what was expected.
    pub message: String,
    /// The part of the line that is shown.
    excerpt: String,
    /// How many characters of the excerpt stand before the place.
    before: usize,
    /// How many carets.
    carets: usize,
}

impl std::error::Error for ParseError {}

impl ParseError {
    /// An error at the bytes `start..end` of `text`.
    pub(super) fn new(text: &str, start: usize, end: usize, message: String) -> ParseError {
        let start = floor_boundary(text, start);
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let line = text[..start].matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let end = floor_boundary(text, end.clamp(start, line_end));
        let chars: Vec<char> = text[line_start..line_end].chars().filter(|c| *c != '\r').collect();
        // Of a long line only the surroundings of the place are shown.
        let first = if chars.len() <= SHOWN { 0 } else { (column - 1).saturating_sub(SHOWN / 2) };
        let shown = chars.iter().skip(first).take(SHOWN);
        let excerpt: String = shown.map(|c| if c.is_control() && *c != '\t' { '\u{fffd}' } else { *c }).collect();
        let before = (column - 1 - first).min(excerpt.chars().count());
        let room = excerpt.chars().count() - before;
        let carets = text[start..end].chars().count().clamp(1, room.max(1));
        ParseError { line, column, message, excerpt, before, carets }
    }
}

/// The nearest character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        let number = self.line.to_string();
        let margin = number.len();
        writeln!(f, "{:margin$} |", "")?;
        writeln!(f, "{number} | {}", self.excerpt)?;
        // Tabs are kept, so that the caret stands under its place however wide they are.
        let indent: String = self.excerpt.chars().take(self.before).map(|c| if c == '\t' { c } else { ' ' }).collect();
        write!(f, "{:margin$} | {indent}{}", "", "^".repeat(self.carets))
    }
}
