//! How much a step of a program moves and computes: bytes and operations, by the program alone.

use llamac_formats::Sizes;
use llamac_formats::program::{Entry, GemmWork, Operand, Program, Routine, RowsWork, Step, Work};
use std::collections::HashMap;

/// What a step moves and computes. Bytes count each operand once: what caches give a second time is not moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes of weights and states: they come round once in a run of the entry.
    pub lasting: u64,
    /// Bytes of activations, inputs and outputs, read and written.
    pub passing: u64,
    /// Arithmetic operations on real numbers: a multiply-add is two, `exp` one.
    pub operations: u64,
}

impl Amount {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.lasting.saturating_add(self.passing)
    }

    /// Adds another.
    pub fn add(&mut self, other: Amount) {
        self.lasting = self.lasting.saturating_add(other.lasting);
        self.passing = self.passing.saturating_add(other.passing);
        self.operations = self.operations.saturating_add(other.operations);
    }
}

/// Bytes of an element between two steps.
const ELEMENT: u64 = 4;

/// Weights, states and generated constants that a run of the entry reads and writes.
pub fn lasting(program: &Program, entry: &Entry, sizes: &Sizes) -> u64 {
    entry.steps.iter().map(|s| of(program, s, sizes).lasting).fold(0, u64::saturating_add)
}

/// What a step does where all rows are of one slot and the last ones of its tokens.
pub fn of(program: &Program, step: &Step, sizes: &Sizes) -> Amount {
    match &step.work {
        Work::Gemm(g) => gemm(program, g, sizes),
        Work::Dot(d) => {
            let batch = d.batch.iter().map(|e| e.value(sizes) as u64).product::<u64>();
            let (m, n, k) = (d.m.value(sizes) as u64, d.n.value(sizes) as u64, d.k.value(sizes) as u64);
            let passing = batch.saturating_mul(m * k + n * k + m * n).saturating_mul(ELEMENT);
            Amount { lasting: 0, passing, operations: batch.saturating_mul(2 * m * n * k) }
        }
        Work::Attention(a) => {
            let (rows, tokens) = (sizes.rows as u64, sizes.tokens as u64);
            let (heads, width) = ((a.kv_heads * a.group) as u64, a.head_dim as u64);
            // Each row sees the tokens up to its own.
            let seen = (rows * tokens).saturating_sub(rows * rows.saturating_sub(1) / 2);
            let token = |state: usize| (a.kv_heads * a.head_dim * program.states[state].dtype.bytes()) as u64;
            Amount {
                lasting: tokens * (token(a.keys) + token(a.values)),
                passing: 2 * rows * heads * width * ELEMENT,
                operations: 4 * seen * heads * width,
            }
        }
        Work::Gather(g) => {
            let (weight, count) = (&program.weights[g.weight], g.count.value(sizes) as u64);
            let row = weight.bytes as u64 / weight.dims.first().map_or(1, |&d| d.max(1) as u64);
            let width = weight.dims.get(1).map_or(0, |&d| d as u64);
            Amount { lasting: count * row, passing: count * (width + 1) * ELEMENT, operations: 0 }
        }
        Work::Rows(r) => rows(program, r, sizes),
    }
}

fn gemm(program: &Program, work: &GemmWork, sizes: &Sizes) -> Amount {
    let (m, k) = (work.m.value(sizes) as u64, work.k as u64);
    if m == 0 {
        return Amount::default();
    }
    let panels = |n: usize| n.div_ceil(llamac_formats::PANEL_WIDTH).max(1) as u64;
    let part = |s: &llamac_formats::program::GemmSegment| {
        let weight = &program.weights[s.weight];
        let all = weight.dims.first().map_or(1, |&n| panels(n));
        (weight.bytes as u64).saturating_mul(panels(s.n)) / all
    };
    let n: u64 = work.segments.iter().map(|s| s.n as u64).sum();
    // What comes out, and what an epilogue reads and writes for each element of its tiles.
    let elements = match &work.epilogue {
        None => n,
        Some(e) => {
            let columns = if e.paired { work.segments.first().map_or(0, |s| s.n as u64) } else { n };
            let each = e.operands.iter().filter(|o| matches!(o, Operand::Arena(_) | Operand::Output(_))).count();
            columns * each as u64
        }
    };
    Amount {
        lasting: work.segments.iter().map(part).sum(),
        passing: m.saturating_mul(k + elements).saturating_mul(ELEMENT),
        operations: m.saturating_mul(2 * n * k),
    }
}

