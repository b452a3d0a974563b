//! What the tests of the kernels share: numbers, packed matrices, buffers that every worker may use.

use llamac_formats::block::Fields;
use llamac_formats::{BlockFormat, DType, PANEL_WIDTH, PanelLayout};

/// A small generator of numbers (xorshift), the same on every machine.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A whole number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }

    /// A number in −1..1.
    pub(crate) fn real(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0
    }

    pub(crate) fn reals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.real()).collect()
    }
}

/// A weight matrix `[n, k]`, packed, and what its elements are as f32.
pub(crate) struct Matrix {
    pub(crate) dtype: DType,
    pub(crate) k: usize,
    pub(crate) values: Vec<f32>,
    /// In 64-bit words, so that it is aligned.
    packed: Vec<u64>,
}

impl Matrix {
    pub(crate) fn new(dtype: DType, n: usize, k: usize, numbers: &mut Numbers) -> Matrix {
        let layout = PanelLayout { dtype, k };
        let mut values = Vec::with_capacity(n * k);
        let mut packed = vec![0u8; layout.matrix_bytes(n)];
        for (row, panel) in (0..n).map(|row| (row, row / PANEL_WIDTH * layout.panel_bytes())) {
            let mut bytes = Vec::new();
            if let DType::Block(format) = dtype {
                bytes = blocks(format, k, numbers);
                values.resize(values.len() + k, 0.0);
                let at = values.len() - k;
                format.decode(&bytes, &mut values[at..]);
            }
            for x in if bytes.is_empty() { numbers.reals(k) } else { Vec::new() } {
                values.push(match dtype {
                    DType::F32 => {
                        bytes.extend_from_slice(&x.to_le_bytes());
                        x
                    }
                    DType::F16 => {
                        bytes.extend_from_slice(&half::f16::from_f32(x).to_le_bytes());
                        half::f16::from_f32(x).to_f32()
                    }
                    _ => {
                        bytes.extend_from_slice(&half::bf16::from_f32(x).to_le_bytes());
                        half::bf16::from_f32(x).to_f32()
                    }
                });
            }
            layout.pack_row(row % PANEL_WIDTH, &bytes, &mut packed[panel..][..layout.panel_bytes()]);
        }
        let words = packed.chunks(8).map(|c| u64::from_ne_bytes(std::array::from_fn(|i| *c.get(i).unwrap_or(&0))));
        Matrix { dtype, k, values, packed: words.collect() }
    }

    pub(crate) fn panels(&self) -> *const u8 {
        self.packed.as_ptr().cast()
    }

    pub(crate) fn row(&self, n: usize) -> &[f32] {
        &self.values[n * self.k..][..self.k]
    }
}

/// Blocks of weights of about one size, everything in them in use.
fn blocks(format: BlockFormat, k: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = vec![0; k / format.elements() * format.bytes()];
    for block in bytes.chunks_exact_mut(format.bytes()) {
        let mut fields = Fields::default();
        fields.quants.fill_with(|| numbers.below(1 << format.bits()) as u8);
        fields.d = half::f16::from_f32(numbers.real() * 0.01).to_bits();
        fields.m = half::f16::from_f32(numbers.real() * 0.01).to_bits();
        let signed = format == BlockFormat::Q6K;
        fields.scales.fill_with(|| if signed { numbers.below(256) as u8 as i8 } else { numbers.below(64) as i8 });
        fields.mins.fill_with(|| numbers.below(64) as u8);
        format.join(&fields, block);
    }
    bytes
}

/// Elements beyond a buffer's end that must not change.
const GUARD: usize = 64;

/// f32 memory that all workers use at once, with a guard behind it.
pub(crate) struct Buffer {
    start: *mut f32,
    n: usize,
}

// SAFETY: the kernels under test divide it among the workers.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `n` elements that are no numbers until they are written.
    pub(crate) fn new(n: usize) -> Buffer {
        Buffer { start: Vec::leak(vec![f32::NAN; n + GUARD]).as_mut_ptr(), n }
    }

    pub(crate) fn of(values: &[f32]) -> Buffer {
        let buffer = Buffer::new(values.len());
        // SAFETY: the buffer has room for the values.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), buffer.start, values.len()) };
        buffer
    }

    pub(crate) fn get(&self) -> *mut f32 {
        self.start
    }

    /// What is in it.
    ///
    /// # Panics
    /// If something was written past its end.
    pub(crate) fn values(&self) -> Vec<f32> {
        // SAFETY: the memory lives as long as `self`, and no run is going on.
        let all = unsafe { std::slice::from_raw_parts(self.start, self.n + GUARD) };
        assert!(all[self.n..].iter().all(|x| x.is_nan()), "written past the end");
        all[..self.n].to_vec()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it came from a leaked vector of this length.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(self.start, self.n + GUARD)) });
    }
}

/// The bits of every value: equal only where the values are identical.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Asserts that every value is within `tolerance` of its reference, relative to `scale` (the size of its terms).
pub(crate) fn assert_close(got: &[f32], want: &[f64], scale: f64, tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= tolerance * scale, "{what}: element {i} is {got}, should be {want}");
    }
}
