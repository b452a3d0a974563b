//! Contractions as batch, m, n and k: axes that lie one after the other become one.

use llamac_formats::{Access, Extent, Indirect};
use llamac_ir::DotSpec;

/// A strided operand with its axes' extents.
#[derive(Clone, Debug)]
pub struct Strided<B> {
    /// Where its elements are.
    pub access: Access<B>,
    /// Its axes.
    pub dims: Vec<Extent>,
}

/// Strides of one axis: of the base, then of each indirection.
pub type AxisStrides = Vec<Extent>;

impl<B: Clone> Strided<B> {
    fn axis(&self, axis: usize) -> AxisStrides {
        std::iter::once(self.access.strides[axis])
            .chain(self.access.indirects.iter().map(|i| i.strides[axis]))
            .collect()
    }

    /// The strides of several axes as one, outermost first; `None` if they do not lie one after the other.
    pub fn collapse(&self, axes: &[usize]) -> Option<AxisStrides> {
        let mut wide = axes.iter().rev().filter(|&&a| self.dims[a] != Extent::ONE);
        let Some(&inner) = wide.next() else {
            // Nothing to step over: any stride does.
            return Some(match axes.last() {
                Some(&axis) => self.axis(axis),
                None => vec![Extent::ZERO; 1 + self.access.indirects.len()],
            });
        };
        let strides = self.axis(inner);
        let mut size = self.dims[inner];
        for &axis in wide {
            let follows = self.axis(axis).iter().zip(&strides).all(|(outer, inner)| *outer == inner.times(size));
            if !follows {
                return None;
            }
            size = size.times(self.dims[axis]);
        }
        Some(strides)
    }

    /// The access over other axes.
    pub fn with_axes(&self, axes: &[AxisStrides]) -> Access<B> {
        let strides = |row: usize| axes.iter().map(|a| a[row]).collect();
        Access {
            base: self.access.base.clone(),
            offset: self.access.offset,
            strides: strides(0),
            indirects: self
                .access
                .indirects
                .iter()
                .enumerate()
                .map(|(n, i)| Indirect {
                    index: i.index.clone(),
                    offset: i.offset,
                    strides: strides(n + 1),
                    stride: i.stride,
                })
                .collect(),
        }
    }

    fn nothing(&self) -> AxisStrides {
        vec![Extent::ZERO; 1 + self.access.indirects.len()]
    }
}

/// A contraction in the form of [`llamac_formats::program::DotWork`].
#[derive(Clone, Debug)]
pub struct Shape<B> {
    /// Batch axes, outermost first.
    pub batch: Vec<Extent>,
    /// Rows.
    pub m: Extent,
    /// Columns.
    pub n: Extent,
    /// Contraction length.
    pub k: Extent,
    /// Axes (batch…, m, k).
    pub lhs: Access<B>,
    /// Axes (batch…, n, k).
    pub rhs: Access<B>,
    /// Axes (batch…, m, n).
    pub out: Access<B>,
}

