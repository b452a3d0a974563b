//! A plain executor of programs for tests: one thread, naive GEMM, dot, gather and attention; row kernels and epilogues run
//! as compiled, in small pieces and in an unhelpful order.
#![allow(dead_code)]

pub mod graphs;
pub mod random;
pub mod source;

use llamac_codegen::{Compiled, JitCode, Options, compile, pack};
use llamac_formats::program::{
    AttentionWork, DotWork, Entry, GatherWork, GemmWork, KernelArgs, Operand, Routine, RowsWork, Tile, Work,
};
use llamac_formats::{Access, DType, Extent, PANEL_WIDTH, PanelLayout, Sizes, q8};
use llamac_ir::{Graph, TensorSource};
use llamac_passes::{Activations, FusionSet, Options as PassOptions, layout, pipeline, plan};
use std::ops::ControlFlow;

/// The routine `QuantizeQ8`, as slowly as it gets.
extern "C" fn quantize_q8(out: *mut u8, input: *const f32, n: u64) {
    assert!(n.is_multiple_of(q8::ELEMENTS as u64) && out.addr().is_multiple_of(4));
    for b in 0..n as usize / q8::ELEMENTS {
        // SAFETY: kernels pass `n` elements and as many whole blocks.
        unsafe { q8::encode(&*input.cast::<[f32; q8::ELEMENTS]>().add(b), &mut *out.cast::<[u8; q8::BYTES]>().add(b)) };
    }
}

/// The routine `SiluMul`, likewise.
extern "C" fn silu_mul(out: *mut f32, gate: *const f32, up: *const f32, n: u64) {
    for i in 0..n as usize {
        // SAFETY: kernels pass `n` elements at each address.
        unsafe {
            let (gate, up) = (f64::from(*gate.add(i)), f64::from(*up.add(i)));
            *out.add(i) = (gate / (1.0 + (-gate).exp()) * up) as f32;
        }
    }
}

/// The routine `RoundBf16`, likewise.
extern "C" fn round_bf16(out: *mut u16, input: *const f32, n: u64) {
    for i in 0..n as usize {
        // SAFETY: kernels pass `n` elements at each address.
        unsafe { *out.add(i) = half::bf16::from_f32(*input.add(i)).to_bits() };
    }
}

/// The routine `SiluMulBf16`, likewise.
extern "C" fn silu_mul_bf16(out: *mut u16, gate: *const f32, up: *const f32, n: u64) {
    let mut line = vec![0.0; n as usize];
    silu_mul(line.as_mut_ptr(), gate, up, n);
    round_bf16(out, line.as_ptr(), n);
}

/// Bytes aligned to 64, poisoned with a NaN pattern.
pub struct Memory {
    words: Vec<u64>,
    skip: usize,
    len: usize,
}

impl Memory {
    pub fn new(len: usize, fill: u8) -> Memory {
        let mut words = vec![u64::from_ne_bytes([fill; 8]); len / 8 + 17];
        let skip = words.as_mut_ptr().cast::<u8>().align_offset(64);
        Memory { words, skip, len }
    }

    pub fn pointer(&mut self) -> *mut u8 {
        // SAFETY: the words hold 136 bytes more than `len`, and `skip` is below 64.
        unsafe { self.words.as_mut_ptr().cast::<u8>().add(self.skip) }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        let (pointer, len) = (self.pointer(), self.len);
        // SAFETY: `len` bytes from `pointer` lie within the words.
        unsafe { std::slice::from_raw_parts_mut(pointer, len) }
    }
}

/// A compiled program with its memory.
pub struct Machine {
    pub compiled: Compiled,
    code: JitCode,
    weights: Memory,
    states: Vec<Memory>,
    scratch: Memory,
}

/// The memory of one step.
struct Step<'a> {
    machine: &'a mut Machine,
    sizes: Sizes,
    arena: Memory,
    inputs: Vec<Memory>,
    outputs: Vec<Memory>,
}

/// Runs the pipeline on a graph and compiles its plan; activations stay what the graph has, so that only f32 rounding separates the two.
pub fn build(graph: &Graph, fusion: FusionSet, options: &Options) -> Compiled {
    let mut graph = graph.clone();
    let mut passes = PassOptions::fusing(fusion);
    passes.act = Activations::F32;
    pipeline::run(&mut graph, &passes, &mut |_, _, _| ControlFlow::Continue(())).expect("the passes accept the graph");
    build_fused(graph, options)
}

