//! One planned instruction as a step.

use super::contraction::{self, Strided};
use super::kernels::Kernels;
use super::memory::Memory;
use crate::error::{CodegenError, Result};
use crate::lower::build::Operand as Role;
use crate::lower::epilogue::{dot_of, lower_epilogue};
use crate::lower::region::{Closed, close};
use crate::lower::rows::lower_rows;
use crate::pack::WeightPlan;
use llamac_formats::program::{
    AttentionWork, DotWork, EpilogueWork, GatherWork, GemmSegment, GemmWork, Operand, RowsWork, Step, Work,
};
use llamac_formats::{Extent, PANEL_WIDTH, Sym};
use llamac_ir::access::{access, dense, is_dense};
use llamac_ir::{Fusion, FusionKind, Graph, Inst, Layout, Op, Value};
use llamac_passes::fuse_attention::attention_parts;
use llamac_passes::plan::{EntryPlan, PlannedStep};
use llamac_passes::schedule::step_name;

/// Elements that a thread should at least work on between two visits to the shared counter.
const GRAIN_ELEMENTS: usize = 4096;

/// What every step is made with.
struct Maker<'a, 'b> {
    graph: &'a Graph,
    memory: &'a Memory<'a>,
    kernels: &'b mut Kernels,
    weights: &'a WeightPlan,
    inst: Inst,
    scratch: Option<usize>,
    at: String,
}

/// Makes the step of a planned instruction.
pub fn step(
    plan: &EntryPlan,
    planned: &PlannedStep,
    memory: &Memory<'_>,
    kernels: &mut Kernels,
    weights: &WeightPlan,
) -> Result<Step> {
    let graph = &plan.graph;
    let at = step_name(graph, planned.inst);
    let mut maker =
        Maker { graph, memory, kernels, weights, inst: planned.inst, scratch: planned.scratch, at: at.clone() };
    let (kind, work) = maker.work()?;
    Ok(Step { name: at, kind: kind.into(), barrier: planned.barrier, work })
}

/// What a kernel is called.
fn kernel_name(graph: &Graph, inst: Inst) -> String {
    match graph.op(inst) {
        Op::Fusion(f) if f.name.is_empty() => f.kind.name().into(),
        Op::Fusion(f) => f.name.clone(),
        op => op.mnemonic().into(),
    }
}

impl Maker<'_, '_> {
    fn refused(&self, what: impl Into<String>) -> CodegenError {
        CodegenError::Region { at: self.at.clone(), what: what.into() }
    }

    fn operand(&self, value: Value) -> Result<Operand> {
        self.memory.operand(value, &self.at)
    }

    fn work(&mut self) -> Result<(&'static str, Work)> {
        let graph = self.graph;
        let in_panels = |v: Value| graph.ty(v).layout == Layout::Panels;
        match graph.op(self.inst) {
            Op::Dot(_) if graph.operands(self.inst)[1..].iter().all(|&v| in_panels(v)) => {
                let closed = close(graph, self.inst, self.at.clone());
                Ok(("gemm", Work::Gemm(self.gemm(&closed, None)?)))
            }
            Op::Dot(_) => Ok(("dot", Work::Dot(self.dot()?))),
            Op::Gather if in_panels(graph.operands(self.inst)[0]) => Ok(("gather", Work::Gather(self.gather()?))),
            Op::Fusion(f) if f.kind == FusionKind::Epilogue => {
                let closed = close(graph, self.inst, self.at.clone());
                let lowered = lower_epilogue(&closed)?;
                let kernel = self.kernels.add(&kernel_name(graph, self.inst), &lowered.kernel, &lowered.reach)?;
                let epilogue = EpilogueWork {
                    paired: lowered.segments > 1,
                    kernel,
                    operands: self.roles(&closed, &lowered.operands)?,
                    scalars: scalars(&lowered.kernel.syms),
                };
                Ok(("gemm", Work::Gemm(self.gemm(&closed, Some((epilogue, lowered.segments)))?)))
            }
            Op::Fusion(f) if f.kind == FusionKind::Attention => Ok(("attention", Work::Attention(self.attention(f)?))),
            op => {
                let kind = if matches!(op, Op::Copy) { "copy" } else { "rows" };
                let closed = close(graph, self.inst, self.at.clone());
                let lowered = lower_rows(&closed)?;
                let kernel = self.kernels.add(&kernel_name(graph, self.inst), &lowered.kernel, &lowered.reach)?;
                let grain = (GRAIN_ELEMENTS / lowered.work.max(1)).clamp(1, GRAIN_ELEMENTS);
                Ok((
                    kind,
                    Work::Rows(RowsWork {
                        kernel,
                        count: lowered.count,
                        grain,
                        operands: self.roles(&closed, &lowered.operands)?,
                        scalars: scalars(&lowered.kernel.syms),
                    }),
                ))
            }
        }
    }

