//! A step of a quantised model allocates nothing once everything has been touched.

#[path = "../runtime/tests/allocations/mod.rs"]
mod allocations;
mod library;

use allocations::allocations;
use library::{Build, options, pool, tiers};
use llamac::model::{Model, Sizes};
use llamac_passes::{Activations, CacheType, FusionSet};
use llamac_runtime::Generator;
use std::path::Path;

/// A prompt of many rows, one of few, every position scored, decoding alone and together.
fn round(model: &mut Generator, prompt: &[u32]) {
    model.prefill(0, prompt).unwrap();
    model.prefill(1, &prompt[..5]).unwrap();
    model.score(2, prompt, |_, _| {}).unwrap();
    for token in 0..3 {
        model.decode(&[(0, token)]).unwrap();
        model.decode(&[(1, token), (2, token), (0, token)]).unwrap();
    }
    model.fork(0, 1).unwrap();
    model.clear();
}

// One test in this file: another would allocate on its own thread meanwhile.
#[test]
fn a_step_of_a_quantised_model_allocates_nothing() {
    // q4_k and q6_k in one file.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/bard.gguf/bard-q4_k_m.gguf");
    let sizes = Sizes { context: Some(64), chunk: Some(40), slots: Some(3), outputs: Some(8) };
    let model = Model::open(&path, None, &sizes).unwrap();
    let prompt: Vec<u32> = (0..50).map(|i| i * 37 % 2000).collect();
    let mut counted = vec![];
    for (act, kv) in [(Activations::Auto, CacheType::Q8_0), (Activations::F32, CacheType::F32)] {
        let build = Build::new(&model, &options(FusionSet::All, act, kv));
        for threads in [1, 2] {
            let pool = pool(threads);
            for tier in tiers() {
                let mut generator = build.generator(&pool, tier);
                round(&mut generator, &prompt);
                let before = allocations();
                round(&mut generator, &prompt);
                counted.push((act, kv, tier.name(), threads, allocations() - before));
            }
        }
    }
    assert!(counted.iter().all(|c| c.4 == 0), "activations, cache, tier, threads, allocations: {counted:?}");
    let before = allocations();
    drop(std::hint::black_box(vec![1u8; 10]));
    assert!(allocations() > before, "the allocator does not count");
}
