//! How fast attention is on this machine, with the heads of a Llama of one billion parameters.
//!
//! `cargo run --release -p llamac-runtime --example attention_speed [-- TIER]`
//!
//! For every type of cache, and with tile registers where the tier has them.
//!
//! Decoding (one row) is limited by reading the cache: GB/s of keys and values. Prefill (many rows) is limited by
//! arithmetic: GFLOP/s of the products that the mask leaves. Also the cost of a barrier.

use llamac_formats::DType;
use llamac_runtime::attention::{AttentionArgs, Segment, attention, shared_scratch, thread_scratch};
use llamac_runtime::strided::View;
use llamac_runtime::{Pool, Region, Tier};
use std::time::{Duration, Instant};

const KV_HEADS: usize = 8;
const GROUP: usize = 4;
const HEAD_DIM: usize = 64;

/// How long each step is repeated: its shortest time counts, and a machine is seldom quiet for less.
const SPAN: Duration = Duration::from_millis(500);

/// Layers of cache, so that it does not stay in the processor's caches.
const LAYERS: usize = 8;

fn main() -> std::io::Result<()> {
    let tier =
        std::env::args().nth(1).map_or(Tier::detect(), |t| Tier::from_name(&t).expect("portable, avx2 or avx512"));
    assert!(tier.available(), "this machine lacks the tier {tier}");
    println!("{tier}, {KV_HEADS} key-value heads, {GROUP} query heads each, {HEAD_DIM} wide");
    for threads in [1, 2] {
        let pool = Pool::new(threads)?;
        println!("{threads} threads: barrier {:.0} ns, run {:.0} ns", barrier(&pool), run(&pool));
        for dtype in [DType::F32, DType::BF16, DType::Q8] {
            for (rows, tokens) in [(1, 512), (1, 4096), (512, 512), (512, 4096)] {
                let measured = Measured { tier, dtype, act: DType::F32, rows, tokens };
                measured.print(&pool);
                if tier == Tier::Amx && rows > 1 {
                    Measured { act: DType::BF16, ..measured }.print(&pool);
                }
            }
        }
    }
    Ok(())
}

/// The best mean time of a thousand barriers, in nanoseconds.
fn barrier(pool: &Pool) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..50 {
        let start = Instant::now();
        pool.run(&|worker| (0..1000).for_each(|_| worker.barrier()));
        best = best.min(start.elapsed().as_nanos() as f64 / 1000.0);
    }
    best
}

/// The best mean time of a hundred empty runs, in nanoseconds.
fn run(pool: &Pool) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..50 {
        let start = Instant::now();
        (0..100).for_each(|_| pool.run(&|_| ()));
        best = best.min(start.elapsed().as_nanos() as f64 / 100.0);
    }
    best
}

/// One attention step.
#[derive(Clone, Copy)]
struct Measured {
    tier: Tier,
    dtype: DType,
    act: DType,
    rows: usize,
    tokens: usize,
}

impl Measured {
    fn print(self, pool: &Pool) {
        let Measured { dtype, act, rows, tokens, .. } = self;
        let seconds = self.measure(pool);
        let seen: usize = (tokens - rows..tokens).map(|t| t + 1).sum();
        let flops = 4.0 * (seen * KV_HEADS * GROUP * HEAD_DIM) as f64;
        let bytes = 2.0 * dtype.storage(tokens * KV_HEADS * HEAD_DIM).expect("it fits") as f64;
        println!(
            "  {dtype:4} cache, products of {act:4}, {rows:4} rows, {tokens:5} tokens: {:8.3} ms  {:6.1} GB/s  {:6.1} GFLOP/s",
            seconds * 1e3,
            bytes / seconds / 1e9,
            flops / seconds / 1e9
        );
    }

    /// The shortest time, in seconds.
    fn measure(self, pool: &Pool) -> f64 {
        let Measured { tier, dtype, act, rows, tokens } = self;
        let width = KV_HEADS * GROUP * HEAD_DIM;
        let layer = dtype.storage(KV_HEADS * tokens * HEAD_DIM).expect("it fits");
        let mut q: Vec<f32> = (0..rows * width).map(|i| (i % 13) as f32 / 13.0).collect();
        let mut out = vec![0.0f32; rows * width];
        let (keys, values) = (cache(LAYERS * layer), cache(LAYERS * layer));
        let positions: Vec<i32> = (tokens - rows..tokens).map(|t| t as i32).collect();
        let mut partials = vec![0.0f32; shared_scratch(tokens, 1, KV_HEADS, GROUP, HEAD_DIM)];
        let (q, out, partials) = (Address(q.as_mut_ptr()), Address(out.as_mut_ptr()), Address(partials.as_mut_ptr()));
        let scratches: Vec<_> = (0..pool.threads())
            .map(|_| std::sync::Mutex::new(vec![0.0f32; thread_scratch(HEAD_DIM, act) + 16]))
            .collect();
        let mut best = f64::INFINITY;
        let begun = Instant::now();
        for round in 0.. {
            if round >= 5 && begun.elapsed() > SPAN {
                break;
            }
            let layer = layer * (round % LAYERS);
            let start = Instant::now();
            pool.run(&|worker| {
                let strides = [width, GROUP * HEAD_DIM, HEAD_DIM, 1];
                let args = AttentionArgs {
                    tier,
                    q: View::new(q.get(), strides),
                    out: View::new(out.get(), strides),
                    keys: keys.as_slice()[layer..].as_ptr(),
                    values: values.as_slice()[layer..].as_ptr(),
                    dtype,
                    act,
                    tokens,
                    positions: positions.as_ptr(),
                    segments: &[Segment { slot: 0, row_begin: 0, row_end: rows }],
                    rows_like: 0,
                    kv_heads: KV_HEADS,
                    group: GROUP,
                    head_dim: HEAD_DIM,
                    scale: 0.125,
                    partials: partials.get(),
                };
                let mut scratch = scratches[worker.index()].lock().expect("no thread panics");
                let skip = scratch.as_ptr().align_offset(64);
                // SAFETY: the buffers have the sizes given and nothing else uses them.
                unsafe { attention(worker, &args, &mut scratch[skip..]) };
            });
            best = best.min(start.elapsed().as_secs_f64());
        }
        best
    }
}

/// A cache of small numbers of any type, in huge pages where the system gives them.
fn cache(bytes: usize) -> Region {
    let mut cache = Region::new(bytes, "a cache").expect("memory for a cache");
    // As f32, as two bf16, and as the scale and the bytes of blocks.
    let small = |i: usize| if i % 2 == 1 { 0x3d } else { (i / 2 % 11) as u8 };
    cache.as_mut_slice().iter_mut().enumerate().for_each(|(i, byte)| *byte = small(i));
    cache
}

/// An address that every thread of the pool may use.
struct Address(*mut f32);

// SAFETY: the attention divides what lies there among the threads.
unsafe impl Sync for Address {}

impl Address {
    fn get(&self) -> *mut f32 {
        self.0
    }
}
