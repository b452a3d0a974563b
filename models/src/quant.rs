//! The element types that a model's matrices get, whatever its files hold.
//!
//! A choice is made for each matrix by its place in the model, which its tensor's name tells (Hugging Face's names and GGUF's);
//! mixes choose as llama.cpp does ([`Mix`]). The graph then says so itself: the weight has the chosen type, and its recipe
//! converts the source's tensors while they are packed. Norms, biases and whatever else is no matrix of a dot or an embedding
//! stay as they are.

use llamac_formats::DType;
use llamac_formats::block::Mix;
use llamac_formats::block::mix::{Place, Role};
use llamac_ir::{Graph, Inst, Op, Recipe};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// What the matrices become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quant {
    /// One type for all: f32, f16 or bf16.
    Float(DType),
    /// Block formats, chosen for each matrix.
    Blocks(Mix),
}

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("--quant {found}: expected one of {}", Quant::all().map(|q| q.to_string()).collect::<Vec<_>>().join(", "))]
pub struct QuantError {
    /// What was given.
    pub found: String,
}

impl Quant {
    /// Every choice, in the order of help texts.
    pub fn all() -> impl Iterator<Item = Quant> {
        let floats = [DType::BF16, DType::F16, DType::F32].map(Quant::Float);
        Mix::ALL.into_iter().map(Quant::Blocks).chain(floats)
    }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quant::Float(dtype) => dtype.fmt(f),
            Quant::Blocks(mix) => mix.fmt(f),
        }
    }
}

impl FromStr for Quant {
    type Err = QuantError;

    fn from_str(s: &str) -> Result<Quant, QuantError> {
        Quant::all().find(|q| q.to_string() == s).ok_or_else(|| QuantError { found: s.to_owned() })
    }
}

/// What was done to a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantised {
    /// Matrices by what they were and what they are now.
    pub changed: BTreeMap<(DType, DType), usize>,
    /// Recipes of matrices that are read in ways that take no blocks, and so stay as they are.
    pub kept: Vec<String>,
}

/// A matrix that is in a block format already, and would lose twice.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "tensor `{tensor}` is {found} and would be rounded again to {wanted}: name the model that it was made of, or leave --quant out"
)]
pub struct RoundedAgain {
    /// The first tensor of its recipe.
    pub tensor: String,
    /// What it is.
    pub found: DType,
    /// What it would become.
    pub wanted: DType,
}

/// Gives the matrices of an imported graph the types that `quant` chooses. `is_70b` is [`Place::is_70b`].
///
/// # Errors
/// Blocks that would become blocks of another format; nothing is changed then.
pub fn quantise(graph: &mut Graph, quant: Quant, is_70b: bool) -> Result<Quantised, RoundedAgain> {
    let mut done = Quantised::default();
    let mut chosen = vec![];
    let matrices: Vec<Matrix> = graph.order().iter().filter_map(|&inst| matrix(graph, inst)).collect();
    let layers = matrices.iter().filter_map(|m| m.layer).max().map_or(0, |last| last + 1);
    for m in matrices {
        let value = graph.result(m.inst);
        let ty = graph.ty(value).clone();
        let row = ty.dims[1].as_const().unwrap_or(0);
        let dtype = match quant {
            Quant::Float(dtype) => dtype,
            Quant::Blocks(mix) => mix.tensor_type(&Place {
                role: m.role,
                layer: m.layer.unwrap_or(0),
                layers: layers.max(1),
                row,
                is_70b,
            }),
        };
        let Op::Weight(recipe) = graph.op(m.inst) else { continue };
        if dtype == ty.dtype {
            continue;
        }
        if !m.plain {
            done.kept.push(recipe.to_string());
            continue;
        }
        if let (found @ DType::Block(_), wanted @ DType::Block(_)) = (ty.dtype, dtype) {
            let tensor = recipe.tensors().first().copied().unwrap_or_default().to_owned();
            return Err(RoundedAgain { tensor, found, wanted });
        }
        chosen.push((m.inst, dtype));
    }
    for (inst, dtype) in chosen {
        convert(graph, inst, dtype, &mut done);
    }
    Ok(done)
}

/// Gives a weight another type.
fn convert(graph: &mut Graph, inst: Inst, dtype: DType, done: &mut Quantised) {
    let Op::Weight(recipe) = graph.op(inst) else { return };
    let recipe = Recipe::Convert(Box::new(recipe.clone()));
    let value = graph.result(inst);
    let ty = graph.ty(value).clone();
    *graph.op_mut(inst) = Op::Weight(recipe);
    graph.set_ty(value, ty.with_dtype(dtype));
    *done.changed.entry((ty.dtype, dtype)).or_default() += 1;
}

