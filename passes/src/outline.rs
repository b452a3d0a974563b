//! Outlining: sets of instructions become fused instructions with regions, and the graph is put in order again.
//!
//! A pass chooses [`Group`]s of instructions of which each becomes one `fusion`. What a member reads is, in this order:
//! another member; a view over a member, pulled into the region; an immediate, a view or a mask that the group pulls in and
//! that may stay outside as well; or a param. What other instructions need of a group are its results.
//! Contraction may make two instructions wait for each other; such groups are given up and returned.

use crate::indexing::{Views, is_affine_view, is_immediate, is_transparent};
use crate::{live, origin, state_order};
use llamac_ir::{Fusion, FusionKind, Graph, Inst, Op, Type, Value};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};

/// Instructions that become one kernel.
pub struct Group {
    /// What it becomes.
    pub kind: FusionKind,
    /// The instructions, none of them a transparent view, in program order.
    pub members: Vec<Inst>,
    /// Values that become the first params, in this order, even where they could be pulled in.
    pub params: Vec<Value>,
    /// Which instructions that read no member are copied into the region: see [`pulls_all`], [`pulls_broadcasts`], [`pulls_attention`].
    pub pulls: fn(&Graph, Inst) -> bool,
    /// Names the finished region.
    pub name: fn(&Graph) -> String,
}

/// The most instructions that are copied into a kernel for the sake of one operand; likewise the most views over another
/// instruction's result. Of longer chains the region takes the end as a param.
const MAX_COPIED: usize = 24;

/// Pulls all views that need no division.
pub fn pulls_all(graph: &Graph, inst: Inst) -> bool {
    is_affine_view(graph, inst)
}

/// Pulls broadcasts only: other views stay operands.
pub fn pulls_broadcasts(graph: &Graph, inst: Inst) -> bool {
    matches!(graph.op(inst), Op::Broadcast { .. })
}

/// Pulls broadcasts, and rows of states by slot.
pub fn pulls_attention(graph: &Graph, inst: Inst) -> bool {
    matches!(graph.op(inst), Op::Broadcast { .. } | Op::Index)
}

/// Where each instruction stands in program order; `usize::MAX` for removed ones.
pub fn positions(graph: &Graph) -> Vec<usize> {
    let mut positions = vec![usize::MAX; graph.inst_count()];
    for (at, &inst) in graph.order().iter().enumerate() {
        positions[inst.index()] = at;
    }
    positions
}

/// Instructions cheap enough to be computed again in every kernel that reads them, from leaves alone: casts, masks, integer
/// arithmetic, and rows of a generated table by index. Immediates and transparent views count as well.
pub fn cheap(graph: &Graph) -> Vec<bool> {
    let mut cheap = vec![false; graph.inst_count()];
    // Instructions that a copy would bring along.
    let mut size = vec![0usize; graph.inst_count()];
    for &inst in graph.order() {
        let brought = graph.operands(inst).iter().map(|&v| size[graph.def(v).index()]);
        size[inst.index()] = brought.fold(1, usize::saturating_add);
        let from_leaves = || {
            graph.operands(inst).iter().all(|&v| {
                let leaf =
                    matches!(graph.def_op(v), Op::Input { .. } | Op::Param { .. } | Op::Weight(_) | Op::Const(_));
                leaf || cheap[graph.def(v).index()]
            })
        };
        let op = graph.op(inst);
        let small = size[inst.index()] <= MAX_COPIED;
        cheap[inst.index()] = small
            && match op {
                _ if is_immediate(op) => true,
                _ if is_transparent(op) => !matches!(op, Op::Index) && is_affine_view(graph, inst) && from_leaves(),
                // Blocks are made once for all dots that read them.
                Op::Cast if graph.ty(graph.result(inst)).dtype.is_block() => false,
                Op::Cast | Op::Compare(_) => from_leaves(),
                Op::Select | Op::Binary(_) | Op::Unary(_) => {
                    let exact = !graph.ty(graph.result(inst)).dtype.is_float();
                    exact && from_leaves()
                }
                Op::Gather => {
                    let table = graph.def_op(graph.operands(inst)[0]);
                    matches!(table, Op::Const(_)) && matches!(graph.def_op(graph.operands(inst)[1]), Op::Input { .. })
                }
                _ => false,
            };
    }
    cheap
}

