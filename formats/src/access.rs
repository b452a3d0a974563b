//! Where the element of a viewed tensor lies in the buffer behind it.

use crate::Extent;
use serde::{Deserialize, Serialize};

/// A strided view of a buffer, with at most a few indices fetched from memory.
///
/// Element `i = (i0, i1, …)` lies at element offset
/// `offset + Σ strides[d]·i_d + Σ indirects[n].stride · indirects[n].index[Σ indirects[n].strides[d]·i_d + offset_n]`.
/// All strides are in elements of the buffer's dtype; a broadcast axis has stride 0.
/// Indirections are how a gather (`table[ids[i]]`), a cache read (`state[slots[i]]`) and a cache write are expressed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Access<B> {
    /// The buffer that holds the elements.
    pub base: B,
    /// Element offset of element (0, 0, …).
    pub offset: Extent,
    /// One stride per axis of the viewed tensor.
    pub strides: Vec<Extent>,
    /// Indices read from memory.
    pub indirects: Vec<Indirect<B>>,
}

/// One index read from an `i32` buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Indirect<B> {
    /// The `i32` buffer.
    pub index: B,
    /// Element offset into the index buffer.
    pub offset: Extent,
    /// Stride in the index buffer per axis of the viewed tensor.
    pub strides: Vec<Extent>,
    /// What one step of the fetched index is worth in elements of the base buffer.
    pub stride: Extent,
}

impl<B> Access<B> {
    /// The same access with its buffers renamed.
    pub fn map<C>(self, mut f: impl FnMut(B) -> C) -> Access<C> {
        Access {
            base: f(self.base),
            offset: self.offset,
            strides: self.strides,
            indirects: self
                .indirects
                .into_iter()
                .map(|i| Indirect { index: f(i.index), offset: i.offset, strides: i.strides, stride: i.stride })
                .collect(),
        }
    }
}
