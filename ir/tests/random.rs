//! Random graphs: they print and read back, agree in f32 and f64, do not depend on their order, and lie where `access` says.

use llamac_ir::access::{access, gather_access, through};
use llamac_ir::interp::{Interpreter, Tensor};
use llamac_ir::prng::Prng;
use llamac_ir::random::{Config, Step, graph, shuffled, steps};
use llamac_ir::seeded::SeededSource;
use llamac_ir::{DType, Extent, Graph, Op, Sizes, Value, parse, print, verify};
use std::collections::BTreeMap;

const SEEDS: std::ops::Range<u64> = 0..300;

#[test]
fn they_print_and_read_back() {
    for seed in SEEDS {
        let g = graph(&Config::new(seed));
        let text = print(&g);
        let again = parse(&text).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
        assert_eq!(again, g, "seed {seed}");
        assert_eq!(print(&again), text);
    }
}

#[test]
fn equal_seeds_make_equal_graphs_and_steps() {
    let g = graph(&Config::new(7));
    assert_eq!(g, graph(&Config::new(7)));
    assert_ne!(g, graph(&Config::new(8)));
    assert_eq!(steps(&g, 3, 4), steps(&g, 3, 4));
}

#[test]
fn every_op_occurs() {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in SEEDS {
        let g = graph(&Config::new(seed));
        for &i in g.order() {
            *count.entry(g.op(i).mnemonic()).or_default() += 1;
        }
    }
    let want = [
        "input",
        "weight",
        "const",
        "state",
        "iota",
        "dot",
        "neg",
        "abs",
        "exp",
        "sqrt",
        "rsqrt",
        "recip",
        "tanh",
        "add",
        "sub",
        "mul",
        "div",
        "max",
        "min",
        "cmp",
        "select",
        "cast",
        "reduce",
        "gather",
        "reshape",
        "transpose",
        "slice",
        "concat",
        "broadcast",
        "index",
        "state.write",
        "copy",
    ];
    for op in want {
        assert!(count.get(op).is_some_and(|&n| n >= 10), "{op}: {count:?}");
    }
}

#[test]
fn what_is_switched_off_does_not_occur() {
    for seed in 0..50 {
        let g = graph(&Config { dots: false, gathers: false, states: false, across_rows: false, ..Config::new(seed) });
        for &i in g.order() {
            let op = g.op(i);
            assert!(!matches!(op, Op::Dot(_) | Op::State { .. } | Op::Index | Op::StateWrite), "seed {seed}: {op:?}");
        }
    }
}

fn run(g: &Graph, given: &[Step]) -> Vec<Vec<f64>> {
    let source = SeededSource::new(g, 1).unwrap();
    let mut it = Interpreter::<f64>::new(g, &source);
    let mut out = vec![];
    for step in given {
        for t in it.step(step.sizes, &step.inputs()).unwrap() {
            out.push(t.floats().to_vec());
        }
    }
    out
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * (1.0 + a.abs().max(b.abs()))
}

#[test]
fn f32_agrees_with_f64() {
    for seed in SEEDS {
        let g = graph(&Config::new(seed));
        let given = steps(&g, seed, 4);
        let wide = run(&g, &given);
        let source = SeededSource::new(&g, 1).unwrap();
        let mut it = Interpreter::<f32>::new(&g, &source);
        let mut narrow = vec![];
        for step in &given {
            for t in it.step(step.sizes, &step.inputs()).unwrap() {
                narrow.push(t.floats().to_vec());
            }
        }
        for (output, (a, b)) in wide.iter().zip(&narrow).enumerate() {
            assert_eq!(a.len(), b.len());
            for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
                assert!(a.is_finite() && a.abs() < 1e4, "seed {seed}, result {output}: element {i} is {a}\n{g}");
                assert!(
                    close(a, f64::from(b), 1e-4),
                    "seed {seed}, result {output}: element {i} is {b}, expected {a}\n{g}"
                );
            }
        }
    }
}

#[test]
fn the_order_does_not_matter() {
    for seed in 0..100 {
        let g = graph(&Config::new(seed));
        let other = shuffled(&g, seed);
        verify(&other).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let given = steps(&g, seed, 3);
        assert_eq!(run(&g, &given), run(&other, &given), "seed {seed}");
    }
}

/// Reads a value through its access, element by element.
fn read(
    a: &llamac_formats::Access<Value>,
    dims: &[usize],
    sizes: &Sizes,
    of: &dyn Fn(Value) -> Tensor<f64>,
) -> Vec<f64> {
    let base = of(a.base).floats();
    let at = |e: Extent| e.value(sizes);
    let count: usize = dims.iter().product();
    (0..count)
        .map(|mut n| {
            let mut index = vec![0; dims.len()];
            for (i, &d) in index.iter_mut().zip(dims).rev() {
                *i = n % d;
                n /= d;
            }
            let along = |strides: &[Extent]| -> usize { strides.iter().zip(&index).map(|(&s, i)| at(s) * i).sum() };
            let fetched = a.indirects.iter().map(|ind| {
                let ids = of(ind.index);
                at(ind.stride) * ids.ints()[at(ind.offset) + along(&ind.strides)] as usize
            });
            base[at(a.offset) + along(&a.strides) + fetched.sum::<usize>()]
        })
        .collect()
}

