//! Dots whose right side is no packed weight, attention, and gathers from packed weights.

use super::memory::{extent_of, grouped};
use super::{Assembler, broken};
use crate::error::Result;
use llamac_formats::Access;
use llamac_formats::program::{AttentionWork, DotWork, GatherWork, Work};
use llamac_ir::{DotSpec, Fusion, Inst};
use llamac_passes::fuse_attention::attention_parts;
use llamac_passes::layout::need::SideAxes;
use llamac_passes::plan::EntryPlan;

impl Assembler {
    pub(super) fn dot(&mut self, plan: &EntryPlan, inst: Inst, spec: &DotSpec, at: &str) -> Result<Work> {
        let graph = &plan.graph;
        let &[lhs, rhs] = graph.operands(inst) else {
            return Err(broken(at, "a dot of segments whose weights do not lie in panels; run the pass `layout`"));
        };
        let (lhs_ty, rhs_ty) = (graph.ty(lhs), graph.ty(rhs));
        let left = SideAxes::left(spec, lhs_ty.rank());
        let right = SideAxes::right(spec, rhs_ty.rank());
        let groups = |side: &SideAxes| -> Vec<Vec<usize>> {
            let batch = side.batch.iter().map(|&a| vec![a]);
            batch.chain([side.free.clone(), side.contract.clone()]).collect()
        };
        let result = graph.result(inst);
        let ty = graph.ty(result);
        let (b, m) = (left.batch.len(), left.free.len());
        let out_groups: Vec<Vec<usize>> =
            (0..b).map(|a| vec![a]).chain([(b..b + m).collect(), (b + m..ty.rank()).collect()]).collect();
        let out = Access {
            base: self.operand(plan, result, at)?,
            offset: llamac_formats::Extent::ZERO,
            strides: ty.strides(),
            indirects: vec![],
        };
        Ok(Work::Dot(DotWork {
            batch: left.batch.iter().map(|&a| lhs_ty.dims[a].extent()).collect(),
            m: extent_of(lhs_ty, &left.free),
            n: extent_of(rhs_ty, &right.free),
            k: extent_of(lhs_ty, &left.contract),
            lhs: grouped(self.access(plan, lhs, at)?, lhs_ty, &groups(&left)),
            rhs: grouped(self.access(plan, rhs, at)?, rhs_ty, &groups(&right)),
            out: grouped(out, ty, &out_groups),
        }))
    }

    pub(super) fn attention(&mut self, plan: &EntryPlan, inst: Inst, fusion: &Fusion, at: &str) -> Result<Work> {
        let graph = &plan.graph;
        let parts = attention_parts(fusion)
            .ok_or_else(|| broken(at, "the region is not attention as the runtime computes it; fuse it as `rows`"))?;
        let operand = |i: usize| graph.operands(inst)[i];
        let result = graph.result(inst);
        let out = Access {
            base: self.operand(plan, result, at)?,
            offset: llamac_formats::Extent::ZERO,
            strides: graph.ty(result).strides(),
            indirects: vec![],
        };
        Ok(Work::Attention(AttentionWork {
            q: self.access(plan, operand(parts.q), at)?,
            keys: self.state(plan, operand(parts.keys), at)?,
            values: self.state(plan, operand(parts.values), at)?,
            positions: self.operand(plan, operand(parts.positions), at)?,
            slots: self.operand(plan, operand(parts.slots), at)?,
            out,
            kv_heads: parts.kv_heads,
            group: parts.group,
            head_dim: parts.head_dim,
            scale: parts.scale,
        }))
    }

    pub(super) fn gather(&mut self, plan: &EntryPlan, inst: Inst, at: &str) -> Result<Work> {
        let graph = &plan.graph;
        let &[table, ids] = graph.operands(inst) else { return Err(broken(at, "a gather takes a table and ids")) };
        Ok(Work::Gather(GatherWork {
            weight: self.weight(plan, table, at)?,
            ids: self.access(plan, ids, at)?.base,
            count: graph.ty(ids).elements(),
            out: self.operand(plan, graph.result(inst), at)?,
        }))
    }
}
