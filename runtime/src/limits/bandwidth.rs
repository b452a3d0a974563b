//! How fast memory is read: what all threads add up together.

use crate::memory::{MemoryError, Region};
use crate::pool::Pool;
use crate::tiers::{Kernel, Simd, Tier};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Bytes that a thread takes at a time in [`read_bandwidth`].
const PIECE: usize = 1 << 20;

/// Reads `bytes` bytes of memory (rounded up to MiB) `passes` times with all threads of the pool; the best pass, GB/s.
///
/// # Errors
/// If the system does not give the memory.
pub fn read_bandwidth(pool: &Pool, bytes: usize, passes: usize) -> std::io::Result<f64> {
    let memory = filled(bytes.div_ceil(PIECE).max(1) * PIECE).map_err(|e| e.source)?;
    let speeds = memory_speeds(pool, &memory, passes);
    Ok(speeds.into_iter().fold(0.0, f64::max))
}

/// Memory on huge pages where the system gives them, written: untouched pages are all the same page of zeros.
pub(super) fn filled(bytes: usize) -> Result<Region, MemoryError> {
    let mut region = Region::new(bytes, "measuring memory")?;
    for element in region.as_mut_slice().chunks_exact_mut(4) {
        element.copy_from_slice(&1f32.to_ne_bytes());
    }
    Ok(region)
}

/// The speed of each pass over a memory of whole pieces, GB/s.
pub(super) fn memory_speeds(pool: &Pool, memory: &Region, passes: usize) -> Vec<f64> {
    let elements: &[f32] = bytemuck::cast_slice(memory.as_slice());
    let pass = |_| {
        let start = Instant::now();
        std::hint::black_box(read_once(pool, elements));
        memory.len() as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..passes.max(1)).map(pass).collect()
}

/// Reads whole pieces with all threads; gives the sum of the elements, of which those of a piece are added up in f32.
fn read_once(pool: &Pool, elements: &[f32]) -> f64 {
    let tier = Tier::detect();
    let sum = Mutex::new(0.0);
    pool.run(&|worker| {
        let mut own = 0.0;
        worker.share(elements.len() / (PIECE / 4), |piece| {
            let piece = &elements[piece * (PIECE / 4)..][..PIECE / 4];
            // SAFETY: the tier was detected.
            own += f64::from(unsafe { tier.dispatch(Sum::<true>(piece, 1)) });
        });
        *sum.lock().unwrap_or_else(PoisonError::into_inner) += own;
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The speed at which every thread reads `each` bytes of its own, again and again, so that they stay in its cache: GB/s of
/// all threads, `samples` times. `memory` holds the threads' parts one after the other.
pub(super) fn cache_speeds(pool: &Pool, memory: &Region, each: usize, samples: usize) -> Vec<f64> {
    let elements: &[f32] = bytemuck::cast_slice(memory.as_slice());
    let tier = Tier::detect();
    // Long enough that starting the threads is nothing.
    let passes = (SAMPLE_BYTES / each).max(1);
    let sample = |_| {
        let start = Instant::now();
        pool.run(&|worker| {
            let own = &elements[worker.index() * (each / 4)..][..each / 4];
            // SAFETY: the tier was detected.
            std::hint::black_box(unsafe { tier.dispatch(Sum::<false>(own, passes)) });
        });
        (passes * each * pool.threads()) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    // The first brings it into the cache.
    (0..=samples).map(sample).skip(1).collect()
}

/// Bytes that a thread reads in a sample of [`cache_speeds`].
const SAMPLE_BYTES: usize = 256 << 20;

/// What lengths must be a multiple of: two vectors of the widest tier in each stream, bytes.
pub(super) const UNIT: usize = STREAMS * 2 * 16 * 4;

/// The sum of a slice whose length is a multiple of 128, so many times over, read as the GEMM reads panels: four streams
/// side by side, from memory each asked for a page ahead.
struct Sum<'a, const AHEAD: bool>(&'a [f32], usize);

/// Streams of [`Sum`].
const STREAMS: usize = 4;

impl<const AHEAD: bool> Kernel for Sum<'_, AHEAD> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let stream = self.0.len() / STREAMS;
        // SAFETY: every stream is a whole number of two vectors; the caller vouches for the instruction set.
        unsafe {
            // Eight by name: as an array they would be kept in memory.
            let zero = S::zero();
            let (mut a0, mut a1, mut b0, mut b1) = (zero, zero, zero, zero);
            let (mut c0, mut c1, mut d0, mut d1) = (zero, zero, zero, zero);
            let a = self.0.as_ptr();
            let (b, c, d) = (a.add(stream), a.add(2 * stream), a.add(3 * stream));
            for _ in 0..self.1 {
                let mut i = 0;
                while i < stream {
                    let next = i + S::LANES;
                    if AHEAD {
                        let ahead = |from: *const f32| from.wrapping_add(i + 1024).cast::<u8>();
                        S::prefetch(ahead(a));
                        S::prefetch(ahead(b));
                        S::prefetch(ahead(c));
                        S::prefetch(ahead(d));
                        let ahead = |from: *const f32| from.wrapping_add(next + 1024).cast::<u8>();
                        S::prefetch(ahead(a));
                        S::prefetch(ahead(b));
                        S::prefetch(ahead(c));
                        S::prefetch(ahead(d));
                    }
                    a0 = S::add(a0, S::load(a.add(i)));
                    b0 = S::add(b0, S::load(b.add(i)));
                    c0 = S::add(c0, S::load(c.add(i)));
                    d0 = S::add(d0, S::load(d.add(i)));
                    a1 = S::add(a1, S::load(a.add(next)));
                    b1 = S::add(b1, S::load(b.add(next)));
                    c1 = S::add(c1, S::load(c.add(next)));
                    d1 = S::add(d1, S::load(d.add(next)));
                    i += 2 * S::LANES;
                }
            }
            let left = S::add(S::add(a0, a1), S::add(b0, b1));
            S::sum(S::add(left, S::add(S::add(c0, c1), S::add(d0, d1))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_every_tier() {
        let numbers: Vec<f32> = (0..1280).map(|i| (i % 7) as f32).collect();
        for tier in crate::tiers::tests::available() {
            let sum = numbers.iter().sum::<f32>();
            // SAFETY: the tier is available.
            assert_eq!(unsafe { tier.dispatch(Sum::<true>(&numbers, 1)) }, sum);
            // SAFETY: the tier is available.
            assert_eq!(unsafe { tier.dispatch(Sum::<false>(&numbers, 3)) }, 3.0 * sum);
        }
    }

    /// All of it, each byte once: the sum of small whole numbers is exact.
    #[test]
    fn memory_is_read() {
        let mut memory = filled(3 * PIECE).unwrap();
        assert_eq!(memory.len(), 3 * PIECE);
        for threads in 1..=3 {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(read_once(&pool, bytemuck::cast_slice(memory.as_slice())), (3 * PIECE / 4) as f64);
        }
        let mut all = 0.0;
        for (i, element) in memory.as_mut_slice().chunks_exact_mut(4).enumerate() {
            let x = (i % 61) as f32;
            all += f64::from(x);
            element.copy_from_slice(&x.to_ne_bytes());
        }
        assert_eq!(read_once(&Pool::new(2).unwrap(), bytemuck::cast_slice(memory.as_slice())), all);
        assert_eq!(memory_speeds(&Pool::new(1).unwrap(), &memory, 3).len(), 3);
    }
}
