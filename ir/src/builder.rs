//! A builder that infers types and keeps track of origins.

use crate::infer::{TypeError, infer};
use crate::{
    BinaryOp, CompareOp, ConstKind, Dim, DotSpec, Graph, Op, Recipe, ReduceOp, RopePart, Scalar, Type, UnaryOp, Value,
};
use llamac_formats::rope::RopeTable;
use llamac_formats::{Bounds, DType};

/// Appends typed instructions to a graph. Every method returns the new value, or the typing rule that was broken.
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    scope: Vec<String>,
}

type Result<T> = std::result::Result<T, TypeError>;

impl Builder {
    /// A builder of an empty graph.
    pub fn new(name: impl Into<String>, bounds: Bounds) -> Builder {
        Builder { graph: Graph::new(name, bounds), scope: vec![] }
    }

    /// The finished graph.
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A value's type.
    pub fn ty(&self, value: Value) -> &Type {
        self.graph.ty(value)
    }

    /// Runs `f` with `name` appended to the origin (`layers.3`, then `attn` → `layers.3.attn`).
    pub fn scope<T>(&mut self, name: impl Into<String>, f: impl FnOnce(&mut Builder) -> T) -> T {
        self.enter(name);
        let result = f(self);
        self.leave();
        result
    }

    /// Appends `name` to the origin until [`Builder::leave`].
    pub fn enter(&mut self, name: impl Into<String>) {
        self.scope.push(name.into());
    }

    /// Takes the last name off the origin.
    pub fn leave(&mut self) {
        self.scope.pop();
    }

    /// Appends any op; `annotated` as for [`infer`].
    ///
    /// # Errors
    /// A broken typing rule.
    pub fn op(&mut self, op: Op, operands: &[Value], annotated: Option<Type>) -> Result<Value> {
        let types: Vec<&Type> = operands.iter().map(|&v| self.graph.ty(v)).collect();
        let annotated: Vec<Type> = annotated.into_iter().collect();
        let results = infer(&op, &types, &annotated, &self.graph.bounds)?;
        let inst = self.graph.append(op, operands.to_vec(), results, self.scope.join("."));
        Ok(self.graph.result(inst))
    }

    /// Names an output.
    pub fn output(&mut self, name: impl Into<String>, value: Value) {
        self.graph.add_output(name, value);
    }

    /// `input`
    pub fn input(&mut self, name: impl Into<String>, ty: Type, limit: Option<usize>) -> Result<Value> {
        self.op(Op::Input { name: name.into(), limit }, &[], Some(ty))
    }

    /// `weight`
    pub fn weight(&mut self, recipe: Recipe, dtype: DType, dims: &[usize]) -> Result<Value> {
        self.op(Op::Weight(recipe), &[], Some(Type::new(dtype, dims.iter().map(|&d| Dim::Const(d)))))
    }

    /// A scalar f32 constant.
    pub fn scalar(&mut self, value: f32) -> Result<Value> {
        self.op(Op::Const(ConstKind::Splat(Scalar::Float(value))), &[], Some(Type::scalar(DType::F32)))
    }

    /// A scalar f32 constant repeated to `dims`.
    pub fn splat(&mut self, value: f32, dims: &[Dim]) -> Result<Value> {
        let s = self.scalar(value)?;
        self.broadcast(s, dims, &[])
    }

    /// A RoPE table for the graph's context.
    pub fn rope_table(&mut self, table: RopeTable, part: RopePart) -> Result<Value> {
        let dims = [Dim::Const(self.graph.bounds.tokens), Dim::Const(table.head_dim / 2)];
        self.op(Op::Const(ConstKind::Rope { table, part }), &[], Some(Type::new(DType::F32, dims)))
    }

    /// A cache `f32[slots, heads, tokens, head_dim]`.
    pub fn state(&mut self, name: impl Into<String>, heads: usize, head_dim: usize) -> Result<Value> {
        let b = self.graph.bounds;
        let dims = [b.slots, heads, b.tokens, head_dim].map(Dim::Const);
        self.op(Op::State { name: name.into() }, &[], Some(Type::new(DType::F32, dims)))
    }

    /// `x[…, K] · w[N, K]` → `[…, N]`
    pub fn linear(&mut self, x: Value, w: Value) -> Result<Value> {
        let rank = self.ty(x).rank();
        if rank == 0 {
            return Err(TypeError(format!("`dot` needs an axis to sum over, found {}", self.ty(x))));
        }
        self.op(Op::Dot(DotSpec::linear(rank)), &[x, w], None)
    }

