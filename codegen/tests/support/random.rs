//! Steps with random inputs, through the interpreter and through compiled code.

use super::source::{Numbers, Source};
use super::{Machine, build, build_fused};
use llamac_codegen::Options;
use llamac_formats::{DType, Sizes};
use llamac_ir::interp::{Data, Input, Interpreter};
use llamac_ir::{Graph, Op};
use llamac_passes::FusionSet;

/// Values of an input.
enum Values {
    Float(Vec<f32>),
    Int(Vec<i32>),
}

/// Runs steps of the given sizes through the f64 interpreter and through a compiled program; panics where they differ by
/// more than f32 rounding explains.
pub fn agree(graph: &Graph, machine: &mut Machine, source: &Source, steps: &[Sizes], seed: u64, what: &str) {
    let mut judge = Interpreter::<f64>::new(graph, source);
    let mut numbers = Numbers::new(seed);
    for (at, &sizes) in steps.iter().enumerate() {
        let mut inputs: Vec<(String, Values)> = vec![];
        for &inst in graph.order() {
            let Op::Input { name, limit } = graph.op(inst) else { continue };
            let ty = graph.ty(graph.result(inst));
            let n: usize = ty.dims.iter().map(|d| d.value(&sizes)).product();
            let values = match ty.dtype {
                // Rows of one slot at ascending positions, or a slot each.
                DType::I32 if name == "positions" => Values::Int((0..n).map(|i| (i % sizes.tokens) as i32).collect()),
                DType::I32 if name == "slots" => Values::Int((0..n).map(|i| (i / sizes.tokens) as i32).collect()),
                DType::I32 => {
                    let limit = limit.unwrap_or(7).min(if name == "outputs" { sizes.rows } else { usize::MAX });
                    Values::Int((0..n).map(|_| numbers.below(limit) as i32).collect())
                }
                _ => Values::Float((0..n).map(|_| numbers.unit() * 2.0).collect()),
            };
            inputs.push((name.clone(), values));
        }
        let given: Vec<(&str, Input<'_>)> = inputs
            .iter()
            .map(|(name, v)| {
                let input = match v {
                    Values::Float(v) => Input::Float(v),
                    Values::Int(v) => Input::Int(v),
                };
                (name.as_str(), input)
            })
            .collect();
        let wanted = judge.step(sizes, &given).unwrap();
        let bytes: Vec<(&str, Vec<u8>)> = inputs
            .iter()
            .map(|(name, v)| {
                let bytes = match v {
                    Values::Float(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
                    Values::Int(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
                };
                (name.as_str(), bytes)
            })
            .collect();
        let found = machine.step(sizes, &bytes);
        for (((name, value), wanted), found) in graph.outputs().iter().zip(&wanted).zip(&found) {
            let what = format!("{what}, step {at} {sizes:?}, output {name}");
            match (graph.ty(*value).dtype, &wanted.data) {
                (DType::Bool, Data::Bool(w)) => {
                    let f: Vec<bool> = found.iter().map(|&b| b != 0).collect();
                    assert!(found.iter().all(|b| *b < 2), "{what}: a truth value is 0 or 1");
                    assert_eq!(&f, w.as_ref(), "{what}");
                }
                (DType::I32, Data::Int(w)) => {
                    let f: Vec<i32> =
                        found.chunks_exact(4).map(|c| i32::from_le_bytes(c.try_into().unwrap())).collect();
                    assert_eq!(&f, w.as_ref(), "{what}");
                }
                (dtype, _) => {
                    let f: Vec<f32> = match dtype {
                        DType::F32 => {
                            found.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
                        }
                        DType::F16 => found
                            .chunks_exact(2)
                            .map(|c| half::f16::from_bits(u16::from_le_bytes(c.try_into().unwrap())).to_f32())
                            .collect(),
                        _ => found
                            .chunks_exact(2)
                            .map(|c| half::bf16::from_bits(u16::from_le_bytes(c.try_into().unwrap())).to_f32())
                            .collect(),
                    };
                    let tolerance = match dtype {
                        DType::F32 => 1e-4,
                        DType::F16 => 2e-3,
                        _ => 1e-2,
                    };
                    compare(&f, &wanted.floats(), tolerance, &what);
                }
            }
        }
    }
}

fn compare(found: &[f32], wanted: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: elements");
    let scale = wanted.iter().filter(|w| w.is_finite()).fold(0f64, |m, w| m.max(w.abs()));
    for (i, (&f, &w)) in found.iter().zip(wanted).enumerate() {
        let f = f64::from(f);
        let same = f == w || f.is_nan() && w.is_nan() || w.is_finite() && (f - w).abs() <= tolerance * (scale + 1e-3);
        let overflow = w.abs() > f64::from(f32::MAX) && f.is_infinite();
        assert!(same || overflow, "{what}: element {i} is {f}, expected {w}");
    }
}

/// Compiles a graph with every fusion and compares steps of several sizes.
pub fn agree_with_all(graph: &Graph, steps: &[Sizes], seed: u64) {
    let source = Source::of(graph, seed);
    for &fusion in FusionSet::ALL {
        let compiled = build(graph, fusion, &Options::default());
        let mut machine = Machine::new(compiled, &source);
        agree(graph, &mut machine, &source, steps, seed + 1, fusion.name());
    }
}

/// Compiles a graph as it is and compares.
pub fn agree_as_is(graph: &Graph, steps: &[Sizes], seed: u64) {
    let source = Source::of(graph, seed);
    let mut machine = Machine::new(build_fused(graph.clone(), &Options::default()), &source);
    agree(graph, &mut machine, &source, steps, seed + 1, "as is");
}
