//! What the machine has: cores, features, read bandwidth.

use crate::pool::Pool;

/// The processor's name.
pub fn processor() -> String {
    unimplemented!()
}

/// Physical cores that this process may use, by affinity and cgroup quota: the default number of threads, at least 1.
pub fn default_threads() -> usize {
    unimplemented!()
}

/// Reads `bytes` bytes of memory `passes` times with all threads of the pool; the best pass, in GB/s.
pub fn read_bandwidth(pool: &Pool, bytes: usize, passes: usize) -> std::io::Result<f64> {
    let _ = (pool, bytes, passes);
    unimplemented!()
}
