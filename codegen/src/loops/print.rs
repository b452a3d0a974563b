//! The text of the loop IR.

use super::{Count, Expr, Index, Kernel, Kind, Line, Loop, Place, Reg, Space, Stmt, Stretch, Ty};
use std::fmt::{self, Display, Formatter};

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::F32 => "f32",
            Kind::I32 => "i32",
            Kind::Bool => "bool",
        })
    }
}

impl Display for Ty {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Ty::Index => f.write_str("index"),
            Ty::Element(kind, 1) => write!(f, "{kind}"),
            Ty::Element(kind, lanes) => write!(f, "{kind}x{lanes}"),
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Place::Buffer(n) => write!(f, "b{n}"),
            Place::Scratch(offset) => write!(f, "scratch+{offset}"),
        }
    }
}

/// Index registers print as `i7`, elements as `v7`.
struct Name<'a>(&'a Kernel, Reg);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let prefix = if self.0.ty(self.1) == Ty::Index { 'i' } else { 'v' };
        write!(f, "{prefix}{}", self.1.0)
    }
}

impl Display for Index {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (coefficient, reg) in &self.terms {
            if !first {
                f.write_str(" + ")?;
            }
            first = false;
            match reg {
                None => write!(f, "{coefficient}")?,
                Some(reg) if coefficient.as_constant() == Some(1) => write!(f, "i{}", reg.0)?,
                Some(reg) => write!(f, "{coefficient}*i{}", reg.0)?,
            }
        }
        match (first, self.constant) {
            (true, c) => write!(f, "{c}"),
            (false, 0) => Ok(()),
            (false, c) if c < 0 => write!(f, " - {}", c.unsigned_abs()),
            (false, c) => write!(f, " + {c}"),
        }
    }
}

fn expr(k: &Kernel, e: &Expr, f: &mut Formatter<'_>) -> fmt::Result {
    let n = |r: &Reg| Name(k, *r);
    match e {
        Expr::Quotient(i, d) => write!(f, "({i}) / {d}"),
        Expr::Remainder(i, d) => write!(f, "({i}) % {d}"),
        Expr::Clamp(i, lo, hi) => write!(f, "clamp {i}, {lo}..={hi}"),
        Expr::ToIndex(r) => write!(f, "index {}", n(r)),
        Expr::FromIndex(i) => write!(f, "int {i}"),
        Expr::Load(p, dtype, i) => write!(f, "load {dtype} {p}[{i}]"),
        Expr::Tile(s, row, col) => write!(f, "tile {s}[{row}, {col}]"),
        Expr::F32(bits) => {
            let v = f32::from_bits(*bits);
            if v.is_nan() { write!(f, "0x{bits:08x}") } else { write!(f, "{v:?}") }
        }
        Expr::I32(v) => write!(f, "{v}"),
        Expr::Bool(v) => write!(f, "{v}"),
        Expr::Splat(r) => write!(f, "splat {}", n(r)),
        Expr::Pack([a, b, c, d]) => write!(f, "pack {}, {}, {}, {}", n(a), n(b), n(c), n(d)),
        Expr::Unary(op, a) => write!(f, "{op} {}", n(a)),
        Expr::Binary(op, a, b) => write!(f, "{op} {}, {}", n(a), n(b)),
        Expr::Compare(op, a, b) => write!(f, "cmp {op} {}, {}", n(a), n(b)),
        Expr::Select(c, a, b) => write!(f, "select {}, {}, {}", n(c), n(a), n(b)),
        Expr::Convert(how, a) => {
            let name = match how {
                super::Convert::IntToFloat => "int_to_float",
                super::Convert::FloatToInt => "float_to_int",
                super::Convert::RoundF16 => "round_f16",
                super::Convert::RoundBf16 => "round_bf16",
            };
            write!(f, "{name} {}", n(a))
        }
        Expr::Fold(op, a) => write!(f, "fold {op} {}", n(a)),
    }
}

fn line(k: &Kernel, line: &Line, f: &mut Formatter<'_>) -> fmt::Result {
    match (line, k.space) {
        (Line::Memory(place, at), _) => write!(f, "{place}[{at}..]"),
        (Line::Tile(segment), Space::Tile { row, begin, .. }) => {
            write!(f, "tile {segment}[i{}, i{}..]", row.0, begin.0)
        }
        (Line::Tile(segment), Space::Rows { .. }) => write!(f, "tile {segment}"),
    }
}

fn block(k: &Kernel, stmts: &[Stmt], depth: usize, f: &mut Formatter<'_>) -> fmt::Result {
    let pad = "  ".repeat(depth);
    for s in stmts {
        match s {
            Stmt::Let(r, e) => {
                write!(f, "{pad}{}", Name(k, *r))?;
                if k.ty(*r) != Ty::Index {
                    write!(f, ": {}", k.ty(*r))?;
                }
                f.write_str(" = ")?;
                expr(k, e, f)?;
                writeln!(f)?;
            }
            Stmt::Store(p, dtype, i, r) => writeln!(f, "{pad}store {dtype} {p}[{i}], {}", Name(k, *r))?,
            Stmt::SetTile(s, row, col, r) => writeln!(f, "{pad}tile {s}[{row}, {col}] = {}", Name(k, *r))?,
            Stmt::Stretch(Stretch { routine, to, from, count }) => {
                write!(f, "{pad}{} ", routine.name())?;
                line(k, to, f)?;
                for from in from {
                    f.write_str(", ")?;
                    line(k, from, f)?;
                }
                match count {
                    Count::Elements(n) => writeln!(f, " for {n}")?,
                    Count::Columns => writeln!(f, " for all columns")?,
                }
            }
            Stmt::Loop(l) => run(k, l, depth, f)?,
        }
    }
    Ok(())
}

fn run(k: &Kernel, l: &Loop, depth: usize, f: &mut Formatter<'_>) -> fmt::Result {
    let pad = "  ".repeat(depth);
    write!(f, "{pad}")?;
    for (i, c) in l.carried.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { "" } else { ", " }, Name(k, c.result))?;
    }
    if !l.carried.is_empty() {
        f.write_str(" = ")?;
    }
    write!(f, "for i{} in {}..{} step {} until i{}", l.var.0, l.begin, l.end, l.step, l.last.0)?;
    for (i, c) in l.carried.iter().enumerate() {
        let open = if i == 0 { " carry " } else { ", " };
        write!(f, "{open}{} = {} then {}", Name(k, c.current), Name(k, c.init), Name(k, c.next))?;
    }
    writeln!(f, " {{")?;
    block(k, &l.body, depth + 1, f)?;
    writeln!(f, "{pad}}}")
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("kernel (")?;
        for (i, b) in self.buffers.iter().enumerate() {
            let stored = if b.stored { " out" } else { "" };
            write!(f, "{}b{i}: {}{stored}", if i == 0 { "" } else { ", " }, b.dtype)?;
        }
        for (i, sym) in self.syms.iter().enumerate() {
            write!(f, "{}{sym}", if i == 0 && self.buffers.is_empty() { "" } else { ", " })?;
        }
        f.write_str(")")?;
        if self.scratch > 0 {
            write!(f, " scratch {}", self.scratch)?;
        }
        match self.space {
            Space::Rows { row } => writeln!(f, " for row i{} {{", row.0)?,
            Space::Tile { row, begin, end } => {
                writeln!(f, " for row i{} of tile, columns i{}..i{} {{", row.0, begin.0, end.0)?;
            }
        }
        block(self, &self.body, 1, f)?;
        writeln!(f, "}}")
    }
}
