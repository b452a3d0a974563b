//! Views of a graph that are made when they are asked for and thrown away: the dependences as a petgraph, orders, paths,
//! and a drawing. The graph itself stays the store; nothing here is kept up to date with it.

use crate::{FusionKind, Graph, Inst, Op, Value};
use petgraph::algo::has_path_connecting;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::Topo;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::fmt::Write;

/// Why one instruction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependence {
    /// The later one's operand of that number is a result of the earlier one.
    Operand(usize),
    /// The earlier one reads, itself or through views, a state that the later one overwrites.
    ReadBeforeWrite,
}

/// The dependences between the instructions of a graph: an edge from each to those that must come later.
#[derive(Clone, Debug)]
pub struct Dependences {
    /// The petgraph; nodes in program order.
    pub edges: DiGraph<Inst, Dependence>,
    nodes: HashMap<Inst, NodeIndex>,
}

impl Dependences {
    /// Those of a verified graph.
    pub fn new(graph: &Graph) -> Dependences {
        let mut edges = DiGraph::with_capacity(graph.order().len(), graph.order().len());
        let nodes: HashMap<Inst, NodeIndex> = graph.order().iter().map(|&i| (i, edges.add_node(i))).collect();
        for &inst in graph.order() {
            for (i, &v) in graph.operands(inst).iter().enumerate() {
                if let Some(&def) = nodes.get(&graph.def(v)) {
                    edges.add_edge(def, nodes[&inst], Dependence::Operand(i));
                }
            }
        }
        for (reader, writer) in reads_before_writes(graph) {
            edges.add_edge(nodes[&reader], nodes[&writer], Dependence::ReadBeforeWrite);
        }
        Dependences { edges, nodes }
    }

    /// Whether `later` depends on `earlier`, at any distance; an instruction reaches itself.
    pub fn reaches(&self, earlier: Inst, later: Inst) -> bool {
        match (self.nodes.get(&earlier), self.nodes.get(&later)) {
            (Some(&a), Some(&b)) => has_path_connecting(&self.edges, a, b, None),
            _ => false,
        }
    }

    /// The instructions on some path from `earlier` to `later`, both included; empty if there is none.
    pub fn path(&self, earlier: Inst, later: Inst) -> Vec<Inst> {
        let (Some(&a), Some(&b)) = (self.nodes.get(&earlier), self.nodes.get(&later)) else { return vec![] };
        let found = petgraph::algo::astar(&self.edges, a, |n| n == b, |_| 1usize, |_| 0);
        found.map_or(vec![], |(_, path)| path.into_iter().map(|n| self.edges[n]).collect())
    }

    /// An order in which every instruction comes after those it depends on: as close to program order as that allows. None
    /// if there is a cycle.
    pub fn order(&self) -> Option<Vec<Inst>> {
        let mut waiting: Vec<usize> =
            self.edges.node_indices().map(|n| self.edges.neighbors_directed(n, petgraph::Incoming).count()).collect();
        let ready = self.edges.node_indices().filter(|n| waiting[n.index()] == 0);
        let mut ready: BinaryHeap<Reverse<NodeIndex>> = ready.map(Reverse).collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(Reverse(n)) = ready.pop() {
            order.push(self.edges[n]);
            for next in self.edges.neighbors(n) {
                waiting[next.index()] -= 1;
                if waiting[next.index()] == 0 {
                    ready.push(Reverse(next));
                }
            }
        }
        (order.len() == waiting.len()).then_some(order)
    }

    /// How many instructions the longest chain of dependences has.
    pub fn depth(&self) -> usize {
        let mut depth = vec![0; self.edges.node_count()];
        let mut topo = Topo::new(&self.edges);
        while let Some(n) = topo.next(&self.edges) {
            let before = self.edges.neighbors_directed(n, petgraph::Incoming).map(|p| depth[p.index()]).max();
            depth[n.index()] = before.unwrap_or(0) + 1;
        }
        depth.into_iter().max().unwrap_or(0)
    }
}

/// Pairs (reader, writer): the reader uses, itself or through views, a state that the writer overwrites. A fusion writes
/// what its region writes.
pub fn reads_before_writes(graph: &Graph) -> Vec<(Inst, Inst)> {
    let mut writers: HashMap<Value, Inst> = HashMap::new();
    for &inst in graph.order() {
        for state in written_states(graph, inst) {
            writers.insert(state, inst);
        }
    }
    let mut pairs = vec![];
    let mut shown: HashMap<Value, BTreeSet<Value>> = HashMap::new();
    for &inst in graph.order() {
        let mut states: BTreeSet<Value> = BTreeSet::new();
        for v in graph.operands(inst) {
            states.extend(writers.contains_key(v).then_some(*v));
            states.extend(shown.get(v).into_iter().flatten());
        }
        pairs.extend(states.iter().map(|s| (inst, writers[s])).filter(|(reader, writer)| reader != writer));
        if graph.op(inst).is_view() && !states.is_empty() {
            shown.insert(graph.result(inst), states);
        }
    }
    pairs
}

