//! Results in blocks: their elements are finished as f32 first, a stretch of a row at a time, of which the runtime's routine
//! makes the blocks.

use super::affine::{Affine, Var};
use super::build::{Build, Operand};
use super::expand::{Node, resolve};
use crate::error::Result;
use crate::loops::{Index, Line, Place};
use llamac_formats::{DType, Extent};
use llamac_ir::Value;

/// Where the f32 of a row lie, one after the other, that become blocks.
#[derive(Clone, Debug)]
pub enum Finished {
    /// In scratch from this byte on: the row's sweep leaves them there. In L1 they are written and read again at once.
    Scratch(usize),
    /// In a param's memory from this element on: they are what the result was cast from.
    Param(usize, Affine),
}

impl Finished {
    /// The f32 from the row's element `at` on.
    ///
    /// # Errors
    /// If the index is too deep to emit.
    pub fn line(&self, b: &mut Build<'_>, at: usize) -> Result<Line> {
        Ok(match self {
            Finished::Scratch(from) => Line::Memory(Place::Scratch(from + 4 * at), Index::default()),
            Finished::Param(param, first) => {
                let index = b.index(&first.offset(at as i64))?;
                Line::Memory(b.buffer(Operand::Param(*param), DType::F32, false), index)
            }
        })
    }
}

/// The param and the first element of it that hold all elements `value[index]` as f32, one after the other: `steps` are the
/// variables of the stretch and how far apart in it the elements of each are. None if they are computed, converted or lie apart.
///
/// # Errors
/// If the element cannot be read in a kernel.
pub fn in_memory(
    b: &mut Build<'_>,
    value: Value,
    index: Vec<Affine>,
    steps: &[(Var, Extent)],
) -> Result<Option<Finished>> {
    let key = resolve(b.closed, &b.ranges, &(value, index));
    let Node::Load { param, offset, dtype: DType::F32 } = b.expand(&key)? else { return Ok(None) };
    let mut first = offset;
    for &(var, step) in steps {
        first = match first.split_var(var) {
            Some((apart, rest)) if apart == step => rest,
            _ => return Ok(None),
        };
    }
    Ok(b.is_row_level(std::slice::from_ref(&first)).then_some(Finished::Param(param, first)))
}
