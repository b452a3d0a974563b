//! The list of weights and their places.

use super::PackError;
use llamac_formats::program::{GemmSegment, WeightInfo};
use llamac_formats::{DType, PANEL_WIDTH, PanelLayout, RopeScaling, RopeTable};
use llamac_ir::{Layout, Recipe, RopePart, Type};
use std::collections::HashMap;

/// Alignment of weights of at least [`LARGE`] bytes: a page, so that a panel stream starts with one.
const PAGE: usize = 4096;
/// Alignment of the others: a cache line.
const LINE: usize = 64;
/// Below this a page of alignment would cost more than it is worth.
const LARGE: usize = 64 << 10;

/// The weights of a program, each once, with their places in the weight section.
///
/// The indices that it returns are those of `Program::weights`.
#[derive(Clone, Debug, Default)]
pub struct WeightPlan {
    entries: Vec<Entry>,
    by_weight: HashMap<(Recipe, Type), usize>,
    end: usize,
}

/// One weight and its place.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) contents: Contents,
    pub(super) dtype: DType,
    pub(super) dims: Vec<usize>,
    pub(super) panels: bool,
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// What a weight is made of.
#[derive(Clone, Debug)]
pub(super) enum Contents {
    /// Tensors of the source.
    Weight(Recipe),
    /// A generated table.
    Rope(RopeTable, RopePart),
}

impl WeightPlan {
    /// A plan without weights.
    pub fn new() -> WeightPlan {
        WeightPlan::default()
    }

    /// The index of the weight of that recipe and type, which is added if it is new.
    ///
    /// # Errors
    /// [`PackError::Recipe`] if no tensors could make such a weight, [`PackError::TooLarge`] if it has no room.
    pub fn add_weight(&mut self, recipe: Recipe, ty: Type) -> Result<usize, PackError> {
        let key = (recipe, ty);
        if let Some(&index) = self.by_weight.get(&key) {
            return Ok(index);
        }
        let (recipe, ty) = &key;
        let wrong = |reason| PackError::Recipe { recipe: recipe.to_string(), ty: ty.to_string(), reason };
        let dims = ty.dims.iter().map(|d| d.as_const()).collect::<Option<Vec<usize>>>();
        let dims = dims.ok_or_else(|| wrong("the axes of a weight are constant".into()))?;
        if !ty.dtype.is_weight() {
            return Err(wrong("a weight is f32, f16, bf16 or in a block format".into()));
        }
        let of = ty.dtype.block().0;
        if of > 1 && dims.last().is_none_or(|k| !k.is_multiple_of(of)) {
            return Err(wrong(format!("rows are whole blocks of {of} elements")));
        }
        check(recipe, &dims, ty.layout, true).map_err(wrong)?;
        let index = self.place(Entry {
            contents: Contents::Weight(recipe.clone()),
            dtype: ty.dtype,
            dims,
            panels: ty.layout == Layout::Panels,
            offset: 0,
            bytes: 0,
        })?;
        self.by_weight.insert(key, index);
        Ok(index)
    }

    /// The index of the table `f32[tokens, head_dim / 2]` of cosines or sines, which is added if it is new.
    ///
    /// # Errors
    /// [`PackError::TooLarge`] if it has no room.
    pub fn add_rope(&mut self, table: RopeTable, part: RopePart, tokens: usize) -> Result<usize, PackError> {
        let dims = vec![tokens, table.frequencies()];
        let same = |e: &Entry| match &e.contents {
            Contents::Rope(t, p) => *t == table && *p == part && e.dims == dims,
            Contents::Weight(_) => false,
        };
        match self.entries.iter().position(same) {
            Some(index) => Ok(index),
            None => self.place(Entry {
                contents: Contents::Rope(table, part),
                dtype: DType::F32,
                dims,
                panels: false,
                offset: 0,
                bytes: 0,
            }),
        }
    }

    /// The segments of a GEMM over that whole weight, in the order of its logical rows; together they have all its rows.
    /// One, but for `interleave_panels`: one for each part, `parts` panels from one of its panels to the next.
    ///
    /// # Panics
    /// If there is no such weight or it does not lie in panels.
    pub fn segments(&self, weight: usize) -> Vec<GemmSegment> {
        let entry = &self.entries[weight];
        assert!(entry.panels, "weight {weight} does not lie in panels");
        let parts = entry.parts();
        (0..parts).map(|first| GemmSegment { weight, first, step: parts, n: entry.dims[0] / parts }).collect()
    }

    /// All weights, by index. Offsets ascend; they are multiples of 64, and of 4096 for weights of 64 KiB and more.
    pub fn infos(&self) -> Vec<WeightInfo> {
        let info = |e: &Entry| WeightInfo {
            recipe: e.contents.to_text(),
            dtype: e.dtype,
            dims: e.dims.clone(),
            panels: e.panels,
            offset: e.offset,
            bytes: e.bytes,
        };
        self.entries.iter().map(info).collect()
    }

    /// Bytes of the weight section.
    pub fn total_bytes(&self) -> usize {
        self.end
    }

