//! Which weights lie in panels, and which become one.

use super::unfuse::{inline, split_segments};
use super::{FlatWeight, LayoutReport};
use crate::schedule::step_name;
use llamac_formats::PANEL_WIDTH;
use llamac_ir::{DType, Dim, DotSpec, Fusion, FusionKind, Graph, Inst, Layout, Op, Recipe, Type, Value};
use std::collections::{HashMap, HashSet};

/// Decides the layout of all weights; afterwards every dot with several right sides, and every epilogue, is over packed weights.
pub fn run(graph: &mut Graph, report: &mut LayoutReport) {
    let packed = decide(graph, report);
    for inst in graph.order().to_vec() {
        let readable = match graph.op(inst) {
            Op::Fusion(f) if f.kind == FusionKind::Epilogue => epilogue_dot(f)
                .is_some_and(|dot| dot.weights.iter().all(|&p| packed.contains(&graph.operands(inst)[p]))),
            // A row kernel cannot gather from panels.
            Op::Fusion(_) => !graph.operands(inst).iter().any(|v| packed.contains(v)),
            _ => true,
        };
        if !readable {
            report.unfused.push(step_name(graph, inst));
            inline(graph, inst);
        }
    }
    for inst in graph.order().to_vec() {
        let segments = matches!(graph.op(inst), Op::Dot(_)) && graph.operands(inst).len() > 2;
        if segments && !graph.operands(inst)[1..].iter().all(|v| packed.contains(v)) {
            split_segments(graph, inst);
        }
    }
    set_panels(graph, &packed);
    join(graph, report);
    report.panels = graph.order().iter().filter(|&&i| is_packed(graph, i)).count();
}

fn is_packed(graph: &Graph, inst: Inst) -> bool {
    matches!(graph.op(inst), Op::Weight(_)) && graph.ty(graph.result(inst)).layout == Layout::Panels
}

/// How a step reads a weight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// As the right side of a linear dot.
    Linear,
    /// As the table of a gather to f32.
    Gather,
    /// As the table of a gather to f32 inside a row kernel, which has to be taken apart if the weight lies in panels.
    FusedGather,
    /// In any other way.
    Other,
}

/// The weights that lie in panels.
fn decide(graph: &Graph, report: &mut LayoutReport) -> HashSet<Value> {
    let uses = graph.uses();
    let mut packed = HashSet::new();
    for &inst in graph.order() {
        let Op::Weight(recipe) = graph.op(inst) else { continue };
        let weight = graph.result(inst);
        let ty = graph.ty(weight);
        if ty.rank() != 2 || ty.elements().as_constant() == Some(0) {
            continue;
        }
        let readers = uses.get(&weight).map_or(&[][..], Vec::as_slice);
        let kinds: Vec<(Inst, Use)> = readers.iter().map(|&r| (r, use_of(graph, r, weight))).collect();
        let linear = kinds.iter().any(|k| k.1 == Use::Linear);
        let other = kinds.iter().find(|k| k.1 == Use::Other || (k.1 == Use::FusedGather && !linear));
        match other {
            None if !kinds.is_empty() && !graph.is_output(weight) => {
                packed.insert(weight);
            }
            Some(&(reader, _)) if kinds.iter().any(|k| k.1 != Use::Other) => {
                report.flat.push(FlatWeight { recipe: recipe.to_string(), reader: step_name(graph, reader) });
            }
            _ => {}
        }
    }
    packed
}

/// The least favourable way in which an instruction reads a weight.
fn use_of(graph: &Graph, reader: Inst, weight: Value) -> Use {
    let operands = graph.operands(reader);
    let mut at = (0..operands.len()).filter(|&i| operands[i] == weight);
    match graph.op(reader) {
        Op::Fusion(f) => {
            let uses: Vec<Use> = at.flat_map(|param| uses_in_region(f, param)).collect();
            let all = |u: Use| !uses.is_empty() && uses.iter().all(|&x| x == u);
            match f.kind {
                FusionKind::Epilogue if all(Use::Linear) => Use::Linear,
                FusionKind::Rows if all(Use::Gather) => Use::FusedGather,
                _ => Use::Other,
            }
        }
        _ => at.find_map(|i| Some(plain_use(graph, reader, i)).filter(|u| *u == Use::Other)).unwrap_or_else(|| {
            let first = operands.iter().position(|&o| o == weight).unwrap_or(0);
            plain_use(graph, reader, first)
        }),
    }
}

fn uses_in_region(fusion: &Fusion, param: usize) -> Vec<Use> {
    let region = &fusion.region;
    let is_param = |v: Value| matches!(region.def_op(v), Op::Param { index } if *index == param);
    let mut uses: Vec<Use> = region
        .order()
        .iter()
        .flat_map(|&inst| region.operands(inst).iter().enumerate().map(move |(i, &v)| (inst, i, v)))
        .filter(|&(_, _, v)| is_param(v))
        .map(|(inst, i, _)| plain_use(region, inst, i))
        .collect();
    uses.extend(region.outputs().iter().filter(|(_, v)| is_param(*v)).map(|_| Use::Other));
    uses
}

