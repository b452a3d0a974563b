//! The text form, written: `parse(print(g)) == g` at every level of the pipeline.
//!
//! Values are numbered densely in program order, each region for itself, so equal graphs print equal text. See
//! `docs/ARCHITECTURE.md` for an example of every form.

use crate::{ConstKind, Graph, Inst, Op, RopePart, Scalar, Value};
use llamac_formats::rope::{RopeScaling, RopeTable};
use std::collections::HashMap;
use std::fmt::{self, Write};

/// The graph as text, ending in a newline.
pub fn print(graph: &Graph) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_graph(&mut out, graph);
    out
}

/// One instruction as the graph's text shows it (but for a fusion's region, which is elided). Linear in the graph: for
/// messages.
pub fn print_inst(graph: &Graph, inst: Inst) -> String {
    let mut out = String::new();
    let _ = write_inst(&mut out, graph, &Names::of(graph), inst, None);
    out
}

/// The name of a value in the graph's text. Linear in the graph: for messages.
pub fn value_name(graph: &Graph, value: Value) -> String {
    Names::of(graph).name(value)
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_graph(f, self)
    }
}

/// A float so that it reads back to the same bits: `1.0`, `-0.0`, `1e-6`, `inf`, `nan`, other NaNs as `0x7f800001`.
pub fn float_text(value: f32) -> String {
    if value.is_nan() && value.to_bits() != f32::NAN.to_bits() {
        format!("{:#010x}", value.to_bits())
    } else if value.is_nan() {
        "nan".into()
    } else {
        format!("{value:?}")
    }
}

/// Dense numbers in program order.
struct Names(HashMap<Value, usize>);

impl Names {
    fn of(graph: &Graph) -> Names {
        let values = graph.order().iter().flat_map(|&i| graph.results(i).iter().copied());
        Names(values.enumerate().map(|(n, v)| (v, n)).collect())
    }

    fn name(&self, value: Value) -> String {
        match self.0.get(&value) {
            Some(n) => format!("%{n}"),
            // Only in graphs that the verifier refuses; `?` keeps the text from parsing.
            None => format!("%?{}", value.0),
        }
    }

    fn list(&self, values: &[Value]) -> String {
        values.iter().map(|&v| self.name(v)).collect::<Vec<_>>().join(", ")
    }
}

fn write_graph(out: &mut impl Write, graph: &Graph) -> fmt::Result {
    let b = graph.bounds;
    out.write_str("graph @")?;
    if is_identifier(&graph.name) {
        out.write_str(&graph.name)?
    } else {
        write!(out, "{:?}", graph.name)?
    }
    writeln!(out, " S<={} R<={} T<={} slots={} {{", b.rows, b.outputs, b.tokens, b.slots)?;
    let names = Names::of(graph);
    write_body(out, graph, &names, 1)?;
    out.write_str("  return")?;
    for (i, (name, value)) in graph.outputs().iter().enumerate() {
        write!(out, "{} {name:?} = {}", if i == 0 { "" } else { "," }, names.name(*value))?;
    }
    out.write_str("\n}\n")
}

fn write_body(out: &mut impl Write, graph: &Graph, names: &Names, depth: usize) -> fmt::Result {
    for &inst in graph.order() {
        write!(out, "{:1$}", "", 2 * depth)?;
        write_inst(out, graph, names, inst, Some(depth))?;
        out.write_str("\n")?;
    }
    Ok(())
}

/// Writes an instruction without indentation or newline; its region only if the depth is given.
fn write_inst(out: &mut impl Write, graph: &Graph, names: &Names, inst: Inst, depth: Option<usize>) -> fmt::Result {
    let data = graph.inst(inst);
    for (i, &r) in data.results.iter().enumerate() {
        write!(out, "{}{}: {}", if i == 0 { "" } else { ", " }, names.name(r), graph.ty(r))?;
    }
    write!(out, " = {}", data.op.mnemonic())?;
    let operands = names.list(&data.operands);
    // What stands between the mnemonic and the operands.
    match &data.op {
        Op::Input { name, .. } | Op::State { name } => write!(out, " {name:?}")?,
        Op::Weight(recipe) => write!(out, " {recipe}")?,
        Op::Const(ConstKind::Splat(Scalar::Float(x))) => write!(out, " {}", float_text(*x))?,
        Op::Const(ConstKind::Splat(Scalar::Int(x))) => write!(out, " {x}")?,
        Op::Const(ConstKind::Splat(Scalar::Bool(x))) => write!(out, " {x}")?,
        Op::Const(ConstKind::Rope { table, part }) => write_rope(out, table, *part)?,
        Op::Param { index } => write!(out, " {index}")?,
        Op::Compare(c) => write!(out, " {c}")?,
        Op::Reduce { op, .. } => write!(out, " {op}")?,
        Op::Fusion(f) => write!(out, " {} {:?} ({operands}) {{", f.kind, f.name)?,
        _ => {}
    }
    if !operands.is_empty() && !matches!(data.op, Op::Fusion(_)) {
        write!(out, " {operands}")?;
    }
    match &data.op {
        Op::Input { limit: Some(limit), .. } => write!(out, " limit={limit}")?,
        Op::Dot(spec) => {
            for (name, pairs) in [("batch", &spec.batch), ("contract", &spec.contract)] {
                let (lhs, rhs): (Vec<usize>, Vec<usize>) = pairs.iter().copied().unzip();
                if name == "contract" || !pairs.is_empty() {
                    write!(out, " {name}={lhs:?}x{rhs:?}")?;
                }
            }
        }
        Op::Reduce { axis, .. } | Op::Concat { axis } => write!(out, " axis={axis}")?,
        Op::Transpose { perm } => write!(out, " perm={perm:?}")?,
        Op::Slice { axis, start, len } => write!(out, " axis={axis} start={start} len={len}")?,
        Op::Broadcast { axes } => write!(out, " axes={axes:?}")?,
        Op::Fusion(f) => match depth {
            None => out.write_str(" … }")?,
            Some(depth) => {
                let inner = Names::of(&f.region);
                out.write_str("\n")?;
                write_body(out, &f.region, &inner, depth + 1)?;
                let results: Vec<Value> = f.region.outputs().iter().map(|(_, v)| *v).collect();
                let results = inner.list(&results);
                let space = if results.is_empty() { "" } else { " " };
                writeln!(out, "{:1$}yield{space}{results}", "", 2 * depth + 2)?;
                write!(out, "{:1$}}}", "", 2 * depth)?;
            }
        },
        _ => {}
    }
    if !data.origin.is_empty() {
        write!(out, " @{:?}", data.origin)?;
    }
    Ok(())
}

fn write_rope(out: &mut impl Write, table: &RopeTable, part: RopePart) -> fmt::Result {
    let part = match part {
        RopePart::Cos => "rope_cos",
        RopePart::Sin => "rope_sin",
    };
    write!(out, " {part} theta={} head_dim={}", table.theta, table.head_dim)?;
    match &table.scaling {
        RopeScaling::Default => Ok(()),
        RopeScaling::Linear { factor } => write!(out, " scaling=linear factor={factor}"),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => write!(
            out,
            " scaling=llama3 factor={factor} low={low_freq_factor} high={high_freq_factor} \
             original={original_max_position_embeddings}"
        ),
        RopeScaling::Factors { factors } => {
            let list: Vec<String> = factors.iter().map(f32::to_string).collect();
            write!(out, " scaling=factors factors=[{}]", list.join(", "))
        }
    }
}

/// Whether a graph's name needs no quotes.
fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}
