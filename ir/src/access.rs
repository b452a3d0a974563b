//! Views composed into strides: where the elements of a value lie in the buffer that really holds them.
//!
//! [`access`] follows whole chains of views. The steps it is made of are public too, for a reader that starts somewhere
//! else: [`apply_view`] and [`apply_index`] put one view on top of any access, [`gather_access`] and [`write_access`] are
//! the two places where memory is addressed by fetched indices without a view.
//!
//! Symbolic dimensions are compared as symbols: two axes are known to be equal only if both are the same constant or the
//! same dynamic dimension. An axis of the constant extent 1 has no stride to speak of: its stride is never read.

use crate::{Dim, Graph, Inst, Layout, Op, Type, Value};
use llamac_formats::{Access, Extent, Indirect};

/// A view that strides cannot express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at} cannot be read through: {reason}")]
pub struct NotStrided {
    /// The view.
    pub at: Value,
    /// Why not.
    pub reason: String,
}

/// Follows views from `value` to the first value that is not a view, and returns the strided access (one stride per axis
/// of `value`) to that value's memory. A gather, a `copy` and a `state.write` are not views: they are bases.
///
/// # Errors
/// Says why no strided access exists: a `concat`, a `reshape` that merges axes which do not lie one after the other, an
/// offset that is a sum of unlike extents, a base in panels.
pub fn access(graph: &Graph, value: Value) -> Result<Access<Value>, NotStrided> {
    // A loop rather than recursion: the chain may be as long as the text that it was read from.
    let mut views = vec![];
    let mut base = value;
    while graph.def_op(base).is_view() {
        views.push(base);
        base = graph.operands(graph.def(base))[0];
    }
    let ty = graph.ty(base);
    if ty.layout == Layout::Panels {
        return Err(NotStrided { at: base, reason: format!("{ty} lies in panels") });
    }
    let mut access = dense(base, ty);
    for &view in views.iter().rev() {
        access = through(graph, view, access)?;
    }
    Ok(access)
}

/// The access to a buffer that holds a value of type `ty` densely, row-major, at the actual sizes.
pub fn dense<B>(base: B, ty: &Type) -> Access<B> {
    Access { base, offset: Extent::ZERO, strides: ty.strides(), indirects: vec![] }
}

/// Whether an access to a value of type `ty` reads its base from the start, densely and in order.
pub fn is_dense<B>(access: &Access<B>, ty: &Type) -> bool {
    let in_order = access.strides.iter().zip(ty.strides()).zip(&ty.dims).all(|((a, b), d)| *a == b || is_one(*d));
    access.offset == Extent::ZERO && access.indirects.is_empty() && in_order
}

/// The access to `view`'s elements, given the access to the elements of its first operand.
///
/// # Errors
/// As for [`access`], and if `view` is not the result of a view.
pub fn through(graph: &Graph, view: Value, access: Access<Value>) -> Result<Access<Value>, NotStrided> {
    let inst = graph.def(view);
    let operands = graph.operands(inst);
    let at = |reason| NotStrided { at: view, reason };
    match graph.op(inst) {
        Op::Index => apply_index(access, &self::access(graph, operands[1])?).map_err(at),
        Op::Concat { .. } if operands.len() > 1 => Err(at("`concat` joins several buffers".into())),
        op => apply_view(op, access, graph.ty(operands[0]), graph.ty(view)).map_err(at),
    }
}

