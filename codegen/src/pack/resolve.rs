//! From recipes to rows: which row of which tensor each logical row of a weight is.
//!
//! Everything that can be wrong with the source's tensors is found here, before a byte is written.

use super::PackError;
use super::plan::Entry;
use llamac_formats::DType;
use llamac_ir::{Recipe, TensorSource};
use std::collections::HashSet;

/// A tensor of the source as a weight reads it.
pub(super) struct Leaf<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its element type, which may be another than the weight's where it is converted.
    pub(super) dtype: DType,
    /// Its elements, row-major.
    pub(super) bytes: &'a [u8],
    /// Bytes of one row.
    pub(super) row_bytes: usize,
    /// Elements of one row.
    pub(super) row_elements: usize,
    /// Whether this weight is the one that looks for values that are no numbers.
    pub(super) scan: bool,
}

impl<'a> Leaf<'a> {
    /// The bytes of rows `first..first + count`.
    pub(super) fn rows(&self, first: usize, count: usize) -> &'a [u8] {
        &self.bytes[first * self.row_bytes..(first + count) * self.row_bytes]
    }
}

/// Logical rows as a tree over leaves, which are indices.
pub(super) enum Rows {
    Leaf { leaf: usize, rows: usize },
    Permute { of: Box<Rows>, head: usize },
    Concat(Vec<Part>),
}

/// A part of a concatenation.
pub(super) struct Part {
    start: usize,
    rows: Rows,
}

/// Where a logical row is: a row of a leaf, with `run` rows (at least one) that follow each other in both.
pub(super) struct Place {
    pub(super) leaf: usize,
    pub(super) row: usize,
    pub(super) run: usize,
}

impl Rows {
    /// Where logical row `row` is, which must exist.
    pub(super) fn locate(&self, row: usize) -> Place {
        match self {
            Rows::Leaf { leaf, rows } => Place { leaf: *leaf, row, run: rows - row },
            Rows::Permute { of, head } => {
                let (first, i, half) = (row / head * head, row % head, head / 2);
                let from = if i < half { 2 * i } else { 2 * (i - half) + 1 };
                Place { run: 1, ..of.locate(first + from) }
            }
            Rows::Concat(parts) => {
                let part = &parts[parts.partition_point(|p| p.start <= row) - 1];
                part.rows.locate(row - part.start)
            }
        }
    }

    /// Sets for each leaf how many of its first rows nobody needs once the first `done` logical rows are packed.
    pub(super) fn passed(&self, done: usize, passed: &mut [usize]) {
        match self {
            Rows::Leaf { leaf, rows } => passed[*leaf] = done.min(*rows),
            Rows::Permute { of, head } => of.passed(done / head * head, passed),
            Rows::Concat(parts) => parts.iter().for_each(|p| p.rows.passed(done.saturating_sub(p.start), passed)),
        }
    }
}

/// A weight's sources.
pub(super) struct Sources<'a> {
    /// The tensors, in the recipe's order.
    pub(super) leaves: Vec<Leaf<'a>>,
    /// The parts whose panels alternate; one if none do.
    pub(super) parts: Vec<Rows>,
    /// Rows of each part.
    pub(super) rows: usize,
}

/// Finds the tensors of a weight and checks them against its type. `scanned` holds the tensors that other weights look at.
pub(super) fn resolve<'a>(
    recipe: &'a Recipe,
    entry: &'a Entry,
    source: &'a dyn TensorSource,
    scanned: &mut HashSet<&'a str>,
) -> Result<Sources<'a>, PackError> {
    let parts = entry.parts();
    let rows = entry.dims.first().map_or(1, |n| n / parts);
    let mut resolver = Resolver { source, entry, scanned, leaves: vec![], convert: false };
    let mut outermost = recipe;
    while let Recipe::Convert(of) = outermost {
        resolver.convert = true;
        outermost = of;
    }
    let parts = match outermost {
        Recipe::InterleavePanels(parts) => {
            parts.iter().map(|part| resolver.rows(part, Some(rows))).collect::<Result<Vec<_>, _>>()?
        }
        _ => vec![resolver.rows(outermost, Some(rows))?],
    };
    let parts = parts.into_iter().map(|(part, _)| part).collect();
    Ok(Sources { leaves: resolver.leaves, parts, rows })
}

struct Resolver<'a, 's> {
    source: &'a dyn TensorSource,
    entry: &'a Entry,
    scanned: &'s mut HashSet<&'a str>,
    leaves: Vec<Leaf<'a>>,
    /// Whether elements are converted from here on.
    convert: bool,
}

