//! Does compiled code compute what the graph says? The interpreter (f64), unfused code and fused code side by side; or an
//! artifact beside the interpreter.

mod packed;
mod steps;
mod sum;

use crate::artifact::Reopened;
use crate::compile::{self, CompileError};
use crate::model::Model;
use llamac_formats::q8;
use llamac_ir::interp::{InterpError, Interpreter, Tensor};
use llamac_ir::{DType, Graph, Op, TensorSource};
use llamac_models::quant::quantise_as;
use llamac_passes::manager::When;
use llamac_passes::{FusionSet, Options};
use llamac_runtime::{Data, Pool, Program, Session, StepError, Tier};
use packed::PackedWeights;
use std::ops::ControlFlow;
use std::sync::Arc;
use steps::{Step, steps};
use sum::Sum;
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

/// One comparison.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The entry that ran: `decode` or `rows`.
    pub entry: String,
    /// The output.
    pub output: String,
    /// What is compared: `unfused`, `fused` or `artifact`.
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
pub enum VerifyError {
    /// It cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The interpreter cannot run it.
    #[error(transparent)]
    Interp(#[from] InterpError),
    /// The runtime refuses a step.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The artifact cannot be run.
    #[error(transparent)]
    Artifact(#[from] llamac_runtime::ArtifactError),
    /// The artifact does not hold the compiler's side of it.
    #[error(transparent)]
    Reopen(#[from] crate::artifact::ArtifactError),
    /// The artifact is of another model, or of other sizes.
    #[error("the artifact {artifact} and the model {model} do not belong together: {what}")]
    Other {
        /// The artifact.
        artifact: String,
        /// The model.
        model: String,
        /// What differs.
        what: String,
    },
    /// A weight of the graph that the program has not.
    #[error("the artifact's graph names the weight {recipe} ({ty}), which its program does not hold")]
    Weight {
        /// Its recipe.
        recipe: String,
        /// Its type.
        ty: String,
    },
    /// A text graph that came without weights.
    #[error("{path} is a graph without weights")]
    NoWeights {
        /// The graph.
        path: String,
    },
    /// A prompt of a length that cannot be.
    #[error("a prompt of {found} ids was given, expected 1 to {most} (chunk and context)")]
    Ids {
        /// How many were given.
        found: usize,
        /// How many can be.
        most: usize,
    },
    /// An input that would be too large to make up.
    #[error("the input {name:?} would have {found} elements, expected at most {most}: make it smaller")]
    Input {
        /// The input.
        name: String,
        /// Its elements.
        found: usize,
        /// The most there may be.
        most: usize,
    },
    /// A step that cannot be.
    #[error("a step of {found} rows was asked for, expected 1 to {most} (chunk and context)")]
    Rows {
        /// What was asked for.
        found: usize,
        /// What can be.
        most: usize,
    },
}

/// f32 throughout: rounding of sums over some thousand terms, layer upon layer, stays below this (the goldens' tolerance).
const TOLERANCE_F32: f64 = 1e-5;
/// With 16-bit weights, whose values are fewer and larger in spread.
const TOLERANCE_16BIT: f64 = 2e-5;

/// Where activations or caches are rounded to bf16 or q8, what differs in the last bit of f32 may round to the other side, and
/// what follows from there rounds as if at random. Two such roundings differ from each other by √2 of what the rounding itself
/// costs, on average; this many times that cost is allowed. The cost is measured: the interpreter runs the steps without
/// rounding as well.
const TIMES_ROUNDING: f64 = 3.0;

/// Runs the same steps through all three and compares every output. Where the options make activations narrower the interpreter
/// runs the graph after `precision`, which says so.
///
/// # Errors
/// A model that cannot be compiled or run.
pub fn verify(model: &Model, settings: &Settings, pool: &Arc<Pool>) -> Result<Vec<Difference>, VerifyError> {
    let source = weights(model)?;
    let steps = steps(&model.graph, settings)?;
    let mut plain = settings.options.clone();
    plain.fusion = FusionSet::None;
    let unfused = build(model, &plain, settings, pool)?;
    let fused = build(model, &settings.options, settings, pool)?;
    compare(&narrowed(&model.graph, &settings.options)?, source, &steps, vec![("unfused", unfused), ("fused", fused)])
}

/// The graph with the activations and caches that the options choose.
fn narrowed(graph: &Graph, options: &Options) -> Result<Graph, CompileError> {
    let mut after = graph.clone();
    compile::run_passes(&mut after, options, &mut |pass, when, _| match (pass, when) {
        ("precision", When::After) => ControlFlow::Break(()),
        ("fuse-attention", When::Before) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })?;
    Ok(if narrows(&after) { after } else { graph.clone() })
}

/// Whether a value is rounded to fewer bits on its way to a dot.
fn narrows(graph: &Graph) -> bool {
    graph.order().iter().any(|&i| match graph.op(i) {
        Op::Cast => matches!(graph.ty(graph.result(i)).dtype, DType::Q8 | DType::BF16 | DType::F16),
        Op::Fusion(f) => narrows(&f.region),
        _ => false,
    })
}

/// Runs an artifact beside the interpreter: of the model it was made of, if that is given, else of the graph that it holds,
/// on its own weights, taken out of their panels. The latter shows that code, plan and weights of the file do what its graph says; only the
/// former that the graph and the weights are the model's.
///
/// # Errors
/// An artifact that cannot be run, or a model that it is not made of.
pub fn verify_artifact(
    artifact: &Program,
    model: Option<&Model>,
    settings: &Settings,
    pool: &Arc<Pool>,
) -> Result<Vec<Difference>, VerifyError> {
    let session = artifact.raw_session(Arc::clone(pool), settings.tier)?;
    let Some(model) = model else {
        let mut graph = crate::artifact::reopen(artifact)?.graph;
        let source = PackedWeights::take(&mut graph, artifact.executable())?;
        return compare(&graph, &source, &steps(&graph, settings)?, vec![("artifact", session)]);
    };
    check_same(artifact, model)?;
    let mut graph = model.graph.clone();
    let Reopened { graph: compiled, options, .. } = crate::artifact::reopen(artifact)?;
    if quantise_as(&mut graph, &compiled).is_none() {
        return Err(VerifyError::Other {
            artifact: artifact.path().display().to_string(),
            model: model.path.display().to_string(),
            what: "no weight of the artifact is made of a tensor of the model".to_owned(),
        });
    }
    let graph = narrowed(&graph, &options)?;
    compare(&graph, weights(model)?, &steps(&model.graph, settings)?, vec![("artifact", session)])
}

/// Refuses a model whose sizes, inputs or outputs are not the artifact's.
fn check_same(artifact: &Program, model: &Model) -> Result<(), VerifyError> {
    let other = |what: String| VerifyError::Other {
        artifact: artifact.path().display().to_string(),
        model: model.path.display().to_string(),
        what,
    };
    let program = artifact.executable().program();
    let graph = &model.graph;
    if program.bounds != graph.bounds {
        return Err(other(format!("the bounds are {:?} and {:?}", program.bounds, graph.bounds)));
    }
    let inputs = graph.order().iter().filter_map(|&i| match graph.op(i) {
        Op::Input { name, .. } => Some(name.as_str()),
        _ => None,
    });
    for (what, mut found, mut has) in [
        ("inputs", names(inputs), names(program.inputs.iter().map(|p| p.name.as_str()))),
        (
            "outputs",
            names(graph.outputs().iter().map(|(n, _)| n.as_str())),
            names(program.outputs.iter().map(|p| p.name.as_str())),
        ),
    ] {
        found.sort_unstable();
        has.sort_unstable();
        if found != has {
            return Err(other(format!("the {what} are {} and {}", has.join(", "), found.join(", "))));
        }
    }
    Ok(())
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    all.collect()
}

fn weights(model: &Model) -> Result<&dyn TensorSource, VerifyError> {
    model.source.as_deref().ok_or_else(|| VerifyError::NoWeights { path: model.path.display().to_string() })
}

/// Runs the same steps through the interpreter and through every session; each session is compared with the interpreter, and the
/// later ones with the first.
fn compare(
    graph: &Graph,
    source: &dyn TensorSource,
    steps: &[Step],
    mut sessions: Vec<(&'static str, Session)>,
) -> Result<Vec<Difference>, VerifyError> {
    let mut interpreter = Interpreter::<f64>::new(graph, source);
    let mut exact = narrows(graph).then(|| Interpreter::<f64>::new(graph, source).round_casts(false));
    let sixteen = graph
        .order()
        .iter()
        .any(|&i| matches!(graph.op(i), Op::Weight(_)) && graph.ty(graph.result(i)).dtype != DType::F32);
    let tolerance = if sixteen { TOLERANCE_16BIT } else { TOLERANCE_F32 };
    let mut sums: Vec<Sum> = vec![];
    let mut costs: Vec<Sum> = vec![];
    for (index, step) in steps.iter().enumerate() {
        let entry = if step.rows == 1 { "decode" } else { "rows" };
        let mut sizes = graph.bounds.sizes();
        for (_, session) in &mut sessions {
            sizes = session.step(&step.data())?.sizes();
        }
        let judged = interpreter.step(sizes, &step.inputs())?;
        let unrounded = exact.as_mut().map(|exact| exact.step(sizes, &step.inputs())).transpose()?;
        for (output, ((name, _), judged)) in graph.outputs().iter().zip(&judged).enumerate() {
            let reference = judged_numbers(judged);
            if let Some(unrounded) = &unrounded {
                let unrounded = judged_numbers(&unrounded[output]);
                Sum::of(&mut costs, entry, name, "rounded", "exact").add(index, &judged.dims, &reference, &unrounded);
            }
            let out = |s: &Session| s.outputs().and_then(|out| out.get(name)).map(numbers).unwrap_or_default();
            let found: Vec<(&'static str, Vec<f64>)> = sessions.iter().map(|(what, s)| (*what, out(s))).collect();
            for (what, values) in &found {
                Sum::of(&mut sums, entry, name, what, "interpreter").add(index, &judged.dims, values, &reference);
            }
            for (what, values) in found.iter().skip(1) {
                let (first, expected) = &found[0];
                Sum::of(&mut sums, entry, name, what, first).add(index, &judged.dims, values, expected);
            }
        }
    }
    let costs: Vec<Difference> = costs.into_iter().map(|c| c.finish(0.0)).collect();
    let allowed = |s: &Sum| {
        let of = costs.iter().find(|c| s.is_of(&c.entry, &c.output));
        // A cost that is no number allows nothing.
        of.map_or(tolerance, |c| {
            if c.relative.is_finite() { tolerance.max(TIMES_ROUNDING * c.relative) } else { tolerance }
        })
    };
    let allowed: Vec<f64> = sums.iter().map(allowed).collect();
    Ok(sums.into_iter().zip(allowed).map(|(s, allowed)| s.finish(allowed)).collect())
}

fn judged_numbers(tensor: &Tensor<f64>) -> Vec<f64> {
    match &tensor.data {
        llamac_ir::interp::Data::Int(v) => v.iter().map(|&x| f64::from(x)).collect(),
        llamac_ir::interp::Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
        _ => tensor.floats().to_vec(),
    }
}

fn build(model: &Model, options: &Options, settings: &Settings, pool: &Arc<Pool>) -> Result<Session, CompileError> {
    let compiled = compile::compile(model.graph.clone(), options, false)?;
    let (weights, _) = compile::pack_weights(&compiled, model, pool.threads(), &mut |_, _| {})?;
    compile::session(&compiled, weights, Arc::clone(pool), settings.tier)
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