/// The states that an instruction overwrites: the first operand of a `state.write`, and what a fusion's region writes.
pub fn written_states(graph: &Graph, inst: Inst) -> Vec<Value> {
    match graph.op(inst) {
        Op::StateWrite => vec![graph.operands(inst)[0]],
        Op::Fusion(f) => {
            let region = &f.region;
            let params = region.order().iter().filter(|&&i| matches!(region.op(i), Op::StateWrite)).filter_map(|&i| {
                match region.def_op(region.operands(i)[0]) {
                    Op::Param { index } => graph.operands(inst).get(*index).copied(),
                    // A second write to the same state: the first has its param.
                    _ => None,
                }
            });
            params.collect()
        }
        _ => vec![],
    }
}

/// The graph as Graphviz text: fusions are clusters, dashed edges keep reads of a state before its write.
pub fn dot_text(graph: &Graph) -> String {
    // Numbered as the text form numbers them.
    let graph = &graph.compacted();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = draw(&mut out, graph);
    out
}

fn draw(out: &mut String, graph: &Graph) -> std::fmt::Result {
    writeln!(out, "digraph {} {{", quoted(&graph.name))?;
    writeln!(out, "  rankdir=TB; node [shape=box, fontname=monospace, fontsize=10];")?;
    for &inst in graph.order() {
        match graph.op(inst) {
            Op::Fusion(f) => {
                let color = match f.kind {
                    FusionKind::Rows => "lightblue",
                    FusionKind::Epilogue => "lightyellow",
                    FusionKind::Attention => "lightpink",
                };
                writeln!(out, "  subgraph cluster_{} {{", inst.0)?;
                writeln!(out, "    style=filled; color={color};")?;
                writeln!(out, "    label={};", quoted(&format!("{} {}\n{}", f.kind, f.name, graph.origin(inst))))?;
                for &i in f.region.order() {
                    let name = format!("{}_{}", node(inst), i.0);
                    writeln!(out, "    {name} [label={}];", label(&f.region, i))?;
                    for v in f.region.operands(i) {
                        writeln!(out, "    {}_{} -> {name};", node(inst), f.region.def(*v).0)?;
                    }
                }
                writeln!(out, "  }}")?;
            }
            _ => writeln!(out, "  {} [label={}];", node(inst), label(graph, inst))?,
        }
        for (i, &v) in graph.operands(inst).iter().enumerate() {
            writeln!(out, "  {} -> {};", source(graph, v), target(graph, inst, i))?;
        }
    }
    for (reader, writer) in reads_before_writes(graph) {
        // Between clusters an edge joins any of their nodes.
        let (from, to) = (source(graph, graph.result(reader)), target(graph, writer, 0));
        writeln!(out, "  {from} -> {to} [style=dashed, constraint=false];")?;
    }
    for (i, (name, v)) in graph.outputs().iter().enumerate() {
        writeln!(out, "  output_{i} [label={}, shape=ellipse];", quoted(name))?;
        writeln!(out, "  {} -> output_{i};", source(graph, *v))?;
    }
    out.push_str("}\n");
    Ok(())
}

fn node(inst: Inst) -> String {
    format!("n{}", inst.0)
}

/// The node that makes a value.
fn source(graph: &Graph, value: Value) -> String {
    let def = graph.def(value);
    match graph.op(def) {
        Op::Fusion(f) => {
            let made = f.region.outputs().get(graph.result_index(value)).map(|(_, v)| f.region.def(*v).0);
            format!("{}_{}", node(def), made.unwrap_or(0))
        }
        _ => node(def),
    }
}

/// The node that takes an operand.
fn target(graph: &Graph, inst: Inst, operand: usize) -> String {
    match graph.op(inst) {
        Op::Fusion(f) => {
            let is_param = |&&i: &&Inst| matches!(f.region.op(i), Op::Param { index } if *index == operand);
            format!("{}_{}", node(inst), f.region.order().iter().find(is_param).map_or(0, |i| i.0))
        }
        _ => node(inst),
    }
}

fn label(graph: &Graph, inst: Inst) -> String {
    let result = graph.result(inst);
    let mut text = format!("{}: {}\n{}", result, graph.ty(result), graph.op(inst).mnemonic());
    match graph.op(inst) {
        Op::Input { name, .. } | Op::State { name } => text += &format!(" {name}"),
        Op::Weight(recipe) => text += &format!(" {recipe}"),
        Op::Param { index } => text += &format!(" {index}"),
        Op::Reduce { op, .. } => text += &format!(" {op}"),
        Op::Compare(op) => text += &format!(" {op}"),
        _ => {}
    }
    if !graph.origin(inst).is_empty() {
        text += &format!("\n{}", graph.origin(inst));
    }
    quoted(&text)
}

fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
