//! The typing rules: what operands an op takes and what its results are.
//!
//! One function states them for the builder, the parser and the verifier. Where a result cannot be inferred (leaves,
//! `reshape`, `broadcast`, `cast`), the annotated type is checked instead.

use crate::{BinaryOp, ConstKind, Dim, DotSpec, Layout, Op, ReduceOp, RopePart, Scalar, Type, UnaryOp};
use llamac_formats::{Bounds, DType};
use thiserror::Error;

/// The most axes a tensor may have.
pub const MAX_RANK: usize = 8;

/// A broken typing rule: what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct TypeError(pub String);

type Result<T> = std::result::Result<T, TypeError>;

macro_rules! ensure {
    ($cond:expr, $($arg:tt)*) => {
        if !$cond {
            return Err(TypeError(format!($($arg)*)));
        }
    };
}

/// Checks the operand types of `op` and returns its result types. `annotated` are the types written for the results: they
/// are needed (and checked) for ops that cannot be inferred, and may be empty for all others.
///
/// Every type also obeys the rules for all types: panels for weights of rank 2 only, at most [`MAX_RANK`] axes, none of
/// them empty, and no more bytes at the bounds than can be addressed.
///
/// # Errors
/// The first rule that is broken.
pub fn infer(op: &Op, operands: &[&Type], annotated: &[Type], bounds: &Bounds) -> Result<Vec<Type>> {
    // Before anything is multiplied.
    annotated.iter().chain(operands.iter().copied()).try_for_each(well_formed)?;
    let results = result_types(op, operands, annotated, bounds)?;
    let free_layout = matches!(op, Op::Weight(_) | Op::Param { .. });
    for t in &results {
        well_formed(t)?;
        ensure!(t.layout == Layout::Rows || free_layout, "only a weight lies in panels, `{}` makes {t}", op.mnemonic());
        ensure!(!t.dims.contains(&Dim::Const(0)), "an axis has at least one element, found {t}");
        let bytes = t.max_bytes(bounds);
        ensure!(bytes <= isize::MAX as usize, "{t} is too large: its bytes cannot be addressed");
    }
    Ok(results)
}

fn well_formed(t: &Type) -> Result<()> {
    if t.dtype.is_block() {
        let of = t.dtype.block().0;
        let whole = matches!(t.dims.last(), Some(Dim::Const(n)) if n.is_multiple_of(of));
        ensure!(whole, "the last axis of {} holds whole blocks of {of} elements, found {t}", t.dtype);
    }
    let panels_ok = t.rank() == 2 && t.dtype.is_weight() && t.dims.iter().all(|d| d.as_const().is_some());
    ensure!(t.layout == Layout::Rows || panels_ok, "only a weight of rank 2 lies in panels, found {t}");
    ensure!(t.rank() <= MAX_RANK, "a tensor has at most {MAX_RANK} axes, found {}", t.rank());
    Ok(())
}