fn rows(program: &Program, work: &RowsWork, sizes: &Sizes) -> Amount {
    let count = work.count.value(sizes) as u64;
    let row = program.kernels.get(work.kernel).map(|k| Row::of(&k.loops, sizes)).unwrap_or_default();
    let mut amount = Amount { operations: count.saturating_mul(row.operations), ..Amount::default() };
    for (buffer, bytes) in row.buffers() {
        let bytes = bytes.saturating_mul(count);
        match work.operands.get(buffer) {
            // A table or a norm's weight, of which every row reads the same.
            Some(&Operand::Weight(w)) => amount.lasting += bytes.min(program.weights[w].bytes as u64),
            Some(Operand::State(_)) => amount.lasting += bytes,
            _ => amount.passing += bytes,
        }
    }
    amount
}

/// What a compiled kernel does for one row, read off its loops.
#[derive(Default)]
struct Row {
    operations: u64,
    /// Bytes loaded, by buffer and sweep.
    loaded: HashMap<(usize, usize), u64>,
    stored: HashMap<usize, u64>,
}

impl Row {
    /// Counts the text form of the loops: a statement a line, `for … {` and `}` around a sweep.
    fn of(text: &str, sizes: &Sizes) -> Row {
        let mut row = Row::default();
        let mut lasts: HashMap<&str, u64> = HashMap::new();
        let mut lanes: HashMap<&str, u64> = HashMap::new();
        let (mut times, mut sweep) = (vec![], 0);
        let mut body = text.lines().map(str::trim).skip_while(|l| !l.starts_with("kernel "));
        body.next();
        for line in body {
            if line == "}" {
                times.pop();
                continue;
            }
            let often: u64 = times.iter().copied().fold(1, u64::saturating_mul);
            if line.ends_with('{') {
                if times.is_empty() {
                    sweep += 1;
                }
                times.push(trips(line, sizes, &mut lasts).unwrap_or(1));
                continue;
            }
            if let Some(rest) = line.strip_prefix("store ") {
                let Some((dtype, rest)) = rest.split_once(' ') else { continue };
                let value = rest.rsplit(' ').next().unwrap_or("");
                if let Some(buffer) = buffer(rest) {
                    let bytes = often * lanes.get(value).copied().unwrap_or(1) * bytes_of(dtype);
                    *row.stored.entry(buffer).or_default() += bytes;
                }
                continue;
            }
            if let Some((routine, rest, count)) = stretch(line) {
                row.operations += often * count * operations_of(routine);
                // What is written comes first, what is read after it.
                for (at, place) in rest.split("], ").enumerate() {
                    let Some(buffer) = buffer(place) else { continue };
                    if at == 0 {
                        let bytes = routine.signature().1.storage(count as usize).unwrap_or(usize::MAX) as u64;
                        *row.stored.entry(buffer).or_default() += often * bytes;
                    } else {
                        *row.loaded.entry((buffer, sweep)).or_default() += often * count * ELEMENT;
                    }
                }
                continue;
            }
            let Some((name, ty, what)) = line.split_once(" = ").and_then(|(l, what)| {
                let (name, ty) = l.split_once(": ")?;
                Some((name, ty, what))
            }) else {
                continue;
            };
            let wide = ty.split_once('x').and_then(|(_, n)| n.parse().ok()).unwrap_or(1u64);
            lanes.insert(name, wide);
            let (op, rest) = what.split_once(' ').unwrap_or((what, ""));
            match op {
                "load" => {
                    if let Some((dtype, rest)) = rest.split_once(' ')
                        && let Some(buffer) = buffer(rest)
                    {
                        *row.loaded.entry((buffer, sweep)).or_default() += often * wide * bytes_of(dtype);
                    }
                }
                "fold" => row.operations += often * 3,
                "splat" | "pack" | "select" | "cmp" | "index" | "convert" => {}
                // The rest is arithmetic, but for constants, which are numbers.
                _ if ty.starts_with("f32") && op.starts_with(|c: char| c.is_ascii_lowercase()) && !rest.is_empty() => {
                    row.operations += often * wide;
                }
                _ => {}
            }
        }
        row
    }

    /// Bytes of a row by buffer: stored, and loaded in the widest of the sweeps, after which they are near.
    fn buffers(&self) -> Vec<(usize, u64)> {
        let mut loaded: HashMap<usize, u64> = HashMap::new();
        for (&(buffer, _), &bytes) in &self.loaded {
            let most = loaded.entry(buffer).or_default();
            *most = bytes.max(*most);
        }
        loaded.into_iter().chain(self.stored.iter().map(|(&b, &n)| (b, n))).collect()
    }
}

