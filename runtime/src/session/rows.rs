//! From the inputs of a step to its sizes and segments.

use super::data::Data;
use super::error::StepError;
use crate::attention::Segment;
use crate::program::RowPorts;
use llamac_formats::program::{PortInfo, Program};
use llamac_formats::{Extent, Sizes, Sym};

/// The rows of a step by slot, and what is needed to find them without allocating.
pub(super) struct Rows {
    pub(super) segments: Vec<Segment>,
    /// For each slot, the last step that had it: a slot seen before in this step must not begin again.
    seen: Vec<u64>,
    step: u64,
}

impl Rows {
    pub(super) fn new(program: &Program) -> Rows {
        let most = program.bounds.slots.min(program.bounds.rows);
        Rows { segments: Vec::with_capacity(most), seen: vec![0; program.bounds.slots], step: 0 }
    }

    /// Finds the segments; gives the largest position.
    fn find(
        &mut self,
        names: [&str; 2],
        positions: &[i32],
        slots: Option<&[i32]>,
        bound: [usize; 2],
    ) -> Result<usize, StepError> {
        self.segments.clear();
        self.step += 1;
        let mut largest = 0;
        let mut before = 0;
        for (row, position) in positions.iter().enumerate() {
            let position = in_range(names[0], row, *position, bound[0])?;
            let slot = match slots {
                Some(slots) => in_range(names[1], row, slots[row], bound[1])?,
                None => 0,
            };
            match self.segments.last_mut() {
                Some(segment) if segment.slot == slot => {
                    if position <= before {
                        return Err(StepError::NotAscending { row, slot, found: position, before });
                    }
                    segment.row_end = row + 1;
                }
                _ => {
                    if self.seen[slot] == self.step {
                        return Err(StepError::NotGrouped { row, slot });
                    }
                    self.seen[slot] = self.step;
                    self.segments.push(Segment { slot, row_begin: row, row_end: row + 1 });
                }
            }
            before = position;
            largest = largest.max(position);
        }
        Ok(largest)
    }
}

fn in_range(name: &str, at: usize, value: i32, limit: usize) -> Result<usize, StepError> {
    match usize::try_from(value) {
        Ok(v) if v < limit => Ok(v),
        _ => Err(StepError::OutOfRange { name: name.to_owned(), at, found: value.into(), limit }),
    }
}

/// The inputs that a program takes, for errors.
pub(super) fn signature(program: &Program) -> String {
    let port = |p: &PortInfo| {
        let dims: Vec<String> = p.dims.iter().map(Extent::to_string).collect();
        format!("{}: {}[{}]", p.name, p.dtype, dims.join(", "))
    };
    program.inputs.iter().map(port).collect::<Vec<_>>().join(", ")
}

fn given<'a>(program: &Program, port: &PortInfo, inputs: &[(&str, Data<'a>)]) -> Result<Data<'a>, StepError> {
    let found = inputs.iter().find(|(name, _)| *name == port.name);
    let (_, data) =
        found.ok_or_else(|| StepError::Missing { name: port.name.clone(), expected: signature(program) })?;
    Ok(*data)
}

/// The one symbol of a product and what it is multiplied by, where there is exactly one.
fn single(dims: &[Extent]) -> Option<(Sym, usize)> {
    let mut factor = 1usize;
    let mut only = None;
    for dim in dims {
        factor = factor.checked_mul(dim.factor as usize)?;
        for sym in Sym::ALL {
            match dim.powers[sym as usize] {
                0 => {}
                1 if only.is_none() => only = Some(sym),
                _ => return None,
            }
        }
    }
    only.filter(|_| factor > 0).map(|sym| (sym, factor))
}

fn elements(port: &PortInfo, sizes: &Sizes) -> usize {
    port.dims.iter().fold(1, |n, d| n.saturating_mul(d.value(sizes)))
}

