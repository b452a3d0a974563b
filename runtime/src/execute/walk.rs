//! What each thread does in a step of the session.

use super::prepare::{Arguments, Prepared, Task};
use crate::attention::{self, AttentionArgs, attention};
use crate::dot::dot;
use crate::gather::gather;
use crate::gemm::{GemmArgs, Output, gemm};
use crate::pool::Worker;
use crate::profile::{Laps, Track, Tracks};
use crate::tiers::Tier;
use llamac_formats::program::KernelArgs;
use std::time::Instant;

/// One run of an entry, the same for every thread.
pub(crate) struct Run<'a> {
    pub(crate) entry: &'a Prepared,
    pub(crate) tier: Tier,
    /// The routine table of compiled kernels.
    pub(crate) routines: &'a [usize],
    /// The rows, grouped by slot.
    pub(crate) segments: &'a [attention::Segment],
    /// As how many rows each of them is attended with where it has fewer.
    pub(crate) segment_like: usize,
    /// The first thread's scratch; the others' follow.
    pub(crate) scratch: *mut u8,
    /// Bytes from one thread's scratch to the next.
    pub(crate) scratch_stride: usize,
    /// Bytes of a thread's scratch that compiled kernels have; the routines' follow.
    pub(crate) kernel_scratch: usize,
    /// f32 elements that routines have.
    pub(crate) routine_scratch: usize,
    /// Scratch that all threads share.
    pub(crate) shared: *mut f32,
    /// Where the first thread notes its times.
    pub(crate) laps: Option<&'a Laps>,
    /// Where every thread notes when it did what.
    pub(crate) tracks: Option<&'a Tracks>,
    /// Which entry this is.
    pub(crate) index: usize,
}

// SAFETY: threads share it read-only; each reaches only its own part of `scratch`, and `shared` is ordered by barriers.
unsafe impl Sync for Run<'_> {}

/// Walks all steps of the entry together with the other workers.
///
/// # Safety
/// The entry must be resolved for the sizes of this step, its inputs checked and in place, and every worker of the
/// pool must make this call with the same run. The scratch must have room for every worker.
pub(crate) unsafe fn walk(worker: &Worker, run: &Run) {
    let laps = run.laps.filter(|_| worker.index() == 0);
    let track = run.tracks.map(|t| t.of(worker.index()));
    if laps.is_none() && track.is_none() {
        // SAFETY: the caller's promise.
        return unsafe { walk_with(worker, run, &mut Untimed) };
    }
    // SAFETY: the caller's promise.
    unsafe { walk_with(worker, run, &mut Stopwatch { laps, track, entry: run.index, last: Instant::now() }) }
}

/// Told where a thread is in the list of steps.
trait Observer {
    fn met(&mut self);
    fn done(&mut self, step: usize);
}

struct Untimed;

impl Observer for Untimed {
    #[inline(always)]
    fn met(&mut self) {}
    #[inline(always)]
    fn done(&mut self, _: usize) {}
}

struct Stopwatch<'a> {
    laps: Option<&'a Laps>,
    track: Option<&'a Track>,
    entry: usize,
    last: Instant,
}

impl Stopwatch<'_> {
    /// Ends what was going on, a step or a meeting (`None`); gives how long it took.
    fn lap(&mut self, step: Option<usize>) -> u64 {
        let now = Instant::now();
        let nanos = now.duration_since(self.last).as_nanos() as u64;
        if let Some(track) = self.track {
            track.note(self.entry, step, self.last, nanos);
        }
        self.last = now;
        nanos
    }
}

impl Observer for Stopwatch<'_> {
    fn met(&mut self) {
        let nanos = self.lap(None);
        if let Some(laps) = self.laps {
            laps.waited(nanos);
        }
    }

    fn done(&mut self, step: usize) {
        let nanos = self.lap(Some(step));
        if let Some(laps) = self.laps {
            laps.step(step, nanos);
        }
    }
}

