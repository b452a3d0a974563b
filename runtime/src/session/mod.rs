//! A session: the states, the memory and the threads with which a program's steps are run.

mod batch;
mod data;
mod error;
mod generator;
mod like;
mod perplexity;
mod prefill;
mod rows;

pub use batch::{Batch, Chosen};
pub use data::Data;
pub use error::{GenerateError, StepError};
pub use generator::{Generator, Logits, Row};
pub use perplexity::{Perplexity, PerplexityError};

use crate::execute::{Bases, Prepared, Run, kernel_scratch, routine_scratch, shared_scratch, walk};
use crate::memory::{ALIGN, Backing, Region};
use crate::pool::{Pool, Worker};
use crate::profile::{Clock, EntryTimes, ProfileTable, ThreadTrace};
use crate::program::{Executable, Layout, OpenError};
use crate::routines::routines;
use crate::tiers::Tier;
use like::Like;
use llamac_formats::Sizes;
use llamac_formats::program::Program;
use rows::Rows;
use std::sync::Arc;
use std::time::Instant;

/// Threads keep this far apart, so that none shares a page with another.
const SCRATCH_ALIGN: usize = 4096;

/// Runs steps of one program, one at a time. Its states are zero at the start and are kept from step to step.
pub struct Session {
    executable: Arc<Executable>,
    pool: Arc<Pool>,
    tier: Tier,
    routines: Box<[usize]>,
    layout: Layout,
    bases: Bases,
    entries: Vec<Prepared>,
    rows: Rows,
    last: Option<Sizes>,
    /// Bytes of each input that the last step was given.
    given: Vec<usize>,
    clock: Option<Clock>,
    scratch: ThreadScratch,
    states: Region,
    inputs: Region,
    outputs: Region,
    // Steps reach the arena through `bases` alone.
    arena: Region,
}

// SAFETY: the addresses in `bases` are of the regions that the session owns and of the weights, which nobody writes;
// they move along with it.
unsafe impl Send for Session {}

struct ThreadScratch {
    region: Region,
    stride: usize,
    kernel: usize,
    routine: usize,
    shared: usize,
}

impl ThreadScratch {
    fn new(program: &Program, threads: usize) -> Result<ThreadScratch, OpenError> {
        let size = || OpenError::Size { what: "scratch", program: program.name.clone() };
        let routine = routine_scratch(program);
        let kernel = kernel_scratch(program).checked_next_multiple_of(ALIGN).ok_or_else(size)?;
        let bytes = |elements: usize| elements.checked_mul(4);
        let stride = bytes(routine).and_then(|r| r.checked_add(kernel)?.checked_next_multiple_of(SCRATCH_ALIGN));
        let stride = stride.ok_or_else(size)?;
        let shared = stride.checked_mul(threads).ok_or_else(size)?;
        let whole = bytes(shared_scratch(program)).and_then(|s| s.checked_add(shared)).ok_or_else(size)?;
        let region = Region::new(whole, "the threads' scratch")?;
        Ok(ThreadScratch { region, stride, kernel, routine, shared })
    }
}

impl Session {
    /// Reserves everything that steps need; nothing is allocated after. Sessions may share a pool, and take turns then.
    ///
    /// # Errors
    /// [`OpenError`] where memory cannot be had or the machine has not the tier.
    pub fn new(executable: Arc<Executable>, pool: Arc<Pool>, tier: Tier) -> Result<Session, OpenError> {
        if !tier.available() {
            return Err(OpenError::NoTier { tier, best: Tier::detect() });
        }
        let layout = executable.layout()?;
        let program = executable.program();
        let states = Region::new(layout.state_bytes, "the states")?;
        let inputs = Region::new(layout.input_bytes, "the inputs")?;
        let outputs = Region::new(layout.output_bytes, "the outputs")?;
        let arena = Region::new(layout.arena_bytes, "the arena")?;
        let scratch = ThreadScratch::new(program, pool.threads())?;
        let at = |region: &Region, offsets: &[usize]| {
            let base = region.address();
            offsets.iter().map(|o| base.wrapping_add(*o)).collect::<Vec<_>>()
        };
        let weights: Vec<usize> = program.weights.iter().map(|w| w.offset).collect();
        let bases = Bases {
            arena: arena.address(),
            weights: at(executable.weights(), &weights),
            states: at(&states, &layout.states),
            inputs: at(&inputs, &layout.inputs),
            outputs: at(&outputs, &layout.outputs),
        };
        let entries = program.entries.iter().map(|e| Prepared::new(&executable, e, &bases, tier)).collect();
        Ok(Session {
            pool,
            tier,
            routines: routines(tier).into(),
            rows: Rows::new(program),
            last: None,
            given: vec![0; layout.inputs.len()],
            clock: None,
            arena,
            executable,
            layout,
            bases,
            entries,
            scratch,
            states,
            inputs,
            outputs,
        })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        self.executable.program()
    }

