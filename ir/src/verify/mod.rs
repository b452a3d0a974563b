//! The verifier: what a graph must obey beyond being readable. It runs on what users wrote and after every pass.
//!
//! [`RULES`] is the list and its documentation. Each rule is checked on the graph and then on the regions of its fusions
//! before the next rule: later rules lean on earlier ones.

mod indices;
mod leaves;
mod regions;
mod states;
mod structure;

use crate::print::print_inst;
use crate::{Graph, Inst, Op, Value};
use thiserror::Error;

/// A rule of the verifier.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, as errors show it.
    pub name: &'static str,
    /// What it demands.
    pub sentence: &'static str,
    check: fn(&Scope<'_>) -> Result<(), Broken>,
}

/// All rules, in the order in which they are checked.
pub const RULES: &[Rule] = &[
    Rule {
        name: "bounds",
        sentence: "Every bound is at least 1 and at most 2147483647, so that positions and slots fit an i32.",
        check: structure::bounds,
    },
    Rule {
        name: "single-definition",
        sentence: "Every value is a result of exactly one instruction, which stands in program order once.",
        check: structure::single_definition,
    },
    Rule {
        name: "dominance",
        sentence: "Every operand is a result of an earlier instruction of the same graph or region.",
        check: structure::dominance,
    },
    Rule {
        name: "outputs",
        sentence: "A graph has outputs, named, each name once, each value defined; a region has nameless ones.",
        check: structure::outputs,
    },
    Rule {
        name: "region",
        sentence: "A region has no name, its graph's bounds and no fusions; a fusion's kind says which ops it may hold: \
                   `rows` no dot, `epilogue` one dot and no reduce, gather, index or state.write, with one result, `attention` two \
                   dots and no state.write, with one result.",
        check: regions::regions,
    },
    Rule { name: "types", sentence: "Operands and results obey the typing rules.", check: structure::types },
    Rule {
        name: "leaves",
        sentence: "Inputs and states have names of their own; an input's limit is at least 1; inputs, weights and states \
                   stand outside of regions, params inside.",
        check: leaves::leaves,
    },
    Rule {
        name: "recipe",
        sentence: "A weight's recipe can make its type: permuted rows split into heads of even width, joined recipes have \
                   parts, `interleave_panels` is outermost and makes panels of whole parts, `widen` makes f32.",
        check: leaves::recipes,
    },
    Rule {
        name: "rope",
        sentence: "A RoPE table has an even head_dim, and its theta and scaling are positive and finite.",
        check: leaves::rope,
    },
    Rule {
        name: "linear-state",
        sentence: "A state is read by `index` and written by `state.write` only, itself or in a fusion; it is written at \
                   most once, after everything that reads it, views included; a region yields only states it has written.",
        check: states::linear,
    },
    Rule {
        name: "indices",
        sentence: "What indexes is known to be in range: the ids of a gather are below its table's rows, slots below the \
                   slots, positions below T's bound, by the limits of inputs seen through views.",
        check: indices::in_range,
    },
];

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("rule `{rule}`: {message}{}", self.place())]
pub struct VerifyError {
    /// The rule's name in [`RULES`].
    pub rule: &'static str,
    /// What was found and what was expected.
    pub message: String,
    /// The instruction as text, if one is to blame.
    pub instruction: Option<String>,
    /// Its origin; empty where nothing is known.
    pub origin: String,
    /// The fusion in whose region it stands, as text.
    pub fusion: Option<String>,
    /// The same as ids.
    pub blame: Box<Blame>,
}

/// What is to blame for a broken rule, for who shows it in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// The instruction, in the graph or in the region of `fusion`.
    pub inst: Option<Inst>,
    /// The fusion of the graph in whose region it stands.
    pub fusion: Option<Inst>,
    /// The value that the message names.
    pub value: Option<Value>,
}

impl VerifyError {
    fn place(&self) -> String {
        let mut out = String::new();
        for (what, text) in [("at", &self.instruction), ("in the region of", &self.fusion)] {
            if let Some(text) = text {
                out += &format!("\n  {what}: {text}");
            }
        }
        out
    }
}

/// Checks all [`RULES`].
///
/// # Errors
/// The first rule that is broken, with the instruction.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    for rule in RULES {
        let top = Scope { graph, fusion: None };
        (rule.check)(&top).map_err(|b| top.error(rule, b))?;
        for &inst in graph.order() {
            if let Op::Fusion(f) = graph.op(inst) {
                let inner = Scope { graph: &f.region, fusion: Some((graph, inst)) };
                (rule.check)(&inner).map_err(|b| inner.error(rule, b))?;
            }
        }
    }
    Ok(())
}

/// What a rule is checked on: a graph, or a region and where it stands.
struct Scope<'g> {
    graph: &'g Graph,
    fusion: Option<(&'g Graph, Inst)>,
}

impl Scope<'_> {
    fn error(&self, rule: &Rule, broken: Broken) -> VerifyError {
        // A rule on a whole graph may have found the fault inside of a fusion.
        let within = broken.within.map(|f| (self.graph, f)).or(self.fusion);
        let graph = match (broken.within, broken.within.map(|f| self.graph.op(f))) {
            (Some(_), Some(Op::Fusion(f))) => &f.region,
            _ => self.graph,
        };
        VerifyError {
            rule: rule.name,
            message: broken.message,
            instruction: broken.inst.map(|i| print_inst(graph, i)),
            origin: broken.inst.map(|i| graph.origin(i).to_owned()).unwrap_or_default(),
            fusion: within.map(|(g, i)| print_inst(g, i)),
            blame: Box::new(Blame { inst: broken.inst, fusion: within.map(|(_, i)| i), value: broken.value }),
        }
    }
}

/// What is wrong, before it is put into words for the reader of the whole.
struct Broken {
    message: String,
    inst: Option<Inst>,
    /// The fusion of the graph in whose region `inst` stands, where that is not the scope's own graph.
    within: Option<Inst>,
    /// The one value that the message names.
    value: Option<Value>,
}

impl Broken {
    fn at(inst: Inst, message: impl Into<String>) -> Broken {
        Broken { message: message.into(), inst: Some(inst), within: None, value: None }
    }

    fn whole(message: impl Into<String>) -> Broken {
        Broken { message: message.into(), inst: None, within: None, value: None }
    }

    /// Says which value the message names.
    fn naming(self, value: Value) -> Broken {
        Broken { value: Some(value), ..self }
    }
}
