//! Compiled code against Hugging Face transformers in f64: every model with a golden, every `--fusion`, prompts in one
//! chunk, in chunks of 7 and row by row, one slot alone and two slots interleaved in ragged batches; fused, in every tier. With
//! activations and caches of f32, and apart from that with those of the default and with narrow caches, within what they cost.

mod library;

use library::{
    Build, Case, Golden, bits, directory, distance, exact, golden_text, open, options, pool, tiers, tolerance,
};
use llamac::model::Sizes;
use llamac_passes::{Activations, CacheType, FusionSet, Options};
use llamac_runtime::sample::argmax;
use llamac_runtime::sample::{Sampler, SamplingParams};
use llamac_runtime::text::Tokenizer;
use llamac_runtime::{Generator, Row, Tier};

/// Longer than every prompt, so that a prompt can be one chunk.
const CHUNK: usize = 1024;
/// Where the reference's two likeliest tokens are closer than this, either may come out.
const GAP: f64 = 1e-3;

/// Rows that a slot adds to a ragged step while its prompt lasts: slots fall out of step with each other, and with tiles.
const RAGGED: [usize; 5] = [3, 1, 17, 5, 8];

/// A model in one build, and what is allowed of it.
struct Judge {
    generator: Generator,
    tolerance: f64,
    at: String,
}

impl Judge {
    fn agrees(&self, logits: &[f32], case: &Case, how: &str) {
        let found = distance(logits, &case.logits_last);
        assert!(found <= self.tolerance, "{}, {how}: relative error {found:e} of the last logits", self.at);
    }

    /// A prompt in chunks, then the greedy continuation token by token.
    fn alone(&mut self, case: &Case, slot: usize, chunk: usize) {
        let how = format!("prompt of {} in chunks of {chunk}", case.ids.len());
        self.generator.clear();
        self.generator.set_chunk(chunk);
        let logits = self.generator.prefill(slot, &case.ids).expect("a prompt that fits").to_vec();
        self.agrees(&logits, case, &how);
        let mut next = argmax(&logits);
        for (i, &want) in case.greedy.iter().enumerate() {
            assert_eq!(next, want, "{}, {how}: greedy token {i}", self.at);
            if i + 1 < case.greedy.len() {
                next = argmax(self.generator.decode(&[(slot, next)]).expect("room for a token").row(0));
            }
        }
    }

    /// The likeliest token at every position of the prompt.
    fn positions(&mut self, case: &Case) {
        self.generator.clear();
        self.generator.set_chunk(CHUNK);
        let mut seen = 0;
        let at = &self.at;
        let each = |i: usize, logits: &[f32]| {
            assert_eq!(i, seen, "{at}: logits come in order");
            seen += 1;
            let (found, want) = (argmax(logits) as usize, case.argmax_per_position[i]);
            assert!(found == want || case.gap_per_position[i] <= GAP, "{at}: position {i}: {found}, not {want}");
        };
        self.generator.score(0, &case.ids, each).expect("a prompt that fits");
        assert_eq!(seen, case.ids.len(), "{at}: logits at every position");
    }

    /// Two cases in one batch: while prompts last, ragged steps hold some rows of each; then a row of each.
    fn together(&mut self, cases: [&Case; 2]) {
        self.generator.clear();
        // What each slot has not been fed yet, and what it generated.
        let mut left = cases.map(|c| c.ids.clone());
        let mut generated: [Vec<u32>; 2] = [vec![], vec![]];
        for turn in 0.. {
            let mut order = [0, 1];
            order.rotate_left(turn % 2);
            let (mut rows, mut outputs, mut wanted) = (vec![], vec![], vec![]);
            for slot in order {
                let take = RAGGED[(turn + 2 * slot) % RAGGED.len()].min(left[slot].len());
                let held = self.generator.len(slot).expect("a slot");
                for (i, token) in left[slot].drain(..take).enumerate() {
                    rows.push(Row { slot, token, position: held + i });
                }
                if take > 0 && left[slot].is_empty() {
                    outputs.push(rows.len() - 1);
                    wanted.push(slot);
                }
            }
            if rows.is_empty() {
                break;
            }
            let decode: Vec<(usize, u32)> = rows.iter().map(|r| (r.slot, r.token)).collect();
            let logits = if outputs.len() == rows.len() {
                self.generator.decode(&decode).expect("a row of each")
            } else {
                self.generator.step_rows(&rows, &outputs).expect("a ragged step")
            };
            let logits: Vec<Vec<f32>> = (0..wanted.len()).map(|i| logits.row(i).to_vec()).collect();
            for (slot, logits) in wanted.into_iter().zip(logits) {
                if generated[slot].is_empty() {
                    self.agrees(&logits, cases[slot], &format!("slot {slot} of two"));
                }
                generated[slot].push(argmax(&logits));
                if generated[slot].len() < cases[slot].greedy.len() {
                    left[slot].extend(generated[slot].last());
                }
            }
        }
        for slot in [0, 1] {
            assert_eq!(generated[slot], cases[slot].greedy, "{}, slot {slot} of two: greedy tokens", self.at);
        }
    }
}

