//! Building loop IR on demand: an element that is asked for is emitted once, in the outermost loop where its index is known.

use super::affine::{Affine, Atom, Ranges, Var};
use super::expand::{ElementOp, Key, Node, expand, resolve};
use super::region::Closed;
use crate::error::{CodegenError, Result};
use crate::loops::{Buffer, Carried, Expr, Index, Kind, LANES, Loop, Place, Reg, Stmt, Stretch, Ty};
use llamac_formats::{DType, Extent};
use llamac_ir::{CompareOp, Scalar, Value};
use std::collections::HashMap;

/// How deep elements may be made of elements: what the stack of a thread holds easily.
const DEEPEST: usize = 400;

/// How many elements are looked at for one kernel, at most.
const MOST_ELEMENTS: usize = 1 << 18;

/// What a kernel's buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A param of the closed region.
    Param(usize),
    /// A result of the step.
    Result(usize),
}

/// A row of values kept in scratch by one sweep for later ones.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The elements: `value[index]` with `index[position]` the position in the row.
    pub key: Key,
    /// Which axis runs along the row.
    pub position: usize,
    /// Byte offset in scratch.
    pub offset: usize,
}

impl Kept {
    /// Whether an element is one of the row.
    pub fn matches(&self, (value, index): &Key) -> bool {
        self.key.0 == *value
            && self.key.1.len() == index.len()
            && self.key.1.iter().zip(index).enumerate().all(|(i, (a, b))| i == self.position || a == b)
    }
}

#[derive(Debug, Default)]
struct Scope {
    stmts: Vec<Stmt>,
    elements: HashMap<Key, Reg>,
    atoms: HashMap<Atom, Reg>,
    splats: HashMap<Reg, Reg>,
}

/// A kernel under construction.
#[derive(Debug)]
pub struct Build<'a> {
    /// What is lowered.
    pub closed: &'a Closed,
    /// What is known about variables.
    pub ranges: Ranges,
    /// The kernel's buffers so far.
    pub buffers: Vec<(Operand, Buffer)>,
    /// Types of registers so far.
    pub tys: Vec<Ty>,
    /// Rows in scratch that are complete.
    pub kept: Vec<Kept>,
    /// Columns of a segment of the tile, for epilogues.
    pub segment_width: Option<usize>,
    /// The variable that runs in lanes, in the innermost loops.
    pub lane: Option<Var>,
    depths: Vec<usize>,
    scopes: Vec<Scope>,
    vars: HashMap<Var, Reg>,
    scalar_of: HashMap<Var, Var>,
    next_var: Var,
    nesting: usize,
    budget: usize,
    /// One analysis variable per extent, so that sweeps over equal rows name their elements alike.
    sweeps: HashMap<Extent, Var>,
}