    /// The instruction set of the routines.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The threads.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// What weights, states (the cache) and arena lie on now. What no step has written yet has no pages.
    pub fn backing(&self) -> [(&'static str, Backing); 3] {
        let of = [("weights", self.executable.weights()), ("states", &self.states), ("arena", &self.arena)];
        of.map(|(what, region)| (what, region.backing()))
    }

    /// Bytes that the session keeps: states, inputs, outputs and arena at their bounds, and scratch. Pages that no step
    /// has touched cost nothing.
    pub fn reserved_bytes(&self) -> usize {
        let Layout { state_bytes, input_bytes, output_bytes, arena_bytes, .. } = self.layout;
        state_bytes + input_bytes + output_bytes + arena_bytes + self.scratch.region.len()
    }

    /// Which entry runs a step of these sizes: the first whose bounds hold it. An entry for one row and one output has
    /// them fixed, and runs nothing smaller.
    pub fn entry(&self, sizes: &Sizes) -> Option<usize> {
        self.program().entries.iter().position(|e| {
            let b = &e.bounds;
            let holds = sizes.rows <= b.rows && sizes.outputs <= b.outputs && sizes.tokens <= b.tokens;
            holds && !(b.rows == 1 && b.outputs == 1 && sizes.outputs == 0)
        })
    }

    /// Whether a step of these sizes would be run.
    pub fn holds(&self, sizes: &Sizes) -> bool {
        sizes.rows > 0 && self.entry(sizes).is_some()
    }

    /// Runs one step on the inputs, by name, in any order: all of them, each once.
    ///
    /// Where the program has positions and slots, the rows of a slot must lie together and their positions ascend.
    ///
    /// # Errors
    /// [`StepError`]; a refused step changes nothing, and the outputs of the last one stay.
    pub fn step(&mut self, inputs: &[(&str, Data<'_>)]) -> Result<Outputs<'_>, StepError> {
        self.step_like(inputs, Like::default())
    }

    /// As [`Session::step`], with the entry and the kernels that a step of other sizes has.
    fn step_like(&mut self, inputs: &[(&str, Data<'_>)], like: Like) -> Result<Outputs<'_>, StepError> {
        let start = self.clock.is_some().then(Instant::now);
        let executable = Arc::clone(&self.executable);
        let program = executable.program();
        let sizes =
            like.sizes(rows::measure(program, executable.row_ports(), inputs, &mut self.rows)?, &program.bounds);
        let index = self.entry(&sizes.like).ok_or(StepError::TooLarge {
            rows: sizes.like.rows,
            outputs: sizes.like.outputs,
            tokens: sizes.like.tokens,
            most_rows: program.bounds.rows,
            most_outputs: program.bounds.outputs,
            most_tokens: program.bounds.tokens,
        })?;
        for ((port, offset), given) in program.inputs.iter().zip(&self.layout.inputs).zip(&mut self.given) {
            if let Some((_, data)) = inputs.iter().find(|(name, _)| *name == port.name) {
                let bytes = data.bytes();
                let memory = &mut self.inputs.as_mut_slice()[*offset..];
                memory[..bytes.len()].copy_from_slice(bytes);
                // What an earlier step left behind was checked for that step's sizes; 0 is in range for every one.
                if let Some(left) = memory.get_mut(bytes.len()..*given) {
                    left.fill(0);
                }
                *given = bytes.len();
            }
        }
        self.entries[index].resolve(&program.entries[index], &self.bases, &sizes);
        let scratch = self.scratch.region.address();
        let run = Run {
            entry: &self.entries[index],
            tier: self.tier,
            routines: &self.routines,
            segments: &self.rows.segments,
            segment_like: like.of_a_slot,
            scratch,
            scratch_stride: self.scratch.stride,
            kernel_scratch: self.scratch.kernel,
            routine_scratch: self.scratch.routine,
            shared: scratch.wrapping_add(self.scratch.shared).cast(),
            laps: self.clock.as_ref().map(|c| c.entry(index)),
            tracks: self.clock.as_ref().and_then(Clock::tracks),
            index,
        };
        self.pool.run(&|worker: &Worker| {
            // SAFETY: the program was checked when it was loaded, the inputs just now, and the entry is resolved for
            // their sizes; every worker makes this call; the scratch was made for this pool.
            unsafe { walk(worker, &run) }
        });
        if let (Some(start), Some(laps)) = (start, run.laps) {
            laps.ran(start.elapsed().as_nanos() as u64);
        }
        self.last = Some(sizes.own);
        Ok(Outputs { session: self, sizes: sizes.own })
    }

    /// The outputs of the last step, if there was one.
    pub fn outputs(&self) -> Option<Outputs<'_>> {
        Some(Outputs { session: self, sizes: self.last? })
    }

    /// Makes all states zero again.
    pub fn reset(&mut self) {
        self.states.zero();
    }

    /// Copies the first `tokens` tokens that slot `from` holds to slot `to`, in every state. A state that is not
    /// `[slots, …, tokens, …]` is copied whole for the slot.
    ///
    /// # Errors
    /// [`GenerateError::NoSlot`], or [`GenerateError::NotBySlot`] if a state's first axis is not the slots.
    pub fn copy_slot(&mut self, from: usize, to: usize, tokens: usize) -> Result<(), GenerateError> {
        let executable = Arc::clone(&self.executable);
        let program = executable.program();
        let bounds = &program.bounds;
        for slot in [from, to] {
            if slot >= bounds.slots {
                return Err(GenerateError::NoSlot { slot, slots: bounds.slots });
            }
        }
        if let Some(state) = program.states.iter().find(|s| s.dims.first() != Some(&bounds.slots)) {
            return Err(GenerateError::NotBySlot { state: state.name.clone() });
        }
        for (state, offset) in program.states.iter().zip(&self.layout.states) {
            let bytes = |dims: &[usize]| state.dtype.storage_of(dims).unwrap_or(0);
            let slot = bytes(&state.dims[1..]);
            // What lies together: the tokens of one head, of which the first are copied.
            let (block, part) = match state.dims[..] {
                [_, _, t, d] if t == bounds.tokens => (bytes(&[t, d]), bytes(&[tokens.min(t), d])),
                _ => (slot, slot),
            };
            let (source, target) = (offset + from * slot, offset + to * slot);
            let memory = self.states.as_mut_slice();
            for at in (0..slot).step_by(block.max(1)) {
                memory.copy_within(source + at..source + at + part, target + at);
            }
        }
        Ok(())
    }

    /// The bytes of a state, `[slots, kv_heads, tokens, head_dim]` for a cache.
    pub fn state(&self, name: &str) -> Option<Data<'_>> {
        let index = self.program().states.iter().position(|s| s.name == name)?;
        let info = &self.program().states[index];
        let bytes = info.dtype.storage_of(&info.dims).unwrap_or(0);
        let offset = self.layout.states[index];
        Some(Data::cast(info.dtype, &self.states.as_slice()[offset..offset + bytes]))
    }

    /// Starts to measure, from nothing, or stops. It costs a few tens of nanoseconds per step of the program.
    pub fn set_profiling(&mut self, on: bool) {
        self.clock = on.then(|| Clock::new(self.executable.program()));
    }

    /// Forgets what was measured.
    pub fn clear_profile(&mut self) {
        if let Some(clock) = &mut self.clock {
            clock.clear();
        }
    }

    /// Measures as [`Session::set_profiling`] does, and keeps up to `events` events of each thread beside: a step of the
    /// program is one, and so is each meeting of the threads.
    pub fn trace(&mut self, events: usize) {
        let mut clock = Clock::new(self.executable.program());
        clock.trace(self.pool.threads(), events);
        self.clock = Some(clock);
    }

    /// The events of each thread, first to last; empty if not tracing.
    pub fn traced(&self) -> Vec<ThreadTrace> {
        self.clock.as_ref().map_or_else(Vec::new, Clock::traced)
    }

    /// What was measured of each entry of the program; empty if not measuring.
    pub fn times(&self) -> Vec<EntryTimes> {
        self.clock.as_ref().map_or_else(Vec::new, Clock::times)
    }

    /// What was measured, if measuring; `grouped` adds up what differs only by a number (the layers).
    pub fn profile(&self, grouped: bool) -> Option<ProfileTable> {
        Some(self.clock.as_ref()?.table(self.program(), grouped))
    }
}

/// The outputs of a step.
#[derive(Clone, Copy)]
pub struct Outputs<'a> {
    session: &'a Session,
    sizes: Sizes,
}

impl<'a> Outputs<'a> {
    /// The sizes of the step.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// An output by its index in the program.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn at(&self, index: usize) -> Data<'a> {
        let session = self.session;
        let port = &session.executable.program().outputs[index];
        let elements: usize = port.dims.iter().map(|d| d.value(&self.sizes)).product();
        let offset = session.layout.outputs[index];
        let bytes = port.dtype.storage(elements).unwrap_or(0);
        Data::cast(port.dtype, &session.outputs.as_slice()[offset..offset + bytes])
    }

    /// An output by its name.
    pub fn get(&self, name: &str) -> Option<Data<'a>> {
        let outputs = &self.session.executable.program().outputs;
        outputs.iter().position(|p| p.name == name).map(|i| self.at(i))
    }
}