/// Checks the inputs of a step against the program; fills in the segments and gives the sizes.
///
/// S and R are the lengths of inputs that have them (1 where none has), T is the largest position plus one, or the
/// length of an input that has it.
pub(super) fn measure(
    program: &Program,
    ports: RowPorts,
    inputs: &[(&str, Data<'_>)],
    rows: &mut Rows,
) -> Result<Sizes, StepError> {
    if inputs.len() != program.inputs.len() {
        return match program.inputs.iter().find(|p| !inputs.iter().any(|(name, _)| *name == p.name)) {
            Some(port) => Err(StepError::Missing { name: port.name.clone(), expected: signature(program) }),
            None => Err(StepError::Unknown { found: inputs.len(), expected: signature(program) }),
        };
    }
    let mut found = [None; 3];
    for port in &program.inputs {
        let data = given(program, port, inputs)?;
        if data.dtype() != port.dtype {
            let name = port.name.clone();
            return Err(StepError::WrongType { name, found: data.dtype(), expected: port.dtype });
        }
        if let Some((sym, factor)) = single(&port.dims)
            && found[sym as usize].is_none()
        {
            if !data.len().is_multiple_of(factor) {
                let expected = format!("a multiple of {factor}");
                return Err(StepError::WrongLength { name: port.name.clone(), found: data.len(), expected });
            }
            found[sym as usize] = Some(data.len() / factor);
        }
    }
    let mut sizes =
        Sizes { rows: found[0].unwrap_or(1), outputs: found[1].unwrap_or(1), tokens: found[2].unwrap_or(1) };
    let bounds = &program.bounds;
    let too_large = |sizes: &Sizes| StepError::TooLarge {
        rows: sizes.rows,
        outputs: sizes.outputs,
        tokens: sizes.tokens,
        most_rows: bounds.rows,
        most_outputs: bounds.outputs,
        most_tokens: bounds.tokens,
    };
    let fits =
        |s: &Sizes| (1..=bounds.rows).contains(&s.rows) && s.outputs <= bounds.outputs && s.tokens <= bounds.tokens;
    if !fits(&sizes) {
        return Err(too_large(&sizes));
    }
    if let Some(positions) = ports.positions {
        let port = &program.inputs[positions];
        let values = given(program, port, inputs)?.i32().unwrap_or(&[]);
        let slots = ports.slots.map(|slots| &program.inputs[slots]);
        let slot_values = match slots {
            Some(slots) => Some(given(program, slots, inputs)?.i32().unwrap_or(&[])),
            None => None,
        };
        if let (Some(slots), Some(values)) = (slots, slot_values)
            && values.len() != sizes.rows
        {
            return Err(wrong_length(slots, values.len(), &sizes));
        }
        let names = [&*port.name, slots.map_or("slots", |s| &s.name)];
        let limit = |port: Option<&PortInfo>, most: usize| port.and_then(|p| p.limit).map_or(most, |l| l.min(most));
        let bound = [limit(Some(port), bounds.tokens), limit(slots, bounds.slots)];
        let tokens = rows.find(names, values, slot_values, bound)? + 1;
        // An input that has T may be longer than what is present, never shorter.
        sizes.tokens = if found[2].is_some() { sizes.tokens } else { tokens };
        if tokens > sizes.tokens {
            return Err(too_large(&Sizes { tokens, ..sizes }));
        }
    }
    for (i, port) in program.inputs.iter().enumerate() {
        let data = given(program, port, inputs)?;
        if data.len() != elements(port, &sizes) {
            return Err(wrong_length(port, data.len(), &sizes));
        }
        let limit = match ports.outputs {
            Some(outputs) if outputs == i => Some(port.limit.map_or(sizes.rows, |l| l.min(sizes.rows))),
            _ => port.limit,
        };
        if let (Data::I32(values), Some(limit)) = (data, limit) {
            for (at, value) in values.iter().enumerate() {
                in_range(&port.name, at, *value, limit)?;
            }
        }
        if let Data::Bool(values) = data
            && let Some(at) = values.iter().position(|v| *v > 1)
        {
            let (name, found) = (port.name.clone(), values[at].into());
            return Err(StepError::OutOfRange { name, at, found, limit: 2 });
        }
    }
    Ok(sizes)
}

fn wrong_length(port: &PortInfo, found: usize, sizes: &Sizes) -> StepError {
    let dims: Vec<String> = port.dims.iter().map(Extent::to_string).collect();
    let Sizes { rows, outputs, tokens } = sizes;
    let expected =
        format!("{} ([{}] with S = {rows}, R = {outputs}, T = {tokens})", elements(port, sizes), dims.join(", "));
    StepError::WrongLength { name: port.name.clone(), found, expected }
}
