//! How far an access reaches, with every operation checked.

use super::RowPorts;
use super::error::Fault;
use llamac_formats::program::{Entry, Operand, Program};
use llamac_formats::{Access, DType, Extent, Sizes, Sym};
use std::ops::Range;

/// The largest number of bytes or elements that anything may span.
const MOST: usize = isize::MAX as usize;

/// The value of an extent, if no product overflows.
pub(super) fn value(extent: Extent, sizes: &Sizes) -> Option<usize> {
    let mut v = usize::try_from(extent.factor).ok()?;
    for sym in Sym::ALL {
        let size = sizes.get(sym);
        // A size of one would loop for nothing; any other overflows after at most 63 rounds.
        if size != 1 {
            for _ in 0..extent.powers[sym as usize] {
                v = v.checked_mul(size)?;
            }
        }
    }
    (v <= MOST).then_some(v)
}

/// The product of dimensions. No part of them may overflow either, even where another is 0.
pub(super) fn product(dims: impl IntoIterator<Item = usize>) -> Option<usize> {
    let mut none = false;
    let parts = dims.into_iter().try_fold(1usize, |product, dim| {
        none |= dim == 0;
        product.checked_mul(dim.max(1)).filter(|p| *p <= MOST)
    })?;
    Some(if none { 0 } else { parts })
}

/// Bytes of so many elements.
pub(super) fn bytes(elements: usize, dtype: DType) -> Option<usize> {
    dtype.storage(elements).filter(|b| *b <= MOST)
}

/// What memory an operand lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Arena,
    Weight(usize),
    State(usize),
    Input(usize),
    Output(usize),
}

/// Bytes of one memory that something touches at the bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) base: Base,
    pub(super) bytes: Range<usize>,
}

impl Reach {
    fn overlaps(&self, other: &Reach) -> bool {
        self.base == other.base && self.bytes.start < other.bytes.end && other.bytes.start < self.bytes.end
    }
}

/// Refuses a result that lies over an operand.
pub(super) fn disjoint(what: &str, result: &Reach, with: &str, operand: &Reach) -> Result<(), Fault> {
    if result.overlaps(operand) {
        return Err(Fault::Overlap { what: what.to_owned(), with: with.to_owned() });
    }
    Ok(())
}

/// How an operand is named in errors.
pub(super) fn name(operand: Operand) -> String {
    match operand {
        Operand::Arena(offset) => format!("arena byte {offset}"),
        Operand::Weight(i) => format!("weight {i}"),
        Operand::State(i) => format!("state {i}"),
        Operand::Input(i) => format!("input {i}"),
        Operand::Output(i) => format!("output {i}"),
    }
}

/// One entry of a program at its bounds: the ground on which operands are judged.
pub(super) struct Ground<'a> {
    pub(super) program: &'a Program,
    pub(super) entry: &'a Entry,
    pub(super) ports: RowPorts,
    pub(super) sizes: Sizes,
}

/// The memory behind an operand: from byte `start` of `base` up to byte `end`.
struct Space {
    base: Base,
    start: usize,
    end: usize,
    dtype: Option<DType>,
}

