mod blocks;

use super::*;
use crate::Pool;
use crate::strided::Fetch;
use crate::testing::{Buffer, Matrix, Numbers, assert_close, bits};
use crate::tiers::tests::available;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const ROWS: [usize; 12] = [1, 2, 3, 5, 7, 12, 16, 17, 24, 33, 64, 130];

fn segment(matrix: &Matrix, n: usize) -> Segment {
    Segment { panels: matrix.panels(), dtype: matrix.dtype, first: 0, step: 1, n }
}

/// Runs a GEMM whose output is rows.
fn rows(pool: &Pool, tier: Tier, a: &Buffer, stride: usize, m: usize, k: usize, segments: &[Segment]) -> Vec<f32> {
    let n: usize = segments.iter().map(|s| s.n).sum();
    let (out, packed) = (Buffer::new(m * n), Buffer::new(m * k));
    let segments: Vec<(usize, DType, usize, usize, usize)> =
        segments.iter().map(|s| (s.panels as usize, s.dtype, s.first, s.step, s.n)).collect();
    pool.run(&|worker| {
        let of = |s: &(usize, DType, usize, usize, usize)| Segment {
            panels: s.0 as *const u8,
            dtype: s.1,
            first: s.2,
            step: s.3,
            n: s.4,
        };
        let segments: Vec<Segment> = segments.iter().map(of).collect();
        let args = GemmArgs {
            tier,
            act: DType::F32,
            a: View::new(a.get(), [stride, 1]),
            m,
            rows_like: m,
            k,
            segments: &segments,
            output: Output::Rows { out: out.get(), stride: n },
            packed: packed.get(),
        };
        let mut scratch = vec![f32::NAN; thread_scratch(DType::F32, m, k, 1)];
        // SAFETY: the buffers have the sizes given.
        unsafe { gemm(worker, &args, &mut scratch) };
    });
    packed.values();
    out.values()
}

/// The same in f64; segments as (matrix, first output, outputs).
fn reference(a: &[f32], stride: usize, m: usize, segments: &[(&Matrix, Vec<usize>)]) -> Vec<f64> {
    let mut out = Vec::new();
    for row in 0..m {
        for (matrix, outputs) in segments {
            for n in outputs {
                let terms = matrix.row(*n).iter().zip(&a[row * stride..]);
                out.push(terms.map(|(w, a)| f64::from(*w) * f64::from(*a)).sum());
            }
        }
    }
    out
}