/// Puts one view on top of an access: `access` is to the elements of the view's operand, of type `from`; the result is to
/// the elements of the view, of type `to`. For `index`, which needs a second access, see [`apply_index`]; a `concat` is
/// taken to have one operand.
///
/// # Errors
/// Says why no strided access exists, or that `op` is no such view.
pub fn apply_view<B>(op: &Op, access: Access<B>, from: &Type, to: &Type) -> Result<Access<B>, String> {
    match op {
        Op::Reshape => reshape(access, from, to),
        Op::Transpose { perm } => Ok(remap(access, |old| perm.iter().map(|&p| old[p]).collect())),
        Op::Slice { axis, start, .. } => slice(access, *axis, *start as u64),
        Op::Broadcast { axes } => Ok(remap(access, |old| {
            let mut new = vec![Extent::ZERO; to.rank()];
            for (i, &a) in axes.iter().enumerate() {
                new[a] = old[i];
            }
            new
        })),
        Op::Concat { .. } => Ok(access),
        op => Err(format!("`{}` is no view of one buffer", op.mnemonic())),
    }
}

/// The access to `index(state, slots)`, axes (row, head, token, d), given those to a state and to the slots.
///
/// # Errors
/// If an index would have to be fetched by a fetched index.
pub fn apply_index<B: Clone>(state: Access<B>, slots: &Access<B>) -> Result<Access<B>, String> {
    let mut out = fetch_axis(state, 0, slots)?;
    // The fetched axis of the state became the rows of `slots`; the others stay where they are.
    out.strides[0] = Extent::ZERO;
    Ok(out)
}

/// The access to a gather's result in its table, axes (row, …axes of the table but the first): an indirection through
/// the ids. The gather may widen: elements in the table are of the table's dtype.
///
/// # Errors
/// As for [`access`], for the table or the ids; or a table in panels.
///
/// # Panics
/// If `gather` is no gather.
pub fn gather_access(graph: &Graph, gather: Inst) -> Result<Access<Value>, NotStrided> {
    assert!(matches!(graph.op(gather), Op::Gather), "{gather} must be a gather");
    let [table, ids] = *graph.operands(gather) else { panic!("a gather has two operands") };
    let (table, ids) = (access(graph, table)?, access(graph, ids)?);
    // What an index of the table's first axis is worth; the axis itself is now the ids'.
    fetch_axis(table, 0, &ids).map_err(|reason| NotStrided { at: graph.result(gather), reason })
}

/// Where a `state.write` puts its rows: an access to the state operand over the axes (row, head, d) of the rows operand.
/// The state operand is followed through views like any other, so the base is what really holds the state.
///
/// # Errors
/// As for [`access`], for the state, the slots or the positions.
///
/// # Panics
/// If `write` is no `state.write`.
pub fn write_access(graph: &Graph, write: Inst) -> Result<Access<Value>, NotStrided> {
    assert!(matches!(graph.op(write), Op::StateWrite), "{write} must be a state.write");
    let [state, _, slots, positions] = *graph.operands(write) else { panic!("a state.write has four operands") };
    let (state, slots, positions) = (access(graph, state)?, access(graph, slots)?, access(graph, positions)?);
    let at = |reason| NotStrided { at: graph.result(write), reason };
    // Fetch the slot on axis 0; then move the tokens to the front, fetch the position there, and drop one of the two
    // axes that run with the row by adding their strides, which is what a common index amounts to.
    let by_slot = fetch_axis(state, 0, &slots).map_err(at)?;
    let tokens_first = remap(by_slot, |s| vec![s[2], s[0], s[1], s[3]]);
    let by_both = fetch_axis(tokens_first, 0, &positions).map_err(at)?;
    Ok(remap(by_both, |s| {
        let row = if s[0] == Extent::ZERO { s[1] } else { s[0] };
        vec![row, s[2], s[3]]
    }))
}

/// Replaces direct addressing of one axis by indices fetched through `ids` (of rank 1): the axis becomes that of the ids.
fn fetch_axis<B: Clone>(mut access: Access<B>, axis: usize, ids: &Access<B>) -> Result<Access<B>, String> {
    if !ids.indirects.is_empty() {
        return Err("its indices are themselves fetched by index".into());
    }
    if access.indirects.iter().any(|i| i.strides[axis] != Extent::ZERO) {
        return Err(format!("axis {axis} is already fetched by index"));
    }
    let mut strides = vec![Extent::ZERO; access.strides.len()];
    strides[axis] = ids.strides[0];
    let stride = std::mem::replace(&mut access.strides[axis], Extent::ZERO);
    access.indirects.push(Indirect { index: ids.base.clone(), offset: ids.offset, strides, stride });
    Ok(access)
}

