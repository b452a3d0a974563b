//! The `layout` pass: panels, joined weights, copies.

use crate::llama::{SMALL, Shape, llama};
use llamac_ir::infer::TypeError;
use llamac_ir::{
    Bounds, Builder, DType, Dim, DotSpec, Fusion, FusionKind, Graph, Inst, Layout, Op, Recipe, Type, UnaryOp, Value,
};
use llamac_passes::layout::{self, LayoutReport};
use llamac_passes::plan::plan;

const BOUNDS: Bounds = Bounds { rows: 8, outputs: 2, tokens: 32, slots: 2 };

/// Runs the pass and checks what must always hold: the graph obeys the verifier, a second run changes nothing, and it can
/// be planned.
fn run(graph: &mut Graph) -> LayoutReport {
    let report = layout::run(graph).expect("a layout");
    llamac_ir::verify(graph).expect("layout keeps the rules");
    let mut again = graph.clone();
    let second = layout::run(&mut again).expect("a layout");
    assert_eq!(&again, graph, "a second run changes nothing");
    assert!(second.copies.is_empty() && second.joined.is_empty() && second.unfused.is_empty(), "{second:?}");
    plan(graph).expect("a plan");
    report
}

fn find(graph: &Graph, pred: impl Fn(&Op) -> bool) -> Vec<Inst> {
    graph.order().iter().copied().filter(|&i| pred(graph.op(i))).collect()
}

fn rows(width: usize) -> Type {
    Type::new(DType::F32, [Dim::ROWS, Dim::Const(width)])
}

/// Appends a fusion of the region that `f` builds over params of the operands' types.
fn fusion(
    b: &mut Builder,
    kind: FusionKind,
    operands: &[Value],
    f: impl FnOnce(&mut Builder, &[Value]) -> Result<Value, TypeError>,
) -> Result<Value, TypeError> {
    let mut r = Builder::new("", b.graph().bounds);
    let params = operands
        .iter()
        .enumerate()
        .map(|(index, &v)| r.op(Op::Param { index }, &[], Some(b.ty(v).clone())))
        .collect::<Result<Vec<_>, _>>()?;
    let result = f(&mut r, &params)?;
    r.output("", result);
    b.op(Op::Fusion(Box::new(Fusion { kind, name: "test".into(), region: r.finish() })), operands, None)
}

/// A dot with several right sides.
fn segments(b: &mut Builder, x: Value, weights: &[Value]) -> Result<Value, TypeError> {
    b.op(Op::Dot(DotSpec::linear(2)), &[&[x], weights].concat(), None)
}

fn weight(b: &mut Builder, name: &str, dtype: DType, n: usize, k: usize) -> Value {
    b.weight(Recipe::tensor(name), dtype, &[n, k]).expect("a weight")
}

#[test]
fn every_matrix_of_a_model_lies_in_panels_and_only_rope_is_copied() {
    for tied in [true, false] {
        let mut graph = llama(Shape { tied, dtype: DType::BF16, ..SMALL }, BOUNDS);
        let report = run(&mut graph);
        for inst in find(&graph, |op| matches!(op, Op::Weight(_))) {
            let ty = graph.ty(graph.result(inst));
            assert_eq!(ty.layout == Layout::Panels, ty.rank() == 2, "{ty}");
        }
        assert_eq!(report.panels, 7 * SMALL.layers + 1 + usize::from(!tied));
        assert_eq!(report.flat, []);
        // q after RoPE is a concat that a dot reads; everything else is read where it is.
        assert_eq!(report.copies.len(), SMALL.layers, "{:#?}", report.copies);
        assert!(report.copies.iter().all(|c| c.of.ends_with("attn.q_rope concat")), "{:#?}", report.copies);
    }
}