fn check(name: &str) {
    let golden = Golden::read(name);
    let model = open(name, &Sizes { context: None, chunk: Some(CHUNK), slots: Some(2), outputs: Some(8) });
    let tolerance = tolerance(&model.graph);
    for &fusion in FusionSet::ALL {
        // That threads change nothing is for other tests: many of them on a busy machine wait for each other.
        let pool = pool(if fusion == FusionSet::All { 2 } else { 1 });
        let build = Build::new(&model, &exact(fusion));
        let others = tiers().into_iter().filter(|&t| t != Tier::detect() && fusion == FusionSet::All);
        for tier in std::iter::once(Tier::detect()).chain(others) {
            let generator = build.generator(&pool, tier);
            let at = format!("{name} --fusion {fusion} --tier {}", tier.name());
            let mut judge = Judge { generator, tolerance, at };
            for case in &golden.cases {
                judge.alone(case, 0, CHUNK);
                judge.alone(case, 1, 7);
                judge.alone(case, 0, 1);
                judge.positions(case);
            }
            // The shortest beside the longest.
            let n = golden.cases.len();
            for i in 0..n.div_ceil(2) {
                judge.together([&golden.cases[i], &golden.cases[n - 1 - i]]);
            }
        }
    }
}

#[test]
fn bard() {
    check("bard");
}

#[test]
fn stories() {
    check("stories260K");
}

#[test]
fn tiny_llama2() {
    check("tiny-llama2");
}

#[test]
fn tiny_llama31() {
    check("tiny-llama31");
}

#[test]
fn tiny_olmo2() {
    check("tiny-olmo2");
}

/// A program for single rows has no entry but `decode`; prompts go through it row by row.
#[test]
fn steps_of_one_row_at_most() {
    let pool = pool(1);
    for name in library::MODELS {
        let golden = Golden::read(name);
        let model = open(name, &Sizes { chunk: Some(1), ..Sizes::default() });
        for &fusion in FusionSet::ALL {
            let build = Build::new(&model, &exact(fusion));
            let entries: Vec<&str> = build.compiled.code.program.entries.iter().map(|e| e.name.as_str()).collect();
            assert_eq!(entries, ["decode"], "{name}");
            let at = format!("{name} --fusion {fusion} --chunk 1");
            let generator = build.generator(&pool, Tier::detect());
            let mut judge = Judge { generator, tolerance: tolerance(&model.graph), at };
            for case in golden.cases.iter().take(2) {
                judge.alone(case, 0, CHUNK);
                judge.positions(case);
            }
        }
    }
}

/// The story that llama2.c publishes for this model, greedily from the begin token alone, as a stream shows it.
#[test]
fn stories_to_the_letter() {
    let expected = golden_text("stories260K.expected.txt");
    let model = open("stories260K", &Sizes::default());
    let pool = pool(1);
    for &fusion in FusionSet::ALL {
        let mut generator = Build::new(&model, &exact(fusion)).generator(&pool, Tier::detect());
        let file = directory("stories260K").join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&file, generator.vocab()).expect("a tokenizer");
        let mut sampler = Sampler::new(SamplingParams::GREEDY, generator.vocab()).expect("greedy choice");
        let prompt = [model.bos().expect("a begin token")];
        let mut stream = tokenizer.stream(&prompt).expect("a stream");
        let mut text = String::new();
        let mut logits = generator.prefill(0, &prompt).expect("a prompt");
        for _ in 0..STORY_TOKENS {
            let id = sampler.sample(logits);
            text += &stream.push(id).expect("text");
            logits = generator.decode(&[(0, id)]).expect("room for a token").data;
        }
        text += &stream.finish().expect("text");
        assert_eq!(text.trim_end(), expected.trim_end(), "--fusion {fusion}");
    }
}

