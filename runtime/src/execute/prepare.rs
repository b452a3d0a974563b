//! Steps with addresses and numbers filled in.

use crate::attention;
use crate::dot::{BATCH_AXES, DotArgs};
use crate::gather::GatherArgs;
use crate::gemm::{self, EpilogueFn};
use crate::program::Executable;
use crate::strided::{Fetch, MAX_INDIRECTS, View};
use crate::tiers::Tier;
use llamac_formats::program::{Entry, Operand, Program, RowsWork, Work};
use llamac_formats::{Access, DType, Extent, Sizes, Sym};

/// A compiled row kernel.
pub(super) type RowKernel = unsafe extern "C" fn(*const llamac_formats::program::KernelArgs, u64, u64);

/// Addresses of everything an operand may name.
pub(crate) struct Bases {
    pub(crate) arena: *mut u8,
    pub(crate) weights: Vec<*mut u8>,
    pub(crate) states: Vec<*mut u8>,
    pub(crate) inputs: Vec<*mut u8>,
    pub(crate) outputs: Vec<*mut u8>,
}

impl Bases {
    fn address(&self, operand: Operand) -> *mut u8 {
        match operand {
            Operand::Arena(offset) => self.arena.wrapping_add(offset),
            Operand::Weight(i) => self.weights[i],
            Operand::State(i) => self.states[i],
            Operand::Input(i) => self.inputs[i],
            Operand::Output(i) => self.outputs[i],
        }
    }

    /// `access` with the axes at the end of the view's; the others have stride 0.
    fn view<const AXES: usize>(&self, access: &Access<Operand>, sizes: &Sizes) -> View<AXES> {
        self.view_of(DType::F32, access, sizes)
    }

    /// As [`Bases::view`], of elements of some type.
    fn view_of<const AXES: usize>(&self, dtype: DType, access: &Access<Operand>, sizes: &Sizes) -> View<AXES> {
        let pad = AXES - access.strides.len();
        let strides = |given: &[Extent]| -> [usize; AXES] {
            std::array::from_fn(|d| if d < pad { 0 } else { given[d - pad].value(sizes) })
        };
        let (elements, bytes) = dtype.block();
        let base = self.address(access.base).wrapping_add(access.offset.value(sizes) / elements * bytes).cast();
        let indirects: [Option<Fetch<AXES>>; MAX_INDIRECTS] = std::array::from_fn(|n| {
            access.indirects.get(n).map(|indirect| Fetch {
                index: self.address(indirect.index).cast::<i32>().wrapping_add(indirect.offset.value(sizes)),
                strides: strides(&indirect.strides),
                stride: indirect.stride.value(sizes),
            })
        });
        View { base, strides: strides(&access.strides), indirects }
    }
}

/// Buffers and scalars of one call of a compiled kernel.
pub(super) struct Arguments {
    pub(super) buffers: Box<[*mut u8]>,
    pub(super) scalars: Box<[u64]>,
}

impl Arguments {
    fn new(operands: &[Operand], scalars: &[Extent], bases: &Bases) -> Arguments {
        Arguments {
            buffers: operands.iter().map(|o| bases.address(*o)).collect(),
            scalars: vec![0; scalars.len()].into(),
        }
    }

    fn resolve(&mut self, scalars: &[Extent], sizes: &Sizes) {
        for (value, extent) in self.scalars.iter_mut().zip(scalars) {
            *value = extent.value(sizes) as u64;
        }
    }
}

/// A GEMM; `gemm::GemmArgs` but for what only the calling thread knows.
pub(super) struct Gemm {
    pub(super) act: DType,
    pub(super) a: View<2>,
    pub(super) m: usize,
    pub(super) rows_like: usize,
    pub(super) k: usize,
    pub(super) segments: Box<[gemm::Segment]>,
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) epilogue: Option<(EpilogueFn, bool, Arguments)>,
    pub(super) packed: *mut f32,
}

/// Attention; `attention::AttentionArgs` but for the segments.
pub(super) struct Attention {
    pub(super) q: View<4>,
    pub(super) out: View<4>,
    pub(super) keys: *const u8,
    pub(super) values: *const u8,
    pub(super) dtype: DType,
    pub(super) act: DType,
    pub(super) tokens: usize,
    pub(super) positions: *const i32,
    pub(super) kv_heads: usize,
    pub(super) group: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f32,
}

/// The work of a step, resolved.
pub(super) enum Task {
    Rows { kernel: RowKernel, arguments: Arguments, count: usize, grain: usize },
    Gemm(Gemm),
    Dot(Box<DotArgs>),
    Attention(Box<Attention>),
    Gather(GatherArgs),
}

/// A step, resolved.
pub(super) struct PreparedStep {
    pub(super) barrier: bool,
    pub(super) task: Task,
    /// Which of S, R, T its numbers depend on.
    depends: [bool; 3],
}

/// The sizes of a step, and those by which its kernels are chosen: the same, or larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepSizes {
    pub(crate) own: Sizes,
    pub(crate) like: Sizes,
}