/// Replaces each group by a fused instruction and drops what is dead. Returns the indices of the groups given up because
/// the contracted graph would wait for itself.
pub fn outline(graph: &mut Graph, groups: &[Group]) -> Vec<usize> {
    if groups.is_empty() {
        return vec![];
    }
    let all: Vec<usize> = (0..groups.len()).collect();
    if let Some(new) = Contraction::new(graph, groups, &all).build() {
        *graph = new;
        return vec![];
    }
    let (mut chosen, mut given_up) = (Vec::new(), Vec::new());
    for g in all {
        chosen.push(g);
        if Contraction::new(graph, groups, &chosen).build().is_none() {
            chosen.pop();
            given_up.push(g);
        }
    }
    if let Some(new) = Contraction::new(graph, groups, &chosen).build() {
        *graph = new;
    }
    given_up
}

/// What a group's region holds beside its members, and what it needs.
struct Region {
    /// Members and what is pulled in.
    inside: HashSet<Inst>,
    /// What it may read from outside.
    params: Vec<Value>,
}

fn region_of(graph: &Graph, group: &Group, cheap: &[bool], views: &Views) -> Region {
    let members: HashSet<Inst> = group.members.iter().copied().collect();
    // A view over a member must be in the region; whatever else it could hold may be.
    let over_member = |value: Value| {
        let view = is_transparent(graph.def_op(value));
        let shows = |v: Value| members.contains(&graph.def(v));
        view && (shows(views.behind(value)) || views.slots(value).is_some_and(shows))
    };
    let pulled = |value: Value| {
        let inst = graph.def(value);
        let may = || {
            let op = graph.op(inst);
            let view = is_transparent(op) && (group.pulls)(graph, inst) && views.depth(value) <= MAX_COPIED;
            // A tile has no rows of its own to index by.
            let other =
                cheap[inst.index()] && !op.is_view() && !(group.kind == FusionKind::Epilogue && *op == Op::Gather);
            !group.params.contains(&value) && (is_immediate(op) || view || other)
        };
        over_member(value) || may()
    };
    let mut inside: HashSet<Inst> = members.clone();
    let mut params = group.params.clone();
    let mut work: Vec<Inst> = group.members.clone();
    while let Some(inst) = work.pop() {
        for &v in graph.operands(inst) {
            let def = graph.def(v);
            if members.contains(&def) {
                continue;
            }
            if !pulled(v) {
                if !params.contains(&v) {
                    params.push(v);
                }
            } else if inside.insert(def) {
                work.push(def);
            }
        }
    }
    Region { inside, params }
}

/// The graph with each chosen group as one node.
struct Contraction<'a> {
    graph: &'a Graph,
    groups: Vec<(&'a Group, Region)>,
    positions: Vec<usize>,
    /// The node of an instruction: a group's index, or the number of groups plus its position.
    node: Vec<usize>,
}

