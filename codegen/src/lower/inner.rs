//! Where the elements that one row of a kernel stores lie: the axes of a result that are rows, and those past them.

use super::affine::Affine;
use llamac_formats::Extent;

/// An axis of the row space or of a sweep.
#[derive(Clone, Debug)]
pub enum Axis {
    /// Of extent 1.
    Unit,
    /// A row variable.
    Row(Affine),
}

/// The index on the first `rank` axes.
pub fn prefix_index(prefix: &[Axis], rank: usize) -> Vec<Affine> {
    prefix[..rank]
        .iter()
        .map(|a| match a {
            Axis::Unit => Affine::default(),
            Axis::Row(affine) => affine.clone(),
        })
        .collect()
}

/// The axes past the row space, for each row.
pub struct Inner {
    /// The row's part of the index.
    row: Vec<Affine>,
    /// Where the last axis is cut into blocks, what the block adds to its index.
    shift: Affine,
    /// Axes of a result.
    pub dims: Vec<Extent>,
    /// How much of each a row of the kernel covers.
    pub lens: Vec<Extent>,
}

impl Inner {
    /// Those of a result with axes `dims`, of which `prefix` are rows, the last of them of stretches of `block` elements if any.
    pub fn new(dims: &[Extent], prefix: &[Axis], block: Option<u64>) -> Inner {
        let rank = prefix.len() - usize::from(block.is_some());
        let dims = dims[rank..].to_vec();
        let shift = match (block, prefix.last()) {
            (Some(block), Some(Axis::Row(var))) => {
                Affine::linear(std::slice::from_ref(var), &[Extent::constant(block)])
            }
            _ => Affine::default(),
        };
        let lens = dims
            .iter()
            .enumerate()
            .map(|(i, &d)| block.filter(|_| i + 1 == dims.len()).map_or(d, Extent::constant))
            .collect();
        Inner { row: prefix_index(prefix, rank), shift, dims, lens }
    }

    /// The whole index of an element.
    pub fn index(&self, inner: &[Affine]) -> Vec<Affine> {
        let mut index = self.row.clone();
        index.extend(inner.iter().cloned());
        if !self.dims.is_empty()
            && let Some(last) = index.last_mut()
        {
            *last = last.plus(&self.shift);
        }
        index
    }

    /// How far apart the elements of each axis are among those that the row stores.
    pub fn steps(&self) -> Vec<Extent> {
        let behind = |i: usize| self.lens[i + 1..].iter().fold(Extent::ONE, |step, &len| step.times(len));
        (0..self.lens.len()).map(behind).collect()
    }
}