#[test]
fn views_lie_where_their_access_says() {
    let (mut checked, mut refused) = (0, 0);
    for seed in 0..150 {
        let mut g = graph(&Config { states: false, ..Config::new(seed) });
        let mut accesses = vec![];
        for &inst in g.order() {
            let value = g.result(inst);
            let found = match g.op(inst) {
                Op::Gather => gather_access(&g, inst),
                op if op.is_view() => {
                    // Through a gather as well, where one lies under the views.
                    let operand = g.operands(inst)[0];
                    match g.def_op(operand) {
                        Op::Gather => gather_access(&g, g.def(operand)).and_then(|a| through(&g, value, a)),
                        _ => access(&g, value),
                    }
                }
                _ => continue,
            };
            match found {
                Ok(a) if g.ty(value).dtype.is_float() => accesses.push((value, a)),
                Ok(_) => {}
                Err(_) => refused += 1,
            }
        }
        // Everything is an output now.
        let all: Vec<Value> = g.order().iter().map(|&i| g.result(i)).collect();
        for &v in &all {
            g.add_output(v.to_string(), v);
        }
        let source = SeededSource::new(&g, 1).unwrap();
        let mut it = Interpreter::<f64>::new(&g, &source);
        let first = g.outputs().len() - all.len();
        for step in steps(&g, seed, 2) {
            let results = it.step(step.sizes, &step.inputs()).unwrap();
            let of = |v: Value| results[first + all.iter().position(|&w| w == v).unwrap()].clone();
            for (value, a) in &accesses {
                let want = of(*value);
                assert_eq!(read(a, &want.dims, &step.sizes, &of), *want.floats(), "seed {seed}: {value} {a:?}\n{g}");
                checked += 1;
            }
        }
    }
    assert!(checked > 2000 && refused > 20, "{checked} checked, {refused} refused");
}

#[test]
fn narrow_weights_are_made_in_their_dtype() {
    let text = r#"graph @t S<=2 R<=1 T<=2 slots=1 {
  %0: bf16[4, 3] = weight "a"
  %1: f16[3] = weight "b"
  %2: f32[10, 3] = weight convert(concat("c", permute_rows("d", heads=1)))
  %3: bf16[8, 3] panels = weight interleave_panels("a", "e")
  %4: f32[4, 3] = cast %0
  return "y" = %4
}"#;
    use llamac_ir::TensorSource;
    let g = parse(text).unwrap();
    let source = SeededSource::new(&g, 5).unwrap();
    let shape = |n: &str| source.tensor(n).map(|t| (t.dtype, t.dims.to_vec(), t.bytes.len())).unwrap();
    assert_eq!(shape("a"), (DType::BF16, vec![4, 3], 24));
    assert_eq!(shape("b"), (DType::F16, vec![3], 6));
    assert_eq!(shape("c"), (DType::BF16, vec![5, 3], 30));
    assert_eq!(shape("e"), (DType::BF16, vec![4, 3], 24));
    assert!(source.tensor("z").is_none());
    let clash = text.replace("\"b\"", "\"a\"");
    assert!(SeededSource::new(&parse(&clash).unwrap(), 5).err().unwrap().to_string().contains("\"a\""));
    let odd = text.replace("10, 3", "11, 3");
    assert!(SeededSource::new(&parse(&odd).unwrap(), 5).err().unwrap().to_string().contains("concat"));
    let huge = text.replace("bf16[4, 3]", "bf16[4, 1000000000000]").replace("f32[4, 3]", "f32[4, 1000000000000]");
    let huge = huge.lines().filter(|l| !l.contains("panels")).collect::<Vec<_>>().join("\n");
    assert!(SeededSource::new(&parse(&huge).unwrap(), 5).err().unwrap().to_string().contains("bytes"));
}

/// Slips of the hand in good texts: a word replaced by another word of the text. What still verifies can be interpreted.
#[test]
fn whatever_verifies_can_be_interpreted() {
    let (mut read, mut valid, mut run) = (0, 0, 0);
    for seed in 0..3000 {
        let mut prng = Prng::new(seed);
        let text = print(&graph(&Config { size: 8, ..Config::new(seed % 100) }));
        let mut words: Vec<&str> = text.split(' ').collect();
        for _ in 0..1 + prng.below(2) {
            // Of the same kind, or next to nothing could be read.
            let kind = |w: &str| (w.chars().next(), w.chars().last().filter(|c| !c.is_alphanumeric()));
            let to = prng.below(words.len());
            let alike: Vec<&str> = words.iter().copied().filter(|w| kind(w) == kind(words[to])).collect();
            words[to] = prng.choose(&alike);
        }
        let Ok(g) = parse(&words.join(" ")) else { continue };
        read += 1;
        if verify(&g).is_err() {
            continue;
        }
        valid += 1;
        let small = g.order().iter().all(|&i| g.ty(g.result(i)).max_elements(&g.bounds) < 1 << 20);
        let Ok(source) = SeededSource::new(&g, 1) else { continue };
        for step in steps(&g, seed, 2).iter().filter(|_| small) {
            let found = Interpreter::<f64>::new(&g, &source).step(step.sizes, &step.inputs());
            run += usize::from(found.is_ok());
        }
        // Through the derived views as well.
        let order = llamac_ir::derived::Dependences::new(&g).order();
        assert_eq!(order.as_deref(), Some(g.order()));
    }
    assert!(read > 300 && valid > 200 && run > 200, "{read} read, {valid} valid, {run} run");
}
