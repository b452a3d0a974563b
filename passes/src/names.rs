//! What people call a region: `rmsnorm`, `rope_write`, `silu_mul`. Found by structure, and only a name: nothing depends on it.

use crate::indexing::is_transparent;
use llamac_ir::{BinaryOp, ConstKind, Graph, Inst, Op, ReduceOp, UnaryOp, Value};
use std::collections::HashMap;

/// The most parts of a name.
const MAX_PARTS: usize = 5;

/// The name of a row region.
pub fn rows(region: &Graph) -> String {
    Names::new(region).name(|op| op.mnemonic())
}

/// The name of an epilogue's region; its dot goes without saying.
pub fn epilogue(region: &Graph) -> String {
    Names::new(region).name(|op| op.mnemonic())
}

struct Names<'a> {
    graph: &'a Graph,
    uses: HashMap<Value, Vec<Inst>>,
    /// Which idiom an instruction is part of.
    idiom: HashMap<Inst, &'static str>,
}

impl<'a> Names<'a> {
    fn new(graph: &'a Graph) -> Names<'a> {
        let mut names = Names { graph, uses: graph.uses(), idiom: HashMap::new() };
        for &inst in graph.order() {
            match graph.op(inst) {
                Op::Unary(UnaryOp::Rsqrt) => names.rmsnorm(inst),
                Op::Reduce { op: ReduceOp::Max, .. } => names.softmax(inst),
                Op::Concat { .. } => names.rope(inst),
                Op::Binary(BinaryOp::Div) => names.silu(inst),
                Op::StateWrite => names.claim(&[inst], "write"),
                Op::Binary(BinaryOp::Add) => names.addition(inst),
                _ => None,
            };
        }
        names
    }

    fn name(&self, leftover: impl Fn(&Op) -> &'static str) -> String {
        let mut parts: Vec<&str> = Vec::new();
        for &inst in self.graph.order() {
            let op = self.graph.op(inst);
            let silent = op.is_leaf() || is_transparent(op) || matches!(op, Op::Dot(_));
            let part = match self.idiom.get(&inst) {
                Some(part) => part,
                None if silent => continue,
                None if self.graph.results(inst).iter().any(|&v| self.graph.ty(v).dtype.is_block()) => "quantize",
                None => leftover(op),
            };
            let repeated = parts.last() == Some(&part) || self.idiom.contains_key(&inst) && parts.contains(&part);
            if !repeated {
                parts.push(part);
            }
        }
        // A gated activation has one name; a mask and a scale are part of a softmax.
        let mut name = parts.iter().take(MAX_PARTS).copied().collect::<Vec<_>>().join("_");
        if parts.len() > MAX_PARTS {
            name.push_str("_etc");
        }
        if name.is_empty() { "view".to_string() } else { name }
    }

    fn claim(&mut self, insts: &[Inst], idiom: &'static str) -> Option<()> {
        for &inst in insts {
            self.idiom.entry(inst).or_insert(idiom);
        }
        Some(())
    }

    /// The instruction behind a value, views read through.
    fn behind(&self, v: Value) -> Inst {
        let mut inst = self.graph.def(v);
        while is_transparent(self.graph.op(inst)) {
            inst = self.graph.def(self.graph.operands(inst)[0]);
        }
        inst
    }

    fn operand(&self, inst: Inst, i: usize) -> Inst {
        self.behind(self.graph.operands(inst)[i])
    }

    fn is(&self, inst: Inst, op: BinaryOp) -> Option<Inst> {
        (*self.graph.op(inst) == Op::Binary(op)).then_some(inst)
    }

    fn is_splat(&self, inst: Inst) -> bool {
        matches!(self.graph.op(inst), Op::Const(ConstKind::Splat(_)))
    }

    /// The operand of a binary op that is no constant, where the other is one.
    fn but_splat(&self, inst: Inst) -> Option<Inst> {
        let (x, y) = (self.operand(inst, 0), self.operand(inst, 1));
        match (self.is_splat(x), self.is_splat(y)) {
            (false, true) => Some(x),
            (true, false) => Some(y),
            _ => None,
        }
    }

    /// Instructions that use an instruction's result, views read through.
    fn users(&self, inst: Inst) -> Vec<Inst> {
        let mut work = vec![inst];
        let mut users = Vec::new();
        while let Some(i) = work.pop() {
            for user in self.graph.results(i).iter().filter_map(|v| self.uses.get(v)).flatten() {
                let to = if is_transparent(self.graph.op(*user)) { &mut work } else { &mut users };
                to.push(*user);
            }
        }
        users.sort_unstable();
        users.dedup();
        users
    }

    /// x · rsqrt(mean(x²) + ε), and · weight.
    fn rmsnorm(&mut self, rsqrt: Inst) -> Option<()> {
        let add = self.is(self.operand(rsqrt, 0), BinaryOp::Add)?;
        let mean = self.is(self.but_splat(add)?, BinaryOp::Mul)?;
        let sum = self.but_splat(mean)?;
        if !matches!(self.graph.op(sum), Op::Reduce { op: ReduceOp::Sum, .. }) {
            return None;
        }
        let square = self.is(self.operand(sum, 0), BinaryOp::Mul)?;
        let mut all = vec![square, sum, mean, add, rsqrt];
        if let [scaled] = self.users(rsqrt)[..] {
            all.push(self.is(scaled, BinaryOp::Mul)?);
            if let [weighted] = self.users(scaled)[..]
                && self.is(weighted, BinaryOp::Mul).is_some()
                && (0..2).any(|i| matches!(self.graph.op(self.operand(weighted, i)), Op::Param { .. }))
            {
                all.push(weighted);
            }
        }
        self.claim(&all, "rmsnorm")
    }

    fn softmax(&mut self, max: Inst) -> Option<()> {
        let users = self.users(max);
        let sub = *users.iter().find(|&&u| self.is(u, BinaryOp::Sub).is_some())?;
        let exp = self.users(sub).into_iter().find(|&u| *self.graph.op(u) == Op::Unary(UnaryOp::Exp))?;
        let reduce = |i: &Inst| matches!(self.graph.op(*i), Op::Reduce { op: ReduceOp::Sum, .. });
        let sum = self.users(exp).into_iter().find(reduce)?;
        let mut all = vec![max, sub, exp, sum];
        for user in self.users(sum) {
            all.push(user);
            if *self.graph.op(user) == Op::Unary(UnaryOp::Recip) {
                all.extend(self.users(user));
            }
        }
        let mut before = self.operand(max, 0);
        if matches!(self.graph.op(before), Op::Select) {
            let mask = self.operand(before, 0);
            all.extend([before, mask]);
            before = (1..3).map(|i| self.operand(before, i)).find(|&i| !self.is_splat(i))?;
        }
        if (self.is(before, BinaryOp::Mul).is_some() || self.is(before, BinaryOp::Div).is_some())
            && self.but_splat(before).is_some()
        {
            all.push(before);
        }
        self.claim(&all, "softmax")
    }

    /// concat(x1·c − x2·s, x2·c + x1·s)
    fn rope(&mut self, concat: Inst) -> Option<()> {
        if self.graph.operands(concat).len() != 2 {
            return None;
        }
        let (sub, add) = (self.operand(concat, 0), self.operand(concat, 1));
        let mut all = vec![concat, self.is(sub, BinaryOp::Sub)?, self.is(add, BinaryOp::Add)?];
        for (half, i) in [(sub, 0), (sub, 1), (add, 0), (add, 1)] {
            let product = self.is(self.operand(half, i), BinaryOp::Mul)?;
            all.push(product);
            let factors = (0..2).map(|j| self.operand(product, j));
            all.extend(factors.filter(|&f| matches!(self.graph.op(f), Op::Gather)));
        }
        self.claim(&all, "rope")
    }

    /// g / (1 + exp(−g)), and · u.
    fn silu(&mut self, div: Inst) -> Option<()> {
        let g = self.graph.operands(div)[0];
        let one_more = self.is(self.operand(div, 1), BinaryOp::Add)?;
        let exp = self.but_splat(one_more)?;
        if *self.graph.op(exp) != Op::Unary(UnaryOp::Exp) {
            return None;
        }
        let neg = self.operand(exp, 0);
        if *self.graph.op(neg) != Op::Unary(UnaryOp::Neg) || self.graph.operands(neg)[0] != g {
            return None;
        }
        let mut all = vec![div, one_more, exp, neg];
        let gated = match self.users(div)[..] {
            [mul] => self.is(mul, BinaryOp::Mul),
            _ => None,
        };
        all.extend(gated);
        self.claim(&all, if gated.is_some() { "silu_mul" } else { "silu" })
    }

    /// To a dot's result, a vector along its columns is a bias and a matrix a residual.
    fn addition(&mut self, add: Inst) -> Option<()> {
        let on_dot = self.graph.order().iter().any(|&i| matches!(self.graph.op(i), Op::Dot(_)));
        let param = self
            .graph
            .operands(add)
            .iter()
            .copied()
            .find(|&v| matches!(self.graph.op(self.behind(v)), Op::Param { .. }))?;
        let vector = self.graph.ty(self.graph.result(self.behind(param))).rank() == 1;
        match (on_dot, vector) {
            (true, true) => self.claim(&[add], "bias"),
            (true, false) => self.claim(&[add], "residual"),
            _ => None,
        }
    }
}
