//! How fast the GEMM is on this machine, beside how fast it reads memory.
//!
//! `cargo run --release -p llamac-runtime --example gemm_speed [-- TIER [DTYPE [ROWS,… [ACT [THREADS,… [KxN,…]]]]]]`
//!
//! DTYPE is any of the weights' (`bf16`, `q4_k`, …), ACT the activations' (`f32`, `bf16`, `q8`).
//!
//! For one row the unit is GB/s of weight bytes (its limit is the read bandwidth), for many rows GFLOP/s. Weights are
//! larger than the caches: the matrices are repeated until they fill a quarter of a GiB.
//!
//! With ROWS as `1-64` every number of rows in between is measured in turn, several times, and what breaks one of these rules is named: fewer
//! rows take at most 1.1 times what more rows take, and twice the rows at most 2.1 times as long.

use llamac_formats::{DType, PanelLayout};
use llamac_runtime::gemm::{GemmArgs, Output, Segment, gemm, thread_scratch};
use llamac_runtime::limits::read_bandwidth;
use llamac_runtime::machine::processor;
use llamac_runtime::strided::View;
use llamac_runtime::{Pool, Region, Tier};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bytes of all matrices of one shape together.
const WEIGHTS: usize = 256 << 20;

/// How long a sweep goes on, and how many times it measures each number of rows at least.
const SWEEP: Duration = Duration::from_secs(4);
const SWEEP_ROUNDS: usize = 5;

fn main() -> std::io::Result<()> {
    let mut options = std::env::args().skip(1);
    let tier = options.next().map_or(Tier::detect(), |t| Tier::from_name(&t).expect("a tier: portable, avx2, …"));
    let dtype = options.next().map_or(DType::BF16, |d| DType::from_name(&d).expect("an element type"));
    let rows = options.next().unwrap_or("1,2,4,8,12,16,24,32,64,128,512".into());
    let (rows, sweep) = match rows.split_once('-') {
        Some((first, last)) => ((number(first)..=number(last)).collect(), true),
        None => (rows.split(',').map(number).collect::<Vec<_>>(), false),
    };
    let act = options.next().map_or(DType::F32, |a| DType::from_name(&a).expect("f32, bf16 or q8"));
    assert!(dtype.is_weight() && act.is_activation(), "{act} activations and {dtype} weights");
    let threads = options.next().unwrap_or("1,2".into());
    let threads: Vec<usize> = threads.split(',').map(|t| t.parse().expect("a number of threads")).collect();
    let shapes = options.next().unwrap_or("2048x8192,8192x2048".into());
    let shapes = shapes.split(',').map(|shape| shape.split_once('x').expect("inputs x outputs"));
    let shapes: Vec<_> = shapes.map(|(k, n)| (number(k), number(n))).collect();
    assert!(tier.available(), "this machine lacks the tier {tier}");
    println!("{}, {tier}, {act} x {dtype}", processor());
    for threads in threads {
        let pool = Pool::new(threads)?;
        println!("{threads} threads: read {:.1} GB/s", read_bandwidth(&pool, 256 << 20, 24)?);
        for &(k, n) in &shapes {
            let product = Product::new(&pool, tier, [act, dtype], &rows, k, n);
            if sweep {
                product.sweep(&pool, &rows);
                continue;
            }
            for &m in &rows {
                let seconds = product.best(&pool, m);
                let flops = 2.0 * m as f64 * k as f64 * n as f64;
                println!(
                    "  {m:4} x {k} x {n}: {:8.3} ms  {:6.1} GB/s  {:6.1} GFLOP/s",
                    seconds * 1e3,
                    product.bytes as f64 / seconds / 1e9,
                    flops / seconds / 1e9
                );
            }
        }
    }
    Ok(())
}

