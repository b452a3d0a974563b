//! What must hold whatever the model: no allocation in a step, as many kernels for two layers as for six, an arena no larger
//! than what lives at once, and rows, seeds, forks, rewinds and neighbours that mean what they say.

mod library;

use library::{Build, MODELS, bits, directory, distance, open, pool, tiers, tolerance};
use llamac::compile;
use llamac::model::{Model, Sizes};
use llamac_ir::{Bounds, DType, Graph};
use llamac_models::synth::Synth;
use llamac_passes::{FusionSet, Options};
use llamac_runtime::sample::{Sampler, SamplingParams};
use llamac_runtime::text::Tokenizer;
use llamac_runtime::{Batch, Generator, Pool, Row, Tier};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting what marked threads ask of it.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread's allocations count: other tests run beside the one that counts.
    static MARKED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if MARKED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread and of a pool's threads while `work` runs.
fn allocations(pool: &Pool, work: impl FnOnce()) -> usize {
    pool.run(&|_| MARKED.set(true));
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    work();
    let counted = ALLOCATIONS.load(Ordering::SeqCst) - before;
    pool.run(&|_| MARKED.set(false));
    counted
}

#[test]
fn a_step_allocates_nothing() {
    let model = open("bard", &Sizes { context: Some(256), chunk: Some(32), slots: Some(2), outputs: Some(2) });
    let prompt: Vec<u32> = (0..50).map(|i| 7 * i % 2000).collect();
    for fusion in [FusionSet::None, FusionSet::All] {
        let build = Build::new(&model, &Options::fusing(fusion));
        for threads in [1, 2] {
            let pool = pool(threads);
            let mut generator = build.generator(&pool, Tier::detect());
            let params = SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.9, seed: 1 };
            let mut sampler = Sampler::new(params, generator.vocab()).expect("valid parameters");
            let mut round = || {
                generator.clear();
                generator.prefill(0, &prompt).expect("a prompt");
                generator.prefill(1, &prompt[..3]).expect("a prompt");
                let mut ids = [3, 4];
                for _ in 0..8 {
                    let logits = generator.decode(&[(0, ids[0]), (1, ids[1])]).expect("a row of each");
                    ids = [sampler.sample(logits.row(0)), sampler.sample(logits.row(1))];
                    let alone = generator.decode(&[(1, ids[0])]).expect("one row");
                    ids[1] = sampler.sample(alone.data);
                }
                generator.rewind(1, 2).expect("tokens to forget");
                generator.fork(0, 1).expect("two slots");
            };
            round();
            let found = allocations(&pool, round);
            assert_eq!(found, 0, "--fusion {fusion}, {threads} threads: allocations after warm-up");
            // The counter does count, on every thread.
            let counted = allocations(&pool, || pool.run(&|_| drop(std::hint::black_box(Box::new(1u64)))));
            assert_eq!(counted, threads);
        }
    }
}

/// A small model of a family with that many layers, in a directory of its own.
fn layers(architecture: &str, layers: usize) -> (tempfile::TempDir, Model) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("given.json");
    let json = serde_json::json!({
        "architectures": [architecture],
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 200,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
    });
    std::fs::write(&config, json.to_string()).expect("a file");
    let synth = Synth::named(config.to_str().expect("a path in UTF-8")).expect("a configuration");
    let target = directory.path().join("model");
    synth.write(&target, 1).expect("weights");
    let model = Model::open(&target, None, &Sizes::default()).expect("a model that opens");
    (directory, model)
}

#[test]
fn kernels_do_not_grow_with_layers() {
    for architecture in ["LlamaForCausalLM", "Olmo2ForCausalLM", "Qwen2ForCausalLM"] {
        let models = [2, 6].map(|n| layers(architecture, n));
        for &fusion in FusionSet::ALL {
            let [(two, steps_two), (six, steps_six)] = models.each_ref().map(|(_, model)| {
                let build = Build::new(model, &Options::fusing(fusion));
                let program = &build.compiled.code.program;
                (program.kernels.len(), program.entries.iter().map(|e| e.steps.len()).sum::<usize>())
            });
            assert_eq!(two, six, "{architecture} --fusion {fusion}: kernels of two and of six layers");
            assert!(two > 0 && steps_six > 2 * steps_two, "{steps_two} and {steps_six} steps");
        }
    }
}

