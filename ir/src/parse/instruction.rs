//! One instruction: results, op, operands, attributes, origin.

use super::lexer::{Token, shorten};
use super::places::Places;
use super::{MAX_REGIONS, Parser, Result, ResultName, Scope};
use crate::{BinaryOp, CompareOp, DotSpec, Fusion, FusionKind, Graph, Op, ReduceOp, Type, UnaryOp, Value};
use std::collections::HashMap;

impl<'a> Parser<'a> {
    /// `%a: T, %b: T = op … @"origin"`
    pub(super) fn instruction(&mut self, scope: &mut Scope<'a>) -> Result<()> {
        let mut results = vec![];
        loop {
            let Token::Value(name) = self.token else { return self.expected("a result `%name: type`") };
            let at = (self.start, self.end);
            self.advance()?;
            let mut ty_at = at;
            let mut ty = None;
            if self.eat(':')? {
                ty_at = (self.start, self.end);
                ty = Some(self.ty()?);
            }
            results.push(ResultName { name, at, ty, ty_at });
            if !self.eat(',')? {
                break;
            }
        }
        self.expect('=')?;
        let at = (self.start, self.end);
        let word = self.ident("an op")?;
        let ty = results.first().and_then(|r| r.ty.clone());
        let body = match self.leaf(word, at, ty.as_ref())? {
            Some(leaf) => (leaf, vec![]),
            None => self.body(scope, word, at)?,
        };
        let origin = if self.eat('@')? { self.string("the origin, a string")? } else { String::new() };
        self.define(scope, results, body, at, origin)?;
        Ok(())
    }

    /// What follows the mnemonic of an op with operands.
    fn body(&mut self, scope: &Scope<'a>, word: &str, at: (usize, usize)) -> Result<(Op, Vec<Value>)> {
        if let Some(op) = UnaryOp::from_name(word) {
            return Ok((Op::Unary(op), self.operands(scope)?));
        }
        if let Some(op) = BinaryOp::from_name(word) {
            return Ok((Op::Binary(op), self.operands(scope)?));
        }
        let plain = match word {
            "select" => Some(Op::Select),
            "cast" => Some(Op::Cast),
            "gather" => Some(Op::Gather),
            "reshape" => Some(Op::Reshape),
            "index" => Some(Op::Index),
            "state.write" => Some(Op::StateWrite),
            "copy" => Some(Op::Copy),
            _ => None,
        };
        if let Some(op) = plain {
            return Ok((op, self.operands(scope)?));
        }
        match word {
            "dot" => {
                let operands = self.operands(scope)?;
                Ok((Op::Dot(self.dot_axes()?), operands))
            }
            "cmp" => {
                let op = self.choice(CompareOp::ALL, CompareOp::name)?;
                Ok((Op::Compare(op), self.operands(scope)?))
            }
            "reduce" => {
                let op = self.choice(ReduceOp::ALL, ReduceOp::name)?;
                let operands = self.operands(scope)?;
                let [axis] = self.attributes(["axis"])?;
                Ok((Op::Reduce { op, axis }, operands))
            }
            "concat" => {
                let operands = self.operands(scope)?;
                let [axis] = self.attributes(["axis"])?;
                Ok((Op::Concat { axis }, operands))
            }
            "slice" => {
                let operands = self.operands(scope)?;
                let [axis, start, len] = self.attributes(["axis", "start", "len"])?;
                Ok((Op::Slice { axis, start, len }, operands))
            }
            "transpose" => {
                let operands = self.operands(scope)?;
                self.attribute_name("perm")?;
                Ok((Op::Transpose { perm: self.integers("an axis")? }, operands))
            }
            "broadcast" => {
                let operands = self.operands(scope)?;
                self.attribute_name("axes")?;
                Ok((Op::Broadcast { axes: self.integers("an axis")? }, operands))
            }
            "fusion" => self.fusion(scope),
            _ => Err(self.error_at(at.0, at.1, format!("there is no op `{}`", shorten(word)))),
        }
    }

