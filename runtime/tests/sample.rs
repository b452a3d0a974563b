//! Sampling: frequencies, filters, ties, the same tokens from the same seed, and parameters out of range.

use llamac_runtime::sample::{Sampler, SamplingError, SamplingParams, argmax};
use proptest::prelude::*;

fn sampler(temperature: f32, top_k: usize, top_p: f32, seed: u64) -> Sampler {
    Sampler::new(SamplingParams { temperature, top_k, top_p, seed }, 1000).expect("sound parameters")
}

/// How often each of the tokens is drawn.
fn frequencies(mut sampler: Sampler, logits: &[f32], draws: usize) -> Vec<f64> {
    let mut counts = vec![0; logits.len()];
    for _ in 0..draws {
        counts[sampler.sample(logits) as usize] += 1;
    }
    counts.into_iter().map(|n| f64::from(n) / draws as f64).collect()
}

/// Logits of these probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

#[track_caller]
fn close(found: &[f64], expected: &[f64]) {
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() < 0.02, "{found:?} is not about {expected:?}");
    }
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    assert_eq!(argmax(&[0.0, 2.0, 1.0, 2.0]), 1);
    assert_eq!(argmax(&[f32::NAN, -5.0, f32::NAN, -4.0]), 3);
    assert_eq!(argmax(&[0.0, -0.0]), 0);
    assert_eq!(argmax(&[-0.0, 0.0]), 0);
    assert_eq!(argmax(&[f32::NAN; 3]), 0);
    assert_eq!(argmax(&[]), 0);
    let mut greedy = Sampler::new(SamplingParams::GREEDY, 4).expect("greedy");
    assert_eq!(greedy.sample(&[0.0, 2.0, 1.0, 2.0]), 1);
}

#[test]
fn tokens_come_as_often_as_they_are_likely() {
    let found = frequencies(sampler(1.0, 0, 1.0, 1), &logits(&[0.1, 0.5, 0.15, 0.25]), 20_000);
    close(&found, &[0.1, 0.5, 0.15, 0.25]);
}

#[test]
fn temperature_flattens_and_sharpens() {
    // Square roots and squares of the probabilities, normalised.
    let found = frequencies(sampler(2.0, 0, 1.0, 2), &logits(&[0.64, 0.36]), 20_000);
    close(&found, &[0.8 / 1.4, 0.6 / 1.4]);
    let found = frequencies(sampler(0.5, 0, 1.0, 3), &logits(&[0.6, 0.4]), 20_000);
    close(&found, &[0.36 / 0.52, 0.16 / 0.52]);
    assert_eq!(sampler(1e-30, 0, 1.0, 4).sample(&[1.0, 1.0001, 1.0]), 1);
}

