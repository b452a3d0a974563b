//! One weight while it is packed: units of it are filled by any thread.

use super::PackError;
use super::convert::{Loss, convert};
use super::finite::{Found, not_finite};
use super::panels::Staging;
use super::plan::{Contents, Entry};
use super::resolve::{Leaf, Place, Rows, Sources, resolve};
use llamac_formats::{DType, PANEL_WIDTH, PanelLayout, RopeTable};
use llamac_ir::{RopePart, TensorSource};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Elements of a row-major run that are copied at a time, so that they are looked at while they are in the cache: whole
/// blocks of every format.
const COPY_ELEMENTS: usize = 4096;
/// Positions of a RoPE table that are computed at a time.
const ROPE_ROWS: usize = 64;

/// What was seen of a leaf on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// What is not finite.
    pub(super) found: Option<Found>,
    /// What blocks lose of it.
    pub(super) loss: Option<Loss>,
}

/// What was seen, by weight and leaf.
pub(super) type FoundMap = Mutex<BTreeMap<(usize, usize), Seen>>;

/// Some steps of a weight, from step `first` on, and their place in the section.
pub(super) struct Unit<'o> {
    pub(super) weight: usize,
    pub(super) first: usize,
    pub(super) out: &'o mut [u8],
}

/// A weight with its sources. Its steps, which units never cut, are panels or rows.
pub(super) struct Weight<'a> {
    entry: &'a Entry,
    step_bytes: usize,
    from: From<'a>,
}