/// Gives the matrices of an imported graph the types that the weights of `compiled`, a graph made of it, have; `None` where the
/// two have no tensor in common.
pub fn quantise_as(graph: &mut Graph, compiled: &Graph) -> Option<Quantised> {
    let weight = |graph: &Graph, inst: Inst| match graph.op(inst) {
        Op::Weight(recipe) if graph.ty(graph.result(inst)).rank() == 2 => Some(recipe.clone()),
        _ => None,
    };
    let mut types: HashMap<String, DType> = HashMap::new();
    for &inst in compiled.order() {
        let dtype = compiled.ty(compiled.result(inst)).dtype;
        for name in weight(compiled, inst).iter().flat_map(Recipe::tensors) {
            types.insert(name.to_owned(), dtype);
        }
    }
    let mut done = Quantised::default();
    let (mut matrices, mut found) = (0, 0);
    for inst in graph.order().to_vec() {
        let Some(recipe) = weight(graph, inst) else { continue };
        matrices += 1;
        let Some(&dtype) = recipe.tensors().first().and_then(|&name| types.get(name)) else { continue };
        found += 1;
        if dtype != graph.ty(graph.result(inst)).dtype {
            convert(graph, inst, dtype, &mut done);
        }
    }
    (matrices == 0 || found > 0).then_some(done)
}

/// A weight that a dot or an embedding reads.
struct Matrix {
    inst: Inst,
    role: Role,
    layer: Option<usize>,
    /// Whether it is read by dots over its rows and by gathers to f32, and by nothing else.
    plain: bool,
}

fn matrix(graph: &Graph, inst: Inst) -> Option<Matrix> {
    let Op::Weight(recipe) = graph.op(inst) else { return None };
    let value = graph.result(inst);
    if graph.ty(value).rank() != 2 {
        return None;
    }
    let (mut dots, mut gathers, mut plain) = (0, 0, !graph.is_output(value));
    for &reader in graph.order() {
        for (i, _) in graph.operands(reader).iter().enumerate().filter(|&(_, &v)| v == value) {
            match graph.op(reader) {
                Op::Dot(spec) if i > 0 => {
                    let inputs = graph.ty(graph.operands(reader)[0]).rank().wrapping_sub(1);
                    plain &= spec.batch.is_empty() && spec.contract == [(inputs, 1)];
                    dots += 1;
                }
                Op::Gather if i == 0 => {
                    plain &= graph.ty(graph.result(reader)).dtype == DType::F32;
                    gathers += 1;
                }
                _ => plain = false,
            }
        }
    }
    if dots + gathers == 0 {
        return None;
    }
    let names = recipe.tensors();
    let name = names.first().copied().unwrap_or_default();
    let role = match () {
        // A table that a dot reads as well makes the logits: a tied embedding.
        () if gathers > 0 && dots > 0 => Role::Output,
        () if gathers > 0 => Role::Embedding,
        () if name == "lm_head.weight" || name == "output.weight" => Role::Output,
        () if name.ends_with(".v_proj.weight") || name.ends_with(".attn_v.weight") => Role::Values,
        () if name.ends_with(".down_proj.weight") || name.ends_with(".ffn_down.weight") => Role::Down,
        () => Role::Inner,
    };
    Some(Matrix { inst, role, layer: layer_of(name), plain })
}

