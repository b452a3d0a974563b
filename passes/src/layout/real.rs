//! Making views real where a reader cannot read through them.
//!
//! The graph is rebuilt in program order. The invariant of the new graph: row kernels can pull every value in it. So a
//! `copy` of any value can be made where it is needed, once, for all its readers.

use super::need::{self, Refusal, SideAxes};
use super::panels::{epilogue_dot, is_linear};
use super::{CopyMade, LayoutError, LayoutReport};
use crate::schedule::step_name;
use llamac_formats::Access;
use llamac_ir::access::{apply_index, apply_view, dense};
use llamac_ir::{DType, DotSpec, Fusion, FusionKind, Graph, Inst, Layout, Op, Type, Value};
use std::collections::HashMap;

/// Inserts the copies.
pub fn run(graph: &mut Graph, report: &mut LayoutReport) -> Result<(), LayoutError> {
    let old = std::mem::replace(graph, Graph::new("", graph.bounds));
    let out = Graph::new(old.name.clone(), old.bounds);
    let mut real = Real { out, map: HashMap::new(), facts: HashMap::new(), copies: HashMap::new(), report };
    for &inst in old.order() {
        real.inst(&old, inst)?;
    }
    let mut taken: Vec<Value> = vec![];
    for (name, value) in old.outputs() {
        let mut value = real.map[value];
        let reader = format!("output \"{name}\"");
        let op = real.out.def_op(value);
        if op.is_leaf() || op.is_view() {
            value = real.copy(value, &reader, "it is no step's own result");
        } else if is_state(&real.out, value) {
            value = real.copy(value, &reader, "it is a state");
        }
        if taken.contains(&value) {
            value = real.fresh_copy(value, &reader, "it is another output already");
        }
        taken.push(value);
        real.out.add_output(name.clone(), value);
    }
    *graph = real.out;
    Ok(())
}

/// Whether a value is a version of a state.
fn is_state(graph: &Graph, value: Value) -> bool {
    match graph.def_op(value) {
        Op::State { .. } | Op::StateWrite => true,
        Op::Fusion(f) => {
            let (_, inner) = f.region.outputs()[graph.result_index(value)];
            matches!(f.region.def_op(inner), Op::StateWrite)
        }
        _ => false,
    }
}

/// How a value of the new graph can be read.
#[derive(Clone)]
enum Reach {
    /// By strides.
    Strided(Access<Value>),
    /// Only by pulling elements: there is a `concat` below.
    Pulled,
}

struct Real<'a> {
    out: Graph,
    /// Old value to new.
    map: HashMap<Value, Value>,
    facts: HashMap<Value, Reach>,
    copies: HashMap<Value, Value>,
    report: &'a mut LayoutReport,
}