fn result_types(op: &Op, operands: &[&Type], annotated: &[Type], bounds: &Bounds) -> Result<Vec<Type>> {
    let arity = |n: usize| -> Result<()> {
        ensure!(operands.len() == n, "`{}` takes {n} operands, found {}", op.mnemonic(), operands.len());
        Ok(())
    };
    let written = || -> Result<Type> {
        match annotated {
            [t] => Ok(t.clone()),
            _ => {
                Err(TypeError(format!("`{}` needs exactly one result type, found {}", op.mnemonic(), annotated.len())))
            }
        }
    };
    for t in operands {
        let panels_ok = matches!(op, Op::Dot(_) | Op::Gather | Op::Fusion(_));
        let blocks_ok = panels_ok || matches!(op, Op::Cast | Op::Index | Op::StateWrite);
        ensure!(blocks_ok || !t.dtype.is_block(), "`{}` cannot read elements in blocks, found {t}", op.mnemonic());
        ensure!(t.layout == Layout::Rows || panels_ok, "`{}` cannot read an operand in panels", op.mnemonic());
    }
    let one = |t: Type| Ok(vec![t]);
    match op {
        Op::Input { limit, .. } => {
            arity(0)?;
            let t = written()?;
            ensure!(limit.is_none() || t.dtype == DType::I32, "only an i32 input can have a limit, found {t}");
            ensure!(matches!(t.dtype, DType::F32 | DType::I32), "an input is f32 or i32, found {t}");
            ensure!(t.layout == Layout::Rows, "an input is row-major, found {t}");
            one(t)
        }
        Op::Weight(_) => {
            arity(0)?;
            let t = written()?;
            ensure!(t.dtype.is_weight(), "a weight is f32, f16, bf16 or in a block format, found {t}");
            ensure!(
                !t.dtype.is_block() || t.rank() >= 2,
                "a weight in a block format has two axes at least, found {t}"
            );
            ensure!(t.dims.iter().all(|d| d.as_const().is_some()), "a weight's axes are constant, found {t}");
            one(t)
        }
        Op::Const(kind) => {
            arity(0)?;
            let t = written()?;
            ensure!(t.layout == Layout::Rows, "a constant is row-major, found {t}");
            match kind {
                ConstKind::Splat(s) => {
                    let ok = match s {
                        Scalar::Float(_) => t.dtype.is_float(),
                        Scalar::Int(_) => t.dtype == DType::I32,
                        Scalar::Bool(_) => t.dtype == DType::Bool,
                    };
                    ensure!(ok, "the value does not fit the constant's dtype, found {t}");
                }
                ConstKind::Rope { table, part } => {
                    let part = match part {
                        RopePart::Cos => "rope_cos",
                        RopePart::Sin => "rope_sin",
                    };
                    let want = Type::new(DType::F32, [Dim::Const(bounds.tokens), Dim::Const(table.head_dim / 2)]);
                    ensure!(t == want, "`{part}` of {} tokens is {want}, found {t}", bounds.tokens);
                }
            }
            one(t)
        }
        Op::State { .. } => {
            arity(0)?;
            let t = written()?;
            ensure!(
                t.rank() == 4 && t.dtype.is_activation() && t.dims.iter().all(|d| d.as_const().is_some()),
                "a state is f32, bf16 or q8 [slots, heads, tokens, head_dim] with constant axes, found {t}"
            );
            ensure!(
                t.dims[0] == Dim::Const(bounds.slots) && t.dims[2] == Dim::Const(bounds.tokens),
                "a state holds slots = {} and T <= {}, found {t}",
                bounds.slots,
                bounds.tokens
            );
            one(t)
        }
        Op::Param { .. } => {
            arity(0)?;
            one(written()?)
        }
        Op::Iota => {
            arity(0)?;
            let t = written()?;
            ensure!(t.dtype == DType::I32 && t.rank() == 1, "`iota` is i32 of rank 1, found {t}");
            one(t)
        }
        Op::Dot(spec) => dot(spec, operands),
        Op::Unary(u) => {
            arity(1)?;
            let t = operands[0];
            let int = t.dtype == DType::I32 && matches!(u, UnaryOp::Neg | UnaryOp::Abs);
            ensure!(t.dtype == DType::F32 || int, "`{u}` works on f32, found {t}");
            one(t.clone())
        }
        Op::Binary(b) => {
            arity(2)?;
            same_dims(op, operands)?;
            let t = operands[0];
            ensure!(t.dtype == operands[1].dtype, "`{b}` takes one dtype, found {t} and {}", operands[1]);
            let int = t.dtype == DType::I32 && *b != BinaryOp::Div;
            ensure!(t.dtype == DType::F32 || int, "`{b}` works on f32, found {t}");
            one(t.clone())
        }
        Op::Compare(_) => {
            arity(2)?;
            same_dims(op, operands)?;
            let t = operands[0];
            ensure!(t.dtype == operands[1].dtype, "`cmp` takes one dtype, found {t} and {}", operands[1]);
            ensure!(matches!(t.dtype, DType::F32 | DType::I32), "`cmp` works on f32 or i32, found {t}");
            one(t.with_dtype(DType::Bool))
        }
        Op::Select => {
            arity(3)?;
            same_dims(op, operands)?;
            ensure!(operands[0].dtype == DType::Bool, "`select` decides by a bool, found {}", operands[0]);
            ensure!(
                operands[1].dtype == operands[2].dtype,
                "`select` chooses between equal dtypes, found {} and {}",
                operands[1],
                operands[2]
            );
            one(operands[1].clone())
        }
        Op::Cast => {
            arity(1)?;
            let t = written()?;
            ensure!(t.dims == operands[0].dims, "`cast` keeps the axes of {}, found {t}", operands[0]);
            ensure!(
                t.dtype != DType::Bool && operands[0].dtype != DType::Bool,
                "`cast` converts numbers, found {} to {t}",
                operands[0]
            );
            let (from, to) = (operands[0].dtype, t.dtype);
            let blocks_ok = match (from.is_block(), to.is_block()) {
                (false, false) => true,
                (false, true) => from == DType::F32 && to == DType::Q8,
                (true, _) => to == DType::F32,
            };
            ensure!(blocks_ok, "`cast` goes from f32 to q8 and from blocks to f32, found {} to {t}", operands[0]);
            one(t)
        }
        Op::Reduce { op: r, axis } => {
            arity(1)?;
            let t = operands[0];
            ensure!(*axis < t.rank(), "`reduce` has no axis {axis} in {t}");
            let ok = t.dtype == DType::F32 || (t.dtype == DType::I32 && *r == ReduceOp::Max);
            ensure!(ok, "`reduce {r}` works on f32, found {t}");
            one(t.with_dims(t.dims.iter().enumerate().filter(|(i, _)| i != axis).map(|(_, d)| *d)))
        }
        Op::Gather => {
            arity(2)?;
            let (table, ids) = (operands[0], operands[1]);
            ensure!(table.rank() >= 1, "`gather` needs a table, found {table}");
            ensure!(ids.dtype == DType::I32 && ids.rank() == 1, "`gather` takes i32 ids of rank 1, found {ids}");
            let dims: Vec<Dim> = ids.dims.iter().chain(&table.dims[1..]).copied().collect();
            let dtype = match annotated {
                [t] if t.dtype == DType::F32 && table.dtype.is_weight() => DType::F32,
                _ => table.dtype,
            };
            ensure!(!dtype.is_block(), "`gather` from blocks gives f32, found {table}");
            one(Type::new(dtype, dims))
        }
        Op::Reshape => {
            arity(1)?;
            let t = written()?;
            ensure!(t.dtype == operands[0].dtype, "`reshape` keeps the dtype of {}, found {t}", operands[0]);
            ensure!(
                t.elements() == operands[0].elements(),
                "`reshape` keeps the number of elements: {} has {}, {t} has {}",
                operands[0],
                operands[0].elements(),
                t.elements()
            );
            one(t)
        }
        Op::Transpose { perm } => {
            arity(1)?;
            let t = operands[0];
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            ensure!(
                sorted.iter().copied().eq(0..t.rank()),
                "`transpose` needs a permutation of the {} axes of {t}, found {perm:?}",
                t.rank()
            );
            one(t.with_dims(perm.iter().map(|&p| t.dims[p])))
        }
        Op::Slice { axis, start, len } => {
            arity(1)?;
            let t = operands[0];
            ensure!(*axis < t.rank(), "`slice` has no axis {axis} in {t}");
            let Some(n) = t.dims[*axis].as_const() else {
                return Err(TypeError(format!("`slice` cuts a constant axis, axis {axis} of {t} is dynamic")));
            };
            let end = start.checked_add(*len);
            ensure!(
                *len > 0 && end.is_some_and(|e| e <= n),
                "`slice` {start}..{start}+{len} is not within axis {axis} of {t}"
            );
            let mut dims = t.dims.clone();
            dims[*axis] = Dim::Const(*len);
            one(t.with_dims(dims))
        }
        Op::Concat { axis } => {
            ensure!(!operands.is_empty(), "`concat` needs at least one operand");
            let first = operands[0];
            ensure!(*axis < first.rank(), "`concat` has no axis {axis} in {first}");
            let mut total = 0usize;
            for t in operands {
                let alike = t.dtype == first.dtype
                    && t.rank() == first.rank()
                    && t.dims.iter().zip(&first.dims).enumerate().all(|(i, (a, b))| i == *axis || a == b);
                ensure!(alike, "`concat` takes operands alike but for axis {axis}, found {first} and {t}");
                let Some(n) = t.dims[*axis].as_const() else {
                    return Err(TypeError(format!("`concat` joins constant axes, axis {axis} of {t} is dynamic")));
                };
                total = total.saturating_add(n);
            }
            let mut dims = first.dims.clone();
            dims[*axis] = Dim::Const(total);
            one(first.with_dims(dims))
        }
        Op::Broadcast { axes } => {
            arity(1)?;
            let (t, from) = (written()?, operands[0]);
            ensure!(t.dtype == from.dtype, "`broadcast` keeps the dtype of {from}, found {t}");
            ensure!(
                axes.len() == from.rank(),
                "`broadcast` places each of the {} axes of {from}, found {axes:?}",
                from.rank()
            );
            ensure!(axes.windows(2).all(|w| w[0] < w[1]), "`broadcast` places axes in ascending order, found {axes:?}");
            for (i, &a) in axes.iter().enumerate() {
                ensure!(
                    a < t.rank() && t.dims[a] == from.dims[i],
                    "`broadcast` axis {i} of {from} does not fit axis {a} of {t}"
                );
            }
            one(t)
        }
        Op::Index => {
            arity(2)?;
            state_operand(op, operands[0], bounds)?;
            rows_of_ids(op, operands[1])?;
            let s = operands[0];
            one(s.with_dims([operands[1].dims[0], s.dims[1], Dim::TOKENS, s.dims[3]]))
        }
        Op::StateWrite => {
            arity(4)?;
            let s = operands[0];
            state_operand(op, s, bounds)?;
            rows_of_ids(op, operands[2])?;
            rows_of_ids(op, operands[3])?;
            let want = s.with_dims([operands[2].dims[0], s.dims[1], s.dims[3]]);
            ensure!(*operands[1] == want, "`state.write` to {s} takes rows {want}, found {}", operands[1]);
            ensure!(
                operands[2] == operands[3],
                "`state.write` takes as many positions as slots, found {} and {}",
                operands[2],
                operands[3]
            );
            one(s.clone())
        }
        Op::Copy => {
            arity(1)?;
            one(operands[0].clone())
        }
        Op::Fusion(f) => {
            let region = &f.region;
            let mut params = vec![None; operands.len()];
            for &inst in region.order() {
                if let Op::Param { index } = region.op(inst) {
                    ensure!(
                        *index < operands.len(),
                        "the region has a param {index}, the fusion only {} operands",
                        operands.len()
                    );
                    ensure!(params[*index].is_none(), "the region has param {index} twice");
                    params[*index] = Some(region.ty(region.result(inst)));
                }
            }
            for (i, (param, operand)) in params.iter().zip(operands).enumerate() {
                let Some(param) = param else {
                    return Err(TypeError(format!("the region lacks param {i}")));
                };
                ensure!(param == operand, "param {i} is {param}, the operand is {operand}");
            }
            Ok(region.outputs().iter().map(|(_, v)| region.ty(*v).clone()).collect())
        }
    }
}

