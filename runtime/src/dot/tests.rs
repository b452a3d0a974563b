use super::*;
use crate::Pool;
use crate::strided::Fetch;
use crate::testing::{Buffer, Numbers, assert_close, bits};
use crate::tiers::tests::available;

/// An operand: its data and where its elements lie.
struct Operand {
    data: Vec<f32>,
    strides: [usize; 6],
    /// An index per element of batch axis 0, with what it is worth.
    index: Option<(Vec<i32>, usize)>,
    /// The axis of the index.
    axis: usize,
}

impl Operand {
    fn view(&self, base: *mut f32) -> View<6> {
        let mut view = View::new(base, self.strides);
        if let Some((index, stride)) = &self.index {
            let mut strides = [0; 6];
            strides[self.axis] = 1;
            view.indirects[0] = Some(Fetch { index: index.as_ptr(), strides, stride: *stride });
        }
        view
    }

    /// Dense, with the axes laid out in the given order, outermost first.
    fn dense(sizes: [usize; 6], order: [usize; 6], numbers: &mut Numbers) -> Operand {
        let mut strides = [0; 6];
        let mut stride = 1;
        for axis in order.into_iter().rev() {
            strides[axis] = stride;
            stride *= sizes[axis];
        }
        Operand { data: numbers.reals(stride), strides, index: None, axis: 0 }
    }
}

/// Compares a dot with f64, on every tier and for several numbers of threads; columns of the output are `out_order`.
fn check(batch: [usize; 4], (m, n, k): (usize, usize, usize), lhs: &Operand, rhs: &Operand, out_order: [usize; 6]) {
    let [b0, b1, b2, b3] = batch;
    let sizes = [b0, b1, b2, b3, m, n];
    let out = Operand::dense(sizes, out_order, &mut Numbers::new(0));
    let (mut l, mut r) = (lhs.data.clone(), rhs.data.clone());
    let (l, r) = (lhs.view(l.as_mut_ptr()), rhs.view(r.as_mut_ptr()));
    let mut want = vec![f64::NAN; out.data.len()];
    for i in 0..want.len() {
        let mut at = [0; 6];
        let mut rest = i;
        for axis in (0..6).rev() {
            at[axis] = rest % sizes[axis];
            rest /= sizes[axis];
        }
        let [b0, b1, b2, b3, m, n] = at;
        let to: usize = at.iter().zip(out.strides).map(|(i, s)| i * s).sum();
        // SAFETY: the elements lie in the operands' data.
        let term = |k| unsafe { f64::from(*l.at([b0, b1, b2, b3, m, k])) * f64::from(*r.at([b0, b1, b2, b3, n, k])) };
        want[to] = (0..k).map(term).sum();
    }
    for tier in available() {
        let mut first = None;
        for threads in 1..=3 {
            let (lhs_buffer, rhs_buffer) = (Buffer::of(&lhs.data), Buffer::of(&rhs.data));
            let out_buffer = Buffer::new(out.data.len());
            Pool::new(threads).unwrap().run(&|worker| {
                let (lhs, rhs) = (lhs.view(lhs_buffer.get()), rhs.view(rhs_buffer.get()));
                let args = DotArgs { tier, batch, m, n, k, lhs, rhs, out: View::new(out_buffer.get(), out.strides) };
                // SAFETY: the operands hold all elements.
                unsafe { dot(worker, &args) };
            });
            let got = out_buffer.values();
            assert_close(&got, &want, (k as f64).sqrt(), 3e-6, &format!("{tier} {batch:?} {m} {n} {k}"));
            assert_eq!(*first.get_or_insert(bits(&got)), bits(&got), "{tier} {threads} threads");
        }
    }
}

/// Every order of the last two axes.
const ROWS: [usize; 6] = [0, 1, 2, 3, 4, 5];
const COLUMNS: [usize; 6] = [0, 1, 2, 3, 5, 4];

#[test]
fn every_order_of_axes() {
    let mut numbers = Numbers::new(1);
    for (m, n, k) in [(1, 1, 1), (3, 5, 7), (4, 33, 64), (18, 300, 20), (2, 16, 0)] {
        let batch = [2, 1, 3, 1];
        for l in [ROWS, COLUMNS] {
            for r in [ROWS, COLUMNS] {
                for o in [ROWS, COLUMNS] {
                    let lhs = Operand::dense([2, 1, 3, 1, m, k], l, &mut numbers);
                    let rhs = Operand::dense([2, 1, 3, 1, n, k], r, &mut numbers);
                    check(batch, (m, n, k), &lhs, &rhs, o);
                }
            }
        }
    }
}

#[test]
fn scores_and_values_over_a_cache() {
    // Rows of three slots; a cache [slots, heads, tokens, head_dim] of which 10 of 13 tokens are present.
    let mut numbers = Numbers::new(2);
    let (rows, heads, group, tokens, room, dim) = (4, 2, 3, 10, 13, 24);
    let slots = vec![2i32, 0, 0, 1];
    let batch = [rows, heads, 1, 1];
    let cache = |strides, numbers: &mut Numbers| Operand {
        data: numbers.reals(3 * heads * room * dim),
        strides,
        index: Some((slots.clone(), heads * room * dim)),
        axis: 0,
    };
    // Scores: (row, head, group, t), keys contiguous.
    let q = Operand::dense([rows, heads, 1, 1, group, dim], ROWS, &mut numbers);
    let keys = cache([0, room * dim, 0, 0, dim, 1], &mut numbers);
    check(batch, (group, tokens, dim), &q, &keys, ROWS);
    // Values: contracted over tokens, columns contiguous.
    let p = Operand::dense([rows, heads, 1, 1, group, tokens], ROWS, &mut numbers);
    let values = cache([0, room * dim, 0, 0, 1, dim], &mut numbers);
    check(batch, (group, dim, tokens), &p, &values, ROWS);
}

#[test]
fn an_index_along_any_axis() {
    let mut numbers = Numbers::new(3);
    for axis in [3, 4, 5] {
        // Axis sizes 6, 6 and 6, so that the index has an entry for each; a step of it is worth 50 elements.
        let index = Some((vec![3, 1, 4, 1, 5, 2], 50));
        for strides in [[0, 0, 0, 0, 6, 1], [0, 0, 0, 0, 1, 6]] {
            let indexed = Operand { data: numbers.reals(50 * 6), strides, index: index.clone(), axis };
            let plain = Operand::dense([1, 1, 1, 6, 6, 6], ROWS, &mut numbers);
            check([1, 1, 1, 6], (6, 6, 6), &indexed, &plain, ROWS);
            check([1, 1, 1, 6], (6, 6, 6), &plain, &indexed, ROWS);
        }
    }
}

#[test]
fn a_broadcast_operand() {
    let mut numbers = Numbers::new(4);
    let lhs = Operand { data: numbers.reals(9), strides: [0, 0, 0, 0, 0, 1], index: None, axis: 0 };
    let rhs = Operand::dense([2, 1, 1, 1, 5, 9], ROWS, &mut numbers);
    check([2, 1, 1, 1], (3, 5, 9), &lhs, &rhs, ROWS);
    let rhs = Operand { data: numbers.reals(5), strides: [0, 0, 0, 0, 1, 0], index: None, axis: 0 };
    check([2, 1, 1, 1], (3, 5, 9), &lhs, &rhs, COLUMNS);
}
