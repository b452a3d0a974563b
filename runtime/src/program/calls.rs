//! Steps that call a compiled kernel: each must be a call that the kernel says it can take.

use super::error::Fault;
use super::reach::{Ground, name, overflow};
use super::steps::{at_least_one, countable};
use llamac_formats::program::{Operand, RowsWork};
use llamac_formats::{Bounds, DType, Extent, Over, Reach, Touch};

/// How a kernel is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Rows,
    Epilogue,
}

impl Ground<'_> {
    pub(super) fn rows(&self, work: &RowsWork, calls: &mut [Option<Call>]) -> Result<(), Fault> {
        let count = self.value("the number of rows", work.count)?;
        at_least_one("the grain", work.grain)?;
        countable("the number of rows over the grain", count.div_ceil(work.grain))?;
        // So that the last range ends without an overflow.
        count.checked_add(work.grain).ok_or_else(|| overflow("the grain"))?;
        self.call(work.kernel, Over::Rows(work.count), calls, &work.operands, &work.scalars)
    }

    /// Finds the way of calling the kernel that this call is; `calls` remembers how each kernel is called.
    pub(super) fn call(
        &self,
        kernel: usize,
        over: Over,
        calls: &mut [Option<Call>],
        operands: &[Operand],
        scalars: &[Extent],
    ) -> Result<(), Fault> {
        let count = calls.len();
        let seen = calls.get_mut(kernel).ok_or(Fault::NoSuch { what: "kernel", index: kernel, count })?;
        let call = match over {
            Over::Rows(_) => Call::Rows,
            Over::Tiles { .. } => Call::Epilogue,
        };
        if let Some(other) = seen.filter(|seen| *seen != call) {
            return Err(Fault::Mismatch {
                what: format!("the signature of kernel {kernel}"),
                found: format!("{call:?}"),
                expected: format!("{other:?}, as in an earlier step"),
            });
        }
        *seen = Some(call);
        for (i, operand) in operands.iter().enumerate() {
            self.exists(&format!("operand {i}"), *operand)?;
        }
        for (i, scalar) in scalars.iter().enumerate() {
            self.value(&format!("scalar {i}"), *scalar)?;
        }
        let mut first = None;
        for reach in &self.program.kernels[kernel].reaches {
            match self.within(reach, over, operands, scalars) {
                Ok(()) => return Ok(()),
                // The record that holds for most of the call says best what is wrong with the rest.
                Err((depth, fault)) if first.as_ref().is_none_or(|(d, _)| depth > *d) => first = Some((depth, fault)),
                Err(_) => {}
            }
        }
        let nothing = || Fault::Mismatch {
            what: format!("the ways to call kernel {kernel}"),
            found: "0".to_owned(),
            expected: "at least 1".to_owned(),
        };
        Err(first.map_or_else(nothing, |(_, fault)| fault))
    }

    /// Whether a call is this one, and all that it touches is there; with an error, how much of it held.
    fn within(
        &self,
        reach: &Reach,
        over: Over,
        operands: &[Operand],
        scalars: &[Extent],
    ) -> Result<(), (usize, Fault)> {
        let differs = |depth, what: &str, found: String, expected: String| {
            Err((depth, Fault::Mismatch { what: what.to_owned(), found, expected }))
        };
        if over != reach.over {
            return differs(0, "what the kernel runs over", spell(over), spell(reach.over));
        }
        if scalars != reach.scalars {
            return differs(1, "the scalars of the kernel", list(scalars), list(&reach.scalars));
        }
        if operands.len() != reach.operands.len() {
            let (found, expected) = (operands.len().to_string(), reach.operands.len().to_string());
            return differs(1, "the number of operands", found, expected);
        }
        let sizes = |b: &Bounds| [b.rows, b.outputs, b.tokens];
        if sizes(&self.entry.bounds).iter().zip(sizes(&reach.bounds)).any(|(found, most)| *found > most) {
            let [found, most] = [&self.entry.bounds, &reach.bounds].map(|b| format!("{:?}", sizes(b)));
            return differs(2, "S, R and T of the entry", found, format!("at most the kernel's {most}"));
        }
        for (i, (operand, touch)) in operands.iter().zip(&reach.operands).enumerate() {
            self.touch(&format!("operand {i}"), *operand, touch).map_err(|fault| (3 + i, fault))?;
        }
        Ok(())
    }

    fn touch(&self, what: &str, operand: Operand, touch: &Touch) -> Result<(), Fault> {
        if touch.stored {
            self.writable(what, operand)?;
        }
        if let Some(below) = touch.below {
            let limit = self.indices(what, operand, touch.bytes / DType::I32.bytes())?;
            if limit > below {
                return Err(Fault::Mismatch {
                    what: format!("the limit of {what} ({})", name(operand)),
                    found: limit.to_string(),
                    expected: format!("at most {below}, to which the kernel's other operands reach"),
                });
            }
        }
        if let (Operand::State(_), true) = (operand, touch.stored) {
            // What is copied from slot to slot is the whole of it: it must not be larger than what is ever written.
            let found = self.bytes(what, operand)?;
            if found != touch.bytes {
                return Err(Fault::Mismatch {
                    what: format!("the size of {} ({what})", name(operand)),
                    found: format!("{found} bytes"),
                    expected: format!("the {} bytes that the kernel writes in", touch.bytes),
                });
            }
        }
        self.holds(what, operand, touch.bytes)
    }
}

fn spell(over: Over) -> String {
    match over {
        Over::Rows(count) => format!("{count} rows"),
        Over::Tiles { rows, columns, segments } => {
            format!("tiles of {rows} rows, {columns} columns and {segments} segments")
        }
    }
}

fn list(scalars: &[Extent]) -> String {
    let scalars: Vec<String> = scalars.iter().map(Extent::to_string).collect();
    format!("[{}]", scalars.join(", "))
}