    /// How many weights there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Gives the entry the next place.
    fn place(&mut self, mut entry: Entry) -> Result<usize, PackError> {
        let too_large =
            || PackError::TooLarge { recipe: entry.contents.to_text(), ty: format!("{}{:?}", entry.dtype, entry.dims) };
        let bytes = entry.size().ok_or_else(too_large)?;
        let align = if bytes >= LARGE { PAGE } else { LINE };
        let offset = self.end.checked_next_multiple_of(align).ok_or_else(too_large)?;
        // No slice is longer than isize::MAX bytes.
        let end = offset.checked_add(bytes).filter(|&end| isize::try_from(end).is_ok()).ok_or_else(too_large)?;
        (entry.offset, entry.bytes, self.end) = (offset, bytes, end);
        self.entries.push(entry);
        Ok(self.entries.len() - 1)
    }
}

impl Entry {
    /// How many panels or rows it is made of.
    pub(super) fn steps(&self) -> usize {
        let rows = self.dims.first().copied().unwrap_or(1);
        if self.panels {
            let parts = self.parts();
            (rows / parts).div_ceil(PANEL_WIDTH) * parts
        } else {
            rows
        }
    }

    /// How many parts' panels alternate.
    pub(super) fn parts(&self) -> usize {
        match &self.contents {
            Contents::Weight(recipe) => interleaved(recipe),
            Contents::Rope(..) => 1,
        }
    }

    /// Bytes in the section, unless they overflow.
    fn size(&self) -> Option<usize> {
        if !self.panels {
            return self.dtype.storage_of(&self.dims);
        }
        let &[n, k] = self.dims.as_slice() else { return None };
        // No format takes more bytes than f32, and no group is padded by more inputs than it has.
        k.checked_next_multiple_of(256)?.checked_mul(PANEL_WIDTH * 4)?;
        let panel = PanelLayout { dtype: self.dtype, k }.panel_bytes();
        let parts = self.parts();
        (n / parts).div_ceil(PANEL_WIDTH).checked_mul(parts)?.checked_mul(panel)
    }
}

impl Contents {
    /// The text of the graph's text form.
    pub(super) fn to_text(&self) -> String {
        let (table, part) = match self {
            Contents::Weight(recipe) => return recipe.to_string(),
            Contents::Rope(table, RopePart::Cos) => (table, "rope_cos"),
            Contents::Rope(table, RopePart::Sin) => (table, "rope_sin"),
        };
        let scaling = match &table.scaling {
            RopeScaling::Default => String::new(),
            RopeScaling::Linear { factor } => format!(" scaling=linear factor={factor}"),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                format!(
                    " scaling=llama3 factor={factor} low={low_freq_factor} high={high_freq_factor} \
                 original={original_max_position_embeddings}"
                )
            }
            RopeScaling::Factors { factors } => {
                let list: Vec<String> = factors.iter().map(f32::to_string).collect();
                format!(" scaling=factors factors=[{}]", list.join(", "))
            }
        };
        format!("{part} theta={} head_dim={}{scaling}", table.theta, table.head_dim)
    }
}

/// How many parts' panels a recipe lets alternate.
fn interleaved(recipe: &Recipe) -> usize {
    match recipe {
        Recipe::Convert(of) => interleaved(of),
        Recipe::InterleavePanels(parts) => parts.len(),
        _ => 1,
    }
}

/// Whether tensors could make such a weight, seen without them. `outer` holds as long as only `convert` has been passed.
fn check(recipe: &Recipe, dims: &[usize], layout: Layout, outer: bool) -> Result<(), String> {
    if layout == Layout::Panels && dims.len() != 2 {
        return Err("only a weight of rank 2 lies in panels".into());
    }
    if dims.is_empty() && !matches!(recipe, Recipe::Tensor(_) | Recipe::Convert(_)) {
        return Err("a scalar has no rows".into());
    }
    match recipe {
        Recipe::Tensor(_) => Ok(()),
        Recipe::Convert(of) => check(of, dims, layout, outer),
        Recipe::PermuteRows { heads: 0, .. } => Err("`permute_rows` needs at least one head".into()),
        Recipe::PermuteRows { of, .. } => check(of, dims, layout, false),
        Recipe::Concat(parts) | Recipe::InterleavePanels(parts) if parts.is_empty() => {
            Err("there is no part to join".into())
        }
        Recipe::Concat(parts) => parts.iter().try_for_each(|p| check(p, dims, layout, false)),
        Recipe::InterleavePanels(_) if !outer => Err("`interleave_panels` can only be outermost".into()),
        Recipe::InterleavePanels(_) if layout != Layout::Panels => {
            Err("`interleave_panels` is for weights in panels, this one is row-major".into())
        }
        Recipe::InterleavePanels(parts) if !dims[0].is_multiple_of(parts.len()) => {
            Err(format!("{} rows are no {} parts of one size", dims[0], parts.len()))
        }
        Recipe::InterleavePanels(parts) => parts.iter().try_for_each(|p| check(p, dims, layout, false)),
    }
}
