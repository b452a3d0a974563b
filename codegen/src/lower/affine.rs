//! Symbolic indices: sums of loop variables and of what cannot be a sum (quotients, remainders, fetched indices).
//!
//! A view turns the index of its result into indices of its operand; a quotient and a remainder that meet again when the
//! index becomes an offset cancel out, so reshapes cost nothing where the memory allows it.

use llamac_formats::{Bounds, Extent};
use llamac_ir::Value;
use std::collections::HashMap;

/// A loop variable.
pub type Var = u32;

/// An indivisible part of an index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// 1: a dynamic size is its coefficient.
    One,
    /// A loop variable.
    Var(Var),
    /// ⌊x / d⌋.
    Div(Box<Affine>, Extent),
    /// x mod d.
    Rem(Box<Affine>, Extent),
    /// x clamped to `low..=high`.
    Clamp(Box<Affine>, i64, i64),
    /// An `i32` element of a value at an index.
    Fetch(Value, Vec<Affine>),
}

/// `constant + Σ coefficient · atom`. Terms are sorted, coefficients are not zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Affine {
    /// The constant.
    pub constant: i64,
    /// Atoms with their coefficients.
    pub terms: Vec<(Atom, Extent)>,
}

/// What is known about variables.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// Each variable is in `0..extent`.
    pub extents: HashMap<Var, Extent>,
    /// The largest dynamic dimensions.
    pub bounds: Bounds,
}

/// `a / b`, if it is a monomial again.
fn divide(a: Extent, b: Extent) -> Option<Extent> {
    if b.factor == 0 || !a.factor.is_multiple_of(b.factor) {
        return None;
    }
    let mut powers = [0; 3];
    for (i, p) in powers.iter_mut().enumerate() {
        *p = a.powers[i].checked_sub(b.powers[i])?;
    }
    Some(Extent { factor: a.factor / b.factor, powers })
}

impl Affine {
    /// A constant.
    pub fn constant(value: i64) -> Affine {
        Affine { constant: value, terms: vec![] }
    }

    /// A variable.
    pub fn var(var: Var) -> Affine {
        Affine::atom(Atom::Var(var))
    }

    /// An atom.
    pub fn atom(atom: Atom) -> Affine {
        Affine { constant: 0, terms: vec![(atom, Extent::ONE)] }
    }

    /// The sum of two.
    pub fn plus(&self, other: &Affine) -> Affine {
        let mut sum = self.clone();
        sum.constant += other.constant;
        for (atom, c) in &other.terms {
            sum.add_term(atom.clone(), *c);
        }
        sum
    }

    /// A constant more.
    pub fn offset(&self, by: i64) -> Affine {
        let mut sum = self.clone();
        sum.constant += by;
        sum
    }

    fn add_term(&mut self, atom: Atom, c: Extent) {
        if c.factor == 0 {
            return;
        }
        match self.terms.iter_mut().find(|(a, e)| *a == atom && e.powers == c.powers) {
            Some((_, e)) => e.factor = e.factor.saturating_add(c.factor),
            None => {
                self.terms.push((atom, c));
                self.terms.sort();
            }
        }
    }

    /// The product with a size.
    fn times(&self, by: Extent) -> Affine {
        let mut product = Affine::default();
        match (by.as_constant().and_then(|by| i64::try_from(by).ok()), u64::try_from(self.constant)) {
            (Some(by), _) => product.constant = self.constant.saturating_mul(by),
            (None, Ok(c)) => product.add_term(Atom::One, by.times(Extent::constant(c))),
            // A negative constant cannot be a coefficient.
            (None, Err(_)) => {
                let constant = Affine::constant(self.constant);
                product.add_term(Atom::Clamp(Box::new(constant), i64::MIN, i64::MAX), by);
            }
        }
        for (atom, c) in &self.terms {
            product.add_term(atom.clone(), c.times(by));
        }
        product
    }

