//! Compiled code against the interpreter.

mod support;

use llamac_codegen::{Options, Target};
use llamac_formats::Sizes;
use llamac_ir::parse;
use llamac_passes::FusionSet;
use support::random::{agree, agree_as_is, agree_with_all};
use support::source::Source;
use support::{Machine, graphs};

const STEPS: &[Sizes] = &[
    Sizes { rows: 1, outputs: 1, tokens: 1 },
    Sizes { rows: 5, outputs: 1, tokens: 5 },
    Sizes { rows: 3, outputs: 1, tokens: 7 },
];

fn graph(body: &str) -> llamac_ir::Graph {
    let text = format!("graph @g S<=8 R<=1 T<=16 slots=3 {{\n{body}\n}}");
    parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn elementwise() {
    agree_with_all(
        &graph(
            r#"%x: f32[S, 13] = input "x"
               %y: f32[S, 13] = input "y"
               %a: f32[S, 13] = add %x, %y
               %b: f32[S, 13] = mul %a, %x
               %c: f32[S, 13] = max %b, %y
               %d: f32[S, 13] = min %c, %a
               %e: f32[S, 13] = exp %d
               %f: f32[S, 13] = tanh %e
               %g: bool[S, 13] = cmp lt %f, %x
               %h: f32[S, 13] = select %g, %e, %y
               %i: f32[S, 13] = abs %h
               %j: f32[S, 13] = rsqrt %i
               %k: f32[S, 13] = neg %j
               return "h" = %h, "k" = %k, "g" = %g"#,
        ),
        STEPS,
        1,
    );
}

#[test]
fn casts_round_like_the_interpreter() {
    agree_with_all(
        &graph(
            r#"%x: f32[S, 9] = input "x"
               %i: i32[S] = input "ids" limit=50
               %a: bf16[S, 9] = cast %x
               %b: f32[S, 9] = cast %a
               %c: f16[S, 9] = cast %x
               %d: f32[S, 9] = cast %c
               %e: i32[S, 9] = cast %x
               %f: f32[S] = cast %i
               return "a" = %a, "b" = %b, "c" = %c, "d" = %d, "e" = %e, "f" = %f"#,
        ),
        STEPS,
        2,
    );
}

#[test]
fn reductions_over_every_axis() {
    agree_with_all(
        &graph(
            r#"%x: f32[S, 3, 21] = input "x"
               %a: f32[S, 3] = reduce sum %x axis=2
               %b: f32[S, 21] = reduce max %x axis=1
               %c: f32[3, 21] = reduce sum %x axis=0
               %d: f32[3] = reduce max %c axis=1
               %e: f32[] = reduce sum %d axis=0
               return "a" = %a, "b" = %b, "c" = %c, "d" = %d"#,
        ),
        STEPS,
        3,
    );
}

#[test]
fn views_in_all_directions() {
    agree_with_all(
        &graph(
            r#"%x: f32[S, 6, 8] = input "x"
               %t: f32[8, S, 6] = transpose %x perm=[2, 0, 1]
               %tn: f32[8, S, 6] = neg %t
               %r: f32[S, 48] = reshape %x
               %rn: f32[S, 48] = abs %r
               %q: f32[S, 4, 12] = reshape %rn
               %s: f32[S, 4, 5] = slice %q axis=2 start=3 len=5
               %u: f32[S, 4, 7] = slice %q axis=2 start=1 len=7
               %c: f32[S, 4, 12] = concat %s, %u axis=2
               %cn: f32[S, 4, 12] = neg %c
               %f: f32[S, 48] = reshape %cn
               %g: f32[S, 48] = add %f, %r
               %h: f32[S, 3, 48] = broadcast %g axes=[0, 2]
               %hn: f32[S, 3, 48] = exp %h
               %v: f32[S, 8, 12] = concat %c, %q axis=1
               %vn: f32[S, 8, 12] = neg %v
               %w: f32[S, 96] = reshape %vn
               return "t" = %tn, "g" = %g, "h" = %hn, "w" = %w, "c" = %c"#,
        ),
        STEPS,
        4,
    );
}

#[test]
fn rms_norm_and_softmax() {
    agree_with_all(
        &graph(
            r#"%x: f32[S, 37] = input "x"
               %w: bf16[37] = weight "w"
               %xx: f32[S, 37] = mul %x, %x
               %s: f32[S] = reduce sum %xx axis=1
               %c: f32[] = const 0.027027028
               %cs: f32[S] = broadcast %c axes=[]
               %m: f32[S] = mul %s, %cs
               %e: f32[] = const 1e-5
               %es: f32[S] = broadcast %e axes=[]
               %me: f32[S] = add %m, %es
               %r: f32[S] = rsqrt %me
               %rs: f32[S, 37] = broadcast %r axes=[0]
               %n: f32[S, 37] = mul %x, %rs
               %wf: f32[37] = cast %w
               %ws: f32[S, 37] = broadcast %wf axes=[1]
               %y: f32[S, 37] = mul %n, %ws
               %mx: f32[S] = reduce max %y axis=1
               %mxs: f32[S, 37] = broadcast %mx axes=[0]
               %z: f32[S, 37] = sub %y, %mxs
               %p: f32[S, 37] = exp %z
               %t: f32[S] = reduce sum %p axis=1
               %ts: f32[S, 37] = broadcast %t axes=[0]
               %q: f32[S, 37] = div %p, %ts
               return "y" = %y, "q" = %q"#,
        ),
        STEPS,
        5,
    );
}

#[test]
fn dots_of_every_kind() {
    agree_with_all(
        &graph(
            r#"%x: f32[S, 24] = input "x"
               %w: bf16[40, 24] = weight "w"
               %v: f32[32, 40] = weight "v"
               %u: f16[32, 40] = weight "u"
               %b: f32[40] = weight "b"
               %d: f32[S, 40] = dot %x, %w contract=[1]x[1]
               %bs: f32[S, 40] = broadcast %b axes=[1]
               %e: f32[S, 40] = add %d, %bs
               %g: f32[S, 32] = dot %e, %v contract=[1]x[1]
               %h: f32[S, 32] = dot %e, %u contract=[1]x[1]
               %one: f32[] = const 1.0
               %ones: f32[S, 32] = broadcast %one axes=[]
               %ng: f32[S, 32] = neg %g
               %eg: f32[S, 32] = exp %ng
               %pe: f32[S, 32] = add %ones, %eg
               %si: f32[S, 32] = div %g, %pe
               %m: f32[S, 32] = mul %si, %h
               %k: f32[S, S] = dot %m, %g contract=[1]x[1]
               %hh: f32[S, 4, 8] = reshape %h
               %mm: f32[S, 4, 8] = reshape %m
               %o: f32[4, S, S] = dot %hh, %mm batch=[1]x[1] contract=[2]x[2]
               return "m" = %m, "k" = %k, "o" = %o"#,
        ),
        STEPS,
        6,
    );
}

#[test]
fn gated_mlp_pairs_its_segments() {
    let g = graph(
        r#"%x: f32[S, 24] = input "x"
           %w: bf16[48, 24] = weight "gate"
           %v: bf16[48, 24] = weight "up"
           %d: bf16[24, 48] = weight "down"
           %g: f32[S, 48] = dot %x, %w contract=[1]x[1]
           %h: f32[S, 48] = dot %x, %v contract=[1]x[1]
           %one: f32[] = const 1.0
           %ones: f32[S, 48] = broadcast %one axes=[]
           %ng: f32[S, 48] = neg %g
           %eg: f32[S, 48] = exp %ng
           %pe: f32[S, 48] = add %ones, %eg
           %si: f32[S, 48] = div %g, %pe
           %m: f32[S, 48] = mul %si, %h
           %y: f32[S, 24] = dot %m, %d contract=[1]x[1]
           %z: f32[S, 24] = add %x, %y
           return "z" = %z"#,
    );
    agree_with_all(&g, STEPS, 7);
}

#[test]
fn gathers_and_iota() {
    agree_with_all(
        &graph(
            r#"%i: i32[S] = input "ids" limit=20
               %j: i32[S] = input "others" limit=7
               %t: bf16[20, 10] = weight "t"
               %u: f32[7, 3] = weight "u"
               %a: f32[S, 10] = gather %t, %i
               %b: f32[S, 3] = gather %u, %j
               %n: i32[T] = iota
               %ns: i32[S, T] = broadcast %n axes=[1]
               %is: i32[S, T] = broadcast %i axes=[0]
               %m: bool[S, T] = cmp le %ns, %is
               %k: i32[S, T] = add %ns, %is
               %mx: i32[S] = reduce max %k axis=1
               return "a" = %a, "b" = %b, "m" = %m, "k" = %k, "mx" = %mx"#,
        ),
        STEPS,
        8,
    );
}

#[test]
fn attention_with_rope_and_cache() {
    agree_with_all(
        &graph(
            r#"%q: f32[S, 32] = input "q"
               %kx: f32[S, 16] = input "k"
               %vx: f32[S, 16] = input "v"
               %p: i32[S] = input "positions" limit=16
               %l: i32[S] = input "slots" limit=3
               %cos: f32[16, 4] = const rope_cos theta=10000 head_dim=8 scaling=default
               %sin: f32[16, 4] = const rope_sin theta=10000 head_dim=8 scaling=default
               %c: f32[S, 4] = gather %cos, %p
               %s: f32[S, 4] = gather %sin, %p
               %k: f32[S, 2, 8] = reshape %kx
               %v: f32[S, 2, 8] = reshape %vx
               %cb: f32[S, 2, 4] = broadcast %c axes=[0, 2]
               %sb: f32[S, 2, 4] = broadcast %s axes=[0, 2]
               %k1: f32[S, 2, 4] = slice %k axis=2 start=0 len=4
               %k2: f32[S, 2, 4] = slice %k axis=2 start=4 len=4
               %a: f32[S, 2, 4] = mul %k1, %cb
               %b: f32[S, 2, 4] = mul %k2, %sb
               %d: f32[S, 2, 4] = sub %a, %b
               %e: f32[S, 2, 4] = mul %k2, %cb
               %f: f32[S, 2, 4] = mul %k1, %sb
               %g: f32[S, 2, 4] = add %e, %f
               %kr: f32[S, 2, 8] = concat %d, %g axis=2
               %ks: f32[3, 2, 16, 8] = state "k"
               %vs: f32[3, 2, 16, 8] = state "v"
               %kw: f32[3, 2, 16, 8] = state.write %ks, %kr, %l, %p
               %vw: f32[3, 2, 16, 8] = state.write %vs, %v, %l, %p
               %qq: f32[S, 2, 2, 8] = reshape %q
               %ki: f32[S, 2, T, 8] = index %kw, %l
               %vi: f32[S, 2, T, 8] = index %vw, %l
               %sc: f32[S, 2, 2, T] = dot %qq, %ki batch=[0,1]x[0,1] contract=[3]x[3]
               %r: f32[] = const 0.35355338
               %rs: f32[S, 2, 2, T] = broadcast %r axes=[]
               %scs: f32[S, 2, 2, T] = mul %sc, %rs
               %n: i32[T] = iota
               %ns: i32[S, 2, 2, T] = broadcast %n axes=[3]
               %ps: i32[S, 2, 2, T] = broadcast %p axes=[0]
               %m: bool[S, 2, 2, T] = cmp le %ns, %ps
               %inf: f32[] = const -inf
               %infs: f32[S, 2, 2, T] = broadcast %inf axes=[]
               %ms: f32[S, 2, 2, T] = select %m, %scs, %infs
               %mx: f32[S, 2, 2] = reduce max %ms axis=3
               %mxs: f32[S, 2, 2, T] = broadcast %mx axes=[0, 1, 2]
               %z: f32[S, 2, 2, T] = sub %ms, %mxs
               %ex: f32[S, 2, 2, T] = exp %z
               %su: f32[S, 2, 2] = reduce sum %ex axis=3
               %sus: f32[S, 2, 2, T] = broadcast %su axes=[0, 1, 2]
               %pr: f32[S, 2, 2, T] = div %ex, %sus
               %o: f32[S, 2, 2, 8] = dot %pr, %vi batch=[0,1]x[0,1] contract=[3]x[2]
               %y: f32[S, 32] = reshape %o
               %yn: f32[S, 32] = neg %y
               return "y" = %yn"#,
        ),
        STEPS,
        9,
    );
}

#[test]
fn the_mlp_example() {
    let text = include_str!("../../examples/mlp.lir");
    let rows = |rows| Sizes { rows, outputs: 1, tokens: 1 };
    agree_with_all(&parse(text).unwrap(), &[rows(1), rows(7), rows(64)], 10);
}

#[test]
fn regions_as_written() {
    // A reduction that an inner sweep needs, and a concat that cannot be split along the sweep.
    agree_as_is(
        &graph(
            r#"%x: f32[S, 4, 9] = input "x"
               %y: f32[S, 36] = fusion rows "odd" (%x) {
                 %0: f32[S, 4, 9] = param 0
                 %1: f32[S, 4] = reduce sum %0 axis=2
                 %2: f32[S] = reduce max %1 axis=1
                 %3: f32[S, 4, 9] = broadcast %1 axes=[0, 1]
                 %4: f32[S, 4, 9] = broadcast %2 axes=[0]
                 %5: f32[S, 4, 9] = add %3, %4
                 %6: f32[S, 4, 9] = exp %5
                 %7: f32[S, 4, 5] = slice %6 axis=2 start=2 len=5
                 %8: f32[S, 4, 4] = slice %0 axis=2 start=0 len=4
                 %9: f32[S, 4, 9] = concat %7, %8 axis=2
                 %10: f32[S, 36] = reshape %9
                 yield %10
               }
               return "y" = %y"#,
        ),
        STEPS,
        11,
    );
}

#[test]
fn random_graphs() {
    let sizes = |rows, tokens| Sizes { rows, outputs: 1, tokens };
    for seed in 0..60 {
        let graph = graphs::random(seed, 6 + (seed as usize % 5) * 6);
        agree_with_all(&graph, &[sizes(1, 1), sizes(6, 9), sizes(3, 4)], seed);
    }
}

#[test]
fn targets_agree_with_the_interpreter_and_need_nothing_outside() {
    let sizes = |rows, tokens| Sizes { rows, outputs: 1, tokens };
    for seed in 100..108 {
        let graph = graphs::random(seed, 20);
        let source = Source::of(&graph, seed);
        for target in Target::ALL {
            // Relocations are errors of compilation, whether the machine can run the code or not.
            let options = Options { target, ..Options::default() };
            let compiled = support::build(&graph, FusionSet::All, &options);
            if matches!(target, Target::Native | Target::X86V2) {
                let mut machine = Machine::new(compiled, &source);
                agree(&graph, &mut machine, &source, &[sizes(1, 1), sizes(5, 6)], seed, target.name());
            }
        }
    }
}

/// A stack of normalised gated layers.
fn layers(count: usize) -> llamac_ir::Graph {
    let mut body = String::from(
        "%x0: f32[S, 32] = input \"x\"\n%one: f32[] = const 1.0\n%ones: f32[S, 48] = broadcast %one axes=[]\n",
    );
    for i in 0..count {
        let next = i + 1;
        body += &format!(
            r#"%xx{i}: f32[S, 32] = mul %x{i}, %x{i}
               %ss{i}: f32[S] = reduce sum %xx{i} axis=1
               %r{i}: f32[S] = rsqrt %ss{i}
               %rs{i}: f32[S, 32] = broadcast %r{i} axes=[0]
               %n{i}: f32[S, 32] = mul %x{i}, %rs{i}
               %w{i}: bf16[48, 32] = weight "{i}.gate"
               %v{i}: bf16[48, 32] = weight "{i}.up"
               %d{i}: bf16[32, 48] = weight "{i}.down"
               %g{i}: f32[S, 48] = dot %n{i}, %w{i} contract=[1]x[1]
               %h{i}: f32[S, 48] = dot %n{i}, %v{i} contract=[1]x[1]
               %ng{i}: f32[S, 48] = neg %g{i}
               %eg{i}: f32[S, 48] = exp %ng{i}
               %pe{i}: f32[S, 48] = add %ones, %eg{i}
               %si{i}: f32[S, 48] = div %g{i}, %pe{i}
               %m{i}: f32[S, 48] = mul %si{i}, %h{i}
               %y{i}: f32[S, 32] = dot %m{i}, %d{i} contract=[1]x[1]
               %x{next}: f32[S, 32] = add %x{i}, %y{i}
            "#
        );
    }
    graph(&format!("{body}\nreturn \"y\" = %x{count}"))
}

#[test]
fn kernels_do_not_grow_with_layers_nor_entries() {
    for &fusion in FusionSet::ALL {
        let kernels = |count| support::build(&layers(count), fusion, &Options::default()).stats.kernels;
        assert_eq!(kernels(2), kernels(7), "{fusion}");
    }
    let all = support::build(&layers(3), FusionSet::All, &Options::default());
    assert_eq!(all.program.entries.len(), 2);
    let names: Vec<&str> = all.program.kernels.iter().map(|k| k.name.as_str()).collect();
    assert_eq!(names.len(), 3, "one kernel for each kind of step, for both entries: {names:?}");
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    let build = || support::build(&layers(2), FusionSet::All, &Options::default());
    let (a, b) = (build(), build());
    assert_eq!(a.code, b.code);
    assert_eq!(a.program, b.program);
}

#[test]
fn listings_are_there_if_asked_for() {
    let options = Options { listings: true, ..Options::default() };
    let compiled = support::build(&layers(1), FusionSet::All, &options);
    for l in &compiled.listings {
        assert!(l.loops.starts_with("kernel ("), "{}", l.loops);
        assert!(l.clif.starts_with("function "), "{}", l.clif);
        assert!(l.asm.contains("ret"), "{}", l.asm);
    }
}

#[test]
fn too_deep_a_region_is_refused_in_words() {
    let mut region = String::from("%0: f32[S, 4] = param 0\n");
    for i in 1..3000 {
        region += &format!("%{i}: f32[S, 4] = neg %{}\n", i - 1);
    }
    let g = graph(&format!(
        "%x: f32[S, 4] = input \"x\"\n%y: f32[S, 4] = fusion rows \"deep\" (%x) {{\n{region}yield %2999\n}}\nreturn \"y\" = %y"
    ));
    let mut g = g;
    llamac_passes::layout::run(&mut g).unwrap();
    let plan = llamac_passes::plan::plan(&g).unwrap();
    let error = llamac_codegen::compile(&g, &plan, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("deep") && error.contains("smaller region"), "{error}");
}

#[test]
fn long_chains_of_views_are_read_through() {
    let mut body = String::from("%v0: f32[S, 6, 4] = input \"x\"\n");
    for i in 0..4000 {
        let (from, to) = if i % 2 == 0 { ("6, 4", "4, 6") } else { ("4, 6", "6, 4") };
        assert_ne!(from, to);
        body += &format!("%v{}: f32[S, {to}] = transpose %v{i} perm=[0, 2, 1]\n", i + 1);
    }
    let g = graph(&format!("{body}%y: f32[S, 6, 4] = neg %v4000\nreturn \"y\" = %y"));
    agree_as_is(&g, STEPS, 12);
}

/// Finished rows become blocks: behind a reduction and beside another result, and by themselves in stretches of a long row.
#[test]
fn blocks_of_activations() {
    agree_with_all(
        &graph(
            r#"%x: f32[S, 64] = input "x"
               %l: f32[S, 2048] = input "l"
               %w: q4_0[20, 64] = weight "w"
               %v: q8_0[4, 2048] = weight "v"
               %xx: f32[S, 64] = mul %x, %x
               %s: f32[S] = reduce sum %xx axis=1
               %r: f32[S] = rsqrt %s
               %rs: f32[S, 64] = broadcast %r axes=[0]
               %n: f32[S, 64] = mul %x, %rs
               %nq: q8[S, 64] = cast %n
               %lq: q8[S, 2048] = cast %l
               %a: f32[S, 20] = dot %nq, %w contract=[1]x[1]
               %b: f32[S, 4] = dot %lq, %v contract=[1]x[1]
               return "n" = %n, "a" = %a, "b" = %b"#,
        ),
        STEPS,
        41,
    );
}

/// Blocks of elements that lie in memory are made of them there: a stretch of a row, one that starts inside a row, rows of heads.
/// Those that lie apart are put side by side first.
#[test]
fn blocks_of_what_lies_in_memory() {
    agree_with_all(
        &graph(
            r#"%l: f32[S, 2112] = input "l"
               %h: f32[S, 2, 32] = input "h"
               %w: q8_0[4, 64] = weight "w"
               %v: q8_0[4, 2048] = weight "v"
               %s: f32[S, 2048] = slice %l axis=1 start=37 len=2048
               %sq: q8[S, 2048] = cast %s
               %hr: f32[S, 64] = reshape %h
               %hq: q8[S, 64] = cast %hr
               %t: f32[S, 32, 2] = transpose %h perm=[0, 2, 1]
               %tr: f32[S, 64] = reshape %t
               %tq: q8[S, 64] = cast %tr
               %a: f32[S, 4] = dot %sq, %v contract=[1]x[1]
               %b: f32[S, 4] = dot %hq, %w contract=[1]x[1]
               %d: f32[S, 4] = dot %tq, %w contract=[1]x[1]
               return "a" = %a, "b" = %b, "d" = %d"#,
        ),
        STEPS,
        42,
    );
}