impl Real<'_> {
    fn inst(&mut self, old: &Graph, inst: Inst) -> Result<(), LayoutError> {
        let data = old.inst(inst);
        let operands: Vec<Value> = data.operands.iter().map(|v| self.map[v]).collect();
        let types: Vec<Type> = data.results.iter().map(|&v| old.ty(v).clone()).collect();
        let reader = step_name(old, inst);
        let new = if data.op.is_view() {
            self.view(&data.op, operands, types, &data.origin, &reader)
        } else {
            let (op, operands) = self.step(&data.op, operands, &reader)?;
            self.append(op, operands, types, &data.origin)
        };
        self.map.extend(data.results.iter().copied().zip(self.out.results(new).to_vec()));
        Ok(())
    }

    /// Appends an instruction that is no view.
    fn append(&mut self, op: Op, operands: Vec<Value>, types: Vec<Type>, origin: &str) -> Inst {
        let inst = self.out.append(op, operands, types, origin);
        for &value in self.out.results(inst) {
            let reach = Reach::Strided(dense(value, self.out.ty(value)));
            self.facts.insert(value, reach);
        }
        inst
    }

    /// Appends a view; if it cannot be pulled through, over a copy of its operand.
    fn view(&mut self, op: &Op, mut operands: Vec<Value>, types: Vec<Type>, origin: &str, reader: &str) -> Inst {
        if let (Op::Index, [_, slots]) = (op, &mut operands[..]) {
            *slots = self.require(*slots, reader, need::direct);
        }
        let over = match (op, &self.facts[&operands[0]]) {
            (Op::Concat { .. }, _) => None,
            (_, Reach::Strided(_)) => None,
            (Op::Slice { .. } | Op::Transpose { .. } | Op::Broadcast { .. }, Reach::Pulled) => None,
            (_, Reach::Pulled) => Some("it is a `concat`".to_string()),
        };
        if let Some(reason) = over {
            operands[0] = self.copy(operands[0], reader, &reason);
        }
        let reach = match self.reach(op, &operands, &types[0]) {
            Ok(reach) => reach,
            Err(reason) => {
                // Over a dense operand every view of one operand is strided.
                operands[0] = self.copy(operands[0], reader, &reason);
                self.reach(op, &operands, &types[0]).unwrap_or(Reach::Pulled)
            }
        };
        let view = self.out.append(op.clone(), operands, types, origin);
        self.facts.insert(self.out.result(view), reach);
        view
    }

    /// How a view can be read, given its operands.
    fn reach(&self, op: &Op, operands: &[Value], ty: &Type) -> Result<Reach, Refusal> {
        match (op, &self.facts[&operands[0]]) {
            (Op::Concat { .. }, _) if operands.len() > 1 => Ok(Reach::Pulled),
            (_, Reach::Pulled) => Ok(Reach::Pulled),
            (Op::Index, Reach::Strided(state)) => match &self.facts[&operands[1]] {
                Reach::Strided(slots) => apply_index(state.clone(), slots).map(Reach::Strided),
                Reach::Pulled => Err("its slots are a `concat`".into()),
            },
            (_, Reach::Strided(access)) => {
                apply_view(op, access.clone(), self.out.ty(operands[0]), ty).map(Reach::Strided)
            }
        }
    }

    /// A step, with operands that it can read.
    fn step(&mut self, op: &Op, mut operands: Vec<Value>, reader: &str) -> Result<(Op, Vec<Value>), LayoutError> {
        let op = match op {
            Op::Dot(spec) => {
                let packed = is_linear(spec) && self.out.ty(operands[1]).layout == Layout::Panels;
                let spec = if packed {
                    let (lhs, spec) = self.gemm_left(operands[0], spec, reader);
                    operands[0] = lhs;
                    spec
                } else {
                    self.dot(&mut operands, spec, reader)
                };
                Op::Dot(spec)
            }
            Op::Gather => {
                if self.out.ty(operands[0]).layout == Layout::Panels {
                    operands[1] = self.require_dense(operands[1], reader);
                } else {
                    operands[0] = self.require(operands[0], reader, |g, a| {
                        need::strided(g, a)?;
                        let fetched = a.indirects.iter().any(|i| i.strides[0] != llamac_formats::Extent::ZERO);
                        if fetched { Err("its rows are fetched by index already".into()) } else { Ok(()) }
                    });
                    operands[1] = self.require(operands[1], reader, need::direct);
                }
                op.clone()
            }
            Op::StateWrite => {
                for operand in &mut operands[2..] {
                    *operand = self.require(*operand, reader, need::direct);
                }
                op.clone()
            }
            Op::Fusion(f) => {
                self.fusion(f, &mut operands, reader)?;
                op.clone()
            }
            op => op.clone(),
        };
        Ok((op, operands))
    }

    fn fusion(&mut self, fusion: &Fusion, operands: &mut [Value], reader: &str) -> Result<(), LayoutError> {
        match fusion.kind {
            FusionKind::Attention => {
                // Caches are states, slots and positions are i32, and what is left are the queries.
                let caches = operands.iter().filter(|&&v| is_state(&self.out, v)).count();
                let mut queries = 0;
                for operand in operands {
                    if is_state(&self.out, *operand) {
                        continue;
                    }
                    let ty = self.out.ty(*operand).clone();
                    *operand = if ty.dtype == DType::I32 {
                        self.require_dense(*operand, reader)
                    } else {
                        queries += 1;
                        self.require(*operand, reader, |g, a| need::last_axis_dense(g, a, &ty))
                    };
                }
                if caches == 0 || caches > 2 || queries != 1 {
                    return Err(LayoutError::NoAttention { step: reader.into(), caches, queries });
                }
            }
            FusionKind::Epilogue => {
                if let Some(dot) = epilogue_dot(fusion) {
                    let lhs = &mut operands[dot.lhs];
                    let ty = self.out.ty(*lhs).clone();
                    *lhs = self.require(*lhs, reader, |g, a| need::gemm_left(g, a, &ty));
                }
            }
            FusionKind::Rows => {
                for param in indexing_params(&fusion.region) {
                    operands[param] = self.require(operands[param], reader, need::strided);
                }
            }
        }
        Ok(())
    }

    /// The left side of a GEMM: inputs last, readable by strides.
    fn gemm_left(&mut self, lhs: Value, spec: &DotSpec, reader: &str) -> (Value, DotSpec) {
        let ty = self.out.ty(lhs).clone();
        let (axis, last) = (spec.contract[0].0, ty.rank() - 1);
        let lhs = if axis == last {
            lhs
        } else {
            let perm: Vec<usize> = (0..ty.rank()).filter(|&a| a != axis).chain([axis]).collect();
            self.transposed(lhs, perm, reader)
        };
        let ty = self.out.ty(lhs).clone();
        let lhs = self.require(lhs, reader, |g, a| need::gemm_left(g, a, &ty));
        (lhs, DotSpec { batch: vec![], contract: vec![(last, 1)] })
    }

    /// Both sides of a dot that is no GEMM over a packed weight.
    fn dot(&mut self, operands: &mut [Value], spec: &DotSpec, reader: &str) -> DotSpec {
        let mut spec = spec.clone();
        for (i, operand) in operands.iter_mut().enumerate() {
            let mut value = *operand;
            if self.out.ty(value).dtype != DType::F32 {
                let ty = self.out.ty(value).with_dtype(DType::F32);
                self.note(value, &ty, reader, "a dot multiplies f32, and this is no weight in panels");
                let cast = self.append(Op::Cast, vec![value], vec![ty], &self.origin(value));
                value = self.out.result(cast);
            }
            let ty = self.out.ty(value).clone();
            let axes = if i == 0 { SideAxes::left(&spec, ty.rank()) } else { SideAxes::right(&spec, ty.rank()) };
            *operand = match self.why_not(value, |g, a| need::dot_side(g, a, &ty, &axes)) {
                None => value,
                Some(reason) => {
                    let perm = axes.canonical();
                    let place = |axis: usize| perm.iter().position(|&p| p == axis).unwrap_or(axis);
                    for pair in spec.batch.iter_mut().chain(&mut spec.contract) {
                        let axis = if i == 0 { &mut pair.0 } else { &mut pair.1 };
                        *axis = place(*axis);
                    }
                    let view = if perm.is_sorted() { value } else { self.transposed(value, perm, reader) };
                    self.copy(view, reader, &reason)
                }
            };
        }
        spec
    }

    fn transposed(&mut self, value: Value, perm: Vec<usize>, reader: &str) -> Value {
        let ty = self.out.ty(value);
        let ty = ty.with_dims(perm.iter().map(|&p| ty.dims[p]));
        let origin = self.origin(value);
        let view = self.view(&Op::Transpose { perm }, vec![value], vec![ty], &origin, reader);
        self.out.result(view)
    }

    fn require_dense(&mut self, value: Value, reader: &str) -> Value {
        let ty = self.out.ty(value).clone();
        self.require(value, reader, |g, a| need::dense(g, a, &ty))
    }

    /// The value if it can be read as needed, else a copy.
    fn require(
        &mut self,
        value: Value,
        reader: &str,
        need: impl Fn(&Graph, &Access<Value>) -> Result<(), Refusal>,
    ) -> Value {
        match self.why_not(value, need) {
            None => value,
            Some(reason) => self.copy(value, reader, &reason),
        }
    }

    fn why_not(&self, value: Value, need: impl Fn(&Graph, &Access<Value>) -> Result<(), Refusal>) -> Option<Refusal> {
        match &self.facts[&value] {
            Reach::Pulled => Some("it is a `concat`".into()),
            Reach::Strided(access) => need(&self.out, access).err(),
        }
    }

    /// A real value with these elements, made once for all readers.
    fn copy(&mut self, value: Value, reader: &str, reason: &str) -> Value {
        if let Some(&copy) = self.copies.get(&value) {
            return copy;
        }
        let copy = self.fresh_copy(value, reader, reason);
        self.copies.insert(value, copy);
        copy
    }

    fn fresh_copy(&mut self, value: Value, reader: &str, reason: &str) -> Value {
        let ty = self.out.ty(value).clone();
        self.note(value, &ty, reader, reason);
        let inst = self.append(Op::Copy, vec![value], vec![ty], &self.origin(value));
        self.out.result(inst)
    }

    fn note(&mut self, value: Value, ty: &Type, reader: &str, reason: &str) {
        let bounds = &self.out.bounds;
        self.report.copies.push(CopyMade {
            of: step_name(&self.out, self.out.def(value)),
            reader: reader.to_string(),
            reason: reason.to_string(),
            bytes: ty.max_bytes(bounds),
        });
    }

    fn origin(&self, value: Value) -> String {
        self.out.origin(self.out.def(value)).to_string()
    }
}

/// Params of a region that are tables, ids, slots or positions of what it fetches by index.
fn indexing_params(region: &Graph) -> Vec<usize> {
    let mut params = vec![];
    for &inst in region.order() {
        let from = match region.op(inst) {
            Op::Gather => 0,
            Op::Index => 1,
            Op::StateWrite => 2,
            _ => continue,
        };
        for &operand in &region.operands(inst)[from..] {
            for value in crate::schedule::bottoms(region, operand) {
                if let Op::Param { index } = region.def_op(value)
                    && !params.contains(index)
                {
                    params.push(*index);
                }
            }
        }
    }
    params
}
