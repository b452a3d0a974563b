//! Does compiled code compute what the graph says? The interpreter (f64), unfused code and fused code side by side.

use crate::compile::{self, CompileError};
use crate::model::Model;
use llamac_formats::q8;
use llamac_ir::interp::{Input, InterpError, Interpreter, MAX_ELEMENTS};
use llamac_ir::prng::Prng;
use llamac_ir::{DType, Dim, Op, Sizes, Sym};
use llamac_passes::{FusionSet, Options};
use llamac_runtime::{Data, Pool, Session, StepError, Tier};
use std::sync::Arc;
use thiserror::Error;

/// What to verify with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Switches of the fused build; the unfused one has the same but for the fusions.
    pub options: Options,
    /// The instruction tier.
    pub tier: Tier,
    /// Tokens of the prompt, if the graph has an input `tokens`; else seeded.
    pub ids: Option<Vec<u32>>,
    /// Rows of the first step where no ids are given; by default 9, or as many as the graph's bounds allow.
    pub rows: Option<usize>,
    /// Seed of absent inputs.
    pub seed: u64,
}

/// Rows of the first step where nothing is asked for: more than a vector's lanes, and odd.
const DEFAULT_ROWS: usize = 9;

/// Steps of one row after the first step, so that both entries run.
const SINGLE_ROWS: usize = 3;

/// One comparison.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The entry that ran: `decode` or `rows`.
    pub entry: String,
    /// The output.
    pub output: String,
    /// What is compared: `unfused` or `fused`.
    pub found: &'static str,
    /// With what: `interpreter` or `unfused`.
    pub expected: &'static str,
    /// ‖found − expected‖ / ‖expected‖ over all steps of the entry.
    pub relative: f64,
    /// The largest |found − expected|.
    pub largest: f64,
    /// Where that is: step, then the indices into the output.
    pub at: String,
    /// The relative error that is allowed.
    pub tolerance: f64,
    /// Expected values that were compared.
    pub values: usize,
    /// How many of them are NaN or infinite; they must be met exactly, and say nothing about the rest.
    pub not_finite: usize,
}

impl Difference {
    /// Whether the two agree. Where no value is a finite number nothing has been shown.
    pub fn agrees(&self) -> bool {
        self.relative <= self.tolerance && (self.values == 0 || self.not_finite < self.values)
    }
}

/// Why nothing could be compared.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum VerifyError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Interp(#[from] InterpError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("{path} is a graph without weights")]
    NoWeights { path: String },
    #[error("a prompt of {found} ids was given, expected 1 to {most} (chunk and context)")]
    Ids { found: usize, most: usize },
    #[error("the input {name:?} would have {found} elements, expected at most {most}: make it smaller")]
    Input { name: String, found: usize, most: usize },
    #[error("a step of {found} rows was asked for, expected 1 to {most} (chunk and context)")]
    Rows { found: usize, most: usize },
}

/// f32 throughout: rounding of sums over some thousand terms, layer upon layer, stays below this (the goldens' tolerance).
const TOLERANCE_F32: f64 = 1e-5;
/// With 16-bit weights, whose values are fewer and larger in spread.
const TOLERANCE_16BIT: f64 = 2e-5;

/// Runs the same steps through all three and compares every output.
///
/// # Errors
/// A model that cannot be compiled or run.
pub fn verify(model: &Model, settings: &Settings, pool: &Arc<Pool>) -> Result<Vec<Difference>, VerifyError> {
    let source =
        model.source.as_deref().ok_or_else(|| VerifyError::NoWeights { path: model.path.display().to_string() })?;
    let steps = steps(model, settings)?;
    let mut plain = settings.options.clone();
    plain.fusion = FusionSet::None;
    let mut unfused = build(model, &plain, settings, pool)?;
    let mut fused = build(model, &settings.options, settings, pool)?;
    let mut interpreter = Interpreter::<f64>::new(&model.graph, source);
    let sixteen = model.graph.order().iter().any(|&i| {
        matches!(model.graph.op(i), Op::Weight(_)) && model.graph.ty(model.graph.result(i)).dtype != DType::F32
    });
    let tolerance = if sixteen { TOLERANCE_16BIT } else { TOLERANCE_F32 };

    let mut sums: Vec<Sum> = vec![];
    for (index, step) in steps.iter().enumerate() {
        let entry = if step.rows == 1 { "decode" } else { "rows" };
        let inputs: Vec<(&str, Data<'_>)> = step.inputs.iter().map(|i| (i.name.as_str(), i.data())).collect();
        let sizes = fused.step(&inputs)?.sizes();
        unfused.step(&inputs)?;
        let inputs: Vec<(&str, Input<'_>)> = step.inputs.iter().map(|i| (i.name.as_str(), i.input())).collect();
        let judged = interpreter.step(sizes, &inputs)?;
        for (o, (name, _)) in model.graph.outputs().iter().enumerate() {
            let reference: Vec<f64> = match &judged[o].data {
                llamac_ir::interp::Data::Int(v) => v.iter().map(|&x| f64::from(x)).collect(),
                llamac_ir::interp::Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
                _ => judged[o].floats().to_vec(),
            };
            let plain = unfused.outputs().map(|out| numbers(out.at(o))).unwrap_or_default();
            let fast = fused.outputs().map(|out| numbers(out.at(o))).unwrap_or_default();
            for (found, expected, a, b) in [
                ("unfused", "interpreter", &plain, &reference),
                ("fused", "interpreter", &fast, &reference),
                ("fused", "unfused", &fast, &plain),
            ] {
                Sum::of(&mut sums, entry, name, found, expected).add(index, &judged[o].dims, a, b);
            }
        }
    }
    Ok(sums.into_iter().map(|s| s.finish(tolerance)).collect())
}

fn build(model: &Model, options: &Options, settings: &Settings, pool: &Arc<Pool>) -> Result<Session, CompileError> {
    let compiled = compile::compile(model.graph.clone(), options, false)?;
    let (weights, _) = compile::pack_weights(&compiled, model, pool.threads(), &mut |_, _| {})?;
    compile::session(&compiled, weights, Arc::clone(pool), settings.tier)
}

/// The inputs of one step.
struct Step {
    rows: usize,
    inputs: Vec<Given>,
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
fn steps(model: &Model, settings: &Settings) -> Result<Vec<Step>, VerifyError> {
    let graph = &model.graph;
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
            inputs: inputs(model, &sizes, &rows, if step == 0 { ids } else { &[] }, &mut random)?,
        });
    }
    Ok(steps)
}

