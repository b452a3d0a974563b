//! `fuse-rows`: the general row fuser.
//!
//! Ops over the same rows become one kernel; a reduction ends a sweep over the row, not the kernel; a `state.write` may be
//! its sink. RMSNorm, softmax, RoPE with the cache write, residual and norm fall out of it and are only named.
//!
//! Producers join consumers, from the last to the first: each instruction tries the kernels that read it, in program order,
//! and joins the first that may take it ([`legal`]). What others read of it becomes one more result, so nothing is computed
//! twice; only views, constants, casts, masks and rows of generated tables are copied into every kernel that reads them.

pub mod legal;

use crate::manager::{Context, PassError};
use crate::names;
use crate::outline::{self, Group};
use crate::refusal::Reason;
use crate::report::Report;
use legal::Rows;
use llamac_ir::{FusionKind, Graph, Inst};
use std::collections::BTreeSet;

/// Runs the pass.
///
/// # Errors
/// None: what may not be fused stays.
pub fn fuse_rows(graph: &mut Graph, _cx: &mut Context) -> Result<Report, PassError> {
    let mut report = Report::default();
    let groups: Vec<Group> = {
        let rows = Rows::new(graph);
        let worth = |members: &BTreeSet<Inst>| members.len() > 1 || members.iter().any(|&m| rows.reads_cheap(m));
        let found = grouped(&rows).into_iter().filter(worth);
        found
            .map(|members| Group {
                kind: FusionKind::Rows,
                members: rows.in_order(&members),
                params: vec![],
                pulls: outline::pulls_all,
                name: names::rows,
            })
            .collect()
    };
    let total = groups.len();
    let given_up = outline::outline(graph, &groups);
    report.count("row kernels fused", total - given_up.len());
    for _ in given_up {
        report.note(format!("one refused: {}", Reason::WouldCycle.rule()));
    }
    Ok(report)
}

/// Disjoint sets of instructions that may be kernels, greedily as large as they get.
fn grouped(rows: &Rows) -> Vec<BTreeSet<Inst>> {
    let mut groups: Vec<BTreeSet<Inst>> = Vec::new();
    let mut of: Vec<Option<usize>> = vec![None; rows.graph().inst_count()];
    let order = rows.graph().order();
    for &producer in order.iter().rev().filter(|&&i| rows.is_candidate(i)) {
        groups.push(BTreeSet::from([producer]));
        of[producer.index()] = Some(groups.len() - 1);
        join_a_reader(rows, groups.len() - 1, producer, &mut groups, &mut of);
    }
    // What joined one reader may go on with another, now that both are as large as they are.
    let mut joined = true;
    while std::mem::take(&mut joined) {
        for &producer in order.iter().rev().filter(|&&i| rows.is_candidate(i)) {
            if let Some(group) = of[producer.index()] {
                joined |= join_a_reader(rows, group, producer, &mut groups, &mut of);
            }
        }
    }
    groups.retain(|g| !g.is_empty());
    groups
}

/// Lets a group join the first kernel reading its member `producer` that may take it, and tells whether one did.
fn join_a_reader(
    rows: &Rows,
    group: usize,
    producer: Inst,
    groups: &mut [BTreeSet<Inst>],
    of: &mut [Option<usize>],
) -> bool {
    for reader in rows.kernels_reading(producer, of) {
        if reader == group {
            continue;
        }
        let members: BTreeSet<Inst> = groups[reader].union(&groups[group]).copied().collect();
        if rows.check(&members).is_ok() && !rows.would_cycle(&groups[group], &members, groups, of) {
            for m in std::mem::take(&mut groups[group]) {
                of[m.index()] = Some(reader);
            }
            groups[reader] = members;
            return true;
        }
    }
    false
}
