//! The store: instructions and values in arenas, and the program order.

use crate::entity::entity;
use crate::{Op, Type};
use llamac_formats::Bounds;
use std::collections::HashMap;

entity! {
    /// A value: one result of one instruction.
    Value, "%"
}
entity! {
    /// An instruction.
    Inst, "inst"
}

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct InstData {
    /// What it computes.
    pub op: Op,
    /// Operands, in order.
    pub operands: Vec<Value>,
    /// Results; one, but for fusions.
    pub results: Vec<Value>,
    /// Where it came from: `layers.3.attn.q_norm`. Empty where nothing is known.
    pub origin: String,
}

#[derive(Clone, Debug, PartialEq)]
struct ValueData {
    ty: Type,
    def: Inst,
    index: usize,
}

/// A graph: a whole model, or the region of a fusion.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Its name; empty for a region.
    pub name: String,
    /// Largest values of the dynamic dimensions; a region has its graph's.
    pub bounds: Bounds,
    insts: Vec<InstData>,
    values: Vec<ValueData>,
    order: Vec<Inst>,
    outputs: Vec<(String, Value)>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>, bounds: Bounds) -> Graph {
        Graph { name: name.into(), bounds, insts: vec![], values: vec![], order: vec![], outputs: vec![] }
    }

    /// Instructions in program order.
    pub fn order(&self) -> &[Inst] {
        &self.order
    }

    /// Replaces the program order by a permutation of it (the `schedule` pass); the verifier checks dominance.
    ///
    /// # Panics
    /// If `order` is no permutation of the present one.
    pub fn set_order(&mut self, order: Vec<Inst>) {
        let sorted = |mut v: Vec<Inst>| {
            v.sort();
            v
        };
        assert_eq!(sorted(order.clone()), sorted(self.order.clone()), "an order must be a permutation");
        self.order = order;
    }

    /// An instruction.
    pub fn inst(&self, inst: Inst) -> &InstData {
        &self.insts[inst.index()]
    }

    /// Its op.
    pub fn op(&self, inst: Inst) -> &Op {
        #[cfg(feature = "random")]
        work::add(1);
        &self.insts[inst.index()].op
    }

    /// Its op, to change attributes in place; result types must stay right.
    pub fn op_mut(&mut self, inst: Inst) -> &mut Op {
        &mut self.insts[inst.index()].op
    }

    /// Its operands.
    pub fn operands(&self, inst: Inst) -> &[Value] {
        #[cfg(feature = "random")]
        work::add(1);
        &self.insts[inst.index()].operands
    }

    /// Its results.
    pub fn results(&self, inst: Inst) -> &[Value] {
        &self.insts[inst.index()].results
    }

    /// Its first result.
    pub fn result(&self, inst: Inst) -> Value {
        self.insts[inst.index()].results[0]
    }

    /// Where it came from.
    pub fn origin(&self, inst: Inst) -> &str {
        &self.insts[inst.index()].origin
    }

    /// A value's type.
    pub fn ty(&self, value: Value) -> &Type {
        &self.values[value.index()].ty
    }

    /// Changes a value's type (the `layout` pass).
    pub fn set_ty(&mut self, value: Value, ty: Type) {
        self.values[value.index()].ty = ty;
    }

    /// The instruction that defines a value.
    pub fn def(&self, value: Value) -> Inst {
        self.values[value.index()].def
    }

    /// The op that defines a value.
    pub fn def_op(&self, value: Value) -> &Op {
        self.op(self.def(value))
    }

    /// Which result of its instruction a value is.
    pub fn result_index(&self, value: Value) -> usize {
        self.values[value.index()].index
    }

    /// How many values were ever made: ids are below this.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// How many instructions were ever made, removed ones included: ids are below this.
    pub fn inst_count(&self) -> usize {
        self.insts.len()
    }

    /// Named outputs, in order. In a region the names are empty.
    pub fn outputs(&self) -> &[(String, Value)] {
        &self.outputs
    }

    /// Adds an output.
    pub fn add_output(&mut self, name: impl Into<String>, value: Value) {
        self.outputs.push((name.into(), value));
    }

    /// Appends an instruction. The caller answers for the types; `verify` and [`crate::infer`] check them.
    pub fn append(&mut self, op: Op, operands: Vec<Value>, types: Vec<Type>, origin: impl Into<String>) -> Inst {
        let inst = self.make(op, operands, types, origin.into());
        self.order.push(inst);
        inst
    }

    /// Inserts an instruction before another. Linear in the number of instructions.
    pub fn insert_before(
        &mut self,
        before: Inst,
        op: Op,
        operands: Vec<Value>,
        types: Vec<Type>,
        origin: impl Into<String>,
    ) -> Inst {
        let at = self.position(before);
        let inst = self.make(op, operands, types, origin.into());
        self.order.insert(at, inst);
        inst
    }

    fn make(&mut self, op: Op, operands: Vec<Value>, types: Vec<Type>, origin: String) -> Inst {
        let inst = Inst(self.insts.len() as u32);
        let results = types
            .into_iter()
            .enumerate()
            .map(|(index, ty)| {
                let value = Value(self.values.len() as u32);
                self.values.push(ValueData { ty, def: inst, index });
                value
            })
            .collect();
        self.insts.push(InstData { op, operands, results, origin });
        inst
    }

    /// Where an instruction stands in program order.
    ///
    /// # Panics
    /// If it was removed.
    pub fn position(&self, inst: Inst) -> usize {
        let at = self.order.iter().position(|&i| i == inst).expect("the instruction is in program order");
        #[cfg(feature = "random")]
        work::add(at as u64);
        at
    }

    /// Changes one operand.
    pub fn set_operand(&mut self, inst: Inst, index: usize, value: Value) {
        self.insts[inst.index()].operands[index] = value;
    }

    /// Replaces all operands.
    pub fn set_operands(&mut self, inst: Inst, operands: Vec<Value>) {
        self.insts[inst.index()].operands = operands;
    }

    /// Makes every use of `old`, outputs included, a use of `new`.
    pub fn replace_uses(&mut self, old: Value, new: Value) {
        for inst in &mut self.insts {
            for operand in &mut inst.operands {
                if *operand == old {
                    *operand = new;
                }
            }
        }
        for (_, value) in &mut self.outputs {
            if *value == old {
                *value = new;
            }
        }
    }

    /// Removes instructions from program order. Their results must have no uses left.
    pub fn remove(&mut self, dead: impl Fn(Inst) -> bool) {
        self.order.retain(|&i| !dead(i));
        // A removed instruction must not be found by a scan over uses.
        let live: std::collections::HashSet<Inst> = self.order.iter().copied().collect();
        for (i, data) in self.insts.iter_mut().enumerate() {
            if !live.contains(&Inst(i as u32)) {
                data.operands.clear();
            }
        }
    }

    /// For every value, the instructions that use it, in program order, once per operand.
    pub fn uses(&self) -> HashMap<Value, Vec<Inst>> {
        let mut uses: HashMap<Value, Vec<Inst>> = HashMap::new();
        for &inst in &self.order {
            for &operand in self.operands(inst) {
                uses.entry(operand).or_default().push(inst);
            }
        }
        uses
    }

    /// Whether a value is an output of the graph.
    pub fn is_output(&self, value: Value) -> bool {
        self.outputs.iter().any(|&(_, v)| v == value)
    }

    /// A copy with ids renumbered densely in program order; what `print` shows and what equality compares.
    pub fn compacted(&self) -> Graph {
        let mut out = Graph::new(self.name.clone(), self.bounds);
        let mut map: HashMap<Value, Value> = HashMap::new();
        for &inst in &self.order {
            let data = self.inst(inst);
            let operands = data.operands.iter().map(|v| map.get(v).copied().unwrap_or(Value(u32::MAX))).collect();
            let types = data.results.iter().map(|&v| self.ty(v).clone()).collect();
            let op = match &data.op {
                Op::Fusion(f) => {
                    let mut f = f.clone();
                    f.region = f.region.compacted();
                    Op::Fusion(f)
                }
                op => op.clone(),
            };
            let new = out.append(op, operands, types, data.origin.clone());
            for (&old, &new) in data.results.iter().zip(out.results(new)) {
                map.insert(old, new);
            }
        }
        for (name, value) in &self.outputs {
            out.add_output(name.clone(), map.get(value).copied().unwrap_or(Value(u32::MAX)));
        }
        out
    }
}

/// Graphs are equal if they are equal instruction by instruction in program order, whatever their ids.
impl PartialEq for Graph {
    fn eq(&self, other: &Graph) -> bool {
        let (a, b) = (self.compacted(), other.compacted());
        a.name == b.name && a.bounds == b.bounds && a.insts == b.insts && a.values == b.values && a.outputs == b.outputs
    }
}

/// How much a thread has looked at graphs, for tests that a pass is linear: work can be counted, time cannot be trusted.
#[cfg(feature = "random")]
pub mod work {
    use std::cell::Cell;

    thread_local!(static LOOKS: Cell<u64> = const { Cell::new(0) });

    pub(super) fn add(n: u64) {
        LOOKS.set(LOOKS.get() + n);
    }

    /// Instructions that this thread has looked at, or stepped over in search of one.
    pub fn looks() -> u64 {
        LOOKS.get()
    }
}
