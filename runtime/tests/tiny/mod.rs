//! A language model of one layer, written by hand as a program with every kind of work, its kernels as Rust functions,
//! and a plain reference of it.
#![allow(dead_code)]

use llamac_formats::program::*;
use llamac_formats::{Access, Bounds, DType, Extent, Indirect, Over, PanelLayout, Reach, Sym, Touch};
use llamac_runtime::{Code, Executable, Generator, LoadError, Pool, Region, Session, Tier};
use std::sync::Arc;

mod reference;
#[allow(unused_imports)] // not every test program compares
pub use reference::Reference;

pub const VOCAB: usize = 37;
pub const KV: usize = 2;
pub const GROUP: usize = 2;
pub const HEAD: usize = 4;
pub const DIM: usize = KV * GROUP * HEAD;
pub const KV_DIM: usize = KV * HEAD;
pub const QKV: usize = DIM + 2 * KV_DIM;
pub const FFN: usize = 24;
pub const SCALE: f32 = 0.5;

pub const BOUNDS: Bounds = Bounds { rows: 16, outputs: 4, tokens: 64, slots: 3 };

// Inputs.
pub const TOKENS: usize = 0;
pub const POSITIONS: usize = 1;
pub const SLOTS: usize = 2;
pub const OUTPUTS: usize = 3;

// Weights.
pub const EMBED: usize = 0;
pub const WQ: usize = 1;
pub const WK: usize = 2;
pub const WV: usize = 3;
pub const WO: usize = 4;
pub const GATE_UP: usize = 5;
pub const DOWN: usize = 6;
pub const HEAD_W: usize = 7;

unsafe fn buffer<T>(args: *const KernelArgs, i: usize) -> *mut T {
    // SAFETY: the programs of this file give each kernel the operands and scalars that it reads, large enough.
    unsafe { (*(*args).buffers.add(i)).cast() }
}

unsafe fn scalar(args: *const KernelArgs, i: usize) -> usize {
    // SAFETY: the programs of this file give each kernel the operands and scalars that it reads, large enough.
    unsafe { *(*args).scalars.add(i) as usize }
}

/// Buffers qkv, keys, values, positions, slots; scalar: row stride of qkv.
unsafe extern "C" fn write_cache(args: *const KernelArgs, begin: u64, end: u64) {
    // SAFETY: the programs of this file give each kernel the operands and scalars that it reads, large enough.
    unsafe {
        let (qkv, stride) = (buffer::<f32>(args, 0), scalar(args, 0));
        for row in begin as usize..end as usize {
            let position = *buffer::<i32>(args, 3).add(row) as usize;
            let slot = *buffer::<i32>(args, 4).add(row) as usize;
            for (state, from) in [(1, DIM), (2, DIM + KV_DIM)] {
                for h in 0..KV {
                    for d in 0..HEAD {
                        let to = ((slot * KV + h) * BOUNDS.tokens + position) * HEAD + d;
                        *buffer::<f32>(args, state).add(to) = *qkv.add(row * stride + from + h * HEAD + d);
                    }
                }
            }
        }
    }
}

/// Buffers x, outputs, y; scalar: width.
unsafe extern "C" fn add_residual(args: *const KernelArgs, tile: *const Tile) {
    // SAFETY: the programs of this file give each kernel the operands and scalars that it reads, large enough.
    unsafe {
        let (t, width) = (&*tile, scalar(args, 0));
        for r in t.row_begin..t.row_end {
            let row = *buffer::<i32>(args, 1).add(r as usize) as usize;
            for c in t.col_begin..t.col_end {
                let acc = *t.acc.add(((r - t.row_begin) * t.row_stride + (c - t.col_begin)) as usize);
                let x = *buffer::<f32>(args, 0).add(row * width + c as usize);
                *buffer::<f32>(args, 2).add(r as usize * width + c as usize) = acc + x;
            }
        }
    }
}

/// y = exp(y / 8), through the scratch and the runtime's routine. Buffer y; scalar: width.
unsafe extern "C" fn soften(args: *const KernelArgs, begin: u64, end: u64) {
    // SAFETY: the programs of this file give each kernel the operands and scalars that it reads, large enough.
    unsafe {
        let width = scalar(args, 0);
        let scratch = (*args).scratch.cast::<f32>();
        let exp = *(*args).routines.add(Routine::Exp as usize);
        let exp = std::mem::transmute::<usize, unsafe extern "C" fn(*mut f32, *const f32, u64)>(exp);
        for row in begin as usize..end as usize {
            let y = buffer::<f32>(args, 0).add(row * width);
            for c in 0..width {
                *scratch.add(c) = *y.add(c) / 8.0;
            }
            exp(y, scratch, width as u64);
        }
    }
}

