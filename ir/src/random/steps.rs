//! Steps for random graphs: sizes and inputs as a session would send them.

use crate::interp::Input;
use crate::prng::Prng;
use crate::{Graph, Op};
use llamac_formats::{DType, Sizes};

/// Elements of one input.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// For f32.
    Float(Vec<f32>),
    /// For i32.
    Int(Vec<i32>),
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The actual sizes.
    pub sizes: Sizes,
    /// All inputs of the graph by name, row-major.
    pub inputs: Vec<(String, Values)>,
}

impl Step {
    /// The inputs as the interpreter takes them.
    pub fn inputs(&self) -> Vec<(&str, Input<'_>)> {
        let mut out = vec![];
        for (name, values) in &self.inputs {
            let input = match values {
                Values::Float(v) => Input::Float(v),
                Values::Int(v) => Input::Int(v),
            };
            out.push((name.as_str(), input));
        }
        out
    }
}

/// Up to `count` steps one after the other: fewer if the slots are full. Rows are grouped by slot, positions of a slot
/// ascend without gaps from step to step, and T is the largest position plus one. The inputs named `positions`, `slots` and
/// `outputs` mean what they say; others are random, below their limits.
pub fn steps(graph: &Graph, seed: u64, count: usize) -> Vec<Step> {
    let mut prng = Prng::new(seed);
    let bounds = graph.bounds;
    let mut filled = vec![0; bounds.slots];
    let mut steps = vec![];
    for number in 0..count {
        // Single rows are what decoding sends, so every other step is one.
        let wanted = if number % 2 == 1 { 1 } else { 1 + prng.below(bounds.rows) };
        let (mut slots, mut positions) = (vec![], vec![]);
        let first = prng.below(bounds.slots);
        for i in 0..bounds.slots {
            let slot = (first + i) % bounds.slots;
            let room = (bounds.tokens - filled[slot]).min(wanted - slots.len());
            let take = if i + 1 == bounds.slots { room } else { prng.below(room + 1) };
            for _ in 0..take {
                slots.push(slot as i32);
                positions.push(filled[slot] as i32);
                filled[slot] += 1;
            }
        }
        let rows = slots.len();
        if rows == 0 {
            break;
        }
        let outputs = 1 + prng.below(bounds.outputs);
        let tokens = positions.iter().max().map_or(0, |&p| p as usize + 1);
        let sizes = Sizes { rows, outputs, tokens };
        let inputs = graph.order().iter().filter_map(|&inst| match graph.op(inst) {
            Op::Input { name, limit } => {
                let ty = graph.ty(graph.result(inst));
                let count: usize = ty.dims.iter().map(|d| d.value(&sizes)).product();
                let values = match (name.as_str(), ty.dtype) {
                    ("positions", DType::I32) => Values::Int(positions.clone()),
                    ("slots", DType::I32) => Values::Int(slots.clone()),
                    ("outputs", DType::I32) => Values::Int((0..count).map(|_| prng.below(rows) as i32).collect()),
                    (_, DType::I32) => {
                        let limit = limit.unwrap_or(100);
                        Values::Int((0..count).map(|_| prng.below(limit) as i32).collect())
                    }
                    _ => Values::Float((0..count).map(|_| prng.uniform()).collect()),
                };
                Some((name.clone(), values))
            }
            _ => None,
        });
        let inputs = inputs.collect();
        steps.push(Step { sizes, inputs });
    }
    steps
}
