//! The checker refuses plans that are wrong. Each test breaks a valid plan.

use crate::llama::{SMALL, Shape, llama};
use llamac_ir::{
    BinaryOp, Bounds, Builder, DType, Dim, Fusion, FusionKind, Graph, Op, Recipe, ReduceOp, Type, UnaryOp, Value,
};
use llamac_passes::layout;
use llamac_passes::plan::{CheckError, EntryPlan, Options, Storage, check, plan, plan_with};

const BOUNDS: Bounds = Bounds { rows: 4, outputs: 2, tokens: 16, slots: 2 };

/// The `rows` plan of a small model after layout: GEMMs with scratch, copies, caches, results in place.
fn model() -> EntryPlan {
    let mut graph = llama(Shape { layers: 2, ..SMALL }, BOUNDS);
    layout::run(&mut graph).expect("a layout");
    rows_of(&graph)
}

fn rows_of(graph: &Graph) -> EntryPlan {
    let plan = plan(graph).expect("a plan").entries.pop().expect("an entry");
    assert_eq!(plan.name, "rows");
    check(&plan).expect("valid before it is broken");
    plan
}

fn rows(width: usize) -> Type {
    Type::new(DType::F32, [Dim::ROWS, Dim::Const(width)])
}

fn stretches(plan: &EntryPlan) -> Vec<usize> {
    let mut stretch = 0;
    plan.steps
        .iter()
        .map(|s| {
            stretch += usize::from(s.barrier);
            stretch
        })
        .collect()
}

#[test]
fn overlapping_buffers_are_refused() {
    let plan = model();
    let stretch = stretches(&plan);
    let mut tried = 0;
    for (i, a) in plan.buffers.iter().enumerate() {
        for (j, b) in plan.buffers.iter().enumerate() {
            let together = stretch[a.first] <= stretch[b.last] && stretch[b.first] <= stretch[a.last];
            if i == j || !together || a.offset + b.bytes > plan.arena_bytes {
                continue;
            }
            let mut broken = plan.clone();
            broken.buffers[j].offset = a.offset;
            let error = check(&broken).expect_err("buffers overlap");
            let known = matches!(
                error,
                CheckError::Race { .. }
                    | CheckError::Lost { .. }
                    | CheckError::NotInPlace { .. }
                    | CheckError::OverlapWithinStep { .. }
            );
            assert!(known, "{error}");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried} pairs");
}

#[test]
fn every_barrier_is_needed_and_missed() {
    let plan = model();
    let barriers: Vec<usize> = (0..plan.steps.len()).filter(|&i| plan.steps[i].barrier).collect();
    assert!(barriers.len() > 20);
    for i in barriers {
        let mut broken = plan.clone();
        broken.steps[i].barrier = false;
        let error = check(&broken).expect_err("a barrier is missing");
        assert!(matches!(error, CheckError::Race { second, .. } if second == i), "step {i}: {error}");
    }
}

#[test]
fn offsets_outside_the_arena_or_not_aligned_are_refused() {
    let plan = model();
    for (i, buffer) in plan.buffers.iter().enumerate() {
        let mut broken = plan.clone();
        broken.buffers[i].offset = plan.arena_bytes.next_multiple_of(64);
        assert!(matches!(check(&broken), Err(CheckError::OutsideArena { buffer, .. }) if buffer == i));
        broken.buffers[i].offset = usize::MAX / 64 * 64;
        assert!(matches!(check(&broken), Err(CheckError::OutsideArena { buffer, .. }) if buffer == i));
        broken.buffers[i].offset = buffer.offset + 4;
        assert!(matches!(check(&broken), Err(CheckError::Unaligned { buffer, .. }) if buffer == i));
        broken.buffers[i] = buffer.clone();
        broken.buffers[i].bytes -= 1;
        assert!(matches!(check(&broken), Err(CheckError::TooSmall { buffer, .. }) if buffer == i));
    }
}

/// `y = exp(x)`, then `z` = a rows fusion of y by `region`, as an intermediate of an output; and `z` over `y`.
fn forced_in_place(region: impl FnOnce(&mut Builder, Value) -> Value) -> Result<(), CheckError> {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(8), None).unwrap();
    let y = b.unary(UnaryOp::Exp, x).unwrap();
    let mut r = Builder::new("", BOUNDS);
    let param = r.op(Op::Param { index: 0 }, &[], Some(rows(8))).unwrap();
    let result = region(&mut r, param);
    r.output("", result);
    let f = Fusion { kind: FusionKind::Rows, name: "f".into(), region: r.finish() };
    let z = b.op(Op::Fusion(Box::new(f)), &[y], None).unwrap();
    let out = b.unary(UnaryOp::Neg, z).unwrap();
    b.output("out", out);
    let graph = b.finish();
    let mut plan = plan_with(&graph, Options { schedule: true, plan: false }).expect("a plan").entries.remove(1);
    let Storage::Buffer(buffer) = plan.storage[&y] else { panic!("y is in a buffer") };
    let Some(Storage::Buffer(other)) = plan.storage.insert(z, Storage::Buffer(buffer)) else { panic!("so is z") };
    plan.buffers[buffer].last = plan.buffers[other].last;
    plan.buffers.remove(other);
    for storage in plan.storage.values_mut() {
        if let Storage::Buffer(i) = storage {
            *i -= usize::from(*i > other);
        }
    }
    plan.arena_lower_bound = plan.buffers.iter().map(|b| b.bytes.next_multiple_of(64)).max().unwrap_or(0);
    check(&plan)
}