    /// `dot`
    pub fn dot(
        &mut self,
        lhs: Value,
        rhs: Value,
        batch: &[(usize, usize)],
        contract: &[(usize, usize)],
    ) -> Result<Value> {
        self.op(Op::Dot(DotSpec { batch: batch.to_vec(), contract: contract.to_vec() }), &[lhs, rhs], None)
    }

    /// Elementwise, one operand.
    pub fn unary(&mut self, op: UnaryOp, x: Value) -> Result<Value> {
        self.op(Op::Unary(op), &[x], None)
    }

    /// Elementwise, two operands.
    pub fn binary(&mut self, op: BinaryOp, x: Value, y: Value) -> Result<Value> {
        self.op(Op::Binary(op), &[x, y], None)
    }

    /// `add`
    pub fn add(&mut self, x: Value, y: Value) -> Result<Value> {
        self.binary(BinaryOp::Add, x, y)
    }

    /// `sub`
    pub fn sub(&mut self, x: Value, y: Value) -> Result<Value> {
        self.binary(BinaryOp::Sub, x, y)
    }

    /// `mul`
    pub fn mul(&mut self, x: Value, y: Value) -> Result<Value> {
        self.binary(BinaryOp::Mul, x, y)
    }

    /// `div`
    pub fn div(&mut self, x: Value, y: Value) -> Result<Value> {
        self.binary(BinaryOp::Div, x, y)
    }

    /// `cmp`
    pub fn compare(&mut self, op: CompareOp, x: Value, y: Value) -> Result<Value> {
        self.op(Op::Compare(op), &[x, y], None)
    }

    /// `select`
    pub fn select(&mut self, c: Value, x: Value, y: Value) -> Result<Value> {
        self.op(Op::Select, &[c, x, y], None)
    }

    /// `cast`; the value itself where it already has the dtype.
    pub fn cast(&mut self, x: Value, dtype: DType) -> Result<Value> {
        let ty = self.ty(x).with_dtype(dtype);
        if ty.dtype == self.ty(x).dtype {
            return Ok(x);
        }
        self.op(Op::Cast, &[x], Some(ty))
    }

    /// `reduce`
    pub fn reduce(&mut self, op: ReduceOp, x: Value, axis: usize) -> Result<Value> {
        self.op(Op::Reduce { op, axis }, &[x], None)
    }

    /// `gather`, widened to f32 where the table is of floats or blocks.
    pub fn gather(&mut self, table: Value, ids: Value) -> Result<Value> {
        let (t, i) = (self.ty(table), self.ty(ids));
        let wide =
            t.dtype.is_weight().then(|| Type::new(DType::F32, i.dims.iter().chain(t.dims.iter().skip(1)).copied()));
        self.op(Op::Gather, &[table, ids], wide)
    }

    /// `iota`
    pub fn iota(&mut self, dim: Dim) -> Result<Value> {
        self.op(Op::Iota, &[], Some(Type::new(DType::I32, [dim])))
    }

    /// `reshape`
    pub fn reshape(&mut self, x: Value, dims: &[Dim]) -> Result<Value> {
        let ty = self.ty(x).with_dims(dims.iter().copied());
        self.op(Op::Reshape, &[x], Some(ty))
    }

    /// `transpose`
    pub fn transpose(&mut self, x: Value, perm: &[usize]) -> Result<Value> {
        self.op(Op::Transpose { perm: perm.to_vec() }, &[x], None)
    }

    /// `slice`
    pub fn slice(&mut self, x: Value, axis: usize, start: usize, len: usize) -> Result<Value> {
        self.op(Op::Slice { axis, start, len }, &[x], None)
    }

    /// `concat`
    pub fn concat(&mut self, parts: &[Value], axis: usize) -> Result<Value> {
        self.op(Op::Concat { axis }, parts, None)
    }

    /// `broadcast`
    pub fn broadcast(&mut self, x: Value, dims: &[Dim], axes: &[usize]) -> Result<Value> {
        let ty = self.ty(x).with_dims(dims.iter().copied());
        self.op(Op::Broadcast { axes: axes.to_vec() }, &[x], Some(ty))
    }

    /// `index`
    pub fn index(&mut self, state: Value, slots: Value) -> Result<Value> {
        self.op(Op::Index, &[state, slots], None)
    }

    /// `state.write`
    pub fn state_write(&mut self, state: Value, rows: Value, slots: Value, positions: Value) -> Result<Value> {
        self.op(Op::StateWrite, &[state, rows, slots, positions], None)
    }
}
