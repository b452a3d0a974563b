//! Where the bytes of weights come from, seen from the compiler's side.

use llamac_formats::DType;
use std::ops::Range;
use std::sync::Arc;

/// A tensor of a source: row-major, little-endian.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub dims: &'a [usize],
    /// `dtype.storage_of(dims)` bytes, not necessarily aligned.
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

/// A source that several hold.
impl<S: TensorSource + Send + ?Sized> TensorSource for Arc<S> {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        (**self).tensor(name)
    }

    fn release_part(&self, name: &str, bytes: Range<usize>) {
        (**self).release_part(name, bytes);
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}
