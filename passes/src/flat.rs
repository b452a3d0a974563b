//! A graph with its regions opened, and which kernel each instruction belongs to.

use llamac_ir::{FusionKind, Graph, Inst, Op, Value};
use std::collections::HashMap;

/// A step of the graph: a fused instruction, or one that is a kernel by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `rows`, `epilogue`, `attention`; none for a primitive by itself.
    pub kind: Option<FusionKind>,
    /// The origin, and what it is: `layers.3.attn.norm rmsnorm`.
    pub label: String,
}

/// The opened graph.
#[derive(Clone, Debug)]
pub struct Flat {
    /// Primitives only.
    pub graph: Graph,
    /// All kernels in program order.
    pub kernels: Vec<Kernel>,
    /// The kernel of each instruction; none for leaves and for views outside of regions.
    pub kernel: Vec<Option<usize>>,
}

impl Flat {
    /// Opens all regions.
    pub fn new(graph: &Graph) -> Flat {
        let mut flat = Flat { graph: Graph::new(graph.name.clone(), graph.bounds), kernels: vec![], kernel: vec![] };
        let mut map: HashMap<Value, Value> = HashMap::new();
        for &inst in graph.order() {
            let operands: Vec<Value> = graph.operands(inst).iter().map(|v| map[v]).collect();
            match graph.op(inst) {
                Op::Fusion(f) => {
                    let at = flat.start(Some(f.kind), &f.name, graph.origin(inst));
                    let mut inner: HashMap<Value, Value> = HashMap::new();
                    for &i in f.region.order() {
                        if let Op::Param { index } = f.region.op(i) {
                            inner.insert(f.region.result(i), operands[*index]);
                        } else {
                            let operands = f.region.operands(i).iter().map(|v| inner[v]).collect();
                            let kernel = (!f.region.op(i).is_leaf()).then_some(at);
                            flat.append(&f.region, i, operands, graph.origin(inst), kernel, &mut inner);
                        }
                    }
                    let outputs = f.region.outputs().iter().map(|(_, v)| inner[v]);
                    map.extend(graph.results(inst).iter().copied().zip(outputs));
                }
                op => {
                    let kernel =
                        (!op.is_leaf() && !op.is_view()).then(|| flat.start(None, op.mnemonic(), graph.origin(inst)));
                    flat.append(graph, inst, operands, graph.origin(inst), kernel, &mut map);
                }
            }
        }
        for (name, v) in graph.outputs() {
            flat.graph.add_output(name.clone(), map[v]);
        }
        flat
    }

    fn start(&mut self, kind: Option<FusionKind>, name: &str, origin: &str) -> usize {
        let label = format!("{origin}{}{name}", if origin.is_empty() { "" } else { " " });
        self.kernels.push(Kernel { kind, label });
        self.kernels.len() - 1
    }

    fn append(
        &mut self,
        from: &Graph,
        inst: Inst,
        operands: Vec<Value>,
        origin: &str,
        kernel: Option<usize>,
        map: &mut HashMap<Value, Value>,
    ) {
        let types = from.results(inst).iter().map(|&v| from.ty(v).clone()).collect();
        let new = self.graph.append(from.op(inst).clone(), operands, types, origin);
        self.kernel.push(kernel);
        map.extend(from.results(inst).iter().copied().zip(self.graph.results(new).iter().copied()));
    }

    /// The kernel of an instruction.
    pub fn kernel_of(&self, inst: Inst) -> Option<usize> {
        self.kernel[inst.index()]
    }
}