/// An entry, resolved for the sizes of the last step that ran.
pub(crate) struct Prepared {
    pub(super) steps: Vec<PreparedStep>,
    sizes: Option<StepSizes>,
}

// SAFETY: the addresses in it are of the session's own memory, which moves to another thread together with it; while
// steps run it is only read.
unsafe impl Send for Prepared {}
// SAFETY: as above; what the threads write behind the addresses is ordered by the barriers of the program.
unsafe impl Sync for Prepared {}

impl Prepared {
    /// Fills in the addresses of an entry.
    pub(crate) fn new(executable: &Executable, entry: &Entry, bases: &Bases, tier: Tier) -> Prepared {
        let mut steps = Vec::with_capacity(entry.steps.len());
        // Attention steps share one scratch: threads must not run ahead from one to the next.
        let mut shared_busy = false;
        for step in &entry.steps {
            let is_attention = matches!(step.work, Work::Attention(_));
            let barrier = step.barrier || (is_attention && shared_busy);
            shared_busy = is_attention || (shared_busy && !barrier);
            let mut depends = [false; 3];
            extents(&step.work, &mut |extent| {
                for sym in Sym::ALL {
                    depends[sym as usize] |= extent.powers[sym as usize] > 0;
                }
            });
            // What spans all rows of a step takes their number from the step.
            depends[Sym::Rows as usize] |= is_attention;
            steps.push(PreparedStep { barrier, task: task(executable, &step.work, bases, tier), depends });
        }
        Prepared { steps, sizes: None }
    }

    /// Makes the numbers those of a step of these sizes, all of them within the entry's bounds.
    pub(crate) fn resolve(&mut self, entry: &Entry, bases: &Bases, sizes: &StepSizes) {
        let differs = |old: &StepSizes, s| old.own.get(s) != sizes.own.get(s) || old.like.get(s) != sizes.like.get(s);
        let changed = Sym::ALL.map(|s| self.sizes.is_none_or(|old| differs(&old, s)));
        if changed == [false; 3] {
            return;
        }
        let first = self.sizes.is_none();
        for (prepared, step) in self.steps.iter_mut().zip(&entry.steps) {
            if first || (0..3).any(|i| changed[i] && prepared.depends[i]) {
                resolve(&mut prepared.task, &step.work, bases, sizes);
            }
        }
        self.sizes = Some(*sizes);
    }
}

/// Every extent of a step.
fn extents(work: &Work, each: &mut dyn FnMut(Extent)) {
    fn access(access: &Access<Operand>, each: &mut dyn FnMut(Extent)) {
        each(access.offset);
        access.strides.iter().for_each(|e| each(*e));
        for indirect in &access.indirects {
            each(indirect.offset);
            each(indirect.stride);
            indirect.strides.iter().for_each(|e| each(*e));
        }
    }
    match work {
        Work::Rows(RowsWork { count, scalars, .. }) => {
            each(*count);
            scalars.iter().for_each(|e| each(*e));
        }
        Work::Gemm(work) => {
            access(&work.a, each);
            each(work.m);
            work.epilogue.iter().flat_map(|e| &e.scalars).for_each(|e| each(*e));
        }
        Work::Dot(work) => {
            work.batch.iter().chain([&work.m, &work.n, &work.k]).for_each(|e| each(*e));
            [&work.lhs, &work.rhs, &work.out].into_iter().for_each(|a| access(a, each));
        }
        Work::Attention(work) => [&work.q, &work.out].into_iter().for_each(|a| access(a, each)),
        Work::Gather(work) => each(work.count),
    }
}

