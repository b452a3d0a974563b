//! Rules that no text can break: a graph that breaks them can only be made by a faulty pass.

use llamac_ir::{DType, Dim, Fusion, FusionKind, Graph, Op, Type, UnaryOp, Value, parse, verify};

const TEXT: &str = r#"graph @t S<=4 R<=1 T<=8 slots=1 {
  %0: f32[S, 4] = input "x"
  %1: f32[S, 4] = neg %0 @"a.neg"
  %2: f32[S, 4] = abs %1
  return "y" = %2
}"#;

fn broken(change: impl FnOnce(&mut Graph)) -> llamac_ir::VerifyError {
    let mut graph = parse(TEXT).unwrap();
    verify(&graph).unwrap();
    change(&mut graph);
    verify(&graph).unwrap_err()
}

#[test]
fn an_operand_that_comes_later() {
    let e = broken(|g| {
        let o = g.order().to_vec();
        g.set_order(vec![o[0], o[2], o[1]]);
    });
    assert_eq!(e.rule, "dominance");
    assert_eq!(e.instruction.as_deref(), Some("%1: f32[S, 4] = abs %2"));
}

#[test]
fn an_operand_that_is_no_value() {
    let e = broken(|g| g.set_operand(g.order()[1], 0, Value(77)));
    assert_eq!((e.rule, e.origin.as_str()), ("dominance", "a.neg"));
    assert!(e.to_string().contains("%?77"), "{e}");
}

#[test]
fn an_operand_that_was_removed() {
    let e = broken(|g| {
        let dead = g.order()[1];
        g.remove(|i| i == dead);
    });
    assert_eq!(e.rule, "dominance");
}

#[test]
fn an_output_that_was_removed() {
    let e = broken(|g| {
        let dead = g.order()[2];
        g.remove(|i| i == dead);
    });
    assert_eq!(e.rule, "outputs");
}

#[test]
fn a_result_type_that_does_not_follow() {
    let e = broken(|g| g.set_ty(g.result(g.order()[1]), Type::new(DType::F32, [Dim::ROWS])));
    assert_eq!(e.rule, "types");
    assert!(e.message.contains("found f32[S]") || e.message.contains("are f32[S], expected f32[S, 4]"), "{e}");
}

#[test]
fn an_instruction_without_result() {
    let e = broken(|g| {
        let x = g.result(g.order()[0]);
        g.append(Op::Unary(UnaryOp::Neg), vec![x], vec![], "");
    });
    assert_eq!(e.rule, "single-definition");
}

/// A graph whose only work is a fusion that negates, and a change of its region.
fn broken_region(change: impl FnOnce(&mut Graph)) -> llamac_ir::VerifyError {
    let make = |change: &mut dyn FnMut(&mut Graph)| {
        let mut graph = parse(TEXT).unwrap();
        let ty = graph.ty(Value(0)).clone();
        let mut region = Graph::new("", graph.bounds);
        let p = region.append(Op::Param { index: 0 }, vec![], vec![ty.clone()], "");
        let n = region.append(Op::Unary(UnaryOp::Neg), vec![region.result(p)], vec![ty.clone()], "");
        region.add_output("", region.result(n));
        change(&mut region);
        let fusion = Fusion { kind: FusionKind::Rows, name: "neg".into(), region };
        graph.append(Op::Fusion(Box::new(fusion)), vec![Value(0)], vec![ty], "a.fused");
        verify(&graph)
    };
    make(&mut |_| {}).unwrap();
    let mut change = Some(change);
    make(&mut |r| change.take().unwrap()(r)).unwrap_err()
}

#[test]
fn regions() {
    assert_eq!(broken_region(|r| r.name = "named".into()).rule, "region");
    assert_eq!(broken_region(|r| r.bounds.rows = 3).rule, "region");
    assert_eq!(broken_region(|r| r.add_output("named", Value(0))).rule, "outputs");
    assert_eq!(broken_region(|r| r.add_output("", Value(9))).rule, "outputs");
    let e = broken_region(|r| r.set_operand(r.order()[1], 0, Value(1)));
    assert_eq!(e.rule, "dominance");
    assert!(e.fusion.unwrap().contains("a.fused"));
    assert_eq!(broken_region(|r| r.add_output("", Value(0))).rule, "types");
}
