//! Everything about a program that must hold before anything of it runs.

use super::error::{Fault, LoadError};
use super::reach::{Ground, bytes, overflow, product, value};
use super::{Code, RowPorts};
use crate::attention::is_cache;
use crate::memory::{ALIGN, Region};
use llamac_formats::program::{Entry, Operand, PortInfo, Program, WeightInfo, Work};
use llamac_formats::{Bounds, DType, Extent, PanelLayout, Sym};
use std::collections::HashSet;

/// The most rows, outputs and slots of a program: a session keeps a few words for each.
pub const MOST_ROWS: usize = 1 << 20;

/// The most tokens: positions are `i32` in memory.
const MOST_TOKENS: usize = i32::MAX as usize;

/// The most scratch of a kernel, bytes.
const MOST_SCRATCH: usize = i32::MAX as usize;

/// Checks a whole program and finds the ports that say which row is which.
pub(super) fn check(program: &Program, code: &dyn Code, weights: &Region) -> Result<RowPorts, LoadError> {
    let fault = |place: String| {
        let program = program.name.clone();
        move |fault| LoadError { program, place, fault }
    };
    bounds(&program.bounds, None).map_err(fault("bounds".to_owned()))?;
    for (i, info) in program.weights.iter().enumerate() {
        weight(info, weights.len()).map_err(fault(format!("weight {i}")))?;
    }
    for (i, info) in program.states.iter().enumerate() {
        if !is_cache(info.dtype, info.dims.last().copied().unwrap_or(1)) {
            let wrong = Fault::WrongType { what: "the state".to_owned(), found: info.dtype, expected: DType::F32 };
            return Err(fault(format!("state {i} (\"{}\")", info.name))(wrong));
        }
        let size = product(info.dims.iter().copied()).and_then(|n| bytes(n, info.dtype));
        size.map(drop).ok_or_else(|| overflow("the state")).map_err(fault(format!("state {i} (\"{}\")", info.name)))?;
    }
    ports(program, &program.inputs).map_err(fault("inputs".to_owned()))?;
    ports(program, &program.outputs).map_err(fault("outputs".to_owned()))?;
    if program.entries.is_empty() {
        let empty = Fault::Mismatch { what: "their number".into(), found: "0".into(), expected: "at least 1".into() };
        return Err(fault("entries".to_owned())(empty));
    }
    let rows = row_ports(program);
    // Where they are not good, the steps that read them are refused first, for that says more.
    let outputs = named(program, "outputs", Sym::Outputs);
    let ports = rows.as_ref().copied().unwrap_or(RowPorts { outputs, ..RowPorts::default() });
    let mut calls = vec![None; program.kernels.len()];
    for entry in &program.entries {
        let place = format!("entry {}", entry.name);
        frame(program, entry).map_err(fault(place.clone()))?;
        let ground = Ground { program, entry, ports, sizes: entry.bounds.sizes() };
        for (i, step) in entry.steps.iter().enumerate() {
            let checked = ground.step(&step.work, &mut calls);
            checked.map_err(fault(format!("{place}, step {i} ({})", step.name)))?;
        }
    }
    for (kernel, info) in program.kernels.iter().enumerate() {
        if calls[kernel].is_some() && code.address(kernel).is_null() {
            return Err(fault("kernels".to_owned())(Fault::NoCode { kernel, name: info.name.clone() }));
        }
        if info.scratch > MOST_SCRATCH {
            return Err(fault(format!("kernel {kernel}"))(overflow("its scratch")));
        }
    }
    rows.map_err(fault("inputs".to_owned()))
}

fn bounds(found: &Bounds, within: Option<&Bounds>) -> Result<(), Fault> {
    const MOST: Bounds = Bounds { rows: MOST_ROWS, outputs: MOST_ROWS, tokens: MOST_TOKENS, slots: MOST_ROWS };
    let most = |f: fn(&Bounds) -> usize| f(within.unwrap_or(&MOST));
    for (what, size, most) in [
        ("the most rows S", found.rows, most(|b| b.rows)),
        ("the most outputs R", found.outputs, most(|b| b.outputs)),
        ("the most tokens T", found.tokens, most(|b| b.tokens)),
        ("the number of slots", found.slots, most(|b| b.slots)),
    ] {
        if size == 0 || size > most {
            let expected = format!("1 to {most}");
            return Err(Fault::Mismatch { what: what.to_owned(), found: size.to_string(), expected });
        }
    }
    Ok(())
}

