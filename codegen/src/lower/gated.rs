//! The gate of a feed-forward block, `silu(g) · u`, of two segments of a tile: what wide vectors are worth a routine for.
//!
//! Compiled loops have vectors of four lanes, in which an exponential and a division cost more than the rest of an epilogue.

use super::affine::{Affine, Var};
use super::build::Build;
use super::expand::{ElementOp, Key, Node, resolve};
use crate::error::Result;
use llamac_ir::{BinaryOp, Scalar, UnaryOp};

/// The factors of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gated {
    /// The segment of g.
    pub gate: usize,
    /// The segment of u.
    pub up: usize,
}

/// The gate that all elements `key` are, for a row of the tile and a column `col` of its segments, if they are one.
///
/// # Errors
/// If the elements cannot be read in a kernel.
pub fn gated(b: &mut Build<'_>, key: &Key, row: Var, col: Var) -> Result<Option<Gated>> {
    let Node::Apply(ElementOp::Binary(BinaryOp::Mul), factors) = node(b, key)? else { return Ok(None) };
    for (silu, up) in [(&factors[0], &factors[1]), (&factors[1], &factors[0])] {
        if let (Some(gate), Node::Tile { row: r, col: c }) = (silu_of(b, silu)?, node(b, up)?)
            && let (Some(gate), Some(up)) = (column_of(b, &gate, row, col), column_of(b, &(r, c), row, col))
        {
            return Ok(Some(Gated { gate, up }));
        }
    }
    Ok(None)
}

fn node(b: &mut Build<'_>, key: &Key) -> Result<Node> {
    let key = resolve(b.closed, &b.ranges, key);
    b.expand(&key)
}

/// The x of x / (1 + e⁻ˣ), an element of the tile.
fn silu_of(b: &mut Build<'_>, key: &Key) -> Result<Option<(Affine, Affine)>> {
    let Node::Apply(ElementOp::Binary(BinaryOp::Div), of) = node(b, key)? else { return Ok(None) };
    let (x, below) = (resolve(b.closed, &b.ranges, &of[0]), node(b, &of[1])?);
    let (Node::Tile { row, col }, Node::Apply(ElementOp::Binary(BinaryOp::Add), terms)) = (b.expand(&x)?, below) else {
        return Ok(None);
    };
    for (one, exp) in [(&terms[0], &terms[1]), (&terms[1], &terms[0])] {
        if matches!(node(b, one)?, Node::Splat(Scalar::Float(1.0)))
            && let Node::Apply(ElementOp::Unary(UnaryOp::Exp), power) = node(b, exp)?
            && let Node::Apply(ElementOp::Unary(UnaryOp::Neg), negated) = node(b, &power[0])?
            && resolve(b.closed, &b.ranges, &negated[0]) == x
        {
            return Ok(Some((row, col)));
        }
    }
    Ok(None)
}

/// The segment of which an element of the tile is the one at this row and column.
fn column_of(b: &Build<'_>, (r, c): &(Affine, Affine), row: Var, col: Var) -> Option<usize> {
    let width = i64::try_from(b.segment_width?).ok()?;
    let segment = c.range(&b.ranges)?.0.div_euclid(width);
    let here = *r == Affine::var(row) && c.offset(-segment * width) == Affine::var(col);
    usize::try_from(segment).ok().filter(|_| here)
}
