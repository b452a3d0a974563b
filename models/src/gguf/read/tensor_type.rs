//! The types of tensors, as GGUF numbers them.

use llamac_formats::{BlockFormat, DType};

/// Every type that is read.
const TYPES: [(u32, DType); 11] = [
    (0, DType::F32),
    (1, DType::F16),
    (30, DType::BF16),
    (8, DType::Block(BlockFormat::Q8_0)),
    (2, DType::Block(BlockFormat::Q4_0)),
    (3, DType::Block(BlockFormat::Q4_1)),
    (6, DType::Block(BlockFormat::Q5_0)),
    (7, DType::Block(BlockFormat::Q5_1)),
    (12, DType::Block(BlockFormat::Q4K)),
    (13, DType::Block(BlockFormat::Q5K)),
    (14, DType::Block(BlockFormat::Q6K)),
];

/// Types that are known and not read.
const OTHERS: [(u32, &str); 21] = [
    (9, "q8_1"),
    (10, "q2_k"),
    (11, "q3_k"),
    (15, "q8_k"),
    (16, "iq2_xxs"),
    (17, "iq2_xs"),
    (18, "iq3_xxs"),
    (19, "iq1_s"),
    (20, "iq4_nl"),
    (21, "iq3_s"),
    (22, "iq2_s"),
    (23, "iq4_xs"),
    (24, "i8"),
    (25, "i16"),
    (26, "i32"),
    (27, "i64"),
    (28, "f64"),
    (29, "iq1_m"),
    (34, "tq1_0"),
    (35, "tq2_0"),
    (39, "mxfp4"),
];

/// The element type of a number.
pub(super) fn dtype(code: u32) -> Option<DType> {
    TYPES.into_iter().find(|t| t.0 == code).map(|t| t.1)
}

/// The number of an element type, if a tensor may have it.
pub(in crate::gguf) fn code(dtype: DType) -> Option<u32> {
    TYPES.into_iter().find(|t| t.1 == dtype).map(|t| t.0)
}

/// What to call the type of a number that is not read.
pub(super) fn other(code: u32) -> String {
    match OTHERS.into_iter().find(|t| t.0 == code) {
        Some((_, name)) => format!("is {name}"),
        None => format!("has the unknown type {code}"),
    }
}

/// The names of all that are read.
pub(super) fn supported() -> String {
    TYPES.map(|(_, dtype)| dtype.name()).join(", ")
}
