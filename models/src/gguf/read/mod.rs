//! The bounded reader: header, keys and tensor entries, every number checked against the file before it is used.
//!
//! What is kept of a file are its keys, names, shapes and places; values and tensors stay where they are. So memory is
//! bounded by the size of the header, and nothing that a header says is ever allocated on its word.

mod cursor;
mod fields;
mod tensor_type;
mod value;

pub(super) use tensor_type::code as type_code;
pub use value::{Array, Kind, Value};

use super::GgufError;
use super::error::shown;
use cursor::Cursor;
use llamac_formats::DType;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use value::Stored;

/// The first bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensors begin, if the file does not say otherwise.
pub(super) const DEFAULT_ALIGNMENT: usize = 32;
/// The largest alignment that is believed.
const MAX_ALIGNMENT: u64 = 1 << 16;
/// More keys than any model has.
const MAX_KEYS: u64 = 1 << 16;
/// More tensors than any model has.
const MAX_TENSORS: u64 = 1 << 20;
/// The longest key.
const MAX_KEY: usize = (1 << 16) - 1;
/// The longest name of a tensor.
const MAX_NAME: usize = 64;
/// The most axes of a tensor.
const MAX_RANK: u32 = 4;
/// The fewest bytes of a key with its value: a length, a character, a type, a byte.
const LEAST_KEY: u64 = 8 + 1 + 4 + 1;
/// The fewest bytes of a tensor's entry: a length, a character, one axis, type and offset.
const LEAST_TENSOR: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// The key of the alignment.
const ALIGNMENT: &str = "general.alignment";

/// A tensor's entry: `bytes` is a range of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    /// Element type.
    pub dtype: DType,
    /// Shape, outputs first: the reverse of what the file has.
    pub dims: Vec<usize>,
    /// Where it lies.
    pub bytes: Range<usize>,
}

/// A checked file: whatever it says of itself lies inside it.
#[derive(Debug)]
pub struct Gguf<B> {
    origin: String,
    file: B,
    version: u32,
    alignment: usize,
    keys: BTreeMap<String, Stored>,
    tensors: BTreeMap<String, TensorPlace>,
}

impl<B: AsRef<[u8]>> Gguf<B> {
    /// Checks the header of a whole file, GGUF version 2 or 3; `origin` is what errors call it. No tensor is read.
    ///
    /// # Errors
    /// Whatever is wrong, with key or tensor.
    pub fn parse(origin: impl Into<String>, file: B) -> Result<Gguf<B>, GgufError> {
        let origin = origin.into();
        let bytes = file.as_ref();
        let mut cursor = Cursor::new(&origin, bytes);
        let version = version(&origin, &mut cursor, bytes)?;
        let tensor_count = count(&origin, &mut cursor, "tensors", MAX_TENSORS, LEAST_TENSOR)?;
        let key_count = count(&origin, &mut cursor, "keys", MAX_KEYS, LEAST_KEY)?;
        let keys = keys(&origin, &mut cursor, bytes, key_count)?;
        let alignment = alignment(&origin, &keys, bytes)?;
        let tensors = tensors(&origin, &mut cursor, bytes, tensor_count, alignment)?;
        Ok(Gguf { origin, file, version, alignment, keys, tensors })
    }

    /// What errors call the file.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The bytes of the file.
    pub(super) fn file(&self) -> &B {
        &self.file
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What offsets of tensors are multiples of, bytes.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// All keys with their values, in order of the keys' bytes.
    pub fn keys(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.keys.iter().map(|(key, stored)| (key.as_str(), stored.value(self.file.as_ref())))
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        self.keys.get(key).map(|stored| stored.value(self.file.as_ref()))
    }

    /// All tensors, in order of their names' bytes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorPlace)> {
        self.tensors.iter().map(|(name, place)| (name.as_str(), place))
    }

    /// Where a tensor lies.
    pub fn place(&self, name: &str) -> Option<&TensorPlace> {
        self.tensors.get(name)
    }