/// The graph of a preset, whose weights nobody has to make for that.
fn preset(name: &str, bounds: Bounds) -> Graph {
    let synth = Synth::preset(name).expect("a preset that reads").expect("a preset");
    llamac_models::import(synth.config(), name, bounds, &|_| Some(DType::BF16)).expect("a graph")
}

fn is_small(graph: Graph, fusion: FusionSet) {
    let name = graph.name.clone();
    let options = Options::fusing(fusion);
    let mut graph = graph;
    compile::run_passes(&mut graph, &options, &mut |_, _, _| std::ops::ControlFlow::Continue(())).expect("passes");
    let plan = compile::plan(&graph, &options).expect("a plan");
    assert!(!plan.entries.is_empty());
    for entry in &plan.entries {
        let (arena, least) = (entry.arena_bytes, entry.arena_lower_bound);
        let at = format!("{name} --fusion {fusion}, {}: {arena} bytes where {least} live at once", entry.name);
        assert!(least > 0 && arena >= least, "{at}");
        assert!(arena as f64 <= 1.05 * least as f64, "{at}");
        // The bound is what it says: the most bytes, in cache lines, that are live between two barriers.
        let stretch = |step: usize| entry.steps[..=step].iter().filter(|s| s.barrier).count();
        let mut live = vec![0; stretch(entry.steps.len() - 1) + 1];
        for buffer in &entry.buffers {
            for bytes in &mut live[stretch(buffer.first)..=stretch(buffer.last)] {
                *bytes += buffer.bytes.next_multiple_of(64);
            }
        }
        assert_eq!(live.into_iter().max(), Some(least), "{at}");
    }
}

#[test]
fn the_arena_is_what_lives_at_once() {
    for &fusion in FusionSet::ALL {
        for name in MODELS {
            for (slots, chunk) in [(1, None), (4, Some(33))] {
                is_small(open(name, &Sizes { slots: Some(slots), chunk, ..Sizes::default() }).graph, fusion);
            }
        }
        is_small(preset("llama-3.2-1b", Bounds { rows: 512, outputs: 1, tokens: 4096, slots: 1 }), fusion);
    }
}

#[test]
fn the_code_of_a_large_model_is_small() {
    for &fusion in FusionSet::ALL {
        let graph = preset("llama-3.2-1b", Bounds { rows: 512, outputs: 1, tokens: 4096, slots: 1 });
        let compiled = compile::compile(graph, &Options::fusing(fusion), false).expect("code");
        let kernels = compiled.code.program.kernels.len();
        assert!((1..60).contains(&kernels), "--fusion {fusion}: {kernels} kernels");
        let weights = compiled.code.weights.total_bytes();
        assert!((2_400_000_000..2_600_000_000).contains(&weights), "1.24 billion bf16 weights once: {weights} bytes");
    }
}

/// Text of a seed, token by token.
fn text(generator: &mut Generator, tokenizer: &Tokenizer, seed: u64) -> String {
    let params = SamplingParams { temperature: 1.0, top_k: 0, top_p: 0.95, seed };
    let mut sampler = Sampler::new(params, generator.vocab()).expect("valid parameters");
    let prompt = tokenizer.encode("JULIET:\n", true).expect("text");
    let mut stream = tokenizer.stream(&prompt).expect("a stream");
    generator.clear();
    let mut id = sampler.sample(generator.prefill(0, &prompt).expect("a prompt"));
    let mut text = String::new();
    for _ in 0..40 {
        text += &stream.push(id).expect("text");
        id = sampler.sample(generator.decode(&[(0, id)]).expect("room for a token").data);
    }
    text + &stream.finish().expect("text")
}