/// Rearranges the strides of the base and of every indirection alike.
fn remap<B>(mut access: Access<B>, f: impl Fn(&[Extent]) -> Vec<Extent>) -> Access<B> {
    access.strides = f(&access.strides);
    for i in &mut access.indirects {
        i.strides = f(&i.strides);
    }
    access
}

fn slice<B>(mut access: Access<B>, axis: usize, start: u64) -> Result<Access<B>, String> {
    let moved = |offset: Extent, stride: Extent| {
        let by = Extent::constant(start).times(stride);
        plus(offset, by).ok_or_else(|| format!("its offset {offset} + {by} is a sum of unlike extents"))
    };
    access.offset = moved(access.offset, access.strides[axis])?;
    for i in &mut access.indirects {
        i.offset = moved(i.offset, i.strides[axis])?;
    }
    Ok(access)
}

/// The sum of two extents, where that is again one.
fn plus(a: Extent, b: Extent) -> Option<Extent> {
    match (a, b) {
        (Extent::ZERO, x) | (x, Extent::ZERO) => Some(x),
        _ if a.powers == b.powers => Some(Extent { factor: a.factor.checked_add(b.factor)?, powers: a.powers }),
        _ => None,
    }
}

fn is_one(dim: Dim) -> bool {
    dim == Dim::Const(1)
}

/// Old axes are grouped from the back into chunks that lie one after the other (in the base and in every index buffer);
/// new axes must split those chunks exactly.
fn reshape<B>(access: Access<B>, from: &Type, to: &Type) -> Result<Access<B>, String> {
    // One row of strides per buffer: what must hold, must hold for all of them.
    let tables: Vec<&[Extent]> =
        std::iter::once(&access.strides[..]).chain(access.indirects.iter().map(|i| &i.strides[..])).collect();
    let old: Vec<usize> = (0..from.rank()).filter(|&i| !is_one(from.dims[i])).collect();
    let mut new: Vec<Vec<Extent>> = vec![vec![Extent::ZERO; to.rank()]; tables.len()];
    let mut next = to.rank();
    let mut at = old.len();
    while at > 0 {
        // The chunk ends (innermost) at axis `inner`, and grows outwards while the next axis continues it.
        let inner = old[at - 1];
        let mut size = Extent::ONE;
        loop {
            at -= 1;
            size = size.times(from.dims[old[at]].extent());
            let continues = at > 0 && tables.iter().all(|s| s[old[at - 1]] == size.times(s[inner]));
            if !continues {
                break;
            }
        }
        let mut taken = Extent::ONE;
        while taken != size {
            if next == 0 {
                return Err(format!("{from} as {to} would merge axes that do not lie one after the other"));
            }
            next -= 1;
            for (new, old) in new.iter_mut().zip(&tables) {
                new[next] = taken.times(old[inner]);
            }
            taken = taken.times(to.dims[next].extent());
        }
    }
    if to.dims[..next].iter().any(|d| !is_one(*d)) {
        return Err(format!("{from} as {to} does not keep the number of elements"));
    }
    // Axes of extent 1 that are left over on the outside: strides as if dense, so that a dense access stays recognisable.
    for axis in (0..next).rev() {
        new[0][axis] = match new[0].get(axis + 1) {
            Some(s) => s.times(to.dims[axis + 1].extent()),
            None => Extent::ONE,
        };
    }
    let mut new = new.into_iter();
    let mut row = || new.next().expect("one row of strides per buffer");
    let mut access = access;
    access.strides = row();
    for i in &mut access.indirects {
        i.strides = row();
    }
    Ok(access)
}
