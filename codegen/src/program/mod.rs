//! Assembly: the plan's steps become work over memory operands, with every kernel compiled once.

mod contraction;
mod kernels;
mod memory;
mod steps;

use crate::error::{CodegenError, Result};
use crate::jit::JitCode;
use crate::pack::WeightPlan;
use crate::target::{Needs, Target, needs};
use kernels::Kernels;
use llamac_formats::program::{BufferInfo, Entry, PortInfo, Program, StateInfo};
use llamac_ir::{Graph, Op};
use llamac_passes::plan::{EntryPlan, Plan};
use memory::Memory;

/// What to generate code for, and what to call the build.
#[derive(Clone, Debug)]
pub struct Options {
    /// The instruction set.
    pub target: Target,
    /// What the activations are at each dot: `f32`.
    pub act: String,
    /// What the cache holds: `f32`.
    pub kv: String,
    /// The fusion setting: `none`, `rows`, `epilogue`, `attention`, `all`.
    pub fusion: String,
    /// Whether CLIF and disassembly are wanted.
    pub listings: bool,
}

impl Default for Options {
    fn default() -> Options {
        let f32 = || "f32".to_string();
        Options { target: Target::Native, act: f32(), kv: f32(), fusion: "all".into(), listings: false }
    }
}

/// A compiled plan.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The program.
    pub program: Program,
    /// The code section; kernels at multiples of 64 bytes.
    pub code: Vec<u8>,
    /// What the weight section holds.
    pub weights: WeightPlan,
    /// The kernels' texts, by `KernelId`.
    pub listings: Vec<Listing>,
    /// Counts.
    pub stats: Stats,
    /// What a machine must have to run the code.
    pub needs: Needs,
}

/// One kernel in its three forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The kernel's name.
    pub name: String,
    /// Loop IR.
    pub loops: String,
    /// CLIF; empty unless asked for.
    pub clif: String,
    /// Disassembly; empty unless asked for.
    pub asm: String,
}

/// How much was compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Regions lowered: steps of all entries that run a kernel.
    pub regions: usize,
    /// Distinct kernels among them.
    pub kernels: usize,
    /// Bytes of code.
    pub code_bytes: usize,
}

impl Compiled {
    /// The kernels, executable in this process.
    ///
    /// # Errors
    /// If the system refuses executable memory.
    pub fn jit(&self) -> Result<JitCode> {
        let kernels = &self.program.kernels;
        JitCode::map(kernels.iter().map(|k| &self.code[k.offset..k.offset + k.bytes]))
    }
}

/// Compiles the plan of a graph: the one that all entries were made from, whose inputs and outputs are the program's.
///
/// # Errors
/// A region that no kernel can be made of, a weight that cannot be packed, a plan that contradicts itself, a target that is
/// not supported.
pub fn compile(graph: &Graph, plan: &Plan, options: &Options) -> Result<Compiled> {
    if plan.entries.is_empty() {
        return Err(CodegenError::Plan("it has no entries".into()));
    }
    let isa = options.target.isa()?;
    let needs = needs(&*isa);
    let mut kernels = Kernels::new(isa, options.listings);
    let mut weights = WeightPlan::new();
    let mut states: Vec<StateInfo> = vec![];
    let inputs = inputs(graph);
    let outputs = outputs(graph);
    let mut entries = vec![];
    for plan in &plan.entries {
        let memory = Memory::new(plan, &inputs, &outputs, &mut states, &mut weights)?;
        entries.push(entry(plan, &memory, &mut kernels, &weights)?);
    }
    let stats = kernels.stats();
    let (infos, code, listings) = kernels.finish();
    let vocab = inputs.iter().find(|i| i.name == "tokens").and_then(|i| i.limit);
    let program = Program {
        name: graph.name.clone(),
        bounds: graph.bounds,
        act: options.act.clone(),
        kv: options.kv.clone(),
        fusion: options.fusion.clone(),
        vocab,
        weights: weights.infos(),
        states,
        inputs,
        outputs,
        kernels: infos,
        entries,
    };
    Ok(Compiled { program, code, weights, listings, stats, needs })
}

fn inputs(graph: &Graph) -> Vec<PortInfo> {
    let mut ports = vec![];
    for &inst in graph.order() {
        if let Op::Input { name, limit } = graph.op(inst) {
            let ty = graph.ty(graph.result(inst));
            let dims = ty.dims.iter().map(|d| d.extent()).collect();
            ports.push(PortInfo { name: name.clone(), dtype: ty.dtype, dims, limit: *limit });
        }
    }
    // Entries may order their leaves differently; the ports are the same.
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

fn outputs(graph: &Graph) -> Vec<PortInfo> {
    let port = |(name, value): &(String, llamac_ir::Value)| {
        let ty = graph.ty(*value);
        let dims = ty.dims.iter().map(|d| d.extent()).collect();
        PortInfo { name: name.clone(), dtype: ty.dtype, dims, limit: None }
    };
    graph.outputs().iter().map(port).collect()
}

fn entry(plan: &EntryPlan, memory: &Memory<'_>, kernels: &mut Kernels, weights: &WeightPlan) -> Result<Entry> {
    let mut steps = vec![];
    for planned in &plan.steps {
        steps.push(steps::step(plan, planned, memory, kernels, weights)?);
    }
    let buffers = plan
        .buffers
        .iter()
        .map(|b| BufferInfo { name: b.name.clone(), offset: b.offset, bytes: b.bytes, first: b.first, last: b.last })
        .collect();
    Ok(Entry {
        name: plan.name.clone(),
        bounds: plan.graph.bounds,
        steps,
        arena_bytes: plan.arena_bytes,
        arena_lower_bound: plan.arena_lower_bound,
        buffers,
    })
}
