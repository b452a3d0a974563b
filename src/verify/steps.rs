//! The steps that are compared: one of several rows, then some of one row.

use super::{Settings, VerifyError};
use llamac_ir::interp::{Input, MAX_ELEMENTS};
use llamac_ir::prng::Prng;
use llamac_ir::{DType, Dim, Graph, Op, Sizes, Sym};
use llamac_runtime::Data;

/// Rows of the first step where nothing is asked for: more than a vector's lanes, and odd.
const DEFAULT_ROWS: usize = 9;

/// Steps of one row after the first step, so that both entries run.
const SINGLE_ROWS: usize = 3;

/// The inputs of one step.
pub(super) struct Step {
    /// Its rows.
    pub(super) rows: usize,
    inputs: Vec<Given>,
}

impl Step {
    /// Its inputs as the runtime takes them.
    pub(super) fn data(&self) -> Vec<(&str, Data<'_>)> {
        self.inputs.iter().map(|i| (i.name.as_str(), i.data())).collect()
    }

    /// Its inputs as the interpreter takes them.
    pub(super) fn inputs(&self) -> Vec<(&str, Input<'_>)> {
        self.inputs.iter().map(|i| (i.name.as_str(), i.input())).collect()
    }
}

struct Given {
    name: String,
    values: Values,
}

enum Values {
    Float(Vec<f32>),
    Int(Vec<i32>),
}

impl Given {
    fn data(&self) -> Data<'_> {
        match &self.values {
            Values::Float(v) => Data::F32(v),
            Values::Int(v) => Data::I32(v),
        }
    }

    fn input(&self) -> Input<'_> {
        match &self.values {
            Values::Float(v) => Input::Float(v),
            Values::Int(v) => Input::Int(v),
        }
    }
}

/// Where the rows of a step stand.
struct Rows {
    slots: Vec<i32>,
    positions: Vec<i32>,
}

/// One step of several rows, then some of one row. Given ids are all of slot 0; made-up rows go to two slots where the graph
/// has them.
pub(super) fn steps(graph: &Graph, settings: &Settings) -> Result<Vec<Step>, VerifyError> {
    let b = graph.bounds;
    let limit = |want: &str| {
        graph.order().iter().find_map(|&i| match graph.op(i) {
            Op::Input { name, limit } if name == want => *limit,
            _ => None,
        })
    };
    let uses = |sym: Sym| graph.order().iter().any(|&i| graph.ty(graph.result(i)).dims.contains(&Dim::Sym(sym)));
    // What has no tokens and no positions is bound by nothing but the chunk.
    let context = if uses(Sym::Tokens) { b.tokens } else { usize::MAX };
    let context = limit("positions").unwrap_or(usize::MAX).min(context);
    let most = b.rows.min(context);
    let ids = settings.ids.as_deref().unwrap_or(&[]);
    if settings.ids.is_some() && (ids.is_empty() || ids.len() > most) {
        return Err(VerifyError::Ids { found: ids.len(), most });
    }
    let first = match settings.rows {
        _ if !ids.is_empty() => ids.len(),
        Some(rows) if rows == 0 || rows > most => return Err(VerifyError::Rows { found: rows, most }),
        Some(rows) => rows,
        None => DEFAULT_ROWS.min(most),
    };
    let slots = if ids.is_empty() && limit("slots").unwrap_or(1) > 1 && first > 1 { 2 } else { 1 };
    let mut random = Prng::new(settings.seed);
    let mut steps: Vec<Step> = vec![];
    let mut held = [0usize; 2];
    for (step, n) in std::iter::once(first).chain(std::iter::repeat_n(1, SINGLE_ROWS)).enumerate() {
        let mut rows = Rows { slots: vec![], positions: vec![] };
        for (slot, held) in held.iter_mut().enumerate().take(slots) {
            let share = match (slots, n) {
                (1, n) => n,
                (_, 1) => usize::from(step % slots == slot),
                (_, n) => n / 2 + usize::from(slot == 0) * (n % 2),
            };
            for _ in 0..share {
                rows.slots.push(slot as i32);
                rows.positions.push(*held as i32);
                *held += 1;
            }
        }
        let tokens = held[..slots].iter().copied().max().unwrap_or(0);
        if tokens > context {
            break;
        }
        let present = rows.positions.iter().max().map_or(0, |&p| p as usize + 1);
        let sizes = Sizes { rows: n, outputs: n.min(b.outputs), tokens: present };
        steps.push(Step {
            rows: n,
            inputs: inputs(graph, &sizes, &rows, if step == 0 { ids } else { &[] }, &mut random)?,
        });
    }
    Ok(steps)
}

fn inputs(
    graph: &Graph,
    sizes: &Sizes,
    rows: &Rows,
    ids: &[u32],
    random: &mut Prng,
) -> Result<Vec<Given>, VerifyError> {
    let mut inputs = vec![];
    for &inst in graph.order() {
        let Op::Input { name, limit } = graph.op(inst) else { continue };
        let ty = graph.ty(graph.result(inst));
        let count = ty.elements().value(sizes);
        if count > MAX_ELEMENTS {
            return Err(VerifyError::Input { name: name.clone(), found: count, most: MAX_ELEMENTS });
        }
        let values = match (name.as_str(), ty.dtype) {
            ("tokens", DType::I32) if !ids.is_empty() => Values::Int(ids.iter().map(|&i| i as i32).collect()),
            ("positions", DType::I32) if count == rows.positions.len() => Values::Int(rows.positions.clone()),
            ("slots", DType::I32) if count == rows.slots.len() => Values::Int(rows.slots.clone()),
            // The last rows: their results depend on most of the step.
            ("outputs", DType::I32) if count <= sizes.rows => {
                Values::Int((sizes.rows - count..sizes.rows).map(|r| r as i32).collect())
            }
            (_, DType::I32) => {
                let limit = limit.unwrap_or(16).max(1);
                Values::Int((0..count).map(|_| random.below(limit) as i32).collect())
            }
            _ => Values::Float((0..count).map(|_| random.uniform()).collect()),
        };
        inputs.push(Given { name: name.clone(), values });
    }
    Ok(inputs)
}
