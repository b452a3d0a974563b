//! `merge-linear`: dots that share an input become one dot with segments.
//!
//! `x·Q`, `x·K`, `x·V` are one sweep over `x`: the merged dot lists the weights as right sides, and slices of its result
//! replace the originals. It stands where the first of them stood; weights are leaves and move up to it. Where every
//! segment is used only by adding a bias vector, the biases become one weight (recipe `concat`) added before the slices,
//! so that the sum is over the dot's own axes. This is no fusion: it runs in every build that does not disable it.

use crate::manager::{Context, PassError};
use crate::report::Report;
use crate::{live, origin};
use llamac_ir::{BinaryOp, Dim, DotSpec, Graph, Inst, Op, Recipe, Type, Value};
use std::collections::{HashMap, HashSet};

/// Runs the pass.
///
/// # Errors
/// None: dots that share nothing stay as they are.
pub fn merge_linear(graph: &mut Graph, _cx: &mut Context) -> Result<Report, PassError> {
    let mut report = Report::default();
    let groups = groups(graph);
    if groups.is_empty() {
        return Ok(report);
    }
    let uses = graph.uses();
    let mut first: HashMap<Inst, Merge> = HashMap::new();
    let mut replaced: HashSet<Inst> = HashSet::new();
    for dots in groups {
        let adds = biases(graph, &uses, &dots);
        report.count("dots merged", dots.len());
        report.count("biases joined", adds.as_ref().map_or(0, Vec::len));
        replaced.extend(&dots);
        replaced.extend(adds.iter().flatten().map(|b| b.add));
        first.insert(dots[0], Merge { dots, adds });
    }

    let mut out = Rewrite { old: graph, new: Graph::new(graph.name.clone(), graph.bounds), map: HashMap::new() };
    for &inst in graph.order() {
        if let Some(merge) = first.get(&inst) {
            out.merged(merge);
        } else if !replaced.contains(&inst) && graph.results(inst).iter().all(|v| !out.map.contains_key(v)) {
            out.copy(inst);
        }
    }
    for (name, value) in graph.outputs() {
        let value = out.map[value];
        out.new.add_output(name.clone(), value);
    }
    let mut new = out.new;
    live::remove_dead(&mut new);
    *graph = new;
    Ok(report)
}

/// Dots that become one, and the additions that go with them, one for each.
struct Merge {
    dots: Vec<Inst>,
    adds: Option<Vec<Bias>>,
}

struct Bias {
    add: Inst,
    recipe: Recipe,
}

/// Sets of at least two dots of one left side with weights `[N, K]`, in program order.
fn groups(graph: &Graph) -> Vec<Vec<Inst>> {
    let mut groups: Vec<Vec<Inst>> = Vec::new();
    let mut known: HashMap<(Value, DotSpec), usize> = HashMap::new();
    for &inst in graph.order() {
        let Op::Dot(spec) = graph.op(inst) else { continue };
        let operands = graph.operands(inst);
        let linear = spec.batch.is_empty() && spec.contract.len() == 1 && spec.contract[0].1 == 1;
        let weights =
            operands[1..].iter().all(|&w| matches!(graph.def_op(w), Op::Weight(_)) && graph.ty(w).rank() == 2);
        if linear && weights {
            let at = *known.entry((operands[0], spec.clone())).or_insert_with(|| {
                groups.push(vec![]);
                groups.len() - 1
            });
            groups[at].push(inst);
        }
    }
    groups.retain(|g| g.len() > 1);
    groups
}

/// The additions of a bias, if every one of the dots is used by one and by nothing else.
fn biases(graph: &Graph, uses: &HashMap<Value, Vec<Inst>>, dots: &[Inst]) -> Option<Vec<Bias>> {
    let found: Option<Vec<(Bias, Type)>> = dots
        .iter()
        .map(|&dot| {
            let result = graph.result(dot);
            let [add] = uses.get(&result)?[..] else { return None };
            if graph.is_output(result) || !matches!(graph.op(add), Op::Binary(BinaryOp::Add)) {
                return None;
            }
            let other = graph.operands(add).iter().copied().find(|&v| v != result)?;
            let Op::Broadcast { axes } = graph.def_op(other) else { return None };
            let bias = graph.operands(graph.def(other))[0];
            let Op::Weight(recipe) = graph.def_op(bias) else { return None };
            let last = graph.ty(result).rank() - 1;
            (axes[..] == [last]).then(|| (Bias { add, recipe: recipe.clone() }, graph.ty(bias).clone()))
        })
        .collect();
    let found = found?;
    let dtype = found[0].1.dtype;
    found.iter().all(|(_, ty)| ty.dtype == dtype).then(|| found.into_iter().map(|(bias, _)| bias).collect())
}

/// The old graph copied front to back.
struct Rewrite<'a> {
    old: &'a Graph,
    new: Graph,
    map: HashMap<Value, Value>,
}

impl Rewrite<'_> {
    fn copy(&mut self, inst: Inst) {
        let data = self.old.inst(inst);
        let operands = data.operands.iter().map(|v| self.map[v]).collect();
        let types = data.results.iter().map(|&v| self.old.ty(v).clone()).collect();
        let new = self.new.append(data.op.clone(), operands, types, data.origin.clone());
        self.map.extend(data.results.iter().copied().zip(self.new.results(new).iter().copied()));
    }

    fn append(&mut self, op: Op, operands: Vec<Value>, ty: Type, origin: &str) -> Value {
        let inst = self.new.append(op, operands, vec![ty], origin);
        self.new.result(inst)
    }

    fn merged(&mut self, merge: &Merge) {
        let old = self.old;
        let dots = &merge.dots;
        let weights: Vec<Value> = dots.iter().flat_map(|&d| &old.operands(d)[1..]).copied().collect();
        for w in &weights {
            if !self.map.contains_key(w) {
                self.copy(old.def(*w));
            }
        }
        let widths: Vec<usize> = dots.iter().map(|&d| last_axis(old.ty(old.result(d)))).collect();
        let mut ty = old.ty(old.result(dots[0])).clone();
        let axis = ty.rank() - 1;
        let total = widths.iter().sum();
        ty.dims[axis] = Dim::Const(total);

        let mut operands = vec![self.map[&old.operands(dots[0])[0]]];
        operands.extend(weights.iter().map(|w| self.map[w]));
        let source = origin::join(dots.iter().map(|&d| old.origin(d)));
        let mut whole = self.append(old.op(dots[0]).clone(), operands, ty.clone(), &source);
        if let Some(adds) = &merge.adds {
            let recipe = Recipe::Concat(adds.iter().map(|b| b.recipe.clone()).collect());
            let bias = self.append(Op::Weight(recipe), vec![], ty.with_dims([Dim::Const(total)]), &source);
            let bias = self.append(Op::Broadcast { axes: vec![axis] }, vec![bias], ty.clone(), &source);
            whole = self.append(Op::Binary(BinaryOp::Add), vec![whole, bias], ty.clone(), &source);
        }
        let mut start = 0;
        for (i, (&dot, &len)) in dots.iter().zip(&widths).enumerate() {
            ty.dims[axis] = Dim::Const(len);
            let part = self.append(Op::Slice { axis, start, len }, vec![whole], ty.clone(), old.origin(dot));
            start += len;
            let replaced = merge.adds.as_ref().map_or(dot, |adds| adds[i].add);
            self.map.insert(old.result(replaced), part);
        }
    }
}

/// The number of outputs of a dot with weights: the last axis of its result.
fn last_axis(ty: &Type) -> usize {
    ty.dims.last().and_then(|d| d.as_const()).expect("the outputs of a weight are a constant axis")
}