    /// `Σ index · stride`, with quotients and remainders joined again where they meet.
    pub fn linear(indices: &[Affine], strides: &[Extent]) -> Affine {
        let mut sum = Affine::default();
        for (index, &stride) in indices.iter().zip(strides) {
            sum = sum.plus(&index.times(stride));
        }
        sum.rejoined()
    }

    /// `c·d·⌊x/d⌋ + c·(x mod d)` is `c·x`.
    fn rejoined(mut self) -> Affine {
        loop {
            let found = self.terms.iter().enumerate().find_map(|(i, (atom, c))| {
                let Atom::Rem(x, d) = atom else { return None };
                let partner = Atom::Div(x.clone(), *d);
                let j = self.terms.iter().position(|(a, e)| *a == partner && *e == c.times(*d))?;
                let whole = x.times(*c);
                Some((i, j, whole))
            });
            let Some((i, j, whole)) = found else { return self };
            self.terms.swap_remove(i.max(j));
            self.terms.swap_remove(i.min(j));
            self.terms.sort();
            self = self.plus(&whole);
        }
    }

    /// The index with a variable replaced.
    pub fn substitute(&self, var: Var, by: &Affine, ranges: &Ranges) -> Affine {
        if !self.uses(var) {
            return self.clone();
        }
        let mut sum = Affine::constant(self.constant);
        for (atom, c) in &self.terms {
            let new = match atom {
                Atom::Var(v) if *v == var => by.clone(),
                Atom::Var(_) | Atom::One => Affine::atom(atom.clone()),
                Atom::Div(x, d) => x.substitute(var, by, ranges).div_rem(*d, ranges).0,
                Atom::Rem(x, d) => x.substitute(var, by, ranges).div_rem(*d, ranges).1,
                Atom::Clamp(x, lo, hi) => x.substitute(var, by, ranges).clamped(*lo, *hi, ranges),
                Atom::Fetch(v, index) => {
                    Affine::atom(Atom::Fetch(*v, index.iter().map(|i| i.substitute(var, by, ranges)).collect()))
                }
            };
            sum = sum.plus(&new.times(*c));
        }
        sum
    }

    /// Whether a variable occurs.
    pub fn uses(&self, var: Var) -> bool {
        let mut found = false;
        self.each_var(&mut |v| found |= v == var);
        found
    }

    /// Calls `f` with each variable that occurs.
    pub fn each_var(&self, f: &mut dyn FnMut(Var)) {
        for (atom, _) in &self.terms {
            match atom {
                Atom::One => {}
                Atom::Var(v) => f(*v),
                Atom::Div(x, _) | Atom::Rem(x, _) | Atom::Clamp(x, ..) => x.each_var(f),
                Atom::Fetch(_, index) => index.iter().for_each(|i| i.each_var(f)),
            }
        }
    }

    /// The constant, if it is one.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// If the index is a variable plus a constant, both.
    pub fn as_shifted_var(&self) -> Option<(Var, i64)> {
        match self.terms.as_slice() {
            [(Atom::Var(v), c)] if *c == Extent::ONE => Some((*v, self.constant)),
            _ => None,
        }
    }

    /// `coefficient` and the rest, if the variable occurs only as a term of its own.
    pub fn split_var(&self, var: Var) -> Option<(Extent, Affine)> {
        let mut rest = Affine::constant(self.constant);
        let mut coefficient = Extent::ZERO;
        for (atom, c) in &self.terms {
            if *atom == Atom::Var(var) {
                if coefficient.factor != 0 {
                    return None;
                }
                coefficient = *c;
            } else {
                rest.add_term(atom.clone(), *c);
            }
        }
        (!rest.uses(var)).then_some((coefficient, rest))
    }