fn same_dims(op: &Op, operands: &[&Type]) -> Result<()> {
    for t in &operands[1..] {
        ensure!(
            t.dims == operands[0].dims,
            "`{}` takes operands with equal axes, found {} and {t}",
            op.mnemonic(),
            operands[0]
        );
    }
    Ok(())
}

fn state_operand(op: &Op, s: &Type, bounds: &Bounds) -> Result<()> {
    ensure!(
        s.rank() == 4 && s.dims[0] == Dim::Const(bounds.slots) && s.dims[2] == Dim::Const(bounds.tokens),
        "`{}` takes a state [slots, heads, tokens, head_dim], found {s}",
        op.mnemonic()
    );
    Ok(())
}

fn rows_of_ids(op: &Op, ids: &Type) -> Result<()> {
    ensure!(ids.dtype == DType::I32 && ids.rank() == 1, "`{}` takes i32 ids of rank 1, found {ids}", op.mnemonic());
    Ok(())
}

fn dot(spec: &DotSpec, operands: &[&Type]) -> Result<Vec<Type>> {
    ensure!(operands.len() >= 2, "`dot` takes a left and at least one right side, found {} operands", operands.len());
    let (lhs, rhs) = (operands[0], &operands[1..]);
    ensure!(lhs.dtype.is_activation(), "`dot` takes f32, bf16 or q8 on the left, found {lhs}");
    ensure!(lhs.layout == Layout::Rows, "`dot` takes rows on the left, found {lhs}");
    ensure!(!spec.contract.is_empty(), "`dot` sums over at least one pair of axes");
    let mut result: Option<Vec<Dim>> = None;
    for r in rhs {
        ensure!(r.dtype.is_weight(), "`dot` takes floats or block formats on the right, found {r}");
        let linear = spec.batch.is_empty() && matches!(spec.contract[..], [(a, 1)] if a + 1 == lhs.rank());
        let narrow = lhs.dtype != DType::F32 || r.dtype.is_block();
        ensure!(
            linear || !narrow,
            "`dot` of {lhs} and {r} sums over the last axis of the left and axis 1 of the right"
        );
        let along_k = r.layout == Layout::Rows || (spec.batch.is_empty() && spec.contract.iter().all(|p| p.1 == 1));
        ensure!(along_k, "`dot` contracts axis 1 of a weight in panels, found {r}");
        let pairs = || spec.batch.iter().chain(&spec.contract);
        for &(a, b) in pairs() {
            ensure!(a < lhs.rank() && b < r.rank(), "`dot` pairs axis {a} of {lhs} with axis {b} of {r}: no such axis");
            ensure!(lhs.dims[a] == r.dims[b], "`dot` pairs axis {a} of {lhs} with axis {b} of {r}: they differ");
        }
        let unique = |mut axes: Vec<usize>| {
            axes.sort_unstable();
            axes.windows(2).all(|w| w[0] != w[1])
        };
        ensure!(
            unique(pairs().map(|p| p.0).collect()) && unique(pairs().map(|p| p.1).collect()),
            "`dot` pairs an axis twice"
        );
        let free = |t: &Type, side: fn(&(usize, usize)) -> usize| -> Vec<Dim> {
            (0..t.rank()).filter(|i| !pairs().any(|p| side(p) == *i)).map(|i| t.dims[i]).collect()
        };
        let lhs_free = free(lhs, |p| p.0);
        let rhs_free = free(r, |p| p.1);
        if rhs.len() > 1 {
            let segment = spec.batch.is_empty() && spec.contract.len() == 1 && spec.contract[0].1 == 1 && r.rank() == 2;
            ensure!(segment, "`dot` with several right sides takes weights [N, K] contracted on axis 1, found {r}");
        }
        match &mut result {
            None => {
                let batch = spec.batch.iter().map(|p| lhs.dims[p.0]);
                result = Some(batch.chain(lhs_free).chain(rhs_free).collect());
            }
            Some(dims) => {
                let (Some(Dim::Const(n)), Some(more)) = (dims.last_mut(), rhs_free[0].as_const()) else {
                    return Err(TypeError(format!("`dot` segments have constant outputs, found {r}")));
                };
                *n = n.saturating_add(more);
            }
        }
    }
    Ok(vec![Type::new(DType::F32, result.unwrap_or_default())])
}