/// A step with its addresses, its numbers still those of no size.
fn task(executable: &Executable, work: &Work, bases: &Bases, tier: Tier) -> Task {
    let program = executable.program();
    let none = Sizes::default();
    match work {
        Work::Rows(work) => Task::Rows {
            // SAFETY: `Code` promises that this is the entry of a row kernel, and the program calls it as nothing else.
            kernel: unsafe { std::mem::transmute::<*const u8, RowKernel>(executable.kernel(work.kernel)) },
            arguments: Arguments::new(&work.operands, &work.scalars, bases),
            count: 0,
            grain: work.grain,
        },
        Work::Gemm(work) => Task::Gemm(Gemm {
            act: work.act,
            a: bases.view_of(work.act, &work.a, &none),
            m: 0,
            rows_like: 0,
            k: work.k,
            segments: work
                .segments
                .iter()
                .map(|s| gemm::Segment {
                    panels: bases.weights[s.weight],
                    dtype: program.weights[s.weight].dtype,
                    first: s.first,
                    step: s.step,
                    n: s.n,
                })
                .collect(),
            // With an epilogue it names nothing, and was not checked.
            out: if work.epilogue.is_some() { std::ptr::null_mut() } else { bases.address(work.out).cast() },
            stride: work.segments.iter().map(|s| s.n).sum(),
            epilogue: work.epilogue.as_ref().map(|e| {
                // SAFETY: `Code` promises that this is the entry of an epilogue, and the program calls it as nothing else.
                let kernel = unsafe { std::mem::transmute::<*const u8, EpilogueFn>(executable.kernel(e.kernel)) };
                (kernel, e.paired, Arguments::new(&e.operands, &e.scalars, bases))
            }),
            packed: work.scratch.map_or(std::ptr::null_mut(), |s| bases.address(s).cast()),
        }),
        Work::Dot(work) => Task::Dot(Box::new(DotArgs {
            tier,
            batch: [1; BATCH_AXES],
            m: 0,
            n: 0,
            k: 0,
            lhs: bases.view(&work.lhs, &none),
            rhs: bases.view(&work.rhs, &none),
            out: bases.view(&work.out, &none),
        })),
        Work::Attention(work) => Task::Attention(Box::new(Attention {
            q: bases.view(&work.q, &none),
            out: bases.view(&work.out, &none),
            keys: bases.states[work.keys],
            values: bases.states[work.values],
            dtype: program.states[work.keys].dtype,
            act: work.act,
            tokens: program.states[work.keys].dims[2],
            positions: bases.address(work.positions).cast(),
            kv_heads: work.kv_heads,
            group: work.group,
            head_dim: work.head_dim,
            scale: work.scale,
        })),
        Work::Gather(work) => Task::Gather(GatherArgs {
            panels: bases.weights[work.weight],
            dtype: program.weights[work.weight].dtype,
            width: program.weights[work.weight].dims[1],
            ids: bases.address(work.ids).cast(),
            count: 0,
            out: bases.address(work.out).cast(),
        }),
    }
}

/// Fills in the numbers of a step.
fn resolve(task: &mut Task, work: &Work, bases: &Bases, sizes: &StepSizes) {
    let StepSizes { own: sizes, like } = sizes;
    match (task, work) {
        (Task::Rows { arguments, count, .. }, Work::Rows(work)) => {
            arguments.resolve(&work.scalars, sizes);
            *count = work.count.value(sizes);
        }
        (Task::Gemm(gemm), Work::Gemm(work)) => {
            gemm.a = bases.view_of(work.act, &work.a, sizes);
            gemm.m = work.m.value(sizes);
            gemm.rows_like = work.m.value(like);
            if let (Some((_, _, arguments)), Some(epilogue)) = (&mut gemm.epilogue, &work.epilogue) {
                arguments.resolve(&epilogue.scalars, sizes);
            }
        }
        (Task::Dot(args), Work::Dot(work)) => {
            let pad = BATCH_AXES - work.batch.len();
            args.batch = std::array::from_fn(|d| if d < pad { 1 } else { work.batch[d - pad].value(sizes) });
            (args.m, args.n, args.k) = (work.m.value(sizes), work.n.value(sizes), work.k.value(sizes));
            args.lhs = bases.view(&work.lhs, sizes);
            args.rhs = bases.view(&work.rhs, sizes);
            args.out = bases.view(&work.out, sizes);
        }
        (Task::Attention(attention), Work::Attention(work)) => {
            attention.q = bases.view(&work.q, sizes);
            attention.out = bases.view(&work.out, sizes);
        }
        (Task::Gather(args), Work::Gather(work)) => args.count = work.count.value(sizes),
        // A task is made from the work at the same place of the same entry.
        _ => debug_assert!(false, "a task belongs to other work"),
    }
}

/// Bytes of private scratch that compiled kernels of the program need.
pub(crate) fn kernel_scratch(program: &Program) -> usize {
    program.kernels.iter().map(|k| k.scratch).max().unwrap_or(0)
}

fn works(program: &Program) -> impl Iterator<Item = (&Entry, &Work)> {
    program.entries.iter().flat_map(|e| e.steps.iter().map(move |s| (e, &s.work)))
}

/// f32 elements of private scratch that the routines of the program need.
pub(crate) fn routine_scratch(program: &Program) -> usize {
    let need = works(program).map(|(entry, work)| match work {
        Work::Gemm(work) => {
            gemm::thread_scratch(work.act, work.m.value(&entry.bounds.sizes()), work.k, work.segments.len())
        }
        Work::Attention(work) => attention::thread_scratch(work.head_dim, work.act),
        Work::Rows(_) | Work::Dot(_) | Work::Gather(_) => 0,
    });
    need.max().unwrap_or(0)
}

/// f32 elements of scratch that all threads share.
pub(crate) fn shared_scratch(program: &Program) -> usize {
    let need = works(program).map(|(entry, work)| match work {
        Work::Attention(work) => {
            let tokens = program.states[work.keys].dims[2];
            // Each segment has a slot of its own.
            let segments = entry.bounds.rows.min(program.bounds.slots);
            attention::shared_scratch(tokens, segments, work.kv_heads, work.group, work.head_dim)
        }
        _ => 0,
    });
    need.max().unwrap_or(0)
}
