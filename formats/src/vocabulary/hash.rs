//! Where entries of the two tables are looked for.
//!
//! Both tables have open addressing with linear probing, two thirds full. A lookup ends at an empty slot, or after as
//! many slots as the longest search of the writer took.

use xxhash_rust::xxh3::xxh3_64;

/// The most slots that a lookup may look at.
pub(super) const MAX_PROBES: usize = 1 << 10;

/// What an empty slot holds.
pub(super) const EMPTY: u32 = u32::MAX;

/// Slots for so many entries.
pub(super) fn slots(entries: usize) -> usize {
    if entries == 0 { 0 } else { entries + entries / 2 + 1 }
}

/// The hash of a text.
pub(super) fn text_hash(text: &[u8]) -> u64 {
    xxh3_64(text)
}

/// The hash of two tokens.
pub(super) fn pair_hash(left: u32, right: u32) -> u64 {
    // The finaliser of SplitMix64: every bit of the pair moves every bit of the slot.
    let mut x = ((u64::from(left) << 32) | u64::from(right)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The slots to look at, in order, `probes` of them. `slots` is not 0.
pub(super) fn probe(hash: u64, slots: usize, probes: usize) -> impl Iterator<Item = usize> {
    let first = (((hash >> 32) * slots as u64) >> 32) as usize;
    (0..probes.min(slots)).map(move |step| {
        let slot = first + step;
        if slot < slots { slot } else { slot - slots }
    })
}
