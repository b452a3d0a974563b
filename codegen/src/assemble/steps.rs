//! Which kind of work a step is.

use super::Assembler;
use crate::error::Result;
use crate::lower::build::Operand as Wanted;
use crate::lower::region::close;
use crate::lower::rows::lower_rows;
use llamac_formats::Extent;
use llamac_formats::program::{RowsWork, Step, Work};
use llamac_ir::{DType, FusionKind, Graph, Inst, Layout, Op};
use llamac_passes::plan::EntryPlan;
use llamac_passes::schedule::step_name;

/// Elements that a thread stores between two looks at the shared task counter.
const GRAIN: usize = 4096;

impl Assembler {
    pub(super) fn step(&mut self, plan: &EntryPlan, index: usize) -> Result<Step> {
        let step = &plan.steps[index];
        let graph = &plan.graph;
        let inst = step.inst;
        let at = step_name(graph, inst);
        let packed = |inst: Inst| graph.operands(inst).iter().any(|&v| graph.ty(v).layout == Layout::Panels);
        let (kind, work) = match graph.op(inst) {
            Op::Dot(spec) if packed(inst) => ("gemm", self.plain_gemm(plan, step, spec, &at)?),
            Op::Dot(spec) => ("dot", self.dot(plan, inst, spec, &at)?),
            Op::Fusion(f) if f.kind == FusionKind::Epilogue => ("gemm", self.fused_gemm(plan, step, f, &at)?),
            Op::Fusion(f) if f.kind == FusionKind::Attention => ("attention", self.attention(plan, inst, f, &at)?),
            Op::Gather if packed(inst) => ("gather", self.gather(plan, inst, &at)?),
            Op::Copy => ("copy", self.rows(plan, inst, &at)?),
            _ => ("rows", self.rows(plan, inst, &at)?),
        };
        Ok(Step { name: at, kind: kind.to_owned(), barrier: step.barrier, work })
    }

    /// Everything that a compiled row kernel does.
    fn rows(&mut self, plan: &EntryPlan, inst: Inst, at: &str) -> Result<Work> {
        let graph = &plan.graph;
        let closed = close(graph, inst, at.to_owned());
        let lowered = lower_rows(&closed)?;
        let operands = lowered
            .operands
            .iter()
            .map(|wanted| match wanted {
                Wanted::Param(i) => self.operand(plan, closed.params[*i], at),
                Wanted::Result(i) => self.operand(plan, graph.results(inst)[*i], at),
            })
            .collect::<Result<Vec<_>>>()?;
        let scalars = lowered.kernel.syms.iter().map(|&s| Extent::sym(s)).collect();
        let kernel = self.kernels.add(&kernel_name(graph, inst), lowered.kernel)?;
        let grain = (GRAIN / lowered.work.max(1)).max(1);
        Ok(Work::Rows(RowsWork { kernel, count: lowered.count, grain, operands, scalars }))
    }
}

/// What a kernel is called: its fusion's name or its op.
fn kernel_name(graph: &Graph, inst: Inst) -> String {
    match graph.op(inst) {
        Op::Fusion(f) => f.name.clone(),
        Op::Cast => match graph.ty(graph.result(inst)).dtype {
            DType::F32 => "widen".to_owned(),
            other => format!("cast_{other}"),
        },
        op => op.mnemonic().replace('.', "_"),
    }
}
