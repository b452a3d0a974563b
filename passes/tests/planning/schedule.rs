//! Entries, orders and what has none.

use crate::llama::{SMALL, llama};
use llamac_ir::{
    Bounds, Builder, DType, Dim, Fusion, FusionKind, Graph, Op, Recipe, ReduceOp, Sym, Type, UnaryOp, Value,
};
use llamac_passes::plan::{PlanError, Storage, plan};
use llamac_passes::schedule::{ScheduleError, program_order, schedule};
use llamac_passes::specialise::entries;

const BOUNDS: Bounds = Bounds { rows: 4, outputs: 2, tokens: 16, slots: 2 };

/// A graph with a cache and what is needed to write it.
struct Cache {
    b: Builder,
    state: Value,
    rows: Value,
    slots: Value,
    positions: Value,
}

impl Cache {
    fn new() -> Cache {
        let mut b = Builder::new("g", BOUNDS);
        let ids = Type::new(DType::I32, [Dim::ROWS]);
        let slots = b.input("slots", ids.clone(), Some(2)).unwrap();
        let positions = b.input("positions", ids, Some(16)).unwrap();
        let rows = b.input("rows", Type::new(DType::F32, [Dim::ROWS, 2.into(), 4.into()]), None).unwrap();
        let state = b.state("k", 2, 4).unwrap();
        Cache { b, state, rows, slots, positions }
    }

    fn write(&mut self, state: Value) -> Value {
        self.b.state_write(state, self.rows, self.slots, self.positions).unwrap()
    }

    fn read(&mut self, state: Value) -> Value {
        let view = self.b.index(state, self.slots).unwrap();
        self.b.reduce(ReduceOp::Sum, view, 2).unwrap()
    }
}

fn symbols(graph: &Graph) -> Vec<Sym> {
    let all =
        |g: &Graph| -> Vec<Dim> { (0..g.value_count()).flat_map(|v| g.ty(Value(v as u32)).dims.clone()).collect() };
    let mut dims = all(graph);
    for &inst in graph.order() {
        if let Op::Fusion(f) = graph.op(inst) {
            dims.extend(all(&f.region));
        }
    }
    Sym::ALL.into_iter().filter(|&s| dims.contains(&Dim::Sym(s))).collect()
}

#[test]
fn decode_has_neither_rows_nor_outputs() {
    let made = entries(&llama(SMALL, BOUNDS));
    let [decode, rows] = &made[..] else { panic!("two entries") };
    assert_eq!((decode.name, rows.name), ("decode", "rows"));
    assert_eq!(symbols(&decode.graph), [Sym::Tokens]);
    assert_eq!(symbols(&rows.graph), Sym::ALL);
    assert_eq!(decode.graph.bounds, Bounds { rows: 1, outputs: 1, ..BOUNDS });
    assert_eq!(rows.graph.bounds, BOUNDS);
}

#[test]
fn regions_are_specialised_too() {
    let mut b = Builder::new("g", BOUNDS);
    let ty = Type::new(DType::F32, [Dim::ROWS, Dim::Const(8)]);
    let x = b.input("x", ty.clone(), None).unwrap();
    let mut r = Builder::new("", BOUNDS);
    let p = r.op(Op::Param { index: 0 }, &[], Some(ty)).unwrap();
    let e = r.unary(UnaryOp::Exp, p).unwrap();
    r.output("", e);
    let f = Fusion { kind: FusionKind::Rows, name: "f".into(), region: r.finish() };
    let y = b.op(Op::Fusion(Box::new(f)), &[x], None).unwrap();
    b.output("y", y);
    let made = entries(&b.finish());
    assert_eq!(symbols(&made[0].graph), []);
    let Op::Fusion(f) = made[0].graph.op(made[0].graph.def(y)) else { panic!("a fusion") };
    assert_eq!(f.region.bounds.rows, 1);
}

#[test]
fn entries_that_nothing_needs_are_not_made() {
    let names = |graph: &Graph| entries(graph).iter().map(|e| e.name).collect::<Vec<_>>();
    assert_eq!(names(&llama(SMALL, Bounds { rows: 1, outputs: 1, ..BOUNDS })), ["decode"]);
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", Type::new(DType::F32, [Dim::Const(8)]), None).unwrap();
    let y = b.unary(UnaryOp::Exp, x).unwrap();
    b.output("y", y);
    assert_eq!(names(&b.finish()), ["rows"]);
}

#[test]
fn steps_that_do_not_depend_on_each_other_share_a_stretch() {
    let graph = llama(SMALL, BOUNDS);
    let found = schedule(&graph).expect("an order");
    let stretches = found.stretches();
    let at = |origin: &str, nth: usize| {
        let of: Vec<usize> = (0..found.order.len()).filter(|&i| graph.origin(found.order[i]) == origin).collect();
        stretches[of[nth]]
    };
    assert_eq!(at("layers.2.attn.q", 0), at("layers.2.attn.k", 0));
    assert_eq!(at("layers.2.mlp.gate", 0), at("layers.2.mlp.up", 0));
    // v waits for nothing but its projection.
    assert!(at("layers.2.attn.v_write", 0) <= at("layers.2.attn.k_write", 0));
    let barriers = |b: &[bool]| b.iter().filter(|b| **b).count();
    assert!(barriers(&found.barriers) < barriers(&program_order(&graph).expect("an order").barriers));
}

