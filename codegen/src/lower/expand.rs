//! One step of expansion: what an element of a value is made of, views already passed.

use super::affine::{Affine, Atom, Ranges, reshape};
use super::region::Closed;
use crate::error::{CodegenError, Result};
use crate::loops::Convert;
use llamac_formats::{DType, Extent, PANEL_WIDTH};
use llamac_ir::{BinaryOp, CompareOp, ConstKind, Dim, Graph, Layout, Op, ReduceOp, Scalar, Type, UnaryOp, Value};

/// An element: a value at an index per axis.
pub type Key = (Value, Vec<Affine>);

/// An elementwise operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementOp {
    /// Of one operand.
    Unary(UnaryOp),
    /// Of two.
    Binary(BinaryOp),
    /// A comparison.
    Compare(CompareOp),
    /// A choice.
    Select,
    /// Conversions, one after the other.
    Convert(&'static [Convert]),
}

impl ElementOp {
    /// Whether one application costs more than keeping the result in memory.
    pub fn is_heavy(self) -> bool {
        matches!(
            self,
            ElementOp::Binary(BinaryOp::Div)
                | ElementOp::Unary(UnaryOp::Exp | UnaryOp::Tanh | UnaryOp::Sqrt | UnaryOp::Rsqrt | UnaryOp::Recip)
        )
    }
}

/// What an element is.
#[derive(Clone, Debug)]
pub enum Node {
    /// An element of a param's memory.
    Load {
        /// Which param.
        param: usize,
        /// Element offset.
        offset: Affine,
        /// What is in memory.
        dtype: DType,
    },
    /// A constant.
    Splat(Scalar),
    /// An index as i32.
    Int(Affine),
    /// An operation on elements.
    Apply(ElementOp, Vec<Key>),
    /// A reduction of a value over one axis; the index is of the other axes.
    Reduce {
        /// Sum or maximum.
        op: ReduceOp,
        /// The reduced axis of the operand.
        axis: usize,
        /// What is reduced.
        operand: Value,
        /// The index without the axis.
        index: Vec<Affine>,
    },
    /// The first part whose end is past `at`: a concat that is not split.
    Choose {
        /// The index on the joined axis.
        at: Affine,
        /// Ends and elements; the element indices are clamped to the part.
        parts: Vec<(i64, Key)>,
    },
    /// An element of the accumulators: the dot's result at a flattened row and a column.
    Tile {
        /// The row.
        row: Affine,
        /// The column over all segments.
        col: Affine,
    },
}

/// Axes as extents.
pub fn extents(ty: &Type) -> Vec<Extent> {
    ty.dims.iter().map(|d| d.extent()).collect()
}

/// The element behind views: the same element of a value that is computed, loaded or constant, or of a concat that its index
/// does not decide.
pub fn resolve(closed: &Closed, ranges: &Ranges, (value, index): &Key) -> Key {
    let g = &closed.graph;
    let (mut value, mut index) = (*value, index.clone());
    loop {
        let inst = g.def(value);
        let args = g.operands(inst);
        match g.op(inst) {
            Op::Copy => {}
            Op::Cast if conversions(g.ty(args[0]).dtype, g.ty(value).dtype).is_empty() => {}
            Op::Gather | Op::Index => {
                let rows = size(g.ty(args[0]).dims[0]);
                index[0] = fetch(closed, ranges, args[1], index[0].clone(), rows);
            }
            Op::Reshape => {
                index = reshape(&extents(g.ty(args[0])), &extents(g.ty(value)), &index, ranges);
            }
            Op::Transpose { perm } => {
                let mut operand = vec![Affine::default(); perm.len()];
                for (i, &p) in perm.iter().enumerate() {
                    operand[p] = index[i].clone();
                }
                index = operand;
            }
            Op::Slice { axis, start, .. } => index[*axis] = index[*axis].offset(*start as i64),
            Op::Broadcast { axes } => index = axes.iter().map(|&a| index[a].clone()).collect(),
            Op::Concat { axis } => match part(g, args, *axis, &index, ranges) {
                Some((part, at)) => {
                    value = part;
                    index[*axis] = at;
                    continue;
                }
                None => return (value, index),
            },
            _ => return (value, index),
        }
        value = args[0];
    }
}

/// What a resolved element is made of.
pub fn expand(closed: &Closed, ranges: &Ranges, (value, index): &Key) -> Result<Node> {
    let g = &closed.graph;
    let inst = g.def(*value);
    let args = g.operands(inst);
    Ok(match g.op(inst) {
        Op::Param { index: param } => return load(closed, ranges, *param, g.ty(*value), index),
        Op::Const(ConstKind::Splat(s)) => Node::Splat(*s),
        Op::Iota => Node::Int(index[0].clone()),
        Op::Unary(op) => apply(ElementOp::Unary(*op), args, index),
        Op::Binary(op) => apply(ElementOp::Binary(*op), args, index),
        Op::Compare(op) => apply(ElementOp::Compare(*op), args, index),
        Op::Select => apply(ElementOp::Select, args, index),
        Op::Cast if g.ty(args[0]).dtype.is_block() => {
            return Err(CodegenError::Region {
                at: closed.at.clone(),
                what: format!("a kernel makes elements in blocks but reads none, found {}", g.ty(args[0])),
            });
        }
        Op::Cast => {
            let how = conversions(g.ty(args[0]).dtype, g.ty(*value).dtype);
            apply(ElementOp::Convert(how), args, index)
        }
        Op::Reduce { op, axis } => Node::Reduce { op: *op, axis: *axis, operand: args[0], index: index.clone() },
        Op::Concat { axis } => choose(g, args, *axis, index, ranges),
        Op::Dot(_) => match index.split_last() {
            None => Node::Tile { row: Affine::default(), col: Affine::default() },
            Some((col, rows)) => {
                let ty = g.ty(*value);
                let strides = ty.with_dims(ty.dims[..rows.len()].iter().copied()).strides();
                Node::Tile { row: Affine::linear(rows, &strides), col: col.clone() }
            }
        },
        op => {
            return Err(CodegenError::Region {
                at: closed.at.clone(),
                what: format!("`{}` cannot be read inside a kernel", op.mnemonic()),
            });
        }
    })
}