#[test]
fn against_f64_for_any_shape_and_number_of_threads() {
    let pools: Vec<Pool> = (1..=3).map(|n| Pool::new(n).unwrap()).collect();
    let mut numbers = Numbers::new(1);
    for (n, k) in [(1, 1), (16, 2), (172, 33), (40, 288), (100, 601)] {
        let stride = k + 3;
        let most = ROWS[ROWS.len() - 1];
        let a = numbers.reals(most * stride);
        let buffer = Buffer::of(&a);
        for dtype in DTYPES {
            let matrix = Matrix::new(dtype, n, k, &mut numbers);
            let segments = [segment(&matrix, n)];
            let want = reference(&a, stride, most, &[(&matrix, (0..n).collect())]);
            for tier in available() {
                let all = rows(&pools[0], tier, &buffer, stride, most, k, &segments);
                let what = format!("{tier} {dtype} {most} x {k} x {n}");
                assert_close(&all, &want, (k as f64).sqrt(), 3e-6, &what);
                for m in ROWS {
                    for pool in &pools {
                        let got = rows(pool, tier, &buffer, stride, m, k, &segments);
                        let what = format!("{tier} {dtype} {m} x {k} x {n}, {} threads", pool.threads());
                        // A row's result does not depend on how many rows or threads there are.
                        assert_eq!(bits(&got), bits(&all[..m * n]), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn more_rows_than_a_task_takes() {
    let mut numbers = Numbers::new(2);
    let (m, n, k) = (1111, 70, 19);
    let a = numbers.reals(m * k);
    let matrix = Matrix::new(DType::BF16, n, k, &mut numbers);
    let want = reference(&a, k, m, &[(&matrix, (0..n).collect())]);
    for tier in available() {
        let got = rows(&Pool::new(2).unwrap(), tier, &Buffer::of(&a), k, m, k, &[segment(&matrix, n)]);
        assert_close(&got, &want, (k as f64).sqrt(), 3e-6, tier.name());
    }
}

#[test]
fn wide_tasks_and_narrow_ones_agree() {
    // With one thread the tasks are as wide as they get, with three they are narrower.
    let mut numbers = Numbers::new(8);
    let (n, k) = (1100, 270);
    let matrix = Matrix::new(DType::BF16, n, k, &mut numbers);
    for m in [1, 6, 30] {
        let a = numbers.reals(m * k);
        let want = reference(&a, k, m, &[(&matrix, (0..n).collect())]);
        for tier in available() {
            let of =
                |threads| rows(&Pool::new(threads).unwrap(), tier, &Buffer::of(&a), k, m, k, &[segment(&matrix, n)]);
            let wide = of(1);
            assert_close(&wide, &want, (k as f64).sqrt(), 3e-6, tier.name());
            assert_eq!(bits(&of(3)), bits(&wide), "{tier} {m}");
        }
    }
}
#[test]
fn segments_of_several_weights_and_interleaved_panels() {
    let mut numbers = Numbers::new(3);
    let k = 67;
    let q = Matrix::new(DType::BF16, 96, k, &mut numbers);
    let kv = Matrix::new(DType::F32, 41, k, &mut numbers);
    let odd: Vec<usize> = (0..40).map(|n| 16 + n / 16 * 32 + n % 16).collect();
    let parts = [(&q, odd), (&kv, (0..41).collect()), (&q, (64..96).collect())];
    let segments = [
        Segment { panels: q.panels(), dtype: q.dtype, first: 1, step: 2, n: 40 },
        segment(&kv, 41),
        Segment { panels: q.panels(), dtype: q.dtype, first: 4, step: 1, n: 32 },
    ];
    for m in [1, 4, 30] {
        let a = numbers.reals(m * k);
        let want = reference(&a, k, m, &parts);
        for tier in available() {
            let got = rows(&Pool::new(2).unwrap(), tier, &Buffer::of(&a), k, m, k, &segments);
            assert_close(&got, &want, (k as f64).sqrt(), 3e-6, &format!("{tier} {m}"));
        }
    }
}

#[test]
fn rows_are_found_through_an_index() {
    let mut numbers = Numbers::new(4);
    let (n, k) = (20, 48);
    let a = numbers.reals(10 * k);
    let ids = [7i32, 0, 3, 3, 9];
    let gathered: Vec<f32> = ids.iter().flat_map(|i| a[*i as usize * k..][..k].to_vec()).collect();
    let matrix = Matrix::new(DType::F16, n, k, &mut numbers);
    let want = reference(&gathered, k, ids.len(), &[(&matrix, (0..n).collect())]);
    for tier in available() {
        for m in [1, 5] {
            let (a, out, packed) = (Buffer::of(&a), Buffer::new(m * n), Buffer::new(m * k));
            Pool::new(2).unwrap().run(&|worker| {
                let mut view = View::new(a.get(), [0, 1]);
                view.indirects[0] = Some(Fetch { index: ids.as_ptr(), strides: [1, 0], stride: k });
                let args = GemmArgs {
                    tier,
                    act: DType::F32,
                    a: view,
                    m,
                    rows_like: m,
                    k,
                    segments: &[segment(&matrix, n)],
                    output: Output::Rows { out: out.get(), stride: n },
                    packed: packed.get(),
                };
                // SAFETY: the buffers have the sizes given.
                unsafe { gemm(worker, &args, &mut vec![0.0; thread_scratch(DType::F32, m, k, 1)]) };
            });
            assert_close(&out.values(), &want[..m * n], 7.0, 3e-6, tier.name());
        }
    }
}

/// Scalars of the epilogues below: columns of a row of the output.
/// Buffers: the output.
unsafe extern "C" fn copy_tile(args: *const KernelArgs, tile: *const Tile) {
    // SAFETY: the tests below pass these arguments.
    unsafe {
        let (tile, out, n) = (&*tile, (*(*args).buffers).cast::<f32>(), *(*args).scalars);
        assert_eq!(tile.segment_stride, 0);
        for row in tile.row_begin..tile.row_end {
            for col in tile.col_begin..tile.col_end {
                let acc = (row - tile.row_begin) * tile.row_stride + (col - tile.col_begin);
                *out.add((row * n + col) as usize) = *tile.acc.add(acc as usize);
            }
        }
    }
}

/// `Σ_s (s + 1) · segment_s`, for three segments.
unsafe extern "C" fn add_segments(args: *const KernelArgs, tile: *const Tile) {
    // SAFETY: the tests below pass these arguments.
    unsafe {
        let (tile, out, n) = (&*tile, (*(*args).buffers).cast::<f32>(), *(*args).scalars);
        for row in tile.row_begin..tile.row_end {
            for col in tile.col_begin..tile.col_end {
                let acc = (row - tile.row_begin) * tile.row_stride + (col - tile.col_begin);
                let of = |s: u64| *tile.acc.add((s * tile.segment_stride + acc) as usize);
                *out.add((row * n + col) as usize) = of(0) + 2.0 * of(1) + 3.0 * of(2);
            }
        }
    }
}

#[test]
fn epilogues_see_every_element_once() {
    let mut numbers = Numbers::new(5);
    let (n, k) = (88, 300);
    let matrices = [DType::F32, DType::BF16, DType::F16].map(|d| Matrix::new(d, n, k, &mut numbers));
    for tier in available() {
        for m in [1, 3, 20, 60] {
            let a = numbers.reals(m * k);
            let parts: Vec<_> = matrices.iter().map(|w| (w, (0..n).collect())).collect();
            let want = reference(&a, k, m, &parts);
            for paired in [false, true] {
                let width = if paired { n } else { 3 * n };
                let (a, out, packed) = (Buffer::of(&a), Buffer::new(m * width), Buffer::new(m * k));
                Pool::new(2).unwrap().run(&|worker| {
                    let buffers = [out.get().cast::<u8>()];
                    let scalars = [width as u64];
                    let kernel_args = KernelArgs {
                        buffers: buffers.as_ptr(),
                        scalars: scalars.as_ptr(),
                        routines: std::ptr::null(),
                        scratch: std::ptr::null_mut(),
                    };
                    let kernel = if paired { add_segments } else { copy_tile };
                    let args = GemmArgs {
                        tier,
                        act: DType::F32,
                        a: View::new(a.get(), [k, 1]),
                        m,
                        rows_like: m,
                        k,
                        segments: &[0, 1, 2].map(|s| segment(&matrices[s], n)),
                        output: Output::Epilogue { kernel, args: &kernel_args, paired },
                        packed: packed.get(),
                    };
                    let mut scratch = vec![0.0; thread_scratch(DType::F32, m, k, if paired { 3 } else { 1 })];
                    // SAFETY: the buffers have the sizes given.
                    unsafe { gemm(worker, &args, &mut scratch) };
                });
                let summed = |i: usize| {
                    let of = |s: usize| want[i / n * 3 * n + s * n + i % n];
                    of(0) + 2.0 * of(1) + 3.0 * of(2)
                };
                let want: Vec<f64> = if paired { (0..m * n).map(summed).collect() } else { want.clone() };
                assert_close(&out.values(), &want, 60.0, 3e-6, &format!("{tier} {m} rows, paired {paired}"));
            }
        }
    }
}

#[test]
fn nothing_to_do() {
    let matrix = Matrix::new(DType::F32, 16, 4, &mut Numbers::new(6));
    let pool = Pool::new(2).unwrap();
    let a = Buffer::of(&[1.0; 8]);
    assert!(rows(&pool, Tier::Portable, &a, 4, 0, 4, &[segment(&matrix, 16)]).is_empty());
    assert!(rows(&pool, Tier::Portable, &a, 4, 2, 4, &[]).is_empty());
    // No inputs: empty sums.
    let empty = Matrix::new(DType::BF16, 16, 0, &mut Numbers::new(6));
    for m in [1, 2, 40] {
        let got = rows(&pool, Tier::detect(), &a, 0, m, 0, &[segment(&empty, 16)]);
        assert_eq!(got, vec![0.0; m * 16]);
    }
}

#[cfg(target_arch = "x86_64")]
mod tiles;
