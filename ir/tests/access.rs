//! Views composed into strides, on symbols and against an element-by-element count.

use llamac_formats::{Access, Bounds, DType, Extent, Indirect, Sym};
use llamac_ir::access::{access, gather_access, is_dense, through, write_access};
use llamac_ir::{Builder, Dim, Recipe, Type, Value};

const BOUNDS: Bounds = Bounds { rows: 8, outputs: 2, tokens: 32, slots: 4 };
const S: Dim = Dim::ROWS;

fn c(n: u64) -> Extent {
    Extent::constant(n)
}

fn s(n: u64) -> Extent {
    c(n).times(Extent::sym(Sym::Rows))
}

fn builder() -> Builder {
    Builder::new("t", BOUNDS)
}

fn x(b: &mut Builder, dims: &[Dim]) -> Value {
    b.input("x", Type::new(DType::F32, dims.iter().copied()), None).unwrap()
}

fn ids(b: &mut Builder, name: &str) -> Value {
    b.input(name, Type::new(DType::I32, [S]), Some(4)).unwrap()
}

fn strides(b: &Builder, v: Value) -> Vec<Extent> {
    access(b.graph(), v).unwrap().strides
}

#[test]
fn a_split_axis_keeps_its_order_and_a_transpose_permutes() {
    let mut b = builder();
    let x = x(&mut b, &[S, 64.into()]);
    let heads = b.reshape(x, &[S, 4.into(), 16.into()]).unwrap();
    assert_eq!(strides(&b, heads), [c(64), c(16), c(1)]);
    assert!(is_dense(&access(b.graph(), heads).unwrap(), b.ty(heads)));
    let t = b.transpose(heads, &[1, 0, 2]).unwrap();
    assert_eq!(strides(&b, t), [c(16), c(64), c(1)]);
    let back = b.transpose(t, &[1, 0, 2]).unwrap();
    let flat = b.reshape(back, &[S, 64.into()]).unwrap();
    let a = access(b.graph(), flat).unwrap();
    assert_eq!((a.base, a.strides), (x, vec![c(64), c(1)]));
}

#[test]
fn axes_out_of_order_do_not_merge() {
    let mut b = builder();
    let x = x(&mut b, &[S, 4.into(), 16.into()]);
    let t = b.transpose(x, &[0, 2, 1]).unwrap();
    let flat = b.reshape(t, &[S, 64.into()]).unwrap();
    let e = access(b.graph(), flat).unwrap_err();
    assert_eq!(e.at, flat);
    assert!(e.to_string().contains("do not lie one after the other"), "{e}");
}

#[test]
fn a_dense_value_reshapes_across_a_dynamic_axis() {
    let mut b = builder();
    let x = x(&mut b, &[S, 4.into()]);
    let y = b.reshape(x, &[2.into(), S, 2.into()]).unwrap();
    assert_eq!(strides(&b, y), [s(2), c(2), c(1)]);
}

#[test]
fn axes_of_one_are_free() {
    let mut b = builder();
    let x = x(&mut b, &[S, 1.into(), 8.into()]);
    let t = b.transpose(x, &[1, 2, 0]).unwrap();
    let y = b.reshape(t, &[8.into(), 1.into(), S, 1.into()]).unwrap();
    let a = strides(&b, y);
    assert_eq!((a[0], a[2]), (c(1), c(8)));
}

#[test]
fn a_broadcast_axis_has_no_stride_and_splits_but_does_not_merge_with_others() {
    let mut b = builder();
    let x = x(&mut b, &[S]);
    let y = b.broadcast(x, &[S, 64.into()], &[0]).unwrap();
    assert_eq!(strides(&b, y), [c(1), c(0)]);
    let heads = b.reshape(y, &[S, 4.into(), 16.into()]).unwrap();
    assert_eq!(strides(&b, heads), [c(1), c(0), c(0)]);
    let mixed = b.reshape(y, &[64.into(), S]).unwrap();
    assert!(access(b.graph(), mixed).is_err());
}

#[test]
fn slices_add_offsets_of_one_kind() {
    let mut b = builder();
    let x = x(&mut b, &[4.into(), S, 16.into()]);
    let inner = b.slice(x, 2, 8, 8).unwrap();
    let a = access(b.graph(), inner).unwrap();
    assert_eq!((a.offset, a.strides), (c(8), vec![s(16), c(16), c(1)]));
    let outer = b.slice(x, 0, 1, 2).unwrap();
    assert_eq!(access(b.graph(), outer).unwrap().offset, s(16));
    let twice = b.slice(outer, 0, 1, 1).unwrap();
    assert_eq!(access(b.graph(), twice).unwrap().offset, s(32));
    let both = b.slice(inner, 0, 1, 1).unwrap();
    assert!(access(b.graph(), both).unwrap_err().to_string().contains("unlike extents"));
}

