//! What a kernel touches, for those that call it: as much of each operand as its type has, which the kernel's own loops
//! must not exceed.

use super::build::Operand;
use super::region::Closed;
use crate::error::{CodegenError, Result};
use crate::loops::{Call, Kernel, touched};
use llamac_formats::{Extent, Over, PanelLayout, Reach, Sizes, Touch};
use llamac_ir::{Layout, Op, Type};

/// Sizes at which a kernel's loops are walked, beside the bounds: there are none, one, and enough for a tail.
const SAMPLES: [usize; 3] = [0, 1, 7];

/// What a kernel may be called with and touches then.
///
/// # Errors
/// If the kernel's loops go beyond what its operands' types hold: a mistake of the lowering, or indices that nothing bounds.
pub fn reach(closed: &Closed, kernel: &Kernel, operands: &[Operand], over: Over) -> Result<Reach> {
    let refused = |what: String| CodegenError::Reach { at: closed.at.clone(), what };
    let bounds = closed.graph.bounds;
    let most = bounds.sizes();
    let mut touches = vec![];
    for (operand, buffer) in operands.iter().zip(&kernel.buffers) {
        let ty = operand_type(closed, *operand).ok_or_else(|| refused(format!("{operand:?} is no operand")))?;
        let bytes = bytes(ty, &most).ok_or_else(|| refused(format!("{ty} has no size")))?;
        touches.push(Touch { bytes, stored: buffer.stored, below: None });
    }
    let below: Vec<Option<usize>> = operands
        .iter()
        .map(|operand| match operand {
            Operand::Param(i) => closed.limits[*i],
            Operand::Result(_) => None,
        })
        .collect();
    for sizes in samples(&most) {
        let (rows, columns, segments) = match over {
            Over::Rows(count) => (count.value(&sizes), 0, 0),
            Over::Tiles { rows, columns, segments } => (rows.value(&sizes), columns, segments),
        };
        let found = touched(kernel, &below, Call { sizes, rows, columns }).map_err(&refused)?;
        if found.segments > segments {
            return Err(refused(format!("segment {} of {segments} is read", found.segments)));
        }
        for (i, touch) in touches.iter_mut().enumerate() {
            if found.ends[i] > touch.bytes {
                return Err(refused(format!("byte {} of b{i} is touched, it has {}", found.ends[i], touch.bytes)));
            }
            if found.steers[i] {
                touch.below = below[i];
            }
        }
    }
    let scalars = kernel.syms.iter().map(|&s| Extent::sym(s)).collect();
    Ok(Reach { bounds, over, scalars, operands: touches })
}

/// All combinations of few and most.
fn samples(most: &Sizes) -> Vec<Sizes> {
    let some = |bound: usize, least: usize| {
        let mut all: Vec<usize> = SAMPLES.into_iter().filter(|n| (least..bound).contains(n)).collect();
        all.push(bound);
        all
    };
    let mut all = vec![];
    for &rows in &some(most.rows, 1) {
        for &outputs in &some(most.outputs, 0) {
            all.extend(some(most.tokens, 0).into_iter().map(|tokens| Sizes { rows, outputs, tokens }));
        }
    }
    all
}

/// The type of what a buffer holds.
fn operand_type(closed: &Closed, operand: Operand) -> Option<&Type> {
    let g = &closed.graph;
    match operand {
        Operand::Param(i) => g.order().iter().find_map(|&inst| match g.op(inst) {
            Op::Param { index } if *index == i => Some(g.ty(g.result(inst))),
            _ => None,
        }),
        Operand::Result(i) => g.outputs().get(i).map(|(_, value)| g.ty(*value)),
    }
}

/// Bytes of a tensor at the bounds.
fn bytes(ty: &Type, most: &Sizes) -> Option<usize> {
    match (ty.layout, &ty.dims[..]) {
        (Layout::Rows, dims) => {
            let dims: Vec<usize> = dims.iter().map(|d| d.extent().value(most)).collect();
            ty.dtype.storage_of(&dims)
        }
        (Layout::Panels, [n, k]) if ty.dtype.is_float() => {
            let layout = PanelLayout { dtype: ty.dtype, k: k.as_const()? };
            Some(layout.matrix_bytes(n.as_const()?))
        }
        (Layout::Panels, _) => None,
    }
}
