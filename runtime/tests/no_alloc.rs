//! A step allocates nothing once everything has been touched.

mod allocations;
mod tiny;

use allocations::allocations;
use llamac_runtime::Batch;
use llamac_runtime::sample::{Sampler, SamplingParams};

// One test in this file: another would allocate on its own thread meanwhile.
#[test]
fn a_step_allocates_nothing() {
    let prompt = tiny::prompt(1, 20);
    let mut counted = Vec::new();
    for threads in [1, 2] {
        for profiling in [false, true] {
            let mut model = tiny::generator(threads);
            model.session_mut().set_profiling(profiling);
            let round = |model: &mut llamac_runtime::Generator| {
                model.prefill(0, &prompt).unwrap();
                model.prefill(1, &prompt[..5]).unwrap();
                model.score(2, &prompt, |_, _| {}).unwrap();
                for token in 0..10 {
                    model.decode(&[(0, token)]).unwrap();
                    model.decode(&[(1, token), (2, token), (0, token)]).unwrap();
                }
                model.fork(0, 1).unwrap();
                model.clear();
            };
            round(&mut model);
            let before = allocations();
            round(&mut model);
            counted.push((threads, profiling, allocations() - before));
            // Steps of prompts, of which one is of two sequences, and steps of tokens.
            let sampler = |seed| {
                let params = SamplingParams { temperature: 1.0, top_k: 5, top_p: 0.9, seed };
                Sampler::new(params, tiny::VOCAB).unwrap()
            };
            let mut batch = Batch::new(&mut model, 3).unwrap();
            batch.add(&prompt, vec![sampler(1), sampler(2)]).unwrap();
            batch.add(&prompt[..5], vec![sampler(3)]).unwrap();
            let before = allocations();
            for _ in 0..8 {
                batch.step().unwrap();
            }
            counted.push((threads, profiling, allocations() - before));
        }
    }
    assert!(counted.iter().all(|c| c.2 == 0), "threads, profiling, allocations: {counted:?}");
    let before = allocations();
    drop(std::hint::black_box(vec![1u8; 10]));
    assert!(allocations() > before, "the allocator does not count");
}