#[test]
fn top_k_keeps_k_and_the_first_of_equals() {
    let found = frequencies(sampler(1.0, 2, 1.0, 5), &logits(&[0.1, 0.5, 0.15, 0.25]), 20_000);
    close(&found, &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
    let found = frequencies(sampler(1.0, 2, 1.0, 6), &[1.0, 2.0, 1.0, 1.0], 5_000);
    assert!(found[0] > 0.0 && found[2] == 0.0 && found[3] == 0.0);
    assert_eq!(sampler(1.0, 1, 1.0, 7).sample(&[0.0, 3.0, 3.0]), 1);
    // More than there are: all.
    assert!(frequencies(sampler(1.0, 99, 1.0, 8), &[0.0; 3], 1_000).iter().all(|&f| f > 0.2));
}

#[test]
fn top_k_of_a_large_vocabulary_keeps_the_likeliest() {
    // With ties, ascending, descending, and in no order.
    let orders: [fn(usize) -> f32; 4] =
        [|i| (i * 7919 % 97) as f32, |i| i as f32, |i| -(i as f32), |i| (i * 7919 % 1000) as f32];
    for (k, order) in [1, 40, 100].into_iter().flat_map(|k| orders.map(|o| (k, o))) {
        let mut logits: Vec<f32> = (0..1000).map(order).collect();
        logits[17] = f32::NAN;
        let mut likeliest: Vec<usize> = (0..1000).filter(|&i| !logits[i].is_nan()).collect();
        likeliest.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        // So hot that all that are kept are equally likely.
        let mut kept = vec![false; 1000];
        let mut sampler = sampler(1e9, k, 1.0, 15);
        for _ in 0..20 * k {
            kept[sampler.sample(&logits) as usize] = true;
        }
        let mut expected = vec![false; 1000];
        likeliest[..k].iter().for_each(|&i| expected[i] = true);
        assert!(kept == expected, "the {k} likeliest");
    }
}

#[test]
fn top_p_keeps_the_smallest_set_that_reaches_p() {
    let four = logits(&[0.1, 0.5, 0.15, 0.25]);
    close(&frequencies(sampler(1.0, 0, 0.4, 9), &four, 2_000), &[0.0, 1.0, 0.0, 0.0]);
    close(&frequencies(sampler(1.0, 0, 0.7, 10), &four, 20_000), &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
    close(&frequencies(sampler(1.0, 0, 0.8, 11), &four, 20_000), &[0.0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9]);
    assert_eq!(sampler(1.0, 0, f32::MIN_POSITIVE, 12).sample(&[0.0, 1.0, 0.5]), 1);
    // After top-k the probabilities of those that are left count.
    close(&frequencies(sampler(1.0, 2, 0.6, 13), &four, 2_000), &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn the_seed_decides_the_tokens_on_every_machine() {
    let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 0.01).collect();
    let draw = |seed| {
        let mut sampler = sampler(0.8, 40, 0.95, seed);
        (0..8).map(|_| sampler.sample(&logits)).collect::<Vec<_>>()
    };
    assert_eq!(draw(42), draw(42));
    assert_ne!(draw(42), draw(43));
    assert_eq!(draw(42), FROZEN);
}

#[test]
fn logits_that_are_no_numbers() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for seed in 0..50 {
        assert_eq!(sampler(1.0, 0, 0.9, seed).sample(&[nan, 0.5, nan]), 1);
        assert_eq!(sampler(1.0, 0, 1.0, seed).sample(&[0.0, inf, 9.0]), 1);
        assert_eq!(sampler(1.0, 2, 0.9, seed).sample(&[-inf, -inf, 0.0]), 2);
        assert!(sampler(1.0, 2, 0.9, seed).sample(&[nan; 3]) < 3);
    }
}

#[test]
fn parameters_out_of_range() {
    let new = |temperature, top_p| Sampler::new(SamplingParams { temperature, top_k: 0, top_p, seed: 0 }, 10).map(drop);
    for bad in [-0.1, f32::INFINITY] {
        assert_eq!(new(bad, 1.0), Err(SamplingError::Temperature(bad)));
    }
    for bad in [0.0, -0.5, 1.1] {
        assert_eq!(new(1.0, bad), Err(SamplingError::TopP(bad)));
    }
    for (temperature, top_p, said) in [(f32::NAN, 1.0, "temperature is NaN"), (1.0, f32::NAN, "top-p is NaN")] {
        let error = new(temperature, top_p).expect_err("NaN").to_string();
        assert!(error.contains(said) && error.contains("expected"), "{error}");
    }
    assert_eq!(new(0.0, 1.0), Ok(()));
}

proptest! {
    /// Every draw is a token, and one that the filters leave.
    #[test]
    fn draws_stay_within_the_filters(
        logits in prop::collection::vec(-20.0_f32..20.0, 1..200),
        temperature in 0.05_f32..3.0,
        top_k in 0_usize..50,
        top_p in 0.01_f32..=1.0,
        seed: u64,
    ) {
        let token = sampler(temperature, top_k, top_p, seed).sample(&logits) as usize;
        prop_assert!(token < logits.len());
        let likelier = logits.iter().filter(|&&l| l > logits[token]).count();
        prop_assert!(top_k == 0 || likelier < top_k);
        let weight = |l: f32| (f64::from(l) / f64::from(temperature)).exp();
        let total: f64 = logits.iter().map(|&l| weight(l)).sum();
        let above: f64 = logits.iter().filter(|&&l| l > logits[token]).map(|&l| weight(l)).sum();
        prop_assert!(top_k != 0 || above < f64::from(top_p) * total * (1.0 + 1e-9));
    }
}

/// What an independent program draws.
const FROZEN: [u32; 8] = [667, 605, 889, 852, 642, 272, 247, 309];
