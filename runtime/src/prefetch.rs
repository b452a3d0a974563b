//! Asking memory for what is needed soon.

use crate::tiers::Simd;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Asks for the cache lines of so many bytes.
///
/// # Safety
/// The machine must have the instruction set. The bytes need not be valid.
#[inline(always)]
pub(crate) unsafe fn prefetch<S: Simd>(at: *const u8, bytes: usize) {
    let mut line = 0;
    while line < bytes {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { S::prefetch(at.wrapping_add(line)) };
        line += LINE;
    }
}
