//! Graphs as long as a text may be: passes neither recurse nor copy without bound.

mod support;

use llamac_ir::graph::work::looks;
use llamac_ir::{BinaryOp, Bounds, Builder, CompareOp, DType, Dim, Graph, Op, Recipe, ReduceOp, Type, UnaryOp, Value};
use llamac_passes::{Options, When, pipeline};
use std::ops::ControlFlow;
use support::{root, stop_after};

const LENGTH: usize = 3000;
const SQUARE: [Dim; 3] = [Dim::ROWS, Dim::Const(4), Dim::Const(4)];

fn chain(step: impl Fn(&mut Builder, Value, usize) -> Value) -> Graph {
    let mut b = Builder::new("long", Bounds { rows: 4, outputs: 1, tokens: 8, slots: 1 });
    let mut x = b.input("x", Type::new(DType::F32, SQUARE), None).unwrap();
    for i in 0..LENGTH {
        x = step(&mut b, x, i);
    }
    b.output("y", x);
    b.finish()
}

/// Instructions after fusing, regions included.
fn size(graph: &Graph) -> usize {
    let inner = graph.order().iter().map(|&i| match graph.op(i) {
        Op::Fusion(f) => f.region.order().len(),
        _ => 0,
    });
    graph.order().len() + inner.sum::<usize>()
}

fn fused(graph: &Graph) -> Graph {
    stop_after(graph, &Options::default(), "fuse-rows").0
}

#[test]
fn arithmetic_is_cut_into_kernels() {
    let given = chain(|b, x, _| {
        let x = b.unary(UnaryOp::Neg, x).unwrap();
        b.unary(UnaryOp::Tanh, x).unwrap()
    });
    let after = fused(&given);
    let kernels = after.order().iter().filter(|&&i| matches!(after.op(i), Op::Fusion(_))).count();
    assert!((2 * LENGTH / 128..LENGTH / 20).contains(&kernels), "{kernels}");
    assert!(size(&after) < 3 * given.order().len());
}

#[test]
fn reductions_are_cut_into_kernels() {
    let given = chain(|b, x, _| {
        let r = b.reduce(ReduceOp::Sum, x, 2).unwrap();
        let r = b.broadcast(r, &SQUARE, &[0, 1]).unwrap();
        b.add(x, r).unwrap()
    });
    assert!(size(&fused(&given)) < 3 * given.order().len());
}

#[test]
fn views_are_not_copied_without_end() {
    let mut b = Builder::new("views", Bounds { rows: 4, outputs: 1, tokens: 8, slots: 1 });
    let mut x = b.input("x", Type::new(DType::F32, SQUARE), None).unwrap();
    let mut sum = x;
    for _ in 0..LENGTH {
        x = b.transpose(x, &[0, 2, 1]).unwrap();
        x = b.reshape(x, &[Dim::ROWS, Dim::Const(2), Dim::Const(8)]).unwrap();
        x = b.transpose(x, &[0, 2, 1]).unwrap();
        x = b.reshape(x, &SQUARE).unwrap();
        sum = b.add(sum, x).unwrap();
    }
    b.output("y", sum);
    let given = b.finish();
    assert!(size(&fused(&given)) < 3 * given.order().len());
}

#[test]
fn masks_are_not_copied_without_end() {
    let given = chain(|b, x, i| {
        // Every step reads a longer chain of integers, and a dot keeps the kernels apart.
        let n = b.iota(Dim::Const(4)).unwrap();
        let mut m = n;
        for _ in 0..i % 60 {
            m = b.binary(BinaryOp::Add, m, n).unwrap();
        }
        let mask = b.compare(CompareOp::Lt, m, n).unwrap();
        let mask = b.broadcast(mask, &SQUARE, &[2]).unwrap();
        let t = b.unary(UnaryOp::Tanh, x).unwrap();
        let y = b.select(mask, x, t).unwrap();
        let rows = b.reshape(y, &[Dim::ROWS, Dim::Const(16)]).unwrap();
        let w = b.weight(Recipe::tensor(format!("w{i}")), DType::F32, &[16, 16]).unwrap();
        let d = b.linear(rows, w).unwrap();
        b.reshape(d, &SQUARE).unwrap()
    });
    assert!(size(&fused(&given)) < 3 * given.order().len());
}

/// What the passes looked at, by name, in a Llama of so many layers.
fn work(layers: usize) -> Vec<(&'static str, u64)> {
    let directory = llamac_models::ModelDir::open(&root().join("tests/models/stories260K")).unwrap();
    let config = llamac_models::Config { layers, ..directory.config().clone() };
    let bounds = Bounds { rows: 4, outputs: 1, tokens: 8, slots: 1 };
    let mut graph = llamac_models::import(&config, "long", bounds, &|_| Some(DType::F32)).unwrap();
    let mut looked = vec![];
    let mut before = 0;
    let mut watch = |pass: &'static str, when: When, _: &Graph| {
        match when {
            When::Before => before = looks(),
            When::After => looked.push((pass, looks() - before)),
        }
        ControlFlow::Continue(())
    };
    pipeline::run(&mut graph, &Options::default(), &mut watch).unwrap();
    looked
}

#[test]
fn twice_the_layers_are_twice_the_work() {
    let (some, twice) = (work(40), work(80));
    for ((pass, some), (_, twice)) in some.into_iter().zip(twice) {
        if ["fuse-attention", "layout"].contains(&pass) {
            let ratio = twice as f64 / some as f64;
            assert!(ratio < 2.2, "{pass}: {some} looks at an instruction in 40 layers, {twice} in 80");
        }
    }
}
