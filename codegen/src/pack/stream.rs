//! The same pass for a weight section that is never in memory as a whole.

use super::pass::{BATCH_BYTES, PackReport, UNIT_BYTES, report, resolve, run};
use super::release::Released;
use super::weight::Unit;
use super::{PackError, WeightPlan};
use llamac_ir::TensorSource;
use std::collections::BTreeMap;
use std::sync::Mutex;
use thiserror::Error;

/// The section could not be made or not be taken.
#[derive(Debug, Error)]
pub enum StreamError {
    /// Weights that are not those of the plan.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Whoever took the bytes failed.
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

/// Part of a weight, from byte `begin` of the batch on; without one, padding.
struct Piece {
    weight: Option<usize>,
    first: usize,
    bytes: usize,
}

/// Makes the weight section piece by piece, in order, and gives each piece to `sink`. The bytes are those that
/// [`super::pack`] makes; at most two batches of about 32 MB are in memory.
///
/// # Errors
/// As [`super::pack`], and what `sink` returns.
pub fn pack_to(
    plan: &WeightPlan,
    source: &dyn TensorSource,
    threads: usize,
    sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PackReport, StreamError> {
    let total = plan.total_bytes();
    let weights = resolve(plan, source)?;
    let found = Mutex::new(BTreeMap::new());
    let mut released = Released::new(source, &weights);
    let mut buffer = vec![];
    let (mut pieces, mut filled, mut done) = (Vec::<Piece>::new(), 0, 0);
    let mut flush = |pieces: &mut Vec<Piece>, filled: &mut usize| {
        // Grows in the first batches only; what is reused is written over, padding included.
        buffer.resize((*filled).max(buffer.len()), 0);
        let mut rest = &mut buffer[..*filled];
        let mut units = vec![];
        for piece in pieces.drain(..) {
            let (out, behind) = rest.split_at_mut(piece.bytes);
            rest = behind;
            match piece.weight {
                Some(weight) => units.push(Unit { weight, first: piece.first, out }),
                None => out.fill(0),
            }
        }
        run(units, &weights, threads, &found);
        done += *filled;
        let written = sink(&buffer[..*filled]);
        *filled = 0;
        progress(done, total);
        written
    };
    let mut end = 0;
    for (index, weight) in weights.iter().enumerate() {
        let gap = weight.offset() - end;
        if gap > 0 {
            pieces.push(Piece { weight: None, first: 0, bytes: gap });
            filled += gap;
        }
        end = weight.offset() + weight.bytes();
        let (mut first, mut left) = (0, weight.bytes());
        while left > 0 {
            let steps = (UNIT_BYTES / weight.step_bytes()).max(1);
            let bytes = (steps * weight.step_bytes()).min(left);
            pieces.push(Piece { weight: Some(index), first, bytes });
            (first, left, filled) = (first + steps, left - bytes, filled + bytes);
            if filled >= BATCH_BYTES {
                flush(&mut pieces, &mut filled)?;
                released.up_to(index, first);
            }
        }
    }
    flush(&mut pieces, &mut filled)?;
    released.up_to(weights.len(), 0);
    Ok(report(&weights, total, found))
}