/// The steps that llama2.c was asked for.
const STORY_TOKENS: usize = 200;

/// What rounding the activations to bf16 may change the last logits by: each rounding is 2⁻⁹ at most, and independent of the
/// others. On tiles attention rounds keys and values as well.
const BF16_TOLERANCE: f64 = 1e-2;

/// The default: bf16 at weights of bf16, in every tier, fused and not; f32 at all others, where nothing is lost.
#[test]
fn default_activations() {
    let mut found_of = vec![];
    for name in library::MODELS {
        let golden = Golden::read(name);
        let model = open(name, &Sizes { context: None, chunk: Some(CHUNK), slots: Some(2), outputs: Some(8) });
        for fusion in [FusionSet::None, FusionSet::All] {
            let build = Build::new(&model, &Options::fusing(fusion));
            let bf16 = ["bard", "tiny-llama31"].contains(&name);
            assert_eq!(build.compiled.code.program.act, if bf16 { "bf16" } else { "f32" }, "{name}");
            let tolerance = if bf16 { BF16_TOLERANCE } else { tolerance(&model.graph) };
            for tier in if fusion == FusionSet::All { tiers() } else { vec![Tier::detect()] } {
                let mut generator = build.generator(&pool(2), tier);
                let mut most: f64 = 0.0;
                for case in &golden.cases {
                    for chunk in [CHUNK, 7, 1] {
                        generator.clear();
                        generator.set_chunk(chunk);
                        let logits = generator.prefill(0, &case.ids).expect("a prompt that fits");
                        most = most.max(distance(logits, &case.logits_last));
                    }
                }
                assert!(most <= tolerance, "{name} --fusion {fusion} --tier {}: {most:e}", tier.name());
                found_of.push((name, bf16, most));
            }
        }
    }
    // Were nothing rounded, nothing would have been tested.
    assert!(found_of.iter().all(|&(_, bf16, most)| !bf16 || most > 1e-4), "{found_of:?}");
}

/// What a narrow cache may change the last logits by: keys and values of bf16 are wrong by 2⁻⁹ at most, those of q8_0 by
/// 1/254 of the largest of 32. The models are small and their logits far apart, so greedy text stays.
fn cache_tolerance(kv: CacheType) -> f64 {
    match kv {
        CacheType::F32 => 1e-5,
        CacheType::Bf16 => 1e-2,
        CacheType::Q8_0 => 2e-2,
    }
}

/// Caches in bf16 and in blocks, alone and rewound; where heads are no whole blocks the cache stays f32 and is said to.
#[test]
fn narrow_caches() {
    for name in library::MODELS {
        let golden = Golden::read(name);
        let model = open(name, &Sizes { context: None, chunk: Some(CHUNK), slots: Some(2), outputs: Some(8) });
        for kv in [CacheType::Bf16, CacheType::Q8_0] {
            let options = options(FusionSet::All, Activations::F32, kv);
            let build = Build::new(&model, &options);
            let program = &build.compiled.code.program;
            let whole = program.states.iter().all(|s| s.dims[3].is_multiple_of(kv.dtype().block().0));
            assert_eq!(program.kv, if whole { kv.name() } else { "f32" }, "{name}");
            let mut generator = build.generator(&pool(2), Tier::detect());
            let at = format!("{name} --kv {kv}");
            for case in &golden.cases {
                generator.clear();
                let logits = generator.prefill(0, &case.ids).expect("a prompt that fits").to_vec();
                let found = distance(&logits, &case.logits_last);
                assert!(found <= cache_tolerance(kv), "{at}: relative error {found:e} of the last logits");
                // What a slot is given of another is the same to the bit.
                let held = case.ids.len();
                generator.fork(0, 1).expect("two slots");
                let last = *case.ids.last().expect("a prompt");
                for slot in [0, 1] {
                    generator.rewind(slot, held - 1).expect("a shorter prompt");
                }
                let again = generator.decode(&[(0, last)]).expect("room for a token").row(0).to_vec();
                let other = generator.decode(&[(1, last)]).expect("room for a token").row(0).to_vec();
                assert_eq!(bits(&again), bits(&other), "{at}: a fork and a rewound slot");
                let found = distance(&again, &case.logits_last);
                assert!(found <= cache_tolerance(kv), "{at}: relative error {found:e} after rewinding");
            }
        }
    }
}
