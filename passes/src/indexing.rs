//! How indices go through views, as far as fusion must know.

use llamac_ir::{ConstKind, Dim, Extent, Graph, Inst, Op, Value};

/// Whether fusion reads through the op: a view other than `concat`, which chooses between operands and so is treated like
/// arithmetic that happens to cost nothing.
pub fn is_transparent(op: &Op) -> bool {
    op.is_view() && !matches!(op, Op::Concat { .. })
}

/// Whether a reshape's operand indices are sums of multiples of result indices, without division or remainder: it splits
/// axes but merges none. Axes of one element do not count.
pub fn splits_only(from: &[Dim], to: &[Dim]) -> bool {
    if from == to {
        return true;
    }
    let unit = |d: &&Dim| d.as_const() != Some(1);
    let from: Vec<Extent> = from.iter().filter(unit).map(|d| d.extent()).collect();
    let to: Vec<Extent> = to.iter().filter(unit).map(|d| d.extent()).collect();
    // Equal products of leading axes of both cut the axes into blocks. A block with one operand axis splits it.
    let mut t = 0;
    for f in from {
        let mut run = Extent::ONE;
        while run != f {
            let Some(&next) = to.get(t) else { return false };
            run = run.times(next);
            t += 1;
            // Products of constants only grow: past the axis there is no way back. (A zero cannot be told apart.)
            if run == Extent::ZERO || run.factor > f.factor && run.powers == f.powers {
                return false;
            }
        }
    }
    t == to.len()
}

/// Whether a value's elements can be read through its view without division, as part of a region.
pub fn is_affine_view(graph: &Graph, view: Inst) -> bool {
    match graph.op(view) {
        Op::Reshape => {
            let (from, to) = (graph.operands(view)[0], graph.result(view));
            splits_only(&graph.ty(from).dims, &graph.ty(to).dims)
        }
        op => is_transparent(op),
    }
}

/// Whether the leading `rows` axes of a view's operand are the leading axes of its result, index by index.
pub fn keeps_rows(graph: &Graph, view: Inst, operand: Value, rows: usize) -> bool {
    let (from, to) = (graph.ty(operand), graph.ty(graph.result(view)));
    if from.rank() < rows || to.rank() < rows {
        return false;
    }
    match graph.op(view) {
        Op::Reshape => from.dims[..rows] == to.dims[..rows],
        Op::Transpose { perm } => perm[..rows].iter().copied().eq(0..rows),
        Op::Slice { axis, .. } | Op::Concat { axis } => *axis >= rows,
        Op::Broadcast { axes } => axes[..rows].iter().copied().eq(0..rows),
        _ => false,
    }
}

/// What every value shows, transparent views read through. Found once for a graph: chains of views may be long.
#[derive(Clone, Debug)]
pub struct Views {
    behind: Vec<Value>,
    slots: Vec<Option<Value>>,
    depth: Vec<usize>,
}

impl Views {
    /// Reads a graph front to back.
    pub fn new(graph: &Graph) -> Views {
        let mut behind: Vec<Value> = (0..graph.value_count()).map(|id| Value(id as u32)).collect();
        let (mut slots, mut depth) = (vec![None; behind.len()], vec![0; behind.len()]);
        for &inst in graph.order() {
            if is_transparent(graph.op(inst)) {
                let (operands, v) = (graph.operands(inst), graph.result(inst).index());
                let from = operands[0].index();
                behind[v] = behind[from];
                // A view of a state by slot is no state, so there is at most one on the way.
                slots[v] = operands.get(1).map(|ids| behind[ids.index()]).or(slots[from]);
                depth[v] = depth[from] + 1;
            }
        }
        Views { behind, slots, depth }
    }

    /// The value whose elements these are: itself, if it is no view. Of an `index`, the state.
    pub fn behind(&self, v: Value) -> Value {
        self.behind[v.index()]
    }

    /// Where an `index` is on the way, what its slots show.
    pub fn slots(&self, v: Value) -> Option<Value> {
        self.slots[v.index()]
    }

    /// How many views are on the way.
    pub fn depth(&self, v: Value) -> usize {
        self.depth[v.index()]
    }
}

/// Constants that have no place in memory, and so go into a region as they are.
pub fn is_immediate(op: &Op) -> bool {
    matches!(op, Op::Const(ConstKind::Splat(_)) | Op::Iota)
}

#[cfg(test)]
mod tests {
    use super::splits_only;
    use llamac_ir::Dim;

    fn dims(d: &[usize]) -> Vec<Dim> {
        // 0 stands for the dynamic dimension.
        d.iter().map(|&n| if n == 0 { Dim::ROWS } else { Dim::Const(n) }).collect()
    }

    #[test]
    fn splitting_is_affine_and_merging_is_not() {
        let cases: &[(&[usize], &[usize], bool)] = &[
            (&[0, 64], &[0, 4, 16], true),
            (&[0, 4, 16], &[0, 64], false),
            (&[0, 4, 16], &[0, 2, 2, 16], true),
            (&[0, 4, 16], &[0, 4, 1, 16], true),
            (&[0, 4, 1, 16], &[0, 4, 16], true),
            (&[0, 6, 4], &[0, 4, 6], false),
            (&[0, 2, 6], &[0, 4, 3], false),
            (&[0], &[0, 1], true),
            (&[0, 1], &[0], true),
            (&[1], &[], true),
            (&[], &[1, 1], true),
            (&[4, 0], &[0, 4], false),
            (&[0, 0], &[0, 0], true),
        ];
        for (from, to, want) in cases {
            assert_eq!(splits_only(&dims(from), &dims(to)), *want, "{from:?} to {to:?}");
        }
    }
}
