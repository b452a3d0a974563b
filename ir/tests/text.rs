//! The text form: exact round trips, hand-written liberties, and no text that hurts.

use llamac_ir::{parse, print};
use proptest::prelude::*;

/// One of everything, as `print` writes it.
const EVERYTHING: &str = r#"graph @mlp S<=512 R<=1 T<=2048 slots=1 {
  %0: f32[S, 64] = input "x"
  %1: i32[S] = input "ids" limit=512
  %2: bf16[256, 64] = weight "up.weight"
  %3: bf16[256, 64] panels = weight interleave_panels("a", permute_rows("b", heads=8))
  %4: f32[64, 64] = weight convert(concat("a\n\"b\"\u{301}", concat("c", "d")))
  %5: f32[] = const 1.0
  %6: f32[] = const 1e-6
  %7: f32[] = const -0.0
  %8: f32[] = const inf
  %9: f32[] = const -inf
  %10: f32[] = const nan
  %11: f32[] = const 0x7f800001
  %12: f32[] = const 0xffc00000
  %13: f16[3] = const 3.4028235e38
  %14: i32[] = const -2147483648
  %15: bool[S] = const true
  %16: f32[2048, 16] = const rope_cos theta=500000 head_dim=32 scaling=llama3 factor=8 low=1 high=4 original=256
  %17: f32[2048, 16] = const rope_sin theta=10000.5 head_dim=32
  %18: f32[2048, 16] = const rope_sin theta=1000000 head_dim=32 scaling=linear factor=0.1
  %19: f32[1, 4, 2048, 32] = state "layers.0.k"
  %20: i32[T] = iota
  %21: f32[S, 256] = dot %0, %2 contract=[1]x[1]
  %22: f32[S, 512] = dot %0, %2, %3 contract=[1]x[1] @"merged"
  %23: f32[S, 256] = broadcast %5 axes=[]
  %24: f32[S, 256] = add %21, %23 @"mlp.up"
  %25: f32[S] = reduce sum %24 axis=1
  %26: f32[S] = reduce max %24 axis=1
  %27: bool[S] = cmp le %25, %26
  %28: f32[S] = select %27, %25, %26
  %29: f32[S, 4, 64] = reshape %24
  %30: f32[4, S, 64] = transpose %29 perm=[1, 0, 2]
  %31: f32[S, 4, 32] = slice %29 axis=2 start=0 len=32
  %32: f32[S, 4, 64] = concat %31, %31 axis=2
  %33: f32[1, 4, 2048, 32] = state.write %19, %31, %1, %1
  %34: f32[S, 4, T, 32] = index %33, %1
  %35: f32[S, 4, T] = dot %31, %34 batch=[0, 1]x[0, 1] contract=[2]x[3]
  %36: f32[S, 64] = gather %2, %1
  %37: bf16[S, 64] = gather %2, %1
  %38: bf16[S, 64] = cast %36
  %39: f32[S, 64] = copy %36
  %40: f32[S, 256], %41: f32[S] = fusion rows "silu \u{200b}" (%21, %23) {
    %0: f32[S, 256] = param 0
    %1: f32[S, 256] = param 1
    %2: f32[S, 256] = add %0, %1 @"inner"
    %3: f32[S] = reduce sum %2 axis=1
    yield %2, %3
  } @"mlp.act"
  %42: f32[S] = neg %41
  return "y" = %24, "\t" = %42
}
"#;

#[test]
fn everything_prints_as_it_was_read() {
    let graph = parse(EVERYTHING).unwrap_or_else(|e| panic!("{e}"));
    let text = print(&graph);
    assert_eq!(text, EVERYTHING);
    assert_eq!(parse(&text).unwrap(), graph);
}

