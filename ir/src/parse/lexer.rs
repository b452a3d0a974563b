//! Text to tokens, one at a time.

use std::fmt;

/// A token. Numbers stay text: what they mean depends on where they stand.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A word: `add`, `state.write`, `S`.
    Ident(&'a str),
    /// `%name`, without the sign.
    Value(&'a str),
    /// A string, unescaped.
    Str(String),
    /// `12`, `-1.5e-3`, `0x7f800001`, `-inf`.
    Number(&'a str),
    /// One of `@ { } [ ] ( ) , : =`.
    Punct(char),
    /// `<=`
    AtMost,
    /// The end of the text.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Ident(s) | Token::Number(s) => write!(f, "`{}`", shorten(s)),
            Token::Value(s) => write!(f, "`%{}`", shorten(s)),
            Token::Str(s) => write!(f, "the string {:?}", shorten(s)),
            Token::Punct(c) => write!(f, "`{c}`"),
            Token::AtMost => f.write_str("`<=`"),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

/// The beginning of a long word, for messages.
pub(super) fn shorten(s: &str) -> String {
    match s.char_indices().nth(60) {
        None => s.into(),
        Some((end, _)) => format!("{}…", &s[..end]),
    }
}

/// What the lexer does not understand: the bytes, and what is wrong with them.
pub(super) struct LexError {
    pub start: usize,
    pub end: usize,
    pub message: String,
}

/// Where the next token begins.
pub(super) struct Lexer<'a> {
    pub text: &'a str,
    at: usize,
}

/// A token and the bytes it stands at.
pub(super) type Spanned<'a> = (Token<'a>, usize, usize);

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Moves on over the longest prefix of characters that fit and returns it.
    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn skip_blank(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    pub fn next(&mut self) -> Result<Spanned<'a>, LexError> {
        self.skip_blank();
        let start = self.at;
        let Some(c) = self.rest().chars().next() else { return Ok((Token::End, start, start)) };
        let token = match c {
            '@' | '{' | '}' | '[' | ']' | '(' | ')' | ',' | ':' | '=' => {
                self.at += 1;
                Token::Punct(c)
            }
            '<' if self.rest().starts_with("<=") => {
                self.at += 2;
                Token::AtMost
            }
            '%' => {
                self.at += 1;
                let name = self.take_while(is_word);
                if name.is_empty() {
                    return Err(self.error(start, "a value needs a name after `%`: letters, digits, `_` or `.`"));
                }
                Token::Value(name)
            }
            '"' => Token::Str(self.string()?),
            '-' | '0'..='9' => Token::Number(self.number()),
            c if is_word(c) => Token::Ident(self.take_while(is_word)),
            c => {
                self.at += c.len_utf8();
                return Err(self.error(start, &format!("the character {c:?} has no meaning here")));
            }
        };
        Ok((token, start, self.at))
    }

    fn error(&self, start: usize, message: &str) -> LexError {
        LexError { start, end: self.at, message: message.into() }
    }

    /// A sign and the word after it; a sign within only as part of an exponent.
    fn number(&mut self) -> &'a str {
        let rest = self.rest();
        let hex = rest.starts_with("0x");
        let mut before = ' ';
        let mut len = 0;
        for c in rest.chars() {
            let exponent = !hex && (c == '-' || c == '+') && (before == 'e' || before == 'E');
            if !(len == 0 || is_word(c) || exponent) {
                break;
            }
            len += c.len_utf8();
            before = c;
        }
        self.at += len;
        &rest[..len]
    }

    /// A string with Rust's escapes.
    fn string(&mut self) -> Result<String, LexError> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let here = self.at;
            let Some(c) = self.rest().chars().next() else {
                return Err(self.error(start, "the string has no closing `\"`"));
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(out),
                '\n' => {
                    self.at = here;
                    return Err(self.error(start, "the string has no closing `\"` on its line"));
                }
                '\\' => match self.escape() {
                    Some(c) => out.push(c),
                    None => {
                        return Err(self.error(
                            here,
                            r#"unknown escape, expected `\n`, `\r`, `\t`, `\0`, `\\`, `\"`, `\'` or `\u{hex}`"#,
                        ));
                    }
                },
                c => out.push(c),
            }
        }
    }

    /// What stands after a backslash.
    fn escape(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(match c {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            '\\' | '"' | '\'' => c,
            'u' => {
                let digits = self.rest().strip_prefix('{')?.split_once('}')?.0;
                if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                self.at += digits.len() + 2;
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            _ => return None,
        })
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}