#[test]
fn the_seed_decides_the_text() {
    let model = open("bard", &Sizes { context: Some(128), ..Sizes::default() });
    let build = Build::new(&model, &Options::default());
    let file = model.tokenizer().expect("a tokenizer");
    let mut one = build.generator(&pool(1), Tier::detect());
    let mut two = build.generator(&pool(2), Tier::detect());
    let tokenizer = Tokenizer::from_file(&file, one.vocab()).expect("a tokenizer");
    let texts: Vec<String> = (0..4).map(|seed| text(&mut one, &tokenizer, seed)).collect();
    for (seed, expected) in texts.iter().enumerate() {
        assert_eq!(text(&mut one, &tokenizer, seed as u64), *expected, "seed {seed} again");
        assert_eq!(text(&mut two, &tokenizer, seed as u64), *expected, "seed {seed} with two threads");
        assert_eq!(texts.iter().filter(|t| *t == expected).count(), 1, "seed {seed} and another: {expected}");
    }
}

/// Two slots of a small model.
fn two_slots(name: &str, fusion: FusionSet, pool: &Arc<Pool>) -> (Generator, f64) {
    let model = open(name, &Sizes { context: Some(64), chunk: Some(32), slots: Some(2), outputs: Some(3) });
    let generator = Build::new(&model, &Options::fusing(fusion)).generator(pool, Tier::detect());
    (generator, tolerance(&model.graph))
}

fn wide(logits: &[f32]) -> Vec<f64> {
    logits.iter().map(|&x| f64::from(x)).collect()
}

const FUSIONS: [FusionSet; 2] = [FusionSet::None, FusionSet::All];

#[test]
fn a_fork_goes_on_like_its_origin() {
    let pool = pool(1);
    for name in MODELS {
        for fusion in FUSIONS {
            let (mut generator, _) = two_slots(name, fusion, &pool);
            let prompt: Vec<u32> = (1..20).map(|i| 13 * i % 300).collect();
            // The other slot held something else, and more of it.
            generator.prefill(1, &[9; 30]).expect("a prompt");
            generator.prefill(0, &prompt).expect("a prompt");
            generator.fork(0, 1).expect("two slots");
            assert_eq!(generator.len(1).expect("a slot"), prompt.len());
            for token in [5, 6, 7] {
                let origin = generator.decode(&[(0, token)]).expect("room").data.to_vec();
                let fork = generator.decode(&[(1, token)]).expect("room").data.to_vec();
                assert_eq!(bits(&fork), bits(&origin), "{name} --fusion {fusion}");
            }
            // They are two from here on.
            generator.decode(&[(1, 8)]).expect("room");
            let origin = generator.decode(&[(0, 9)]).expect("room").data.to_vec();
            let fork = generator.decode(&[(1, 9)]).expect("room").data.to_vec();
            assert_ne!(bits(&fork), bits(&origin), "{name} --fusion {fusion}: slots that differ");
        }
    }
}

#[test]
fn what_was_rewound_leaves_no_trace() {
    let pool = pool(1);
    for name in MODELS {
        for fusion in FUSIONS {
            let (mut generator, _) = two_slots(name, fusion, &pool);
            let prompt: Vec<u32> = (1..12).map(|i| 17 * i % 300).collect();
            let mut fresh = vec![];
            for again in [false, true] {
                if again {
                    generator.prefill(0, &[250; 20]).expect("a prompt");
                    generator.rewind(0, prompt.len()).expect("tokens to forget");
                } else {
                    generator.prefill(0, &prompt).expect("a prompt");
                }
                let first = generator.prefill(0, &[1, 2, 3, 4, 5]).expect("a prompt").to_vec();
                let second = generator.decode(&[(0, 6)]).expect("room").data.to_vec();
                let found = [bits(&first), bits(&second)];
                if again {
                    assert_eq!(found[..], fresh[..], "{name} --fusion {fusion}");
                } else {
                    fresh = found.to_vec();
                    generator.rewind(0, prompt.len()).expect("tokens to forget");
                }
            }
            // Rows may begin before the end of a slot, too.
            let held = generator.len(0).expect("a slot");
            let rows = [Row { slot: 0, token: 6, position: held - 1 }];
            let found = generator.step_rows(&rows, &[0]).expect("a step").data.to_vec();
            assert_eq!(bits(&found), fresh[1], "{name} --fusion {fusion}: the last row again");
            assert_eq!(generator.len(0).expect("a slot"), held);
        }
    }
}