/// The layer in a tensor's name: `model.layers.3.…`, `blk.3.…`.
fn layer_of(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("model.layers.").or_else(|| name.strip_prefix("blk."))?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use llamac_ir::{parse, verify};

    const TWO_LAYERS: &str = r#"graph @g S<=4 R<=1 T<=8 slots=1 {
  %ids: i32[S] = input "tokens" limit=64
  %e: bf16[64, 256] = weight "model.embed_tokens.weight"
  %v: bf16[256, 256] = weight "model.layers.0.self_attn.v_proj.weight"
  %d: bf16[256, 96] = weight "model.layers.1.mlp.down_proj.weight"
  %g: bf16[96, 256] = weight permute_rows("model.layers.1.mlp.gate_proj.weight", heads=2)
  %n: bf16[256] = weight "model.norm.weight"
  %x: f32[S, 256] = gather %e, %ids
  %a: f32[S, 256] = dot %x, %v contract=[1]x[1]
  %b: f32[S, 96] = dot %a, %g contract=[1]x[1]
  %c: f32[S, 256] = dot %b, %d contract=[1]x[1]
  %w: f32[256] = cast %n
  %ws: f32[S, 256] = broadcast %w axes=[1]
  %y: f32[S, 256] = mul %c, %ws
  %l: f32[S, 64] = dot %y, %e contract=[1]x[1]
  return "logits" = %l
}"#;

    fn types(quant: &str) -> (Vec<String>, Quantised) {
        let mut graph = parse(TWO_LAYERS).unwrap();
        let done = quantise(&mut graph, quant.parse().unwrap(), false).unwrap();
        verify(&graph).unwrap();
        let weights = graph.order().iter().filter(|&&i| matches!(graph.op(i), Op::Weight(_)));
        (weights.map(|&i| graph.ty(graph.result(i)).dtype.to_string()).collect(), done)
    }

    #[test]
    fn each_matrix_has_its_type() {
        // The tied embedding makes the logits; rows of 96 take no block of 256, and norms stay.
        assert_eq!(types("q4_k_m").0, ["q6_k", "q4_k", "q8_0", "q4_k", "bf16"]);
        assert_eq!(types("q4_0").0, ["q6_k", "q4_0", "q4_0", "q4_0", "bf16"]);
        assert_eq!(types("q8_0").0, ["q8_0", "q8_0", "q8_0", "q8_0", "bf16"]);
        assert_eq!(types("f32").0, ["f32", "f32", "f32", "f32", "bf16"]);
        let (same, done) = types("bf16");
        assert_eq!(same, ["bf16"; 5]);
        assert!(done.changed.is_empty() && done.kept.is_empty());
    }

    #[test]
    fn recipes_convert() {
        let mut graph = parse(TWO_LAYERS).unwrap();
        quantise(&mut graph, Quant::Blocks(Mix::Q8_0), false).unwrap();
        let text = llamac_ir::print(&graph);
        assert!(
            text.contains(r#"weight convert(permute_rows("model.layers.1.mlp.gate_proj.weight", heads=2))"#),
            "{text}"
        );
        assert!(text.contains(r#"bf16[256] = weight "model.norm.weight""#), "{text}");
    }

    #[test]
    fn blocks_are_not_rounded_again() {
        let text = TWO_LAYERS.replace("bf16[96, 256]", "q8_0[96, 256]");
        let mut graph = parse(&text).unwrap();
        let error = quantise(&mut graph, Quant::Blocks(Mix::Q4_0), false).unwrap_err().to_string();
        assert!(error.contains("model.layers.1.mlp.gate_proj.weight` is q8_0") && error.contains("q4_0"), "{error}");
        assert_eq!(llamac_ir::print(&graph), llamac_ir::print(&parse(&text).unwrap()), "nothing was changed");
        // As it is, and in more bits, it loses nothing.
        assert_eq!(quantise(&mut graph.clone(), Quant::Blocks(Mix::Q8_0), false).unwrap().changed.len(), 1);
        quantise(&mut graph, Quant::Float(DType::F32), false).unwrap();
    }

    #[test]
    fn types_of_a_compiled_graph() {
        let (mut compiled, mut graph) = (parse(TWO_LAYERS).unwrap(), parse(TWO_LAYERS).unwrap());
        quantise(&mut compiled, Quant::Blocks(Mix::Q4KM), false).unwrap();
        quantise_as(&mut graph, &compiled).unwrap();
        assert_eq!(llamac_ir::print(&graph), llamac_ir::print(&compiled));
        let other = parse(&TWO_LAYERS.replace("model.", "blk.")).unwrap();
        assert_eq!(quantise_as(&mut graph, &other), None);
    }

    #[test]
    fn what_is_read_otherwise_stays() {
        let text = r#"graph @g S<=4 R<=1 T<=8 slots=1 {
  %x: f32[S, 64] = input "x"
  %w: f32[64, 64] = weight "w"
  %t: f32[64, 64] = transpose %w perm=[1, 0]
  %a: f32[S, 64] = dot %x, %w contract=[1]x[1]
  return "a" = %a, "t" = %t
}"#;
        let mut graph = parse(text).unwrap();
        let done = quantise(&mut graph, Quant::Blocks(Mix::Q8_0), false).unwrap();
        assert_eq!((done.changed.len(), done.kept), (0, vec!["\"w\"".to_owned()]));
    }

    #[test]
    fn names() {
        assert_eq!(Quant::all().filter(|q| q.to_string().parse::<Quant>() == Ok(*q)).count(), 11);
        let error = "q3_k".parse::<Quant>().unwrap_err().to_string();
        assert!(error.contains("q3_k") && error.contains("q4_k_m"), "{error}");
    }
}