/// Finds the form of a contraction. Free axes that do not lie one after the other run as batch axes, all but the last.
///
/// # Errors
/// If the contracted axes have no common order in which they lie one after the other on both sides.
pub fn shape<B: Clone>(spec: &DotSpec, lhs: &Strided<B>, rhs: &Strided<B>, out: Access<B>) -> Result<Shape<B>, String> {
    let free = |t: &Strided<B>, paired: Vec<usize>| -> Vec<usize> {
        (0..t.dims.len()).filter(|a| !paired.contains(a)).collect()
    };
    let pairs = || spec.batch.iter().chain(&spec.contract);
    let lhs_free = free(lhs, pairs().map(|p| p.0).collect());
    let rhs_free = free(rhs, pairs().map(|p| p.1).collect());
    let (left, right): (Vec<usize>, Vec<usize>) = spec.contract.iter().copied().unzip();
    let (Some(k_left), Some(k_right)) = (lhs.collapse(&left), rhs.collapse(&right)) else {
        return Err("its contracted axes do not lie one after the other; it needs a `copy`".into());
    };
    let k = left.iter().fold(Extent::ONE, |e, &a| e.times(lhs.dims[a]));
    // The result's axes: batch, free of lhs, free of rhs.
    let dims: Vec<Extent> = spec
        .batch
        .iter()
        .map(|p| lhs.dims[p.0])
        .chain(lhs_free.iter().map(|&a| lhs.dims[a]))
        .chain(rhs_free.iter().map(|&a| rhs.dims[a]))
        .collect();
    let out = Strided { access: out, dims };
    let mut batch = vec![];
    let (mut l, mut r, mut o) = (vec![], vec![], vec![]);
    for (i, &(a, b)) in spec.batch.iter().enumerate() {
        batch.push(out.dims[i]);
        l.push(lhs.axis(a));
        r.push(rhs.axis(b));
        o.push(out.axis(i));
    }
    let first = spec.batch.len();
    let m_axes: Vec<usize> = (0..lhs_free.len()).map(|i| first + i).collect();
    let n_axes: Vec<usize> = (0..rhs_free.len()).map(|i| first + lhs_free.len() + i).collect();
    // Rows and columns: all free axes as one where they lie so, else the last, the others as batch.
    let split = |t: &Strided<B>, free: &[usize], axes: &[usize]| -> usize {
        if t.collapse(free).is_some() && out.collapse(axes).is_some() { 0 } else { free.len().saturating_sub(1) }
    };
    let (m_split, n_split) = (split(lhs, &lhs_free, &m_axes), split(rhs, &rhs_free, &n_axes));
    for i in 0..m_split {
        batch.push(lhs.dims[lhs_free[i]]);
        l.push(lhs.axis(lhs_free[i]));
        r.push(rhs.nothing());
        o.push(out.axis(m_axes[i]));
    }
    for i in 0..n_split {
        batch.push(rhs.dims[rhs_free[i]]);
        l.push(lhs.nothing());
        r.push(rhs.axis(rhs_free[i]));
        o.push(out.axis(n_axes[i]));
    }
    let product = |t: &Strided<B>, axes: &[usize]| axes.iter().fold(Extent::ONE, |e, &a| e.times(t.dims[a]));
    let axis = |t: &Strided<B>, axes: &[usize]| t.collapse(axes).unwrap_or_else(|| t.nothing());
    l.extend([axis(lhs, &lhs_free[m_split..]), k_left]);
    r.extend([axis(rhs, &rhs_free[n_split..]), k_right]);
    o.extend([axis(&out, &m_axes[m_split..]), axis(&out, &n_axes[n_split..])]);
    Ok(Shape {
        batch,
        m: product(lhs, &lhs_free[m_split..]),
        n: product(rhs, &rhs_free[n_split..]),
        k,
        lhs: lhs.with_axes(&l),
        rhs: rhs.with_axes(&r),
        out: out.with_axes(&o),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(dims: &[u64]) -> Strided<u8> {
        let mut strides = vec![Extent::ONE; dims.len()];
        for i in (0..dims.len().saturating_sub(1)).rev() {
            strides[i] = strides[i + 1].times(Extent::constant(dims[i + 1]));
        }
        let dims = dims.iter().map(|&d| Extent::constant(d)).collect();
        Strided { access: Access { base: 0, offset: Extent::ZERO, strides, indirects: vec![] }, dims }
    }

    #[test]
    fn free_axes_of_a_dense_operand_are_rows() {
        let spec = DotSpec { batch: vec![], contract: vec![(2, 1)] };
        let s = shape(&spec, &dense(&[2, 3, 4]), &dense(&[5, 4]), dense(&[2, 3, 5]).access).unwrap();
        assert_eq!((s.batch.len(), s.m, s.n, s.k), (0, Extent::constant(6), Extent::constant(5), Extent::constant(4)));
        assert_eq!(s.lhs.strides, [Extent::constant(4), Extent::ONE]);
    }

    #[test]
    fn free_axes_apart_run_as_batch() {
        // Axis 1 is contracted, so axes 0 and 2 do not lie one after the other.
        let spec = DotSpec { batch: vec![], contract: vec![(1, 1)] };
        let s = shape(&spec, &dense(&[2, 3, 4]), &dense(&[5, 3]), dense(&[2, 4, 5]).access).unwrap();
        assert_eq!((s.batch, s.m, s.n), (vec![Extent::constant(2)], Extent::constant(4), Extent::constant(5)));
        assert_eq!(s.lhs.strides, [12, 1, 4].map(Extent::constant));
        assert_eq!(s.rhs.strides, [0, 3, 1].map(Extent::constant));
        assert_eq!(s.out.strides, [20, 5, 1].map(Extent::constant));
    }

    #[test]
    fn contracted_axes_must_lie_alike() {
        let spec = DotSpec { batch: vec![], contract: vec![(1, 0), (0, 1)] };
        assert!(shape(&spec, &dense(&[2, 3]), &dense(&[3, 2]), dense(&[]).access).is_err());
    }
}