#[test]
fn a_reader_of_the_old_state_runs_before_the_write_wherever_it_stands() {
    let mut c = Cache::new();
    // The view of the old state stands before the write, its reader behind it.
    let old = c.b.index(c.state, c.slots).unwrap();
    let written = c.write(c.state);
    let before = c.b.reduce(ReduceOp::Sum, old, 2).unwrap();
    let after = c.read(written);
    c.b.output("before", before);
    c.b.output("after", after);
    let graph = c.b.finish();
    let order = schedule(&graph).expect("an order").order;
    assert_eq!(order, [graph.def(before), graph.def(written), graph.def(after)]);
    assert!(matches!(program_order(&graph), Err(ScheduleError::Cycle { .. })));
}

#[test]
fn states_that_no_order_serves_are_refused() {
    let mut c = Cache::new();
    c.write(c.state);
    c.write(c.state);
    assert!(matches!(schedule(&c.b.finish()), Err(ScheduleError::WrittenTwice { .. })));

    // What is written depends on the version after it is gone.
    let mut c = Cache::new();
    let written = c.write(c.state);
    let new = c.read(written);
    let old = c.b.index(c.state, c.slots).unwrap();
    let old = c.b.reduce(ReduceOp::Sum, old, 2).unwrap();
    let both = c.b.add(old, new).unwrap();
    let late = c.b.index(c.state, c.slots).unwrap();
    let dims = c.b.ty(late).dims.clone();
    let both = c.b.broadcast(both, &dims, &[0, 1, 3]).unwrap();
    let both = c.b.add(late, both).unwrap();
    let both = c.b.reduce(ReduceOp::Sum, both, 2).unwrap();
    c.b.output("both", both);
    assert!(matches!(schedule(&c.b.finish()), Err(ScheduleError::Cycle { .. })));

    // A kernel that writes the state which it reads.
    let mut c = Cache::new();
    let mut r = Builder::new("", BOUNDS);
    let operands = [c.state, c.slots, c.positions];
    let params: Vec<Value> = operands
        .iter()
        .enumerate()
        .map(|(index, &v)| r.op(Op::Param { index }, &[], Some(c.b.ty(v).clone())).unwrap())
        .collect();
    let view = r.index(params[0], params[1]).unwrap();
    let sum = r.reduce(ReduceOp::Sum, view, 2).unwrap();
    let written = r.state_write(params[0], sum, params[1], params[2]).unwrap();
    r.output("", written);
    let f = Fusion { kind: FusionKind::Rows, name: "f".into(), region: r.finish() };
    c.b.op(Op::Fusion(Box::new(f)), &operands, None).unwrap();
    assert!(matches!(schedule(&c.b.finish()), Err(ScheduleError::ReadsWhatItWrites { .. })));
}

#[test]
fn what_cannot_be_planned_says_why() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", Type::new(DType::F32, [Dim::ROWS, Dim::Const(8)]), None).unwrap();
    b.output("x", x);
    assert!(matches!(plan(&b.finish()), Err(PlanError::OutputNotReal { .. })));

    // Each value can be addressed, all together cannot.
    let huge = Bounds { rows: isize::MAX as usize / 64, ..BOUNDS };
    let mut b = Builder::new("g", huge);
    let x = b.input("x", Type::new(DType::F32, [Dim::ROWS, Dim::Const(8)]), None).unwrap();
    let y = b.unary(UnaryOp::Exp, x).unwrap();
    let turned = b.transpose(y, &[1, 0]).unwrap();
    let turned = b.unary(UnaryOp::Neg, turned).unwrap();
    let turned = b.transpose(turned, &[1, 0]).unwrap();
    let both = b.add(y, turned).unwrap();
    let sum = b.reduce(ReduceOp::Sum, both, 0).unwrap();
    b.output("sum", sum);
    let error = plan(&b.finish()).expect_err("more than the address space");
    assert!(matches!(&error, PlanError::TooLarge { largest, .. } if largest == "neg"), "{error}");
}

#[test]
fn outputs_are_written_where_they_go_and_may_be_read_again() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", Type::new(DType::F32, [Dim::ROWS, Dim::Const(8)]), None).unwrap();
    let w = b.weight(Recipe::tensor("w"), DType::F32, &[8, 8]).unwrap();
    let y = b.linear(x, w).unwrap();
    let z = b.unary(UnaryOp::Exp, y).unwrap();
    b.output("y", y);
    b.output("z", z);
    let made = plan(&b.finish()).expect("a plan");
    for entry in &made.entries {
        assert_eq!((entry.storage[&y], entry.storage[&z]), (Storage::Output(0), Storage::Output(1)));
        assert_eq!((entry.arena_bytes, entry.in_place.len()), (0, 0));
    }
}
