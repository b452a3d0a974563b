//! Asking memory for weights before they are needed, over the end of a panel too.

pub(super) use crate::prefetch::prefetch;

/// How far ahead the weights are asked for, bytes: past the end of a 4 KiB page, where the hardware's prefetchers stop.
const AHEAD: usize = 4096;

/// Where the weights lie that a pass asks for. The only pass over its panels asks for later ones of them, and near their end
/// for the beginning of the panels after them. Where several passes, one for each block of rows, go over the same panels, each asks for a
/// share of the panels after them, so that memory is busy in all of them.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// Where in the first panel the change is.
    turn: *const u8,
    /// From what is used after the turn to what is asked for.
    beyond: isize,
    /// The parts, modulo 64, that this pass asks for: a bit for each.
    parts: u64,
}

impl Ahead {
    /// For the only pass over some panels, of which the first, of so many bytes, begins at `panel`. `next` is the first panel that is
    /// used after them, null if there is none: then nothing is asked for after the turn but what is there.
    pub(super) fn of_one_pass(panel: *const u8, bytes: usize, next: *const u8) -> Ahead {
        let turn = panel.wrapping_add(bytes.saturating_sub(AHEAD));
        // What is used at the turn is the beginning of what comes after it, `AHEAD` bytes later.
        Ahead { turn, beyond: distance(turn, next), parts: !0 }
    }

    /// For pass `pass` of several over the same panels, of which the first begins at `panel`.
    pub(super) fn of_passes(panel: *const u8, next: *const u8, pass: usize, passes: usize) -> Ahead {
        let parts = (pass..64).step_by(passes).fold(0, |bits, part| bits | 1 << part);
        Ahead { turn: std::ptr::null(), beyond: distance(panel, next), parts }
    }

    /// From what is used to what is asked for, where `at` is used of the first panel.
    #[inline(always)]
    pub(super) fn from(&self, at: *const u8) -> isize {
        if at < self.turn { AHEAD as isize } else { self.beyond }
    }

    /// Whether this pass asks for a part of a panel.
    #[inline(always)]
    pub(super) fn asks(&self, part: usize) -> bool {
        self.parts >> (part % 64) & 1 == 1
    }
}

/// Bytes from one address to another; 0 to none.
fn distance(from: *const u8, to: *const u8) -> isize {
    if to.is_null() { 0 } else { to.addr() as isize - from.addr() as isize }
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
        let ahead = Ahead::of_one_pass(at(1 << 20), 10_000, at(1 << 21));
        let asked = |used: usize| (used as isize + ahead.from(at(used))) as usize;
        assert_eq!(asked(1 << 20), (1 << 20) + AHEAD);
        assert_eq!(asked((1 << 20) + 5_903), (1 << 20) + 9_999);
        assert_eq!(asked((1 << 20) + 5_904), 1 << 21);
        assert_eq!(asked((1 << 20) + 9_999), (1 << 21) + 4_095);
        // A panel shorter than the distance.
        let ahead = Ahead::of_one_pass(at(1 << 20), 1_000, at(1 << 19));
        assert_eq!((1 << 20) + ahead.from(at(1 << 20)), 1 << 19);
    }

    #[test]
    fn the_last_pass_asks_for_nothing_new() {
        let ahead = Ahead::of_one_pass(at(1 << 20), 10_000, std::ptr::null());
        assert_eq!(ahead.from(at((1 << 20) + 9_000)), 0);
    }

    #[test]
    fn several_passes_ask_for_all_of_what_comes_next() {
        let passes = [0, 1, 2].map(|pass| Ahead::of_passes(at(5_000), at(9_000), pass, 3));
        for part in 0..64 {
            assert_eq!(passes.iter().filter(|p| p.asks(part)).count(), 1);
        }
        assert!(passes.iter().all(|p| p.from(at(5_000)) == 4_000 && p.from(at(5_900)) == 4_000));
    }
}