#[test]
fn rows_of_one_slot_know_nothing_of_another() {
    let pool = pool(2);
    for name in MODELS {
        for fusion in FUSIONS {
            let at = format!("{name} --fusion {fusion}");
            let (mut generator, tolerance) = two_slots(name, fusion, &pool);
            let prompt: Vec<u32> = (1..10).map(|i| 11 * i % 300).collect();
            let history: Vec<u32> = (1..17).map(|i| 19 * i % 300).collect();
            // Apart: a prompt in slot 0, a token after a history in slot 1.
            let alone = generator.prefill(0, &prompt).expect("a prompt").to_vec();
            generator.prefill(1, &history).expect("a prompt");
            let decoded = generator.decode(&[(1, 77)]).expect("room").data.to_vec();
            // Together: in one step.
            let mut mixed = |history: &[u32], last: u32| {
                generator.clear();
                generator.prefill(1, history).expect("a prompt");
                let place = |(i, &token): (usize, &u32)| Row { slot: 0, token, position: i };
                let mut rows: Vec<Row> = prompt.iter().enumerate().map(place).collect();
                rows.push(Row { slot: 1, token: last, position: history.len() });
                let logits = generator.step_rows(&rows, &[prompt.len() - 1, prompt.len()]).expect("a mixed step");
                [logits.row(0).to_vec(), logits.row(1).to_vec()]
            };
            let together = mixed(&history, 77);
            for (found, expected, what) in [(&together[0], &alone, "prompt"), (&together[1], &decoded, "token")] {
                let error = distance(found, &wide(expected));
                assert!(error <= tolerance, "{at}: {what} in a mixed step: {error:e}");
            }
            // What the other rows hold changes no bit.
            let other = mixed(&[250; 16], 78);
            assert_eq!(bits(&other[0]), bits(&together[0]), "{at}: the prompt beside other rows");
            assert_ne!(bits(&other[1]), bits(&together[1]), "{at}: another history");
        }
    }
}

#[test]
fn a_prompt_that_may_be_stopped_is_the_prompt_and_asks_for_one_row_of_logits() {
    let ids = [5u32, 100, 31, 7, 9, 2, 77, 8, 14, 3];
    for (name, chunk) in [("tiny-llama31", 4), ("tiny-llama31", 64), ("stories260K", 1)] {
        let model = open(name, &Sizes { context: Some(64), chunk: Some(chunk), ..Sizes::default() });
        let build = Build::new(&model, &Options::default());
        let mut generator = build.generator(&pool(1), Tier::detect());
        generator.prefill(0, &ids[..2]).unwrap();
        let want = bits(generator.prefill(0, &ids).unwrap());
        generator.rewind(0, 2).unwrap();
        let mut asked = 0;
        let whole = generator.prefill_while(0, &ids, || {
            asked += 1;
            true
        });
        let found = whole.unwrap().map(bits);
        assert_eq!((asked, found), (ids.len().div_ceil(chunk) - 1, Some(want)), "{name} by {chunk}");
        if asked == 0 {
            continue;
        }
        // Stopped after the first chunk, which had no head but where steps are of single rows.
        generator.rewind(0, 2).unwrap();
        assert_eq!(generator.prefill_while(0, &ids, || false), Ok(None));
        assert_eq!(generator.len(0), Ok(2 + chunk));
        assert_eq!(generator.logits().rows(), usize::from(chunk == 1));
    }
    let model = open("stories260K", &Sizes { context: Some(8), ..Sizes::default() });
    let mut generator = Build::new(&model, &Options::default()).generator(&pool(1), Tier::detect());
    for wrong in [&[][..], &ids, &[1 << 30]] {
        let refusal = generator.prefill_while(0, wrong, || true).map(|_| ()).unwrap_err();
        assert_eq!(Err(refusal), generator.prefill(0, wrong).map(|_| ()));
        assert_eq!(generator.len(0), Ok(0), "nothing has run");
    }
}

