//! Values of keys, read where they lie in the file.

use super::cursor::Cursor;
use crate::gguf::GgufError;
use crate::gguf::error::shown;
use std::ops::Range;

/// The type of a value, or of the elements of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is called what it is")]
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    U64,
    I64,
    F64,
}

/// The code of arrays, which stand beside the kinds.
const ARRAY: u32 = 9;

impl Kind {
    /// The kind of a code in the file.
    const fn from_code(code: u32) -> Option<Kind> {
        Some(match code {
            0 => Kind::U8,
            1 => Kind::I8,
            2 => Kind::U16,
            3 => Kind::I16,
            4 => Kind::U32,
            5 => Kind::I32,
            6 => Kind::F32,
            7 => Kind::Bool,
            8 => Kind::Text,
            10 => Kind::U64,
            11 => Kind::I64,
            12 => Kind::F64,
            _ => return None,
        })
    }

    /// What errors and listings call it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::U8 => "u8",
            Kind::I8 => "i8",
            Kind::U16 => "u16",
            Kind::I16 => "i16",
            Kind::U32 => "u32",
            Kind::I32 => "i32",
            Kind::F32 => "f32",
            Kind::Bool => "bool",
            Kind::Text => "string",
            Kind::U64 => "u64",
            Kind::I64 => "i64",
            Kind::F64 => "f64",
        }
    }

    /// Bytes of one, 8 at least for the length of a string.
    const fn bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::Text | Kind::U64 | Kind::I64 | Kind::F64 => 8,
        }
    }
}

/// A value as it lies in the file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    kind: Kind,
    /// How many, if it is an array.
    count: Option<usize>,
    bytes: Range<usize>,
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// An unsigned integer.
    Unsigned(u64),
    /// A signed integer.
    Signed(i64),
    /// A number, widened to f64.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string: UTF-8 by rule, anything in practice.
    Text(&'a [u8]),
    /// Elements of one kind.
    Array(Array<'a>),
}

/// Elements of one kind, read as they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    /// What they are.
    pub kind: Kind,
    /// How many.
    pub count: usize,
    bytes: &'a [u8],
}

impl Stored {
    /// Reads a value up to its end. Nothing is copied, whatever its length.
    pub(super) fn read(origin: &str, key: &str, cursor: &mut Cursor<'_>, file: &[u8]) -> Result<Stored, GgufError> {
        let what = format!("the value of key `{key}`");
        let wrong = |found: String, expected: &str| GgufError::Key {
            origin: origin.into(),
            key: key.into(),
            found,
            expected: expected.into(),
        };
        let kind = |code, found: &str| {
            let expected = "a type from 0 to 12: the file is damaged, get it again";
            Kind::from_code(code).ok_or_else(|| wrong(format!("{found} type {code}"), expected))
        };
        let code = cursor.u32(&what)?;
        let (kind, count) = if code == ARRAY {
            let element = cursor.u32(&what)?;
            if element == ARRAY {
                return Err(wrong("an array of arrays".into(), "an array of numbers or strings"));
            }
            (kind(element, "an array of")?, Some(cursor.u64(&what)?))
        } else {
            (kind(code, "of")?, None)
        };
        let of = count.unwrap_or(1);
        let bytes = if kind == Kind::Text {
            // As many lengths must fit before the first is followed.
            if of > (cursor.left() / kind.bytes()) as u64 {
                return Err(cursor.short(&what, format!("at least {of} × {}", kind.bytes())));
            }
            let start = cursor.at();
            for _ in 0..of {
                cursor.string(&what)?;
            }
            start..cursor.at()
        } else {
            cursor.skip(of, kind.bytes(), &what)?
        };
        if kind == Kind::Bool && file[bytes.clone()].iter().any(|&b| b > 1) {
            return Err(wrong(
                "a truth value that is neither 0 nor 1".into(),
                "0 or 1: the file is damaged, get it again",
            ));
        }
        // What fits in the file fits in an address.
        Ok(Stored { kind, count: count.map(|n| n as usize), bytes })
    }

    pub(super) fn value<'a>(&self, file: &'a [u8]) -> Value<'a> {
        let bytes = &file[self.bytes.clone()];
        match self.count {
            Some(count) => Value::Array(Array { kind: self.kind, count, bytes }),
            None => element(self.kind, bytes).0,
        }
    }
}

/// The first element of some bytes that were checked, and what follows.
fn element(kind: Kind, bytes: &[u8]) -> (Value<'_>, &[u8]) {
    fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.first_chunk().copied().unwrap_or([0; N])
    }
    let value = match kind {
        Kind::U8 => Value::Unsigned(first::<1>(bytes)[0].into()),
        Kind::I8 => Value::Signed(i8::from_le_bytes(first(bytes)).into()),
        Kind::U16 => Value::Unsigned(u16::from_le_bytes(first(bytes)).into()),
        Kind::I16 => Value::Signed(i16::from_le_bytes(first(bytes)).into()),
        Kind::U32 => Value::Unsigned(u32::from_le_bytes(first(bytes)).into()),
        Kind::I32 => Value::Signed(i32::from_le_bytes(first(bytes)).into()),
        Kind::F32 => Value::Float(f32::from_le_bytes(first(bytes)).into()),
        Kind::Bool => Value::Bool(first::<1>(bytes)[0] != 0),
        Kind::U64 => Value::Unsigned(u64::from_le_bytes(first(bytes))),
        Kind::I64 => Value::Signed(i64::from_le_bytes(first(bytes))),
        Kind::F64 => Value::Float(f64::from_le_bytes(first(bytes))),
        Kind::Text => {
            let (_, rest) = bytes.split_at(bytes.len().min(8));
            let length = usize::try_from(u64::from_le_bytes(first(bytes))).unwrap_or(usize::MAX).min(rest.len());
            let (text, rest) = rest.split_at(length);
            return (Value::Text(text), rest);
        }
    };
    (value, bytes.get(kind.bytes()..).unwrap_or(&[]))
}

impl<'a> Array<'a> {
    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (kind, mut rest) = (self.kind, self.bytes);
        (0..self.count).map(move |_| {
            let (value, after) = element(kind, rest);
            rest = after;
            value
        })
    }
}

impl Value<'_> {
    /// An integer, whatever its width.
    pub fn integer(&self) -> Option<i128> {
        match *self {
            Value::Unsigned(n) => Some(n.into()),
            Value::Signed(n) => Some(n.into()),
            _ => None,
        }
    }

    /// As errors and listings show it: at most some sixty characters.
    pub fn show(&self) -> String {
        match self {
            Value::Unsigned(n) => n.to_string(),
            Value::Signed(n) => n.to_string(),
            // Most are f32 values: shown as short as they read back.
            Value::Float(x) if f64::from(*x as f32) == *x => (*x as f32).to_string(),
            Value::Float(x) => x.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::Text(text) => shown(text),
            Value::Array(array) => format!("an array of {} {}", array.count, array.kind.name()),
        }
    }
}
