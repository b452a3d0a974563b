//! Asking memory for weights before they are needed, over the end of a panel too.

use crate::tiers::Simd;

/// How far ahead the weights are asked for, bytes: past the end of a 4 KiB page, where the hardware's prefetchers stop.
const AHEAD: usize = 4096;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Where the weights lie that a pass asks for: first later ones of its own panels, near their end the beginning of the panels of the
/// pass after it.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// Where in the first panel the change is.
    turn: *const u8,
    /// From what is used after the turn to what is asked for.
    beyond: isize,
}

impl Ahead {
    /// For a pass whose first panel, of so many bytes, begins at `panel`, and for the first panel of the pass after it, which is
    /// null if there is none: then nothing is asked for after the turn but what is there.
    pub(super) fn new(panel: *const u8, bytes: usize, next: *const u8) -> Ahead {
        let turn = panel.wrapping_add(bytes.saturating_sub(AHEAD));
        // What is used at the turn is the beginning of what comes after it, `AHEAD` bytes later.
        let beyond = if next.is_null() { 0 } else { next.addr() as isize - turn.addr() as isize };
        Ahead { turn, beyond }
    }

    /// From what is used to what is asked for, where `at` is used of the first panel.
    #[inline(always)]
    pub(super) fn of(&self, at: *const u8) -> isize {
        if at < self.turn { AHEAD as isize } else { self.beyond }
    }
}

/// Asks for the lines of so many bytes.
///
/// # Safety
/// The machine must have the instruction set. The bytes need not be valid.
#[inline(always)]
pub(super) unsafe fn prefetch<S: Simd>(at: *const u8, bytes: usize) {
    let mut line = 0;
    while line < bytes {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { S::prefetch(at.wrapping_add(line)) };
        line += LINE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address `to` of nothing.
    fn at(to: usize) -> *const u8 {
        std::ptr::without_provenance(to)
    }

    #[test]
    fn the_next_pass_follows_the_end_of_a_panel() {
        let ahead = Ahead::new(at(1 << 20), 10_000, at(1 << 21));
        let asked = |used: usize| (used as isize + ahead.of(at(used))) as usize;
        assert_eq!(asked(1 << 20), (1 << 20) + AHEAD);
        assert_eq!(asked((1 << 20) + 5_903), (1 << 20) + 9_999);
        assert_eq!(asked((1 << 20) + 5_904), 1 << 21);
        assert_eq!(asked((1 << 20) + 9_999), (1 << 21) + 4_095);
        // A panel shorter than the distance.
        let ahead = Ahead::new(at(1 << 20), 1_000, at(1 << 19));
        assert_eq!((1 << 20) + ahead.of(at(1 << 20)), 1 << 19);
    }

    #[test]
    fn the_last_pass_asks_for_nothing_new() {
        let ahead = Ahead::new(at(1 << 20), 10_000, std::ptr::null());
        assert_eq!(ahead.of(at((1 << 20) + 9_000)), 0);
    }
}
