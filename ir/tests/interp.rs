//! The interpreter, op by op against numbers worked out by hand.

use llamac_formats::rope::{RopeScaling, RopeTable};
use llamac_ir::interp::{Data, Input, InterpError, Interpreter, Tensor, WeightError};
use llamac_ir::{DType, Graph, Sizes, TensorSource, TensorView, parse, verify};
use std::collections::BTreeMap;

/// Tensors of a test.
#[derive(Default)]
struct Source(BTreeMap<String, (DType, Vec<usize>, Vec<u8>)>);

impl Source {
    fn f32(mut self, name: &str, dims: &[usize], values: &[f32]) -> Source {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.insert(name.into(), (DType::F32, dims.to_vec(), bytes));
        self
    }

    fn bf16(mut self, name: &str, dims: &[usize], values: &[f32]) -> Source {
        let bytes = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
        self.0.insert(name.into(), (DType::BF16, dims.to_vec(), bytes));
        self
    }
}

impl TensorSource for Source {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.0.get(name).map(|(dtype, dims, bytes)| TensorView { dtype: *dtype, dims, bytes })
    }

    fn describe(&self) -> String {
        "test tensors".into()
    }
}

fn graph(body: &str) -> Graph {
    let text = format!("graph @t S<=4 R<=2 T<=6 slots=2 {{\n{body}\n}}");
    let g = parse(&text).unwrap_or_else(|e| panic!("{e}"));
    verify(&g).unwrap_or_else(|e| panic!("{e}"));
    g
}

fn sizes(rows: usize) -> Sizes {
    Sizes { rows, outputs: 1, tokens: rows }
}

fn floats(t: &Tensor<f64>) -> Vec<f64> {
    t.floats().to_vec()
}