    /// The bytes of a tensor, row after row.
    pub fn bytes(&self, place: &TensorPlace) -> &[u8] {
        self.file.as_ref().get(place.bytes.clone()).unwrap_or(&[])
    }
}

/// Magic and version.
fn version(origin: &str, cursor: &mut Cursor<'_>, file: &[u8]) -> Result<u32, GgufError> {
    if !file.starts_with(&MAGIC) {
        let found = if file.is_empty() { "nothing (it is empty)".into() } else { shown(&file[..file.len().min(4)]) };
        return Err(GgufError::Magic { origin: origin.into(), found });
    }
    cursor.skip(4, 1, "the magic")?;
    match cursor.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        swapped if matches!(swapped.swap_bytes(), 1..=3) => Err(GgufError::BigEndian { origin: origin.into() }),
        found => Err(GgufError::Version { origin: origin.into(), found }),
    }
}

/// A count of entries of `least` bytes at the least.
fn count(origin: &str, cursor: &mut Cursor<'_>, what: &'static str, limit: u64, least: u64) -> Result<u64, GgufError> {
    let found = cursor.u64(&format!("the number of {what}"))?;
    if found > limit {
        return Err(GgufError::Count { origin: origin.into(), what, found, limit });
    }
    if found.saturating_mul(least) > cursor.left() as u64 {
        return Err(cursor.short(what, format!("at least {found} × {least}")));
    }
    Ok(found)
}

fn keys(origin: &str, cursor: &mut Cursor<'_>, file: &[u8], count: u64) -> Result<BTreeMap<String, Stored>, GgufError> {
    let mut keys = BTreeMap::new();
    for i in 0..count {
        let place = cursor.string(&format!("key {i}"))?;
        let raw = &file[place];
        let wrong = |found: &str, expected: &str| GgufError::Key {
            origin: origin.into(),
            key: format!("{i} ({})", shown(raw)),
            found: found.into(),
            expected: expected.into(),
        };
        if raw.is_empty() || raw.len() > MAX_KEY {
            return Err(wrong(&format!("{} bytes long", raw.len()), "a name of 1 to 65535 bytes"));
        }
        let key = str::from_utf8(raw).map_err(|_| wrong("not UTF-8", "a name in UTF-8"))?;
        let stored = Stored::read(origin, key, cursor, file)?;
        match keys.entry(key.to_owned()) {
            Entry::Vacant(free) => free.insert(stored),
            Entry::Occupied(_) => return Err(wrong("given twice", "each key once: convert the model again")),
        };
    }
    Ok(keys)
}

fn alignment(origin: &str, keys: &BTreeMap<String, Stored>, file: &[u8]) -> Result<usize, GgufError> {
    let Some(stored) = keys.get(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    let value = stored.value(file);
    match value {
        Value::Unsigned(n) if n.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&n) => Ok(n as usize),
        _ => Err(GgufError::Key {
            origin: origin.into(),
            key: ALIGNMENT.into(),
            found: value.show(),
            expected: format!("a power of two from 8 to {MAX_ALIGNMENT}"),
        }),
    }
}

/// A tensor's entry as the file has it.
struct Raw {
    name: String,
    dtype: DType,
    dims: Vec<usize>,
    offset: u64,
    size: usize,
}

