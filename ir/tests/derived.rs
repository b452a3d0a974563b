//! Dependences, orders, paths and the drawing.

use llamac_ir::derived::{Dependence, Dependences, dot_text, reads_before_writes};
use llamac_ir::random::{Config, graph, shuffled};
use llamac_ir::{Graph, Inst, Op, parse, verify};

fn cached() -> Graph {
    parse(
        r#"graph @t S<=2 R<=1 T<=4 slots=1 {
  %0: i32[S] = input "slots" limit=1
  %1: f32[S, 1, 3] = input "x"
  %2: f32[1, 1, 4, 3] = state "k"
  %3: f32[S, 1, T, 3] = index %2, %0
  %4: f32[S, 1, 3] = reduce sum %3 axis=2 @"old \"sum\""
  %5: f32[S, 1, 3] = neg %1
  %6: f32[1, 1, 4, 3] = fusion rows "write" (%2, %5, %0) {
    %0: f32[1, 1, 4, 3] = param 0
    %1: f32[S, 1, 3] = param 1
    %2: i32[S] = param 2
    %3: f32[1, 1, 4, 3] = state.write %0, %1, %2, %2
    yield %3
  }
  %7: f32[S, 1, T, 3] = index %6, %0
  %8: f32[S, 1, 3] = reduce max %7 axis=2
  return "old" = %4, "new" = %8
}"#,
    )
    .unwrap()
}

#[test]
fn a_read_comes_before_the_write_that_no_operand_ties_it_to() {
    let g = cached();
    verify(&g).unwrap();
    let at = |i: usize| g.order()[i];
    assert_eq!(reads_before_writes(&g), [(at(3), at(6)), (at(4), at(6))]);
    let d = Dependences::new(&g);
    assert!(d.reaches(at(4), at(6)) && d.reaches(at(4), at(8)) && d.reaches(at(4), at(4)));
    assert!(!d.reaches(at(6), at(4)) && !d.reaches(at(4), at(5)));
    assert_eq!(d.path(at(4), at(8)), [at(4), at(6), at(7), at(8)]);
    assert_eq!(d.path(at(8), at(4)), Vec::<Inst>::new());
    assert_eq!(d.order().unwrap(), g.order());
    assert_eq!(d.depth(), 6);
    let edge = d.edges.edge_weights().filter(|e| **e == Dependence::ReadBeforeWrite).count();
    assert_eq!(edge, 2);
}

#[test]
fn a_cycle_has_no_order() {
    let mut g = cached();
    let (sum, neg) = (g.order()[4], g.order()[5]);
    let sum_value = g.result(sum);
    // The write waits for the negation, the negation for the sum, the sum for the state after the write.
    g.set_operand(neg, 0, sum_value);
    let index = g.order()[3];
    let new = g.result(g.order()[6]);
    g.set_operand(index, 0, new);
    assert_eq!(Dependences::new(&g).order(), None);
}

#[test]
fn a_valid_order_is_kept() {
    for seed in 0..60 {
        let g = shuffled(&graph(&Config::new(seed)), seed);
        let d = Dependences::new(&g);
        assert_eq!(d.order().unwrap(), g.order(), "seed {seed}: a valid order is its own");
    }
}

#[test]
fn the_drawing_has_clusters_and_closed_quotes() {
    let g = cached();
    let text = dot_text(&g);
    assert!(text.starts_with("digraph \"t\" {") && text.ends_with("}\n"));
    assert!(text.contains("subgraph cluster_6") && text.contains("rows write"));
    assert!(text.contains("n2 -> n6_0;") && text.contains("n6_3 -> n7;"), "{text}");
    assert!(text.contains("n4 -> n6_0 [style=dashed"), "{text}");
    assert!(text.contains(r#"old \"sum\""#) && text.contains("n8 -> output_1"));
    // Every node that an edge names is declared.
    let declared: Vec<&str> = text.lines().filter_map(|l| l.trim().split_once(" [label=").map(|p| p.0)).collect();
    for line in text.lines().filter(|l| l.contains(" -> ")) {
        for name in line.trim().trim_end_matches(';').split(" [").next().unwrap().split(" -> ") {
            assert!(declared.contains(&name), "{name} in {line}");
        }
    }
    assert!(g.order().iter().any(|&i| matches!(g.op(i), Op::Fusion(_))));
}