/// A number of the command line.
fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Bits that look random.
fn scramble(i: usize) -> u64 {
    (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Matrices of one shape, and room for a GEMM with each of them.
struct Product {
    tier: Tier,
    act: DType,
    dtype: DType,
    k: usize,
    n: usize,
    /// Bytes of a matrix.
    bytes: usize,
    matrices: usize,
    weights: Region,
    a: Region,
    out: Region,
    packed: Region,
    scratches: Vec<Mutex<Vec<f32>>>,
}

impl Product {
    fn new(pool: &Pool, tier: Tier, [act, dtype]: [DType; 2], rows: &[usize], k: usize, n: usize) -> Product {
        let bytes = PanelLayout { dtype, k }.matrix_bytes(n);
        let matrices = WEIGHTS.div_ceil(bytes);
        // At the beginning of a page, as in an artifact.
        let weights = Region::new(matrices * bytes, "weights").expect("memory for weights");
        for i in 0..matrices * bytes / 8 {
            // Small normal numbers in every format, none like the next: products of equal ones or of zeros take less power, and so less time.
            let bits = 0x3c00_3c00_3c00_3c00 | scramble(i) & 0x00ff_00ff_00ff_00ff;
            // SAFETY: the region has as many elements, and nothing else uses it.
            unsafe { *weights.address().cast::<u64>().add(i) = bits };
        }
        let room = |elements: usize| Region::new(4 * elements, "a matrix").expect("memory for a matrix");
        let most = rows.iter().copied().max().unwrap_or(0);
        // Room for f32; as bf16 or q8 small numbers, too.
        let a_elements = most * k.next_multiple_of(32) * 5 / 4;
        let (a, out, packed) = (room(a_elements), room(most * n), room(most * k));
        for i in 0..a_elements {
            // SAFETY: the region has as many elements, and nothing else uses it.
            unsafe { *a.address().cast::<u32>().add(i) = 0x3f00_3f00 ^ (scramble(i) >> 32) as u32 & 0x80ff_80ff };
        }
        let scratch = rows.iter().map(|m| thread_scratch(act, *m, k, 1)).max().unwrap_or(0);
        let scratches = (0..pool.threads()).map(|_| Mutex::new(vec![0.0f32; scratch])).collect();
        Product { tier, act, dtype, k, n, bytes, matrices, weights, a, out, packed, scratches }
    }

    /// The time of one GEMM of `m` rows, in seconds.
    fn time(&self, pool: &Pool, m: usize, matrix: usize) -> f64 {
        let Product { tier, act, dtype, k, n, .. } = *self;
        let address = |region: &Region| Address(region.address().cast());
        let (a, out, packed) = (address(&self.a), address(&self.out), address(&self.packed));
        let panels = Address(self.weights.address().wrapping_add(matrix * self.bytes).cast());
        let start = Instant::now();
        pool.run(&|worker| {
            let segments = [Segment { panels: panels.get().cast(), dtype, first: 0, step: 1, n }];
            let args = GemmArgs {
                tier,
                act,
                a: View::new(a.get(), [k, 1]),
                m,
                rows_like: m,
                k,
                segments: &segments,
                output: Output::Rows { out: out.get(), stride: n },
                packed: packed.get(),
            };
            let mut scratch = self.scratches[worker.index()].lock().expect("no thread panics");
            // SAFETY: the buffers have the sizes given and nothing else uses them.
            unsafe { gemm(worker, &args, &mut scratch) };
        });
        start.elapsed().as_secs_f64()
    }

    /// The shortest time of one GEMM.
    fn best(&self, pool: &Pool, m: usize) -> f64 {
        let (rounds, matrices) = if m > 64 { (4, self.matrices.min(5)) } else { (6, self.matrices) };
        let times = (0..rounds * matrices).map(|i| self.time(pool, m, i % matrices));
        times.fold(f64::INFINITY, f64::min)
    }

    /// Measures all numbers of rows in turn, and names those that break a rule.
    fn sweep(&self, pool: &Pool, rows: &[usize]) {
        let mut best = vec![f64::INFINITY; rows.len()];
        let (start, mut matrix) = (Instant::now(), 0);
        for round in 0.. {
            for (best, m) in best.iter_mut().zip(rows) {
                // The first after one of another kind takes longer: registers of tiles are asleep where vectors were used.
                for time in [f64::INFINITY, 0.0] {
                    *best = best.min(time.max(self.time(pool, *m, matrix)));
                    matrix = (matrix + 1) % self.matrices;
                }
            }
            if round + 1 >= SWEEP_ROUNDS && start.elapsed() > SWEEP {
                break;
            }
        }
        println!("  {} x {}, ms:", self.k, self.n);
        for line in rows.iter().zip(&best).collect::<Vec<_>>().chunks(8) {
            let line: Vec<String> = line.iter().map(|(m, t)| format!("{m:4} {:7.3}", *t * 1e3)).collect();
            println!("  {}", line.join("  "));
        }
        for (i, (m, t)) in rows.iter().zip(&best).enumerate() {
            let least = rows[i..].iter().zip(&best[i..]).min_by(|a, b| a.1.total_cmp(b.1));
            if let Some((more, least)) = least
                && *t > 1.1 * least
            {
                println!("  {m} rows take {:.2} times as long as {more}", t / least);
            }
            let twice = rows.iter().position(|twice| *twice == 2 * m).map(|twice| best[twice] / t);
            if let Some(ratio) = twice
                && ratio > 2.1
            {
                println!("  {} rows take {ratio:.2} times as long as {m}", 2 * m);
            }
        }
    }
}

/// An address that every thread of the pool may use.
struct Address(*mut f32);

// SAFETY: the GEMM divides what lies there among the threads.
unsafe impl Sync for Address {}

impl Address {
    fn get(&self) -> *mut f32 {
        self.0
    }
}
