//! What a kernel touches: its loops walked with every index as the interval of its values.
//!
//! At given sizes every loop runs a known number of times, so the first and last byte of each load and store are known
//! too. Nothing here trusts the lowering: it looks at nothing but the loop IR that is compiled.

use super::{Count, Expr, Index, Kernel, Line, Loop, Place, Reg, Space, Stmt, Stretch, Ty};
use llamac_formats::{DType, Extent, Sizes};
use std::collections::HashMap;

/// What a kernel is called over, at given sizes.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The dynamic dimensions.
    pub sizes: Sizes,
    /// Rows: `0..rows`.
    pub rows: usize,
    /// Columns of a tile's segment; 0 for a row kernel.
    pub columns: usize,
}

/// What it touches then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Past the last byte, by buffer.
    pub ends: Vec<usize>,
    /// Whether elements of the buffer decide where others are touched, by buffer.
    pub steers: Vec<bool>,
    /// Past the last segment of a tile.
    pub segments: usize,
}

/// The lowest and the highest value.
type Interval = (i128, i128);

struct Walk<'a> {
    kernel: &'a Kernel,
    call: Call,
    /// Every element of a buffer that steers is below this.
    below: &'a [Option<usize>],
    /// Values of index registers.
    index: HashMap<Reg, Interval>,
    /// Elements loaded from a buffer with a limit, and which buffer.
    limited: HashMap<Reg, usize>,
    /// Variables that run over a tile's columns, with the step of their loop; registers where such a loop ended.
    columns: HashMap<Reg, usize>,
    column_ends: Vec<Reg>,
    found: Touched,
}

/// Walks a kernel. `below` says for each buffer what its elements are below, where that is certain.
///
/// # Errors
/// What it would touch outside its operands, or what cannot be bounded.
pub fn touched(kernel: &Kernel, below: &[Option<usize>], call: Call) -> Result<Touched, String> {
    let n = kernel.buffers.len();
    let mut walk = Walk {
        kernel,
        call,
        below,
        index: HashMap::new(),
        limited: HashMap::new(),
        columns: HashMap::new(),
        column_ends: vec![],
        found: Touched { ends: vec![0; n], steers: vec![false; n], segments: 0 },
    };
    if call.rows == 0 {
        return Ok(walk.found);
    }
    let rows = (0, call.rows as i128 - 1);
    match kernel.space {
        Space::Rows { row } => walk.index.insert(row, rows),
        Space::Tile { row, begin, end } => {
            let columns = (0, call.columns as i128);
            walk.index.insert(begin, columns);
            walk.index.insert(end, columns);
            walk.column_ends.push(begin);
            walk.index.insert(row, rows)
        }
    };
    walk.block(&kernel.body)?;
    Ok(walk.found)
}

