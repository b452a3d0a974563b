//! What only tiles have: partial tiles, inputs in several blocks, panels without a neighbour.

use super::blocks::Activations;
use super::*;
use llamac_formats::BlockFormat;

/// More segments than the panels of a task go to the vectors.
#[test]
fn many_paired_segments() {
    let mut numbers = Numbers::new(22);
    let (m, n, k) = (64, 40, 256);
    let matrices: Vec<Matrix> =
        (0..17).map(|_| Matrix::new(DType::Block(BlockFormat::Q8_0), n, k, &mut numbers)).collect();
    let rows = numbers.reals(m * k);
    let a = Activations::new(DType::Q8, &rows, k);
    for count in [8, 9, 17] {
        let segments: Vec<Segment> = matrices[..count].iter().map(|w| segment(w, n)).collect();
        for tier in available() {
            let got = a.run(&Pool::new(2).unwrap(), tier, m, k, &segments, n, Some(add_segments));
            let want = a.run(&Pool::new(1).unwrap(), Tier::Portable, m, k, &segments[..3], n, Some(add_segments));
            let apart: f64 = got.iter().zip(&want).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            let all: f64 = want.iter().map(|x| f64::from(*x).powi(2)).sum();
            assert!(apart <= 8e-6 * all, "{tier}, {count} segments: {:e}", apart / all);
        }
    }
}

#[test]
fn partial_tiles_and_several_blocks_of_inputs() {
    if !Tier::Amx.available() {
        eprintln!("this machine has no tiles: skipped");
        return;
    }
    let mut numbers = Numbers::new(21);
    let pool = Pool::new(2).unwrap();
    for (act, dtype) in [(DType::BF16, DType::BF16), (DType::Q8, DType::Block(BlockFormat::Q4K))] {
        for (n, k) in [(16, 256), (40, 2304), (300, 512), (136, 4352)] {
            let matrix = Matrix::new(dtype, n, k, &mut numbers);
            for m in [24, 31, 32, 33, 48, 55, 65, 530, 1027] {
                let a = Activations::new(act, &numbers.reals(m * k), k);
                let got = a.times(&pool, Tier::Amx, m, k, &[segment(&matrix, n)]);
                let want = a.times(&pool, Tier::Avx512, m, k, &[segment(&matrix, n)]);
                let apart: f64 = got.iter().zip(&want).map(|(x, y)| f64::from(x - y).powi(2)).sum();
                let all: f64 = want.iter().map(|x| f64::from(*x).powi(2)).sum();
                let limit = if act == DType::Q8 { 8e-6 } else { 1e-11 };
                assert!(apart <= limit * all, "{act} {dtype} {m} x {k} x {n}: {:e}", apart / all);
            }
        }
    }
}

/// Rows are divided among threads where there are many: no result may show it.
#[test]
fn the_division_of_rows_leaves_no_trace() {
    if !Tier::Amx.available() {
        eprintln!("this machine has no tiles: skipped");
        return;
    }
    let mut numbers = Numbers::new(23);
    let (n, k, m) = (72, 2304, 1060);
    for (act, dtype) in [(DType::BF16, DType::BF16), (DType::Q8, DType::Block(BlockFormat::Q8_0))] {
        let matrix = Matrix::new(dtype, n, k, &mut numbers);
        let rows = numbers.reals(m * k);
        let run = |threads: usize, m: usize| {
            let a = Activations::new(act, &rows[..m * k], k);
            let out = a.times(&Pool::new(threads).unwrap(), Tier::Amx, m, k, &[segment(&matrix, n)]);
            out.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
        };
        let want = run(1, m);
        for (threads, m) in [(2, m), (3, m), (5, m), (2, 530), (3, 577), (2, 384)] {
            assert!(run(threads, m) == want[..m * n], "{act} {dtype}: {m} rows, {threads} threads");
        }
    }
}

/// Tasks are wide where activations do not stay in the caches and there are outputs enough: no result may show it.
#[test]
fn the_width_of_tasks_leaves_no_trace() {
    if !Tier::Amx.available() {
        eprintln!("this machine has no tiles: skipped");
        return;
    }
    let mut numbers = Numbers::new(24);
    let q8_0 = DType::Block(BlockFormat::Q8_0);
    for (act, dtype, m, k) in
        [(DType::BF16, DType::BF16, 500, 1056), (DType::Q8, q8_0, 500, 1056), (DType::Q8, q8_0, 258, 2080)]
    {
        let n = 2048;
        let matrix = Matrix::new(dtype, n, k, &mut numbers);
        let a = Activations::new(act, &numbers.reals(m * k), k);
        let pool = Pool::new(1).unwrap();
        let wide = a.times(&pool, Tier::Amx, m, k, &[segment(&matrix, n)]);
        // Too few outputs for wide tasks.
        for (first, n) in [(0, 48), (1008, 32)] {
            let some = Segment { first: first / PANEL_WIDTH, n, ..segment(&matrix, n) };
            let narrow = a.times(&pool, Tier::Amx, m, k, &[some]);
            for (wide, narrow) in wide.chunks_exact(2048).zip(narrow.chunks_exact(n)) {
                assert!(bits(&wide[first..first + n]) == bits(narrow), "{act} {dtype}, {m} rows of {k} inputs");
            }
        }
    }
}
