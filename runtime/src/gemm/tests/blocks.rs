//! Block formats, and activations that are not f32.

use super::*;
use llamac_formats::{BlockFormat, q8};

const ACTS: [DType; 3] = [DType::F32, DType::BF16, DType::Q8];
const ROWS: [usize; 6] = [1, 3, 9, 17, 28, 80];

/// Rows of activations as they lie in memory, in words so that they are aligned.
pub(super) struct Activations {
    act: DType,
    /// Elements from row to row.
    stride: usize,
    words: Vec<u32>,
}

impl Activations {
    pub(super) fn new(act: DType, rows: &[f32], k: usize) -> Activations {
        let stride = k + q8::ELEMENTS;
        let mut bytes = Vec::new();
        for row in rows.chunks_exact(k) {
            let end = bytes.len() + act.storage(stride).unwrap();
            match act {
                DType::F32 => row.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
                DType::BF16 => row.iter().for_each(|x| bytes.extend(half::bf16::from_f32(*x).to_le_bytes())),
                _ => {
                    for x in row.chunks_exact(q8::ELEMENTS) {
                        let mut block = [0; q8::BYTES];
                        q8::encode(x.try_into().unwrap(), &mut block);
                        bytes.extend(block);
                    }
                }
            }
            // Between the rows nothing is a number.
            bytes.resize(end, 0xff);
        }
        let words = bytes.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        Activations { act, stride, words }
    }

    /// What the activations are once they are stored.
    fn values(&self, m: usize, k: usize) -> Vec<f32> {
        let bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut values = vec![0.0; m * k];
        for (row, values) in values.chunks_exact_mut(k).enumerate() {
            let row = &bytes[row * self.act.storage(self.stride).unwrap()..];
            match self.act {
                DType::Q8 => {
                    for (x, block) in values.chunks_exact_mut(q8::ELEMENTS).zip(row.chunks_exact(q8::BYTES)) {
                        x.copy_from_slice(&q8::decode(block.try_into().unwrap()));
                    }
                }
                DType::BF16 => values.iter_mut().zip(row.chunks_exact(2)).for_each(|(x, b)| {
                    *x = half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32();
                }),
                _ => values.iter_mut().zip(row.chunks_exact(4)).for_each(|(x, b)| {
                    *x = f32::from_le_bytes(b.try_into().unwrap());
                }),
            }
        }
        values
    }

    /// Runs a GEMM whose output is rows.
    pub(super) fn times(&self, pool: &Pool, tier: Tier, m: usize, k: usize, segments: &[Segment]) -> Vec<f32> {
        let n: usize = segments.iter().map(|s| s.n).sum();
        self.run(pool, tier, m, k, segments, n, None)
    }

    /// Runs a GEMM with rows of `width` results; `paired` is a kernel that joins the segments.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn run(
        &self,
        pool: &Pool,
        tier: Tier,
        m: usize,
        k: usize,
        segments: &[Segment],
        width: usize,
        paired: Option<EpilogueFn>,
    ) -> Vec<f32> {
        struct Shared<'a>(&'a [Segment], *const u32);
        // SAFETY: the workers only read.
        unsafe impl Sync for Shared<'_> {}
        impl Shared<'_> {
            fn get(&self) -> (&[Segment], *const u32) {
                (self.0, self.1)
            }
        }
        let (out, packed) = (Buffer::new(m * width), Buffer::new(m * k));
        let shared = Shared(segments, self.words.as_ptr());
        pool.run(&|worker| {
            let (segments, a) = shared.get();
            let (buffers, scalars) = ([out.get().cast::<u8>()], [width as u64]);
            let kernel_args = KernelArgs {
                buffers: buffers.as_ptr(),
                scalars: scalars.as_ptr(),
                routines: std::ptr::null(),
                scratch: std::ptr::null_mut(),
            };
            let args = GemmArgs {
                tier,
                act: self.act,
                a: View::new(a.cast_mut().cast(), [self.stride, 1]),
                m,
                rows_like: m,
                k,
                segments,
                output: match paired {
                    Some(kernel) => Output::Epilogue { kernel, args: &kernel_args, paired: true },
                    None => Output::Rows { out: out.get(), stride: width },
                },
                packed: packed.get(),
            };
            let tile = if paired.is_some() { segments.len() } else { 1 };
            let mut scratch = vec![f32::NAN; thread_scratch(self.act, m, k, tile)];
            // SAFETY: the buffers have the sizes given.
            unsafe { gemm(worker, &args, &mut scratch) };
        });
        out.values()
    }
}

/// Squared error over squared reference.
fn nmse(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
    error / want.iter().map(|w| w * w).sum::<f64>()
}

/// What the activations' precision may cost.
fn limit(act: DType) -> f64 {
    match act {
        DType::F32 => 1e-11,
        DType::BF16 => 3e-6,
        _ => 1e-4,
    }
}

