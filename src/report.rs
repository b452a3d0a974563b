//! What the compiler decided and why, in a form that outlives the compilation: an artifact keeps it for `explain`.

use crate::compile::Compiled;
use llamac_passes::ledger::{Ledger, Outcome};
use serde::{Deserialize, Serialize};

/// The decisions of the graph passes. The same compilation gives the same bytes: no times are in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The passes that ran, in order.
    pub passes: Vec<PassReport>,
    /// The ledger as text: kernels, refused edges, rules, bytes.
    pub ledger: String,
    /// Every edge of it.
    pub edges: Vec<Edge>,
    /// Views that were made real.
    pub copies: Vec<Copy>,
}

/// What a pass did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassReport {
    /// The pass.
    pub name: String,
    /// Instructions before.
    pub before: usize,
    /// Instructions after.
    pub after: usize,
    /// What was done how often: `dots merged: 6, …`.
    pub did: String,
    /// What else it has to say.
    pub notes: Vec<String>,
}

/// An edge of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Who makes the value.
    pub producer: String,
    /// Who reads it.
    pub consumer: String,
    /// Its type.
    pub ty: String,
    /// Bytes that the consumer reads.
    pub bytes: String,
    /// `fused` or `refused`.
    pub outcome: String,
    /// The kernel, or the reason.
    pub reason: String,
    /// The rule behind a refusal.
    pub rule: String,
}

/// A view made real.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// What is copied.
    pub of: String,
    /// The step that needs it.
    pub reader: String,
    /// Why.
    pub reason: String,
    /// Bytes written, at the bounds.
    pub bytes: usize,
}

impl Report {
    /// The decisions behind a compiled graph.
    pub fn new(compiled: &Compiled) -> Report {
        let passes = compiled.passes.ran.iter().map(|ran| PassReport {
            name: ran.name.to_owned(),
            before: ran.before,
            after: ran.after,
            did: ran.report.counts.iter().map(|(what, n)| format!("{what}: {n}")).collect::<Vec<_>>().join(", "),
            notes: ran.report.notes.clone(),
        });
        let copies = compiled.passes.layout.iter().flat_map(|l| &l.copies).map(|c| Copy {
            of: c.of.clone(),
            reader: c.reader.clone(),
            reason: c.reason.clone(),
            bytes: c.bytes,
        });
        Report {
            passes: passes.collect(),
            ledger: compiled.passes.ledger.to_string(),
            edges: edges(&compiled.passes.ledger),
            copies: copies.collect(),
        }
    }
}

fn edges(ledger: &Ledger) -> Vec<Edge> {
    let edge = |e: &llamac_passes::ledger::Entry| {
        let (outcome, reason, rule) = match e.outcome {
            Outcome::Fused { kind, kernel } => ("fused", format!("{kind} kernel {kernel}"), ""),
            Outcome::Refused(reason) => ("refused", reason.to_string(), reason.rule()),
        };
        Edge {
            producer: e.producer.clone(),
            consumer: e.consumer.clone(),
            ty: e.ty.clone(),
            bytes: e.bytes.to_string(),
            outcome: outcome.to_owned(),
            reason,
            rule: rule.to_owned(),
        }
    };
    ledger.entries.iter().map(edge).collect()
}