impl Ground<'_> {
    /// An extent at the entry's bounds.
    pub(super) fn value(&self, what: &str, extent: Extent) -> Result<usize, Fault> {
        value(extent, &self.sizes).ok_or_else(|| overflow(what))
    }

    fn space(&self, what: &str, operand: Operand) -> Result<Space, Fault> {
        let program = self.program;
        let port = |ports: &[llamac_formats::program::PortInfo], what: &'static str, index: usize| {
            let port = ports.get(index).ok_or(Fault::NoSuch { what, index, count: ports.len() })?;
            // Ports are as large as the program's bounds, whatever the entry's are.
            let sizes = program.bounds.sizes();
            let dims = port.dims.iter().map(|d| value(*d, &sizes).ok_or_else(|| overflow(what)));
            let dims = dims.collect::<Result<Vec<_>, _>>()?;
            let end = product(dims).and_then(|n| bytes(n, port.dtype)).ok_or_else(|| overflow(what))?;
            Ok((end, Some(port.dtype)))
        };
        let (base, start, (end, dtype)) = match operand {
            Operand::Arena(offset) => {
                if offset > self.entry.arena_bytes {
                    let what = what.to_owned();
                    return Err(Fault::TooLarge { what, needed: offset, available: self.entry.arena_bytes });
                }
                (Base::Arena, offset, (self.entry.arena_bytes, None))
            }
            Operand::Weight(index) => {
                let count = program.weights.len();
                let weight = program.weights.get(index).ok_or(Fault::NoSuch { what: "weight", index, count })?;
                (Base::Weight(index), 0, (weight.bytes, Some(weight.dtype)))
            }
            Operand::State(index) => {
                let count = program.states.len();
                let state = program.states.get(index).ok_or(Fault::NoSuch { what: "state", index, count })?;
                let end = product(state.dims.iter().copied()).and_then(|n| bytes(n, state.dtype));
                (Base::State(index), 0, (end.ok_or_else(|| overflow("a state"))?, Some(state.dtype)))
            }
            Operand::Input(index) => (Base::Input(index), 0, port(&program.inputs, "input", index)?),
            Operand::Output(index) => (Base::Output(index), 0, port(&program.outputs, "output", index)?),
        };
        Ok(Space { base, start, end, dtype })
    }

    /// Refuses an operand that does not exist.
    pub(super) fn exists(&self, what: &str, operand: Operand) -> Result<(), Fault> {
        self.space(what, operand).map(drop)
    }

    /// Bytes from where an operand begins to the end of its memory.
    pub(super) fn bytes(&self, what: &str, operand: Operand) -> Result<usize, Fault> {
        self.space(what, operand).map(|space| space.end - space.start)
    }

    /// Refuses an operand that has fewer bytes.
    pub(super) fn holds(&self, what: &str, operand: Operand, bytes: usize) -> Result<(), Fault> {
        let space = self.space(what, operand)?;
        let needed = space.start.checked_add(bytes).ok_or_else(|| overflow(what))?;
        if needed > space.end {
            return Err(Fault::TooLarge { what: what.to_owned(), needed, available: space.end });
        }
        Ok(())
    }

    /// Refuses an operand that may not be written.
    pub(super) fn writable(&self, what: &str, operand: Operand) -> Result<(), Fault> {
        match operand {
            Operand::Arena(_) | Operand::State(_) | Operand::Output(_) => Ok(()),
            Operand::Weight(_) | Operand::Input(_) => {
                Err(Fault::ReadOnly { what: what.to_owned(), operand: name(operand) })
            }
        }
    }

    /// Elements `first..=last` of an operand of this type, in whole blocks; refused where they do not lie within it.
    fn elements(&self, what: &str, operand: Operand, dtype: DType, first: usize, last: usize) -> Result<Reach, Fault> {
        let space = self.space(what, operand)?;
        if let Some(found) = space.dtype.filter(|d| *d != dtype) {
            return Err(Fault::WrongType { what: what.to_owned(), found, expected: dtype });
        }
        if let Operand::Weight(weight) = operand
            && self.program.weights[weight].panels
        {
            let expected = "a row-major weight";
            return Err(Fault::WrongLayout { weight, dtype, panels: true, expected });
        }
        if !space.start.is_multiple_of(4) {
            return Err(Fault::Misaligned { what: what.to_owned(), offset: space.start, align: 4 });
        }
        let block = dtype.block().0;
        let at = |elements: usize| dtype.storage(elements).and_then(|b| b.checked_add(space.start));
        let end = last.checked_add(1).and_then(at).ok_or_else(|| overflow(what))?;
        if end > space.end {
            return Err(Fault::TooLarge { what: what.to_owned(), needed: end, available: space.end });
        }
        Ok(Reach { base: space.base, bytes: at(first / block * block).ok_or_else(|| overflow(what))?..end })
    }

    /// A dense f32 operand of so many elements.
    pub(super) fn dense(&self, what: &str, operand: Operand, elements: usize) -> Result<Reach, Fault> {
        match elements.checked_sub(1) {
            Some(last) => self.elements(what, operand, DType::F32, 0, last),
            None => {
                let space = self.space(what, operand)?;
                Ok(Reach { base: space.base, bytes: space.start..space.start })
            }
        }
    }

    /// An `i32` input of at least so many elements that all are below its limit; gives the limit. Elements that a step was not
    /// given are 0, so it is never less than 1.
    pub(super) fn indices(&self, what: &str, operand: Operand, elements: usize) -> Result<usize, Fault> {
        let space = self.space(what, operand)?;
        let unlimited = || Fault::Unlimited { what: what.to_owned(), operand: name(operand) };
        let Operand::Input(input) = operand else { return Err(unlimited()) };
        let port = &self.program.inputs[input];
        let limit = port.limit.filter(|_| port.dtype == DType::I32).ok_or_else(unlimited)?;
        let needed = bytes(elements, DType::I32).ok_or_else(|| overflow(what))?;
        if needed > space.end {
            return Err(Fault::TooLarge { what: what.to_owned(), needed, available: space.end });
        }
        // A step's positions, slots and outputs are checked against its own sizes too.
        let is = |row: Option<usize>| row == Some(input);
        let bound = match &self.ports {
            ports if is(ports.positions) => self.sizes.tokens,
            ports if is(ports.slots) => self.program.bounds.slots,
            ports if is(ports.outputs) => self.sizes.rows,
            _ => limit,
        };
        Ok(limit.min(bound).max(1))
    }

    /// An f32 view with axes of these sizes (at the bounds); at most `MAX_INDIRECTS` fetched indices.
    pub(super) fn access(&self, what: &str, access: &Access<Operand>, dims: &[usize]) -> Result<Reach, Fault> {
        self.access_of(what, DType::F32, access, dims)
    }

    /// As [`Ground::access`], of elements of some type. Where they stand in blocks, every row must begin with a block.
    pub(super) fn access_of(
        &self,
        what: &str,
        dtype: DType,
        access: &Access<Operand>,
        dims: &[usize],
    ) -> Result<Reach, Fault> {
        let (block, _) = dtype.block();
        let rows =
            access.strides.iter().take(dims.len().saturating_sub(1)).chain(access.indirects.iter().map(|i| &i.stride));
        if let Some(found) = rows.chain([&access.offset]).find(|e| e.factor % block as u64 != 0) {
            return Err(Fault::Mismatch {
                what: format!("a stride or the offset of {what}"),
                found: found.to_string(),
                expected: format!("whole blocks of {block}"),
            });
        }
        let rank = |found: usize, of: &str| {
            let what = format!("the number of {of} of {what}");
            Fault::Mismatch { what, found: found.to_string(), expected: dims.len().to_string() }
        };
        if access.strides.len() != dims.len() {
            return Err(rank(access.strides.len(), "strides"));
        }
        let most = crate::strided::MAX_INDIRECTS;
        if access.indirects.len() > most {
            return Err(Fault::Mismatch {
                what: format!("the number of fetched indices of {what}"),
                found: access.indirects.len().to_string(),
                expected: format!("at most {most}"),
            });
        }
        if dims.contains(&0) {
            return self.dense(what, access.base, 0);
        }
        let last = |offset: Extent, strides: &[Extent]| -> Result<usize, Fault> {
            let mut at = self.value(what, offset)?;
            for (stride, dim) in strides.iter().zip(dims) {
                let stride = self.value(what, *stride)?;
                at = stride.checked_mul(dim - 1).and_then(|s| at.checked_add(s)).ok_or_else(|| overflow(what))?;
            }
            Ok(at)
        };
        let first = self.value(what, access.offset)?;
        let mut end = last(access.offset, &access.strides)?;
        for indirect in &access.indirects {
            if indirect.strides.len() != dims.len() {
                return Err(rank(indirect.strides.len(), "index strides"));
            }
            let index = format!("an index of {what}");
            let elements = last(indirect.offset, &indirect.strides)?.checked_add(1).ok_or_else(|| overflow(&index))?;
            let limit = self.indices(&index, indirect.index, elements)?;
            let stride = self.value(what, indirect.stride)?;
            end = stride
                .checked_mul(limit.saturating_sub(1))
                .and_then(|s| end.checked_add(s))
                .ok_or_else(|| overflow(what))?;
        }
        // The first element is the least one could touch at smaller sizes only if the offset is a constant.
        let first = if access.offset.as_constant().is_some() { first } else { 0 };
        self.elements(what, access.base, dtype, first, end)
    }
}

pub(super) fn overflow(what: &str) -> Fault {
    Fault::Overflow { what: what.to_owned() }
}
