//! What the cache holds, and what attention multiplies: the part of `precision` that is about states.
//!
//! A cache becomes narrow where attention alone reads it, which will be one kernel that widens what it loads: rows are cast
//! before they are written, and what is read is cast back. A cache that anything else reads stays f32, as does one whose
//! heads are no whole blocks; the report says so.

use crate::fuse_attention::is_values_dot;
use crate::fuse_attention::pattern::{self, Readers};
use crate::manager::Context;
use crate::options::CacheType;
use crate::report::Report;
use llamac_ir::{DType, Graph, Inst, Op, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What the notes say of caches that `--kv` cannot make narrow.
pub const KEPT: &str = "caches keep f32";

/// Makes caches what `--kv` asks for.
pub(crate) fn narrow_caches(graph: &mut Graph, cx: &Context, report: &mut Report) {
    let dtype = cx.options.kv.dtype();
    if dtype == DType::F32 {
        return;
    }
    let roots = roots(graph);
    let attentions = attentions(graph, cx);
    let attended: HashSet<Value> = attentions.iter().flat_map(|a| [a.keys, a.values]).collect();
    // Regions that know a state know its type.
    let otherwise = graph.order().iter().filter(|&&inst| matches!(graph.op(inst), Op::Index | Op::Fusion(_)));
    let otherwise = otherwise.flat_map(|&inst| graph.operands(inst)).filter(|v| !attended.contains(v));
    let otherwise: HashSet<Value> = otherwise.filter_map(|v| roots.get(v).copied()).collect();
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    let mut narrow: HashSet<Value> = HashSet::new();
    for &state in roots.values().collect::<BTreeSet<_>>() {
        let ty = graph.ty(state);

        let (of, width) = (dtype.block().0, ty.dims[3].as_const().unwrap_or(0));
        if ty.dtype != DType::F32 {
            continue;
        } else if !width.is_multiple_of(of) {
            *kept.entry(format!("heads of {width} elements are no whole blocks of {of}")).or_default() += 1;
        } else if dtype.is_block() && !cx.options.enables("fuse-rows") {
            *kept.entry("only fused row kernels write blocks".to_owned()).or_default() += 1;
        } else if otherwise.contains(&state) {
            *kept.entry("no fused attention reads them".to_owned()).or_default() += 1;
        } else {
            narrow.insert(state);
        }
    }
    // Keys and values of an attention are of one type.
    let root = |v: &Value| roots.get(v).copied().unwrap_or(*v);
    let pairs: Vec<[Value; 2]> = attentions.iter().map(|a| [root(&a.keys), root(&a.values)]).collect();
    while let Some(pair) = pairs.iter().find(|p| narrow.contains(&p[0]) != narrow.contains(&p[1])) {
        pair.iter().for_each(|state| _ = narrow.remove(state));
        *kept.entry("their partners cannot be narrow".to_owned()).or_default() += 1;
    }
    for (why, states) in kept {
        report.note(format!("{states} {KEPT}, not {}: {why}", cx.options.kv));
    }
    report.count(if dtype == DType::Q8 { "caches made q8_0" } else { "caches made bf16" }, narrow.len());
    let uses = graph.uses();
    for inst in graph.order().to_vec() {
        let operands = graph.operands(inst).to_vec();
        let is_narrow = |v: &Value| roots.get(v).is_some_and(|root| narrow.contains(root));
        match graph.op(inst) {
            Op::State { .. } if is_narrow(&graph.result(inst)) => retype(graph, graph.result(inst), dtype),
            Op::StateWrite if is_narrow(&operands[0]) => {
                let rows = cast(graph, inst, operands[1], dtype);
                graph.set_operand(inst, 1, rows);
                retype(graph, graph.result(inst), dtype);
            }
            Op::Index if is_narrow(&operands[0]) => {
                let rows = graph.result(inst);
                retype(graph, rows, dtype);
                let readers: BTreeSet<Inst> = uses.get(&rows).into_iter().flatten().copied().collect();
                for reader in readers {
                    let wide = cast(graph, reader, rows, DType::F32);
                    let operands = graph.operands(reader).iter().map(|&v| if v == rows { wide } else { v }).collect();
                    graph.set_operands(reader, operands);
                }
            }
            _ => {}
        }
    }
}

/// Rounds what attention multiplies to bf16, where the activations are not f32 at the dots with weights.
pub(crate) fn round_attention(graph: &mut Graph, cx: &Context, report: &mut Report) {
    for found in attentions(graph, cx).into_iter().filter(|a| a.act == DType::F32) {
        for dot in [found.scores, found.out] {
            let narrow = cast(graph, dot, graph.operands(dot)[0], DType::BF16);
            let wide = cast(graph, dot, narrow, DType::F32);
            graph.set_operand(dot, 0, wide);
        }
        report.count("attentions made bf16", 1);
    }
}

/// What the states hold, as `--kv` calls it: `f32`, `q8_0`, or several as `f32+q8_0`. `f32` where there are none.
pub fn in_use(graph: &Graph) -> String {
    let states = graph.order().iter().filter(|&&i| matches!(graph.op(i), Op::State { .. }));
    let found: BTreeSet<DType> = states.map(|&i| graph.ty(graph.result(i)).dtype).collect();
    let name =
        |&dtype: &DType| CacheType::ALL.iter().find(|kv| kv.dtype() == dtype).map_or(dtype.name(), |kv| kv.name());
    match found.is_empty() {
        true => CacheType::F32.to_string(),
        false => found.iter().map(name).collect::<Vec<_>>().join("+"),
    }
}

/// Every version of a state, with the state.
fn roots(graph: &Graph) -> HashMap<Value, Value> {
    let mut roots = HashMap::new();
    for &inst in graph.order() {
        match graph.op(inst) {
            Op::State { .. } => roots.insert(graph.result(inst), graph.result(inst)),
            Op::StateWrite => match roots.get(&graph.operands(inst)[0]) {
                Some(&root) => roots.insert(graph.result(inst), root),
                None => None,
            },
            _ => None,
        };
    }
    roots
}

/// An attention that `fuse-attention` will find.
struct Attention {
    keys: Value,
    values: Value,
    scores: Inst,
    out: Inst,
    act: DType,
}

fn attentions(graph: &Graph, cx: &Context) -> Vec<Attention> {
    if !cx.options.enables("fuse-attention") {
        return vec![];
    }
    let readers = Readers::new(graph);
    let dots = graph.order().iter().filter(|&&inst| is_values_dot(graph, inst));
    let found = dots.filter_map(|&out| {
        let found = pattern::find(graph, &readers, out).ok()?;
        let mut dots = found.members.iter().filter(|&&m| matches!(graph.op(m), Op::Dot(_)) && m != out);
        let scores = *dots.next()?;
        Some(Attention { keys: found.keys, values: found.values, scores, out, act: found.act })
    });
    found.collect()
}

fn retype(graph: &mut Graph, value: Value, dtype: DType) {
    let ty = graph.ty(value).with_dtype(dtype);
    graph.set_ty(value, ty);
}

fn cast(graph: &mut Graph, before: Inst, value: Value, dtype: DType) -> Value {
    let ty = graph.ty(value).with_dtype(dtype);
    let origin = graph.origin(before).to_string();
    let inst = graph.insert_before(before, Op::Cast, vec![value], vec![ty], origin);
    graph.result(inst)
}