fn inputs(
    model: &Model,
    sizes: &Sizes,
    rows: &Rows,
    ids: &[u32],
    random: &mut Prng,
) -> Result<Vec<Given>, VerifyError> {
    let graph = &model.graph;
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

fn numbers(data: Data<'_>) -> Vec<f64> {
    match data {
        Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Data::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Data::Bool(v) => v.iter().map(|&x| f64::from(x)).collect(),
        // The bits of a 16-bit float are widened as the formats define them.
        Data::F16(v) => v.iter().map(|&b| half::f16::from_bits(b).to_f64()).collect(),
        Data::BF16(v) => v.iter().map(|&b| half::bf16::from_bits(b).to_f64()).collect(),
        Data::Blocks(DType::Block(format), bytes) => {
            let mut out = vec![0.0; data.len()];
            format.decode(bytes, &mut out);
            out.into_iter().map(f64::from).collect()
        }
        Data::Blocks(_, bytes) => {
            let blocks = bytes.as_chunks::<{ q8::BYTES }>().0;
            blocks.iter().flat_map(q8::decode).map(f64::from).collect()
        }
    }
}

/// A difference while it is summed up over steps.
struct Sum {
    of: Difference,
    difference: f64,
    norm: f64,
}

impl Sum {
    fn of<'a>(
        sums: &'a mut Vec<Sum>,
        entry: &str,
        output: &str,
        found: &'static str,
        expected: &'static str,
    ) -> &'a mut Sum {
        let same =
            |s: &Sum| s.of.entry == entry && s.of.output == output && s.of.found == found && s.of.expected == expected;
        let at = sums.iter().position(same).unwrap_or_else(|| {
            let of = Difference {
                entry: entry.into(),
                output: output.into(),
                found,
                expected,
                relative: 0.0,
                largest: 0.0,
                at: String::new(),
                tolerance: 0.0,
                values: 0,
                not_finite: 0,
            };
            sums.push(Sum { of, difference: 0.0, norm: 0.0 });
            sums.len() - 1
        });
        &mut sums[at]
    }

    fn add(&mut self, step: usize, dims: &[usize], found: &[f64], expected: &[f64]) {
        if found.len() != expected.len() {
            self.difference = f64::INFINITY;
            return;
        }
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            // Equal infinities agree; a NaN on one side only does not.
            let d = if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
            let d = if d.is_nan() { f64::INFINITY } else { d };
            self.difference += d * d;
            self.of.values += 1;
            self.of.not_finite += usize::from(!b.is_finite());
            self.norm += if b.is_finite() { b * b } else { 0.0 };
            if d > self.of.largest || self.of.at.is_empty() {
                self.of.largest = d;
                self.of.at = place(step, dims, i);
            }
        }
    }

    fn finish(mut self, tolerance: f64) -> Difference {
        self.of.relative = if self.difference == 0.0 { 0.0 } else { (self.difference / self.norm).sqrt() };
        self.of.tolerance = tolerance;
        self.of
    }
}

fn place(step: usize, dims: &[usize], mut flat: usize) -> String {
    let mut index = vec![0; dims.len()];
    for (slot, &n) in index.iter_mut().zip(dims).rev() {
        *slot = flat % n.max(1);
        flat /= n.max(1);
    }
    format!("step {step}, {index:?}")
}
