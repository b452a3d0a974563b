use super::*;
use crate::Pool;
use crate::testing::{Buffer, Numbers, assert_close, bits};
use crate::tiers::tests::available;
use half::bf16;
use llamac_formats::q8;

/// What a cache may hold.
const TYPES: [DType; 3] = [DType::F32, DType::BF16, DType::Q8];

/// A shape: key-value heads, query heads of each, width of a head, tokens of a slot's room.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    tokens: usize,
}

/// Rows of a step: slot and positions, segment after segment.
type Rows<'a> = &'a [(usize, &'a [i32])];

/// One problem: queries, caches with not-a-numbers wherever nothing may be read.
#[derive(Clone)]
struct Problem {
    shape: Shape,
    dtype: DType,
    act: DType,
    segments: Vec<Segment>,
    rows_like: usize,
    positions: Vec<i32>,
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scale: f32,
}

impl Problem {
    /// The problem with f32 caches, and with each other type that heads so wide can have.
    fn of_all_types(shape: Shape, slots: usize, rows: Rows, numbers: &mut Numbers) -> Vec<Problem> {
        let problem = Problem::new(shape, slots, rows, numbers);
        let types = TYPES.into_iter().filter(|t| is_cache(*t, shape.head_dim));
        types.map(|dtype| problem.stored_as(dtype)).collect()
    }

    /// The same with caches of another type, whose elements are what is left of the numbers.
    fn stored_as(&self, dtype: DType) -> Problem {
        let stored = |x: &[f32]| match dtype {
            DType::BF16 => x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
            DType::Q8 => blocks(x).iter().flat_map(q8::decode).collect(),
            _ => x.to_vec(),
        };
        let (segments, positions) = (self.segments.clone(), self.positions.clone());
        let (keys, values) = (stored(&self.keys), stored(&self.values));
        Problem { dtype, segments, positions, q: self.q.clone(), keys, values, ..*self }
    }

    /// A cache's bytes, in whole words for their alignment.
    fn bytes(&self, x: &[f32]) -> Vec<u32> {
        let bytes: Vec<u8> = match self.dtype {
            DType::BF16 => x.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            DType::Q8 => blocks(x).concat(),
            _ => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        bytes.chunks(4).map(|b| u32::from_ne_bytes(std::array::from_fn(|i| b.get(i).copied().unwrap_or(0)))).collect()
    }

    fn new(shape: Shape, slots: usize, rows: Rows, numbers: &mut Numbers) -> Problem {
        let mut segments = Vec::new();
        let mut positions = Vec::new();
        let mut cache = vec![f32::NAN; slots * shape.kv_heads * shape.tokens * shape.head_dim];
        let mut keys = cache.clone();
        for (slot, seen) in rows {
            let row_begin = positions.len();
            positions.extend_from_slice(seen);
            segments.push(Segment { slot: *slot, row_begin, row_end: positions.len() });
            let present = *seen.last().unwrap() as usize + 1;
            for head in 0..shape.kv_heads {
                let begin = (slot * shape.kv_heads + head) * shape.tokens * shape.head_dim;
                for i in begin..begin + present * shape.head_dim {
                    keys[i] = numbers.real();
                    cache[i] = numbers.real();
                }
            }
        }
        let q = numbers.reals(positions.len() * shape.kv_heads * shape.group * shape.head_dim);
        // Scores of several units, so that the maximum matters.
        let scale = 6.0 / (shape.head_dim as f32).sqrt();
        Problem {
            shape,
            dtype: DType::F32,
            act: DType::F32,
            segments,
            rows_like: 0,
            positions,
            q,
            keys,
            values: cache,
            scale,
        }
    }

    fn reference(&self) -> Vec<f64> {
        let Shape { kv_heads, group, head_dim, tokens } = self.shape;
        let mut out = Vec::new();
        for segment in &self.segments {
            for row in segment.row_begin..segment.row_end {
                for head in 0..kv_heads * group {
                    let q = &self.q[(row * kv_heads * group + head) * head_dim..][..head_dim];
                    let at = |t: usize| ((segment.slot * kv_heads + head / group) * tokens + t) * head_dim;
                    let seen = 0..=self.positions[row] as usize;
                    let score = |t: usize| -> f64 {
                        let key = &self.keys[at(t)..][..head_dim];
                        q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                            * f64::from(self.scale)
                    };
                    let scores: Vec<f64> = seen.map(score).collect();
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                    for d in 0..head_dim {
                        let terms = scores.iter().enumerate();
                        let value = |t: usize| f64::from(self.values[at(t) + d]);
                        out.push(terms.map(|(t, s)| (s - max).exp() * value(t)).sum::<f64>() / sum);
                    }
                }
            }
        }
        out
    }

    fn run(&self, tier: Tier, threads: usize) -> Vec<f32> {
        let Shape { kv_heads, group, head_dim, tokens } = self.shape;
        let strides = [kv_heads * group * head_dim, group * head_dim, head_dim, 1];
        let (q, out) = (Buffer::of(&self.q), Buffer::new(self.q.len()));
        let (keys, values) = (self.bytes(&self.keys), self.bytes(&self.values));
        let partials = Buffer::new(shared_scratch(tokens, self.segments.len(), kv_heads, group, head_dim));
        Pool::new(threads).unwrap().run(&|worker| {
            let args = AttentionArgs {
                tier,
                q: View::new(q.get(), strides),
                out: View::new(out.get(), strides),
                keys: keys.as_ptr().cast(),
                values: values.as_ptr().cast(),
                dtype: self.dtype,
                act: self.act,
                tokens,
                positions: self.positions.as_ptr(),
                segments: &self.segments,
                rows_like: self.rows_like,
                kv_heads,
                group,
                head_dim,
                scale: self.scale,
                partials: partials.get(),
            };
            // SAFETY: the buffers have the sizes given.
            unsafe { attention(worker, &args, &mut vec![f32::NAN; thread_scratch(head_dim, self.act)]) };
        });
        partials.values();
        out.values()
    }

    fn check(&self) {
        let want = self.reference();
        for tier in available() {
            let got = self.run(tier, 1);
            assert_close(&got, &want, 1.0, 5e-6, &self.at(tier));
            for threads in 2..=3 {
                assert_eq!(bits(&self.run(tier, threads)), bits(&got), "{}, {threads} threads", self.at(tier));
            }
        }
    }

    fn at(&self, tier: Tier) -> String {
        format!("{tier} {} {:?} {:?}", self.dtype, self.shape, self.segments)
    }
}

/// Numbers in blocks of eight-bit integers; blocks with no numbers have no number for their scale.
fn blocks(x: &[f32]) -> Vec<[u8; q8::BYTES]> {
    let encoded = x.as_chunks().0.iter().map(|x| {
        let mut block = [0; q8::BYTES];
        q8::encode(x, &mut block);
        block
    });
    encoded.collect()
}

/// Checks a problem with every type of cache. What a cache holds is read exactly, so all are as near as f32.
fn check(shape: Shape, slots: usize, rows: Rows, numbers: &mut Numbers) {
    Problem::of_all_types(shape, slots, rows, numbers).iter().for_each(Problem::check);
}

#[test]
fn any_head_and_group() {
    let mut numbers = Numbers::new(1);
    for head_dim in [1, 5, 8, 16, 20, 32, 48, 64, 128] {
        for (kv_heads, group) in [(1, 1), (2, 3), (1, 4), (3, 8)] {
            let shape = Shape { kv_heads, group, head_dim, tokens: 40 };
            let positions: Vec<i32> = (0..19).collect();
            check(shape, 1, &[(0, &positions)], &mut numbers);
        }
    }
}

#[test]
fn a_group_wider_than_a_tile() {
    let shape = Shape { kv_heads: 2, group: 71, head_dim: 8, tokens: 700 };
    check(shape, 1, &[(0, &[0, 1, 2])], &mut Numbers::new(2));
    check(shape, 1, &[(0, &[680])], &mut Numbers::new(2));
}

#[test]
fn prefill_in_two_chunks() {
    let shape = Shape { kv_heads: 2, group: 4, head_dim: 32, tokens: 300 };
    let mut numbers = Numbers::new(3);
    let all: Vec<i32> = (0..300).collect();
    check(shape, 1, &[(0, &all[..170])], &mut numbers);
    check(shape, 1, &[(0, &all[170..])], &mut numbers);
}

#[test]
fn mixed_batches() {
    let shape = Shape { kv_heads: 2, group: 2, head_dim: 16, tokens: 200 };
    let prefill: Vec<i32> = (64..131).collect();
    let rows: Rows = &[(3, &[70]), (0, &prefill), (5, &[0]), (1, &[63]), (2, &[64, 65, 128]), (4, &[199])];
    check(shape, 7, rows, &mut Numbers::new(4));
}

#[test]
fn a_single_row_with_few_and_many_tokens() {
    let mut numbers = Numbers::new(5);
    for position in [0, 1, 62, 63, 64, 511, 512, 513, 1023, 1024, 1500] {
        let shape = Shape { kv_heads: 2, group: 3, head_dim: 24, tokens: 1501 };
        check(shape, 2, &[(1, &[position])], &mut numbers);
    }
    for (group, head_dim) in [(1, 48), (2, 7), (4, 64), (5, 33), (7, 128), (8, 20)] {
        let shape = Shape { kv_heads: 2, group, head_dim, tokens: 700 };
        check(shape, 2, &[(1, &[77])], &mut numbers);
        check(shape, 2, &[(0, &[650])], &mut numbers);
        check(shape, 2, &[(0, &[69]), (1, &[99])], &mut numbers);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let shape = Shape { kv_heads: 1, group: 2, head_dim: 16, tokens: 600 };
    let mut problem = Problem::new(shape, 1, &[(0, &[599])], &mut Numbers::new(6));
    problem.scale = 200.0;
    let want = problem.reference();
    for tier in available() {
        // Errors of the scores, a few units in the last place of a thousand, are what the exponential sees.
        assert_close(&problem.run(tier, 2), &want, 1.0, 2e-3, tier.name());
    }
}

#[test]
fn no_rows() {
    let shape = Shape { kv_heads: 1, group: 2, head_dim: 16, tokens: 6 };
    let problem = Problem::new(shape, 1, &[], &mut Numbers::new(7));
    assert!(problem.run(Tier::detect(), 2).is_empty());
}

#[test]
fn a_single_row_does_not_depend_on_the_step_that_it_is_in() {
    let shape = Shape { kv_heads: 2, group: 3, head_dim: 32, tokens: 1400 };
    let mut numbers = Numbers::new(8);
    let many: Vec<i32> = (3..80).collect();
    let rows: Rows = &[(1, &[1300]), (0, &many), (2, &[520]), (3, &[2])];
    for problem in Problem::of_all_types(shape, 4, rows, &mut numbers) {
        for tier in available() {
            let together = problem.run(tier, 2);
            for segment in problem.segments.iter().filter(|s| s.rows() == 1) {
                let width = problem.q.len() / problem.positions.len();
                let row = segment.row_begin;
                let alone = Problem {
                    segments: vec![Segment { row_begin: 0, row_end: 1, ..*segment }],
                    positions: vec![problem.positions[row]],
                    q: problem.q[row * width..][..width].to_vec(),
                    keys: problem.keys.clone(),
                    values: problem.values.clone(),
                    ..problem
                };
                let want = &together[row * width..][..width];
                assert_eq!(bits(&alone.run(tier, 1)), bits(want), "{}", alone.at(tier));
            }
        }
    }
}

#[test]
fn products_of_bf16_on_tiles() {
    if !Tier::Amx.available() {
        eprintln!("skipped: this machine has no tile registers");
        return;
    }
    let mut numbers = Numbers::new(9);
    let round = |x: f32| bf16::from_f32(x).to_f32();
    let whole: Vec<i32> = (0..200).collect();
    let later: Vec<i32> = (100..190).collect();
    let rows: [Rows; 3] = [&[(0, &whole)], &[(0, &later)], &[(1, &later), (0, &[150]), (2, &whole[..9])]];
    for (kv_heads, group, head_dim) in [(2, 4, 64), (1, 1, 32), (2, 3, 20), (1, 8, 128), (1, 5, 96)] {
        for rows in rows {
            let shape = Shape { kv_heads, group, head_dim, tokens: 210 };
            for mut problem in Problem::of_all_types(shape, 3, rows, &mut numbers) {
                problem.act = DType::BF16;
                let got = problem.run(Tier::Amx, 1);
                for threads in 2..=3 {
                    assert_eq!(bits(&problem.run(Tier::Amx, threads)), bits(&got), "{threads} threads");
                }
                // Other tiers round nothing.
                let wide = problem.stored_as(problem.dtype);
                assert_eq!(bits(&wide.run(Tier::Portable, 1)), {
                    problem.act = DType::F32;
                    bits(&problem.run(Tier::Portable, 1))
                });
                // Against operands rounded as they are, what is left are exponentials rounded to eight bits: 2⁻⁹ of each,
                // and less of their mean. Where few lines go through vectors nothing was rounded, so that the difference
                // of the roundings of the operands is allowed for as well: 2⁻⁹ of scores of up to forty.
                let factor = problem.scale * tiles::BASE;
                problem.q.iter_mut().for_each(|q| *q = round(*q * factor));
                problem.scale = std::f32::consts::LN_2;
                problem.keys.iter_mut().for_each(|x| *x = round(*x));
                problem.values.iter_mut().for_each(|x| *x = round(*x));
                let want = problem.reference();
                let width = problem.q.len() / problem.positions.len();
                for segment in &problem.segments {
                    let of = segment.row_begin * width..segment.row_end * width;
                    let tiles = segment.rows() * group >= 32 && segment.rows() > 1;
                    let tolerance = if tiles { 4e-3 } else { 6e-2 };
                    assert_close(&got[of.clone()], &want[of], 1.0, tolerance, &problem.at(Tier::Amx));
                }
            }
        }
    }
}

impl Problem {
    /// The same rows of a single segment from `begin` to before `end`, as a step of their own that is taken for the whole; of tokens
    /// that none of them sees no key and no value is a number.
    fn part(&self, begin: usize, end: usize) -> Problem {
        let [segment] = self.segments[..] else { panic!("several segments") };
        let width = self.q.len() / self.positions.len();
        let mut part = self.clone();
        part.segments = vec![Segment { row_begin: 0, row_end: end - begin, ..segment }];
        part.positions = self.positions[begin..end].to_vec();
        part.q = self.q[begin * width..end * width].to_vec();
        part.rows_like = self.positions.len();
        let seen = self.positions[end - 1] as usize + 1;
        part.change_after(seen, |_| f32::NAN);
        part
    }

    /// Changes keys and values from token `first` on.
    fn change_after(&mut self, first: usize, change: impl Fn(f32) -> f32) {
        let Shape { head_dim, tokens, .. } = self.shape;
        for cache in [&mut self.keys, &mut self.values] {
            for head in cache.chunks_exact_mut(tokens * head_dim) {
                head[first * head_dim..].iter_mut().for_each(|x| *x = change(*x));
            }
        }
    }
}

/// Rows after a row change nothing of it: not what they hold, be it as large as can be, and not whether they are there. On vectors
/// and on tiles, as long as the same kernel is asked for.
#[test]
fn a_row_knows_nothing_of_later_rows() {
    let mut numbers = Numbers::new(10);
    let positions: Vec<i32> = (5..155).collect();
    for (kv_heads, group, head_dim) in [(2, 4, 32), (1, 1, 64), (1, 3, 128)] {
        let shape = Shape { kv_heads, group, head_dim, tokens: 160 };
        let problem = Problem::new(shape, 1, &[(0, &positions)], &mut numbers);
        let width = kv_heads * group * head_dim;
        let types = TYPES.into_iter().filter(|t| is_cache(*t, head_dim));
        for (dtype, act) in types.flat_map(|dtype| [(dtype, DType::F32), (dtype, DType::BF16)]) {
            let mut whole = problem.stored_as(dtype);
            whole.act = act;
            // Only tiles make use of narrow products.
            for tier in available().filter(|tier| act == DType::F32 || *tier == Tier::Amx) {
                let want = whole.run(tier, 1);
                for rows in [1, 40, 59, 123] {
                    let at = format!("{} act {act}, {rows} rows", whole.at(tier));
                    let want_of = |begin: usize, end: usize| bits(&want[begin * width..end * width]);
                    let mut huge = whole.clone();
                    huge.change_after(positions[rows - 1] as usize + 1, |x| x * 1e37);
                    huge.q[rows * width..].iter_mut().for_each(|q| *q *= -1e3);
                    assert_eq!(bits(&huge.run(tier, 2)[..rows * width]), want_of(0, rows), "{at}: others after them");
                    assert_eq!(bits(&whole.part(0, rows).run(tier, 2)), want_of(0, rows), "{at}: none after them");
                    let rest = whole.part(rows, positions.len()).run(tier, 2);
                    assert_eq!(bits(&rest), want_of(rows, positions.len()), "{at}: the others in a step of their own");
                }
            }
        }
    }
}
