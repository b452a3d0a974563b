//! Element types.

use crate::block::BlockFormat;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// 32-bit two's complement: tokens, positions, slots.
    I32,
    /// A truth value, one byte in memory, 0 or 1.
    Bool,
    /// Activations in blocks of 32 along the last axis ([`crate::q8`]).
    Q8,
    /// Weights in blocks along the last axis.
    Block(BlockFormat),
}

impl DType {
    /// The types whose elements stand alone.
    const SCALARS: [DType; 5] = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::Bool];

    /// The smallest piece of a row that can be stored: its elements and its bytes. One element, but for block types.
    pub const fn block(self) -> (usize, usize) {
        match self {
            DType::F32 | DType::I32 => (1, 4),
            DType::F16 | DType::BF16 => (1, 2),
            DType::Bool => (1, 1),
            DType::Q8 => (crate::q8::ELEMENTS, crate::q8::BYTES),
            DType::Block(format) => (format.elements(), format.bytes()),
        }
    }

    /// Bytes of one element.
    ///
    /// # Panics
    /// For block types, whose elements have no bytes of their own: see [`DType::storage`].
    pub const fn bytes(self) -> usize {
        match self.block() {
            (1, bytes) => bytes,
            _ => panic!("an element of a block type has no bytes of its own"),
        }
    }

    /// Bytes of so many consecutive elements, in whole blocks; `None` where they cannot be counted.
    pub const fn storage(self, elements: usize) -> Option<usize> {
        let (of, bytes) = self.block();
        elements.div_ceil(of).checked_mul(bytes)
    }

    /// Bytes of a tensor of these axes, row after row in whole blocks; `None` where they cannot be counted.
    pub fn storage_of(self, dims: &[usize]) -> Option<usize> {
        let (last, outer) = dims.split_last().unwrap_or((&1, &[]));
        outer.iter().try_fold(self.storage(*last)?, |bytes, &dim| bytes.checked_mul(dim))
    }

    /// Whether elements stand in blocks, so that none can be addressed alone.
    pub const fn is_block(self) -> bool {
        matches!(self, DType::Q8 | DType::Block(_))
    }

    /// Whether each element is a real number of its own.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Whether a weight may have this type: real numbers, alone or in blocks.
    pub const fn is_weight(self) -> bool {
        self.is_float() || matches!(self, DType::Block(_))
    }

    /// Whether a dot may have this type on its left: `f32`, `bf16`, `q8`.
    pub const fn is_activation(self) -> bool {
        matches!(self, DType::F32 | DType::BF16 | DType::Q8)
    }

    /// The name in the text form: `f32`, `f16`, `bf16`, `i32`, `bool`, `q8`, and those of [`BlockFormat`].
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::Bool => "bool",
            DType::Q8 => "q8",
            DType::Block(format) => format.name(),
        }
    }

    /// The inverse of [`DType::name`].
    pub fn from_name(name: &str) -> Option<DType> {
        let scalars = DType::SCALARS.into_iter().chain([DType::Q8]);
        let mut all = scalars.chain(BlockFormat::ALL.into_iter().map(DType::Block));
        all.find(|d| d.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for DType {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for DType {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<DType, D::Error> {
        let name = <std::borrow::Cow<'_, str>>::deserialize(from)?;
        DType::from_name(&name).ok_or_else(|| serde::de::Error::custom(format!("{name:?} is no element type")))
    }
}