/// out = segment 0 × segment 1. Buffer out; scalar: width.
unsafe extern "C" fn multiply(args: *const KernelArgs, tile: *const Tile) {
    // SAFETY: the programs of this file give each kernel the operands and scalars that it reads, large enough.
    unsafe {
        let (t, width) = (&*tile, scalar(args, 0));
        for r in t.row_begin..t.row_end {
            for c in t.col_begin..t.col_end {
                let at = ((r - t.row_begin) * t.row_stride + (c - t.col_begin)) as usize;
                let value = *t.acc.add(at) * *t.acc.add(t.segment_stride as usize + at);
                *buffer::<f32>(args, 0).add(r as usize * width + c as usize) = value;
            }
        }
    }
}

/// Softmax of scores up to each row's position. Buffers scores, positions; scalars: T, lines of a row.
unsafe extern "C" fn softmax(args: *const KernelArgs, begin: u64, end: u64) {
    // SAFETY: the programs of this file give each kernel the operands and scalars that it reads, large enough.
    unsafe {
        let (tokens, lines) = (scalar(args, 0), scalar(args, 1));
        for line in begin as usize..end as usize {
            let seen = *buffer::<i32>(args, 1).add(line / lines) as usize + 1;
            let scores = std::slice::from_raw_parts_mut(buffer::<f32>(args, 0).add(line * tokens), tokens);
            scores[seen..].fill(0.0);
            scores[..seen].iter_mut().for_each(|v| *v = (*v * SCALE).exp());
            let sum: f32 = scores[..seen].iter().sum();
            scores[..seen].iter_mut().for_each(|v| *v /= sum);
        }
    }
}

pub struct Kernels(pub Vec<usize>);

// SAFETY: functions live for ever, and the program calls each by its signature, on operands of the sizes it has.
unsafe impl Code for Kernels {
    fn address(&self, kernel: usize) -> *const u8 {
        self.0[kernel] as *const u8
    }
}

pub fn kernels() -> Kernels {
    Kernels(vec![
        write_cache as *const () as usize,
        add_residual as *const () as usize,
        soften as *const () as usize,
        multiply as *const () as usize,
        softmax as *const () as usize,
    ])
}

/// Numbers between −1 and 1, the same every time.
pub fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

const SHAPES: [(usize, usize, bool); 8] = [
    (VOCAB, DIM, true),
    (DIM, DIM, true),
    (KV_DIM, DIM, true),
    (KV_DIM, DIM, true),
    (DIM, DIM, true),
    // Gate and up in one weight, panel by panel in turn: 24 outputs are two panels each.
    (64, DIM, true),
    (DIM, FFN, true),
    (VOCAB, DIM, false),
];

/// A weight as rows; the padding of the interleaved one is what the packer would put there: zero.
fn weight_rows(weight: usize) -> Vec<f32> {
    let (n, k, _) = SHAPES[weight];
    let mut rows = numbers(weight as u64 + 1, n * k);
    rows.iter_mut().for_each(|v| *v *= 0.3);
    if weight == GATE_UP {
        for row in 0..n {
            let (panel, lane) = (row / 16, row % 16);
            if panel / 2 * 16 + lane >= FFN {
                rows[row * k..(row + 1) * k].fill(0.0);
            }
        }
    }
    rows
}

fn pack(weight: usize, out: &mut [u8]) {
    let (n, k, panels) = SHAPES[weight];
    let rows = weight_rows(weight);
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    if !panels {
        out.copy_from_slice(&bytes(&rows));
        return;
    }
    let layout = PanelLayout { dtype: DType::F32, k };
    for row in 0..n {
        let panel = &mut out[row / 16 * layout.panel_bytes()..][..layout.panel_bytes()];
        layout.pack_row(row % 16, &bytes(&rows[row * k..(row + 1) * k]), panel);
    }
}

fn weights() -> (Vec<WeightInfo>, Region) {
    let mut infos = Vec::new();
    let mut end = 0;
    for (i, (n, k, panels)) in SHAPES.into_iter().enumerate() {
        let layout = PanelLayout { dtype: DType::F32, k };
        let bytes = if panels { layout.matrix_bytes(n) } else { n * k * 4 };
        let recipe = format!("w{i}");
        infos.push(WeightInfo { recipe, dtype: DType::F32, dims: vec![n, k], panels, offset: end, bytes });
        end = (end + bytes).next_multiple_of(64);
    }
    let mut region = Region::new(end, "the weights").unwrap();
    for (i, info) in infos.iter().enumerate() {
        pack(i, &mut region.as_mut_slice()[info.offset..info.offset + info.bytes]);
    }
    (infos, region)
}

