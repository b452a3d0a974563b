//! Plans to programs: every planned step becomes work that the runtime knows, every kernel is compiled once.
//!
//! The assembler walks the steps of each entry. What a GEMM, a dot, attention or a gather does is read off the
//! instruction and the accesses of its operands; everything else is lowered to a kernel. Kernels are told apart by their
//! loop IR alone, so layers and entries share them.

mod dot;
mod gemm;
mod kernels;
mod memory;
mod steps;

pub use kernels::Listing;

use crate::error::{CodegenError, Result};
use crate::jit::JitCode;
use crate::pack::WeightPlan;
use crate::target::Target;
use kernels::Kernels;
use llamac_formats::program::{BufferInfo, Entry, PortInfo, Program, StateInfo};
use llamac_ir::{Graph, Op};
use llamac_passes::plan::{EntryPlan, Plan};

/// What a program is made for, and what it says of itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CPU.
    pub target: Target,
    /// What the activations are at each dot, for reports.
    pub act: String,
    /// What the cache holds, for reports.
    pub kv: String,
    /// The fusion setting, for reports.
    pub fusion: String,
}

impl Options {
    /// Names taken from the passes' switches.
    pub fn new(passes: &llamac_passes::Options, target: Target) -> Options {
        Options { target, act: passes.act.to_string(), kv: passes.kv.to_string(), fusion: passes.fusion.to_string() }
    }
}

/// A compiled graph, but for the bytes of its weights.
#[derive(Debug)]
pub struct Compiled {
    /// The program.
    pub program: Program,
    /// The code section.
    pub code: Vec<u8>,
    /// What the weight section holds; see [`crate::pack::pack`].
    pub weights: WeightPlan,
    /// Every kernel as text, by `KernelId`.
    pub listings: Vec<Listing>,
}

impl Compiled {
    /// Puts the kernels into executable memory of this process.
    ///
    /// # Errors
    /// [`CodegenError::Map`] if the system refuses the memory.
    pub fn jit(&self) -> Result<JitCode> {
        let kernels: Vec<(String, Vec<u8>)> = self
            .program
            .kernels
            .iter()
            .map(|k| (k.name.clone(), self.code[k.offset..k.offset + k.bytes].to_vec()))
            .collect();
        JitCode::new(&kernels)
    }
}

/// Compiles a planned graph. `graph` is what was planned, with its dynamic dimensions: it names the ports.
///
/// # Errors
/// [`CodegenError`] naming the step that cannot be done.
pub fn compile(graph: &Graph, plan: &Plan, options: &Options) -> Result<Compiled> {
    let mut assembler = Assembler {
        weights: WeightPlan::new(),
        kernels: Kernels::new(options.target)?,
        inputs: inputs(graph),
        states: states(graph),
    };
    let entries = plan.entries.iter().map(|e| assembler.entry(e)).collect::<Result<Vec<_>>>()?;
    let Assembler { weights, kernels, inputs, states } = assembler;
    let (infos, code, listings) = kernels.finish();
    let vocab = inputs.iter().find(|p| p.name == "tokens").and_then(|p| p.limit);
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
        outputs: outputs(graph),
        kernels: infos,
        entries,
    };
    Ok(Compiled { program, code, weights, listings })
}

/// What is shared by the entries of a program while it is put together.
struct Assembler {
    weights: WeightPlan,
    kernels: Kernels,
    inputs: Vec<PortInfo>,
    states: Vec<StateInfo>,
}

impl Assembler {
    fn entry(&mut self, plan: &EntryPlan) -> Result<Entry> {
        let steps = (0..plan.steps.len()).map(|i| self.step(plan, i)).collect::<Result<Vec<_>>>()?;
        let buffers = plan.buffers.iter().map(|b| BufferInfo {
            name: b.name.clone(),
            offset: b.offset,
            bytes: b.bytes,
            first: b.first,
            last: b.last,
        });
        Ok(Entry {
            name: plan.name.clone(),
            bounds: plan.graph.bounds,
            steps,
            arena_bytes: plan.arena_bytes,
            arena_lower_bound: plan.arena_lower_bound,
            buffers: buffers.collect(),
        })
    }
}

fn inputs(graph: &Graph) -> Vec<PortInfo> {
    let port = |&inst: &llamac_ir::Inst| match graph.op(inst) {
        Op::Input { name, limit } => {
            let ty = graph.ty(graph.result(inst));
            let dims = ty.dims.iter().map(|d| d.extent()).collect();
            Some(PortInfo { name: name.clone(), dtype: ty.dtype, dims, limit: *limit })
        }
        _ => None,
    };
    graph.order().iter().filter_map(port).collect()
}

fn outputs(graph: &Graph) -> Vec<PortInfo> {
    let port = |(name, value): &(String, llamac_ir::Value)| {
        let ty = graph.ty(*value);
        PortInfo { name: name.clone(), dtype: ty.dtype, dims: ty.dims.iter().map(|d| d.extent()).collect(), limit: None }
    };
    graph.outputs().iter().map(port).collect()
}

fn states(graph: &Graph) -> Vec<StateInfo> {
    let state = |&inst: &llamac_ir::Inst| match graph.op(inst) {
        Op::State { name } => {
            let ty = graph.ty(graph.result(inst));
            let dims = ty.dims.iter().filter_map(|d| d.as_const()).collect();
            Some(StateInfo { name: name.clone(), dtype: ty.dtype, dims })
        }
        _ => None,
    };
    graph.order().iter().filter_map(state).collect()
}

/// A plan that contradicts itself.
fn broken(at: &str, what: impl std::fmt::Display) -> CodegenError {
    CodegenError::Plan(format!("{at}: {what}"))
}
