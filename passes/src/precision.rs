//! `precision`: what the activations are at each dot.
//!
//! A dot with weights reads f32, bf16 or q8 on its left. This pass puts a `cast` before the dots whose activations are to be
//! narrower; dots that read one value share it, and the row fuser makes it part of the kernel before. With `--act auto` the
//! weights of the dot decide, and [`by_weights`] is the one place that says how. Where a dot cannot have what `--act` asks for
//! its activations stay f32, and the report says why. A left side that is not f32 was decided before, so the pass is idempotent.

use crate::cache;
use crate::indexing::Views;
use crate::manager::{Context, PassError};
use crate::options::Activations;
use crate::report::Report;
use llamac_ir::{DType, Graph, Inst, Op, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// What the notes say of dots whose activations cannot be what `--act` asks for.
pub const KEPT: &str = "dots keep f32";

/// Runs the pass.
///
/// # Errors
/// None: what cannot be narrower stays f32.
pub fn precision(graph: &mut Graph, cx: &mut Context) -> Result<Report, PassError> {
    let mut report = Report::default();
    report.note(format!("act={} kv={}", cx.options.act, cx.options.kv));
    cache::narrow_caches(graph, cx, &mut report);
    let mut casts: HashMap<(Value, DType), Value> = HashMap::new();
    let mut kept: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let packable = packable(graph);
    let views = Views::new(graph);
    for dot in graph.order().to_vec() {
        if !is_open(graph, dot) {
            continue;
        }
        let dtype = match wanted(graph, dot, cx.options.act, &packable) {
            Ok(DType::F32) => continue,
            Ok(dtype) => dtype,
            Err((wanted, why)) => {
                *kept.entry((wanted, why.to_string())).or_default() += 1;
                continue;
            }
        };
        let lhs = graph.operands(dot)[0];
        let cast = match casts.get(&(lhs, dtype)) {
            Some(&cast) => cast,
            None => {
                let origin = match graph.origin(graph.def(views.behind(lhs))) {
                    "" => graph.origin(dot).to_string(),
                    origin => origin.to_string(),
                };
                let ty = graph.ty(lhs).with_dtype(dtype);
                let inst = graph.insert_before(dot, Op::Cast, vec![lhs], vec![ty], origin);
                report.count(if dtype == DType::Q8 { "activations made q8" } else { "activations made bf16" }, 1);
                *casts.entry((lhs, dtype)).or_insert(graph.result(inst))
            }
        };
        let mut operands = graph.operands(dot).to_vec();
        operands[0] = cast;
        graph.set_operands(dot, operands);
    }
    for ((wanted, why), dots) in kept {
        report.note(format!("{dots} {KEPT}, not {wanted}: {why}"));
    }
    if in_use(graph) != DType::F32.name() {
        cache::round_attention(graph, cx, &mut report);
    }
    Ok(report)
}

/// What the activations are at the dots with weights: `f32`, `q8`, or several as `f32+q8`. `f32` where there are no such dots.
pub fn in_use(graph: &Graph) -> String {
    let mut found = BTreeSet::new();
    let mut look = |graph: &Graph| {
        for &inst in graph.order() {
            if let (Op::Dot(_), &[lhs, rhs, ..]) = (graph.op(inst), graph.operands(inst))
                && matches!(graph.def_op(rhs), Op::Weight(_) | Op::Param { .. })
            {
                found.insert(graph.ty(lhs).dtype);
            }
        }
    };
    look(graph);
    for &inst in graph.order() {
        if let Op::Fusion(f) = graph.op(inst) {
            look(&f.region);
        }
    }
    match found.is_empty() {
        true => DType::F32.to_string(),
        false => found.iter().map(DType::to_string).collect::<Vec<_>>().join("+"),
    }
}

/// Why a dot's activations stay f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kept {
    /// The inputs are not the last axis of the left side.
    InputsNotLast,
    /// A weight's elements are real numbers of their own.
    NoBlockFormat,
    /// A weight is read in other ways too.
    NotPacked,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::InputsNotLast => f.write_str("their inputs are not the last axis"),
            Kept::NoBlockFormat => f.write_str("not all of their weights are in block formats"),
            Kept::NotPacked => f.write_str("a weight of theirs cannot lie in panels"),
        }
    }
}

/// Whether it is for this pass to decide: rows times weights `[N, K]`, the rows f32.
fn is_open(graph: &Graph, dot: Inst) -> bool {
    let Op::Dot(spec) = graph.op(dot) else { return false };
    let operands = graph.operands(dot);
    let weights = operands[1..].iter().all(|&w| matches!(graph.def_op(w), Op::Weight(_)) && graph.ty(w).rank() == 2);
    let linear = spec.batch.is_empty() && matches!(spec.contract[..], [(_, 1)]);
    linear && weights && graph.ty(operands[0]).dtype == DType::F32
}

/// The default, what `--act auto` means: q8 where all weights of a dot are in block formats, bf16 where all of them are bf16,
/// else f32. Weights of f32 and f16 have more digits than bf16 keeps; a mixture is read as its most precise part asks.
fn by_weights(mut weights: impl Iterator<Item = DType> + Clone) -> DType {
    if weights.clone().all(|w| matches!(w, DType::Block(_))) {
        DType::Q8
    } else if weights.all(|w| w == DType::BF16) {
        DType::BF16
    } else {
        DType::F32
    }
}

/// What the left side of a dot is to be; an error says what it would have been.
fn wanted(
    graph: &Graph,
    dot: Inst,
    act: Activations,
    packable: &HashSet<Value>,
) -> Result<DType, (&'static str, Kept)> {
    let operands = graph.operands(dot);
    let (lhs, weights) = (graph.ty(operands[0]), &operands[1..]);
    let blocks = weights.iter().all(|&w| matches!(graph.ty(w).dtype, DType::Block(_)));
    let dtype = match act {
        Activations::F32 => DType::F32,
        Activations::Bf16 => DType::BF16,
        Activations::Q8 => DType::Q8,
        Activations::Auto => by_weights(weights.iter().map(|&w| graph.ty(w).dtype)),
    };
    if dtype == DType::F32 {
        return Ok(dtype);
    }
    let Op::Dot(spec) = graph.op(dot) else { return Ok(DType::F32) };
    let kept = |why| Err((dtype.name(), why));
    if spec.contract[0].0 + 1 != lhs.rank() {
        return kept(Kept::InputsNotLast);
    }
    if !weights.iter().all(|w| packable.contains(w)) {
        return kept(Kept::NotPacked);
    }
    // Rows of block formats are whole blocks of 32 at least, so the activations can be blocks as well.
    if dtype == DType::Q8 && !blocks { kept(Kept::NoBlockFormat) } else { Ok(dtype) }
}

/// Weights that the `layout` pass can put into panels: right sides of linear dots and tables of gathers to f32.
fn packable(graph: &Graph) -> HashSet<Value> {
    let mut packable: HashSet<Value> = HashSet::new();
    let mut other: HashSet<Value> = graph.outputs().iter().map(|&(_, v)| v).collect();
    for &inst in graph.order() {
        for (i, &v) in graph.operands(inst).iter().enumerate() {
            let fits = match graph.op(inst) {
                Op::Dot(spec) => i > 0 && spec.batch.is_empty() && matches!(spec.contract[..], [(_, 1)]),
                Op::Gather => i == 0 && graph.ty(graph.result(inst)).dtype == DType::F32,
                _ => false,
            };
            if fits {
                packable.insert(v)
            } else {
                other.insert(v)
            };
        }
    }
    packable.retain(|v| !other.contains(v));
    packable
}
