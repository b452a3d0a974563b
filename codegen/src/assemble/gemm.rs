//! GEMMs: dots with packed weights, alone or with an epilogue.

use super::memory::{extent_of, grouped};
use super::{Assembler, broken};
use crate::error::Result;
use crate::lower::build::Operand as Wanted;
use crate::lower::epilogue::lower_epilogue;
use crate::lower::region::close;
use llamac_formats::Extent;
use llamac_formats::program::{EpilogueWork, GemmWork, Operand, Work};
use llamac_ir::{DotSpec, Fusion, Inst, Value};
use llamac_passes::layout::need::SideAxes;
use llamac_passes::layout::panels::epilogue_dot;
use llamac_passes::plan::{EntryPlan, PlannedStep};

impl Assembler {
    pub(super) fn plain_gemm(&mut self, plan: &EntryPlan, step: &PlannedStep, spec: &DotSpec, at: &str) -> Result<Work> {
        let graph = &plan.graph;
        let out = self.operand(plan, graph.result(step.inst), at)?;
        let operands = graph.operands(step.inst);
        Ok(Work::Gemm(self.gemm(plan, step, spec, operands[0], &operands[1..], out, at)?))
    }

    pub(super) fn fused_gemm(&mut self, plan: &EntryPlan, step: &PlannedStep, fusion: &Fusion, at: &str) -> Result<Work> {
        let graph = &plan.graph;
        let dot = epilogue_dot(fusion).ok_or_else(|| broken(at, "an epilogue's dot is linear and reads params"))?;
        let llamac_ir::Op::Dot(spec) = fusion.region.op(dot.inst) else {
            return Err(broken(at, "an epilogue has a dot"));
        };
        let outer = |param: usize| graph.operands(step.inst)[param];
        let weights: Vec<Value> = dot.weights.iter().map(|&p| outer(p)).collect();
        let out = self.operand(plan, graph.result(step.inst), at)?;
        let mut work = self.gemm(plan, step, spec, outer(dot.lhs), &weights, out, at)?;

        let closed = close(graph, step.inst, at.to_owned());
        let lowered = lower_epilogue(&closed)?;
        let paired = lowered.segments > 1;
        if paired && lowered.segments != work.segments.len() {
            let (found, wanted) = (work.segments.len(), lowered.segments);
            return Err(broken(at, format!("{wanted} segments come in one tile, the weights have {found}")));
        }
        let operands = lowered
            .operands
            .iter()
            .map(|wanted| match wanted {
                Wanted::Param(i) => self.operand(plan, closed.params[*i], at),
                Wanted::Result(i) => self.operand(plan, graph.results(step.inst)[*i], at),
            })
            .collect::<Result<Vec<_>>>()?;
        let scalars = lowered.kernel.syms.iter().map(|&s| Extent::sym(s)).collect();
        let kernel = self.kernels.add(&fusion.name, lowered.kernel)?;
        work.epilogue = Some(EpilogueWork { paired, kernel, operands, scalars });
        Ok(Work::Gemm(work))
    }

    #[allow(clippy::too_many_arguments)]
    fn gemm(
        &mut self,
        plan: &EntryPlan,
        step: &PlannedStep,
        spec: &DotSpec,
        lhs: Value,
        weights: &[Value],
        out: Operand,
        at: &str,
    ) -> Result<GemmWork> {
        let ty = plan.graph.ty(lhs);
        let axes = SideAxes::left(spec, ty.rank());
        let a = grouped(self.access(plan, lhs, at)?, ty, &[axes.free.clone(), axes.contract.clone()]);
        let k = extent_of(ty, &axes.contract).as_constant();
        let k = k.ok_or_else(|| broken(at, "the inputs of a GEMM are constant"))? as usize;
        let mut segments = vec![];
        for &w in weights {
            let weight = self.weight(plan, w, at)?;
            segments.extend(self.weights.segments(weight));
        }
        Ok(GemmWork {
            a,
            m: extent_of(ty, &axes.free),
            k,
            segments,
            epilogue: None,
            out,
            scratch: step.scratch.map(|b| Operand::Arena(plan.buffers[b].offset)),
        })
    }
}