#[test]
fn special_floats_keep_their_bits() {
    for bits in [0x7fc00000, 0xffc00000, 0x7f800001, 0x7fffffff, 0x80000000, 1, 0x007fffff, 0x00800000, 0xff7fffff] {
        let value = llamac_ir::print::float_text(f32::from_bits(bits));
        let text = format!("graph @g S<=1 R<=1 T<=1 slots=1 {{ %c: f32[] = const {value} return \"c\" = %c }}");
        let graph = parse(&text).unwrap_or_else(|e| panic!("{e}"));
        match graph.op(graph.order()[0]) {
            llamac_ir::Op::Const(llamac_ir::ConstKind::Splat(llamac_ir::Scalar::Float(x))) => {
                assert_eq!(x.to_bits(), bits, "{value}")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn hands_may_write_it_otherwise() {
    let loose = r#"// a comment
        graph @"g" slots=1 T<=4 // bounds in any order
        R<=1 S<=2 { %in.put: f32[S,8] = input "x" %w: f32[8,8,]=weight "w"
        %h = dot %in.put,%w contract=[1]x[1] // no type, no origin
        %part: f32[S, 2] = slice %h len=2 axis=1
            start=1
        return "y"=%part }"#;
    let strict = r#"graph @g S<=2 R<=1 T<=4 slots=1 {
  %0: f32[S, 8] = input "x"
  %1: f32[8, 8] = weight "w"
  %2: f32[S, 8] = dot %0, %1 contract=[1]x[1]
  %3: f32[S, 2] = slice %2 axis=1 start=1 len=2
  return "y" = %3
}
"#;
    assert_eq!(print(&parse(loose).unwrap_or_else(|e| panic!("{e}"))), strict);
}

#[test]
fn a_name_that_is_no_word_is_quoted() {
    let mut graph = parse("graph @g S<=1 R<=1 T<=1 slots=1 { return }").unwrap();
    for name in ["", "two words", "7", "\"", "läma"] {
        graph.name = name.into();
        assert_eq!(parse(&print(&graph)).unwrap().name, name);
    }
}

#[test]
fn the_caret_stands_under_the_place() {
    let text = "graph @g S<=1 R<=1 T<=1 slots=1 {\n\t%0: f32[S, ä] = input \"x\"\n}";
    let e = parse(text).unwrap_err();
    assert_eq!((e.line, e.column), (2, 13));
    let shown = e.to_string();
    assert!(shown.ends_with("2 | \t%0: f32[S, ä] = input \"x\"\n  | \t           ^"), "{shown}");
    let long = format!("graph @g {}?", " ".repeat(5000));
    let e = parse(&long).unwrap_err();
    assert_eq!(e.column, 5010);
    assert!(e.to_string().len() < 600);
}

#[test]
fn deep_nests_are_refused() {
    let recipe = format!("graph @g S<=1 R<=1 T<=1 slots=1 {{ %0: f32[1] = weight {}", "convert(".repeat(100_000));
    assert!(parse(&recipe).unwrap_err().message.contains("levels of recipes"));
    let region = format!("graph @g S<=1 R<=1 T<=1 slots=1 {{ {}", "%0: f32[] = fusion rows \"\" () {".repeat(100_000));
    assert!(parse(&region).unwrap_err().message.contains("levels of regions"));
    let dims = format!("graph @g S<=1 R<=1 T<=1 slots=1 {{ %0: f32[{}", "S, ".repeat(100_000));
    assert!(parse(&dims).unwrap_err().message.contains("axes"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = parse(&text).map_err(|e| e.to_string());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&String::from_utf8_lossy(&bytes)).map_err(|e| e.to_string());
    }

    /// Whatever a slip of the hand makes of a good text: it is refused, or what is read prints and reads back the same.
    #[test]
    fn mutated_texts_are_refused_or_round_trip(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, "[ -~]{0,6}"), 1..4),
        (from, to) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let words: Vec<&str> = EVERYTHING.split_inclusive(' ').collect();
        let mut text = EVERYTHING.to_owned();
        // Move a word somewhere else, then overwrite a few stretches.
        let moved = words[from.index(words.len())];
        let at = to.index(text.len());
        if text.is_char_boundary(at) {
            text.insert_str(at, moved);
        }
        for (at, len, new) in edits {
            let at = at.index(text.len());
            let end = (at + len).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, &new);
            }
        }
        match parse(&text) {
            Ok(graph) => {
                let printed = print(&graph);
                let again = parse(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
                prop_assert_eq!(&again, &graph);
                prop_assert_eq!(print(&again), printed);
            }
            Err(e) => prop_assert!(!e.to_string().is_empty()),
        }
    }
}

/// What the verifier finds is shown where it stands, in the names of the text.
#[test]
fn broken_rules_have_a_place() {
    let shown = |body: &str| {
        let text = format!("graph @g S<=8 R<=1 T<=16 slots=1 {{\n{body}\n}}\n");
        llamac_ir::read(&text).expect_err("a rule is broken").to_string()
    };
    let state =
        "  %p: i32[S] = input \"p\" limit=16\n  %s: i32[S] = input \"s\" limit=1\n  %x: f32[S, 2, 4] = input \"x\"
  %k: f32[1, 2, 16, 4] = state \"k\"\n  %new: f32[1, 2, 16, 4] = state.write %k, %x, %s, %p";
    let twice = shown(&format!("{state}\n  %z: f32[1, 2, 16, 4] = state.write %k, %x, %s, %p\n  return \"y\" = %x"));
    assert_eq!(
        twice,
        "line 7, column 26: rule `linear-state`: %k is written twice
  |
7 |   %z: f32[1, 2, 16, 4] = state.write %k, %x, %s, %p
  |                          ^^^^^^^^^^^"
    );
    let in_a_region = shown(
        "  %table: f32[9, 4] = weight \"w\"\n  %i: i32[S] = input \"i\"\n  %1: f32[S, 4] = fusion rows \"r\" (%table, %i) {
    %t: f32[9, 4] = param 0\n    %ids: i32[S] = param 1\n    %2: f32[S, 4] = gather %t, %ids\n    yield %2
  }\n  return \"y\" = %1",
    );
    assert!(in_a_region.starts_with("line 7, column 21: rule `indices`: the ids %ids have"), "{in_a_region}");
    assert!(in_a_region.ends_with("^^^^^^"), "{in_a_region}");
    let outputs = shown("  %x: f32[S, 4] = input \"x\"\n  return \"y\" = %x, \"y\" = %x");
    assert!(outputs.starts_with("line 3, column 3: rule `outputs`"), "{outputs}");
    let bounds = llamac_ir::read("graph @g S<=0 R<=1 T<=16 slots=1 {\n  return\n}").expect_err("no rows").to_string();
    assert!(bounds.starts_with("line 1, column 1: rule `bounds`"), "{bounds}");
}

/// Factors of their own are written out, and there is one for each frequency.
#[test]
fn rope_factors() {
    let text = |factors: &str| {
        format!(
            "graph @g S<=8 R<=1 T<=16 slots=1 {{
  %0: f32[16, 2] = const rope_cos theta=10000 head_dim=4 scaling=factors factors=[{factors}]
  return \"y\" = %0\n}}\n"
        )
    };
    let good = text("1, 0.1");
    assert_eq!(print(&llamac_ir::read(&good).unwrap_or_else(|e| panic!("{e}"))), good);
    let few = llamac_ir::read(&text("1")).expect_err("a factor is missing").to_string();
    assert!(few.contains("there are 1 factors, expected 2, half of head_dim"), "{few}");
    let zero = llamac_ir::read(&text("1, 0")).expect_err("zero divides nothing").to_string();
    assert!(zero.contains("expected a positive number"), "{zero}");
}