impl<'a> Build<'a> {
    /// A kernel without statements.
    pub fn new(closed: &'a Closed) -> Build<'a> {
        Build {
            closed,
            ranges: Ranges { extents: HashMap::new(), bounds: closed.graph.bounds },
            buffers: vec![],
            tys: vec![],
            kept: vec![],
            segment_width: None,
            lane: None,
            depths: vec![],
            scopes: vec![Scope::default()],
            vars: HashMap::new(),
            scalar_of: HashMap::new(),
            next_var: 0,
            nesting: 0,
            budget: MOST_ELEMENTS,
            sweeps: HashMap::new(),
        }
    }

    /// The statements of a row.
    pub fn finish(mut self) -> (Vec<Stmt>, Vec<(Operand, Buffer)>, Vec<Ty>) {
        (std::mem::take(&mut self.scopes[0].stmts), self.buffers, self.tys)
    }

    /// How many loops are open.
    pub fn depth(&self) -> usize {
        self.scopes.len() - 1
    }

    /// A new register that lives in the loop at `depth`.
    pub fn reg(&mut self, ty: Ty, depth: usize) -> Reg {
        self.tys.push(ty);
        self.depths.push(depth);
        Reg(self.tys.len() as u32 - 1)
    }

    /// Assigns a new register in the loop at `depth`.
    pub fn emit(&mut self, depth: usize, ty: Ty, expr: Expr) -> Reg {
        let reg = self.reg(ty, depth);
        self.scopes[depth].stmts.push(Stmt::Let(reg, expr));
        reg
    }

    /// A variable for analysis or for a loop.
    pub fn var(&mut self, extent: Extent) -> Var {
        let var = self.next_var;
        self.next_var += 1;
        self.ranges.extents.insert(var, extent);
        var
    }

    /// The analysis variable of a sweep over `extent`, for elements of `index`: the same for all sweeps of a row, another
    /// one for sweeps inside sweeps.
    pub fn sweep_var(&mut self, extent: Extent, index: &[Affine]) -> Var {
        let nested = self.sweeps.values().any(|&v| index.iter().any(|i| i.uses(v)));
        match self.sweeps.get(&extent) {
            Some(&var) if !nested => var,
            _ => {
                let var = self.var(extent);
                if !nested {
                    self.sweeps.insert(extent, var);
                }
                var
            }
        }
    }

    /// Whether an element is there already.
    pub fn is_done(&self, key: &Key) -> bool {
        let depth = self.depth_of(&key.1).min(self.depth());
        self.scopes[depth].elements.contains_key(key) || self.kept.iter().any(|k| k.matches(key))
    }

    /// Whether all variables of an index are the row's.
    pub fn is_row_level(&self, index: &[Affine]) -> bool {
        let mut row = true;
        for i in index {
            i.each_var(&mut |v| row &= self.vars.get(&v).is_some_and(|r| self.depths[r.0 as usize] == 0));
        }
        row
    }

    /// What a resolved element is made of.
    pub fn expand(&mut self, key: &Key) -> Result<Node> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            let what = format!("one kernel would be made of more than {MOST_ELEMENTS} elements; use a smaller region");
            CodegenError::Region { at: self.closed.at.clone(), what }
        })?;
        expand(self.closed, &self.ranges, key)
    }

    /// Goes one step deeper.
    pub fn enter(&mut self) -> Result<()> {
        self.nesting += 1;
        if self.nesting > DEEPEST {
            let what = format!("its operations nest more than {DEEPEST} deep; use a smaller region");
            return Err(CodegenError::Region { at: self.closed.at.clone(), what });
        }
        Ok(())
    }

    /// Comes back.
    pub fn leave(&mut self) {
        self.nesting -= 1;
    }

    /// Gives a variable its register.
    pub fn bind(&mut self, var: Var, reg: Reg) {
        self.vars.insert(var, reg);
    }

    /// Opens a loop over `0..extent` and returns its variable.
    pub fn open(&mut self, extent: Extent, lanes: bool) -> Var {
        self.scopes.push(Scope::default());
        let reg = self.reg(Ty::Index, self.depth());
        let var = self.var(extent);
        self.bind(var, reg);
        if lanes {
            let scalar = self.var(extent);
            self.bind(scalar, reg);
            self.scalar_of.insert(var, scalar);
            self.lane = Some(var);
        }
        var
    }

    /// Closes the innermost loop; returns the register that holds the variable's last value.
    pub fn close(&mut self, var: Var, begin: Index, end: Index, step: usize, carried: Vec<Carried>) -> Reg {
        let scope = self.scopes.pop().unwrap_or_default();
        if self.lane == Some(var) {
            self.lane = None;
        }
        let depth = self.depth();
        let last = self.reg(Ty::Index, depth);
        let var = self.vars[&var];
        let l = Loop { var, begin, end, step, carried, last, body: scope.stmts };
        self.scopes[depth].stmts.push(Stmt::Loop(Box::new(l)));
        last
    }

    /// Sets the loops inside `depth` aside, so that statements go to the loop at `depth`.
    pub fn set_aside(&mut self, depth: usize) -> SetAside {
        SetAside(self.scopes.split_off(depth + 1))
    }

    /// Takes them back.
    pub fn take_back(&mut self, aside: SetAside) {
        self.scopes.extend(aside.0);
    }

    /// Remembers an element of the loop at `depth`, so that it is not emitted again.
    pub fn remember(&mut self, key: Key, reg: Reg, depth: usize) {
        self.scopes[depth].elements.insert(key, reg);
    }

    /// The innermost loop on whose variable an index depends.
    pub fn depth_of(&self, index: &[Affine]) -> usize {
        let mut depth = 0;
        for i in index {
            i.each_var(&mut |v| {
                if let Some(reg) = self.vars.get(&v) {
                    depth = depth.max(self.depths[reg.0 as usize]);
                }
            });
        }
        depth
    }

    /// The buffer of an operand.
    pub fn buffer(&mut self, operand: Operand, dtype: DType, stored: bool) -> Place {
        let at = match self.buffers.iter().position(|(o, _)| *o == operand) {
            Some(at) => at,
            None => {
                self.buffers.push((operand, Buffer { dtype, stored }));
                self.buffers.len() - 1
            }
        };
        Place::Buffer(at)
    }

    /// An index of the loop IR.
    pub fn index(&mut self, affine: &Affine) -> Result<Index> {
        let mut index = Index::constant(affine.constant);
        for (atom, c) in &affine.terms {
            let reg = match atom {
                Atom::One => None,
                Atom::Var(v) => Some(self.vars[v]),
                _ => Some(self.atom(atom)?),
            };
            index.terms.push((*c, reg));
        }
        // The innermost variable last: what comes before it does not change in its loop.
        index.terms.sort_by_key(|(_, reg)| reg.map(|r| (self.depths[r.0 as usize], r)));
        Ok(index)
    }

    fn atom(&mut self, atom: &Atom) -> Result<Reg> {
        let depth = self.depth_of(&[Affine::atom(atom.clone())]);
        if let Some(&reg) = self.scopes[depth].atoms.get(atom) {
            return Ok(reg);
        }
        let expr = match atom {
            Atom::Div(x, d) => Expr::Quotient(self.index(x)?, *d),
            Atom::Rem(x, d) => Expr::Remainder(self.index(x)?, *d),
            Atom::Clamp(x, low, high) => Expr::Clamp(self.index(x)?, *low, *high),
            Atom::Fetch(value, index) => Expr::ToIndex(self.demand(*value, index)?),
            Atom::One | Atom::Var(_) => {
                return Err(CodegenError::Plan(format!("{atom:?} is no index of its own")));
            }
        };
        let reg = self.emit(depth, Ty::Index, expr);
        self.scopes[depth].atoms.insert(atom.clone(), reg);
        Ok(reg)
    }

    /// Lanes of a register's type.
    pub fn lanes(&self, reg: Reg) -> usize {
        match self.tys[reg.0 as usize] {
            Ty::Element(_, lanes) => lanes,
            Ty::Index => 1,
        }
    }

    fn kind(&self, reg: Reg) -> Kind {
        match self.tys[reg.0 as usize] {
            Ty::Element(kind, _) => kind,
            Ty::Index => Kind::I32,
        }
    }

    /// A register in all lanes.
    pub fn splat(&mut self, reg: Reg) -> Reg {
        if self.lanes(reg) == LANES {
            return reg;
        }
        let depth = self.depths[reg.0 as usize];
        if let Some(&s) = self.scopes[depth].splats.get(&reg) {
            return s;
        }
        let s = self.emit(depth, Ty::Element(self.kind(reg), LANES), Expr::Splat(reg));
        self.scopes[depth].splats.insert(reg, s);
        s
    }

    /// The element as lanes, where the lane variable is in use.
    pub fn demand_lanes(&mut self, value: Value, index: &[Affine]) -> Result<Reg> {
        let reg = self.demand(value, index)?;
        Ok(if self.lane.is_some() { self.splat(reg) } else { reg })
    }

    /// The element `value[index]`: four lanes where it depends on the lane variable, else one.
    pub fn demand(&mut self, value: Value, index: &[Affine]) -> Result<Reg> {
        let key = resolve(self.closed, &self.ranges, &(value, index.to_vec()));
        let depth = self.depth_of(&key.1);
        if let Some(&reg) = self.scopes[depth].elements.get(&key) {
            return Ok(reg);
        }
        self.enter()?;
        let reg = match self.reload(&key, depth)? {
            Some(reg) => reg,
            None => {
                let node = self.expand(&key)?;
                self.node(&key, node, depth)?
            }
        };
        self.leave();
        self.scopes[depth].elements.insert(key, reg);
        Ok(reg)
    }

    /// The lane variable, if the index depends on it.
    pub fn uses_lane(&self, index: &[Affine]) -> Option<Var> {
        self.lane.filter(|&l| index.iter().any(|i| i.uses(l)))
    }

    /// An element kept in scratch by an earlier sweep.
    fn reload(&mut self, key: &Key, depth: usize) -> Result<Option<Reg>> {
        let (value, index) = key;
        let hit = self.kept.iter().find(|k| k.matches(key));
        let Some(Kept { position, offset, .. }) = hit.cloned() else { return Ok(None) };
        let dtype = match Kind::of(self.closed.graph.ty(*value).dtype) {
            Kind::F32 => DType::F32,
            Kind::I32 => DType::I32,
            Kind::Bool => DType::Bool,
        };
        self.load(Place::Scratch(offset), dtype, &index[position], depth).map(Some)
    }

    /// Loads an element, or four if the offset runs with the lane variable.
    fn load(&mut self, place: Place, dtype: DType, offset: &Affine, depth: usize) -> Result<Reg> {
        let kind = Kind::of(dtype);
        let Some(lane) = self.uses_lane(std::slice::from_ref(offset)) else {
            let at = self.index(offset)?;
            return Ok(self.emit(depth, Ty::Element(kind, 1), Expr::Load(place, dtype, at)));
        };
        if offset.split_var(lane).is_some_and(|(c, _)| c == Extent::ONE) {
            let at = self.index(offset)?;
            return Ok(self.emit(depth, Ty::Element(kind, LANES), Expr::Load(place, dtype, at)));
        }
        self.pack(lane, kind, depth, &mut |b, step| {
            let at = b.index(&offset.substitute(lane, step, &b.ranges))?;
            Ok(b.emit(depth, Ty::Element(kind, 1), Expr::Load(place, dtype, at)))
        })
    }

    /// Four elements made one by one: `f` gets what replaces the lane variable.
    fn pack(
        &mut self,
        lane: Var,
        kind: Kind,
        depth: usize,
        f: &mut dyn FnMut(&mut Self, &Affine) -> Result<Reg>,
    ) -> Result<Reg> {
        let scalar = Affine::var(self.scalar_of[&lane]);
        let mut regs = [Reg(0); LANES];
        for (l, reg) in regs.iter_mut().enumerate() {
            *reg = f(self, &scalar.offset(l as i64))?;
        }
        Ok(self.emit(depth, Ty::Element(kind, LANES), Expr::Pack(regs)))
    }

    fn node(&mut self, key: &Key, node: Node, depth: usize) -> Result<Reg> {
        match node {
            Node::Load { param, offset, dtype } => {
                let place = self.buffer(Operand::Param(param), dtype, false);
                self.load(place, dtype, &offset, depth)
            }
            Node::Splat(scalar) => {
                let (kind, expr) = match scalar {
                    Scalar::Float(v) => (Kind::F32, Expr::F32(v.to_bits())),
                    Scalar::Int(v) => (Kind::I32, Expr::I32(v)),
                    Scalar::Bool(v) => (Kind::Bool, Expr::Bool(v)),
                };
                Ok(self.emit(depth, Ty::Element(kind, 1), expr))
            }
            Node::Int(at) => self.int(&at, depth),
            Node::Apply(op, args) => {
                let mut regs = vec![];
                for (value, index) in &args {
                    regs.push(self.demand(*value, index)?);
                }
                Ok(self.apply(op, regs, depth))
            }
            Node::Reduce { .. } => {
                self.reduce(std::slice::from_ref(key), &[])?;
                self.scopes[depth].elements.get(key).copied().ok_or_else(|| CodegenError::Region {
                    at: self.closed.at.clone(),
                    what: "a reduction was not found where it is needed".into(),
                })
            }
            Node::Choose { at, parts } => {
                let position = self.int(&at, depth)?;
                let mut chosen = None;
                for (end, (value, index)) in parts.iter().rev() {
                    let part = self.demand(*value, index)?;
                    chosen = Some(match chosen {
                        None => part,
                        Some(later) => {
                            let end = i32::try_from(*end).unwrap_or(i32::MAX);
                            let end = self.emit(depth, Ty::Element(Kind::I32, 1), Expr::I32(end));
                            let here = self.apply(ElementOp::Compare(CompareOp::Lt), vec![position, end], depth);
                            self.apply(ElementOp::Select, vec![here, part, later], depth)
                        }
                    });
                }
                chosen.ok_or_else(|| CodegenError::Region {
                    at: self.closed.at.clone(),
                    what: "`concat` of nothing".into(),
                })
            }
            Node::Tile { row, col } => self.tile(&row, &col, depth),
        }
    }

    /// An index as i32 elements.
    fn int(&mut self, at: &Affine, depth: usize) -> Result<Reg> {
        match self.uses_lane(std::slice::from_ref(at)) {
            Some(lane) if at.split_var(lane).is_none_or(|(c, _)| c != Extent::ONE) => {
                self.pack(lane, Kind::I32, depth, &mut |b, step| {
                    let at = b.index(&at.substitute(lane, step, &b.ranges))?;
                    Ok(b.emit(depth, Ty::Element(Kind::I32, 1), Expr::FromIndex(at)))
                })
            }
            lane => {
                let at = self.index(at)?;
                let lanes = if lane.is_some() { LANES } else { 1 };
                Ok(self.emit(depth, Ty::Element(Kind::I32, lanes), Expr::FromIndex(at)))
            }
        }
    }

    /// Emits an operation on registers, in lanes if one of them has lanes.
    pub fn apply(&mut self, op: ElementOp, mut regs: Vec<Reg>, depth: usize) -> Reg {
        let lanes = regs.iter().map(|&r| self.lanes(r)).max().unwrap_or(1);
        if lanes == LANES {
            for r in &mut regs {
                *r = self.splat(*r);
            }
        }
        let kind = self.kind(regs[0]);
        match (op, regs.as_slice()) {
            (ElementOp::Unary(op), &[a]) => self.emit(depth, Ty::Element(kind, lanes), Expr::Unary(op, a)),
            (ElementOp::Binary(op), &[a, b]) => self.emit(depth, Ty::Element(kind, lanes), Expr::Binary(op, a, b)),
            (ElementOp::Compare(op), &[a, b]) => {
                self.emit(depth, Ty::Element(Kind::Bool, lanes), Expr::Compare(op, a, b))
            }
            (ElementOp::Select, &[c, a, b]) => {
                let kind = self.kind(a);
                self.emit(depth, Ty::Element(kind, lanes), Expr::Select(c, a, b))
            }
            (ElementOp::Convert(how), &[a]) => how.iter().fold(a, |a, &how| {
                let kind = match how {
                    crate::loops::Convert::FloatToInt => Kind::I32,
                    _ => Kind::F32,
                };
                self.emit(depth, Ty::Element(kind, lanes), Expr::Convert(how, a))
            }),
            // Arity is the typing rules' business.
            (_, regs) => regs[0],
        }
    }

    fn tile(&mut self, row: &Affine, col: &Affine, depth: usize) -> Result<Reg> {
        let refused = |what: &str| CodegenError::Region { at: self.closed.at.clone(), what: what.into() };
        let Some(width) = self.segment_width else {
            return Err(refused("`dot` inside a row kernel; it is a step of its own, or the head of an epilogue"));
        };
        // Where its bounds name the segment the column keeps its form: divided by a width of 1 it would all be quotient.
        let wide = i64::try_from(width).unwrap_or(i64::MAX);
        let (segment, col) = match col.range(&self.ranges) {
            Some((low, high)) if low.div_euclid(wide) == high.div_euclid(wide) => {
                let segment = low.div_euclid(wide);
                (Affine::constant(segment), col.offset(-segment * wide))
            }
            _ => col.div_rem(Extent::constant(width as u64), &self.ranges),
        };
        let segment = segment
            .as_constant()
            .and_then(|s| usize::try_from(s).ok())
            .ok_or_else(|| refused("the epilogue reads a column of the dot's result that is not in its tile"))?;
        let index = [row.clone(), col.clone()];
        match self.uses_lane(&index) {
            Some(lane) if row.uses(lane) || col.split_var(lane).is_none_or(|(c, _)| c != Extent::ONE) => {
                self.pack(lane, Kind::F32, depth, &mut |b, step| {
                    let row = b.index(&row.substitute(lane, step, &b.ranges))?;
                    let col = b.index(&col.substitute(lane, step, &b.ranges))?;
                    Ok(b.emit(depth, Ty::Element(Kind::F32, 1), Expr::Tile(segment, row, col)))
                })
            }
            lane => {
                let (row, col) = (self.index(row)?, self.index(&col)?);
                let lanes = if lane.is_some() { LANES } else { 1 };
                Ok(self.emit(depth, Ty::Element(Kind::F32, lanes), Expr::Tile(segment, row, col)))
            }
        }
    }

    /// Puts an element, or four, in place of the first segment's accumulators, in the innermost loop.
    pub fn set_tile(&mut self, row: Var, col: Var, value: Reg) -> Result<()> {
        let (row, col) = (self.index(&Affine::var(row))?, self.index(&Affine::var(col))?);
        let depth = self.depth();
        self.scopes[depth].stmts.push(Stmt::SetTile(0, row, col, value));
        Ok(())
    }

    /// Makes a line of others.
    pub fn stretch(&mut self, stretch: Stretch) {
        let depth = self.depth();
        self.scopes[depth].stmts.push(Stmt::Stretch(stretch));
    }

    /// Stores an element, or four, in the innermost loop.
    pub fn store(&mut self, place: Place, dtype: DType, offset: &Affine, value: Reg) -> Result<()> {
        let at = self.index(offset)?;
        let depth = self.depth();
        self.scopes[depth].stmts.push(Stmt::Store(place, dtype, at, value));
        Ok(())
    }
}

/// Loops set aside.
#[derive(Debug)]
pub struct SetAside(Vec<Scope>);
