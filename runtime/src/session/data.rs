//! Elements that go into a step and come out of it.

use llamac_formats::DType;

/// Elements of an input or output, row-major.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Data<'a> {
    /// binary32.
    F32(&'a [f32]),
    /// 32-bit integers.
    I32(&'a [i32]),
    /// The bits of binary16.
    F16(&'a [u16]),
    /// The bits of bfloat16.
    BF16(&'a [u16]),
    /// Truth values, 0 or 1.
    Bool(&'a [u8]),
    /// Whole blocks of a block type.
    Blocks(DType, &'a [u8]),
}

impl<'a> Data<'a> {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::I32(_) => DType::I32,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::Bool(_) => DType::Bool,
            Data::Blocks(dtype, _) => *dtype,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(d) => d.len(),
            Data::I32(d) => d.len(),
            Data::F16(d) | Data::BF16(d) => d.len(),
            Data::Bool(d) => d.len(),
            Data::Blocks(dtype, d) => {
                let (elements, bytes) = dtype.block();
                d.len() / bytes * elements
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, if they are f32.
    pub fn f32(&self) -> Option<&'a [f32]> {
        match self {
            Data::F32(d) => Some(d),
            _ => None,
        }
    }

    /// The elements, if they are i32.
    pub fn i32(&self) -> Option<&'a [i32]> {
        match self {
            Data::I32(d) => Some(d),
            _ => None,
        }
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Data::F32(d) => bytemuck::cast_slice(d),
            Data::I32(d) => bytemuck::cast_slice(d),
            Data::F16(d) | Data::BF16(d) => bytemuck::cast_slice(d),
            Data::Bool(d) | Data::Blocks(_, d) => d,
        }
    }

    /// Bytes as elements of a type. `bytes` must be aligned and whole elements; memory of a session is.
    pub(super) fn cast(dtype: DType, bytes: &'a [u8]) -> Data<'a> {
        match dtype {
            DType::F32 => Data::F32(bytemuck::cast_slice(bytes)),
            DType::I32 => Data::I32(bytemuck::cast_slice(bytes)),
            DType::F16 => Data::F16(bytemuck::cast_slice(bytes)),
            DType::BF16 => Data::BF16(bytemuck::cast_slice(bytes)),
            DType::Bool => Data::Bool(bytes),
            DType::Q8 | DType::Block(_) => Data::Blocks(dtype, bytes),
        }
    }
}