impl<'a> Contraction<'a> {
    fn new(graph: &'a Graph, groups: &'a [Group], chosen: &[usize]) -> Contraction<'a> {
        let positions = positions(graph);
        let (cheap, views) = (cheap(graph), Views::new(graph));
        let groups: Vec<(&Group, Region)> =
            chosen.iter().map(|&g| (&groups[g], region_of(graph, &groups[g], &cheap, &views))).collect();
        let mut node: Vec<usize> = positions.iter().map(|&at| at.saturating_add(groups.len())).collect();
        for (g, (group, _)) in groups.iter().enumerate() {
            for m in &group.members {
                node[m.index()] = g;
            }
        }
        Contraction { graph, groups, positions, node }
    }

    fn inputs(&self, node: usize) -> &[Value] {
        match self.groups.get(node) {
            Some((_, region)) => &region.params,
            None => self.graph.operands(self.inst(node)),
        }
    }

    fn inst(&self, node: usize) -> Inst {
        self.graph.order()[node - self.groups.len()]
    }

    fn effect(&self, node: usize) -> bool {
        match self.groups.get(node) {
            Some((group, _)) => group.members.iter().any(|&m| live::has_effect(self.graph.op(m))),
            None => live::has_effect(self.graph.op(self.inst(node))),
        }
    }

    /// Nodes that outputs or effects need, and the members' values that are needed outside of their groups.
    fn live(&self) -> (BTreeSet<usize>, BTreeSet<Value>) {
        let (mut live, mut results) = (BTreeSet::new(), BTreeSet::new());
        let mut work: Vec<usize> = Vec::new();
        let mut need = |v: Value, work: &mut Vec<usize>| {
            let node = self.node[self.graph.def(v).index()];
            if node < self.groups.len() {
                results.insert(v);
            }
            work.push(node);
        };
        for &(_, v) in self.graph.outputs() {
            need(v, &mut work);
        }
        for &inst in self.graph.order() {
            let node = self.node[inst.index()];
            if matches!(self.graph.op(inst), Op::Input { .. } | Op::Param { .. }) || self.effect(node) {
                work.push(node);
            }
            if node < self.groups.len() && live::has_effect(self.graph.op(inst)) {
                for &v in self.graph.results(inst) {
                    need(v, &mut work);
                }
            }
        }
        while let Some(node) = work.pop() {
            if live.insert(node) {
                for &v in self.inputs(node) {
                    need(v, &mut work);
                }
            }
        }
        (live, results)
    }

    /// The contracted graph in order, or nothing if it would wait for itself.
    fn build(&self) -> Option<Graph> {
        let (live, results) = self.live();
        let order = self.schedule(&live)?;
        let mut out = Graph::new(self.graph.name.clone(), self.graph.bounds);
        let mut map: HashMap<Value, Value> = HashMap::new();
        for node in order {
            let (op, inputs, from, source) = match self.groups.get(node) {
                Some((group, region)) => {
                    let outputs: Vec<Value> = self.results_of(group, &results);
                    let (body, params) = self.body(group, region, &outputs);
                    let name = (group.name)(&body);
                    let fusion = Fusion { kind: group.kind, name, region: body };
                    let origins = group.members.iter().map(|&m| self.graph.origin(m));
                    (Op::Fusion(Box::new(fusion)), params, outputs, origin::join(origins))
                }
                None => {
                    let data = self.graph.inst(self.inst(node));
                    (data.op.clone(), data.operands.clone(), data.results.clone(), data.origin.clone())
                }
            };
            let operands = inputs.iter().map(|v| map[v]).collect();
            let types: Vec<Type> = from.iter().map(|&v| self.graph.ty(v).clone()).collect();
            let new = out.append(op, operands, types, source);
            map.extend(from.iter().copied().zip(out.results(new).iter().copied()));
        }
        for (name, v) in self.graph.outputs() {
            out.add_output(name.clone(), map[v]);
        }
        Some(out)
    }

    fn results_of(&self, group: &Group, results: &BTreeSet<Value>) -> Vec<Value> {
        group.members.iter().flat_map(|&m| self.graph.results(m)).filter(|v| results.contains(v)).copied().collect()
    }

    /// Live nodes, each after what it needs, otherwise as they stood (a group where its last member stood).
    fn schedule(&self, live: &BTreeSet<usize>) -> Option<Vec<usize>> {
        let mut after: HashMap<usize, BTreeSet<usize>> = HashMap::new();
        let mut waits: HashMap<usize, usize> = live.iter().map(|&n| (n, 0)).collect();
        let mut edge = |from: usize, to: usize| {
            if from != to && after.entry(from).or_default().insert(to) {
                *waits.entry(to).or_default() += 1;
            }
        };
        for &node in live {
            for &v in self.inputs(node) {
                edge(self.node[self.graph.def(v).index()], node);
            }
        }
        for (reader, writer) in state_order::read_before_write(self.graph) {
            let (reader, writer) = (self.node[reader.index()], self.node[writer.index()]);
            if live.contains(&reader) && live.contains(&writer) {
                edge(reader, writer);
            }
        }
        let key = |node: usize| match self.groups.get(node) {
            Some((group, _)) => group.members.iter().map(|m| self.positions[m.index()]).max().unwrap_or(0),
            None => node - self.groups.len(),
        };
        let mut ready: BinaryHeap<Reverse<(usize, usize)>> =
            live.iter().filter(|n| waits[n] == 0).map(|&n| Reverse((key(n), n))).collect();
        let mut order = Vec::with_capacity(live.len());
        while let Some(Reverse((_, node))) = ready.pop() {
            order.push(node);
            for &next in after.get(&node).into_iter().flatten() {
                let left = waits.get_mut(&next).expect("an edge leads to a live node");
                *left -= 1;
                if *left == 0 {
                    ready.push(Reverse((key(next), next)));
                }
            }
        }
        (order.len() == live.len()).then_some(order)
    }

    /// The region, and the values that are its params. Its order is that of a walk from its results to what they read, so that
    /// regions that compute the same are the same, wherever their instructions stood.
    fn body(&self, group: &Group, region: &Region, outputs: &[Value]) -> (Graph, Vec<Value>) {
        let (insts, read) = self.walk(region, outputs);
        let first = group.params.iter().filter(|v| read.contains(v));
        let mut params: Vec<Value> = first.copied().collect();
        params.extend(read.iter().filter(|v| !group.params.contains(v)));

        let mut body = Graph::new("", self.graph.bounds);
        let mut map: HashMap<Value, Value> = HashMap::new();
        for (index, &v) in params.iter().enumerate() {
            let param = body.append(Op::Param { index }, vec![], vec![self.graph.ty(v).clone()], "");
            map.insert(v, body.result(param));
        }
        for inst in insts {
            let data = self.graph.inst(inst);
            let operands = data.operands.iter().map(|v| map[v]).collect();
            let types = data.results.iter().map(|&v| self.graph.ty(v).clone()).collect();
            // Without an origin: kernels of equal regions are compiled once.
            let new = body.append(data.op.clone(), operands, types, "");
            map.extend(data.results.iter().copied().zip(body.results(new).iter().copied()));
        }
        for v in outputs {
            body.add_output("", map[v]);
        }
        (body, params)
    }

    /// What the outputs need: instructions of the region, operands first, and values from outside as they are met.
    fn walk(&self, region: &Region, outputs: &[Value]) -> (Vec<Inst>, Vec<Value>) {
        let (mut insts, mut read) = (Vec::new(), Vec::new());
        let mut entered: HashSet<Inst> = HashSet::new();
        let mut outside: HashSet<Value> = HashSet::new();
        // Instructions on the way, each with the number of operands already seen to.
        let mut path: Vec<(Inst, usize)> = Vec::new();
        for &output in outputs {
            let root = self.graph.def(output);
            if entered.insert(root) {
                path.push((root, 0));
            }
            while let Some((inst, next)) = path.last_mut() {
                let Some(&v) = self.graph.operands(*inst).get(*next) else {
                    insts.push(*inst);
                    path.pop();
                    continue;
                };
                *next += 1;
                let def = self.graph.def(v);
                if !region.inside.contains(&def) || region.params.contains(&v) {
                    if outside.insert(v) {
                        read.push(v);
                    }
                } else if entered.insert(def) {
                    path.push((def, 0));
                }
            }
        }
        (insts, read)
    }
}
