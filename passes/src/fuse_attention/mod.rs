//! `fuse-attention`: scale, mask and softmax between two dots over a cache become one tiled attention.
//!
//! The structure is recognised, never a name: see [`pattern`]. What is fused is exactly what the runtime computes with a
//! running maximum, `Σ_t softmax_t(scale · q·keys_t) · values_t` over `t ≤ position` in f32. The region holds the primitives.

pub mod pattern;

use crate::manager::{Context, PassError};
use crate::outline::{self, Group};
use crate::refusal::Reason;
use crate::report::Report;
use llamac_ir::{DType, Dim, DotSpec, Fusion, FusionKind, Graph, Inst, Op, Value};
use pattern::{Matched, Readers};

/// Runs the pass.
///
/// # Errors
/// None: what is not attention stays.
pub fn fuse_attention(graph: &mut Graph, _cx: &mut Context) -> Result<Report, PassError> {
    let mut report = Report::default();
    let mut groups = Vec::new();
    let readers = Readers::new(graph);
    for inst in graph.order().to_vec() {
        if !is_values_dot(graph, inst) {
            continue;
        }
        match pattern::find(graph, &readers, inst) {
            Ok(found) => groups.push(group(&found)),
            Err(reason) => report.note(format!("{} refused: {}", graph.origin(inst), reason.rule())),
        }
    }
    let total = groups.len();
    let given_up = outline::outline(graph, &groups);
    report.count("attentions fused", total - given_up.len());
    for _ in given_up {
        report.note(format!("one refused: {}", Reason::WouldCycle.rule()));
    }
    Ok(report)
}

/// Whether a dot could be the second of an attention: a batched product with an indexed state.
pub fn is_values_dot(graph: &Graph, inst: Inst) -> bool {
    let Op::Dot(spec) = graph.op(inst) else { return false };
    let values = graph.operands(inst)[1];
    *spec == values_spec() && pattern::indexed(graph, values).is_some()
}

pub(crate) fn values_spec() -> DotSpec {
    DotSpec { batch: vec![(0, 0), (1, 1)], contract: vec![(3, 2)] }
}

pub(crate) fn scores_spec() -> DotSpec {
    DotSpec { batch: vec![(0, 0), (1, 1)], contract: vec![(3, 3)] }
}

fn group(found: &Matched) -> Group {
    Group {
        kind: FusionKind::Attention,
        members: found.members.clone(),
        params: vec![found.q, found.keys, found.values, found.slots, found.positions],
        pulls: outline::pulls_attention,
        name: |_| "attention".to_string(),
    }
}

/// What the runtime needs to know of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionParts {
    /// Which operand holds the queries `[S, kv_heads, group, head_dim]`.
    pub q: usize,
    /// Which operand is the state of keys.
    pub keys: usize,
    /// Which operand is the state of values.
    pub values: usize,
    /// Which operand holds each row's slot.
    pub slots: usize,
    /// Which operand holds each row's position.
    pub positions: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// What queries and exponentials are rounded to: f32 or bf16.
    pub act: DType,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Query heads per key-value head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// The parts of a `fusion attention`, found in its region by structure. None if the region is something else, as a graph
/// edited by hand may have it.
pub fn attention_parts(fusion: &Fusion) -> Option<AttentionParts> {
    let region = &fusion.region;
    let [(_, out)] = region.outputs() else { return None };
    if !is_values_dot(region, region.def(*out)) {
        return None;
    }
    let found = pattern::find(region, &Readers::new(region), region.def(*out)).ok()?;
    let param = |v: Value| match region.def_op(v) {
        Op::Param { index } => Some(*index),
        _ => None,
    };
    let [_, kv_heads, group, head_dim] = region.ty(found.q).dims[..] else { return None };
    let width = Dim::as_const;
    Some(AttentionParts {
        q: param(found.q)?,
        keys: param(found.keys)?,
        values: param(found.values)?,
        slots: param(found.slots)?,
        positions: param(found.positions)?,
        scale: found.scale,
        act: found.act,
        kv_heads: width(kv_heads)?,
        group: width(group)?,
        head_dim: width(head_dim)?,
    })
}