    /// A kernel's buffers as operands.
    fn roles(&self, closed: &Closed, roles: &[Role]) -> Result<Vec<Operand>> {
        roles
            .iter()
            .map(|role| match role {
                Role::Param(i) => self.operand(closed.params[*i]),
                Role::Result(i) => self.operand(self.graph.results(self.inst)[*i]),
            })
            .collect()
    }

    /// The strided access to a value of the closed region, over memory.
    fn strided(&self, closed: &Closed, value: Value) -> Result<Strided<Value>> {
        let mut access = access(&closed.graph, value).map_err(|e| self.refused(e.to_string()))?;
        let outer = |v: Value| match closed.graph.def_op(v) {
            Op::Param { index } => Some(closed.params[*index]),
            _ => None,
        };
        let mut missing = false;
        let mut rename = |v: Value| {
            outer(v).unwrap_or_else(|| {
                missing = true;
                v
            })
        };
        access = access.map(&mut rename);
        if missing {
            return Err(self.refused("an operand of the dot is computed inside the region; it needs a `copy`"));
        }
        let dims = closed.graph.ty(value).dims.iter().map(|d| d.extent()).collect();
        Ok(Strided { access, dims })
    }

    fn gemm(&self, closed: &Closed, epilogue: Option<(EpilogueWork, usize)>) -> Result<GemmWork> {
        let g = &closed.graph;
        let dot = dot_of(closed)?;
        let Op::Dot(spec) = g.op(dot) else { return Err(self.refused("no dot")) };
        let (&[(left, 1)], []) = (spec.contract.as_slice(), spec.batch.as_slice()) else {
            return Err(self.refused("a packed weight is contracted on axis 1, without batch axes"));
        };
        let lhs = self.strided(closed, g.operands(dot)[0])?;
        let k = lhs.dims[left].as_constant().unwrap_or(0) as usize;
        let free: Vec<usize> = (0..lhs.dims.len()).filter(|&a| a != left).collect();
        let rows = lhs
            .collapse(&free)
            .ok_or_else(|| self.refused("its left side's rows have no one stride; it needs a `copy`"))?;
        let inputs = lhs.collapse(&[left]).ok_or_else(|| self.refused("its left side has no inputs"))?;
        let a = lhs.with_axes(&[rows, inputs]);
        if a.strides[1] != Extent::ONE && k > 1 {
            return Err(self.refused("its left side's inputs are not next to each other; it needs a `copy`"));
        }
        let m = free.iter().fold(Extent::ONE, |e, &axis| e.times(lhs.dims[axis]));
        let mut segments = vec![];
        for &w in &g.operands(dot)[1..] {
            let Op::Param { index } = g.def_op(w) else {
                return Err(self.refused("a packed weight is read through a view"));
            };
            let Operand::Weight(weight) = self.operand(closed.params[*index])? else {
                return Err(self.refused("the right side of a GEMM is no weight"));
            };
            segments.extend(self.weights.segments(weight));
        }
        let segments = match &epilogue {
            Some((work, parts)) if work.paired => self.paired(segments, *parts)?,
            _ => segments,
        };
        let scratch = self.scratch.map(|b| self.memory.buffer(b)).transpose()?;
        let out = self.operand(self.graph.result(self.inst))?;
        let a = self.memory.access(a, &self.at)?;
        let act = g.ty(g.operands(dot)[0]).dtype;
        Ok(GemmWork { act, a, m, k, segments, epilogue: epilogue.map(|e| e.0), out, scratch })
    }

