//! The header of a safetensors file, checked entry by entry before the `safetensors` crate reads it.
//!
//! The crate refuses what is wrong too, but says only that; here the tensor is named, and a header that lies about sizes
//! is found before anything of that size is touched.

use super::WeightsError;
use super::error::shape;
use llamac_formats::DType;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// Bytes of the length before the header.
const PREFIX: usize = 8;
/// The format's own bound.
const MAX_HEADER: u64 = 100_000_000;
/// Transformer checkpoints have two axes; no format needs more than this.
const MAX_RANK: usize = 8;

/// A tensor of one file: `bytes` is a range of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub bytes: Range<usize>,
}

/// Reads and checks the header of a whole mapped file. The entries cover all that follows the header, in order.
pub(crate) fn read_header(path: &Path, file: &[u8]) -> Result<Vec<Entry>, WeightsError> {
    let length = file.len() as u64;
    let short = |needed| WeightsError::ShortHeader { path: path.into(), bytes: length, needed };
    let Some((prefix, rest)) = file.split_first_chunk::<PREFIX>() else { return Err(short(PREFIX as u64)) };
    let header_bytes = u64::from_le_bytes(*prefix);
    if header_bytes > MAX_HEADER {
        return Err(WeightsError::HugeHeader { path: path.into(), bytes: header_bytes, limit: MAX_HEADER });
    }
    let data_start = PREFIX + header_bytes as usize;
    let Some(header) = rest.get(..header_bytes as usize) else { return Err(short(data_start as u64)) };

    let wrong = |message: String| WeightsError::Header { path: path.into(), message };
    let text = std::str::from_utf8(header).map_err(|e| wrong(format!("not UTF-8 ({e})")))?;
    let Listing(mut listed) = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    listed.sort_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));

    let mut entries = Vec::with_capacity(listed.len());
    let mut end = 0;
    for (name, raw) in &listed {
        let entry = check(raw, end).map_err(|message| WeightsError::Entry {
            path: path.into(),
            tensor: name.clone(),
            message,
        })?;
        end = entry.2.end;
        entries.push((name.clone(), entry));
    }
    if let Some(twice) = first_duplicate(&listed) {
        return Err(wrong(format!("tensor `{twice}` is listed twice")));
    }
    let expected = (data_start as u64).saturating_add(end as u64);
    if expected != length {
        return Err(WeightsError::Length { path: path.into(), bytes: length, expected });
    }

    // The crate has the last word on what a valid file is.
    let (_, metadata) = SafeTensors::read_metadata(file).map_err(|e| wrong(e.to_string()))?;
    entries
        .into_iter()
        .map(|(name, (dtype, dims, bytes))| match metadata.info(&name) {
            Some(info) if info.shape == dims && info.data_offsets == (bytes.start, bytes.end) => {
                let bytes = data_start + bytes.start..data_start + bytes.end;
                Ok(Entry { name, dtype, dims, bytes })
            }
            _ => Err(wrong(format!("tensor `{name}` is read in two ways"))),
        })
        .collect()
}

/// One entry against the end of the one before it.
fn check(raw: &Raw, previous_end: usize) -> Result<(DType, Vec<usize>, Range<usize>), String> {
    let dtype = match raw.dtype.as_str() {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        other => return Err(format!("dtype {other} is not supported; supported: F32, F16, BF16")),
    };
    if raw.shape.len() > MAX_RANK {
        return Err(format!("has {} axes; expected at most {MAX_RANK}", raw.shape.len()));
    }
    let [start, end] = raw.data_offsets;
    if end < start {
        return Err(format!("data_offsets {start}..{end} end before they begin"));
    }
    if start < previous_end {
        return Err(format!("data_offsets {start}..{end} overlap the tensor before it, which ends at {previous_end}"));
    }
    if start > previous_end {
        return Err(format!("data_offsets {start}..{end} leave a hole after the tensor before it (to {previous_end})"));
    }
    let bytes = raw.shape.iter().try_fold(dtype.bytes(), |bytes, &dim| bytes.checked_mul(dim));
    if bytes != Some(end - start) {
        let needed = bytes.map_or("more bytes than an address has".into(), |b| format!("{b} bytes"));
        let found = end - start;
        return Err(format!("{dtype}{} needs {needed}; data_offsets {start}..{end} hold {found}", shape(&raw.shape)));
    }
    Ok((dtype, raw.shape.clone(), start..end))
}

fn first_duplicate(listed: &[(String, Raw)]) -> Option<&str> {
    let mut names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// An entry as the header spells it.
#[derive(Deserialize)]
struct Raw {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// All entries, duplicates included; a map would hide those.
struct Listing(Vec<(String, Raw)>);

impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Listing, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Listing;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listing, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Listing(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
