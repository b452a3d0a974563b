//! Types of values: `dtype[dim, …]` and the layout in memory.

use llamac_formats::{Bounds, DType, Extent, Sizes, Sym};
use std::fmt;

/// One axis: a constant or one of the dynamic dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// Known when the graph is made.
    Const(usize),
    /// Known when a step runs.
    Sym(Sym),
}

impl Dim {
    /// `S`, rows of the step.
    pub const ROWS: Dim = Dim::Sym(Sym::Rows);
    /// `R`, rows whose outputs are wanted.
    pub const OUTPUTS: Dim = Dim::Sym(Sym::Outputs);
    /// `T`, tokens present.
    pub const TOKENS: Dim = Dim::Sym(Sym::Tokens);

    /// The constant, if it is one.
    pub const fn as_const(self) -> Option<usize> {
        match self {
            Dim::Const(n) => Some(n),
            Dim::Sym(_) => None,
        }
    }

    /// The dimension as an extent.
    pub const fn extent(self) -> Extent {
        match self {
            Dim::Const(n) => Extent::constant(n as u64),
            Dim::Sym(s) => Extent::sym(s),
        }
    }

    /// Its value for actual sizes.
    pub const fn value(self, sizes: &Sizes) -> usize {
        match self {
            Dim::Const(n) => n,
            Dim::Sym(s) => sizes.get(s),
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Const(n)
    }
}

impl From<Sym> for Dim {
    fn from(s: Sym) -> Dim {
        Dim::Sym(s)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Const(n) => write!(f, "{n}"),
            Dim::Sym(s) => write!(f, "{s}"),
        }
    }
}

/// How a value lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// Row-major, dense at the actual sizes.
    #[default]
    Rows,
    /// Panels of sixteen outputs ([`llamac_formats::panel`]); only weights of rank 2.
    Panels,
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Axes, outermost first; empty for a scalar.
    pub dims: Vec<Dim>,
    /// Layout in memory, decided by the `layout` pass.
    pub layout: Layout,
}

impl Type {
    /// A row-major type.
    pub fn new(dtype: DType, dims: impl IntoIterator<Item = Dim>) -> Type {
        Type { dtype, dims: dims.into_iter().collect(), layout: Layout::Rows }
    }

    /// A scalar.
    pub fn scalar(dtype: DType) -> Type {
        Type::new(dtype, [])
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The same dtype with other axes, row-major.
    pub fn with_dims(&self, dims: impl IntoIterator<Item = Dim>) -> Type {
        Type::new(self.dtype, dims)
    }

    /// The same axes with another dtype, row-major.
    pub fn with_dtype(&self, dtype: DType) -> Type {
        Type::new(dtype, self.dims.iter().copied())
    }

    /// Number of elements.
    pub fn elements(&self) -> Extent {
        self.dims.iter().fold(Extent::ONE, |e, d| e.times(d.extent()))
    }

    /// Number of elements at the bounds (saturating).
    pub fn max_elements(&self, bounds: &Bounds) -> usize {
        self.elements().value(&bounds.sizes())
    }

    /// Bytes at the bounds (saturating).
    pub fn max_bytes(&self, bounds: &Bounds) -> usize {
        self.dtype.storage(self.max_elements(bounds)).unwrap_or(usize::MAX)
    }

    /// Bytes, dense: whole blocks, of which a last axis that holds blocks is a multiple.
    pub fn bytes(&self) -> Extent {
        let (of, bytes) = self.dtype.block();
        let elements = self.elements();
        Extent { factor: elements.factor.div_ceil(of as u64).saturating_mul(bytes as u64), ..elements }
    }

    /// Row-major strides in elements, at the actual sizes.
    pub fn strides(&self) -> Vec<Extent> {
        let mut strides = vec![Extent::ONE; self.dims.len()];
        for axis in (0..self.dims.len().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1].times(self.dims[axis + 1].extent());
        }
        strides
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.dims.iter().enumerate() {
            write!(f, "{}{d}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")?;
        match self.layout {
            Layout::Rows => Ok(()),
            Layout::Panels => f.write_str(" panels"),
        }
    }
}
