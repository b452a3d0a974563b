//! What is generated from: a prompt, token ids, or the lines of a file.

use crate::options::GenerateArgs;
use crate::{Result, failure, ids};
use llamac_runtime::text::Tokenizer;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest file of prompts that is read, bytes.
const MOST_BYTES: u64 = 64 << 20;

/// What the options give to begin with.
#[derive(Debug)]
pub enum Given {
    /// A prompt.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
    /// The prompts of a file.
    Lines(Lines),
    /// None of these.
    Nothing,
}

/// The lines of a file that hold a prompt each.
#[derive(Debug)]
pub struct Lines {
    /// The file, as errors call it.
    file: String,
    /// Their numbers, from 1, and what they say.
    lines: Vec<(usize, String)>,
}

/// A prompt as a model takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Which line of a file of prompts it is.
    pub line: Option<usize>,
    /// The text, where it was one.
    pub text: Option<String>,
    /// The tokens.
    pub ids: Vec<u32>,
}

/// Reads the prompt's options.
///
/// # Errors
/// Two of them, an empty prompt, or a file that holds none.
pub(crate) fn given(args: &GenerateArgs) -> Result<Given> {
    let text = args.prompt.as_ref().or(args.prompt_flag.as_ref());
    match (text, &args.ids, &args.prompts) {
        (Some(_), Some(_), _) => Err(failure("a prompt and --ids were given: expected one of them")),
        (Some(_), None, Some(_)) => Err(failure("a prompt and --prompts were given: expected one of them")),
        (None, Some(_), Some(_)) => Err(failure("--ids and --prompts were given: expected one of them")),
        (Some(text), None, None) if text.is_empty() => {
            Err(failure("the prompt is empty: give some text, or leave it out to start from the begin token"))
        }
        (Some(text), None, None) => Ok(Given::Text(text.clone())),
        (None, Some(list), None) => Ok(Given::Ids(ids::parse(list).map_err(failure)?)),
        (None, None, Some(path)) => Ok(Given::Lines(Lines::read(path)?)),
        (None, None, None) => Ok(Given::Nothing),
    }
}

impl Lines {
    /// Reads a file of prompts, or standard input where it is called `-`.
    ///
    /// # Errors
    /// A file that cannot be read, is too large, is no text, or holds no prompt.
    fn read(path: &Path) -> Result<Lines> {
        let mut bytes = vec![];
        let (file, read) = if path == Path::new("-") {
            ("stdin".to_owned(), std::io::stdin().take(MOST_BYTES + 1).read_to_end(&mut bytes))
        } else {
            let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
            (path.display().to_string(), read)
        };
        read.map_err(|e| failure(format!("--prompts: {file}: found nothing readable ({e}), expected a file of text")))?;
        if bytes.len() as u64 > MOST_BYTES {
            let found = format!("--prompts: {file}: found more than {MOST_BYTES} bytes, expected prompts, one a line");
            return Err(failure(format!("{found}: split the file")));
        }
        Lines::of(file, &bytes)
    }

    fn of(file: String, bytes: &[u8]) -> Result<Lines> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut lines = vec![];
        for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let number = i + 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let text = str::from_utf8(line).ok().filter(|text| !text.contains('\0'));
            let text = text.ok_or_else(|| {
                let found = format!("--prompts: {file}:{number}: found bytes that are no text");
                failure(format!("{found}, expected prompts in UTF-8, one a line"))
            })?;
            if !text.trim().is_empty() {
                lines.push((number, text.to_owned()));
            }
        }
        if lines.is_empty() {
            return Err(failure(format!("--prompts: {file}: found no prompt, expected one a line")));
        }
        Ok(Lines { file, lines })
    }
}

impl Given {
    /// How many sequences run at once where `batch` are asked for: of a file no more than it has prompts.
    pub fn at_once(&self, batch: usize) -> usize {
        match self {
            Given::Lines(all) => batch.min(all.lines.len()),
            Given::Text(_) | Given::Ids(_) | Given::Nothing => batch,
        }
    }