#[test]
fn a_concat_of_several_is_no_stride_and_of_one_is_nothing() {
    let mut b = builder();
    let x = x(&mut b, &[S, 4.into()]);
    let one = b.concat(&[x], 1).unwrap();
    assert_eq!(access(b.graph(), one).unwrap().base, x);
    let two = b.concat(&[x, x], 1).unwrap();
    assert!(access(b.graph(), two).unwrap_err().to_string().contains("several buffers"));
}

#[test]
fn index_fetches_the_slot_and_later_views_carry_it_along() {
    let mut b = builder();
    let slots = ids(&mut b, "slots");
    let state = b.state("k", 2, 16).unwrap();
    let v = b.index(state, slots).unwrap();
    let a = access(b.graph(), v).unwrap();
    let slot = |strides: Vec<Extent>| Indirect { index: slots, offset: c(0), strides, stride: c(2 * 32 * 16) };
    assert_eq!(
        a,
        Access {
            base: state,
            offset: c(0),
            strides: vec![c(0), c(512), c(16), c(1)],
            indirects: vec![slot(vec![c(1), c(0), c(0), c(0)])],
        }
    );
    // [S, 2, T, 16] → [S, 2, G = 3, T, 16] → half of d.
    let wide = b.broadcast(v, &[S, 2.into(), 3.into(), Dim::TOKENS, 16.into()], &[0, 1, 3, 4]).unwrap();
    let half = b.slice(wide, 4, 8, 8).unwrap();
    let split = b.reshape(half, &[S, 2.into(), 3.into(), Dim::TOKENS, 2.into(), 4.into()]).unwrap();
    let a = access(b.graph(), split).unwrap();
    assert_eq!((a.base, a.offset), (state, c(8)));
    assert_eq!(a.strides, [c(0), c(512), c(0), c(16), c(4), c(1)]);
    assert_eq!(a.indirects, [slot(vec![c(1), c(0), c(0), c(0), c(0), c(0)])]);
    // The rows cannot merge with anything: they are fetched.
    let merged = b.reshape(v, &[2.into(), S, Dim::TOKENS, 16.into()]).unwrap();
    assert!(access(b.graph(), merged).is_err());
}

#[test]
fn a_write_lands_at_slot_and_position_and_is_a_base() {
    let mut b = builder();
    let (slots, positions) = (ids(&mut b, "slots"), ids(&mut b, "positions"));
    let state = b.state("k", 2, 16).unwrap();
    let rows = x(&mut b, &[S, 2.into(), 16.into()]);
    let new = b.state_write(state, rows, slots, positions).unwrap();
    let a = write_access(b.graph(), b.graph().def(new)).unwrap();
    assert_eq!((a.base, a.offset), (state, c(0)));
    assert_eq!(a.strides, [c(0), c(512), c(1)]);
    let row = vec![c(1), c(0), c(0)];
    assert_eq!(
        a.indirects,
        [
            Indirect { index: slots, offset: c(0), strides: row.clone(), stride: c(1024) },
            Indirect { index: positions, offset: c(0), strides: row, stride: c(16) },
        ]
    );
    let v = b.index(new, slots).unwrap();
    assert_eq!(access(b.graph(), v).unwrap().base, new);
}

#[test]
fn a_gather_is_an_indirection_and_views_go_on_top() {
    let mut b = builder();
    let tokens = b.input("ids", Type::new(DType::I32, [8.into()]), Some(10)).unwrap();
    let some = b.slice(tokens, 0, 2, 4).unwrap();
    let table = b.weight(Recipe::tensor("t"), DType::BF16, &[10, 12]).unwrap();
    let half = b.slice(table, 1, 6, 6).unwrap();
    let g = b.gather(half, some).unwrap();
    assert_eq!(access(b.graph(), g).unwrap().base, g, "a gather is a base");
    let a = gather_access(b.graph(), b.graph().def(g)).unwrap();
    assert_eq!((a.base, a.offset), (table, c(6)));
    assert_eq!(a.strides, [c(0), c(1)]);
    assert_eq!(a.indirects, [Indirect { index: tokens, offset: c(2), strides: vec![c(1), c(0)], stride: c(12) }]);
    let view = b.reshape(g, &[2.into(), 2.into(), 3.into(), 2.into()]).unwrap();
    let a = through(b.graph(), view, a).unwrap();
    assert_eq!(a.strides, [c(0), c(0), c(2), c(1)]);
    assert_eq!(a.indirects[0].strides, [c(2), c(1), c(0), c(0)]);
}

#[test]
fn weights_in_panels_have_no_strides() {
    let mut b = builder();
    let w = b.weight(Recipe::tensor("w"), DType::BF16, &[16, 8]).unwrap();
    let mut g = b.finish();
    let mut ty = g.ty(w).clone();
    ty.layout = llamac_ir::Layout::Panels;
    g.set_ty(w, ty);
    assert!(access(&g, w).unwrap_err().to_string().contains("panels"));
}
