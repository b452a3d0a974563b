//! How fast the GEMM is on this machine, beside how fast it reads memory.
//!
//! `cargo run --release -p llamac-runtime --example gemm_speed [-- TIER [DTYPE [ROWS,… [ACT [THREADS,…]]]]]`
//!
//! DTYPE is any of the weights' (`bf16`, `q4_k`, …), ACT the activations' (`f32`, `bf16`, `q8`).
//!
//! For one row the unit is GB/s of weight bytes (its limit is the read bandwidth), for many rows GFLOP/s. Weights are
//! larger than the caches: the matrices are repeated until they fill a quarter of a GiB.

use llamac_formats::{DType, PanelLayout};
use llamac_runtime::gemm::{GemmArgs, Output, Segment, gemm, thread_scratch};
use llamac_runtime::limits::read_bandwidth;
use llamac_runtime::machine::processor;
use llamac_runtime::strided::View;
use llamac_runtime::{Pool, Region, Tier};
use std::time::Instant;

/// Bytes of all matrices of one shape together.
const WEIGHTS: usize = 256 << 20;

fn main() -> std::io::Result<()> {
    let mut options = std::env::args().skip(1);
    let tier = options.next().map_or(Tier::detect(), |t| Tier::from_name(&t).expect("a tier: portable, avx2, …"));
    let dtype = options.next().map_or(DType::BF16, |d| DType::from_name(&d).expect("an element type"));
    let rows = options.next().unwrap_or("1,2,4,8,12,16,24,32,64,128,512".into());
    let rows: Vec<usize> = rows.split(',').map(|m| m.parse().expect("a number of rows")).collect();
    let act = options.next().map_or(DType::F32, |a| DType::from_name(&a).expect("f32, bf16 or q8"));
    assert!(dtype.is_weight() && act.is_activation(), "{act} activations and {dtype} weights");
    let threads = options.next().unwrap_or("1,2".into());
    let threads: Vec<usize> = threads.split(',').map(|t| t.parse().expect("a number of threads")).collect();
    assert!(tier.available(), "this machine lacks the tier {tier}");
    println!("{}, {tier}, {act} x {dtype}", processor());
    for threads in threads {
        let pool = Pool::new(threads)?;
        println!("{threads} threads: read {:.1} GB/s", read_bandwidth(&pool, 256 << 20, 24)?);
        for (k, n) in [(2048, 8192), (8192, 2048)] {
            for &m in &rows {
                let (seconds, bytes) = measure(&pool, tier, [act, dtype], m, k, n);
                let flops = 2.0 * m as f64 * k as f64 * n as f64;
                println!(
                    "  {m:4} x {k} x {n}: {:8.3} ms  {:6.1} GB/s  {:6.1} GFLOP/s",
                    seconds * 1e3,
                    bytes as f64 / seconds / 1e9,
                    flops / seconds / 1e9
                );
            }
        }
    }
    Ok(())
}

/// The shortest time of one GEMM, in seconds, and its weight bytes.
fn measure(pool: &Pool, tier: Tier, [act, dtype]: [DType; 2], m: usize, k: usize, n: usize) -> (f64, usize) {
    let bytes = PanelLayout { dtype, k }.matrix_bytes(n);
    let matrices = WEIGHTS.div_ceil(bytes);
    let mut weights = Region::new(matrices * bytes, "the weights").expect("memory for the weights");
    // Small normal numbers in every format.
    let small = 0x3c11_3c22_3c33_3c44u64.to_ne_bytes();
    weights.as_mut_slice().chunks_exact_mut(small.len()).for_each(|word| word.copy_from_slice(&small));
    let room = |elements: usize| Region::new(4 * elements, "a matrix").expect("memory for a matrix");
    // Room for f32; as bf16 or q8 whatever the bits are: small numbers, too.
    let a_elements = m * k.next_multiple_of(32) * 5 / 4;
    let (a, out, packed) = (room(a_elements), room(m * n), room(m * k));
    for i in 0..a_elements {
        // SAFETY: the region has as many elements, and nothing else uses it.
        unsafe { *a.address().cast::<f32>().add(i) = (i % 13) as f32 - 6.0 };
    }
    let scratch = thread_scratch(act, m, k, 1);
    let address = |region: &Region| Address(region.address().cast());
    let (a, out, packed) = (address(&a), address(&out), address(&packed));
    let mut best = f64::INFINITY;
    let rounds = if m > 64 { 4 } else { 6 };
    let scratches: Vec<_> = (0..pool.threads()).map(|_| std::sync::Mutex::new(vec![0.0f32; scratch])).collect();
    for _ in 0..rounds {
        for matrix in 0..if m > 64 { matrices.min(5) } else { matrices } {
            let panels = &weights.as_slice()[matrix * bytes..];
            let start = Instant::now();
            pool.run(&|worker| {
                let segments = [Segment { panels: panels.as_ptr(), dtype, first: 0, step: 1, n }];
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
                let mut scratch = scratches[worker.index()].lock().expect("no thread panics");
                // SAFETY: the buffers have the sizes given and nothing else uses them.
                unsafe { gemm(worker, &args, &mut scratch) };
            });
            best = best.min(start.elapsed().as_secs_f64());
        }
    }
    (best, bytes)
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