#[test]
fn in_place_is_refused_where_the_region_reads_across_elements() {
    let allowed = forced_in_place(|r, x| {
        let dims = r.ty(x).dims.clone();
        let sum = r.reduce(ReduceOp::Sum, x, 1).unwrap();
        let sum = r.broadcast(sum, &dims, &[0]).unwrap();
        r.binary(BinaryOp::Div, x, sum).unwrap()
    });
    assert_eq!(allowed, Ok(()));
    let halves = |r: &mut Builder, x| [0, 4].map(|start| r.slice(x, 1, start, 4).unwrap());
    let swapped = forced_in_place(|r, x| {
        let [a, b] = halves(r, x);
        r.concat(&[b, a], 1).unwrap()
    });
    assert!(matches!(swapped, Err(CheckError::NotInPlace { .. })), "{swapped:?}");
    let shifted = forced_in_place(|r, x| {
        let [a, _] = halves(r, x);
        let first = r.slice(a, 1, 0, 1).unwrap();
        let first = r.reshape(first, &[Dim::ROWS]).unwrap();
        let dims = r.ty(x).dims.clone();
        let first = r.broadcast(first, &dims, &[0]).unwrap();
        r.add(x, first).unwrap()
    });
    assert!(matches!(shifted, Err(CheckError::NotInPlace { .. })), "{shifted:?}");
}

#[test]
fn in_place_is_refused_while_the_operand_is_needed() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(8), None).unwrap();
    let y = b.unary(UnaryOp::Exp, x).unwrap();
    let z = b.unary(UnaryOp::Neg, y).unwrap();
    let both = b.add(y, z).unwrap();
    let out = b.reduce(ReduceOp::Sum, both, 1).unwrap();
    b.output("out", out);
    let mut plan = rows_of(&b.finish());
    let storage = plan.storage[&y];
    plan.storage.insert(z, storage);
    let error = check(&plan).expect_err("y is read after z");
    assert!(matches!(error, CheckError::Lost { value, .. } if value == y), "{error}");
}

#[test]
fn in_place_is_refused_where_another_operand_reads_through_a_view() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(8), None).unwrap();
    let y = b.unary(UnaryOp::Exp, x).unwrap();
    let parts = b.reshape(y, &[Dim::ROWS, 2.into(), 4.into()]).unwrap();
    let swapped = b.slice(parts, 1, 1, 1).unwrap();
    let swapped = b.concat(&[swapped, swapped], 1).unwrap();
    let sum = b.add(parts, swapped).unwrap();
    let sum = b.add(sum, sum).unwrap();
    b.output("out", sum);
    let mut plan = rows_of(&b.finish());
    assert!(plan.in_place.is_empty(), "y is read through views");
    let first = plan.graph.operands(plan.graph.def(sum))[0];
    let storage = plan.storage[&y];
    plan.storage.insert(first, storage);
    assert!(matches!(check(&plan), Err(CheckError::NotInPlace { .. })), "{:?}", check(&plan));
}

#[test]
fn steps_out_of_order_missing_or_twice_are_refused() {
    let plan = model();
    for i in 1..plan.steps.len() {
        let mut broken = plan.clone();
        broken.steps.swap(i - 1, i);
        assert!(matches!(check(&broken), Err(CheckError::WrongStep { step, .. }) if step == i - 1));
    }
    let mut broken = plan.clone();
    let last = broken.steps.pop().expect("a step");
    assert!(matches!(check(&broken), Err(CheckError::WrongStep { found: None, .. })));
    broken.steps.extend([last.clone(), last]);
    assert!(matches!(check(&broken), Err(CheckError::WrongStep { expected: None, .. })));
}

