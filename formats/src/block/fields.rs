//! Where in a block a bit lies: the one place that knows it.

use super::BlockFormat;

/// What one block holds, taken apart: the integers as stored and the f16 bits of the scales.
///
/// Only what the format has is meaningful: the first [`BlockFormat::elements`] quants; `m` where there is a minimum;
/// `scales` (8 or 16) and `mins` (8) in the k-formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The quants in element order, unsigned: 0..16 (4 bits), 0..32 (5), 0..64 (6); those of `q8_0`, stored signed, are
    /// offset by 128.
    pub quants: [u8; 256],
    /// f16 bits of the block's scale.
    pub d: u16,
    /// f16 bits of the minimum (`q4_1`, `q5_1`) or of the scale of the minima (`q4_k`, `q5_k`).
    pub m: u16,
    /// The parts' scales: 0..64 in `q4_k` and `q5_k`, signed bytes in `q6_k`.
    pub scales: [i8; 16],
    /// The parts' minima: 0..64.
    pub mins: [u8; 8],
}

impl Default for Fields {
    fn default() -> Self {
        Fields { quants: [0; 256], d: 0, m: 0, scales: [0; 16], mins: [0; 8] }
    }
}

impl BlockFormat {
    /// Takes one block apart. What the format has not is left as it was in `fields`.
    ///
    /// # Panics
    /// If `block` is not [`BlockFormat::bytes`] long.
    pub fn split(self, block: &[u8], fields: &mut Fields) {
        assert_eq!(block.len(), self.bytes(), "bytes of a {self} block");
        let f = fields;
        let half = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
        f.d = half(if self == BlockFormat::Q6K { 208 } else { 0 });
        match self {
            BlockFormat::Q8_0 => {
                for (q, &b) in f.quants[..32].iter_mut().zip(&block[2..34]) {
                    *q = b ^ 0x80;
                }
            }
            BlockFormat::Q4_0 => split_nibbles(&block[2..18], &mut f.quants[..32]),
            BlockFormat::Q4_1 => {
                f.m = half(2);
                split_nibbles(&block[4..20], &mut f.quants[..32]);
            }
            BlockFormat::Q5_0 => {
                split_nibbles(&block[6..22], &mut f.quants[..32]);
                split_fifth_bits(&block[2..6], &mut f.quants[..32]);
            }
            BlockFormat::Q5_1 => {
                f.m = half(2);
                split_nibbles(&block[8..24], &mut f.quants[..32]);
                split_fifth_bits(&block[4..8], &mut f.quants[..32]);
            }
            BlockFormat::Q4K | BlockFormat::Q5K => {
                f.m = half(2);
                split_six_bit(&block[4..16], f);
                let low = if self == BlockFormat::Q4K { 16 } else { 48 };
                for (bytes, quants) in block[low..].chunks_exact(32).zip(f.quants.chunks_exact_mut(64)) {
                    split_nibbles(bytes, quants);
                }
                if self == BlockFormat::Q5K {
                    for (part, quants) in f.quants.chunks_exact_mut(32).enumerate() {
                        for (q, &high) in quants.iter_mut().zip(&block[16..48]) {
                            *q |= (high >> part & 1) << 4;
                        }
                    }
                }
            }
            BlockFormat::Q6K => {
                for (half, quants) in f.quants.chunks_exact_mut(128).enumerate() {
                    let (low, high) = (&block[half * 64..][..64], &block[128 + half * 32..][..32]);
                    for (quarter, quants) in quants.chunks_exact_mut(32).enumerate() {
                        let (shift, low) = (quarter / 2 * 4, &low[quarter % 2 * 32..][..32]);
                        for ((q, &low), &high) in quants.iter_mut().zip(low).zip(high) {
                            *q = low >> shift & 15 | (high >> (2 * quarter) & 3) << 4;
                        }
                    }
                }
                for (scale, &b) in f.scales.iter_mut().zip(&block[192..208]) {
                    *scale = b as i8;
                }
            }
        }
    }

