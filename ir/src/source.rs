//! Where the bytes of weights come from, seen from the compiler's side.

use llamac_formats::DType;

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
        let _ = name;
    }

    /// What to call the source in errors: a path, usually.
    fn describe(&self) -> String;
}
