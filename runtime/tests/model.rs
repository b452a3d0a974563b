//! A model with every kind of work, run through the generator, against a plain reference.

mod tiny;

use llamac_runtime::sample::argmax;
use llamac_runtime::{GenerateError, Generator, Row};
use tiny::{BOUNDS, Reference, VOCAB, close, generator, prompt};

#[test]
fn a_prompt_gives_the_logits_of_the_reference_in_chunks_of_any_size() {
    let tokens = prompt(1, 29);
    let expected = Reference::new().extend(0, &tokens);
    for threads in [1, 2] {
        for chunk in [1, 3, 7, 16] {
            let mut model = generator(threads);
            model.set_chunk(chunk);
            close(model.prefill(0, &tokens).unwrap(), &expected);
            assert_eq!(model.len(0).unwrap(), tokens.len());
        }
    }
}

#[test]
fn attention_may_be_dots_and_a_softmax() {
    for threads in [1, 2] {
        let session = tiny::open(tiny::unfused(), threads);
        let (mut model, mut reference) = (Generator::new(session).unwrap(), Reference::new());
        model.set_chunk(6);
        let tokens = prompt(14, 17);
        close(model.prefill(1, &tokens).unwrap(), &reference.extend(1, &tokens));
        close(model.prefill(0, &tokens[..2]).unwrap(), &reference.extend(0, &tokens[..2]));
        for token in prompt(15, 8) {
            close(model.decode(&[(1, token)]).unwrap().data, &reference.push(1, token));
            let batch = model.decode(&[(1, 3), (0, token)]).unwrap();
            close(batch.row(0), &reference.push(1, 3));
            close(batch.row(1), &reference.push(0, token));
        }
        let [row] = [Row { slot: 0, token: 9, position: 1 }];
        reference.rewind(0, 1);
        close(model.step_rows(&[row], &[0]).unwrap().data, &reference.push(0, 9));
    }
}

#[test]
fn generation_continues_where_the_prompt_ends() {
    let (mut model, mut reference) = (generator(2), Reference::new());
    let tokens = prompt(2, 5);
    close(model.prefill(1, &tokens).unwrap(), &reference.extend(1, &tokens));
    for token in prompt(3, 20) {
        close(model.decode(&[(1, token)]).unwrap().data, &reference.push(1, token));
    }
}

#[test]
fn scoring_shows_the_logits_of_every_token() {
    let tokens = prompt(4, 23);
    for chunk in [1, 4, 16] {
        let (mut model, mut reference) = (generator(1), Reference::new());
        model.set_chunk(chunk);
        let mut seen = Vec::new();
        model
            .score(0, &tokens, |i, logits| {
                seen.push(i);
                close(logits, &reference.push(0, tokens[i]));
            })
            .unwrap();
        assert_eq!(seen, (0..tokens.len()).collect::<Vec<_>>());
    }
}

#[test]
fn a_ragged_batch_mixes_prompts_and_single_tokens() {
    let (mut model, mut reference) = (generator(2), Reference::new());
    model.prefill(2, &prompt(5, 9)).unwrap();
    reference.extend(2, &prompt(5, 9));
    model.prefill(0, &prompt(6, 2)).unwrap();
    reference.extend(0, &prompt(6, 2));
    let long = prompt(7, 6);
    let mut rows = vec![Row { slot: 2, token: 11, position: 9 }];
    rows.extend(long.iter().enumerate().map(|(i, t)| Row { slot: 1, token: *t, position: i }));
    rows.push(Row { slot: 0, token: 3, position: 2 });
    let expected = [reference.push(0, 3), reference.push(2, 11), reference.extend(1, &long)];
    let logits = model.step_rows(&rows, &[7, 0, 6]).unwrap();
    assert_eq!(logits.rows(), 3);
    for (i, expected) in expected.iter().enumerate() {
        close(logits.row(i), expected);
    }
    assert_eq!([0, 1, 2].map(|s| model.len(s).unwrap()), [3, 6, 10]);
    let batch = model.decode(&[(1, 8), (0, 8), (2, 8)]).unwrap();
    for (i, slot) in [1, 0, 2].into_iter().enumerate() {
        close(batch.row(i), &reference.push(slot, 8));
    }
}

#[test]
fn threads_and_other_rows_change_no_bit() {
    let run = |threads: usize, crowded: bool| {
        let mut model = generator(threads);
        model.prefill(1, &prompt(8, 19)).unwrap();
        if crowded {
            model.prefill(0, &prompt(9, 30)).unwrap();
        }
        let mut bits: Vec<Vec<u32>> = Vec::new();
        for token in prompt(10, 12) {
            let logits = match crowded {
                true => model.decode(&[(0, 5), (1, token)]).unwrap().row(1).to_vec(),
                false => model.decode(&[(1, token)]).unwrap().row(0).to_vec(),
            };
            bits.push(logits.into_iter().map(f32::to_bits).collect());
        }
        bits
    };
    let alone = run(1, false);
    assert_eq!(alone, run(2, false));
    assert_eq!(alone, run(3, false));
    assert_eq!(alone, run(1, true));
    assert_eq!(alone, run(2, true));
}

