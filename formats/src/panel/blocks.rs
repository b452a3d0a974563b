//! Where a block format's quants and scales lie in a panel: the one place that knows it.

use crate::PANEL_WIDTH;
use crate::block::{BlockFormat, Fields};

/// Inputs of a part: what a kernel takes at a time.
pub const PART: usize = 32;

/// Bytes of one vector: `[16 outputs][4 inputs]`.
pub const VECTOR: usize = 4 * PANEL_WIDTH;

/// Bytes of one f16 for each output.
const HALVES: usize = 2 * PANEL_WIDTH;

/// Where the parts' scales and minima begin in the header of a group of a k-format.
pub const FIELDS: usize = VECTOR;

/// Inputs of a group: what shares a header.
pub const fn group(format: BlockFormat) -> usize {
    if format.elements() == 256 { 256 } else { 64 }
}

/// Bytes of a group's header: scales and minima.
pub const fn header_bytes(format: BlockFormat) -> usize {
    match format {
        BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q5_0 => VECTOR,
        BlockFormat::Q4_1 | BlockFormat::Q5_1 => 2 * VECTOR,
        BlockFormat::Q4K | BlockFormat::Q5K => FIELDS + 3 * VECTOR,
        BlockFormat::Q6K => FIELDS + 4 * VECTOR,
    }
}

/// Bytes of the quants of a part.
pub const fn part_bytes(format: BlockFormat) -> usize {
    PANEL_WIDTH * PART * format.bits() as usize / 8
}

/// Bytes of a group.
pub const fn group_bytes(format: BlockFormat) -> usize {
    header_bytes(format) + group(format) / PART * part_bytes(format)
}

/// Writes block `block` of output `n` into its group.
pub(super) fn put(format: BlockFormat, group: &mut [u8], n: usize, block: usize, f: &Fields) {
    let half = |to: &mut [u8], at: usize, bits: u16| to[at + 2 * n..][..2].copy_from_slice(&bits.to_le_bytes());
    match format {
        BlockFormat::Q4K | BlockFormat::Q5K => {
            half(group, 0, f.d);
            half(group, HALVES, f.m);
            let planes = planes(f);
            for (i, plane) in planes.iter().enumerate() {
                group[FIELDS + i * VECTOR + 4 * n..][..4].copy_from_slice(&plane.to_le_bytes());
            }
        }
        BlockFormat::Q6K => {
            half(group, 0, f.d);
            for (i, scale) in f.scales.iter().enumerate() {
                group[FIELDS + i * PANEL_WIDTH + n] = *scale as u8;
            }
        }
        _ => {
            half(group, block * HALVES, f.d);
            if matches!(format, BlockFormat::Q4_1 | BlockFormat::Q5_1) {
                half(group, VECTOR + block * HALVES, f.m);
            }
        }
    }
    let first = block * format.elements() / PART;
    let parts = group[header_bytes(format)..].chunks_exact_mut(part_bytes(format)).skip(first);
    for (part, quants) in parts.zip(f.quants[..format.elements()].chunks_exact(PART)) {
        put_part(format, part, n, quants);
    }
}

/// Reads block `block` of output `n` of a group: the inverse of [`put`].
pub(super) fn take(format: BlockFormat, group: &[u8], n: usize, block: usize, f: &mut Fields) {
    let half = |at: usize| u16::from_le_bytes([group[at + 2 * n], group[at + 2 * n + 1]]);
    match format {
        BlockFormat::Q4K | BlockFormat::Q5K => {
            f.d = half(0);
            f.m = half(HALVES);
            let planes: [u32; 3] = std::array::from_fn(|i| {
                let at = &group[FIELDS + i * VECTOR + 4 * n..];
                u32::from_le_bytes([at[0], at[1], at[2], at[3]])
            });
            for i in 0..8 {
                f.scales[i] = field(&planes, i) as i8;
                f.mins[i] = field(&planes, 8 + i);
            }
        }
        BlockFormat::Q6K => {
            f.d = half(0);
            for (i, scale) in f.scales.iter_mut().enumerate() {
                *scale = group[FIELDS + i * PANEL_WIDTH + n] as i8;
            }
        }
        _ => {
            f.d = half(block * HALVES);
            if matches!(format, BlockFormat::Q4_1 | BlockFormat::Q5_1) {
                f.m = half(VECTOR + block * HALVES);
            }
        }
    }
    let first = block * format.elements() / PART;
    let parts = group[header_bytes(format)..].chunks_exact(part_bytes(format)).skip(first);
    for (part, quants) in parts.zip(f.quants[..format.elements()].chunks_exact_mut(PART)) {
        take_part(format, part, n, quants);
    }
}

/// The eight scales and eight minima of six bits, five to a word; the last one has what is left of each word.
fn planes(f: &Fields) -> [u32; 3] {
    let mut planes = [0; 3];
    let fields = f.scales[..8].iter().map(|s| *s as u32).chain(f.mins.iter().map(|m| u32::from(*m)));
    for (i, field) in fields.enumerate() {
        match i {
            15 => (0..3).for_each(|p| planes[p] |= (field >> (2 * p) & 3) << 30),
            _ => planes[i / 5] |= (field & 63) << (i % 5 * 6),
        }
    }
    planes
}

fn field(planes: &[u32; 3], i: usize) -> u8 {
    match i {
        15 => (0..3).map(|p| (planes[p] >> 30 << (2 * p)) as u8).sum(),
        _ => (planes[i / 5] >> (i % 5 * 6) & 63) as u8,
    }
}

/// The quants of one output in the low nibbles' vectors: in byte i of vector j inputs `8j + i` and `8j + 4 + i`.
fn put_part(format: BlockFormat, part: &mut [u8], n: usize, q: &[u8]) {
    let at = |vector: usize, i: usize| vector * VECTOR + 4 * n + i;
    for i in 0..4 {
        if format.bits() == 8 {
            (0..8).for_each(|j| part[at(j, i)] = q[4 * j + i]);
            continue;
        }
        (0..4).for_each(|j| part[at(j, i)] = q[8 * j + i] & 15 | q[8 * j + 4 + i] << 4);
        match format.bits() {
            5 => part[at(4, i)] = (0..8).map(|j| (q[4 * j + i] >> 4) << j).sum(),
            6 => {
                (0..2).for_each(|v| part[at(4 + v, i)] = (0..4).map(|f| (q[16 * v + 4 * f + i] >> 4) << (2 * f)).sum())
            }
            _ => {}
        }
    }
}

fn take_part(format: BlockFormat, part: &[u8], n: usize, q: &mut [u8]) {
    let at = |vector: usize, i: usize| part[vector * VECTOR + 4 * n + i];
    for i in 0..4 {
        for j in 0..8 {
            let high = match format.bits() {
                8 => at(j, i) & 0xf0,
                5 => (at(4, i) >> j & 1) << 4,
                6 => (at(4 + j / 4, i) >> (j % 4 * 2) & 3) << 4,
                _ => 0,
            };
            let low = if format.bits() == 8 { at(j, i) } else { at(j / 2, i) >> (j % 2 * 4) };
            q[4 * j + i] = low & 15 | high;
        }
    }
}