fn plain_use(graph: &Graph, reader: Inst, operand: usize) -> Use {
    match graph.op(reader) {
        Op::Dot(spec) if operand > 0 && is_linear(spec) => Use::Linear,
        Op::Gather if operand == 0 && graph.ty(graph.result(reader)).dtype == DType::F32 => Use::Gather,
        _ => Use::Other,
    }
}

/// Whether a dot sums over axis 1 of its right side and nothing else.
pub fn is_linear(spec: &DotSpec) -> bool {
    spec.batch.is_empty() && spec.contract.len() == 1 && spec.contract[0].1 == 1
}

/// The dot of an epilogue, its operands as params.
#[derive(Clone, Debug)]
pub struct EpilogueDot {
    /// The dot in the region.
    pub inst: Inst,
    /// The param on its left.
    pub lhs: usize,
    /// The params on its right.
    pub weights: Vec<usize>,
}

/// The one dot of an epilogue, if its operands are params and it is linear, with the inputs last on the left.
pub fn epilogue_dot(fusion: &Fusion) -> Option<EpilogueDot> {
    let region = &fusion.region;
    let mut dots = region.order().iter().copied().filter(|&i| matches!(region.op(i), Op::Dot(_)));
    let inst = dots.next()?;
    let Op::Dot(spec) = region.op(inst) else { return None };
    let inputs_last = spec.contract.first().is_some_and(|p| p.0 + 1 == region.ty(region.operands(inst)[0]).rank());
    if dots.next().is_some() || !is_linear(spec) || !inputs_last {
        return None;
    }
    let mut params = region.operands(inst).iter().map(|&v| match region.def_op(v) {
        Op::Param { index } => Some(*index),
        _ => None,
    });
    let lhs = params.next()??;
    Some(EpilogueDot { inst, lhs, weights: params.collect::<Option<_>>()? })
}

/// Puts weights in panels, and the params of the regions that they go into: one walk for all of them.
fn set_panels(graph: &mut Graph, packed: &HashSet<Value>) {
    for &weight in packed {
        let ty = Type { layout: Layout::Panels, ..graph.ty(weight).clone() };
        graph.set_ty(weight, ty);
    }
    for inst in graph.order().to_vec() {
        let given: HashMap<usize, Type> = graph
            .operands(inst)
            .iter()
            .enumerate()
            .filter(|(_, v)| packed.contains(v))
            .map(|(param, &v)| (param, graph.ty(v).clone()))
            .collect();
        if given.is_empty() {
            continue;
        }
        if let Op::Fusion(f) = graph.op_mut(inst) {
            for inner in f.region.order().to_vec() {
                if let Op::Param { index } = f.region.op(inner)
                    && let Some(ty) = given.get(index)
                {
                    let value = f.region.result(inner);
                    f.region.set_ty(value, ty.clone());
                }
            }
        }
    }
}

/// Joins right sides of one dot into one weight.
fn join(graph: &mut Graph, report: &mut LayoutReport) {
    let uses = graph.uses();
    // Joined weights stand before their first parts; all are put there at once.
    let mut before: HashMap<Inst, Vec<Inst>> = HashMap::new();
    for inst in graph.order().to_vec() {
        let (weights, interleave) = match graph.op(inst) {
            Op::Dot(_) => (graph.operands(inst)[1..].to_vec(), false),
            Op::Fusion(f) if f.kind == FusionKind::Epilogue => {
                let Some(dot) = epilogue_dot(f) else { continue };
                let weights = dot.weights.iter().map(|&p| graph.operands(inst)[p]).collect();
                (weights, is_paired(&f.region, dot.inst))
            }
            _ => continue,
        };
        let joinable = |v: Value| {
            // Panels that alternate already cannot be parts.
            !matches!(graph.def_op(v), Op::Weight(Recipe::InterleavePanels(_)))
                && graph.ty(v).layout == Layout::Panels
                && uses.get(&v).is_some_and(|u| u.len() == 1)
                && rows_of(graph, v).is_multiple_of(PANEL_WIDTH)
        };
        let alike = |a: Value, b: Value| joinable(a) && joinable(b) && graph.ty(a).dtype == graph.ty(b).dtype;
        // Runs of parts that can be one weight; a pair is joined whole or not at all.
        let mut runs: Vec<Vec<Value>> = vec![];
        for &w in &weights {
            match runs.last_mut() {
                Some(run) if alike(run[0], w) && !run.contains(&w) => run.push(w),
                _ => runs.push(vec![w]),
            }
        }
        if interleave && runs.len() > 1 {
            continue;
        }
        for run in runs.into_iter().filter(|r| r.len() > 1) {
            let (joined, recipe) = join_run(graph, inst, &run, interleave);
            before.entry(graph.def(run[0])).or_default().push(joined);
            report.joined.push(recipe);
        }
    }
    let joined: HashSet<Inst> = before.values().flatten().copied().collect();
    let mut order = Vec::with_capacity(graph.order().len());
    for &inst in graph.order().iter().filter(|i| !joined.contains(i)) {
        order.extend(before.get(&inst).into_iter().flatten());
        order.push(inst);
    }
    graph.set_order(order);
    let dead: HashSet<Inst> = {
        let uses = graph.uses();
        let unused = |i: &Inst| {
            let v = graph.result(*i);
            is_packed(graph, *i) && !uses.contains_key(&v) && !graph.is_output(v)
        };
        graph.order().iter().copied().filter(|i| unused(i)).collect()
    };
    graph.remove(|i| dead.contains(&i));
}

