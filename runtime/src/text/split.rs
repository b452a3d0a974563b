//! Taking a text apart before tokens are looked for.
//!
//! The ways are published as regular expressions; here they are written out, since compiling such an expression takes
//! longer than opening everything else. Each tries its alternatives in order at every place, as the expressions do, and
//! they use the same tables of letters, numbers and marks as the expressions.

use llamac_formats::vocabulary::Split;
use regex_syntax::hir::{Class, HirKind};
use std::sync::LazyLock;

/// What a character is to the expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Letter,
    Number,
    Space,
    /// Anything else.
    Mark,
}

/// Ranges of characters, in order.
type Ranges = Vec<(char, char)>;

/// Unicode's tables of what is not plain ASCII.
struct Tables {
    letters: Ranges,
    numbers: Ranges,
    punctuation: Ranges,
}

static TABLES: LazyLock<Tables> =
    LazyLock::new(|| Tables { letters: ranges(r"\p{L}"), numbers: ranges(r"\p{N}"), punctuation: ranges(r"\p{P}") });

fn ranges(class: &str) -> Ranges {
    match regex_syntax::parse(class).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class.ranges().iter().map(|r| (r.start(), r.end())).collect(),
        // The classes above are written right.
        _ => vec![],
    }
}

fn within(ranges: &Ranges, c: char) -> bool {
    let after = ranges.partition_point(|(start, _)| *start <= c);
    after > 0 && c <= ranges[after - 1].1
}

fn sort(c: char) -> Sort {
    match c {
        'a'..='z' | 'A'..='Z' => Sort::Letter,
        '0'..='9' => Sort::Number,
        c if c.is_whitespace() => Sort::Space,
        c if c.is_ascii() => Sort::Mark,
        c if within(&TABLES.letters, c) => Sort::Letter,
        c if within(&TABLES.numbers, c) => Sort::Number,
        _ => Sort::Mark,
    }
}

/// Bytes of the characters at the begin of `text` that are of a sort, at most `limit` of them.
fn run(text: &str, wanted: Sort, limit: usize) -> usize {
    text.chars().take(limit).take_while(|c| sort(*c) == wanted).map(char::len_utf8).sum()
}

/// Calls `each` with every piece of `text`, in order; together they are the text.
pub(super) fn pieces<'t>(text: &'t str, split: Split, each: &mut dyn FnMut(&'t str)) {
    match split {
        Split::None => {
            if !text.is_empty() {
                each(text);
            }
        }
        Split::Gpt2 => by(text, gpt2, each),
        Split::Llama3 => by(text, |rest| llama3(rest, 3), each),
        Split::Qwen2 => by(text, |rest| llama3(rest, 1), each),
        Split::Default => by(text, marks, &mut |piece| {
            by(piece, gpt2, &mut |piece| by(piece, digits, each));
        }),
    }
}

/// Cuts off pieces of the lengths that `next` says. A length is never 0.
fn by<'t>(text: &'t str, next: impl Fn(&str) -> usize, each: &mut dyn FnMut(&'t str)) {
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(next(rest));
        each(piece);
        rest = after;
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
fn gpt2(rest: &str) -> usize {
    if let Some(length) = contraction(rest, |a, b| a == b) {
        return length;
    }
    let space = usize::from(rest.starts_with(' '));
    let word = &rest[space..];
    match word.chars().next().map(sort) {
        Some(wanted @ (Sort::Letter | Sort::Number | Sort::Mark)) => space + run(word, wanted, usize::MAX),
        Some(Sort::Space) | None => blanks(rest),
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
/// with up to `digits` digits in a number.
fn llama3(rest: &str, digits: usize) -> usize {
    let fold = |a: char, b: char| a.eq_ignore_ascii_case(&b) || (a == 's' && b == 'ſ');
    if let Some(length) = contraction(rest, fold) {
        return length;
    }
    let Some(first) = rest.chars().next() else { return 0 };
    let kind = sort(first);
    let leads = !matches!(first, '\r' | '\n') && matches!(kind, Sort::Space | Sort::Mark);
    let lead = if leads { first.len_utf8() } else { 0 };
    let letters = run(&rest[lead..], Sort::Letter, usize::MAX);
    if letters > 0 {
        return lead + letters;
    }
    if kind == Sort::Number {
        return run(rest, Sort::Number, digits);
    }
    let space = usize::from(first == ' ');
    let marks = run(&rest[space..], Sort::Mark, usize::MAX);
    if marks > 0 {
        let end = space + marks;
        return end + rest[end..].bytes().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    }
    let blank = &rest[..run(rest, Sort::Space, usize::MAX)];
    match blank.rfind(['\r', '\n']) {
        Some(last) => last + 1,
        None => blanks(rest),
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`; `same` says which characters are alike.
fn contraction(rest: &str, same: impl Fn(char, char) -> bool) -> Option<usize> {
    let after = rest.strip_prefix('\'')?;
    ["s", "t", "re", "ve", "m", "ll", "d"].into_iter().find_map(|ending| {
        let mut found = after.chars();
        let matches = ending.chars().all(|a| found.next().is_some_and(|b| same(a, b)));
        matches.then(|| rest.len() - found.as_str().len())
    })
}

/// `\s+(?!\S)|\s+`: all blanks, but the last is left to what follows.
fn blanks(rest: &str) -> usize {
    let all = run(rest, Sort::Space, usize::MAX);
    let last = rest[..all].chars().next_back().map_or(0, char::len_utf8);
    if all == rest.len() || all == last { all } else { all - last }
}

/// `[\p{P}\$\+<=>\^~\|]+`, and what lies between.
fn marks(rest: &str) -> usize {
    let is_mark =
        |c: char| matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|') || within(&TABLES.punctuation, c);
    let first = rest.chars().next().is_some_and(is_mark);
    rest.find(|c| is_mark(c) != first).unwrap_or(rest.len())
}

/// `[0-9][0-9][0-9]`, and what lies between.
fn digits(rest: &str) -> usize {
    let three = |at: usize| rest.as_bytes()[at..].iter().take(3).filter(|b| b.is_ascii_digit()).count() == 3;
    if three(0) {
        return 3;
    }
    // Digits are one byte each, so the place before them is between characters.
    (1..rest.len()).find(|at| three(*at)).unwrap_or(rest.len())
}
