//! Encoding at the edges of the numbers, and what must hold everywhere.

use llamac_formats::BlockFormat;
use proptest::prelude::*;

const GREATEST: f32 = 65504.0;
const LEAST: f32 = 1.0 / (1 << 24) as f32;

fn round_trip(format: BlockFormat, x: &[f32]) -> Vec<f32> {
    let mut blocks = vec![0; x.len() / format.elements() * format.bytes()];
    format.encode(x, &mut blocks);
    let mut y = vec![f32::NAN; x.len()];
    format.decode(&blocks, &mut y);
    y
}

fn squared_error(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum()
}

/// Uniform numbers in −1..1, always the same.
fn numbers(count: usize, mut seed: u64) -> Vec<f32> {
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The greatest root mean square error of a block whose numbers lie in −1..1: a step of the plain scale over √12 and, in
/// the k-formats, what rounding scales and minima costs.
fn bound(format: BlockFormat) -> f64 {
    match format {
        BlockFormat::Q8_0 => 0.0023,
        BlockFormat::Q4_0 => 0.040,
        BlockFormat::Q4_1 => 0.040,
        BlockFormat::Q5_0 => 0.019,
        BlockFormat::Q5_1 => 0.019,
        BlockFormat::Q4K => 0.041,
        BlockFormat::Q5K => 0.021,
        BlockFormat::Q6K => 0.010,
    }
}

/// The greatest root mean square error that rounding to the plain scales of these numbers can leave, with 5% for the
/// rounding of those to f16.
fn worst(format: BlockFormat, x: &[f32]) -> f64 {
    let (least, greatest) = x.iter().fold((x[0], x[0]), |(a, b), &x| (a.min(x), b.max(x)));
    let (magnitude, range) = (f64::from(greatest.max(-least)), f64::from(greatest) - f64::from(least));
    let from_zero = f64::from(greatest.max(0.0)) - f64::from(least.min(0.0));
    1.05 * match format {
        BlockFormat::Q8_0 => magnitude / 254.0,
        BlockFormat::Q4_0 => magnitude / 14.0,
        BlockFormat::Q5_0 => magnitude / 30.0,
        // A minimum is an f16 and may be far larger than the range.
        BlockFormat::Q4_1 => range / 30.0 + magnitude / 2048.0,
        BlockFormat::Q5_1 => range / 62.0 + magnitude / 2048.0,
        BlockFormat::Q4K => from_zero * (1.0 / 30.0 + 1.0 / 63.0),
        BlockFormat::Q5K => from_zero * (1.0 / 62.0 + 1.0 / 63.0),
        BlockFormat::Q6K => magnitude * (1.0 / 62.0 + 1.0 / 254.0),
    }
}

#[test]
fn uniform_numbers_come_back_within_a_step() {
    for format in BlockFormat::ALL {
        let x = numbers(256 * 64, 7);
        let rms = (squared_error(&x, &round_trip(format, &x)) / x.len() as f64).sqrt();
        assert!(rms < bound(format) && rms > 0.5 * bound(format), "{format}: {rms}");
    }
}

#[test]
fn zeros_of_either_sign_are_zero() {
    for format in BlockFormat::ALL {
        for zero in [0.0, -0.0] {
            assert!(round_trip(format, &[zero; 256]).iter().all(|&y| y == 0.0), "{format}");
        }
    }
}

#[test]
fn a_constant_comes_back() {
    for format in BlockFormat::ALL {
        for constant in [1.0f32, -1.0, 0.37, -0.37, 0.05, -812.5] {
            for y in round_trip(format, &[constant; 256]) {
                assert!((y / constant - 1.0).abs() < 6e-4, "{format}: {y} for {constant}");
            }
        }
    }
}

#[test]
fn an_outlier_keeps_its_size() {
    for format in BlockFormat::ALL {
        for outlier in [1000.0, -1000.0] {
            let mut x = numbers(256, 3);
            x[77] = outlier;
            let y = round_trip(format, &x);
            assert!((y[77] / outlier - 1.0).abs() < 1e-3, "{format}: {}", y[77]);
            // The others are less than half a step of their block: no worse than zeros.
            assert!(squared_error(&x, &y) < 256.0, "{format}: {}", squared_error(&x, &y));
        }
    }
}

#[test]
fn what_is_too_small_for_a_scale_is_zero_and_what_is_not_survives() {
    for format in BlockFormat::ALL {
        for tiny in [f32::from_bits(1), -f32::MIN_POSITIVE, 1e-20, 0.4 * LEAST] {
            let mut x = [0.0; 256];
            x[5] = tiny;
            x[6] = -tiny;
            assert!(round_trip(format, &x).iter().all(|&y| y == 0.0), "{format}: {tiny}");
        }
        // Plain scales of these numbers are below the least f16.
        let x: Vec<f32> = numbers(256, 5).iter().map(|x| x.round() * 2.0 * LEAST).collect();
        for (&x, y) in x.iter().zip(round_trip(format, &x)) {
            assert!((x - y).abs() <= LEAST, "{format}: {y} for {x}");
        }
    }
}

#[test]
fn what_is_too_large_for_a_scale_saturates() {
    for format in BlockFormat::ALL {
        for huge in [1e9, -1e9, 1e38, -1e38, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = numbers(256, 9);
            x.fill(0.0);
            x[100] = huge;
            let y = round_trip(format, &x);
            assert!(y.iter().all(|y| y.is_finite()), "{format}");
            assert!(y[100] * huge.signum() >= GREATEST * 0.99, "{format}: {} for {huge}", y[100]);
            let y = round_trip(format, &[huge; 256]);
            assert!(y.iter().all(|y| y.is_finite() && y * huge.signum() >= GREATEST * 0.99), "{format}: {huge}");
        }
    }
}

#[test]
fn nan_is_taken_for_zero() {
    for format in BlockFormat::ALL {
        let mut x = numbers(256, 11);
        x[3] = f32::NAN;
        let with = round_trip(format, &x);
        x[3] = 0.0;
        assert_eq!(with, round_trip(format, &x), "{format}");
    }
}

#[test]
fn blocks_of_a_row_are_independent() {
    for format in BlockFormat::ALL {
        let x = numbers(1024, 13);
        let (elements, bytes) = (format.elements(), format.bytes());
        let mut whole = vec![0; 1024 / elements * bytes];
        format.encode(&x, &mut whole);
        for (i, x) in x.chunks_exact(elements).enumerate() {
            let mut one = vec![0xff; bytes];
            format.encode(x, &mut one);
            assert_eq!(one, whole[i * bytes..][..bytes], "{format}");
        }
    }
}

/// A block's numbers: spread over many magnitudes, often zero, sometimes far from it all together.
fn block() -> impl Strategy<Value = Vec<f32>> {
    let element = prop_oneof![4 => -1.0f32..1.0, 1 => Just(0.0), 1 => -1e-3f32..1e-3, 1 => -30.0f32..30.0];
    (proptest::collection::vec(element, 256), prop_oneof![Just(0.0f32), -100.0f32..100.0], -12i32..8)
        .prop_map(|(x, offset, exponent)| x.iter().map(|x| (x + offset) * 2f32.powi(exponent)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Each block of one scale is at least as near as with the scale of its extremes, as llama.cpp takes it.
    #[test]
    fn one_scale_is_no_worse_than_the_plain_one(x in block()) {
        for (format, lo, hi) in
            [(BlockFormat::Q8_0, -127.0, 127.0), (BlockFormat::Q4_0, -8.0f32, 7.0f32), (BlockFormat::Q5_0, -16.0, 15.0)]
        {
            for x in x.chunks_exact(32) {
                let extreme = x.iter().fold(0.0f32, |a, &x| if x.abs() > a.abs() { x } else { a });
                let d = half::f16::from_f32(extreme / lo).to_f32();
                let plain: Vec<f32> = x.iter().map(|x| (x * (lo / extreme)).round().clamp(lo, hi) * d).collect();
                let (ours, theirs) = (squared_error(x, &round_trip(format, x)), squared_error(x, &plain));
                prop_assert!(extreme == 0.0 || ours <= theirs * (1.0 + 1e-6), "{format}: {ours} over {theirs}");
            }
        }
    }

    /// So is each block of a scale and a minimum.
    #[test]
    fn a_minimum_is_no_worse_than_the_plain_one(x in block()) {
        for (format, top) in [(BlockFormat::Q4_1, 15.0f32), (BlockFormat::Q5_1, 31.0)] {
            for x in x.chunks_exact(32) {
                let (least, greatest) = x.iter().fold((x[0], x[0]), |(a, b), &x| (a.min(x), b.max(x)));
                let scale = (greatest - least) / top;
                let (d, m) = (half::f16::from_f32(scale).to_f32(), half::f16::from_f32(least).to_f32());
                let quant = |x: f32| if scale == 0.0 { 0.0 } else { ((x - least) / scale).round().min(top) };
                let plain: Vec<f32> = x.iter().map(|&x| quant(x) * d + m).collect();
                let (ours, theirs) = (squared_error(x, &round_trip(format, x)), squared_error(x, &plain));
                prop_assert!(ours <= theirs * (1.0 + 1e-6), "{format}: {ours} over {theirs}");
            }
        }
    }

    /// Nothing loses more than half a step of the plain scale and what rounding scales costs; nor does what a block
    /// stands for, encoded again.
    #[test]
    fn the_error_is_bounded_and_again(x in block()) {
        for format in BlockFormat::ALL {
            let y = round_trip(format, &x);
            let z = round_trip(format, &y);
            for (from, to) in [(&x, &y), (&y, &z)] {
                for (from, to) in from.chunks_exact(format.elements()).zip(to.chunks_exact(format.elements())) {
                    let rms = (squared_error(from, to) / from.len() as f64).sqrt();
                    prop_assert!(rms <= worst(format, from), "{format}: {rms} over {}", worst(format, from));
                }
            }
        }
    }

    /// A power of two scales everything and changes no quant.
    #[test]
    fn powers_of_two_pass_through(x in block(), exponent in -3i32..4) {
        let factor = 2f32.powi(exponent);
        prop_assume!(x.iter().all(|x| x.abs() < 8000.0));
        for format in [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q5_0] {
            let x: Vec<f32> = x.iter().map(|x| if x.abs() < 1.0 { 1.0 } else { *x }).collect();
            let scaled: Vec<f32> = x.iter().map(|x| x * factor).collect();
            let y: Vec<f32> = round_trip(format, &x).iter().map(|y| y * factor).collect();
            prop_assert_eq!(round_trip(format, &scaled), y, "{}", format);
        }
    }

    /// Any bytes decode, and any numbers encode to what decodes to finite numbers.
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 8 * 34), bits in proptest::collection::vec(any::<u32>(), 256)) {
        for format in BlockFormat::ALL {
            let mut out = vec![0.0; format.elements()];
            format.decode(&bytes[..format.bytes()], &mut out);
            let x: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
            prop_assert!(round_trip(format, &x).iter().all(|y| y.is_finite()), "{}", format);
        }
    }
}