fn tensors(
    origin: &str,
    cursor: &mut Cursor<'_>,
    file: &[u8],
    count: u64,
    alignment: usize,
) -> Result<BTreeMap<String, TensorPlace>, GgufError> {
    let mut raw = vec![];
    for i in 0..count {
        raw.push(entry(origin, cursor, file, i, alignment)?);
    }
    // Where the tensors begin: a file without any may end before.
    let start = cursor.at().next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    let mut places = vec![];
    for Raw { name, dtype, dims, offset, size } in raw {
        let wrong = |found: String, expected: String| {
            Err(GgufError::Tensor { origin: origin.into(), tensor: name.clone(), found, expected })
        };
        let first = usize::try_from(offset).ok().and_then(|offset| start.checked_add(offset));
        let range = first.and_then(|first| Some(first..first.checked_add(size)?)).filter(|r| r.end <= file.len());
        let Some(bytes) = range else {
            return wrong(
                format!("has {size} bytes at {offset} after byte {start}"),
                format!("an end within the {} bytes of the file: it is truncated or damaged, get it again", file.len()),
            );
        };
        places.push((bytes.start, bytes.end, name.clone()));
        match tensors.entry(name.clone()) {
            Entry::Vacant(free) => free.insert(TensorPlace { dtype, dims, bytes }),
            Entry::Occupied(_) => {
                return wrong("is listed twice".into(), "each name once: convert the model again".into());
            }
        };
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        if let [(_, end, before), (start, _, name)] = pair
            && start < end
        {
            return Err(GgufError::Tensor {
                origin: origin.into(),
                tensor: name.clone(),
                found: format!("begins at byte {start}, inside `{before}`"),
                expected: format!("byte {end} or later: the file is damaged, get it again"),
            });
        }
    }
    Ok(tensors)
}

/// Reads one entry; all that can be wrong with it alone is found here.
fn entry(origin: &str, cursor: &mut Cursor<'_>, file: &[u8], number: u64, alignment: usize) -> Result<Raw, GgufError> {
    let what = format!("the entry of tensor {number}");
    let place = cursor.string(&what)?;
    let raw = &file[place];
    let wrong = |tensor: &str, found: String, expected: String| GgufError::Tensor {
        origin: origin.into(),
        tensor: tensor.into(),
        found,
        expected,
    };
    let name = match str::from_utf8(raw) {
        Ok(name) if (1..=MAX_NAME).contains(&name.len()) => name,
        _ => {
            let found = format!("has the name {} of {} bytes", shown(raw), raw.len());
            return Err(wrong(&number.to_string(), found, format!("1 to {MAX_NAME} bytes of UTF-8")));
        }
    };
    let what = format!("the entry of tensor `{name}`");
    let rank = cursor.u32(&what)?;
    if !(1..=MAX_RANK).contains(&rank) {
        return Err(wrong(name, format!("has {rank} axes"), format!("1 to {MAX_RANK}")));
    }
    let mut dims = vec![];
    for _ in 0..rank {
        dims.push(cursor.u64(&what)?);
    }
    let code = cursor.u32(&what)?;
    let offset = cursor.u64(&what)?;
    let Some(dtype) = tensor_type::dtype(code) else {
        let expected = format!("one of {}: quantise the model to one of these", tensor_type::supported());
        return Err(wrong(name, tensor_type::other(code), expected));
    };
    let (of, _) = dtype.block();
    if !dims[0].is_multiple_of(of as u64) {
        let found = format!("has rows of {} elements of {dtype}", dims[0]);
        return Err(wrong(name, found, format!("a multiple of {of}")));
    }
    let sizes: Option<Vec<usize>> = dims.iter().rev().map(|&d| usize::try_from(d).ok().filter(|&d| d >= 1)).collect();
    // Elements are counted too: a shape of small blocks may hold more of them than an address can tell.
    let countable = |d: &Vec<usize>| d.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)).is_some();
    let size = sizes.as_ref().filter(|d| countable(d)).and_then(|d| dtype.storage_of(d));
    let (Some(dims), Some(size)) = (sizes, size) else {
        return Err(wrong(name, format!("has the shape {dims:?}"), "axes of at least 1, and a size below 2⁶⁴".into()));
    };
    if !offset.is_multiple_of(alignment as u64) {
        return Err(wrong(
            name,
            format!("has the offset {offset}"),
            format!("a multiple of the alignment {alignment}"),
        ));
    }
    Ok(Raw { name: name.to_owned(), dtype, dims, offset, size })
}
