//! Several sequences run together: each gets what it gets alone, whoever shares its steps, its prompt or its place.

mod tiny;

use llamac_runtime::sample::{Sampler, SamplingParams};
use llamac_runtime::{Batch, GenerateError, Generator};
use tiny::{BOUNDS, VOCAB, generator, prompt};

const COUNT: usize = 12;

fn sampler(seed: u64) -> Sampler {
    // Drawn from all tokens, so that a wrong row or a wrong cache shows at once.
    Sampler::new(SamplingParams { temperature: 1.5, top_k: 0, top_p: 1.0, seed }, VOCAB).unwrap()
}

/// What a prompt is continued with by a generator of its own.
fn alone(prompt: &[u32], seed: u64) -> Vec<u32> {
    let (mut model, mut sampler) = (generator(1), sampler(seed));
    model.prefill(0, prompt).unwrap();
    let mut tokens = vec![model.sample(&mut sampler).unwrap()];
    while tokens.len() < COUNT {
        model.decode(&[(0, tokens[tokens.len() - 1])]).unwrap();
        tokens.push(model.sample(&mut sampler).unwrap());
    }
    tokens
}

/// Runs until every sequence has its tokens and is removed; gives them by slot.
fn finish(batch: &mut Batch<'_>) -> Vec<Vec<u32>> {
    let mut tokens = vec![vec![]; BOUNDS.slots];
    while batch.running() > 0 {
        let chosen = batch.step().unwrap().to_vec();
        assert!(chosen.is_sorted_by_key(|c| c.slot));
        for c in chosen {
            tokens[c.slot].push(c.token);
            if tokens[c.slot].len() == COUNT {
                batch.remove(c.slot).unwrap();
            }
        }
    }
    tokens
}

#[test]
fn each_gets_what_it_gets_alone() {
    // Shorter than a chunk, longer, and one token.
    let prompts = [prompt(1, 5), prompt(2, 23), prompt(3, 1)];
    let expected: Vec<Vec<u32>> = (0..3).map(|i| alone(&prompts[i], i as u64)).collect();
    for threads in [1, 2] {
        for chunk in [1, 4, 16] {
            let mut model = generator(threads);
            model.set_chunk(chunk);
            let mut batch = Batch::new(&mut model, 3).unwrap();
            for (i, prompt) in prompts.iter().enumerate() {
                assert_eq!(batch.add(prompt, vec![sampler(i as u64)]), Ok(vec![i]));
            }
            assert_eq!((batch.running(), batch.free(), batch.waiting()), (3, 0, 3));
            assert_eq!(finish(&mut batch), expected, "{threads} threads, chunks of {chunk}");
        }
    }
}

#[test]
fn sequences_of_one_prompt_run_it_once() {
    let tokens = prompt(4, 20);
    let mut model = generator(2);
    let mut batch = Batch::new(&mut model, 3).unwrap();
    assert_eq!(batch.add(&tokens, (0..3).map(sampler).collect()), Ok(vec![0, 1, 2]));
    assert_eq!(batch.waiting(), 1);
    assert_eq!(batch.step().unwrap(), [], "16 of 20 rows");
    assert_eq!(batch.generator().len(1), Ok(0));
    let first: Vec<u32> = batch.step().unwrap().iter().map(|c| c.token).collect();
    assert_eq!((first.len(), batch.waiting()), (3, 0));
    assert_eq!((0..3).map(|s| batch.generator().len(s).unwrap()).collect::<Vec<_>>(), [20; 3]);
    let mut found: Vec<Vec<u32>> = first.iter().map(|&t| vec![t]).collect();
    for _ in 1..COUNT {
        for c in batch.step().unwrap() {
            found[c.slot].push(c.token);
        }
    }
    assert_eq!(found, (0..3).map(|seed| alone(&tokens, seed)).collect::<Vec<_>>());
}

