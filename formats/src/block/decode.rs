//! From blocks to numbers.

use super::{BlockFormat, Fields};
use half::f16;

impl BlockFormat {
    /// Decodes whole blocks, bit for bit as llama.cpp does.
    ///
    /// # Panics
    /// If `blocks` is no whole number of blocks or `out` is not as long as their elements.
    pub fn decode(self, blocks: &[u8], out: &mut [f32]) {
        let count = blocks.len() / self.bytes();
        assert_eq!(blocks.len(), count * self.bytes(), "{self} blocks must be whole");
        assert_eq!(out.len(), count * self.elements(), "elements of {count} {self} blocks");
        let mut fields = Fields::default();
        for (block, out) in blocks.chunks_exact(self.bytes()).zip(out.chunks_exact_mut(self.elements())) {
            self.split(block, &mut fields);
            self.decode_fields(&fields, out);
        }
    }

    /// Decodes one block that was taken apart.
    ///
    /// # Panics
    /// If `out` is not [`BlockFormat::elements`] long.
    pub fn decode_fields(self, fields: &Fields, out: &mut [f32]) {
        assert_eq!(out.len(), self.elements(), "elements of a {self} block");
        let d = f16::from_bits(fields.d).to_f32();
        let zero = i32::from(self.zero());
        let part = self.part();
        for (index, (out, quants)) in out.chunks_exact_mut(part).zip(fields.quants.chunks_exact(part)).enumerate() {
            let (scale, offset) = match self {
                BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q5_0 => (d, None),
                BlockFormat::Q4_1 | BlockFormat::Q5_1 => (d, Some(f16::from_bits(fields.m).to_f32())),
                BlockFormat::Q4K | BlockFormat::Q5K => {
                    let min = f16::from_bits(fields.m).to_f32() * f32::from(fields.mins[index]);
                    (d * f32::from(fields.scales[index]), Some(-min))
                }
                BlockFormat::Q6K => (d * f32::from(fields.scales[index]), None),
            };
            match offset {
                // Adding zero would turn −0 into 0.
                None => {
                    for (out, &q) in out.iter_mut().zip(quants) {
                        *out = scale * (i32::from(q) - zero) as f32;
                    }
                }
                Some(offset) => {
                    for (out, &q) in out.iter_mut().zip(quants) {
                        *out = scale * f32::from(q) + offset;
                    }
                }
            }
        }
    }
}