#[test]
fn right_sides_of_one_dtype_become_one_weight() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(32), None).unwrap();
    let [q, k] = ["q", "k"].map(|n| weight(&mut b, n, DType::BF16, 32, 32));
    let v = weight(&mut b, "v", DType::F16, 16, 32);
    let odd = weight(&mut b, "odd", DType::F16, 12, 32);
    let out = segments(&mut b, x, &[q, k, v, odd]).unwrap();
    b.output("out", out);
    let mut graph = b.finish();
    let report = run(&mut graph);
    assert_eq!(report.joined, [r#"concat("q", "k")"#]);
    let dot = find(&graph, |op| matches!(op, Op::Dot(_)))[0];
    let right: Vec<String> = graph.operands(dot)[1..].iter().map(|&v| graph.ty(v).to_string()).collect();
    assert_eq!(right, ["bf16[64, 32] panels", "f16[16, 32] panels", "f16[12, 32] panels"]);
    assert_eq!(find(&graph, |op| matches!(op, Op::Weight(_))).len(), 3);
}

#[test]
fn a_weight_with_another_reader_is_not_joined() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(32), None).unwrap();
    let ids = b.input("ids", Type::new(DType::I32, [Dim::ROWS]), Some(32)).unwrap();
    let [q, k] = ["q", "k"].map(|n| weight(&mut b, n, DType::BF16, 32, 32));
    let out = segments(&mut b, x, &[q, k]).unwrap();
    let row = b.gather(k, ids).unwrap();
    b.output("out", out);
    b.output("row", row);
    let mut graph = b.finish();
    let report = run(&mut graph);
    assert_eq!((report.joined.len(), report.panels), (0, 2));
}

fn silu_mul(r: &mut Builder, p: &[Value], n: usize) -> Result<Value, TypeError> {
    let sum = segments(r, p[0], &p[1..])?;
    let gate = r.slice(sum, 1, 0, n)?;
    let up = r.slice(sum, 1, n, n)?;
    let gate = r.unary(UnaryOp::Tanh, gate)?;
    r.mul(gate, up)
}

#[test]
fn a_paired_epilogue_gets_interleaved_panels() {
    for (n, joined) in [(48, vec![r#"interleave_panels("gate", "up")"#.to_string()]), (44, vec![])] {
        let mut b = Builder::new("g", BOUNDS);
        let x = b.input("x", rows(32), None).unwrap();
        let gate = weight(&mut b, "gate", DType::F32, n, 32);
        let up = weight(&mut b, "up", DType::F32, n, 32);
        let out = fusion(&mut b, FusionKind::Epilogue, &[x, gate, up], |r, p| silu_mul(r, p, n)).unwrap();
        b.output("out", out);
        let mut graph = b.finish();
        let report = run(&mut graph);
        assert_eq!(report.joined, joined);
        assert_eq!(graph.operands(graph.def(graph.outputs()[0].1)).len(), if joined.is_empty() { 3 } else { 2 });
    }
}

#[test]
fn an_epilogue_over_the_concatenation_gets_concatenated_panels() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(32), None).unwrap();
    let bias = b.weight(Recipe::tensor("bias"), DType::F32, &[64]).unwrap();
    let [k, v] = ["k", "v"].map(|n| weight(&mut b, n, DType::F32, 32, 32));
    let out = fusion(&mut b, FusionKind::Epilogue, &[bias, k, x, v], |r, p| {
        let sum = segments(r, p[2], &[p[1], p[3]])?;
        let dims = r.ty(sum).dims.clone();
        let bias = r.broadcast(p[0], &dims, &[1])?;
        r.add(sum, bias)
    });
    b.output("out", out.unwrap());
    let mut graph = b.finish();
    let report = run(&mut graph);
    assert_eq!(report.joined, [r#"concat("k", "v")"#]);
    let fused = graph.def(graph.outputs()[0].1);
    let types: Vec<String> = graph.operands(fused).iter().map(|&v| graph.ty(v).to_string()).collect();
    assert_eq!(types, ["f32[64]", "f32[64, 32] panels", "f32[S, 32]"]);
}

#[test]
fn a_weight_read_elementwise_stays_flat_and_its_epilogue_is_taken_apart() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(32), None).unwrap();
    let w = weight(&mut b, "w", DType::BF16, 16, 32);
    let wide = b.cast(w, DType::F32).unwrap();
    let out = fusion(&mut b, FusionKind::Epilogue, &[x, w], |r, p| {
        let sum = r.linear(p[0], p[1])?;
        r.unary(UnaryOp::Tanh, sum)
    });
    b.output("out", out.unwrap());
    b.output("wide", wide);
    let mut graph = b.finish();
    let report = run(&mut graph);
    assert_eq!((report.panels, report.flat.len(), report.unfused.len()), (0, 1, 1), "{report:#?}");
    // The strided dot is over f32.
    assert_eq!(report.copies.len(), 1, "{:#?}", report.copies);
    let dot = find(&graph, |op| matches!(op, Op::Dot(_)))[0];
    assert_eq!(graph.ty(graph.operands(dot)[1]).dtype, DType::F32);
}