/// `quantize_q8 b0[…], b1[…] for 64` → the routine, the lines and how many elements they have.
fn stretch(line: &str) -> Option<(Routine, &str, u64)> {
    let (name, rest) = line.split_once(' ')?;
    let routine = Routine::ALL.into_iter().find(|r| r.name() == name)?;
    let (lines, count) = rest.rsplit_once(" for ")?;
    Some((routine, lines, count.parse().ok()?))
}

/// Arithmetic for an element: of real numbers, as in compiled loops, which count no conversions.
fn operations_of(routine: Routine) -> u64 {
    match routine {
        Routine::Exp => 1,
        Routine::SiluMul | Routine::SiluMulBf16 => 5,
        Routine::QuantizeQ8 | Routine::RoundBf16 => 0,
    }
}

/// `b3[…]` → 3.
fn buffer(text: &str) -> Option<usize> {
    text.strip_prefix('b')?.split_once('[')?.0.parse().ok()
}

fn bytes_of(dtype: &str) -> u64 {
    llamac_formats::DType::from_name(dtype).map_or(ELEMENT, |d| d.bytes() as u64)
}

/// How often `… for i3 in A..B step N until i9 … {` goes round; notes where it ends.
fn trips<'a>(line: &'a str, sizes: &Sizes, lasts: &mut HashMap<&'a str, u64>) -> Option<u64> {
    let (_, rest) = line.split_once(" in ")?;
    let (range, rest) = rest.split_once(' ')?;
    let (mut range, mut rest) = (range.to_owned(), rest);
    // Bounds may be sums.
    while let Some(more) = rest.strip_prefix("+ ") {
        let (term, after) = more.split_once(' ')?;
        range.push('+');
        range.push_str(term);
        rest = after;
    }
    let words: Vec<&str> = rest.split(' ').collect();
    let after = |key: &str| words.iter().position(|w| *w == key).and_then(|i| words.get(i + 1).copied());
    let step = after("step").and_then(|s| s.parse().ok()).unwrap_or(1u64).max(1);
    let value = |text: &str| -> u64 {
        let factor = |f: &str| match f {
            "S" => sizes.rows as u64,
            "R" => sizes.outputs as u64,
            "T" => sizes.tokens as u64,
            other => other.parse().ok().or_else(|| lasts.get(other).copied()).unwrap_or(0),
        };
        text.split('+').map(|term| term.trim().split('*').map(factor).product::<u64>()).sum()
    };
    let (begin, end) = range.split_once("..")?;
    let (begin, end) = (value(begin), value(end));
    let long = end.saturating_sub(begin);
    match after("until") {
        Some(last) => {
            lasts.insert(last, begin + long / step * step);
            Some(long / step)
        }
        None => Some(long.div_ceil(step)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { rows: 3, outputs: 1, tokens: 10 };

    #[test]
    fn a_kernel_is_counted() {
        let text = "kernel (b0: f32, b1: f32, b2: f32 out) for row i0 {
  v1: f32 = 0.0
  v2: f32x4 = splat v1
  v8 = for i3 in 0..T step 4 until i24 carry v4 = v2 then v7 {
    v5: f32x4 = load f32 b0[256*i0 + i3]
    v6: f32x4 = mul v5, v5
    v7: f32x4 = add v6, v4
  }
  v28: f32 = fold sum v8
  for i29 in i24..T until i40 {
    v30: f32 = load f32 b0[256*i0 + i29]
    v38: f32 = load f32 b1[i29]
    v39: f32 = mul v30, v38
    store f32 b2[256*i0 + i29], v39
  }
}";
        let row = Row::of(text, &SIZES);
        assert_eq!(row.operations, 2 * 4 * 2 + 3 + 2);
        let mut buffers = row.buffers();
        buffers.sort_unstable();
        assert_eq!(buffers, [(0, 32), (1, 8), (2, 8)]);
    }

    #[test]
    fn blocks_are_counted() {
        let text = "kernel (b0: q8 out, b1: f32) scratch 256 for row i0 {
  quantize_q8 b0[1024*i0..], b1[1024*i0..] for 1024
  quantize_q8 b0[64*i0..], scratch+0[0..] for 64
}";
        let mut buffers = Row::of(text, &SIZES).buffers();
        buffers.sort_unstable();
        assert_eq!(buffers, [(0, 34 * 40), (1, 4096)]);
    }
}