pub fn c(n: usize) -> Extent {
    Extent::constant(n as u64)
}

pub fn access(base: Operand, offset: usize, strides: &[usize]) -> Access<Operand> {
    Access { base, offset: c(offset), strides: strides.iter().map(|s| c(*s)).collect(), indirects: Vec::new() }
}

fn segment(weight: usize, first: usize, step: usize, n: usize) -> GemmSegment {
    GemmSegment { weight, first, step, n }
}

fn step(name: &str, kind: &str, barrier: bool, work: Work) -> Step {
    Step { name: name.into(), kind: kind.into(), barrier, work }
}

/// The entry for these bounds; `s` and `r` are its rows and outputs.
fn entry(name: &str, bounds: Bounds, s: Extent, r: Extent) -> Entry {
    let mut end = 0;
    let mut buffers = Vec::new();
    let mut place = |name: &str, rows: usize, width: usize| {
        let offset = end;
        end = (end + rows * width * 4).next_multiple_of(64);
        buffers.push(BufferInfo { name: name.into(), offset, bytes: rows * width * 4, first: 0, last: 8 });
        Operand::Arena(offset)
    };
    let x = place("x", bounds.rows, DIM);
    let qkv = place("qkv", bounds.rows, QKV);
    let att = place("att", bounds.rows, DIM);
    let y = place("y", bounds.outputs, DIM);
    let h = place("h", bounds.outputs, FFN);
    let z = place("z", bounds.outputs, DIM);
    let packed = Some(place("packed", bounds.rows, DIM));
    let packed_ffn = Some(place("packed.ffn", bounds.outputs, FFN));
    let mut last_rows = access(att, 0, &[0, 1]);
    last_rows.indirects.push(Indirect {
        index: Operand::Input(OUTPUTS),
        offset: Extent::ZERO,
        strides: vec![Extent::ONE, Extent::ZERO],
        stride: c(DIM),
    });
    let steps = vec![
        step(
            "embed",
            "gather",
            false,
            Work::Gather(GatherWork { weight: EMBED, ids: Operand::Input(TOKENS), count: s, out: x }),
        ),
        step(
            "layers.0.attn.qkv",
            "gemm",
            true,
            Work::Gemm(GemmWork {
                act: DType::F32,
                a: access(x, 0, &[DIM, 1]),
                m: s,
                k: DIM,
                segments: vec![segment(WQ, 0, 1, DIM), segment(WK, 0, 1, KV_DIM), segment(WV, 0, 1, KV_DIM)],
                epilogue: None,
                out: qkv,
                scratch: packed,
            }),
        ),
        step(
            "layers.0.attn.write",
            "rows",
            true,
            Work::Rows(RowsWork {
                kernel: 0,
                count: s,
                grain: 3,
                operands: vec![
                    qkv,
                    Operand::State(0),
                    Operand::State(1),
                    Operand::Input(POSITIONS),
                    Operand::Input(SLOTS),
                ],
                scalars: vec![c(QKV)],
            }),
        ),
        step(
            "layers.0.attn",
            "attention",
            true,
            Work::Attention(AttentionWork {
                act: llamac_formats::DType::F32,
                q: access(qkv, 0, &[QKV, GROUP * HEAD, HEAD, 1]),
                keys: 0,
                values: 1,
                positions: Operand::Input(POSITIONS),
                slots: Operand::Input(SLOTS),
                out: access(att, 0, &[DIM, GROUP * HEAD, HEAD, 1]),
                kv_heads: KV,
                group: GROUP,
                head_dim: HEAD,
                scale: SCALE,
            }),
        ),
        step(
            "layers.0.attn.o",
            "gemm",
            true,
            Work::Gemm(GemmWork {
                act: DType::F32,
                a: last_rows,
                m: r,
                k: DIM,
                segments: vec![segment(WO, 0, 1, DIM)],
                epilogue: Some(EpilogueWork {
                    paired: false,
                    kernel: 1,
                    operands: vec![x, Operand::Input(OUTPUTS), y],
                    scalars: vec![c(DIM)],
                }),
                out: y,
                scratch: packed,
            }),
        ),
        step(
            "layers.0.soften",
            "rows",
            true,
            Work::Rows(RowsWork { kernel: 2, count: r, grain: 1, operands: vec![y], scalars: vec![c(DIM)] }),
        ),
        step(
            "layers.0.mlp.gate",
            "gemm",
            true,
            Work::Gemm(GemmWork {
                act: DType::F32,
                a: access(y, 0, &[DIM, 1]),
                m: r,
                k: DIM,
                segments: vec![segment(GATE_UP, 0, 2, FFN), segment(GATE_UP, 1, 2, FFN)],
                epilogue: Some(EpilogueWork { paired: true, kernel: 3, operands: vec![h], scalars: vec![c(FFN)] }),
                out: h,
                scratch: packed,
            }),
        ),
        step(
            "layers.0.mlp.down",
            "gemm",
            true,
            Work::Gemm(GemmWork {
                act: DType::F32,
                a: access(h, 0, &[FFN, 1]),
                m: r,
                k: FFN,
                segments: vec![segment(DOWN, 0, 1, DIM)],
                epilogue: None,
                out: z,
                scratch: packed_ffn,
            }),
        ),
        step(
            "head",
            "dot",
            true,
            Work::Dot(DotWork {
                batch: vec![Extent::ONE],
                m: r,
                n: c(VOCAB),
                k: c(DIM),
                lhs: access(z, 0, &[0, DIM, 1]),
                rhs: access(Operand::Weight(HEAD_W), 0, &[0, DIM, 1]),
                out: access(Operand::Output(0), 0, &[0, VOCAB, 1]),
            }),
        ),
    ];
    Entry { name: name.into(), bounds, steps, arena_bytes: end, arena_lower_bound: end, buffers }
}