fn apply(op: ElementOp, args: &[Value], index: &[Affine]) -> Node {
    Node::Apply(op, args.iter().map(|&a| (a, index.to_vec())).collect())
}

fn size(dim: Dim) -> usize {
    dim.as_const().unwrap_or(usize::MAX)
}

/// What a cast does to an element as it is computed with.
fn conversions(from: DType, to: DType) -> &'static [Convert] {
    use Convert::{FloatToInt, IntToFloat, RoundBf16, RoundF16};
    match (from, to) {
        (DType::I32, DType::F32) => &[IntToFloat],
        (DType::I32, DType::F16) => &[IntToFloat, RoundF16],
        (DType::I32, DType::BF16) => &[IntToFloat, RoundBf16],
        (DType::F32 | DType::F16 | DType::BF16, DType::I32) => &[FloatToInt],
        (DType::F32 | DType::BF16, DType::F16) => &[RoundF16],
        (DType::F32 | DType::F16, DType::BF16) => &[RoundBf16],
        _ => &[],
    }
}

/// The id fetched from `ids[at]`, clamped to `0..size` unless the graph's input limits promise it.
pub fn fetch(closed: &Closed, ranges: &Ranges, ids: Value, at: Affine, size: usize) -> Affine {
    let mut source = ids;
    while closed.graph.def_op(source).is_view() {
        source = closed.graph.operands(closed.graph.def(source))[0];
    }
    let promised = match closed.graph.def_op(source) {
        Op::Param { index } => closed.limits[*index].is_some_and(|limit| limit <= size),
        _ => false,
    };
    let id = Affine::atom(Atom::Fetch(ids, vec![at]));
    if promised { id } else { id.clamped(0, i64::try_from(size).unwrap_or(i64::MAX) - 1, ranges) }
}

/// The operand of a concat that surely holds the index, and the index in it.
fn part(g: &Graph, args: &[Value], axis: usize, index: &[Affine], ranges: &Ranges) -> Option<(Value, Affine)> {
    let at = &index[axis];
    let range = at.range(ranges);
    parts(g, args, axis)
        .find(|&(_, start, end)| args.len() == 1 || range.is_some_and(|(low, high)| low >= start && high < end))
        .map(|(arg, start, _)| (arg, at.offset(-start)))
}

/// Operands of a concat with their first and past their last index.
fn parts<'a>(g: &'a Graph, args: &'a [Value], axis: usize) -> impl Iterator<Item = (Value, i64, i64)> + 'a {
    args.iter().scan(0i64, move |end, &arg| {
        let start = *end;
        *end = end.saturating_add(i64::try_from(size(g.ty(arg).dims[axis])).unwrap_or(i64::MAX));
        Some((arg, start, *end))
    })
}

fn choose(g: &Graph, args: &[Value], axis: usize, index: &[Affine], ranges: &Ranges) -> Node {
    let at = index[axis].clone();
    let parts = parts(g, args, axis)
        .map(|(arg, start, end)| {
            let mut inside = index.to_vec();
            inside[axis] = at.offset(-start).clamped(0, end - start - 1, ranges);
            (end, (arg, inside))
        })
        .collect();
    Node::Choose { at, parts }
}

fn load(closed: &Closed, ranges: &Ranges, param: usize, ty: &Type, index: &[Affine]) -> Result<Node> {
    if ty.dtype.is_block() {
        return Err(CodegenError::Region {
            at: closed.at.clone(),
            what: format!("elements in blocks are read by dots and gathers of rows only, found {ty}"),
        });
    }
    let offset = match ty.layout {
        Layout::Rows => Affine::linear(index, &ty.strides()),
        Layout::Panels => {
            let (Some(n), Some(k)) = (ty.dims[0].as_const(), ty.dims[1].as_const()) else {
                return Err(CodegenError::Region {
                    at: closed.at.clone(),
                    what: format!("a weight in panels has constant axes, found {ty}"),
                });
            };
            let c = |v: usize| Extent::constant(v as u64);
            let parts = closed.interleaved[param];
            let (part, within) = index[0].div_rem(c(n / parts), ranges);
            let (panel, lane) = within.div_rem(c(PANEL_WIDTH), ranges);
            let w = PANEL_WIDTH;
            if ty.dtype == DType::BF16 {
                let (pair, odd) = index[1].div_rem(c(2), ranges);
                let size = k.div_ceil(2) * 2 * w;
                Affine::linear(&[part, panel, pair, lane, odd], &[c(size), c(size * parts), c(2 * w), c(2), c(1)])
            } else {
                let size = k * w;
                let k = index[1].clone();
                Affine::linear(&[part, panel, k, lane], &[c(size), c(size * parts), c(w), c(1)])
            }
        }
    };
    Ok(Node::Load { param, offset, dtype: ty.dtype })
}