impl<'a> Resolver<'a, '_> {
    /// The rows of a recipe and how many they are: `want`, where that is known beforehand.
    fn rows(&mut self, recipe: &'a Recipe, want: Option<usize>) -> Result<(Rows, usize), PackError> {
        match recipe {
            Recipe::Tensor(name) => self.tensor(name, want),
            Recipe::Convert(of) => {
                let outside = std::mem::replace(&mut self.convert, true);
                let rows = self.rows(of, want);
                self.convert = outside;
                rows
            }
            Recipe::PermuteRows { of, heads } => {
                let (of, rows) = self.rows(of, want)?;
                let head = rows / (*heads).max(1);
                if head * heads != rows || head % 2 != 0 {
                    return Err(self.wrong(recipe, format!("{rows} rows are no {heads} heads of an even width")));
                }
                // Without rows there is nothing to reorder, and no head to divide by.
                Ok((if head == 0 { of } else { Rows::Permute { of: Box::new(of), head } }, rows))
            }
            Recipe::Concat(parts) => {
                let mut joined = vec![];
                let mut start: usize = 0;
                for part in parts {
                    let (rows, count) = self.rows(part, None)?;
                    // An empty part would hide the one that starts where it does.
                    if count > 0 {
                        joined.push(Part { start, rows });
                    }
                    start = start.saturating_add(count);
                }
                match want {
                    Some(expected) if expected != start => Err(PackError::Rows {
                        origin: self.source.describe(),
                        recipe: recipe.to_string(),
                        found: start,
                        expected,
                    }),
                    _ => Ok((Rows::Concat(joined), start)),
                }
            }
            Recipe::InterleavePanels(_) => {
                Err(self.wrong(recipe, "`interleave_panels` can only be outermost".to_owned()))
            }
        }
    }

    fn tensor(&mut self, name: &'a str, want: Option<usize>) -> Result<(Rows, usize), PackError> {
        let origin = || self.source.describe();
        let shape = || match self.entry.dims.as_slice() {
            [] => "[]".to_owned(),
            [_, inner @ ..] => {
                let rows = want.map_or("_".to_owned(), |n| n.to_string());
                let inner: String = inner.iter().map(|d| format!(", {d}")).collect();
                format!("[{rows}{inner}]")
            }
        };
        let elements =
            if self.convert { "f32, f16, bf16 or a block format".to_owned() } else { self.entry.dtype.to_string() };
        let Some(view) = self.source.tensor(name) else {
            let expected = format!("{elements} of shape {}", shape());
            return Err(PackError::Missing { origin: origin(), tensor: name.into(), expected });
        };
        if view.dtype != self.entry.dtype && !(self.convert && view.dtype.is_weight()) {
            let (found, expected) = (view.dtype, elements);
            return Err(PackError::DType { origin: origin(), tensor: name.into(), found, expected });
        }
        // Packing moves rows, and blocks lie within a row.
        if view.dtype.is_block() && view.dims.len() < 2 {
            let expected = "f32, f16 or bf16 in a tensor of one axis".to_owned();
            return Err(PackError::DType { origin: origin(), tensor: name.into(), found: view.dtype, expected });
        }
        let fits = match (view.dims, self.entry.dims.as_slice()) {
            ([], []) => true,
            ([rows, found @ ..], [_, inner @ ..]) => found == inner && want.is_none_or(|want| *rows == want),
            _ => false,
        };
        if !fits {
            let (found, expected) = (view.dims.to_vec(), shape());
            return Err(PackError::Shape { origin: origin(), tensor: name.into(), found, expected });
        }
        let bytes = view.dtype.storage_of(view.dims);
        if bytes != Some(view.bytes.len()) {
            let (found, expected) = (view.bytes.len(), bytes.unwrap_or(usize::MAX));
            return Err(PackError::Bytes { origin: origin(), tensor: name.into(), found, expected });
        }
        let rows = view.dims.first().copied().unwrap_or(1);
        self.leaves.push(Leaf {
            name,
            dtype: view.dtype,
            bytes: view.bytes,
            row_bytes: view.bytes.len().checked_div(rows).unwrap_or(0),
            row_elements: view.dims.get(1..).unwrap_or_default().iter().product(),
            scan: self.scanned.insert(name),
        });
        Ok((Rows::Leaf { leaf: self.leaves.len() - 1, rows }, rows))
    }

    fn wrong(&self, recipe: &Recipe, reason: String) -> PackError {
        let ty = format!("{}{:?}", self.entry.dtype, self.entry.dims);
        PackError::Recipe { recipe: recipe.to_string(), ty, reason }
    }
}
