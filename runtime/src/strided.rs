//! A strided view whose sizes and addresses are known: an `Access` resolved for one step.

/// The most indices that one view fetches from memory.
pub const MAX_INDIRECTS: usize = 2;

/// Element `(i0, i1, …)` lies at `base[Σ strides[d]·i_d + Σ_n indirects[n].stride · indirects[n].fetch(i)]`.
///
/// Strides are in elements. The offsets of the `Access` are already part of `base`.
#[derive(Clone, Copy, Debug)]
pub struct View<const AXES: usize> {
    /// Address of element (0, 0, …) before any fetched index.
    pub base: *mut f32,
    /// Elements from one index to the next, per axis; 0 for a broadcast axis.
    pub strides: [usize; AXES],
    /// Indices fetched from memory; `None` past the last.
    pub indirects: [Option<Fetch<AXES>>; MAX_INDIRECTS],
}

/// One index fetched from an `i32` buffer: `index[Σ strides[d]·i_d]`, worth `stride` elements a step.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<const AXES: usize> {
    /// Address of the first index; the offset of the `Indirect` is already part of it.
    pub index: *const i32,
    /// Strides in the index buffer, per axis.
    pub strides: [usize; AXES],
    /// What one step of the fetched index is worth, in elements of the viewed buffer.
    pub stride: usize,
}

impl<const AXES: usize> View<AXES> {
    /// A view with no fetched indices.
    pub const fn new(base: *mut f32, strides: [usize; AXES]) -> View<AXES> {
        View { base, strides, indirects: [None; MAX_INDIRECTS] }
    }

    /// The address of one element.
    ///
    /// # Safety
    /// Every index buffer must hold the fetched index, and it must be non-negative; the element must lie inside the
    /// viewed buffer.
    #[inline]
    pub unsafe fn at(&self, i: [usize; AXES]) -> *mut f32 {
        // SAFETY: the caller vouches for the index buffer and the element.
        unsafe { self.base.add(self.offset(i)) }
    }

    /// Elements from the base to one element.
    ///
    /// # Safety
    /// Every index buffer must hold the fetched index, and it must be non-negative.
    #[inline]
    pub unsafe fn offset(&self, i: [usize; AXES]) -> usize {
        let mut offset = 0;
        for (stride, i) in self.strides.iter().zip(i) {
            offset += stride * i;
        }
        for fetch in self.indirects.iter().flatten() {
            let mut n = 0;
            for (stride, i) in fetch.strides.iter().zip(i) {
                n += stride * i;
            }
            // SAFETY: the caller vouches for the index buffer.
            offset += fetch.stride * unsafe { *fetch.index.add(n) } as usize;
        }
        offset
    }

    /// Whether the address along `axis` is a plain stride: no fetched index depends on it.
    pub fn is_plain(&self, axis: usize) -> bool {
        self.indirects.iter().flatten().all(|f| f.strides[axis] == 0)
    }
}
