//! Differences, summed up over steps.

use super::Difference;

/// A difference while it is summed up over steps.
pub(super) struct Sum {
    of: Difference,
    difference: f64,
    norm: f64,
}

impl Sum {
    pub(super) fn of<'a>(
        sums: &'a mut Vec<Sum>,
        entry: &str,
        output: &str,
        found: &'static str,
        expected: &'static str,
    ) -> &'a mut Sum {
        let same =
            |s: &Sum| s.of.entry == entry && s.of.output == output && s.of.found == found && s.of.expected == expected;
        let at = sums.iter().position(same).unwrap_or_else(|| {
            let of = Difference {
                entry: entry.into(),
                output: output.into(),
                found,
                expected,
                relative: 0.0,
                largest: 0.0,
                at: String::new(),
                tolerance: 0.0,
                values: 0,
                not_finite: 0,
            };
            sums.push(Sum { of, difference: 0.0, norm: 0.0 });
            sums.len() - 1
        });
        &mut sums[at]
    }

    /// Whether it is of this entry's output.
    pub(super) fn is_of(&self, entry: &str, output: &str) -> bool {
        self.of.entry == entry && self.of.output == output
    }

    pub(super) fn add(&mut self, step: usize, dims: &[usize], found: &[f64], expected: &[f64]) {
        if found.len() != expected.len() {
            self.difference = f64::INFINITY;
            return;
        }
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            // Equal infinities agree; a NaN on one side only does not.
            let d = if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
            let d = if d.is_nan() { f64::INFINITY } else { d };
            self.difference += d * d;
            self.of.values += 1;
            self.of.not_finite += usize::from(!b.is_finite());
            self.norm += if b.is_finite() { b * b } else { 0.0 };
            if d > self.of.largest || self.of.at.is_empty() {
                self.of.largest = d;
                self.of.at = place(step, dims, i);
            }
        }
    }

    pub(super) fn finish(mut self, tolerance: f64) -> Difference {
        self.of.relative = if self.difference == 0.0 { 0.0 } else { (self.difference / self.norm).sqrt() };
        self.of.tolerance = tolerance;
        self.of
    }
}

fn place(step: usize, dims: &[usize], mut flat: usize) -> String {
    let mut index = vec![0; dims.len()];
    for (slot, &n) in index.iter_mut().zip(dims).rev() {
        *slot = flat % n.max(1);
        flat /= n.max(1);
    }
    format!("step {step}, {index:?}")
}
