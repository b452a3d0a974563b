//! Just enough of a GGUF reader to find the tensors of files that the tests trust.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file of the repository.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

/// Reads a file of the repository.
pub fn read(relative: &str) -> Vec<u8> {
    std::fs::read(path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
}

struct Cursor<'a>(&'a [u8], usize);

impl Cursor<'_> {
    fn take(&mut self, n: usize) -> &[u8] {
        self.1 += n;
        &self.0[self.1 - n..self.1]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
    }

    fn string(&mut self) -> String {
        let n = self.u64();
        String::from_utf8(self.take(n).to_vec()).unwrap()
    }

    fn skip_value(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => self.1 += 1,
            2 | 3 => self.1 += 2,
            4..=6 => self.1 += 4,
            10..=12 => self.1 += 8,
            8 => {
                self.string();
            }
            9 => {
                let (kind, n) = (self.u32(), self.u64());
                (0..n).for_each(|_| self.skip_value(kind));
            }
            other => panic!("value type {other}"),
        }
    }
}

/// Every tensor of a GGUF file by name: its type id and its bytes up to the next tensor or the end.
pub fn gguf_tensors(file: &[u8]) -> BTreeMap<String, (u32, &[u8])> {
    let mut c = Cursor(file, 0);
    assert_eq!(c.take(4), b"GGUF");
    assert_eq!(c.u32(), 3);
    let (tensors, values) = (c.u64(), c.u64());
    for _ in 0..values {
        c.string();
        let kind = c.u32();
        c.skip_value(kind);
    }
    let mut infos = Vec::new();
    for _ in 0..tensors {
        let (name, dims) = (c.string(), c.u32());
        (0..dims).for_each(|_| c.1 += 8);
        let kind = c.u32();
        infos.push((c.u64(), name, kind));
    }
    let data = &file[c.1.next_multiple_of(32)..];
    infos.sort();
    let ends: Vec<usize> = infos.iter().skip(1).map(|info| info.0).chain([data.len()]).collect();
    infos.into_iter().zip(ends).map(|((at, name, kind), end)| (name, (kind, &data[at..end]))).collect()
}
