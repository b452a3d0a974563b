//! The structure of attention, matched backwards from the dot with the values.
//!
//! ```text
//! out    = dot(p, index(values, slots))            batch (row, head), contract (T, T)
//! p      = e / Σ e          or   e · (1 / Σ e)
//! e      = exp(m − max m)
//! m      = select(t ≤ position, s, −inf)           or the mask turned around, in any of its spellings
//! s      = scores · c,  c · scores,  scores / c    or scores as they are: a scale on q stays outside
//! scores = dot(q, index(keys, slots))              batch (row, head), contract (d, d)
//! ```
//!
//! Rows of narrow states pass a cast to f32. Where both q and p pass a cast to bf16 and back, the products are of bf16.

use crate::fuse_attention::{scores_spec, values_spec};
use crate::refusal::Reason;
use llamac_ir::{BinaryOp, CompareOp, ConstKind, DType, Graph, Inst, Op, ReduceOp, Scalar, UnaryOp, Value};
use std::collections::{HashMap, HashSet};

/// An attention in a graph.
#[derive(Clone, Debug)]
pub struct Matched {
    /// Queries `[S, kv_heads, group, head_dim]`.
    pub q: Value,
    /// The state of keys.
    pub keys: Value,
    /// The state of values, of the same type.
    pub values: Value,
    /// Each row's slot.
    pub slots: Value,
    /// Each row's position.
    pub positions: Value,
    /// Factor on the scores.
    pub scale: f32,
    /// What q and p are rounded to: f32 or bf16.
    pub act: DType,
    /// What only this attention needs, in program order; the mask is not among it.
    pub members: Vec<Inst>,
}

type Found<T> = Result<T, Reason>;

/// What is known of a whole graph, so that no match has to walk it.
#[derive(Clone, Debug)]
pub struct Readers {
    users: HashMap<Value, Vec<Inst>>,
    positions: HashMap<Inst, usize>,
    outputs: HashSet<Value>,
}

impl Readers {
    /// Reads a graph, which must not change while this is used.
    pub fn new(graph: &Graph) -> Readers {
        Readers {
            users: graph.uses(),
            positions: graph.order().iter().enumerate().map(|(at, &inst)| (inst, at)).collect(),
            outputs: graph.outputs().iter().map(|&(_, v)| v).collect(),
        }
    }
}

/// Matches backwards from `out`, a dot over an indexed state. Work grows with the attention, not with the graph.
///
/// # Errors
/// What keeps it from being attention, or from being one kernel.
pub fn find(graph: &Graph, readers: &Readers, out: Inst) -> Found<Matched> {
    let m = Matcher { graph, readers };
    let no = Reason::NotAttention;
    let (p, values) = m.dot(graph.result(out), &values_spec()).ok_or(no)?;
    let (p, p_act) = m.unrounded(p);
    let soft = m.softmax(p).ok_or(no)?;
    let (mask, allowed, hidden) = m.select(soft).ok_or(no)?;
    let (positive, scores) = match (m.is_minus_inf(hidden), m.is_minus_inf(allowed)) {
        (true, false) => (true, allowed),
        (false, true) => (false, hidden),
        _ => return Err(no),
    };
    let positions = m.causal(mask, positive).ok_or(no)?;
    let (scores, scale) = m.scaled(scores);
    let (q, keys) = m.dot(scores, &scores_spec()).ok_or(no)?;
    let (q, act) = m.unrounded(q);
    let (keys, key_slots) = m.index(keys).ok_or(no)?;
    let (values, slots) = m.index(values).ok_or(no)?;
    let port = |v: Value| matches!(graph.def_op(v), Op::Input { .. } | Op::Param { .. });
    let same = key_slots == slots && graph.ty(keys) == graph.ty(values) && port(slots) && port(positions);
    // The kernel is told heads and widths when the program is made.
    let shaped = graph.ty(q).dims[1..].iter().all(|d| d.as_const().is_some())
        && graph.ty(q).dims[0] == graph.ty(positions).dims[0];
    if !same || !shaped || !scale.is_finite() || act != p_act {
        return Err(no);
    }
    let members = m.members(out, &[q, keys, values, slots, positions], mask)?;
    Ok(Matched { q, keys, values, slots, positions, scale, act, members })
}