/// A sequence of a batch: tokens of its prompt, and how many come after it.
type Length = (usize, usize);

const MINE: Length = (40, 14);

/// The logits of each step of a sequence in a batch with so many places. The first neighbour's prompt runs before its own, the
/// others' after it; who is done leaves the place to the next.
fn beside(generator: &mut Generator, places: usize, neighbours: &[Length]) -> Vec<Vec<u32>> {
    let vocab = generator.vocab();
    let mut batch = Batch::new(generator, places).expect("places");
    let mut left = vec![0; places];
    let add = |batch: &mut Batch, left: &mut [usize], (prompt, count): Length, salt: u32| {
        let ids: Vec<u32> = (0..prompt as u32).map(|i| (i * i + 7 * i + 31 * salt) % 500).collect();
        let greedy = SamplingParams { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
        let slots = batch.add(&ids, vec![Sampler::new(greedy, vocab).expect("parameters")]).expect("a place");
        left[slots[0]] = count;
        slots[0]
    };
    let mut waiting = neighbours.iter().zip(1..);
    if let Some((&length, salt)) = waiting.next() {
        add(&mut batch, &mut left, length, salt);
    }
    let mine = add(&mut batch, &mut left, MINE, 0);
    let mut seen = vec![];
    loop {
        while batch.free() > 0
            && let Some((&length, salt)) = waiting.next()
        {
            add(&mut batch, &mut left, length, salt);
        }
        let of_prompts = batch.waiting() > 0;
        let chosen = batch.step().expect("a step").to_vec();
        for (row, c) in chosen.iter().enumerate() {
            if c.slot == mine {
                // Rows of a step of prompts come in another order than what was chosen.
                seen.push(if of_prompts { vec![c.token] } else { bits(batch.generator().logits().row(row)) });
            }
            left[c.slot] -= 1;
            if left[c.slot] == 0 {
                batch.remove(c.slot).expect("a sequence");
            }
        }
        if left[mine] == 0 {
            return seen;
        }
    }
}

/// Neither how many neighbours a sequence has, nor how long they are, nor when they end shows in a bit of its logits: kernels that
/// round otherwise are chosen by the number of places. That holds where rows go to tiles from a number on, too.
#[test]
fn a_sequence_of_a_batch_knows_nothing_of_its_neighbours() {
    let sizes = Sizes { context: Some(150), chunk: Some(32), slots: Some(6), outputs: Some(6) };
    let quantised = directory("bard.gguf").join("bard-q4_0.gguf");
    let models = [open("bard", &sizes), Model::open(&quantised, None, &sizes).expect("a model that opens")];
    let neighbours: [&[Length]; 4] = [
        &[(3, 100); 5],
        &[(1, 1)],
        &[(70, 5), (3, 2), (1, 1), (20, 9), (33, 3), (2, 4), (120, 7), (5, 30), (5, 1)],
        &[(31, 2), (9, 3), (100, 40)],
    ];
    let pool = pool(1);
    for model in &models {
        for fusion in FUSIONS {
            let build = Build::new(model, &Options::fusing(fusion));
            for tier in tiers() {
                for places in [2, 6] {
                    let mut generator = build.generator(&pool, tier);
                    let alone = beside(&mut generator, places, &[]);
                    assert_eq!(alone.len(), MINE.1);
                    for others in neighbours {
                        let found = beside(&mut generator, places, others);
                        let same = (0..MINE.1).take_while(|&i| found[i] == alone[i]).count();
                        let at = format!("{} --fusion {fusion} {tier}, {places} places", model.name);
                        assert_eq!(same, MINE.1, "{at}, beside {others:?}: logits before the first that differ");
                    }
                }
            }
        }
    }
}