fn rows_of(graph: &Graph, weight: Value) -> usize {
    graph.ty(weight).dims[0].as_const().unwrap_or(1)
}

/// Whether an epilogue combines the parts of its dot column by column: its dot has parts of one width, is read only by slices
/// that are these parts, and what comes out is one part wide.
pub fn is_paired(region: &Graph, dot: Inst) -> bool {
    let weights = &region.operands(dot)[1..];
    let n = rows_of(region, weights[0]);
    let sum = region.result(dot);
    let axis = region.ty(sum).rank() - 1;
    let part = |inst: Inst| match region.op(inst) {
        Op::Slice { axis: a, start, len } => *a == axis && *len == n && start.is_multiple_of(n),
        _ => false,
    };
    weights.len() > 1
        && n > 0
        && weights.iter().all(|&w| rows_of(region, w) == n)
        && region.order().iter().filter(|&&i| region.operands(i).contains(&sum)).all(|&i| part(i))
        && region.outputs().iter().all(|&(_, v)| v != sum && region.ty(v).dims.last() == Some(&Dim::Const(n)))
}

/// Makes one weight of several consecutive right sides, last in program order for now; returns it with its recipe.
fn join_run(graph: &mut Graph, inst: Inst, run: &[Value], interleave: bool) -> (Inst, String) {
    let recipes = run.iter().filter_map(|&v| match graph.def_op(v) {
        Op::Weight(recipe) => Some(recipe.clone()),
        _ => None,
    });
    let recipe = if interleave {
        Recipe::InterleavePanels(recipes.collect())
    } else {
        let parts = recipes.flat_map(|r| match r {
            Recipe::Concat(parts) => parts,
            r => vec![r],
        });
        Recipe::Concat(parts.collect())
    };
    let text = recipe.to_string();
    let first = graph.ty(run[0]).clone();
    let rows = run.iter().map(|&v| rows_of(graph, v)).sum::<usize>();
    let ty = Type { dims: vec![Dim::Const(rows), first.dims[1]], ..first };
    let origin = graph.origin(inst).to_string();
    let made = graph.append(Op::Weight(recipe), vec![], vec![ty.clone()], origin);
    let joined = graph.result(made);
    let old = graph.operands(inst).to_vec();
    // The first part's place goes to the joined weight, the others close up.
    let kept: Vec<usize> = (0..old.len()).filter(|&i| !run[1..].contains(&old[i])).collect();
    let new = kept.iter().map(|&i| if old[i] == run[0] { joined } else { old[i] }).collect();
    graph.set_operands(inst, new);
    if let Op::Fusion(f) = graph.op_mut(inst) {
        let first = old.iter().position(|&v| v == run[0]).expect("the part is an operand");
        let renumber: HashMap<usize, usize> = kept.iter().enumerate().map(|(to, &from)| (from, to)).collect();
        drop_params(&mut f.region, first, &ty, &renumber);
    }
    (made, text)
}

/// Gives a region's param `first` the joined type, and removes params that have no new number.
fn drop_params(region: &mut Graph, first: usize, ty: &Type, renumber: &HashMap<usize, usize>) {
    let mut gone: HashSet<Value> = HashSet::new();
    for inst in region.order().to_vec() {
        let value = region.results(inst).first().copied();
        if let (Op::Param { index }, Some(value)) = (region.op_mut(inst), value) {
            let old = *index;
            match renumber.get(&old) {
                Some(&to) => *index = to,
                None => {
                    gone.insert(value);
                }
            }
            if old == first {
                region.set_ty(value, ty.clone());
            }
        }
    }
    for inst in region.order().to_vec() {
        if region.operands(inst).iter().any(|v| gone.contains(v)) {
            let kept = region.operands(inst).iter().copied().filter(|v| !gone.contains(v)).collect();
            region.set_operands(inst, kept);
        }
    }
    let dead: HashSet<Inst> = gone.iter().map(|&v| region.def(v)).collect();
    region.remove(|i| dead.contains(&i));
}