unsafe fn walk_with(worker: &Worker, run: &Run, observer: &mut impl Observer) {
    // SAFETY: the scratch has room for every worker.
    let own = unsafe { run.scratch.add(worker.index() * run.scratch_stride) };
    // SAFETY: no other thread reaches this part, and compiled kernels have only the bytes before it.
    let routine =
        unsafe { std::slice::from_raw_parts_mut(own.add(run.kernel_scratch).cast::<f32>(), run.routine_scratch) };
    for (i, step) in run.entry.steps.iter().enumerate() {
        if step.barrier {
            worker.barrier();
            observer.met();
        }
        // SAFETY: the program was checked, the step is resolved, and the threads have met where the schedule says so.
        unsafe { perform(worker, run, &step.task, own, routine) };
        observer.done(i);
    }
    if run.laps.is_some() {
        worker.barrier();
        observer.met();
    }
}

fn kernel_args(arguments: &Arguments, run: &Run, scratch: *mut u8) -> KernelArgs {
    KernelArgs {
        buffers: arguments.buffers.as_ptr(),
        scalars: arguments.scalars.as_ptr(),
        routines: run.routines.as_ptr(),
        scratch,
    }
}

/// Does this thread's part of a step.
///
/// # Safety
/// As for [`walk`]; `own` and `routine` are this thread's scratch.
#[inline]
unsafe fn perform(worker: &Worker, run: &Run, task: &Task, own: *mut u8, routine: &mut [f32]) {
    match task {
        Task::Rows { kernel, arguments, count, grain } => {
            let args = kernel_args(arguments, run, own);
            let call = |begin: usize, end: usize| {
                // SAFETY: `Code` promises that the kernel keeps within its operands on rows below the count.
                unsafe { kernel(&args, begin as u64, end as u64) }
            };
            if worker.threads() == 1 || *count <= *grain {
                // One call does it all. Always the same thread makes it, so what it writes stays in its cache.
                if worker.index() == 0 && *count > 0 {
                    call(0, *count);
                }
            } else {
                worker.share(count.div_ceil(*grain), |i| call(i * grain, (i * grain + grain).min(*count)));
            }
        }
        Task::Gemm(g) if g.m > 0 => {
            let args;
            let output = match &g.epilogue {
                Some((kernel, paired, arguments)) => {
                    args = kernel_args(arguments, run, own);
                    Output::Epilogue { kernel: *kernel, args: &args, paired: *paired }
                }
                None => Output::Rows { out: g.out, stride: g.stride },
            };
            let work = GemmArgs {
                tier: run.tier,
                act: g.act,
                a: g.a,
                m: g.m,
                rows_like: g.rows_like,
                k: g.k,
                segments: &g.segments,
                output,
                packed: g.packed,
            };
            // SAFETY: operands were checked at the bounds and do not overlap; `args` outlives the call.
            unsafe { gemm(worker, &work, routine) }
        }
        Task::Dot(d) if d.m > 0 && d.n > 0 && !d.batch.contains(&0) => {
            // SAFETY: operands were checked at the bounds and do not overlap.
            unsafe { dot(worker, d) }
        }
        Task::Attention(a) => {
            let work = AttentionArgs {
                tier: run.tier,
                q: a.q,
                out: a.out,
                keys: a.keys,
                values: a.values,
                dtype: a.dtype,
                act: a.act,
                tokens: a.tokens,
                positions: a.positions,
                segments: run.segments,
                rows_like: run.segment_like,
                kv_heads: a.kv_heads,
                group: a.group,
                head_dim: a.head_dim,
                scale: a.scale,
                partials: run.shared,
            };
            // SAFETY: operands were checked at the bounds; positions and slots are within the cache; segments ascend.
            unsafe { attention(worker, &work, routine) }
        }
        Task::Gather(g) if g.count > 0 => {
            // SAFETY: every id is below its input's limit, which is at most the weight's rows.
            unsafe { gather(worker, g) }
        }
        Task::Gemm(_) | Task::Dot(_) | Task::Gather(_) => {}
    }
}
