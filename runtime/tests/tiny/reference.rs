//! The model of the tests, plainly, in f64: what its program is held to.

use super::*;

/// The same model, plainly, in f64.
pub struct Reference {
    weights: Vec<Vec<f64>>,
    /// Keys and values per slot and token.
    cache: Vec<Vec<(Vec<f64>, Vec<f64>)>>,
}

impl Reference {
    pub fn new() -> Reference {
        let wide = |w: usize| weight_rows(w).into_iter().map(f64::from).collect();
        Reference { weights: (0..SHAPES.len()).map(wide).collect(), cache: vec![Vec::new(); BOUNDS.slots] }
    }

    fn row(&self, weight: usize, row: usize) -> &[f64] {
        let k = SHAPES[weight].1;
        &self.weights[weight][row * k..(row + 1) * k]
    }

    fn linear(&self, weight: usize, x: &[f64], rows: impl Iterator<Item = usize>) -> Vec<f64> {
        rows.map(|row| self.row(weight, row).iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    }

    pub fn rewind(&mut self, slot: usize, len: usize) {
        self.cache[slot].truncate(len);
    }

    /// Appends a token; the logits after it.
    pub fn push(&mut self, slot: usize, token: u32) -> Vec<f64> {
        let x = self.row(EMBED, token as usize).to_vec();
        let q = self.linear(WQ, &x, 0..DIM);
        let kv = (self.linear(WK, &x, 0..KV_DIM), self.linear(WV, &x, 0..KV_DIM));
        self.cache[slot].push(kv);
        let mut att = vec![0.0; DIM];
        for head in 0..KV * GROUP {
            let of = |v: &[f64]| v[head / GROUP * HEAD..][..HEAD].to_vec();
            let q = &q[head * HEAD..][..HEAD];
            let score = |k: &[f64]| of(k).iter().zip(q).map(|(k, q)| k * q).sum::<f64>() * f64::from(SCALE);
            let weights: Vec<f64> = self.cache[slot].iter().map(|(k, _)| score(k).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (w, (_, v)) in weights.iter().zip(&self.cache[slot]) {
                for (d, v) in of(v).into_iter().enumerate() {
                    att[head * HEAD + d] += w / sum * v;
                }
            }
        }
        let o = self.linear(WO, &att, 0..DIM);
        let y: Vec<f64> = o.iter().zip(&x).map(|(o, x)| ((o + x) / 8.0).exp()).collect();
        let at = |f: usize, part: usize| (f / 16 * 2 + part) * 16 + f % 16;
        let gate = self.linear(GATE_UP, &y, (0..FFN).map(|f| at(f, 0)));
        let up = self.linear(GATE_UP, &y, (0..FFN).map(|f| at(f, 1)));
        let h: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g * u).collect();
        let z = self.linear(DOWN, &h, 0..DIM);
        self.linear(HEAD_W, &z, 0..VOCAB)
    }

    /// Appends tokens; the logits after the last.
    pub fn extend(&mut self, slot: usize, tokens: &[u32]) -> Vec<f64> {
        tokens.iter().map(|t| self.push(slot, *t)).last().unwrap()
    }
}