#[test]
fn values_without_storage_or_in_the_wrong_kind_are_refused() {
    let plan = model();
    let mut values: Vec<Value> = plan.storage.keys().copied().collect();
    values.sort();
    let input = plan.graph.result(plan.graph.order()[0]);
    for value in values {
        let mut broken = plan.clone();
        let storage = broken.storage.remove(&value);
        assert!(matches!(check(&broken), Err(CheckError::NoStorage { value: v, .. }) if v == value));
        for wrong in [Storage::Input(input), Storage::Output(0), Storage::State(value), Storage::Buffer(usize::MAX)] {
            if storage != Some(wrong) && !matches!((storage, wrong), (Some(Storage::State(_)), Storage::State(_))) {
                broken.storage.insert(value, wrong);
                assert!(check(&broken).is_err(), "{value} in {wrong:?} instead of {storage:?}");
            }
        }
    }
}

#[test]
fn scratch_is_there_for_many_rows_and_only_there() {
    let plan = model();
    let with: Vec<usize> = (0..plan.steps.len()).filter(|&i| plan.steps[i].scratch.is_some()).collect();
    assert_eq!(with.len(), 7 * 2 + 1);
    for &i in &with {
        let mut broken = plan.clone();
        broken.steps[i].scratch = None;
        assert!(matches!(check(&broken), Err(CheckError::Scratch { step, found: 0, .. }) if step == i));
    }
    let without = (0..plan.steps.len()).find(|i| !with.contains(i)).expect("a row kernel");
    let mut broken = plan.clone();
    broken.steps[without].scratch = broken.steps[with[0]].scratch;
    assert!(matches!(check(&broken), Err(CheckError::Scratch { expected: 0, .. })));
}

#[test]
fn wrong_figures_are_refused() {
    let plan = model();
    let mut broken = plan.clone();
    broken.arena_lower_bound += 64;
    assert!(matches!(check(&broken), Err(CheckError::Misstated { .. })));
    for i in 0..plan.buffers.len() {
        let mut broken = plan.clone();
        broken.buffers[i].last += 1;
        assert!(matches!(check(&broken), Err(CheckError::Misstated { .. })));
    }
}

/// A graph that reads a cache, writes it, and reads it again.
fn read_write_read() -> Graph {
    let mut b = Builder::new("g", BOUNDS);
    let ids = Type::new(DType::I32, [Dim::ROWS]);
    let slots = b.input("slots", ids.clone(), Some(2)).unwrap();
    let positions = b.input("positions", ids, Some(16)).unwrap();
    let x = b.input("x", Type::new(DType::F32, [Dim::ROWS, 2.into(), 4.into()]), None).unwrap();
    let state = b.state("k", 2, 4).unwrap();
    let read = |b: &mut Builder, state| {
        let view = b.index(state, slots).unwrap();
        b.reduce(ReduceOp::Sum, view, 2).unwrap()
    };
    let before = read(&mut b, state);
    let written = b.state_write(state, x, slots, positions).unwrap();
    let after = read(&mut b, written);
    b.output("before", before);
    b.output("after", after);
    b.finish()
}

#[test]
fn a_state_is_read_before_and_after_its_write_with_barriers_between() {
    let plan = rows_of(&read_write_read());
    assert_eq!(plan.steps.iter().map(|s| s.barrier).collect::<Vec<_>>(), [false, true, true]);
    for i in [1, 2] {
        let mut broken = plan.clone();
        broken.steps[i].barrier = false;
        assert!(matches!(check(&broken), Err(CheckError::Race { .. })));
    }
    // The old version after the write: the graph's order and the plan's agree, and both are wrong.
    let mut broken = plan.clone();
    let mut order = plan.graph.order().to_vec();
    let at = |inst| order.iter().position(|&i| i == inst).expect("in the order");
    let (read, write) = (at(plan.steps[0].inst), at(plan.steps[1].inst));
    order.swap(read, write);
    broken.graph.set_order(order);
    let (read, write) = (broken.steps[0].inst, broken.steps[1].inst);
    (broken.steps[0].inst, broken.steps[1].inst) = (write, read);
    assert!(matches!(check(&broken), Err(CheckError::Lost { step: 1, .. })), "{:?}", check(&broken));
}

#[test]
fn a_result_in_an_outputs_memory_must_be_that_output() {
    let mut b = Builder::new("g", BOUNDS);
    let x = b.input("x", rows(8), None).unwrap();
    let w = b.weight(Recipe::tensor("w"), DType::F32, &[8, 8]).unwrap();
    let y = b.linear(x, w).unwrap();
    let z = b.unary(UnaryOp::Exp, y).unwrap();
    b.output("z", z);
    let mut plan = rows_of(&b.finish());
    assert_eq!(plan.storage[&z], Storage::Output(0));
    plan.storage.insert(y, Storage::Output(0));
    assert!(matches!(check(&plan), Err(CheckError::WrongStorage { value, .. }) if value == y));
}
