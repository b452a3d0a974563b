//! Where the bytes of weights come from, seen from the compiler's side.

use llamac_formats::DType;
use std::ops::Range;

/// A tensor of a source: row-major, little-endian.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub dims: &'a [usize],
    /// `dims.product() × dtype.bytes()` bytes, not necessarily aligned.
    pub bytes: &'a [u8],
}

/// A set of named tensors: a mapped checkpoint, a generator of seeded values, a test's own tensors.
pub trait TensorSource: Sync {
    /// The tensor of that name, if there is one.
    fn tensor(&self, name: &str) -> Option<TensorView<'_>>;

    /// Says that the tensor's bytes are not needed for now, so that mapped pages can go. They stay readable.
    fn release(&self, name: &str) {
        self.release_part(name, 0..usize::MAX);
    }

    /// The same for a range of the tensor's bytes, cut at its end: who streams through a large tensor lets go what is
    /// behind.
    fn release_part(&self, name: &str, bytes: Range<usize>) {
        let _ = (name, bytes);
    }

    /// What to call the source in errors: a path, usually.
    fn describe(&self) -> String;
}