struct Matcher<'a> {
    graph: &'a Graph,
    readers: &'a Readers,
}

impl Matcher<'_> {
    fn binary(&self, v: Value, op: BinaryOp) -> Option<(Value, Value)> {
        (*self.graph.def_op(v) == Op::Binary(op)).then(|| self.pair(v))
    }

    fn pair(&self, v: Value) -> (Value, Value) {
        let operands = self.graph.operands(self.graph.def(v));
        (operands[0], operands[1])
    }

    fn unary(&self, v: Value, op: UnaryOp) -> Option<Value> {
        (*self.graph.def_op(v) == Op::Unary(op)).then(|| self.first(v))
    }

    fn first(&self, v: Value) -> Value {
        self.graph.operands(self.graph.def(v))[0]
    }

    fn dot(&self, v: Value, spec: &llamac_ir::DotSpec) -> Option<(Value, Value)> {
        let operands = self.graph.operands(self.graph.def(v));
        match self.graph.def_op(v) {
            Op::Dot(s) if s == spec && operands.len() == 2 => Some((operands[0], operands[1])),
            _ => None,
        }
    }

    fn index(&self, v: Value) -> Option<(Value, Value)> {
        let rows = indexed(self.graph, v)?;
        Some(self.pair(rows))
    }

    /// A value before it is rounded to bf16, and what it is rounded to.
    fn unrounded(&self, v: Value) -> (Value, DType) {
        let cast = |v: Value, to: DType| {
            let ok = matches!(self.graph.def_op(v), Op::Cast) && self.graph.ty(v).dtype == to;
            ok.then(|| self.first(v))
        };
        match cast(v, DType::F32).and_then(|narrow| cast(narrow, DType::BF16)) {
            Some(wide) if self.graph.ty(wide).dtype == DType::F32 => (wide, DType::BF16),
            _ => (v, DType::F32),
        }
    }

    fn select(&self, v: Value) -> Option<(Value, Value, Value)> {
        let operands = self.graph.operands(self.graph.def(v));
        matches!(self.graph.def_op(v), Op::Select).then(|| (operands[0], operands[1], operands[2]))
    }

    /// What a value repeats, if it is a broadcast along exactly these axes.
    fn repeated(&self, v: Value, along: &[usize]) -> Option<Value> {
        match self.graph.def_op(v) {
            Op::Broadcast { axes } if axes == along => Some(self.first(v)),
            _ => None,
        }
    }

    fn splat(&self, v: Value) -> Option<f32> {
        let source = self.repeated(v, &[]).unwrap_or(v);
        match self.graph.def_op(source) {
            Op::Const(ConstKind::Splat(Scalar::Float(f))) => Some(*f),
            _ => None,
        }
    }

    fn is_minus_inf(&self, v: Value) -> bool {
        self.splat(v) == Some(f32::NEG_INFINITY)
    }

    fn reduced(&self, v: Value, op: ReduceOp) -> Option<Value> {
        (*self.graph.def_op(v) == Op::Reduce { op, axis: 3 }).then(|| self.first(v))
    }

    /// Softmax over the last of four axes.
    fn softmax(&self, p: Value) -> Option<Value> {
        const ROW: &[usize] = &[0, 1, 2];
        let (e, sum) = match self.binary(p, BinaryOp::Div) {
            Some((e, sum)) => (e, self.repeated(sum, ROW)?),
            None => {
                let (x, y) = self.binary(p, BinaryOp::Mul)?;
                let recip = |v: Value| self.unary(self.repeated(v, ROW)?, UnaryOp::Recip);
                match (recip(y), recip(x)) {
                    (Some(sum), _) => (x, sum),
                    (None, Some(sum)) => (y, sum),
                    (None, None) => return None,
                }
            }
        };
        if self.reduced(sum, ReduceOp::Sum)? != e {
            return None;
        }
        let (of, max) = self.binary(self.unary(e, UnaryOp::Exp)?, BinaryOp::Sub)?;
        (self.reduced(self.repeated(max, ROW)?, ReduceOp::Max)? == of).then_some(of)
    }

    /// The positions, if the mask says `t ≤ position` (or, where it marks what is hidden, the contrary).
    fn causal(&self, mask: Value, positive: bool) -> Option<Value> {
        // Over all four axes, or over rows and tokens and then repeated for the heads.
        let (mask, tokens) = self.repeated(mask, &[0, 3]).map_or((mask, 3), |m| (m, 1));
        let Op::Compare(op) = self.graph.def_op(mask) else { return None };
        let (x, y) = self.pair(mask);
        let token = |v: Value| {
            self.repeated(v, &[tokens]).is_some_and(|t| {
                matches!(self.graph.def_op(t), Op::Iota) && self.graph.ty(t).dims[0] == self.graph.ty(mask).dims[tokens]
            })
        };
        let position = |v: Value| self.repeated(v, &[0]);
        let want = |le: CompareOp, gt: CompareOp| *op == if positive { le } else { gt };
        if token(x) && want(CompareOp::Le, CompareOp::Gt) {
            position(y)
        } else if token(y) && want(CompareOp::Ge, CompareOp::Lt) {
            position(x)
        } else {
            None
        }
    }

    /// The scores before a constant factor, and the factor.
    fn scaled(&self, v: Value) -> (Value, f32) {
        if let Some((x, y)) = self.binary(v, BinaryOp::Mul) {
            if let Some(c) = self.splat(y) {
                return (x, c);
            }
            if let Some(c) = self.splat(x) {
                return (y, c);
            }
        }
        if let Some((x, y)) = self.binary(v, BinaryOp::Div)
            && let Some(c) = self.splat(y)
        {
            return (x, 1.0 / c);
        }
        (v, 1.0)
    }

    /// All arithmetic between the operands and the result but for the mask, if nothing else needs any of it.
    fn members(&self, out: Inst, operands: &[Value], mask: Value) -> Found<Vec<Inst>> {
        let graph = self.graph;
        let mut inside: HashSet<Inst> = HashSet::new();
        let mut work = vec![out];
        while let Some(inst) = work.pop() {
            if inside.insert(inst) {
                let inner = graph.operands(inst).iter().filter(|v| !operands.contains(v) && **v != mask);
                work.extend(inner.map(|&v| graph.def(v)).filter(|&i| !graph.op(i).is_leaf()));
            }
        }
        let arithmetic = |inst: &Inst| !graph.op(*inst).is_view();
        let inner = || inside.iter().filter(|&&i| i != out);
        let used_outside = |inst: &Inst| {
            let mut users = graph.results(*inst).iter().filter_map(|v| self.readers.users.get(v)).flatten();
            let view_of_leaves = || graph.op(*inst).is_view() && !depends(graph, *inst, &inside);
            users.any(|user| !inside.contains(user)) && !view_of_leaves()
        };
        if inner().any(used_outside) {
            return Err(Reason::MultipleUses);
        }
        if inner().any(|&i| graph.results(i).iter().any(|v| self.readers.outputs.contains(v))) {
            return Err(Reason::OutputOfGraph);
        }
        let mut members: Vec<Inst> = inside.iter().copied().filter(arithmetic).collect();
        members.sort_by_key(|i| self.readers.positions.get(i));
        Ok(members)
    }
}

/// The `index` of a state behind a value: the value itself, or what it widens.
pub fn indexed(graph: &Graph, v: Value) -> Option<Value> {
    let rows = match graph.def_op(v) {
        Op::Cast if graph.ty(v).dtype == DType::F32 => graph.operands(graph.def(v))[0],
        _ => v,
    };
    matches!(graph.def_op(rows), Op::Index).then_some(rows)
}

/// Whether a view shows something that arithmetic among `inside` computes.
fn depends(graph: &Graph, view: Inst, inside: &HashSet<Inst>) -> bool {
    let mut at = view;
    while graph.op(at).is_view() {
        at = graph.def(graph.operands(at)[0]);
    }
    inside.contains(&at) && !graph.op(at).is_leaf()
}
