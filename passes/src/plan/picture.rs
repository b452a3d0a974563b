//! Reports of a plan: its figures, and a picture of the arena in text.

use super::EntryPlan;
use crate::schedule::step_name;
use llamac_ir::Op;
use std::collections::HashMap;
use std::fmt::Write as _;

/// What there is to say about the plan of one entry in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Steps.
    pub steps: usize,
    /// Barriers.
    pub barriers: usize,
    /// Steps that only make a view real.
    pub copies: usize,
    /// Buffers of the arena.
    pub buffers: usize,
    /// Results that took the memory of an operand.
    pub in_place: usize,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// The largest sum of bytes live at once.
    pub arena_lower_bound: usize,
}

impl Summary {
    /// The figures of a plan.
    pub fn of(plan: &EntryPlan) -> Summary {
        Summary {
            steps: plan.steps.len(),
            barriers: plan.steps.iter().filter(|s| s.barrier).count(),
            copies: plan.steps.iter().filter(|s| matches!(plan.graph.op(s.inst), Op::Copy)).count(),
            buffers: plan.buffers.len(),
            in_place: plan.in_place.len(),
            arena_bytes: plan.arena_bytes,
            arena_lower_bound: plan.arena_lower_bound,
        }
    }

    /// Arena over lower bound; 1 where nothing is ever live.
    pub fn ratio(&self) -> f64 {
        match self.arena_lower_bound {
            0 => 1.0,
            bound => self.arena_bytes as f64 / bound as f64,
        }
    }
}

/// Width and height of a picture, in characters.
const COLUMNS: usize = 96;
const ROWS: usize = 24;

/// Draws an arena: steps from left to right (a column may stand for several), offsets from top to bottom. A letter is
/// the buffer that fills most of its cell; equal buffers of all layers have one letter, explained below the picture; `+`
/// is any of the many small ones, a blank is free.
pub fn picture(plan: &EntryPlan) -> String {
    let summary = Summary::of(plan);
    let mut text = format!(
        "{}: {} steps, {} barriers, {} copies; arena {}, lower bound {} ({:.3}), {} buffers, {} in place\n",
        plan.name,
        summary.steps,
        summary.barriers,
        summary.copies,
        size(summary.arena_bytes),
        size(summary.arena_lower_bound),
        summary.ratio(),
        summary.buffers,
        summary.in_place,
    );
    if plan.arena_bytes == 0 || plan.steps.is_empty() {
        return text;
    }
    let groups = groups(plan);
    let letter = |buffer: usize| groups[&any_layer(&plan.buffers[buffer].name)].letter;
    let per_column = plan.steps.len().div_ceil(COLUMNS);
    let per_row = plan.arena_bytes.div_ceil(ROWS).next_multiple_of(64);
    for begin in (0..plan.arena_bytes).step_by(per_row) {
        let end = begin + per_row;
        let cell = |column: usize| {
            let steps = column * per_column..(column + 1) * per_column;
            let covered = |b: usize| {
                let buffer = &plan.buffers[b];
                let bytes = (buffer.offset + buffer.bytes).min(end).saturating_sub(buffer.offset.max(begin));
                let live = (buffer.last + 1).min(steps.end).saturating_sub(buffer.first.max(steps.start));
                bytes as u128 * live as u128
            };
            // On a tie the first, so that equal input gives an equal picture.
            let most = (0..plan.buffers.len()).max_by_key(|&b| (covered(b), std::cmp::Reverse(b)));
            most.filter(|&b| covered(b) > 0).map_or(' ', letter)
        };
        let row: String = (0..plan.steps.len().div_ceil(per_column)).map(cell).collect();
        let _ = writeln!(text, "{:>10} |{}|", size(begin), row);
    }
    let mut legend: Vec<_> = groups.into_iter().filter(|(_, g)| g.letter != '+').collect();
    legend.sort_by_key(|(_, g)| g.letter);
    for (name, group) in legend {
        let times = if group.count > 1 { format!(" ×{}", group.count) } else { String::new() };
        let _ = writeln!(text, "{:>12} {name}{times}, {}", group.letter, size(group.bytes));
    }
    text
}

/// The in-place decisions, one a line: step, operand that dies there.
pub fn in_place(plan: &EntryPlan) -> String {
    plan.in_place.iter().fold(String::new(), |mut text, i| {
        let step = step_name(&plan.graph, plan.steps[i.step].inst);
        let _ = writeln!(text, "{step} over {}", step_name(&plan.graph, plan.graph.def(i.operand)));
        text
    })
}

/// Buffers that differ only in their layer.
struct Group {
    letter: char,
    count: usize,
    bytes: usize,
}

/// Groups the buffers; those that fill most of the picture get letters.
fn groups(plan: &EntryPlan) -> HashMap<String, Group> {
    let mut area: HashMap<String, (u128, usize, usize, usize)> = HashMap::new();
    for (i, b) in plan.buffers.iter().enumerate() {
        let entry = area.entry(any_layer(&b.name)).or_insert((0, 0, 0, i));
        entry.0 += b.bytes as u128 * (b.last - b.first + 1) as u128;
        entry.1 += 1;
        entry.2 = entry.2.max(b.bytes);
    }
    let mut names: Vec<(String, (u128, usize, usize, usize))> = area.into_iter().collect();
    names.sort_by_key(|(_, (area, _, _, first))| (std::cmp::Reverse(*area), *first));
    let letters = ('a'..='z').chain(std::iter::repeat('+'));
    names
        .into_iter()
        .zip(letters)
        .map(|((name, (_, count, bytes, _)), letter)| (name, Group { letter, count, bytes }))
        .collect()
}

/// `layers.3.attn.norm` → `layers.*.attn.norm`.
fn any_layer(name: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.split('.').map(|part| if number(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// Bytes as people read them.
fn size(bytes: usize) -> String {
    match bytes {
        b if b >= 10 << 20 => format!("{:.1} MiB", b as f64 / f64::from(1 << 20)),
        b if b >= 10 << 10 => format!("{:.1} KiB", b as f64 / f64::from(1 << 10)),
        b => format!("{b} B"),
    }
}