/// Compiles a graph whose fusions are as they are.
pub fn build_fused(mut graph: Graph, options: &Options) -> Compiled {
    layout::run(&mut graph).expect("the graph has a layout");
    let plan = plan::plan(&graph).expect("the graph has a plan");
    compile(&graph, &plan, options).unwrap_or_else(|e| panic!("{e}\n{}", llamac_ir::print(&graph)))
}

impl Machine {
    pub fn new(compiled: Compiled, source: &dyn TensorSource) -> Machine {
        let code = compiled.jit().unwrap();
        let mut weights = Memory::new(compiled.weights.total_bytes(), 0xff);
        pack::pack(&compiled.weights, source, weights.bytes(), 2, &mut |_, _| {}).unwrap();
        let bytes = |dims: &[usize], dtype: DType| dims.iter().product::<usize>() * dtype.bytes();
        let states = compiled.program.states.iter().map(|s| Memory::new(bytes(&s.dims, s.dtype), 0)).collect();
        let scratch = compiled.program.kernels.iter().map(|k| k.scratch).max().unwrap_or(0);
        Machine { compiled, code, weights, states, scratch: Memory::new(scratch, 0xff) }
    }

    /// Runs one step; inputs by name. Returns the outputs' bytes in order.
    pub fn step(&mut self, sizes: Sizes, inputs: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
        let program = self.compiled.program.clone();
        let fits = |e: &&Entry| {
            sizes.rows <= e.bounds.rows && sizes.outputs <= e.bounds.outputs && sizes.tokens <= e.bounds.tokens
        };
        let entry = program.entries.iter().find(fits).expect("an entry for the sizes");
        let memory = |dims: &[Extent], dtype: DType| {
            let n: usize = dims.iter().map(|e| e.value(&sizes)).product();
            Memory::new(n * dtype.bytes(), 0xff)
        };
        let inputs = program
            .inputs
            .iter()
            .map(|port| {
                let mut m = memory(&port.dims, port.dtype);
                let given = inputs.iter().find(|(n, _)| *n == port.name).expect("the input is given");
                m.bytes().copy_from_slice(&given.1);
                m
            })
            .collect();
        let outputs = program.outputs.iter().map(|p| memory(&p.dims, p.dtype)).collect();
        let arena = Memory::new(entry.arena_bytes, 0xff);
        let mut step = Step { machine: self, sizes, arena, inputs, outputs };
        for s in &entry.steps {
            match &s.work {
                Work::Rows(w) => step.rows(w),
                Work::Gemm(w) => step.gemm(w),
                Work::Dot(w) => step.dot(w),
                Work::Gather(w) => step.gather(w),
                Work::Attention(w) => step.attention(w),
            }
        }
        step.outputs.iter_mut().map(|m| m.bytes().to_vec()).collect()
    }
}