    /// Smallest and largest value, where they are known.
    pub fn range(&self, ranges: &Ranges) -> Option<(i64, i64)> {
        let (mut low, mut high) = (self.constant, self.constant);
        for (atom, c) in &self.terms {
            let (l, h) = match atom {
                Atom::One => (1, 1),
                Atom::Var(v) => (0, as_i64(ranges.extents.get(v)?.value(&ranges.bounds.sizes()))? - 1),
                Atom::Div(x, d) => {
                    let (l, h) = x.range(ranges)?;
                    let d = i64::try_from(d.as_constant()?).ok()?;
                    (l.div_euclid(d), h.div_euclid(d))
                }
                Atom::Rem(_, d) => (0, as_i64(d.value(&ranges.bounds.sizes()))? - 1),
                Atom::Clamp(_, lo, hi) => (*lo, *hi),
                Atom::Fetch(..) => return None,
            };
            let c = as_i64(c.value(&ranges.bounds.sizes()))?;
            low = low.checked_add(l.checked_mul(c)?)?;
            high = high.checked_add(h.checked_mul(c)?)?;
        }
        Some((low, high))
    }

    /// Whether the index is surely in `0..size`.
    fn below(&self, size: Extent, ranges: &Ranges) -> bool {
        if let (Some((low, high)), Some(size)) = (self.range(ranges), size.as_constant())
            && low >= 0
            && (high as i128) < i128::from(size)
        {
            return true;
        }
        // Mixed radix: v0 + e0·v1 + e0·e1·v2 … is below e0·e1·e2.
        if self.constant != 0 {
            return false;
        }
        let mut covered = Extent::ONE;
        let mut left: Vec<&(Atom, Extent)> = self.terms.iter().collect();
        while let Some(at) = left.iter().position(|(_, c)| *c == covered) {
            let (atom, _) = left.swap_remove(at);
            let extent = match atom {
                Atom::Var(v) => match ranges.extents.get(v) {
                    Some(e) => *e,
                    None => return false,
                },
                Atom::Rem(_, d) => *d,
                _ => return false,
            };
            covered = covered.times(extent);
        }
        left.is_empty() && divide(size, covered).is_some_and(|q| q.factor > 0)
    }

    /// Quotient and remainder by a size, of an index that is not negative.
    pub fn div_rem(&self, d: Extent, ranges: &Ranges) -> (Affine, Affine) {
        if d == Extent::ONE {
            return (self.clone(), Affine::default());
        }
        let mut whole = Affine::default();
        let mut rest = Affine::default();
        match d.as_constant().and_then(|d| i64::try_from(d).ok()).filter(|d| *d > 0) {
            Some(d) => {
                whole.constant = self.constant.div_euclid(d);
                rest.constant = self.constant.rem_euclid(d);
            }
            None => rest.constant = self.constant,
        }
        for (atom, c) in &self.terms {
            match divide(*c, d) {
                Some(q) => whole.add_term(atom.clone(), q),
                None => rest.add_term(atom.clone(), *c),
            }
        }
        if rest.below(d, ranges) {
            return (whole, rest);
        }
        let quotient = Affine::atom(Atom::Div(Box::new(rest.clone()), d));
        (whole.plus(&quotient), Affine::atom(Atom::Rem(Box::new(rest), d)))
    }

    /// The index clamped, if it is not surely within.
    pub fn clamped(&self, low: i64, high: i64, ranges: &Ranges) -> Affine {
        match self.range(ranges) {
            Some((l, h)) if l >= low && h <= high => self.clone(),
            _ => match self.as_constant() {
                Some(c) => Affine::constant(c.clamp(low, high)),
                None => Affine::atom(Atom::Clamp(Box::new(self.clone()), low, high)),
            },
        }
    }
}

fn as_i64(v: usize) -> Option<i64> {
    i64::try_from(v).ok()
}