    /// The prompts as a model of so many tokens and that context takes them. `encode` turns text into ids; `bos` begins a
    /// text of the model's own.
    ///
    /// # Errors
    /// Text that cannot be read, tokens past the vocabulary, a prompt longer than the context; no begin token to start from
    /// nothing with. A line of a file is named.
    pub fn prompts(
        &self,
        encode: impl Fn(&str) -> Result<Vec<u32>>,
        bos: Option<u32>,
        vocab: Option<usize>,
        context: usize,
    ) -> Result<Vec<Prompt>> {
        let checked = |line, text: Option<&String>, ids: Vec<u32>| {
            check_prompt(&ids, vocab, context)?;
            Ok(Prompt { line, text: text.cloned(), ids })
        };
        match self {
            Given::Ids(ids) => Ok(vec![checked(None, None, ids.clone())?]),
            Given::Text(text) => Ok(vec![checked(None, Some(text), encode(text)?)?]),
            Given::Nothing => match bos {
                Some(bos) => Ok(vec![checked(None, None, vec![bos])?]),
                None => Err(failure("no prompt was given and the model has no begin token: give a prompt or --ids")),
            },
            Given::Lines(Lines { file, lines }) => {
                let one = |(number, text): &(usize, String)| {
                    let prompt = encode(text).and_then(|ids| checked(Some(*number), Some(text), ids));
                    prompt.map_err(|e| failure(format!("--prompts: {file}:{number}: {}", e.0)))
                };
                lines.iter().map(one).collect()
            }
        }
    }
}

/// A prompt's ids, for a model that has a tokenizer. `origin` is the model, as errors call it.
///
/// # Errors
/// If it has none, or the text no tokens.
pub fn encode(text: &str, origin: &Path, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>> {
    let Some(tokenizer) = tokenizer else {
        return Err(failure(format!(
            "{}: there is no tokenizer.json, so text cannot be read: give token ids with --ids",
            origin.display()
        )));
    };
    let ids = tokenizer.encode(text, true)?;
    if ids.is_empty() {
        return Err(failure("the prompt has no tokens: give some text, or ids with --ids"));
    }
    Ok(ids)
}

/// Refuses ids past the vocabulary and prompts longer than the context before anything runs.
///
/// # Errors
/// The token, or the length.
pub fn check_prompt(prompt: &[u32], vocab: Option<usize>, context: usize) -> Result<()> {
    if let Some((at, id)) = vocab.and_then(|v| prompt.iter().enumerate().find(|&(_, &id)| id as usize >= v)) {
        let vocab = vocab.unwrap_or(0);
        return Err(failure(format!("token {at} of the prompt is {id}, expected 0..{vocab} (the model's vocabulary)")));
    }
    if prompt.len() > context {
        return Err(failure(format!(
            "the prompt has {} tokens, the context {context}: shorten it, or raise -c if the model allows it",
            prompt.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Given, Lines};

    fn lines(bytes: &[u8]) -> Result<Vec<(usize, String)>, String> {
        Lines::of("f".into(), bytes).map(|l| l.lines).map_err(|e| e.0)
    }

    #[test]
    fn lines_are_prompts() {
        let want = |list: &[(usize, &str)]| Ok(list.iter().map(|(n, t)| (*n, (*t).to_owned())).collect());
        assert_eq!(lines(b"one\n\n two\r\n   \nthree"), want(&[(1, "one"), (3, " two"), (5, "three")]));
        assert_eq!(lines(b"\xef\xbb\xbfone\n"), want(&[(1, "one")]), "a byte-order mark is no part of a prompt");
    }

    #[test]
    fn what_is_no_text_is_named_by_its_line() {
        assert!(lines(b"one\n\xff\xfe\n").unwrap_err().contains("f:2"));
        assert!(lines(b"one\ntwo\0\n").unwrap_err().contains("f:2"));
        for empty in [&b""[..], b"\n", b" \r\n\n"] {
            assert!(lines(empty).unwrap_err().contains("no prompt"));
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_named() {
        let given = Given::Lines(Lines::of("f".into(), b"one\n\nfour").unwrap_or_else(|e| panic!("{}", e.0)));
        let encode = |text: &str| Ok(vec![0; text.len()]);
        let ids = given.prompts(encode, None, None, 4).map(|p| p.iter().map(|p| (p.line, p.ids.len())).collect());
        assert_eq!(ids.map_err(|e| e.0), Ok(vec![(Some(1), 3), (Some(3), 4)]));
        let error = given.prompts(encode, None, None, 3).map_err(|e| e.0).unwrap_err();
        assert!(error.contains("f:3") && error.contains("4 tokens"), "{error}");
        assert!(given.prompts(encode, None, Some(0), 9).map_err(|e| e.0).unwrap_err().contains("f:1"));
    }
}