/// What may lie between a result and the exact one of the stored activations: f32 sums, and on tiles the rounding of bytes and
/// block weights to bf16, each at most 2⁻⁹ of an element.
fn from_exact(tier: Tier, act: DType) -> f64 {
    if tier == Tier::Amx && act == DType::Q8 { 8e-6 } else { 1e-11 }
}

/// Every tier × format × activations × rows: against f64 of the weights and the true activations, against the portable tier, and
/// to the bit for any number of threads and of other rows.
#[test]
fn every_format_and_activation() {
    let pools: Vec<Pool> = (1..=3).map(|n| Pool::new(n).unwrap()).collect();
    let mut numbers = Numbers::new(11);
    let most = ROWS[ROWS.len() - 1];
    for format in BlockFormat::ALL {
        // An odd number of blocks, in more than one step of the kernels for many rows.
        for (n, k) in [(40, 3 * format.elements()), (90, 1280 + format.elements())] {
            let a = numbers.reals(most * k);
            let matrix = Matrix::new(DType::Block(format), n, k, &mut numbers);
            let segments = [segment(&matrix, n)];
            let want = reference(&a, k, most, &[(&matrix, (0..n).collect())]);
            for act in ACTS {
                let a = Activations::new(act, &a, k);
                let portable = a.times(&pools[0], Tier::Portable, most, k, &segments);
                let portable: Vec<f64> = portable.into_iter().map(f64::from).collect();
                for tier in available() {
                    let all = a.times(&pools[1], tier, most, k, &segments);
                    let what = format!("{tier} {format} {act} x {k} x {n}");
                    let error = nmse(&all, &want);
                    assert!(error <= limit(act), "{what}: NMSE {error:e}");
                    let apart = nmse(&all, &portable);
                    assert!(apart <= from_exact(tier, act), "{what}: {apart:e} from the portable tier");
                    for m in ROWS {
                        // Tiles do not round as vectors do, and few rows do not go to tiles.
                        let same = if tier == Tier::Amx {
                            a.times(&pools[0], tier, m, k, &segments)
                        } else {
                            all[..m * n].to_vec()
                        };
                        for pool in &pools {
                            let got = a.times(pool, tier, m, k, &segments);
                            assert_eq!(bits(&got), bits(&same), "{what}, {m} rows, {} threads", pool.threads());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn scalar_weights_take_every_activation() {
    let mut numbers = Numbers::new(12);
    let (n, k, most) = (40, 320, 40);
    let a = numbers.reals(most * k);
    let pool = Pool::new(2).unwrap();
    for dtype in DTYPES {
        let matrix = Matrix::new(dtype, n, k, &mut numbers);
        let want = reference(&a, k, most, &[(&matrix, (0..n).collect())]);
        for act in ACTS {
            let a = Activations::new(act, &a, k);
            for tier in available() {
                let all = a.times(&pool, tier, most, k, &[segment(&matrix, n)]);
                let error = nmse(&all, &want);
                assert!(error <= limit(act), "{tier} {dtype} {act}: NMSE {error:e}");
                for m in if tier == Tier::Amx { &[][..] } else { &[1, 5] } {
                    let m = *m;
                    let got = a.times(&pool, tier, m, k, &[segment(&matrix, n)]);
                    assert_eq!(bits(&got), bits(&all[..m * n]), "{tier} {dtype} {act} {m}");
                }
            }
        }
    }
}

#[test]
fn segments_of_several_formats() {
    let mut numbers = Numbers::new(13);
    let k = 512;
    let q = Matrix::new(DType::Block(BlockFormat::Q4K), 96, k, &mut numbers);
    let v = Matrix::new(DType::Block(BlockFormat::Q6K), 41, k, &mut numbers);
    let scalar = Matrix::new(DType::F16, 20, k, &mut numbers);
    let odd: Vec<usize> = (0..40).map(|n| 16 + n / 16 * 32 + n % 16).collect();
    let parts = [(&q, odd), (&v, (0..41).collect()), (&q, (64..96).collect()), (&scalar, (0..20).collect())];
    let segments = [
        Segment { panels: q.panels(), dtype: q.dtype, first: 1, step: 2, n: 40 },
        segment(&v, 41),
        Segment { panels: q.panels(), dtype: q.dtype, first: 4, step: 1, n: 32 },
        segment(&scalar, 20),
    ];
    for m in [1, 6, 30] {
        let a = numbers.reals(m * k);
        // With a segment of another kind, and without.
        for count in [4, 3] {
            for act in ACTS {
                let a = Activations::new(act, &a, k);
                let want = reference(&a.values(m, k), k, m, &parts[..count]);
                for tier in available() {
                    let got = a.times(&Pool::new(2).unwrap(), tier, m, k, &segments[..count]);
                    let error = nmse(&got, &want);
                    let limit = from_exact(tier, act);
                    assert!(error <= limit, "{tier} {act} {m} rows, {count} segments: NMSE {error:e}");
                }
            }
        }
    }
}

#[test]
fn paired_epilogues_see_every_element_once() {
    let mut numbers = Numbers::new(14);
    let (n, k) = (88, 512);
    let formats = [BlockFormat::Q5K, BlockFormat::Q8_0, BlockFormat::Q6K];
    let matrices = formats.map(|f| Matrix::new(DType::Block(f), n, k, &mut numbers));
    let segments = [0, 1, 2].map(|s| segment(&matrices[s], n));
    for m in [1, 3, 20, 60] {
        let a = numbers.reals(m * k);
        let parts: Vec<_> = matrices.iter().map(|w| (w, (0..n).collect())).collect();
        for act in ACTS {
            let a = Activations::new(act, &a, k);
            let apart = reference(&a.values(m, k), k, m, &parts);
            let of = |i: usize, s: usize| apart[i / n * 3 * n + s * n + i % n];
            let want: Vec<f64> = (0..m * n).map(|i| of(i, 0) + 2.0 * of(i, 1) + 3.0 * of(i, 2)).collect();
            for tier in available() {
                let got = a.run(&Pool::new(2).unwrap(), tier, m, k, &segments, n, Some(add_segments));
                let error = nmse(&got, &want);
                assert!(error <= from_exact(tier, act), "{tier} {act} {m} rows: NMSE {error:e}");
            }
        }
    }
}

/// What other rows hold changes nothing, not even where it is no number.
#[test]
fn rows_do_not_see_each_other() {
    let mut numbers = Numbers::new(15);
    let k = 512;
    let pool = Pool::new(2).unwrap();
    let blocks = BlockFormat::ALL.into_iter().map(DType::Block);
    for dtype in blocks.chain([DType::BF16, DType::F32]) {
        let matrix = Matrix::new(dtype, 24, k, &mut numbers);
        // On machines with tiles the last number of rows runs on them.
        for m in [3, 17, 50] {
            let mut rows = numbers.reals(m * k);
            for act in ACTS {
                for tier in available() {
                    let times =
                        |rows: &[f32]| Activations::new(act, rows, k).times(&pool, tier, m, k, &[segment(&matrix, 24)]);
                    let before = times(&rows);
                    let (kept, second) = (rows.clone(), m / 2);
                    for (i, x) in rows.iter_mut().enumerate() {
                        if i / k != second {
                            *x = if i / k == 0 { f32::NAN } else { *x * 100.0 };
                        }
                    }
                    let after = times(&rows);
                    rows = kept;
                    let of = |all: &[f32]| bits(&all[second * 24..][..24]);
                    assert_eq!(of(&before), of(&after), "{tier} {dtype} {act} {m}");
                    assert!(after[..24].iter().all(|x| x.is_nan()), "{tier} {dtype} {act}: what is no number shows");
                }
            }
        }
    }
}

#[test]
fn rows_of_bytes_are_found_through_an_index() {
    let mut numbers = Numbers::new(16);
    let (n, k) = (20, 96);
    let a = numbers.reals(10 * k);
    let ids = [7i32, 0, 3, 3, 9];
    let gathered: Vec<f32> = ids.iter().flat_map(|i| a[*i as usize * k..][..k].to_vec()).collect();
    let matrix = Matrix::new(DType::Block(BlockFormat::Q4_0), n, k, &mut numbers);
    let stored = Activations::new(DType::Q8, &a, k);
    for tier in available() {
        let want =
            Activations::new(DType::Q8, &gathered, k).times(&Pool::new(1).unwrap(), tier, 5, k, &[segment(&matrix, n)]);
        let (out, packed, a) = (Buffer::new(5 * n), Buffer::new(5 * k), stored.words.as_ptr() as usize);
        Pool::new(2).unwrap().run(&|worker| {
            let mut view = View::new(a as *mut f32, [0, 1]);
            view.indirects[0] = Some(Fetch { index: ids.as_ptr(), strides: [1, 0], stride: stored.stride });
            let args = GemmArgs {
                tier,
                act: DType::Q8,
                a: view,
                m: 5,
                rows_like: 5,
                k,
                segments: &[segment(&matrix, n)],
                output: Output::Rows { out: out.get(), stride: n },
                packed: packed.get(),
            };
            // SAFETY: the buffers have the sizes given.
            unsafe { gemm(worker, &args, &mut vec![0.0; thread_scratch(DType::Q8, 5, k, 1)]) };
        });
        assert_eq!(bits(&out.values()), bits(&want), "{tier}");
    }
}