impl Step<'_> {
    fn pointer(&mut self, operand: Operand) -> *mut u8 {
        match operand {
            Operand::Arena(offset) => self.arena.pointer().wrapping_add(offset),
            Operand::Weight(w) => {
                let offset = self.machine.compiled.program.weights[w].offset;
                self.machine.weights.pointer().wrapping_add(offset)
            }
            Operand::State(s) => self.machine.states[s].pointer(),
            Operand::Input(i) => self.inputs[i].pointer(),
            Operand::Output(o) => self.outputs[o].pointer(),
        }
    }

    fn f32(&mut self, operand: Operand, at: usize) -> f32 {
        let p = self.pointer(operand).cast::<f32>().wrapping_add(at);
        // SAFETY: the program's accesses stay within its operands; that they do is what the tests are about.
        unsafe { p.read_unaligned() }
    }

    fn i32(&mut self, operand: Operand, at: usize) -> i32 {
        self.f32(operand, at).to_bits() as i32
    }

    fn set(&mut self, operand: Operand, at: usize, value: f32) {
        let p = self.pointer(operand).cast::<f32>().wrapping_add(at);
        // SAFETY: as for `f32`.
        unsafe { p.write_unaligned(value) }
    }

    fn at(&mut self, access: &Access<Operand>, index: &[usize]) -> usize {
        let sizes = self.sizes;
        let along = |strides: &[Extent]| -> usize {
            strides.iter().zip(index).map(|(s, i)| if *i == 0 { 0 } else { s.value(&sizes) * i }).sum()
        };
        let mut at = access.offset.value(&sizes) + along(&access.strides);
        for i in &access.indirects {
            let fetched = self.i32(i.index, i.offset.value(&sizes) + along(&i.strides));
            at += fetched as usize * i.stride.value(&sizes);
        }
        at
    }

    /// Calls `f` with the kernel's address and arguments.
    fn call(&mut self, kernel: usize, operands: &[Operand], scalars: &[Extent], f: &dyn Fn(*const u8, &KernelArgs)) {
        let buffers: Vec<*mut u8> = operands.iter().map(|&o| self.pointer(o)).collect();
        let mut routines = [0; Routine::COUNT];
        routines[Routine::QuantizeQ8 as usize] = quantize_q8 as *const () as usize;
        routines[Routine::SiluMul as usize] = silu_mul as *const () as usize;
        routines[Routine::RoundBf16 as usize] = round_bf16 as *const () as usize;
        routines[Routine::SiluMulBf16 as usize] = silu_mul_bf16 as *const () as usize;
        let scalars: Vec<u64> = scalars.iter().map(|e| e.value(&self.sizes) as u64).collect();
        let args = KernelArgs {
            buffers: buffers.as_ptr(),
            scalars: scalars.as_ptr(),
            routines: routines.as_ptr(),
            scratch: self.machine.scratch.pointer(),
        };
        f(self.machine.code.addresses()[kernel], &args);
    }

    fn rows(&mut self, w: &RowsWork) {
        let count = w.count.value(&self.sizes) as u64;
        let grain = w.grain as u64;
        self.call(w.kernel, &w.operands, &w.scalars, &|address, args| {
            // SAFETY: the address is a row kernel with these operands.
            let kernel: extern "C" fn(*const KernelArgs, u64, u64) = unsafe { std::mem::transmute(address) };
            // Backwards: rows do not depend on each other.
            for chunk in (0..count.div_ceil(grain)).rev() {
                kernel(args, chunk * grain, (chunk * grain + grain).min(count));
            }
        });
    }

    fn gemm(&mut self, w: &GemmWork) {
        let m = w.m.value(&self.sizes);
        let total: usize = w.segments.iter().map(|s| s.n).sum();
        let mut result = vec![0f32; m * total];
        let mut first = 0;
        for segment in &w.segments {
            let info = self.machine.compiled.program.weights[segment.weight].clone();
            assert!(info.panels, "a GEMM's weight lies in panels");
            let layout = PanelLayout { dtype: info.dtype, k: w.k };
            for n in 0..segment.n {
                let panel = segment.first + n / PANEL_WIDTH * segment.step;
                let row = self.weight_row(segment.weight, layout, panel, n % PANEL_WIDTH);
                for r in 0..m {
                    let sum: f64 = (0..w.k)
                        .map(|k| {
                            let at = self.at(&w.a, &[r, k]);
                            f64::from(self.element(w.a.base, w.act, at)) * f64::from(row[k])
                        })
                        .sum();
                    result[r * total + first + n] = sum as f32;
                }
            }
            first += segment.n;
        }
        let Some(e) = &w.epilogue else {
            for (i, v) in result.into_iter().enumerate() {
                self.set(w.out, i, v);
            }
            return;
        };
        // Tiles of up to three rows and one or two panels.
        let parts = if e.paired { w.segments.len() } else { 1 };
        let mut ranges = vec![];
        if e.paired {
            assert!(w.segments.iter().all(|s| s.n == w.segments[0].n), "paired segments are alike");
            ranges.push((0, w.segments[0].n));
        } else {
            let mut from = 0;
            for s in &w.segments {
                ranges.push((from, from + s.n));
                from += s.n;
            }
        }
        for (begin, end) in ranges {
            for c0 in (begin..end).step_by(2 * PANEL_WIDTH) {
                let c1 = (c0 + 2 * PANEL_WIDTH).min(end);
                for r0 in (0..m).step_by(3) {
                    let r1 = (r0 + 3).min(m);
                    let (row_stride, segment_stride) = (c1 - c0 + 5, (r1 - r0) * (c1 - c0 + 5) + 3);
                    let mut acc = vec![f32::NAN; parts * segment_stride];
                    for p in 0..parts {
                        for r in r0..r1 {
                            for c in c0..c1 {
                                acc[p * segment_stride + (r - r0) * row_stride + (c - c0)] =
                                    result[r * total + p * (total / parts) + c];
                            }
                        }
                    }
                    let tile = Tile {
                        acc: acc.as_mut_ptr(),
                        row_begin: r0 as u64,
                        row_end: r1 as u64,
                        col_begin: c0 as u64,
                        col_end: c1 as u64,
                        row_stride: row_stride as u64,
                        segment_stride: if e.paired { segment_stride as u64 } else { 0 },
                    };
                    self.call(e.kernel, &e.operands, &e.scalars, &|address, args| {
                        // SAFETY: the address is an epilogue with these operands.
                        let kernel: extern "C" fn(*const KernelArgs, *const Tile) =
                            unsafe { std::mem::transmute(address) };
                        kernel(args, &tile);
                    });
                }
            }
        }
    }

    fn weight_row(&mut self, weight: usize, layout: PanelLayout, panel: usize, lane: usize) -> Vec<f32> {
        let mut row = vec![0.0; layout.k];
        let at = self.machine.compiled.program.weights[weight].offset + panel * layout.panel_bytes();
        let bytes = &self.machine.weights.bytes()[at..at + layout.panel_bytes()];
        layout.decode_row(lane, bytes, 0..layout.k, &mut row);
        row
    }

    fn element(&mut self, operand: Operand, dtype: DType, at: usize) -> f32 {
        let (of, bytes) = dtype.block();
        let p = self.pointer(operand).wrapping_add(at / of * bytes);
        // SAFETY: as for `f32`.
        unsafe {
            match dtype {
                DType::F32 => p.cast::<f32>().read_unaligned(),
                DType::F16 => half::f16::from_bits(p.cast::<u16>().read_unaligned()).to_f32(),
                DType::BF16 => half::bf16::from_bits(p.cast::<u16>().read_unaligned()).to_f32(),
                DType::Q8 => q8::decode(&p.cast::<[u8; q8::BYTES]>().read())[at % of],
                other => panic!("no float: {other}"),
            }
        }
    }

    fn dot(&mut self, w: &DotWork) {
        let sizes = self.sizes;
        let batch: Vec<usize> = w.batch.iter().map(|e| e.value(&sizes)).collect();
        let (m, n, k) = (w.m.value(&sizes), w.n.value(&sizes), w.k.value(&sizes));
        for flat in 0..batch.iter().product::<usize>() {
            let mut index = vec![0; batch.len()];
            let mut rest = flat;
            for (i, &size) in batch.iter().enumerate().rev() {
                index[i] = rest % size;
                rest /= size;
            }
            let with = |a: usize, b: usize| -> Vec<usize> { index.iter().copied().chain([a, b]).collect() };
            for i in 0..m {
                for j in 0..n {
                    let mut sum = 0f64;
                    for c in 0..k {
                        let (l, r) = (self.at(&w.lhs, &with(i, c)), self.at(&w.rhs, &with(j, c)));
                        sum += f64::from(self.f32(w.lhs.base, l)) * f64::from(self.f32(w.rhs.base, r));
                    }
                    let at = self.at(&w.out, &with(i, j));
                    self.set(w.out.base, at, sum as f32);
                }
            }
        }
    }

    fn gather(&mut self, w: &GatherWork) {
        let info = self.machine.compiled.program.weights[w.weight].clone();
        let layout = PanelLayout { dtype: info.dtype, k: info.dims[1] };
        for i in 0..w.count.value(&self.sizes) {
            let row = self.i32(w.ids, i) as usize;
            for (k, v) in
                self.weight_row(w.weight, layout, row / PANEL_WIDTH, row % PANEL_WIDTH).into_iter().enumerate()
            {
                self.set(w.out, i * layout.k + k, v);
            }
        }
    }

    fn attention(&mut self, w: &AttentionWork) {
        let tokens = self.machine.compiled.program.states[w.keys].dims[2];
        for s in 0..self.sizes.rows {
            let position = self.i32(w.positions, s) as usize;
            let slot = self.i32(w.slots, s) as usize;
            for h in 0..w.kv_heads {
                for g in 0..w.group {
                    let cache = |t: usize, d: usize| ((slot * w.kv_heads + h) * tokens + t) * w.head_dim + d;
                    let mut scores = vec![0f64; position + 1];
                    for (t, score) in scores.iter_mut().enumerate() {
                        for d in 0..w.head_dim {
                            let at = self.at(&w.q, &[s, h, g, d]);
                            *score += f64::from(self.f32(w.q.base, at))
                                * f64::from(self.f32(Operand::State(w.keys), cache(t, d)));
                        }
                        *score *= f64::from(w.scale);
                    }
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
                    for d in 0..w.head_dim {
                        let mut out = 0f64;
                        for (t, score) in scores.iter().enumerate() {
                            out +=
                                (score - max).exp() / sum * f64::from(self.f32(Operand::State(w.values), cache(t, d)));
                        }
                        let at = self.at(&w.out, &[s, h, g, d]);
                        self.set(w.out.base, at, out as f32);
                    }
                }
            }
        }
    }
}