fn port(name: &str, dtype: DType, dims: Vec<Extent>, limit: Option<usize>) -> PortInfo {
    PortInfo { name: name.into(), dtype, dims, limit }
}

/// Writes down what the kernels touch in each of the program's calls of them.
pub fn reaches(program: &mut Program) {
    let read = |elements: usize| Touch { bytes: elements * 4, stored: false, below: None };
    let stored = |elements: usize| Touch { stored: true, ..read(elements) };
    let index = |elements: usize, below: usize| Touch { below: Some(below), ..read(elements) };
    for entry in &program.entries {
        let b = entry.bounds;
        for step in &entry.steps {
            let (kernel, over, scalars) = match &step.work {
                Work::Rows(w) => (w.kernel, Over::Rows(w.count), &w.scalars),
                Work::Gemm(GemmWork { m, segments, epilogue: Some(e), .. }) => {
                    let (columns, segments) = (segments[0].n, segments.len());
                    (e.kernel, Over::Tiles { rows: *m, columns, segments }, &e.scalars)
                }
                _ => continue,
            };
            let cache = stored(BOUNDS.slots * KV * BOUNDS.tokens * HEAD);
            let positions = index(b.rows, BOUNDS.tokens);
            let operands = match kernel {
                0 => vec![read(b.rows * QKV), cache, cache, positions, index(b.rows, BOUNDS.slots)],
                1 => vec![read(b.rows * DIM), index(b.outputs, b.rows), stored(b.outputs * DIM)],
                2 => vec![stored(b.outputs * DIM)],
                3 => vec![stored(b.outputs * FFN)],
                _ => vec![stored(b.rows * KV * GROUP * BOUNDS.tokens), positions],
            };
            program.kernels[kernel].reaches.push(Reach { bounds: b, over, scalars: scalars.clone(), operands });
        }
    }
}

/// The program and its weights.
pub fn model() -> (Program, Region) {
    let (weights, region) = weights();
    let (s, r) = (Extent::sym(Sym::Rows), Extent::sym(Sym::Outputs));
    let cache = |name: &str| StateInfo {
        name: name.into(),
        dtype: DType::F32,
        dims: vec![BOUNDS.slots, KV, BOUNDS.tokens, HEAD],
    };
    let kernel = |name: &str, scratch| KernelInfo {
        name: name.into(),
        offset: 0,
        bytes: 0,
        scratch,
        reaches: vec![],
        loops: String::new(),
    };
    let mut program = Program {
        name: "tiny".into(),
        bounds: BOUNDS,
        act: "f32".into(),
        kv: "f32".into(),
        fusion: "all".into(),
        vocab: Some(VOCAB),
        weights,
        states: vec![cache("k"), cache("v")],
        inputs: vec![
            port("tokens", DType::I32, vec![s], Some(VOCAB)),
            port("positions", DType::I32, vec![s], Some(BOUNDS.tokens)),
            port("slots", DType::I32, vec![s], Some(BOUNDS.slots)),
            port("outputs", DType::I32, vec![r], Some(BOUNDS.rows)),
        ],
        outputs: vec![port("logits", DType::F32, vec![r, c(VOCAB)], None)],
        kernels: vec![
            kernel("write", 0),
            kernel("residual", 0),
            kernel("soften", DIM * 4),
            kernel("multiply", 0),
            kernel("softmax", 0),
        ],
        entries: vec![
            entry("decode", Bounds { rows: 1, outputs: 1, ..BOUNDS }, Extent::ONE, Extent::ONE),
            entry("rows", BOUNDS, s, r),
        ],
    };
    reaches(&mut program);
    (program, region)
}