/// Indices of the operand of a `reshape`, from indices of its result: axes are matched in the smallest groups of equal
/// size, so that an index only mixes with those it must.
/// `None` where a constant index meets a dynamic stride.
pub fn reshape(from: &[Extent], to: &[Extent], index: &[Affine], ranges: &Ranges) -> Vec<Affine> {
    let mut out = Vec::with_capacity(from.len());
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        // Axes of 1 pair up or stand alone: their index is 0, but its variable may be one that other sizes share.
        match (from.get(i), to.get(j)) {
            (Some(&Extent::ONE), Some(&Extent::ONE)) => {
                out.push(index[j].clone());
                (i, j) = (i + 1, j + 1);
                continue;
            }
            (Some(&Extent::ONE), _) => {
                out.push(Affine::default());
                i += 1;
                continue;
            }
            (_, Some(&Extent::ONE)) => {
                j += 1;
                continue;
            }
            _ => {}
        }
        let (i0, j0) = (i, j);
        let (mut a, mut b) = (Extent::ONE, Extent::ONE);
        if i < from.len() {
            a = from[i];
            i += 1;
        }
        if j < to.len() {
            b = to[j];
            j += 1;
        }
        while a != b {
            // Grow the side that the other one does not divide yet; a side that is a factor of the other must grow.
            let grow_a = (divide(b, a).is_some() || j == to.len()) && i < from.len();
            if grow_a {
                a = a.times(from[i]);
                i += 1;
            } else if j < to.len() {
                b = b.times(to[j]);
                j += 1;
            } else {
                break;
            }
        }
        let strides = |dims: &[Extent]| {
            let mut s = vec![Extent::ONE; dims.len()];
            for k in (0..dims.len().saturating_sub(1)).rev() {
                s[k] = s[k + 1].times(dims[k + 1]);
            }
            s
        };
        let mut rest = Affine::linear(&index[j0..j], &strides(&to[j0..j]));
        for (k, stride) in strides(&from[i0..i]).into_iter().enumerate() {
            if k + i0 + 1 == i {
                out.push(rest.clone());
            } else {
                let (q, r) = rest.div_rem(stride, ranges);
                out.push(q);
                rest = r;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(extents: &[u64]) -> Ranges {
        let bounds = Bounds { rows: 8, outputs: 1, tokens: 32, slots: 1 };
        let extents = extents.iter().enumerate().map(|(i, e)| (i as Var, Extent::constant(*e))).collect();
        Ranges { extents, bounds }
    }

    fn c(v: u64) -> Extent {
        Extent::constant(v)
    }

    #[test]
    fn splitting_an_axis_is_affine() {
        let r = ranges(&[3, 4]);
        let index = [Affine::var(0), Affine::var(1)];
        let got = reshape(&[c(12)], &[c(3), c(4)], &index, &r);
        assert_eq!(got, [Affine { constant: 0, terms: vec![(Atom::Var(0), c(4)), (Atom::Var(1), c(1))] }]);
    }

    #[test]
    fn merging_axes_rejoins_in_the_offset() {
        let r = ranges(&[12]);
        let got = reshape(&[c(3), c(4)], &[c(12)], &[Affine::var(0)], &r);
        assert!(matches!(got[0].terms[0].0, Atom::Div(..)));
        assert_eq!(Affine::linear(&got, &[c(4), c(1)]), Affine::var(0));
    }

    #[test]
    fn merging_undoes_splitting() {
        let r = ranges(&[3, 4]);
        let merged = reshape(&[c(12)], &[c(3), c(4)], &[Affine::var(0), Affine::var(1)], &r);
        let back = reshape(&[c(3), c(4)], &[c(12)], &merged, &r);
        assert_eq!(back, [Affine::var(0), Affine::var(1)]);
    }

    #[test]
    fn unit_axes_do_not_mix() {
        let r = ranges(&[6, 5]);
        let got =
            reshape(&[c(1), c(30)], &[c(6), c(1), c(5)], &[Affine::var(0), Affine::default(), Affine::var(1)], &r);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0], Affine::default());
        assert_eq!(got[1], Affine { constant: 0, terms: vec![(Atom::Var(0), c(5)), (Atom::Var(1), c(1))] });
    }
}