#[test]
fn a_place_that_is_free_is_taken_by_the_next() {
    let (long, short, next) = (prompt(5, 9), prompt(6, 2), prompt(7, 18));
    let mut model = generator(1);
    let mut batch = Batch::new(&mut model, 2).unwrap();
    batch.add(&long, vec![sampler(0)]).unwrap();
    batch.add(&short, vec![sampler(1)]).unwrap();
    let mut found = [vec![], vec![]];
    for _ in 0..4 {
        for c in batch.step().unwrap() {
            found[c.slot].push(c.token);
        }
    }
    // The second ends early; while its successor's prompt runs, the first waits.
    batch.remove(1).unwrap();
    assert_eq!(found[1], alone(&short, 1)[..4]);
    assert_eq!(batch.add(&next, vec![sampler(2)]), Ok(vec![1]));
    found[1].clear();
    while found[1].len() < COUNT {
        for c in batch.step().unwrap() {
            found[c.slot].push(c.token);
        }
    }
    assert_eq!(found[1], alone(&next, 2));
    assert_eq!(found[0][..COUNT], alone(&long, 0));
}

#[test]
fn the_others_go_on_where_the_first_of_their_prompt_is_removed() {
    let (tokens, other) = (prompt(8, 20), prompt(9, 3));
    let mut model = generator(1);
    let mut batch = Batch::new(&mut model, 3).unwrap();
    batch.add(&tokens, (0..2).map(sampler).collect()).unwrap();
    batch.add(&other, vec![sampler(2)]).unwrap();
    assert_eq!(batch.step().unwrap(), []);
    batch.remove(0).unwrap();
    assert_eq!((batch.free(), batch.waiting()), (1, 2));
    let found = finish(&mut batch);
    assert_eq!(found, [vec![], alone(&tokens, 1), alone(&other, 2)]);
    // One of several that wait for another's prompt may go as well.
    let slots = batch.add(&tokens, (0..3).map(sampler).collect()).unwrap();
    batch.remove(slots[1]).unwrap();
    assert_eq!(finish(&mut batch), [alone(&tokens, 0), vec![], alone(&tokens, 2)]);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let places = |model: &mut Generator, places| Batch::new(model, places).err();
    let mut model = generator(1);
    let (slots, rows, outputs) = (BOUNDS.slots, BOUNDS.rows, BOUNDS.outputs);
    assert_eq!(model.most_sequences(), 3);
    for found in [0, 4, usize::MAX] {
        let error = places(&mut model, found).unwrap();
        assert_eq!(error, GenerateError::Places { found, slots, rows, outputs });
        assert!(error.to_string().contains("1 to 3"), "{error}");
    }
    let mut batch = Batch::new(&mut model, 2).unwrap();
    assert_eq!(batch.step(), Err(GenerateError::Empty));
    assert_eq!(batch.add(&[1], (0..3).map(sampler).collect()), Err(GenerateError::NoPlace { found: 3, free: 2 }));
    assert_eq!(batch.add(&[], vec![sampler(0)]), Err(GenerateError::Empty));
    let (needed, context) = (BOUNDS.tokens + 1, BOUNDS.tokens);
    let long = vec![1; needed];
    assert_eq!(batch.add(&long, vec![sampler(0)]), Err(GenerateError::Context { slot: 0, needed, context }));
    let token = VOCAB as u32;
    let error = GenerateError::NoToken { token, at: 1, vocab: VOCAB };
    assert_eq!(batch.add(&[1, token], vec![sampler(0)]), Err(error));
    assert_eq!(batch.remove(2), Err(GenerateError::NoSlot { slot: 2, slots: 2 }));
    assert_eq!((batch.running(), batch.add(&[1], vec![])), (0, Ok(vec![])));
    // A full context ends its sequence, and keeps the others from no step once it is removed.
    let (full, short) = (prompt(10, BOUNDS.tokens), prompt(11, 4));
    batch.add(&full, vec![sampler(0)]).unwrap();
    batch.add(&short, vec![sampler(1)]).unwrap();
    assert_eq!(batch.add(&short, vec![sampler(1)]), Err(GenerateError::NoPlace { found: 1, free: 0 }));
    let mut first = None;
    while batch.waiting() > 0 {
        first = batch.step().unwrap().iter().find(|c| c.slot == 1).map(|c| c.token).or(first);
    }
    assert!(batch.is_full(0) && !batch.is_full(1));
    assert_eq!(batch.step().map(<[_]>::len), Err(GenerateError::Context { slot: 0, needed, context }));
    batch.remove(0).unwrap();
    let found = finish(&mut batch);
    // `finish` counts from the second token on.
    let mut expected = alone(&short, 1);
    assert_eq!(first, Some(expected.remove(0)));
    assert_eq!(found[1][..COUNT - 1], expected);
}