impl Walk<'_> {
    fn extent(&self, extent: Extent) -> i128 {
        extent.value(&self.call.sizes) as i128
    }

    fn index(&self, index: &Index) -> Result<Interval, String> {
        let (mut low, mut high) = (i128::from(index.constant), i128::from(index.constant));
        for &(coefficient, reg) in &index.terms {
            let (l, h) = match reg {
                None => (1, 1),
                Some(reg) => *self.index.get(&reg).ok_or_else(|| format!("i{} has no value", reg.0))?,
            };
            let c = self.extent(coefficient);
            let add = |sum: i128, v: i128| c.checked_mul(v).and_then(|v| sum.checked_add(v));
            let sums = add(low, l).zip(add(high, h));
            (low, high) = sums.ok_or_else(|| "an index overflows".to_owned())?;
        }
        Ok((low, high))
    }

    fn block(&mut self, stmts: &[Stmt]) -> Result<(), String> {
        for stmt in stmts {
            match stmt {
                Stmt::Let(reg, expr) => self.assign(*reg, expr)?,
                Stmt::Store(place, dtype, index, value) => {
                    if let Place::Buffer(n) = place
                        && !self.kernel.buffers[*n].stored
                    {
                        return Err(format!("b{n} is stored to, but is no result"));
                    }
                    self.reach(*place, *dtype, index, lanes(self.kernel.ty(*value)))?;
                }
                Stmt::SetTile(segment, row, col, value) => {
                    self.found.segments = self.found.segments.max(segment + 1);
                    self.tile(row, col, lanes(self.kernel.ty(*value)))?;
                }
                Stmt::Stretch(s) => self.stretch(s)?,
                Stmt::Loop(l) => self.run(l)?,
            }
        }
        Ok(())
    }

    fn reach(&mut self, place: Place, dtype: DType, index: &Index, lanes: usize) -> Result<(), String> {
        let (low, high) = self.index(index)?;
        let (of, bytes) = dtype.block();
        let blocks = high.checked_add((lanes + of) as i128 - 1).map(|end| end / of as i128);
        let end = blocks.and_then(|b| b.checked_mul(bytes as i128)).and_then(|e| usize::try_from(e).ok());
        let (Some(end), 0..) = (end, low) else {
            return Err(format!("element {low} or {high} of {dtype} {place}[{index}] is none"));
        };
        match place {
            Place::Buffer(n) => self.found.ends[n] = self.found.ends[n].max(end),
            Place::Scratch(offset) => {
                let end = offset.saturating_add(end);
                if end > self.kernel.scratch {
                    return Err(format!("byte {end} of a scratch of {} is touched", self.kernel.scratch));
                }
            }
        }
        Ok(())
    }

    /// A routine reads and writes whole lines.
    fn stretch(&mut self, Stretch { routine, to, from, count }: &Stretch) -> Result<(), String> {
        let (inputs, made) = routine.signature();
        if from.len() != inputs {
            return Err(format!("{} is made of {} lines", routine.name(), from.len()));
        }
        for line in from {
            self.line(line, DType::F32, *count)?;
            // Only elements that stay where they are may be made of themselves.
            if made != DType::F32 && line == to {
                return Err(format!("{} would overwrite what it reads", routine.name()));
            }
        }
        match to {
            Line::Memory(Place::Buffer(n), _) if !self.kernel.buffers[*n].stored => {
                Err(format!("b{n} is stored to, but is no result"))
            }
            Line::Tile(_) if made != DType::F32 => Err(format!("a tile holds no {made}")),
            _ => self.line(to, made, *count),
        }
    }

    /// Where a line in memory ends; it must begin with a block, if its elements lie in blocks.
    fn line(&mut self, line: &Line, dtype: DType, count: Count) -> Result<(), String> {
        let (place, at) = match (line, count, self.kernel.space) {
            (Line::Tile(segment), Count::Columns, Space::Tile { .. }) => {
                self.found.segments = self.found.segments.max(segment + 1);
                return Ok(());
            }
            (Line::Tile(segment), ..) => return Err(format!("not all columns of tile {segment} are asked for")),
            (Line::Memory(place, at), ..) => (*place, at),
        };
        if let Place::Buffer(n) = place
            && self.kernel.buffers[n].dtype != dtype
        {
            return Err(format!("b{n} holds {}, not {dtype}", self.kernel.buffers[n].dtype));
        }
        let first = match (count, self.kernel.space) {
            (Count::Columns, Space::Tile { begin, .. }) => Some(begin),
            (Count::Columns, Space::Rows { .. }) => return Err("a row kernel has no columns".into()),
            (Count::Elements(_), _) => None,
        };
        let of = dtype.block().0;
        let aligned = at.constant % of as i64 == 0 && at.terms.iter().all(|(c, _)| self.extent(*c) % of as i128 == 0);
        let elements = match count {
            Count::Elements(n) => n,
            Count::Columns => {
                let along = at.terms.iter().filter(|(_, reg)| *reg == first).map(|(c, _)| *c);
                if along.collect::<Vec<_>>() != [Extent::ONE] {
                    return Err(format!("{place}[{at}] does not run with the columns"));
                }
                // The interval of the first column has the end of the last tile for its highest value.
                0
            }
        };
        if !aligned || elements % of != 0 {
            return Err(format!("{elements} elements from {at} on are no whole blocks"));
        }
        self.reach(place, dtype, at, elements)
    }

    fn run(&mut self, l: &Loop) -> Result<(), String> {
        let (begin, end) = (self.index(&l.begin)?, self.index(&l.end)?);
        let step = l.step as i128;
        let last = if begin.0 == begin.1 && end.0 == end.1 {
            let last = begin.0 + (end.0 - begin.0).max(0) / step * step;
            (last, last)
        } else {
            (begin.0, begin.1.max(end.1))
        };
        if self.over_columns(l) {
            self.columns.insert(l.var, l.step);
            self.column_ends.push(l.last);
        }
        if begin.0 + step <= end.1 {
            self.index.insert(l.var, (begin.0, end.1 - step));
            self.block(&l.body)?;
        }
        self.index.insert(l.last, last);
        Ok(())
    }

    /// Whether a loop runs from the tile's first column, or from where such a loop ended, to its last.
    fn over_columns(&self, l: &Loop) -> bool {
        let Space::Tile { end, .. } = self.kernel.space else { return false };
        l.end == Index::reg(end) && self.column_ends.iter().any(|&r| l.begin == Index::reg(r))
    }

    fn assign(&mut self, reg: Reg, expr: &Expr) -> Result<(), String> {
        let value = match expr {
            Expr::Quotient(i, d) | Expr::Remainder(i, d) => {
                let ((low, high), d) = (self.index(i)?, self.extent(*d));
                if low < 0 || d == 0 {
                    return Err(format!("{low} or {high} is divided by {d}"));
                }
                match expr {
                    Expr::Quotient(..) => (low / d, high / d),
                    _ if low / d == high / d => (low % d, high % d),
                    _ => (0, d - 1),
                }
            }
            Expr::Clamp(i, low, high) => {
                let (l, h) = self.index(i)?;
                let clamp = |v: i128| v.max(i128::from(*low)).min(i128::from(*high));
                (clamp(l), clamp(h))
            }
            Expr::ToIndex(element) => match self.limited.get(element) {
                Some(&buffer) => {
                    self.found.steers[buffer] = true;
                    (0, self.below[buffer].unwrap_or(1).max(1) as i128 - 1)
                }
                None => (i128::from(i32::MIN), i128::from(i32::MAX)),
            },
            Expr::Load(place, dtype, index) => {
                let lanes = lanes(self.kernel.ty(reg));
                self.reach(*place, *dtype, index, lanes)?;
                if let Place::Buffer(n) = place
                    && self.below[*n].is_some()
                {
                    self.limited.insert(reg, *n);
                }
                return Ok(());
            }
            Expr::Tile(segment, row, col) => {
                self.found.segments = self.found.segments.max(segment + 1);
                return self.tile(row, col, lanes(self.kernel.ty(reg)));
            }
            _ => return Ok(()),
        };
        self.index.insert(reg, value);
        Ok(())
    }

    /// A tile holds its own rows and columns only.
    fn tile(&self, row: &Index, col: &Index, lanes: usize) -> Result<(), String> {
        let Space::Tile { row: own, .. } = self.kernel.space else {
            return Err("a row kernel reads a tile".to_owned());
        };
        let only = |index: &Index, size: usize| Ok::<bool, String>(size == 1 && self.index(index)? == (0, 0));
        if *row != Index::reg(own) && !only(row, self.call.rows)? {
            return Err(format!("row {row} is not the tile's"));
        }
        let within = match (&col.terms[..], usize::try_from(col.constant)) {
            (&[(Extent::ONE, Some(var))], Ok(c)) => self.columns.get(&var).is_some_and(|step| c + lanes <= *step),
            _ => false,
        };
        if !(within || lanes == 1 && only(col, self.call.columns)?) {
            return Err(format!("column {col} may not be in the tile"));
        }
        Ok(())
    }
}

fn lanes(ty: Ty) -> usize {
    match ty {
        Ty::Element(_, lanes) => lanes,
        Ty::Index => 1,
    }
}
