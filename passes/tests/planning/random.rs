//! Random graphs: whatever they are, they get a layout and plans that pass the checker, in little memory.

use crate::meaning::{Weights, two_steps};
use llamac_ir::infer::TypeError;
use llamac_ir::{BinaryOp, Bounds, Builder, DType, Dim, DotSpec, Graph, Op, Recipe, ReduceOp, Type, UnaryOp, Value};
use llamac_passes::layout;
use llamac_passes::plan::{Options, plan_with};
use proptest::prelude::*;

/// One instruction to be: a kind, and numbers from which operands and attributes are drawn.
type Choice = (u8, u16, u16, u16);

fn pick(values: &[Value], n: u16) -> Value {
    values[usize::from(n) * values.len() / (usize::from(u16::MAX) + 1)]
}

fn build(bounds: Bounds, choices: &[Choice], outputs: &[u16]) -> Graph {
    let mut b = Builder::new("random", bounds);
    let ids = Type::new(DType::I32, [Dim::ROWS]);
    let slots = b.input("slots", ids.clone(), Some(bounds.slots)).expect("an input");
    let positions = b.input("positions", ids, Some(bounds.tokens)).expect("an input");
    let x = b.input("x", Type::new(DType::F32, [Dim::ROWS, Dim::Const(8)]), None).expect("an input");
    let mut state = b.state("k", 2, 4).expect("a state");
    let table = b.weight(Recipe::tensor("table"), DType::BF16, &[bounds.tokens, 8]).expect("a weight");
    let rows = b.gather(table, positions).expect("a gather");
    let mut values = vec![x, rows];
    for (n, choice) in choices.iter().enumerate() {
        // What cannot be built with the drawn operands is left out.
        if let Ok(value) = instruction(&mut b, &values, [slots, positions], &mut state, n, *choice) {
            values.push(value);
        }
    }
    for (i, &n) in outputs.iter().enumerate() {
        b.output(format!("out{i}"), pick(&values, n));
    }
    b.finish()
}

fn instruction(
    b: &mut Builder,
    values: &[Value],
    [slots, positions]: [Value; 2],
    state: &mut Value,
    n: usize,
    (kind, i, j, k): Choice,
) -> Result<Value, TypeError> {
    let x = pick(values, i);
    let ty = b.ty(x).clone();
    let axis = usize::from(k) % ty.rank().max(1);
    let alike: Vec<Value> = values.iter().copied().filter(|&v| b.ty(v) == &ty).collect();
    let none = || Err(TypeError("no such instruction".into()));
    match kind % 16 {
        0 | 1 => b.unary(UnaryOp::ALL[usize::from(k) % UnaryOp::ALL.len()], x),
        2..=5 => b.binary(BinaryOp::ALL[usize::from(k) % BinaryOp::ALL.len()], x, pick(&alike, j)),
        6 if ty.rank() > 1 => b.reduce(ReduceOp::Sum, x, axis),
        7 => {
            let dims: Vec<Dim> = ty.dims.iter().copied().chain([Dim::Const(3)]).collect();
            let axes: Vec<usize> = (0..ty.rank()).collect();
            b.broadcast(x, &dims, &axes)
        }
        8 => b.transpose(x, &(0..ty.rank()).rev().collect::<Vec<_>>()),
        9 => b.concat(&[x, pick(&alike, j)], axis),
        10 => match ty.dims.get(axis).and_then(|d| d.as_const()) {
            Some(len) if len > 1 => b.slice(x, axis, usize::from(j) % (len / 2), len / 2),
            _ => none(),
        },
        11 => {
            let constant: usize = ty.dims.iter().filter_map(|d| d.as_const()).product();
            match ty.dims.iter().filter(|d| d.as_const().is_none()).count() {
                1 => b.reshape(x, &[Dim::ROWS, Dim::Const(constant)]),
                _ => none(),
            }
        }
        12 => {
            let Some(inputs) = ty.dims.last().and_then(|d| d.as_const()) else { return none() };
            let dtype = [DType::F32, DType::BF16][usize::from(k) % 2];
            let count = usize::from(k / 2) % 2 + 1;
            let weights = (0..count)
                .map(|part| b.weight(Recipe::tensor(format!("w{n}.{part}")), dtype, &[usize::from(j) % 32 + 1, inputs]))
                .collect::<Result<Vec<_>, _>>()?;
            b.op(Op::Dot(DotSpec::linear(ty.rank())), &[&[x][..], &weights].concat(), None)
        }
        13 => b.dot(x, pick(values, j), &[], &[(axis, usize::from(k / 8) % 3)]),
        14 => {
            let rows = b.reshape(x, &[Dim::ROWS, Dim::Const(2), Dim::Const(4)])?;
            *state = b.state_write(*state, rows, slots, positions)?;
            none()
        }
        15 => {
            let view = b.index(*state, slots)?;
            b.reduce(ReduceOp::Max, view, 2)
        }
        _ => none(),
    }
}

/// Whether the interpreter can run the graph in a moment.
fn is_small(graph: &Graph) -> bool {
    (0..graph.value_count()).all(|v| graph.ty(Value(v as u32)).max_elements(&graph.bounds) < 20_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_are_planned(
        rows in 1usize..20,
        outputs in prop::collection::vec(any::<u16>(), 1..4),
        choices in prop::collection::vec(any::<Choice>(), 1..60),
    ) {
        let bounds = Bounds { rows, outputs: 1, tokens: 48, slots: 2 };
        let mut graph = build(bounds, &choices, &outputs);
        prop_assert!(llamac_ir::verify(&graph).is_ok(), "{}", llamac_ir::verify(&graph).unwrap_err());
        let given = graph.clone();
        layout::run(&mut graph).expect("a layout");
        prop_assert!(llamac_ir::verify(&graph).is_ok(), "{}", llamac_ir::verify(&graph).unwrap_err());
        let weights = Weights::of(&given);
        let small = is_small(&given);
        if small {
            prop_assert_eq!(two_steps(&graph, &weights, rows, &bounds), two_steps(&given, &weights, rows, &bounds));
        }
        for options in [(true, true), (true, false), (false, true), (false, false)] {
            let options = Options { schedule: options.0, plan: options.1 };
            // `plan` refuses what the checker refuses.
            let plan = plan_with(&graph, options).map_err(|e| TestCaseError::fail(e.to_string()))?;
            for entry in &plan.entries {
                let verdict = llamac_ir::verify(&entry.graph);
                prop_assert!(verdict.is_ok(), "{}: {}", entry.name, verdict.unwrap_err());
                let n = if entry.name == "decode" { 1 } else { rows };
                if small && options.schedule {
                    let found = two_steps(&entry.graph, &weights, n, &bounds);
                    prop_assert_eq!(found, two_steps(&given, &weights, n, &bounds), "{}", entry.name);
                }
                prop_assert!(entry.arena_bytes >= entry.arena_lower_bound);
                if options.plan {
                    let ratio = entry.arena_bytes as f64 / entry.arena_lower_bound.max(1) as f64;
                    prop_assert!(ratio <= 1.05 , "{} over {}", entry.arena_bytes, entry.arena_lower_bound);
                }
            }
        }
    }
}
