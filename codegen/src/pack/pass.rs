//! The pass that fills the weight section.
//!
//! The section is cut into units, whole panels or rows of one weight; a batch of units is shared out among threads, then
//! the tensors' bytes behind it are released. A unit's bytes depend on nothing but the plan and the source, so the
//! section is the same for any number of threads.

use super::PackError;
use super::convert::Loss;
use super::finite::{Found, NotFinite};
use super::panels::Staging;
use super::plan::WeightPlan;
use super::release::Released;
use super::weight::{FoundMap, Seen, Unit, Weight};
use llamac_formats::DType;
use llamac_ir::TensorSource;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Bytes of the section that a thread takes at once.
pub(super) const UNIT_BYTES: usize = 512 << 10;
/// Bytes of the section after which threads meet, progress is told and sources are released.
pub(super) const BATCH_BYTES: usize = 32 << 20;

/// What packing did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackReport {
    /// Bytes of the weight section.
    pub bytes: usize,
    /// Bytes read of the source's tensors; a tensor that several weights use counts for each.
    pub source_bytes: usize,
    /// Tensors with values that are no numbers, each once, in the order of the weights.
    pub not_finite: Vec<NotFinite>,
    /// Tensors rounded to blocks, in the order of the weights; one that several weights hold counts for each.
    pub rounded: Vec<Rounded>,
}

/// What blocks make of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// The tensor's name in the source.
    pub tensor: String,
    /// What it was.
    pub from: DType,
    /// The block format.
    pub to: DType,
    /// The root of the summed squares of the errors, over that of the values; 0 where all values are 0.
    pub error: f64,
}

/// Fills the weight section `out` with the plan's weights, made from the source's tensors by at most `threads` threads.
///
/// All tensors are checked before anything is written. They are read in the order of the weights and released behind the
/// reader, so that of a mapped source a few dozen megabytes are present at a time. `progress(done, total)` is told bytes of
/// the section. Values that are no numbers are packed as they are, and reported.
///
/// # Errors
/// If a tensor is missing or is not what the weight's recipe and type need, or `out` has another length than
/// [`WeightPlan::total_bytes`].
pub fn pack(
    plan: &WeightPlan,
    source: &dyn TensorSource,
    out: &mut [u8],
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PackReport, PackError> {
    let total = plan.total_bytes();
    if out.len() != total {
        return Err(PackError::Section { found: out.len(), expected: total });
    }
    let weights = resolve(plan, source)?;

    let found = Mutex::new(BTreeMap::new());
    let mut released = Released::new(source, &weights);
    let (mut batch, mut batch_bytes) = (vec![], 0);
    let (mut rest, mut end) = (out, 0);
    for (index, weight) in weights.iter().enumerate() {
        let (gap, section) = rest.split_at_mut(weight.offset() - end);
        gap.fill(0);
        let (mut section, behind) = section.split_at_mut(weight.bytes());
        (rest, end) = (behind, weight.offset() + weight.bytes());
        let mut first = 0;
        while !section.is_empty() {
            let steps = (UNIT_BYTES / weight.step_bytes()).max(1);
            let (out, behind) = section.split_at_mut((steps * weight.step_bytes()).min(section.len()));
            section = behind;
            batch_bytes += out.len();
            batch.push(Unit { weight: index, first, out });
            first += steps;
            if batch_bytes >= BATCH_BYTES {
                run(std::mem::take(&mut batch), &weights, threads, &found);
                released.up_to(index, first);
                progress(end - section.len(), total);
                batch_bytes = 0;
            }
        }
    }
    run(batch, &weights, threads, &found);
    released.up_to(weights.len(), 0);
    progress(total, total);

    Ok(report(&weights, total, found))
}

/// Finds and checks the tensors of all weights.
pub(super) fn resolve<'a>(plan: &'a WeightPlan, source: &'a dyn TensorSource) -> Result<Vec<Weight<'a>>, PackError> {
    let mut scanned = HashSet::new();
    plan.entries().iter().map(|entry| Weight::new(entry, source, &mut scanned)).collect()
}

/// What was done and found.
pub(super) fn report(weights: &[Weight<'_>], bytes: usize, found: FoundMap) -> PackReport {
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut not_finite = vec![];
    let mut rounded = vec![];
    for ((weight, leaf), Seen { found, loss }) in found {
        let (to, leaf) = (weights[weight].dtype(), &weights[weight].leaves()[leaf]);
        let tensor = || leaf.name.to_owned();
        if let Some(Found { nan, infinite, first }) = found {
            not_finite.push(NotFinite { tensor: tensor(), nan, infinite, first });
        }
        if let Some(Loss { error, square }) = loss {
            let error = if square > 0.0 { (error / square).sqrt() } else { 0.0 };
            rounded.push(Rounded { tensor: tensor(), from: leaf.dtype, to, error });
        }
    }
    PackReport {
        bytes,
        source_bytes: weights.iter().flat_map(Weight::leaves).map(|leaf| leaf.bytes.len()).sum(),
        not_finite,
        rounded,
    }
}

/// Packs all units.
pub(super) fn run(units: Vec<Unit<'_>>, weights: &[Weight<'_>], threads: usize, found: &FoundMap) {
    let helpers = threads.min(units.len()).saturating_sub(1);
    let queue = Mutex::new(units.into_iter());
    let work = || {
        let mut staging = Staging::new();
        loop {
            let unit = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(unit) = unit else { return };
            weights[unit.weight].pack(unit, &mut staging, found);
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            // Where no more threads can be had, those that are there do the work.
            if thread::Builder::new().name("pack".to_owned()).spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}
