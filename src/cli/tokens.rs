//! Tokens to measure with.

/// Pseudo-random tokens below `vocab`, the same in every run: Knuth's MMIX constants.
pub fn tokens(vocab: usize) -> impl Iterator<Item = u32> {
    let vocab = vocab.max(1) as u64;
    let mut state = 1u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab) as u32
    })
}