#[test]
fn slots_rewind_and_fork() {
    let (mut model, mut reference) = (generator(1), Reference::new());
    let tokens = prompt(11, 12);
    model.prefill(0, &tokens).unwrap();
    reference.extend(0, &tokens);
    model.fork(0, 2).unwrap();
    model.rewind(0, 4).unwrap();
    reference.rewind(0, 4);
    let fresh = reference.push(0, 30);
    close(model.decode(&[(0, 30)]).unwrap().data, &fresh);
    let mut other = Reference::new();
    other.extend(2, &tokens);
    close(model.decode(&[(2, 7)]).unwrap().data, &other.push(2, 7));
    // A row before the slot's end rewinds it.
    reference.rewind(0, 2);
    close(model.step_rows(&[Row { slot: 0, token: 1, position: 2 }], &[0]).unwrap().data, &reference.push(0, 1));
    assert_eq!(model.len(0).unwrap(), 3);
    assert_eq!(model.rewind(0, 4), Err(GenerateError::Rewind { slot: 0, held: 3, to: 4 }));
    model.clear();
    let mut again = Reference::new();
    close(model.prefill(2, &tokens).unwrap(), &again.extend(2, &tokens));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let (mut model, mut reference) = (generator(1), Reference::new());
    model.prefill(0, &[1, 2, 3]).unwrap();
    reference.extend(0, &[1, 2, 3]);
    let (slots, context) = (BOUNDS.slots, BOUNDS.tokens);
    let needed = 3 + context;
    let error = model.prefill(0, &vec![1; context]).unwrap_err();
    assert_eq!(error, GenerateError::Context { slot: 0, needed, context });
    assert!(error.to_string().contains(&needed.to_string()) && error.to_string().contains(&context.to_string()));
    assert_eq!(model.prefill(3, &[1]).unwrap_err(), GenerateError::NoSlot { slot: 3, slots });
    assert_eq!(model.prefill(0, &[]).unwrap_err(), GenerateError::Empty);
    let no_token = GenerateError::NoToken { token: VOCAB as u32, at: 1, vocab: VOCAB };
    assert_eq!(model.prefill(0, &[1, VOCAB as u32]).unwrap_err(), no_token);
    let row = |slot, position| Row { slot, token: 0, position };
    let gap = GenerateError::Gap { row: 1, slot: 1, found: 2, held: 1 };
    assert_eq!(model.step_rows(&[row(1, 0), row(1, 2)], &[0]).unwrap_err(), gap);
    assert!(matches!(model.step_rows(&[row(1, 0), row(0, 3), row(1, 1)], &[0]), Err(GenerateError::Step(_))));
    assert!(matches!(model.step_rows(&[row(1, 0)], &[1]), Err(GenerateError::Step(_))));
    assert!(matches!(model.step_rows(&vec![row(1, 0); 17], &[0]), Err(GenerateError::Step(_))));
    assert!(matches!(model.step_rows(&[row(1, 0)], &[0; 5]), Err(GenerateError::Step(_))));
    assert_eq!([0, 1, 2].map(|s| model.len(s).unwrap()), [3, 0, 0]);
    close(model.decode(&[(0, 4)]).unwrap().data, &reference.push(0, 4));
}

#[test]
fn the_context_can_be_filled_to_its_end() {
    let (mut model, mut reference) = (generator(2), Reference::new());
    let tokens = prompt(12, BOUNDS.tokens);
    close(model.prefill(0, &tokens).unwrap(), &reference.extend(0, &tokens));
    let (needed, context) = (BOUNDS.tokens + 1, BOUNDS.tokens);
    assert_eq!(model.decode(&[(0, 1)]).unwrap_err(), GenerateError::Context { slot: 0, needed, context });
}

#[test]
fn a_profile_adds_up_to_the_whole() {
    let mut model = generator(2);
    assert_eq!(model.session().profile(false), None);
    model.prefill(0, &prompt(13, 10)).unwrap();
    model.session_mut().set_profiling(true);
    model.prefill(0, &prompt(13, 20)).unwrap();
    model.decode(&[(0, 1)]).unwrap();
    let table = model.session().profile(false).unwrap();
    assert_eq!(table.calls, 3);
    assert_eq!(table.rows.iter().map(|r| r.total).sum::<std::time::Duration>(), table.total);
    assert!((table.rows.iter().map(|r| r.share).sum::<f64>() - 1.0).abs() < 1e-9);
    let head = table.rows.iter().find(|r| r.name == "head").unwrap();
    assert_eq!((head.calls, head.kind.as_str()), (3, "dot"));
    let last: Vec<&str> = table.rows.iter().rev().take(2).map(|r| r.name.as_str()).collect();
    assert_eq!(last, ["rest", "waiting"]);
    let grouped = model.session().profile(true).unwrap();
    assert!(grouped.rows.iter().any(|r| r.name == "layers.*.attn.o"));
    model.session_mut().clear_profile();
    assert_eq!(model.session().profile(false).unwrap().calls, 0);
}

#[test]
fn argmax_is_the_first_of_the_largest() {
    assert_eq!(argmax(&[1.0, 3.0, 3.0, -1.0]), 1);
    assert_eq!(argmax(&[f32::NAN, 1.0, f32::NAN]), 1);
    assert_eq!(argmax(&[]), 0);
    assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), 0);
}
