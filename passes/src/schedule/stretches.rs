//! Which stretch each step lies in.

use super::{Effects, ScheduleError, step_name, value_bytes};
use llamac_ir::Graph;
use std::collections::HashMap;

/// How many passes over the movable steps may be made in search of fewer live bytes.
const ROUNDS: usize = 8;

/// Assigns every step a stretch: a step's is greater than those of all steps it waits for, and there are as few stretches as
/// the longest chain has steps. Among those assignments it seeks one with a small peak of live bytes.
pub fn assign(graph: &Graph, effects: &Effects) -> Result<Vec<usize>, ScheduleError> {
    let count = effects.steps.len();
    let mut before = vec![vec![]; count];
    for (i, step) in effects.steps.iter().enumerate() {
        for &p in &step.after {
            before[p].push(i);
        }
    }
    let topological = topological(graph, effects, &before)?;
    let mut earliest = vec![0usize; count];
    for &i in &topological {
        earliest[i] = effects.steps[i].after.iter().map(|&p| earliest[p] + 1).max().unwrap_or(0);
    }
    let depth = earliest.iter().map(|&e| e + 1).max().unwrap_or(0);
    let mut latest = vec![depth.saturating_sub(1); count];
    for &i in topological.iter().rev() {
        latest[i] = before[i].iter().map(|&s| latest[s] - 1).min().unwrap_or(latest[i]);
    }
    let live = Live::of(graph, effects);
    let as_early = live.descend(effects, &before, depth, earliest);
    let as_late = live.descend(effects, &before, depth, latest);
    Ok(if as_late.0 < as_early.0 { as_late.1 } else { as_early.1 })
}

/// A topological order that follows the program order as far as it can.
fn topological(graph: &Graph, effects: &Effects, before: &[Vec<usize>]) -> Result<Vec<usize>, ScheduleError> {
    let mut missing: Vec<usize> = effects.steps.iter().map(|s| s.after.len()).collect();
    let mut ready: std::collections::BTreeSet<usize> = (0..missing.len()).filter(|&i| missing[i] == 0).collect();
    let mut order = vec![];
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &s in &before[i] {
            missing[s] -= 1;
            if missing[s] == 0 {
                ready.insert(s);
            }
        }
    }
    match missing.iter().position(|&m| m > 0) {
        Some(i) => Err(ScheduleError::Cycle { step: step_name(graph, effects.steps[i].inst) }),
        None => Ok(order),
    }
}

/// What is live when: the bytes that each step makes, and who reads them.
struct Live {
    /// For each step, its results that take memory of the arena: bytes and readers.
    made: Vec<Vec<(usize, Vec<usize>)>>,
    /// For each step, the (step, result) pairs that it reads.
    read: Vec<Vec<(usize, usize)>>,
}

/// What is to be small: the peak of live bytes, then their sum over the stretches.
type Cost = (usize, usize);

impl Live {
    fn of(graph: &Graph, effects: &Effects) -> Live {
        let count = effects.steps.len();
        let (mut made, mut read) = (vec![vec![]; count], vec![vec![]; count]);
        let mut at = HashMap::new();
        for (i, step) in effects.steps.iter().enumerate() {
            for &result in graph.results(step.inst) {
                if !effects.state_of.contains_key(&result) && !graph.is_output(result) {
                    at.insert(result, (i, made[i].len()));
                    made[i].push((value_bytes(graph, result), vec![]));
                }
            }
        }
        for (i, step) in effects.steps.iter().enumerate() {
            for v in &step.reads {
                if let Some(&(maker, which)) = at.get(v) {
                    made[maker][which].1.push(i);
                    read[i].push((maker, which));
                }
            }
        }
        Live { made, read }
    }

    /// Moves steps within their freedom as long as that makes the cost smaller.
    fn descend(
        &self,
        effects: &Effects,
        before: &[Vec<usize>],
        depth: usize,
        mut stretch: Vec<usize>,
    ) -> (Cost, Vec<usize>) {
        let mut bytes = vec![0usize; depth];
        for i in 0..stretch.len() {
            for which in 0..self.made[i].len() {
                self.add(&mut bytes, &stretch, (i, which), true);
            }
        }
        let cost = |bytes: &[usize]| -> Cost {
            (bytes.iter().copied().max().unwrap_or(0), bytes.iter().fold(0, |a, &b| a.saturating_add(b)))
        };
        let mut best = cost(&bytes);
        for _ in 0..ROUNDS {
            let mut moved = false;
            for i in 0..stretch.len() {
                let low = effects.steps[i].after.iter().map(|&p| stretch[p] + 1).max().unwrap_or(0);
                let high = before[i].iter().map(|&s| stretch[s] - 1).min().unwrap_or(depth - 1);
                // Only the ends of the freedom: a buffer is cheapest where its step stands next to its neighbours.
                for to in [low, high] {
                    let from = stretch[i];
                    if to == from {
                        continue;
                    }
                    self.put(&mut bytes, &mut stretch, i, to);
                    let now = cost(&bytes);
                    if now < best {
                        (best, moved) = (now, true);
                    } else {
                        self.put(&mut bytes, &mut stretch, i, from);
                    }
                }
            }
            if !moved {
                break;
            }
        }
        (best, stretch)
    }

    /// Moves one step to another stretch and keeps `bytes` right.
    fn put(&self, bytes: &mut [usize], stretch: &mut [usize], step: usize, to: usize) {
        let touched: Vec<(usize, usize)> =
            (0..self.made[step].len()).map(|w| (step, w)).chain(self.read[step].iter().copied()).collect();
        for &value in &touched {
            self.add(bytes, stretch, value, false);
        }
        stretch[step] = to;
        for &value in &touched {
            self.add(bytes, stretch, value, true);
        }
    }

    /// Adds the bytes of a value to the stretches it lives in, or takes them away.
    fn add(&self, bytes: &mut [usize], stretch: &[usize], (maker, which): (usize, usize), add: bool) {
        let (size, readers) = &self.made[maker][which];
        let first = stretch[maker];
        let last = readers.iter().map(|&r| stretch[r]).max().unwrap_or(first);
        for b in &mut bytes[first..=last] {
            *b = if add { b.saturating_add(*size) } else { b.saturating_sub(*size) };
        }
    }
}
