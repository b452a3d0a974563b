//! Header and keys as bytes.

use crate::gguf::MAGIC;

/// Keys with their values, in the order of the file.
#[derive(Default)]
pub(super) struct Keys {
    count: u64,
    bytes: Vec<u8>,
}

/// A string: its length, then its bytes.
pub(super) fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

impl Keys {
    fn key(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.count += 1;
        text(&mut self.bytes, key.as_bytes());
        self.bytes.extend(kind.to_le_bytes());
        &mut self.bytes
    }

    pub(super) fn u32(&mut self, key: &str, value: u32) {
        self.key(key, 4).extend(value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, key: &str, value: f32) {
        self.key(key, 6).extend(value.to_le_bytes());
    }

    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.key(key, 7).push(value.into());
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        text(self.key(key, 8), value.as_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, count: usize) -> &mut Vec<u8> {
        let out = self.key(key, 9);
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
        out
    }

    pub(super) fn i32s(&mut self, key: &str, values: &[i32]) {
        let out = self.array(key, 5, values.len());
        values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    }

    pub(super) fn f32s(&mut self, key: &str, values: &[f32]) {
        let out = self.array(key, 6, values.len());
        values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    }

    pub(super) fn texts<S: AsRef<str>>(&mut self, key: &str, values: &[S]) {
        let out = self.array(key, 8, values.len());
        values.iter().for_each(|v| text(out, v.as_ref().as_bytes()));
    }

    /// Magic, version and counts, then the keys.
    pub(super) fn encode(self, tensors: usize) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((tensors as u64).to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend(self.bytes);
        out
    }
}