    /// One of the names of an enum.
    fn choice<T: Copy>(&mut self, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T> {
        let found = match self.token {
            Token::Ident(word) => all.iter().copied().find(|&o| name(o) == word),
            _ => None,
        };
        match found {
            Some(op) => {
                self.advance()?;
                Ok(op)
            }
            None => {
                let names: Vec<String> = all.iter().map(|&o| format!("`{}`", name(o))).collect();
                self.expected(&names.join(", "))
            }
        }
    }

    /// `name=`
    pub(super) fn attribute_name(&mut self, name: &str) -> Result<()> {
        if !self.eat_word(name)? {
            return self.expected(&format!("`{name}=`"));
        }
        self.expect('=')
    }

    /// `axis=2 start=0 len=32`: all of the names, in any order.
    fn attributes<const N: usize>(&mut self, names: [&str; N]) -> Result<[usize; N]> {
        let mut found = [None; N];
        while let Some(missing) = found.iter().position(Option::is_none) {
            let Token::Ident(word) = self.token else { return self.expected(&format!("`{}=`", names[missing])) };
            let Some(i) = names.iter().position(|&n| n == word) else {
                return self.expected(&format!("`{}=`", names[missing]));
            };
            if found[i].is_some() {
                return Err(self.error(format!("`{word}` is given twice")));
            }
            self.attribute_name(word)?;
            found[i] = Some(self.integer("a number")?);
        }
        Ok(found.map(Option::unwrap_or_default))
    }

    /// `batch=[0, 1]x[0, 1] contract=[3]x[3]`
    fn dot_axes(&mut self) -> Result<DotSpec> {
        let mut spec = DotSpec { batch: vec![], contract: vec![] };
        if self.token == Token::Ident("batch") {
            spec.batch = self.axis_pairs("batch")?;
        }
        spec.contract = self.axis_pairs("contract")?;
        Ok(spec)
    }

    /// `name=[0, 1]x[0, 1]`
    fn axis_pairs(&mut self, name: &str) -> Result<Vec<(usize, usize)>> {
        self.attribute_name(name)?;
        let lhs = self.integers("an axis")?;
        if !self.eat_word("x")? {
            return self.expected("`x` and the axes of the right side");
        }
        let at = self.start;
        let rhs = self.integers("an axis")?;
        if lhs.len() != rhs.len() {
            let message = format!("`{name}` pairs {} axes with {}", lhs.len(), rhs.len());
            return Err(self.error_at(at, at + 1, message));
        }
        Ok(lhs.into_iter().zip(rhs).collect())
    }

    /// `rows "silu" (%6, %7) { … yield %2 }`
    fn fusion(&mut self, scope: &Scope<'a>) -> Result<(Op, Vec<Value>)> {
        let kind = self.choice(FusionKind::ALL, FusionKind::name)?;
        let name = self.string("the fusion's name, a string")?;
        self.expect('(')?;
        let operands = if self.at(')') { vec![] } else { self.operands(scope)? };
        self.expect(')')?;
        if scope.depth == MAX_REGIONS {
            return self.expected(&format!("no more than {MAX_REGIONS} levels of regions"));
        }
        self.expect('{')?;
        let (graph, places) = (Graph::new("", self.bounds), Places::default());
        let mut inner = Scope { graph, names: HashMap::new(), places, depth: scope.depth + 1 };
        self.instructions(&mut inner, "yield")?;
        if !self.at('}') {
            for value in self.operands(&inner)? {
                inner.graph.add_output("", value);
            }
        }
        self.expect('}')?;
        self.region = Some(inner.places.body);
        Ok((Op::Fusion(Box::new(Fusion { kind, name, region: inner.graph })), operands))
    }

    /// The dtype that a constant's value is read by.
    pub(super) fn needs_type<'t>(&self, ty: Option<&'t Type>, at: (usize, usize)) -> Result<&'t Type> {
        ty.ok_or_else(|| self.error_at(at.0, at.1, "a constant needs its type: `%name: f32[] = const 1.0`"))
    }
}