/// The same model with attention as two dots and a softmax between, over scores `[S, KV, G, T]`.
pub fn unfused() -> (Program, Region) {
    let (mut program, region) = model();
    for entry in &mut program.entries {
        let decode = entry.name == "decode";
        let s = if decode { Extent::ONE } else { Extent::sym(Sym::Rows) };
        let t = Extent::sym(Sym::Tokens);
        let at = entry.arena_bytes;
        let scores = Operand::Arena(at);
        entry.arena_bytes += entry.bounds.rows * KV * GROUP * BOUNDS.tokens * 4;
        let fused = entry.steps.remove(3);
        let Work::Attention(AttentionWork { q, out, .. }) = fused.work else { panic!("no attention") };
        let dense = access(scores, 0, &[]);
        let lines = |n: usize| t.times(c(n));
        let dense = Access { strides: vec![lines(KV * GROUP), lines(GROUP), t, Extent::ONE], ..dense };
        let cache = |state: usize, strides: &[usize]| {
            let mut access = access(Operand::State(state), 0, strides);
            access.indirects.push(Indirect {
                index: Operand::Input(SLOTS),
                offset: Extent::ZERO,
                strides: vec![Extent::ONE, Extent::ZERO, Extent::ZERO, Extent::ZERO],
                stride: c(KV * BOUNDS.tokens * HEAD),
            });
            access
        };
        let batch = vec![s, c(KV)];
        let dot = |name: &str, work: DotWork| step(name, "dot", true, Work::Dot(work));
        let steps = [
            dot(
                "layers.0.attn.scores",
                DotWork {
                    batch: batch.clone(),
                    m: c(GROUP),
                    n: t,
                    k: c(HEAD),
                    lhs: q,
                    rhs: cache(0, &[0, BOUNDS.tokens * HEAD, HEAD, 1]),
                    out: dense.clone(),
                },
            ),
            step(
                "layers.0.attn.softmax",
                "rows",
                true,
                Work::Rows(RowsWork {
                    kernel: 4,
                    count: s.times(c(KV * GROUP)),
                    grain: 2,
                    operands: vec![scores, Operand::Input(POSITIONS)],
                    scalars: vec![t, c(KV * GROUP)],
                }),
            ),
            dot(
                "layers.0.attn.values",
                DotWork {
                    batch,
                    m: c(GROUP),
                    n: c(HEAD),
                    k: t,
                    lhs: dense,
                    rhs: cache(1, &[0, BOUNDS.tokens * HEAD, 1, HEAD]),
                    out,
                },
            ),
        ];
        entry.steps.splice(3..3, steps);
    }
    program.kernels.iter_mut().for_each(|k| k.reaches.clear());
    reaches(&mut program);
    (program, region)
}

pub fn load(program: Program, weights: Region) -> Result<Executable, LoadError> {
    Executable::new(program, Arc::new(kernels()), Arc::new(weights))
}

pub fn session(threads: usize) -> Session {
    open(model(), threads)
}

pub fn open((program, weights): (Program, Region), threads: usize) -> Session {
    let executable = load(program, weights).unwrap();
    Session::new(Arc::new(executable), Arc::new(Pool::new(threads).unwrap()), Tier::detect()).unwrap()
}

pub fn generator(threads: usize) -> Generator {
    Generator::new(session(threads)).unwrap()
}

pub fn prompt(seed: u64, n: usize) -> Vec<u32> {
    numbers(seed + 100, n).into_iter().map(|v| ((v + 1.0) * 0.5 * VOCAB as f32) as u32 % VOCAB as u32).collect()
}

/// ‖Δ‖ / ‖reference‖ is small.
#[track_caller]
pub fn close(found: &[f32], reference: &[f64]) {
    assert_eq!(found.len(), reference.len());
    let norm = reference.iter().map(|v| v * v).sum::<f64>().sqrt();
    let delta = found.iter().zip(reference).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt();
    assert!(delta <= 2e-6 * norm && norm > 0.0, "relative error {}", delta / norm);
}