#[test]
fn a_row_kernel_does_not_gather_from_a_tied_weight() {
    for tied in [true, false] {
        let mut b = Builder::new("g", BOUNDS);
        let ids = b.input("ids", Type::new(DType::I32, [Dim::ROWS]), Some(64)).unwrap();
        let w = weight(&mut b, "w", DType::F32, 64, 32);
        let x = fusion(&mut b, FusionKind::Rows, &[w, ids], |r, p| {
            let x = r.gather(p[0], p[1])?;
            r.unary(UnaryOp::Tanh, x)
        });
        let x = x.unwrap();
        let out = if tied { b.linear(x, w).unwrap() } else { x };
        b.output("out", out);
        let mut graph = b.finish();
        let report = run(&mut graph);
        assert_eq!((report.panels, report.unfused.len()), if tied { (1, 1) } else { (0, 0) }, "{report:#?}");
    }
}

#[test]
fn outputs_are_results_of_steps() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(32), None).unwrap();
    let w = weight(&mut b, "w", DType::BF16, 16, 32);
    let y = b.unary(UnaryOp::Exp, x).unwrap();
    let turned = b.transpose(y, &[1, 0]).unwrap();
    for (name, v) in [("x", x), ("w", w), ("y", y), ("again", y), ("turned", turned)] {
        b.output(name, v);
    }
    let mut graph = b.finish();
    let report = run(&mut graph);
    let readers: Vec<&str> = report.copies.iter().map(|c| c.reader.as_str()).collect();
    assert_eq!(readers, ["output \"x\"", "output \"w\"", "output \"again\"", "output \"turned\""]);
    assert_eq!(report.copies[1].bytes, 16 * 32 * 2);
}

#[test]
fn operands_of_gemms_and_dots_are_made_readable() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(32), None).unwrap();
    let w = weight(&mut b, "w", DType::F32, 16, 8);
    // Inputs first on the left: a transposed copy.
    let cut = b.slice(x, 1, 0, 8).unwrap();
    let turned = b.transpose(cut, &[1, 0]).unwrap();
    let first = b.dot(turned, w, &[], &[(0, 1)]).unwrap();
    // A slice of rows is read where it is.
    let direct = b.linear(cut, w).unwrap();
    // Rows of a transposed view do not lie one after the other.
    let parts = b.reshape(x, &[Dim::ROWS, 4.into(), 8.into()]).unwrap();
    let swapped = b.transpose(parts, &[1, 0, 2]).unwrap();
    let swapped = b.linear(swapped, w).unwrap();
    // A concat is no operand of a dot; both sides of this one are.
    let both = b.concat(&[x, x], 1).unwrap();
    let square = b.dot(both, both, &[], &[(1, 1)]).unwrap();
    for (i, v) in [first, direct, swapped, square].into_iter().enumerate() {
        b.output(i.to_string(), v);
    }
    let mut graph = b.finish();
    let report = run(&mut graph);
    let of: Vec<&str> = report.copies.iter().map(|c| c.of.as_str()).collect();
    // The first needs none: its inputs are last again once they are transposed back.
    assert_eq!(of, ["transpose", "concat"], "{:#?}", report.copies);
}

#[test]
fn a_reshape_of_a_concat_is_over_a_copy() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(32), None).unwrap();
    let both = b.concat(&[x, x], 1).unwrap();
    let flat = b.reshape(both, &[Dim::ROWS, 2.into(), 32.into()]).unwrap();
    let out = b.unary(UnaryOp::Exp, flat).unwrap();
    let pulled = b.slice(both, 1, 16, 32).unwrap();
    let pulled = b.unary(UnaryOp::Exp, pulled).unwrap();
    b.output("out", out);
    b.output("pulled", pulled);
    let mut graph = b.finish();
    let report = run(&mut graph);
    assert_eq!(report.copies.len(), 1, "{:#?}", report.copies);
    assert_eq!(report.copies[0].reader, "reshape");
}
