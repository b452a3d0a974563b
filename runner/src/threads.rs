//! Threads as the options ask for them, and what reports say of them and of memory.

use crate::{Result, failure, warn};
use llamac_runtime::machine::{self, Crowd};
use llamac_runtime::{OpenOptions, Pool, Session};
use std::sync::Arc;

/// Most threads that can be asked for.
const MOST: usize = 1024;

/// How many threads: those asked for, or one for each physical core that this process may use.
///
/// # Errors
/// A number that no machine has.
pub fn count(threads: Option<usize>) -> Result<usize> {
    match threads {
        None => Ok(machine::default_threads()),
        Some(n @ 1..=MOST) => Ok(n),
        Some(n) => Err(failure(format!("-t: found {n}, expected 1 to {MOST} threads"))),
    }
}

/// So many threads, each bound to a processor if they are to be pinned. Says on stderr where they are more than this process
/// may keep running.
///
/// # Errors
/// A number that no machine has, or threads that cannot be started or bound.
pub fn pool(threads: Option<usize>, pin: bool) -> Result<Arc<Pool>> {
    let threads = count(threads)?;
    if let Some(crowd) = Crowd::of(threads) {
        warn(crowd);
    }
    let started = if pin { Pool::pinned(threads) } else { Pool::new(threads) };
    let pool = started.map_err(|e| match pin {
        true => failure(format!("--pin: the threads cannot be started or bound ({e}): leave --pin out")),
        false => failure(format!("the threads cannot be started: {e}")),
    })?;
    Ok(Arc::new(pool))
}

/// How an artifact is opened: its weights mapped, or read into memory of their own by as many threads as are to run.
///
/// # Errors
/// A number of threads that no machine has.
pub fn opening(no_mmap: bool, threads: Option<usize>) -> Result<OpenOptions> {
    Ok(OpenOptions { map_weights: !no_mmap, read_threads: count(threads)?, ..OpenOptions::default() })
}

/// Where its memory lies, in words: `memory: weights 2472.0 MB mapped from the file, 0% on huge pages; states …`.
pub fn memory(session: &Session) -> String {
    format!("memory: {}", session.backing().map(|(what, backing)| format!("{what} {backing}")).join("; "))
}

/// How a session runs, in words: `2 threads, pinned, tier amx, act bf16, kv f32`.
pub fn described(session: &Session) -> String {
    format!(
        "{} threads, {}tier {}, act {}, kv {}",
        session.pool().threads(),
        if session.pool().is_pinned() { "pinned, " } else { "" },
        session.tier().name(),
        session.program().act,
        session.program().kv
    )
}