enum From<'a> {
    Tensors(Sources<'a>),
    Rope(&'a RopeTable, RopePart),
}

impl<'a> Weight<'a> {
    /// Finds the weight's tensors and checks them; `scanned` holds the tensors that weights before it look through.
    pub(super) fn new(
        entry: &'a Entry,
        source: &'a dyn TensorSource,
        scanned: &mut HashSet<&'a str>,
    ) -> Result<Weight<'a>, PackError> {
        let from = match &entry.contents {
            Contents::Weight(recipe) => From::Tensors(resolve(recipe, entry, source, scanned)?),
            Contents::Rope(table, part) => From::Rope(table, *part),
        };
        Ok(Weight { entry, step_bytes: entry.bytes.checked_div(entry.steps()).unwrap_or(0), from })
    }

    /// Where it begins in the section.
    pub(super) fn offset(&self) -> usize {
        self.entry.offset
    }

    /// Its element type.
    pub(super) fn dtype(&self) -> DType {
        self.entry.dtype
    }

    /// Bytes in the section.
    pub(super) fn bytes(&self) -> usize {
        self.entry.bytes
    }

    /// Bytes of a step; positive where there are any bytes.
    pub(super) fn step_bytes(&self) -> usize {
        self.step_bytes
    }

    /// The tensors it is made of.
    pub(super) fn leaves(&self) -> &[Leaf<'a>] {
        match &self.from {
            From::Tensors(sources) => &sources.leaves,
            From::Rope(..) => &[],
        }
    }

    /// For each leaf, how many of its first rows nobody needs once the first `steps` steps are packed.
    pub(super) fn passed(&self, steps: usize) -> Vec<usize> {
        let mut passed = vec![0; self.leaves().len()];
        if let From::Tensors(Sources { parts, rows, .. }) = &self.from {
            for (i, part) in parts.iter().enumerate() {
                // A part's steps are every `parts`-th, from step i on.
                let own = (steps + parts.len() - 1 - i) / parts.len();
                let done = if self.entry.panels { own * PANEL_WIDTH } else { own };
                part.passed(done.min(*rows), &mut passed);
            }
        }
        passed
    }

    /// Fills a unit of this weight.
    pub(super) fn pack(&self, unit: Unit<'_>, staging: &mut Staging, found: &FoundMap) {
        match &self.from {
            From::Rope(table, part) => fill_rope(table, *part, unit.first, unit.out),
            From::Tensors(sources) if self.entry.panels => self.panels(sources, unit, staging, found),
            From::Tensors(sources) => self.rows(&sources.leaves, &sources.parts[0], unit, found),
        }
    }

    /// Whole rows, run after run.
    fn rows(&self, leaves: &[Leaf<'_>], rows: &Rows, unit: Unit<'_>, found: &FoundMap) {
        let (mut row, mut out) = (unit.first, unit.out);
        while !out.is_empty() {
            let place = rows.locate(row);
            let run = place.run.min(out.len() / self.step_bytes);
            let (section, behind) = out.split_at_mut(run * self.step_bytes);
            let elements = Elements { leaf: &leaves[place.leaf], key: (unit.weight, place.leaf), found };
            elements.copy(place.row, run, self.entry.dtype, section);
            row += run;
            out = behind;
        }
    }

    /// Whole panels.
    fn panels(&self, sources: &Sources<'_>, unit: Unit<'_>, staging: &mut Staging, found: &FoundMap) {
        let (dtype, k) = (self.entry.dtype, self.entry.dims[1]);
        let layout = PanelLayout { dtype, k };
        let parts = sources.parts.len();
        for (panel, out) in (unit.first..).zip(unit.out.chunks_exact_mut(self.step_bytes)) {
            let rows = &sources.parts[panel % parts];
            let first = panel / parts * PANEL_WIDTH;
            let lanes = PANEL_WIDTH.min(sources.rows - first);
            let places: [Option<Place>; PANEL_WIDTH] =
                std::array::from_fn(|lane| (lane < lanes).then(|| rows.locate(first + lane)));
            let elements = |place: &Place| {
                let leaf = &sources.leaves[place.leaf];
                Elements { leaf, key: (unit.weight, place.leaf), found }
            };
            if dtype.is_block() {
                out.fill(0);
                for (lane, place) in places.iter().enumerate().filter_map(|(lane, p)| Some((lane, p.as_ref()?))) {
                    let row = staging.row(dtype.storage(k).unwrap_or(0));
                    elements(place).block(place.row, 0..k, dtype, row);
                    layout.pack_row(lane, row, out);
                }
                continue;
            }
            staging.fill_panel(dtype, k, out, |lane, inputs, block| {
                let Some(place) = &places[lane] else { return false };
                elements(place).block(place.row, inputs, dtype, block);
                true
            });
        }
    }
}

/// The elements of a leaf, looked through on their way.
struct Elements<'e, 'a> {
    leaf: &'e Leaf<'a>,
    key: (usize, usize),
    found: &'e FoundMap,
}

impl Elements<'_, '_> {
    /// Writes `count` whole rows from `row` on.
    fn copy(&self, row: usize, count: usize, to: DType, out: &mut [u8]) {
        let bytes = |dtype: DType| dtype.storage(COPY_ELEMENTS).unwrap_or(usize::MAX);
        let first = row * self.leaf.row_elements;
        let input = self.leaf.rows(row, count).chunks(bytes(self.leaf.dtype));
        for ((input, out), start) in input.zip(out.chunks_mut(bytes(to))).zip((first..).step_by(COPY_ELEMENTS)) {
            let loss = convert(self.leaf.dtype, input, to, out);
            self.look(input, start, loss);
        }
    }

    /// Writes some inputs of one row.
    fn block(&self, row: usize, inputs: Range<usize>, to: DType, out: &mut [u8]) {
        let (elements, bytes) = self.leaf.dtype.block();
        let at = |input: usize| input / elements * bytes;
        let input = &self.leaf.rows(row, 1)[at(inputs.start)..at(inputs.end)];
        let loss = convert(self.leaf.dtype, input, to, out);
        self.look(input, row * self.leaf.row_elements + inputs.start, loss);
    }

    /// Notes what was lost, and what is not finite among elements that are in the cache now, the first of which is element
    /// `start`.
    fn look(&self, input: &[u8], start: usize, loss: Option<Loss>) {
        let found = match self.leaf.scan {
            true => not_finite(self.leaf.dtype, input).map(|new| new.after(start)),
            false => None,
        };
        if found.is_none() && loss.is_none() {
            return;
        }
        let mut seen = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry(self.key).or_default();
        seen.found = [seen.found, found].into_iter().flatten().reduce(Found::and);
        seen.loss = [seen.loss, loss].into_iter().flatten().reduce(Loss::and);
    }
}

/// Rows of a RoPE table from position `first` on.
fn fill_rope(table: &RopeTable, part: RopePart, first: usize, out: &mut [u8]) {
    let width = table.frequencies();
    let (out, _) = out.as_chunks_mut::<4>();
    for (out, first) in out.chunks_mut(ROPE_ROWS * width).zip((first..).step_by(ROPE_ROWS)) {
        let (mut cos, mut sin) = (vec![0.0; out.len()], vec![0.0; out.len()]);
        table.fill(first, &mut cos, &mut sin);
        let values = match part {
            RopePart::Cos => cos,
            RopePart::Sin => sin,
        };
        for (out, value) in out.iter_mut().zip(values) {
            *out = value.to_le_bytes();
        }
    }
}