    /// Puts one block together: the inverse of [`BlockFormat::split`].
    ///
    /// # Panics
    /// If `block` is not [`BlockFormat::bytes`] long. Quants, scales and minima must be in their ranges; bits past them
    /// would be lost or spoil their neighbours (checked in debug builds).
    pub fn join(self, fields: &Fields, block: &mut [u8]) {
        assert_eq!(block.len(), self.bytes(), "bytes of a {self} block");
        let f = fields;
        debug_assert!(f.quants[..self.elements()].iter().all(|&q| u32::from(q) < 1 << self.bits()));
        let d = if self == BlockFormat::Q6K { 208 } else { 0 };
        block[d..d + 2].copy_from_slice(&f.d.to_le_bytes());
        match self {
            BlockFormat::Q8_0 => {
                for (b, &q) in block[2..34].iter_mut().zip(&f.quants[..32]) {
                    *b = q ^ 0x80;
                }
            }
            BlockFormat::Q4_0 => join_nibbles(&f.quants[..32], &mut block[2..18]),
            BlockFormat::Q4_1 => {
                block[2..4].copy_from_slice(&f.m.to_le_bytes());
                join_nibbles(&f.quants[..32], &mut block[4..20]);
            }
            BlockFormat::Q5_0 => {
                join_fifth_bits(&f.quants[..32], &mut block[2..6]);
                join_nibbles(&f.quants[..32], &mut block[6..22]);
            }
            BlockFormat::Q5_1 => {
                block[2..4].copy_from_slice(&f.m.to_le_bytes());
                join_fifth_bits(&f.quants[..32], &mut block[4..8]);
                join_nibbles(&f.quants[..32], &mut block[8..24]);
            }
            BlockFormat::Q4K | BlockFormat::Q5K => {
                block[2..4].copy_from_slice(&f.m.to_le_bytes());
                join_six_bit(f, &mut block[4..16]);
                let low = if self == BlockFormat::Q4K { 16 } else { 48 };
                for (quants, bytes) in f.quants.chunks_exact(64).zip(block[low..].chunks_exact_mut(32)) {
                    join_nibbles(quants, bytes);
                }
                if self == BlockFormat::Q5K {
                    let high = &mut block[16..48];
                    high.fill(0);
                    for (part, quants) in f.quants.chunks_exact(32).enumerate() {
                        for (high, &q) in high.iter_mut().zip(quants) {
                            *high |= (q >> 4) << part;
                        }
                    }
                }
            }
            BlockFormat::Q6K => {
                block[..192].fill(0);
                for (half, quants) in f.quants.chunks_exact(128).enumerate() {
                    for (quarter, quants) in quants.chunks_exact(32).enumerate() {
                        let shift = quarter / 2 * 4;
                        for (l, &q) in quants.iter().enumerate() {
                            block[half * 64 + quarter % 2 * 32 + l] |= (q & 15) << shift;
                            block[128 + half * 32 + l] |= (q >> 4) << (2 * quarter);
                        }
                    }
                }
                for (b, &scale) in block[192..208].iter_mut().zip(&f.scales) {
                    *b = scale as u8;
                }
            }
        }
    }
}

/// Low nibbles are the first half of the elements, high nibbles the second.
fn split_nibbles(bytes: &[u8], quants: &mut [u8]) {
    let (low, high) = quants.split_at_mut(bytes.len());
    for ((low, high), &b) in low.iter_mut().zip(high).zip(bytes) {
        *low = b & 15;
        *high = b >> 4;
    }
}

fn join_nibbles(quants: &[u8], bytes: &mut [u8]) {
    let (low, high) = quants.split_at(bytes.len());
    for ((&low, &high), b) in low.iter().zip(high).zip(bytes) {
        *b = low & 15 | high << 4;
    }
}

/// The fifth bits of 32 elements are one little-endian word.
fn split_fifth_bits(bytes: &[u8], quants: &mut [u8]) {
    for (e, q) in quants.iter_mut().enumerate() {
        *q |= (bytes[e / 8] >> (e % 8) & 1) << 4;
    }
}

fn join_fifth_bits(quants: &[u8], bytes: &mut [u8]) {
    bytes.fill(0);
    for (e, &q) in quants.iter().enumerate() {
        bytes[e / 8] |= (q >> 4 & 1) << (e % 8);
    }
}

/// Twelve bytes hold eight 6-bit scales and minima: the first four of each whole, the upper two bits of those bytes and
/// four bytes of nibbles for the last four.
fn split_six_bit(bytes: &[u8], f: &mut Fields) {
    for j in 0..4 {
        let (scale, min, rest) = (bytes[j], bytes[j + 4], bytes[j + 8]);
        f.scales[j] = (scale & 63) as i8;
        f.mins[j] = min & 63;
        f.scales[j + 4] = (rest & 15 | scale >> 6 << 4) as i8;
        f.mins[j + 4] = rest >> 4 | min >> 6 << 4;
    }
}

fn join_six_bit(f: &Fields, bytes: &mut [u8]) {
    debug_assert!(f.scales[..8].iter().all(|s| (0..64).contains(s)) && f.mins.iter().all(|&m| m < 64));
    for j in 0..4 {
        let (scale, min) = (f.scales[j + 4] as u8, f.mins[j + 4]);
        bytes[j] = f.scales[j] as u8 & 63 | scale >> 4 << 6;
        bytes[j + 4] = f.mins[j] & 63 | min >> 4 << 6;
        bytes[j + 8] = scale & 15 | min << 4;
    }
}