    /// Segments of equal width, for an epilogue that combines them column by column.
    fn paired(&self, segments: Vec<GemmSegment>, parts: usize) -> Result<Vec<GemmSegment>> {
        let total: usize = segments.iter().map(|s| s.n).sum();
        let n = total / parts.max(1);
        if segments.len() == parts && segments.iter().all(|s| s.n == n) {
            return Ok(segments);
        }
        match segments.as_slice() {
            [one] if n.is_multiple_of(PANEL_WIDTH) => Ok((0..parts)
                .map(|i| GemmSegment { first: one.first + i * (n / PANEL_WIDTH) * one.step, n, ..one.clone() })
                .collect()),
            _ => Err(self.refused(format!(
                "its epilogue combines {parts} segments of {n} outputs, which are no whole panels of its weights"
            ))),
        }
    }

    fn dot(&self) -> Result<DotWork> {
        let closed = close(self.graph, self.inst, self.at.clone());
        let g = &closed.graph;
        let dot = dot_of(&closed)?;
        let Op::Dot(spec) = g.op(dot) else { return Err(self.refused("no dot")) };
        let &[l, r] = g.operands(dot) else {
            return Err(self.refused("several right sides must all be packed weights"));
        };
        let (lhs, rhs) = (self.strided(&closed, l)?, self.strided(&closed, r)?);
        let result = self.graph.result(self.inst);
        let out = dense(result, self.graph.ty(result));
        let shape = contraction::shape(spec, &lhs, &rhs, out).map_err(|what| self.refused(what))?;
        let access = |a| self.memory.access(a, &self.at);
        Ok(DotWork {
            batch: shape.batch,
            m: shape.m,
            n: shape.n,
            k: shape.k,
            lhs: access(shape.lhs)?,
            rhs: access(shape.rhs)?,
            out: access(shape.out)?,
        })
    }

    fn attention(&self, fusion: &Fusion) -> Result<AttentionWork> {
        let parts = attention_parts(fusion).ok_or_else(|| {
            self.refused("its region is no attention: scale, causal mask and softmax between two dots over a cache")
        })?;
        let operands = self.graph.operands(self.inst);
        let q = access(self.graph, operands[parts.q]).map_err(|e| self.refused(e.to_string()))?;
        let result = self.graph.result(self.inst);
        let state = |i: usize| match self.operand(operands[i])? {
            Operand::State(s) => Ok(s),
            _ => Err(self.refused("its cache is no state")),
        };
        Ok(AttentionWork {
            act: parts.act,
            q: self.memory.access(q, &self.at)?,
            keys: state(parts.keys)?,
            values: state(parts.values)?,
            positions: self.dense_operand(operands[parts.positions])?,
            slots: self.dense_operand(operands[parts.slots])?,
            out: self.memory.access(dense(result, self.graph.ty(result)), &self.at)?,
            kv_heads: parts.kv_heads,
            group: parts.group,
            head_dim: parts.head_dim,
            scale: parts.scale,
        })
    }

    /// The operand behind a value that must lie densely, views that change nothing aside.
    fn dense_operand(&self, value: Value) -> Result<Operand> {
        let a = access(self.graph, value).map_err(|e| self.refused(e.to_string()))?;
        if !is_dense(&a, self.graph.ty(value)) {
            return Err(self.refused("its indices do not lie densely in memory; it needs a `copy`"));
        }
        self.operand(a.base)
    }

    fn gather(&self) -> Result<GatherWork> {
        let operands = self.graph.operands(self.inst);
        let Operand::Weight(weight) = self.operand(operands[0])? else {
            return Err(self.refused("the table of a gather from panels is no weight"));
        };
        let ids = self.dense_operand(operands[1])?;
        let count = self.graph.ty(operands[1]).elements();
        Ok(GatherWork { weight, ids, count, out: self.operand(self.graph.result(self.inst))? })
    }
}

fn scalars(syms: &[Sym]) -> Vec<Extent> {
    syms.iter().map(|&s| Extent::sym(s)).collect()
}
