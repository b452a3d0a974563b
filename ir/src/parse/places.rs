//! Where in its text a graph stands, so that what the verifier finds is shown there and in the text's own names.

use super::lexer::shorten;
use super::{ParseError, Parser};
use crate::print::value_name;
use crate::verify::{VerifyError, verify};
use crate::{Graph, Inst, Op, Value};
use std::collections::HashMap;

/// Bytes of the text, from and to.
pub(super) type Span = (usize, usize);

/// Reads a graph and verifies it: what the verifier refuses is an error at the instruction that is to blame.
///
/// # Errors
/// Those of [`parse`](super::parse()), and the first broken rule of [`verify`](crate::verify()).
pub fn read(text: &str) -> Result<Graph, ParseError> {
    let (graph, places) = Parser::read(text)?;
    match verify(&graph) {
        Ok(()) => Ok(graph),
        Err(error) => Err(places.locate(text, &graph, &error)),
    }
}

/// Where the parts of a graph stand in its text.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// `graph @name S<=… R<=… T<=… slots=…`
    pub header: Span,
    /// `return`
    pub results: Span,
    pub body: Body,
    pub regions: HashMap<Inst, Body>,
}

/// Where the instructions of a graph or region stand, and how its values are called.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// The op of every instruction, in the order in which they were appended.
    pub ops: Vec<Span>,
    /// The name of every value, with its `%`, in the same order.
    pub names: Vec<Span>,
}

impl Places {
    /// A broken rule as an error in the text.
    fn locate(&self, text: &str, graph: &Graph, error: &VerifyError) -> ParseError {
        let region = error.blame.fusion.and_then(|f| Some((self.regions.get(&f)?, graph.op(f))));
        let (body, graph) = match region {
            Some((body, Op::Fusion(f))) => (body, &f.region),
            _ => (&self.body, graph),
        };
        let in_body = error.blame.inst.and_then(|inst| body.ops.get(inst.index()));
        let around = || error.blame.fusion.and_then(|fusion| self.body.ops.get(fusion.index()));
        let whole = if error.rule == "outputs" { self.results } else { self.header };
        let (start, end) = in_body.or_else(around).copied().unwrap_or(whole);
        let end = start + text.get(start..end).map_or(0, |found| found.trim_end().len());
        let message =
            format!("rule `{}`: {}", error.rule, body.in_own_names(text, graph, error.blame.value, &error.message));
        ParseError::new(text, start, end, message)
    }
}

impl Body {
    /// The message with the text's name of the value in place of the number that printing would give it.
    fn in_own_names(&self, text: &str, graph: &Graph, value: Option<Value>, message: &str) -> String {
        let own = value.and_then(|v| Some((v, self.names.get(v.index())?)));
        match own.and_then(|(v, &(start, end))| Some((value_name(graph, v), text.get(start..end)?))) {
            Some((printed, own)) => message.replacen(&printed, &shorten(own), 1),
            None => message.into(),
        }
    }
}
