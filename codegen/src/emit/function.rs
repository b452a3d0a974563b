//! The frame of a kernel: arguments, the loop over rows, structured loops, indices and addresses.

use crate::loops::{Count, Expr, Index, Kernel, Kind, LANES, Line, Loop, Place, Reg, Space, Stmt, Stretch, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I8, I32, I32X4, I64};
use cranelift_codegen::ir::{
    AbiParam, BlockArg, Function, InstBuilder, MemFlagsData, Signature, Type, UserFuncName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use llamac_formats::program::{KernelArgs, Tile};
use llamac_formats::{DType, Extent, Sym};
use std::collections::HashMap;
use std::mem::offset_of;

/// Loads and stores never trap and promise no alignment: vectors lie at any element.
pub(super) fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// The CLIF type of a register.
pub(super) fn clif_type(ty: Ty) -> Type {
    match ty {
        Ty::Index => I64,
        Ty::Element(Kind::F32, 1) => F32,
        Ty::Element(Kind::I32, 1) => I32,
        Ty::Element(Kind::Bool, 1) => I8,
        Ty::Element(Kind::F32, _) => F32X4,
        // A truth value in lanes is a mask: all bits or none.
        Ty::Element(Kind::I32 | Kind::Bool, _) => I32X4,
    }
}

/// A kernel on its way to CLIF.
pub(super) struct Emit<'a, 'f> {
    pub b: FunctionBuilder<'f>,
    pub kernel: &'a Kernel,
    pub fma: bool,
    regs: Vec<Option<Value>>,
    buffers: Vec<Value>,
    syms: HashMap<Sym, Value>,
    scratch: Option<Value>,
    /// The runtime's routines.
    routines: Option<Value>,
    tile: Option<TileValues>,
}

/// What an epilogue reads of its tile.
#[derive(Clone, Copy)]
struct TileValues {
    acc: Value,
    row_begin: Value,
    col_begin: Value,
    row_stride: Value,
    segment_stride: Value,
}

/// Spells a kernel as CLIF.
pub(super) fn build(isa: &dyn TargetIsa, kernel: &Kernel, fma: bool) -> Function {
    let mut signature = Signature::new(CallConv::triple_default(isa.triple()));
    let arguments = if matches!(kernel.space, Space::Rows { .. }) { 3 } else { 2 };
    for _ in 0..arguments {
        signature.params.push(AbiParam::new(I64));
    }
    let mut function = Function::with_name_signature(UserFuncName::user(0, 0), signature);
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let params = b.block_params(entry).to_vec();
    let mut e = Emit {
        b,
        kernel,
        fma,
        regs: vec![None; kernel.tys.len()],
        buffers: vec![],
        syms: HashMap::new(),
        scratch: None,
        routines: None,
        tile: None,
    };
    e.frame(&params);
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
    e.b.finalize(isa.frontend_config());
    function
}

impl Emit<'_, '_> {
    fn word(&mut self, base: Value, offset: usize) -> Value {
        self.b.ins().load(I64, memory(), base, offset as i32)
    }

    fn frame(&mut self, params: &[Value]) {
        let args = params[0];
        if !self.kernel.buffers.is_empty() {
            let table = self.word(args, offset_of!(KernelArgs, buffers));
            self.buffers = (0..self.kernel.buffers.len()).map(|i| self.word(table, 8 * i)).collect();
        }
        if !self.kernel.syms.is_empty() {
            let table = self.word(args, offset_of!(KernelArgs, scalars));
            for (i, &sym) in self.kernel.syms.iter().enumerate() {
                let value = self.word(table, 8 * i);
                self.syms.insert(sym, value);
            }
        }
        if self.kernel.scratch > 0 {
            self.scratch = Some(self.word(args, offset_of!(KernelArgs, scratch)));
        }
        if self.kernel.calls() {
            self.routines = Some(self.word(args, offset_of!(KernelArgs, routines)));
        }
        let (row, begin, end) = match self.kernel.space {
            Space::Rows { row } => (row, params[1], params[2]),
            Space::Tile { row, begin, end } => {
                let tile = params[1];
                let [acc, row_begin, row_end, col_begin, col_end, row_stride, segment_stride] = [
                    offset_of!(Tile, acc),
                    offset_of!(Tile, row_begin),
                    offset_of!(Tile, row_end),
                    offset_of!(Tile, col_begin),
                    offset_of!(Tile, col_end),
                    offset_of!(Tile, row_stride),
                    offset_of!(Tile, segment_stride),
                ]
                .map(|offset| self.word(tile, offset));
                self.set(begin, col_begin);
                self.set(end, col_end);
                self.tile = Some(TileValues { acc, row_begin, col_begin, row_stride, segment_stride });
                (row, row_begin, row_end)
            }
        };
        let kernel = self.kernel;
        self.counted(row, begin, end, 1, &[], &mut |e| {
            e.block(&kernel.body);
            vec![]
        });
    }

    /// A register's value. A register is assigned before it is used, or the loop IR is wrong.
    pub fn get(&self, reg: Reg) -> Value {
        self.regs[reg.0 as usize].unwrap_or_else(|| unreachable!("register {} is used before it is assigned", reg.0))
    }

    fn set(&mut self, reg: Reg, value: Value) {
        self.regs[reg.0 as usize] = Some(value);
    }

    /// `for var in begin..end step n`, tested at the bottom. `body` returns what the carried values become. Returns the
    /// variable's last value and the carried ones'.
    fn counted(
        &mut self,
        var: Reg,
        begin: Value,
        end: Value,
        step: usize,
        carried: &[(Reg, Value)],
        body: &mut dyn FnMut(&mut Self) -> Vec<Value>,
    ) -> Vec<Value> {
        let (head, exit) = (self.b.create_block(), self.b.create_block());
        let mut init: Vec<BlockArg> = vec![begin.into()];
        for block in [head, exit] {
            self.b.append_block_param(block, I64);
        }
        for &(reg, value) in carried {
            let ty = clif_type(self.kernel.ty(reg));
            self.b.append_block_param(head, ty);
            self.b.append_block_param(exit, ty);
            init.push(value.into());
        }
        // It runs while var + step ≤ end, that is var ≤ last.
        let last = if step == 1 { None } else { Some(self.b.ins().iadd_imm_s(end, -(step as i64))) };
        let more = |e: &mut Self, v: Value| match last {
            None => e.b.ins().icmp(IntCC::SignedLessThan, v, end),
            Some(last) => e.b.ins().icmp(IntCC::SignedLessThanOrEqual, v, last),
        };
        let some = more(self, begin);
        self.b.ins().brif(some, head, &init, exit, &init);
        self.b.switch_to_block(head);
        let params = self.b.block_params(head).to_vec();
        self.set(var, params[0]);
        for (&(reg, _), &param) in carried.iter().zip(&params[1..]) {
            self.set(reg, param);
        }
        let next = body(self);
        let advanced = self.b.ins().iadd_imm_s(params[0], step as i64);
        let mut out: Vec<BlockArg> = vec![advanced.into()];
        out.extend(next.into_iter().map(BlockArg::from));
        let again = more(self, advanced);
        self.b.ins().brif(again, head, &out, exit, &out);
        self.b.switch_to_block(exit);
        self.b.block_params(exit).to_vec()
    }

    fn block(&mut self, stmts: &[Stmt]) {
        for s in stmts {
            match s {
                Stmt::Let(reg, expr) => {
                    let value = self.expr(*reg, expr);
                    self.set(*reg, value);
                }
                Stmt::Store(place, dtype, index, value) => {
                    let value = self.get(*value);
                    let (base, offset) = self.address(*place, index, dtype.bytes());
                    self.store(*dtype, base, offset, value);
                }
                Stmt::SetTile(segment, row, col, value) => {
                    let value = self.get(*value);
                    let (base, offset) = self.tile_address(*segment, row, col);
                    self.b.ins().store(memory(), value, base, offset);
                }
                Stmt::Stretch(s) => self.stretch(s),
                Stmt::Loop(l) => self.run(l),
            }
        }
    }

    /// Calls the runtime's routine: `(to, from…, n)`.
    fn stretch(&mut self, Stretch { routine, to, from, count }: &Stretch) {
        let mut arguments = vec![self.line(to, routine.signature().1)];
        arguments.extend(from.iter().map(|line| self.line(line, DType::F32)));
        arguments.push(match (count, self.kernel.space) {
            (Count::Elements(n), _) => self.b.ins().iconst(I64, *n as i64),
            (Count::Columns, Space::Tile { begin, end, .. }) => {
                let (begin, end) = (self.get(begin), self.get(end));
                self.b.ins().isub(end, begin)
            }
            (Count::Columns, Space::Rows { .. }) => unreachable!("a row kernel has no columns"),
        });
        let routines = self.routines.unwrap_or_else(|| unreachable!("the kernel calls routines"));
        let address = self.word(routines, 8 * *routine as usize);
        let mut signature = Signature::new(self.b.func.signature.call_conv);
        signature.params.extend(vec![AbiParam::new(I64); arguments.len()]);
        let signature = self.b.import_signature(signature);
        self.b.ins().call_indirect(signature, address, &arguments);
    }

    /// The address of a line's first element.
    fn line(&mut self, line: &Line, dtype: DType) -> Value {
        let (elements, bytes) = dtype.block();
        let (address, offset) = match (line, self.kernel.space) {
            (Line::Memory(place, at), _) if elements == 1 => self.address(*place, at, bytes),
            (Line::Memory(place, at), _) => {
                let (base, constant) = self.base(*place);
                let at = self.index(at);
                let block = self.b.ins().udiv_imm_u(at, elements as i64);
                let offset = self.b.ins().imul_imm_s(block, bytes as i64);
                let address = self.b.ins().iadd(base, offset);
                (self.b.ins().iadd_imm_s(address, constant), 0)
            }
            (Line::Tile(segment), Space::Tile { row, begin, .. }) => {
                self.tile_address(*segment, &Index::reg(row), &Index::reg(begin))
            }
            (Line::Tile(_), Space::Rows { .. }) => unreachable!("only epilogues have a tile"),
        };
        self.b.ins().iadd_imm_s(address, i64::from(offset))
    }

    fn run(&mut self, l: &Loop) {
        let begin = self.index(&l.begin);
        let end = self.index(&l.end);
        let carried: Vec<(Reg, Value)> = l.carried.iter().map(|c| (c.current, self.get(c.init))).collect();
        let results = self.counted(l.var, begin, end, l.step, &carried, &mut |e| {
            e.block(&l.body);
            l.carried.iter().map(|c| e.get(c.next)).collect()
        });
        self.set(l.last, results[0]);
        for (c, &value) in l.carried.iter().zip(&results[1..]) {
            self.set(c.result, value);
        }
    }

    fn extent(&mut self, extent: Extent) -> Value {
        let mut value = self.b.ins().iconst(I64, extent.factor as i64);
        for sym in Sym::ALL {
            for _ in 0..extent.powers[sym as usize] {
                let s = self.syms[&sym];
                value = self.b.ins().imul(value, s);
            }
        }
        value
    }

    /// An index without its constant, if it has any terms.
    fn terms(&mut self, index: &Index, scale: u64) -> Option<Value> {
        let mut sum: Option<Value> = None;
        for &(coefficient, reg) in &index.terms {
            let coefficient = coefficient.times(Extent::constant(scale));
            let term = match (reg, coefficient.as_constant()) {
                (None, _) => self.extent(coefficient),
                (Some(reg), Some(1)) => self.get(reg),
                (Some(reg), Some(c)) if c.is_power_of_two() => {
                    let reg = self.get(reg);
                    self.b.ins().ishl_imm_u(reg, i64::from(c.trailing_zeros()))
                }
                (Some(reg), Some(c)) => {
                    let reg = self.get(reg);
                    self.b.ins().imul_imm_s(reg, c as i64)
                }
                (Some(reg), None) => {
                    let reg = self.get(reg);
                    let c = self.extent(coefficient);
                    self.b.ins().imul(reg, c)
                }
            };
            sum = Some(match sum {
                None => term,
                Some(sum) => self.b.ins().iadd(sum, term),
            });
        }
        sum
    }

    /// The value of an index.
    pub fn index(&mut self, index: &Index) -> Value {
        match self.terms(index, 1) {
            None => self.b.ins().iconst(I64, index.constant),
            Some(sum) if index.constant == 0 => sum,
            Some(sum) => self.b.ins().iadd_imm_s(sum, index.constant),
        }
    }

    /// Where a place begins: an address and bytes from there.
    fn base(&self, place: Place) -> (Value, i64) {
        match place {
            Place::Buffer(n) => (self.buffers[n], 0),
            Place::Scratch(offset) => {
                (self.scratch.unwrap_or_else(|| unreachable!("the kernel has scratch")), offset as i64)
            }
        }
    }

    /// Base and constant byte offset of an element.
    fn address(&mut self, place: Place, index: &Index, bytes: usize) -> (Value, i32) {
        let (base, constant) = self.base(place);
        // In the order of the terms: the innermost variable comes last, all before it is loop-invariant.
        let mut address = base;
        for &term in &index.terms {
            let single = Index { constant: 0, terms: vec![term] };
            if let Some(value) = self.terms(&single, bytes as u64) {
                address = self.b.ins().iadd(address, value);
            }
        }
        let constant = constant + index.constant * bytes as i64;
        match i32::try_from(constant) {
            Ok(offset) => (address, offset),
            Err(_) => (self.b.ins().iadd_imm_s(address, constant), 0),
        }
    }

    fn expr(&mut self, reg: Reg, expr: &Expr) -> Value {
        let ty = self.kernel.ty(reg);
        match expr {
            Expr::Quotient(i, d) => {
                let (i, d) = (self.index(i), self.extent(*d));
                self.b.ins().udiv(i, d)
            }
            Expr::Remainder(i, d) => {
                let (i, d) = (self.index(i), self.extent(*d));
                self.b.ins().urem(i, d)
            }
            Expr::Clamp(i, low, high) => {
                let i = self.index(i);
                let (low, high) = (self.b.ins().iconst(I64, *low), self.b.ins().iconst(I64, *high));
                let i = self.b.ins().smax(i, low);
                self.b.ins().smin(i, high)
            }
            Expr::ToIndex(r) => {
                let r = self.get(*r);
                self.b.ins().sextend(I64, r)
            }
            Expr::FromIndex(i) => {
                let i = self.index(i);
                let i = self.b.ins().ireduce(I32, i);
                if ty == Ty::Element(Kind::I32, LANES) { self.ramp(i) } else { i }
            }
            Expr::Load(place, dtype, index) => {
                let (base, offset) = self.address(*place, index, dtype.bytes());
                self.load(*dtype, ty, base, offset)
            }
            Expr::Tile(segment, row, col) => {
                let (base, offset) = self.tile_address(*segment, row, col);
                self.b.ins().load(clif_type(ty), memory(), base, offset)
            }
            Expr::F32(bits) => self.b.ins().f32const(f32::from_bits(*bits)),
            Expr::I32(v) => self.b.ins().iconst(I32, i64::from(*v)),
            Expr::Bool(v) => self.b.ins().iconst(I8, i64::from(*v)),
            Expr::Splat(r) => self.splat(*r),
            Expr::Pack(regs) => self.pack(regs),
            Expr::Unary(op, a) => {
                let a_value = self.get(*a);
                self.unary(*op, a_value)
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.get(*a), self.get(*b));
                self.binary(*op, a, b)
            }
            Expr::Compare(op, a, b) => {
                let (a, b) = (self.get(*a), self.get(*b));
                self.compare(*op, a, b)
            }
            Expr::Select(c, a, b) => {
                let (c, a, b) = (self.get(*c), self.get(*a), self.get(*b));
                self.select(c, a, b)
            }
            Expr::Convert(how, a) => {
                let a = self.get(*a);
                self.convert(*how, a)
            }
            Expr::Fold(op, a) => {
                let a = self.get(*a);
                self.fold(*op, a)
            }
        }
    }

    /// Address of an element of the tile: everything but the column is invariant in the loop over columns.
    fn tile_address(&mut self, segment: usize, row: &Index, col: &Index) -> (Value, i32) {
        let t = self.tile.unwrap_or_else(|| unreachable!("only epilogues read a tile"));
        let row = self.index(row);
        let local = self.b.ins().isub(row, t.row_begin);
        let mut at = self.b.ins().imul(local, t.row_stride);
        if segment > 0 {
            let s = self.b.ins().imul_imm_s(t.segment_stride, segment as i64);
            at = self.b.ins().iadd(at, s);
        }
        at = self.b.ins().isub(at, t.col_begin);
        let at = self.b.ins().ishl_imm_u(at, 2);
        let base = self.b.ins().iadd(t.acc, at);
        match self.terms(col, 4) {
            None => (base, 0),
            Some(value) => {
                let address = self.b.ins().iadd(base, value);
                let constant = col.constant * 4;
                match i32::try_from(constant) {
                    Ok(offset) => (address, offset),
                    Err(_) => (self.b.ins().iadd_imm_s(address, constant), 0),
                }
            }
        }
    }
}