fn weight(info: &WeightInfo, available: usize) -> Result<(), Fault> {
    let size = || overflow("the weight");
    if !info.offset.is_multiple_of(ALIGN) {
        return Err(Fault::Misaligned { what: "the weight".to_owned(), offset: info.offset, align: ALIGN });
    }
    let end = info.offset.checked_add(info.bytes).ok_or_else(size)?;
    if end > available {
        return Err(Fault::TooLarge { what: "the weight section".to_owned(), needed: end, available });
    }
    let dense = info.dtype.storage_of(&info.dims).filter(|b| isize::try_from(*b).is_ok()).ok_or_else(size)?;
    let expected = match (info.panels, &info.dims[..]) {
        (false, _) => dense,
        (true, [n, k]) if info.dtype.is_float() => {
            // Padding is at most fifteen outputs and one input.
            let padded = n.checked_next_multiple_of(16).and_then(|n| product([n, k.checked_add(1)?]));
            padded.and_then(|p| bytes(p, info.dtype)).ok_or_else(size)?;
            PanelLayout { dtype: info.dtype, k: *k }.matrix_bytes(*n)
        }
        (true, [n, k]) if matches!(info.dtype, DType::Block(_)) && k.is_multiple_of(info.dtype.block().0) => {
            // Padding is at most fifteen outputs, one block and a header: less than four bytes an element.
            let padded = n.checked_next_multiple_of(16).and_then(|n| product([n, k.checked_next_multiple_of(256)?]));
            padded.and_then(|p| bytes(p, DType::F32)).ok_or_else(size)?;
            PanelLayout { dtype: info.dtype, k: *k }.matrix_bytes(*n)
        }
        (true, dims) => {
            return Err(Fault::Mismatch {
                what: "the shape of a weight in panels".to_owned(),
                found: format!("{} {dims:?}", info.dtype),
                expected: "two dimensions of f32, f16, bf16 or whole blocks".to_owned(),
            });
        }
    };
    if info.bytes != expected {
        return Err(Fault::Mismatch {
            what: format!("the size of {}{:?}", info.dtype, info.dims),
            found: format!("{} bytes", info.bytes),
            expected: format!("{expected} bytes"),
        });
    }
    Ok(())
}

fn ports(program: &Program, ports: &[PortInfo]) -> Result<(), Fault> {
    let mut names = HashSet::new();
    for port in ports {
        if !names.insert(&port.name) {
            return Err(Fault::Duplicate { name: port.name.clone() });
        }
        if port.dtype.is_block() {
            return Err(Fault::Mismatch {
                what: format!("the element type of \"{}\"", port.name),
                found: port.dtype.to_string(),
                expected: "one whose elements stand alone".to_owned(),
            });
        }
        let dims = port.dims.iter().map(|d| value(*d, &program.bounds.sizes())).collect::<Option<Vec<_>>>();
        let size = dims.and_then(product).and_then(|n| bytes(n, port.dtype));
        size.ok_or_else(|| overflow(&port.name))?;
    }
    Ok(())
}

fn frame(program: &Program, entry: &Entry) -> Result<(), Fault> {
    bounds(&entry.bounds, Some(&program.bounds))?;
    if isize::try_from(entry.arena_bytes).is_err() {
        return Err(overflow("the arena"));
    }
    for buffer in &entry.buffers {
        let end = buffer.offset.checked_add(buffer.bytes).ok_or_else(|| overflow(&buffer.name))?;
        if end > entry.arena_bytes {
            let what = format!("buffer {}", buffer.name);
            return Err(Fault::TooLarge { what, needed: end, available: entry.arena_bytes });
        }
    }
    Ok(())
}

/// The `i32` input of this name and length.
fn named(program: &Program, name: &str, sym: Sym) -> Option<usize> {
    let fits = |p: &PortInfo| p.name == name && p.dtype == DType::I32 && p.dims == [Extent::sym(sym)];
    program.inputs.iter().position(fits)
}

/// The inputs with each row's position and slot are those that the attention steps read; where there are none, they go
/// by their names. The rows whose outputs are wanted go by their name.
fn row_ports(program: &Program) -> Result<RowPorts, Fault> {
    let steps = program.entries.iter().flat_map(|e| &e.steps);
    let mut attention = steps.filter_map(|s| match &s.work {
        Work::Attention(work) => Some((work.positions, work.slots)),
        _ => None,
    });
    let outputs = named(program, "outputs", Sym::Outputs);
    let Some(first) = attention.next() else {
        let row = |name| named(program, name, Sym::Rows);
        return Ok(RowPorts { positions: row("positions"), slots: row("slots"), outputs });
    };
    if let Some(other) = attention.find(|other| *other != first) {
        return Err(Fault::Mismatch {
            what: "the positions and slots of an attention step".to_owned(),
            found: format!("{other:?}"),
            expected: format!("{first:?}, as in the others"),
        });
    }
    let row = |operand: Operand| match operand {
        Operand::Input(i) if program.inputs.get(i).is_some_and(|p| p.dims == [Extent::sym(Sym::Rows)]) => Ok(Some(i)),
        _ => Err(Fault::Mismatch {
            what: "the positions or slots of the attention steps".to_owned(),
            found: super::reach::name(operand),
            expected: "an input i32[S]".to_owned(),
        }),
    };
    Ok(RowPorts { positions: row(first.0)?, slots: row(first.1)?, outputs })
}
