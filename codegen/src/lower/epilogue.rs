//! Epilogues: elementwise work on a finished tile of a GEMM.

use super::LoweredEpilogue;
use super::affine::{Affine, Var};
use super::build::{Build, Operand};
use super::expand::{ElementOp, Key, Node, extents, resolve};
use super::gated::{Gated, gated};
use super::reach::reach;
use super::region::Closed;
use crate::error::{CodegenError, Result};
use crate::loops::{Convert, Count, Index, Kernel, LANES, Line, Space, Stretch, Ty};
use llamac_formats::program::Routine;
use llamac_formats::{DType, Extent, Over};
use llamac_ir::{Inst, Op, Value};

/// The dot of an epilogue's region.
///
/// # Errors
/// If the region has none or several.
pub fn dot_of(closed: &Closed) -> Result<Inst> {
    let g = &closed.graph;
    let mut dots = g.order().iter().copied().filter(|&i| matches!(g.op(i), Op::Dot(_)));
    match (dots.next(), dots.next()) {
        (Some(dot), None) => Ok(dot),
        _ => Err(CodegenError::Region { at: closed.at.clone(), what: "an epilogue has exactly one dot".into() }),
    }
}

/// The routine that makes a result of f32, if it is bf16, and those f32.
fn finishing(b: &mut Build<'_>, output: Value, index: Vec<Affine>) -> Result<(Option<Routine>, Key)> {
    let key = resolve(b.closed, &b.ranges, &(output, index));
    Ok(match b.expand(&key)? {
        Node::Apply(ElementOp::Convert([Convert::RoundBf16]), mut args) => {
            (Some(Routine::RoundBf16), args.swap_remove(0))
        }
        _ => (None, key),
    })
}

/// Lowers the chain on a dot's result to a tile kernel.
///
/// # Errors
/// If the chain is no function of one row and one column of the tile.
pub fn lower_epilogue(closed: &Closed) -> Result<LoweredEpilogue> {
    let refused = |what: String| CodegenError::Region { at: closed.at.clone(), what };
    let g = &closed.graph;
    let dot = g.ty(g.result(dot_of(closed)?));
    let Some(columns) = dot.dims.last().and_then(|d| d.as_const()) else {
        return Err(refused(format!("an epilogue's dot has constant columns, found {dot}")));
    };
    let &[(_, output)] = g.outputs() else {
        return Err(refused(format!("an epilogue has one result, found {}", g.outputs().len())));
    };
    let ty = g.ty(output);
    let dims = extents(ty);
    let rows = dot.dims[..dot.rank() - 1].iter().fold(Extent::ONE, |a, d| a.times(d.extent()));
    // The result has the dot's rows; what follows is a segment's columns.
    let mut split = 0;
    let mut seen = Extent::ONE;
    while seen != rows && split < dims.len() {
        seen = seen.times(dims[split]);
        split += 1;
    }
    // One row is the first axis, as many rows are.
    while split + 1 < dims.len() && dims[split] == Extent::ONE {
        split += 1;
    }
    let width = dims[split..].iter().fold(Extent::ONE, |a, &e| a.times(e)).as_constant().map(|w| w as usize);
    let Some(width) = width.filter(|&w| seen == rows && w > 0 && columns.is_multiple_of(w)) else {
        return Err(refused(format!("the result {ty} does not have the rows and columns of the dot's {dot}")));
    };
    let segments = columns / width;
    let mut b = Build::new(closed);
    b.segment_width = Some(width);
    let [row, begin, end] = [0; 3].map(|_| b.reg(Ty::Index, 0));
    let row_var = b.var(rows);
    b.bind(row_var, row);
    let width = Extent::constant(width as u64);
    let strides = ty.strides();
    let place = b.buffer(Operand::Result(0), ty.dtype, true);
    let index_of = |b: &Build<'_>, col: Var| {
        let mut index = vec![];
        for (axes, flat) in [(0..split, row_var), (split..dims.len(), col)] {
            let mut rest = Affine::var(flat);
            let size = |axis: usize| dims[axis + 1..axes.end].iter().fold(Extent::ONE, |a, &e| a.times(e));
            for axis in axes.clone() {
                let (q, r) = rest.div_rem(size(axis), &b.ranges);
                index.push(q);
                rest = r;
            }
        }
        index
    };
    let first = b.var(width);
    b.bind(first, begin);
    let index = index_of(&b, first);
    let at = Affine::linear(&index, &strides);
    let dense = at.split_var(first).is_some_and(|(step, _)| step == Extent::ONE);
    let (finish, value) = finishing(&mut b, output, index)?;
    let finish = finish.filter(|_| dense);
    match gated(&mut b, &value, row_var, first)?.filter(|_| dense && (finish.is_some() || ty.dtype == DType::F32)) {
        Some(Gated { gate, up }) => {
            let routine = if finish.is_some() { Routine::SiluMulBf16 } else { Routine::SiluMul };
            let (to, from) = (Line::Memory(place, b.index(&at)?), vec![Line::Tile(gate), Line::Tile(up)]);
            b.stretch(Stretch { routine, to, from, count: Count::Columns });
        }
        None => {
            let mut last = None;
            for (step, lanes) in [(LANES, true), (1, false)] {
                let var = b.open(width, lanes);
                let index = index_of(&b, var);
                if finish.is_some() {
                    let value = b.demand_lanes(value.0, &index)?;
                    b.set_tile(row_var, var, value)?;
                } else {
                    let value = b.demand_lanes(output, &index)?;
                    b.store(place, ty.dtype, &Affine::linear(&index, &strides), value)?;
                }
                let from = last.map_or_else(|| Index::reg(begin), Index::reg);
                last = Some(b.close(var, from, Index::reg(end), step, vec![]));
            }
            if let Some(routine) = finish {
                let (to, from) = (Line::Memory(place, b.index(&at)?), vec![Line::Tile(0)]);
                b.stretch(Stretch { routine, to, from, count: Count::Columns });
            }
        }
    }
    let (body, buffers, tys) = b.finish();
    let (operands, buffers): (Vec<_>, Vec<_>) = buffers.into_iter().unzip();
    let mut kernel = Kernel { buffers, syms: vec![], scratch: 0, space: Space::Tile { row, begin, end }, body, tys };
    kernel.collect_syms();
    let over = Over::Tiles { rows, columns: columns / segments, segments };
    let reach = reach(closed, &kernel, &operands, over)?;
    Ok(LoweredEpilogue { kernel, operands, reach, segments })
}