/// The only output of a graph without weights.
fn one(body: &str, rows: usize, inputs: &[(&str, Input<'_>)]) -> Vec<f64> {
    let g = graph(body);
    let source = Source::default();
    floats(&Interpreter::<f64>::new(&g, &source).step(sizes(rows), inputs).unwrap()[0])
}

#[test]
fn elementwise() {
    let x = [0.25f32, -4.0];
    for (op, want) in [
        ("neg", [-0.25, 4.0]),
        ("abs", [0.25, 4.0]),
        ("recip", [4.0, -0.25]),
        ("exp", [0.25f64.exp(), (-4.0f64).exp()]),
        ("tanh", [0.25f64.tanh(), (-4.0f64).tanh()]),
    ] {
        let body = format!("%x: f32[S] = input \"x\" %y: f32[S] = {op} %x return \"y\" = %y");
        assert_eq!(one(&body, 2, &[("x", Input::Float(&x))]), want, "{op}");
    }
    for (op, want) in [("sqrt", 1.5), ("rsqrt", 1.0 / 1.5)] {
        let body = format!("%x: f32[S] = input \"x\" %y: f32[S] = {op} %x return \"y\" = %y");
        assert_eq!(one(&body, 1, &[("x", Input::Float(&[2.25]))]), [want], "{op}");
    }
    let (a, b) = ([1.0f32, 6.0], [4.0f32, -2.0]);
    for (op, want) in [
        ("add", [5.0, 4.0]),
        ("sub", [-3.0, 8.0]),
        ("mul", [4.0, -12.0]),
        ("div", [0.25, -3.0]),
        ("max", [4.0, 6.0]),
        ("min", [1.0, -2.0]),
    ] {
        let body =
            format!("%a: f32[S] = input \"a\" %b: f32[S] = input \"b\" %y: f32[S] = {op} %a, %b return \"y\" = %y");
        assert_eq!(one(&body, 2, &[("a", Input::Float(&a)), ("b", Input::Float(&b))]), want, "{op}");
    }
}

#[test]
fn comparisons_are_ordered_and_choose() {
    let (a, b) = ([1.0f32, 2.0, 3.0, f32::NAN], [2.0f32, 2.0, 2.0, 2.0]);
    for (op, want) in [
        ("eq", [0.0, 1.0, 0.0, 0.0]),
        ("ne", [1.0, 0.0, 1.0, 1.0]),
        ("lt", [1.0, 0.0, 0.0, 0.0]),
        ("le", [1.0, 1.0, 0.0, 0.0]),
        ("gt", [0.0, 0.0, 1.0, 0.0]),
        ("ge", [0.0, 1.0, 1.0, 0.0]),
    ] {
        let body = format!(
            "%a: f32[S] = input \"a\" %b: f32[S] = input \"b\" %c: bool[S] = cmp {op} %a, %b
             %1: f32[S] = const 1.0 %0: f32[S] = const 0.0 %y: f32[S] = select %c, %1, %0 return \"y\" = %y"
        );
        assert_eq!(one(&body, 4, &[("a", Input::Float(&a)), ("b", Input::Float(&b))]), want, "{op}");
    }
}

#[test]
fn narrow_floats_round_to_nearest_even_in_both_modes() {
    // Between 1 and the next bf16, 1 + 2⁻⁷: the middle goes to even, a little more goes up.
    let x = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.003_906_4];
    let body = "%x: f32[S] = input \"x\" %n: bf16[S] = cast %x %y: f32[S] = cast %n return \"y\" = %y";
    let want = [1.0, 1.0 + 2.0 / 128.0, 1.0 + 1.0 / 128.0];
    assert_eq!(one(body, 3, &[("x", Input::Float(&x))]), want);
    let g = graph(body);
    let source = Source::default();
    let narrow = Interpreter::<f32>::new(&g, &source).step(sizes(3), &[("x", Input::Float(&x))]).unwrap();
    assert_eq!(narrow[0].floats().to_vec(), want.map(|w| w as f32));
    // f16 overflows to infinity; integers are cut towards zero and saturate.
    let body = "%x: f32[S] = input \"x\" %n: f16[S] = cast %x %y: f32[S] = cast %n return \"y\" = %y";
    assert_eq!(one(body, 2, &[("x", Input::Float(&[65519.0, 65520.0]))]), [65504.0, f64::INFINITY]);
    let body = "%x: f32[S] = input \"x\" %n: i32[S] = cast %x %y: f32[S] = cast %n return \"y\" = %y";
    let x = [-1.75, 1e20, f32::NAN, 2.5];
    assert_eq!(one(body, 4, &[("x", Input::Float(&x))]), [-1.0, 2147483647.0, 0.0, 2.0]);
}

#[test]
fn f32_rounds_every_step_and_f64_does_not() {
    let body = "%x: f32[3] = input \"x\" %y: f32[] = reduce sum %x axis=0 return \"y\" = %y";
    let x = [1.0f32, 1e-8, 1e-8];
    assert_eq!(one(body, 1, &[("x", Input::Float(&x))]), [1.0 + f64::from(1e-8f32) * 2.0]);
    let g = graph(body);
    let source = Source::default();
    let narrow = Interpreter::<f32>::new(&g, &source).step(sizes(1), &[("x", Input::Float(&x))]).unwrap();
    assert_eq!(narrow[0].floats()[0], 1.0);
}

#[test]
fn reductions_along_any_axis_and_over_nothing() {
    let x = [1.0, -2.0, 3.0, 4.0, 5.0, -6.0];
    let run = |op: &str, axis: usize, dims: &str| {
        let body =
            format!("%x: f32[S, 3] = input \"x\" %y: f32[{dims}] = reduce {op} %x axis={axis} return \"y\" = %y");
        one(&body, 2, &[("x", Input::Float(&x))])
    };
    assert_eq!(run("sum", 1, "S"), [2.0, 3.0]);
    assert_eq!(run("max", 1, "S"), [3.0, 5.0]);
    assert_eq!(run("sum", 0, "3"), [5.0, 3.0, -3.0]);
    assert_eq!(run("max", 0, "3"), [4.0, 5.0, 3.0]);
    let empty = "%x: f32[S] = input \"x\" %y: f32[] = reduce max %x axis=0 return \"y\" = %y";
    assert_eq!(one(empty, 0, &[("x", Input::Float(&[]))]), [f64::NEG_INFINITY]);
}

#[test]
fn views() {
    let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let given: &[(&str, Input<'_>)] = &[("x", Input::Float(&x))];
    let run = |rest: &str| one(&format!("%x: f32[S, 6] = input \"x\" {rest} return \"y\" = %y"), 2, given);
    assert_eq!(
        run("%y: f32[6, S] = transpose %x perm=[1, 0]"),
        [0.0, 6.0, 1.0, 7.0, 2.0, 8.0, 3.0, 9.0, 4.0, 10.0, 5.0, 11.0]
    );
    assert_eq!(run("%y: f32[S, 2] = slice %x axis=1 start=3 len=2"), [3.0, 4.0, 9.0, 10.0]);
    assert_eq!(
        run("%r: f32[S, 2, 3] = reshape %x %y: f32[2, S, 3] = transpose %r perm=[1, 0, 2]"),
        [0.0, 1.0, 2.0, 6.0, 7.0, 8.0, 3.0, 4.0, 5.0, 9.0, 10.0, 11.0]
    );
    assert_eq!(
        run("%a: f32[S, 1] = slice %x axis=1 start=5 len=1 %b: f32[S, 2] = slice %x axis=1 start=0 len=2
             %y: f32[S, 3] = concat %a, %b axis=1"),
        [5.0, 0.0, 1.0, 11.0, 6.0, 7.0]
    );
    assert_eq!(
        run("%a: f32[S] = reduce max %x axis=1 %y: f32[3, S, 2] = broadcast %a axes=[1]"),
        [5.0, 5.0, 11.0, 11.0, 5.0, 5.0, 11.0, 11.0, 5.0, 5.0, 11.0, 11.0]
    );
}

#[test]
fn products() {
    let g = graph(
        "%x: f32[S, 2] = input \"x\" %a: f32[2, 2] = weight \"a\" %b: bf16[1, 2] = weight \"b\"
         %y: f32[S, 3] = dot %x, %a, %b contract=[1]x[1]
         %q: f32[S, 2, 2] = broadcast %x axes=[0, 2]
         %k: f32[S, 2, 2] = broadcast %x axes=[0, 1]
         %z: f32[S, 2, 2] = dot %q, %k batch=[0]x[0] contract=[2]x[2]
         return \"y\" = %y, \"z\" = %z",
    );
    let source = Source::default().f32("a", &[2, 2], &[1.0, 2.0, 3.0, 4.0]).bf16("b", &[1, 2], &[-1.0, 0.5]);
    let out =
        Interpreter::<f64>::new(&g, &source).step(sizes(2), &[("x", Input::Float(&[1.0, 10.0, 2.0, 20.0]))]).unwrap();
    assert_eq!(floats(&out[0]), [21.0, 43.0, 4.0, 42.0, 86.0, 8.0]);
    // z[s, g, h] = Σ_k x[s, k] · x[s, h]
    assert_eq!(floats(&out[1]), [11.0, 110.0, 11.0, 110.0, 44.0, 440.0, 44.0, 440.0]);
}

#[test]
fn recipes() {
    let g = graph(
        "%0: f32[4, 1] = weight permute_rows(\"p\", heads=1)
         %1: f32[8, 1] = weight permute_rows(\"q\", heads=2)
         %2: f32[3, 1] = weight convert(concat(\"b\", \"one\"))
         %3: f32[4, 1] panels = weight interleave_panels(\"a\", \"b2\")
         %x: f32[1, 1] = input \"x\"
         %4: f32[1, 4] = dot %x, %3 contract=[1]x[1]
         return \"0\" = %0, \"1\" = %1, \"2\" = %2, \"3\" = %4",
    );
    let n: Vec<f32> = (0..8).map(|i| i as f32).collect();
    let source = Source::default()
        .f32("p", &[4, 1], &n[..4])
        .f32("q", &[8, 1], &n)
        .bf16("b", &[2, 1], &[7.0, 8.0])
        .bf16("one", &[1, 1], &[9.0])
        .f32("a", &[2, 1], &[1.0, 2.0])
        .f32("b2", &[2, 1], &[3.0, 4.0]);
    let out = Interpreter::<f64>::new(&g, &source).step(sizes(1), &[("x", Input::Float(&[1.0]))]).unwrap();
    assert_eq!(floats(&out[0]), [0.0, 2.0, 1.0, 3.0]);
    assert_eq!(floats(&out[1]), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    assert_eq!(floats(&out[2]), [7.0, 8.0, 9.0]);
    assert_eq!(floats(&out[3]), [1.0, 2.0, 3.0, 4.0], "in logical order, whatever the panels");
}

#[test]
fn rope_tables_are_the_formats_own() {
    let table = RopeTable { theta: 100.0, head_dim: 4, scaling: RopeScaling::Default };
    let want: Vec<f64> = (0..6).flat_map(|p| table.cos_sin(p).1).map(f64::from).collect();
    assert_eq!(one("%y: f32[6, 2] = const rope_sin theta=100 head_dim=4 return \"y\" = %y", 1, &[]), want);
}

const CACHE: &str = "
    %slots: i32[S] = input \"slots\" limit=2
    %positions: i32[S] = input \"positions\" limit=6
    %x: f32[S, 1, 2] = input \"x\"
    %k: f32[2, 1, 6, 2] = state \"k\"
    %before: f32[S, 1, T, 2] = index %k, %slots
    %old: f32[S, 1, 2] = reduce sum %before axis=2";

fn cache_steps(g: &Graph) -> Vec<Vec<Vec<f64>>> {
    let source = Source::default();
    let mut it = Interpreter::<f64>::new(g, &source);
    let mut step = |slots: &[i32], positions: &[i32], x: &[f32]| {
        let tokens = 1 + positions.iter().copied().max().unwrap() as usize;
        let sizes = Sizes { rows: slots.len(), outputs: 1, tokens };
        let inputs = [("slots", Input::Int(slots)), ("positions", Input::Int(positions)), ("x", Input::Float(x))];
        it.step(sizes, &inputs).unwrap().iter().map(floats).collect::<Vec<_>>()
    };
    vec![
        step(&[0, 0, 1], &[0, 1, 0], &[1.0, 2.0, 10.0, 20.0, 100.0, 200.0]),
        step(&[1, 0], &[1, 2], &[5.0, 6.0, 7.0, 8.0]),
    ]
}

#[test]
fn states_outlive_a_step_and_slots_are_apart() {
    let g = graph(&format!(
        "{CACHE}
        %new: f32[2, 1, 6, 2] = state.write %k, %x, %slots, %positions
        %after: f32[S, 1, T, 2] = index %new, %slots
        %now: f32[S, 1, 2] = reduce sum %after axis=2
        return \"old\" = %old, \"now\" = %now"
    ));
    let steps = cache_steps(&g);
    assert_eq!(steps[0][0], [0.0; 6]);
    assert_eq!(steps[0][1], [11.0, 22.0, 11.0, 22.0, 100.0, 200.0]);
    assert_eq!(steps[1][0], [100.0, 200.0, 11.0, 22.0]);
    assert_eq!(steps[1][1], [105.0, 206.0, 18.0, 30.0]);
    // The same with the write inside of a fusion.
    let fused = graph(&format!(
        "{CACHE}
        %new: f32[2, 1, 6, 2] = fusion rows \"write\" (%x, %k, %positions, %slots) {{
          %x: f32[S, 1, 2] = param 0
          %k: f32[2, 1, 6, 2] = param 1
          %positions: i32[S] = param 2
          %slots: i32[S] = param 3
          %new: f32[2, 1, 6, 2] = state.write %k, %x, %slots, %positions
          yield %new
        }}
        %now: f32[S, 1, 2] = fusion rows \"read\" (%new, %slots) {{
          %k: f32[2, 1, 6, 2] = param 0
          %slots: i32[S] = param 1
          %after: f32[S, 1, T, 2] = index %k, %slots
          %now: f32[S, 1, 2] = reduce sum %after axis=2
          yield %now
        }}
        return \"old\" = %old, \"now\" = %now"
    ));
    assert_eq!(cache_steps(&fused), steps);
}

#[test]
fn states_can_be_seen_and_reset() {
    let g = graph(&format!(
        "{CACHE}
        %new: f32[2, 1, 6, 2] = state.write %k, %x, %slots, %positions
        return \"old\" = %old"
    ));
    let source = Source::default();
    let mut it = Interpreter::<f64>::new(&g, &source);
    assert_eq!((it.state("k"), it.state("v")), (Some(&[][..]), None));
    let inputs = [("slots", Input::Int(&[1])), ("positions", Input::Int(&[3])), ("x", Input::Float(&[8.0, 9.0]))];
    let size = Sizes { rows: 1, outputs: 1, tokens: 4 };
    it.step(size, &inputs).unwrap();
    assert_eq!(it.state("k").unwrap()[18..20], [8.0, 9.0]);
    assert_eq!(floats(&it.step(size, &inputs).unwrap()[0]), [8.0, 9.0]);
    it.reset();
    assert_eq!(floats(&it.step(size, &inputs).unwrap()[0]), [0.0, 0.0]);
}

#[test]
fn weights_read_anew_are_the_same() {
    let g = graph("%w: f32[2] = weight \"w\" %y: f32[2] = neg %w return \"y\" = %y");
    let source = Source::default().f32("w", &[2], &[1.0, 2.0]);
    for keep in [true, false] {
        let mut it = Interpreter::<f64>::new(&g, &source).keep_weights(keep);
        for _ in 0..2 {
            assert_eq!(floats(&it.step(sizes(1), &[]).unwrap()[0]), [-1.0, -2.0]);
        }
    }
}

#[test]
fn integers_and_truth_values_come_out_as_such() {
    let g = graph(
        "%i: i32[S] = iota %p: i32[S] = input \"p\" limit=6 %s: i32[S] = add %i, %p %c: bool[S] = cmp lt %i, %p
         %m: i32[] = reduce max %s axis=0 return \"s\" = %s, \"c\" = %c, \"m\" = %m",
    );
    let source = Source::default();
    let out = Interpreter::<f64>::new(&g, &source).step(sizes(3), &[("p", Input::Int(&[5, 0, 3]))]).unwrap();
    assert_eq!((out[0].ints(), out[1].bools(), out[2].ints()), (&[5, 1, 5][..], &[true, false, true][..], &[5][..]));
    assert!(matches!(out[1].data, Data::Bool(_)));
}

fn error(body: &str, source: Source, size: Sizes, inputs: &[(&str, Input<'_>)]) -> InterpError {
    let g = graph(body);
    Interpreter::<f64>::new(&g, &source).step(size, inputs).unwrap_err()
}

#[test]
fn steps_that_do_not_fit() {
    let body = "%x: f32[S, 2] = input \"x\" %i: i32[S] = input \"i\" limit=3 return \"x\" = %x, \"i\" = %i";
    let (x, i): (&[f32], &[i32]) = (&[1.0, 2.0], &[2]);
    let run = |size, inputs: &[(&str, Input<'_>)]| error(body, Source::default(), size, inputs);
    let e = run(sizes(1), &[("x", Input::Float(x))]);
    assert!(matches!(&e, InterpError::MissingInput { name, .. } if name == "i"), "{e}");
    let e = run(sizes(2), &[("x", Input::Float(x)), ("i", Input::Int(i))]);
    assert!(e.to_string().contains("2 elements of f32, expected f32[2, 2]"), "{e}");
    let e = run(sizes(1), &[("x", Input::Int(i)), ("i", Input::Int(i))]);
    assert!(matches!(&e, InterpError::Input { name, .. } if name == "x"), "{e}");
    for bad in [3, -1] {
        let e = run(sizes(1), &[("x", Input::Float(x)), ("i", Input::Int(&[bad]))]);
        assert_eq!(e, InterpError::Range { name: "i".into(), row: 0, found: bad, limit: 3 });
    }
    let e = run(sizes(5), &[]);
    assert_eq!(e, InterpError::Bound { what: "rows", found: 5, bound: 4 });
    // An index may be below its limit and yet beyond the rows of this step.
    let body = "%x: f32[S, 2] = input \"x\" %o: i32[R] = input \"o\" limit=4
        %y: f32[R, 2] = gather %x, %o @\"last\" return \"y\" = %y";
    let e = error(body, Source::default(), sizes(1), &[("x", Input::Float(x)), ("o", Input::Int(&[1]))]);
    assert_eq!(e.to_string(), "last (gather): index 1 is outside 0..1");
    let body = "%c: f32[] = const 1.0 %y: f32[65536, 65536] = broadcast %c axes=[] return \"y\" = %y";
    assert!(matches!(error(body, Source::default(), sizes(1), &[]), InterpError::TooLarge { .. }));
    let body = "%c: f32[2, 65536, 6, 65536] = state \"k\" %y: f32[] = const 1.0 return \"y\" = %y";
    assert!(matches!(error(body, Source::default(), sizes(1), &[]), InterpError::TooLarge { .. }));
}

#[test]
fn weights_that_do_not_fit() {
    let run = |recipe: &str, ty: &str, source: Source| {
        let e = error(&format!("%w: {ty} = weight {recipe} return \"w\" = %w"), source, sizes(1), &[]);
        let InterpError::Weight(e) = e else { panic!("{e}") };
        e
    };
    let w = || Source::default().f32("w", &[4, 2], &[0.0; 8]);
    assert!(matches!(run("\"v\"", "f32[4, 2]", w()), WeightError::Missing { tensor, .. } if tensor == "v"));
    let e = run("\"w\"", "f32[2, 4]", w()).to_string();
    assert_eq!(e, "test tensors: tensor \"w\": found f32[4, 2], expected f32[2, 4]");
    let e = run("\"w\"", "bf16[4, 2]", w()).to_string();
    assert!(e.contains("found f32[4, 2], expected bf16[4, 2]"), "{e}");
    let e = run("concat(\"w\", \"w\")", "f32[9, 2]", w()).to_string();
    assert!(e.contains("8 rows in all parts"), "{e}");
    let e = run("concat(permute_rows(\"w\", heads=4), \"w\")", "f32[8, 2]", w()).to_string();
    assert!(e.contains("4 heads"), "{e}");
}
