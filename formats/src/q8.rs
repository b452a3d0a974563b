//! Activations in blocks of eight-bit integers: the type `q8`.
//!
//! 32 consecutive elements of a row become one block of [`BYTES`] bytes, a multiple of 4 and 4-byte aligned:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | the scale d, f32: the largest magnitude over 127 |
//! | 4..6, 6..8 | the sums of the first and of the last sixteen integers, i16 |
//! | 8..40 | the integers q, i8: x·127/max rounded to nearest even, so −127..=127 |
//!
//! An element is d·q. The sums serve weights that have a minimum or are stored with an offset. Rounding errors are at most
//! d/2, like those of llama.cpp's `q8_0` and `q8_K`, whose scales are f16 and over 256 elements. The largest magnitude of a block must be finite;
//! where it is not, the scale is NaN and the integers 0, so that every result shows it.

/// Elements of a block.
pub const ELEMENTS: usize = 32;

/// Bytes of a block.
pub const BYTES: usize = 40;

/// Where the sums begin in a block.
pub const SUMS: usize = 4;

/// Where the integers begin in a block.
pub const QUANTS: usize = 8;

/// Elements of each sum.
pub const SUM_ELEMENTS: usize = 16;

/// Makes one block of 32 elements: what every faster routine must equal to the bit.
///
/// The scale is `max / 127`; the factor is `127 / max` (0 where the block is 0), and each integer is the product rounded
/// to nearest even.
pub fn encode(x: &[f32; ELEMENTS], block: &mut [u8; BYTES]) {
    let max = x.iter().fold(0.0f32, |m, v| if v.abs() > m || v.is_nan() { v.abs() } else { m });
    *block = [0; BYTES];
    if !max.is_finite() {
        block[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        return;
    }
    let (scale, factor) = factors(max);
    block[..4].copy_from_slice(&scale.to_le_bytes());
    let mut sums = [0i16; 2];
    for (i, v) in x.iter().enumerate() {
        let q = (v * factor).round_ties_even().clamp(-127.0, 127.0) as i8;
        block[QUANTS + i] = q.to_le_bytes()[0];
        sums[i / SUM_ELEMENTS] += i16::from(q);
    }
    block[SUMS..SUMS + 2].copy_from_slice(&sums[0].to_le_bytes());
    block[SUMS + 2..SUMS + 4].copy_from_slice(&sums[1].to_le_bytes());
}

/// The scale and the factor for a largest magnitude, which must be finite. A magnitude so small that its factor overflows counts as 0.
pub fn factors(max: f32) -> (f32, f32) {
    let factor = 127.0 / max;
    if factor.is_finite() { (max / 127.0, factor) } else { (0.0, 0.0) }
}

/// The elements of a block.
pub fn decode(block: &[u8; BYTES]) -> [f32; ELEMENTS] {
    let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    std::array::from_fn(|i| scale * f32::from(i8::from_le_bytes([block[QUANTS + i]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(x: &[f32; ELEMENTS]) -> [f32; ELEMENTS] {
        let mut block = [0xff; BYTES];
        encode(x, &mut block);
        decode(&block)
    }

    #[test]
    fn errors_are_at_most_half_a_step() {
        let x: [f32; ELEMENTS] = std::array::from_fn(|i| ((i * 37 % 64) as f32 - 30.5) * 0.37);
        let step = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
        for (x, y) in x.iter().zip(round_trip(&x)) {
            assert!((x - y).abs() <= step * 0.5001, "{x} became {y}, steps are {step}");
        }
    }

    #[test]
    fn sums_are_those_of_the_integers() {
        let x: [f32; ELEMENTS] = std::array::from_fn(|i| if i < 16 { 1.0 } else { -0.5 });
        let mut block = [0; BYTES];
        encode(&x, &mut block);
        let sum = |at| i16::from_le_bytes([block[at], block[at + 1]]);
        // 63.5 rounds to even: 64.
        assert_eq!((sum(SUMS), sum(SUMS + 2)), (16 * 127, -16 * 64));
    }

    #[test]
    fn nothing_and_almost_nothing_are_zero() {
        assert_eq!(round_trip(&[0.0; ELEMENTS]), [0.0; ELEMENTS]);
        assert_eq!(round_trip(&[1e-40; ELEMENTS]), [0.0; ELEMENTS]);
    }

    #[test]
    fn what_is_not_finite_shows() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; ELEMENTS];
            x[7] = bad;
            assert!(round_trip(&x).iter().all(|v| v.is_nan()), "{bad}");
        }
    }
}
