//! Seeded values by index: element `i` of a tensor is a function of the seed, the tensor's name and `i` alone, so that
//! blocks can be made in any order by any thread.

use half::{bf16, f16};
use llamac_formats::DType;

/// Makes the values of one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Filler {
    key: u64,
    dtype: DType,
    mean: f32,
    /// Factor from the sum of four 16-bit numbers, less its mean, to the value.
    scale: f32,
}

/// The deviation of the sum of four uniform 16-bit numbers.
const SUM_DEVIATION: f64 = 37_837.227;
/// Its mean.
const SUM_MEAN: i32 = 2 * 65_535;
/// The increment of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Filler {
    /// The values of a tensor. Matrices have deviation 1/√(inputs), so that activations keep their size; norms lie about 1,
    /// biases and other vectors about 0, each with deviation 0.02. Integers and truth values are all zero.
    pub fn for_tensor(seed: u64, name: &str, dtype: DType, dims: &[usize]) -> Filler {
        // FNV-1a over the name.
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let deviation = match dims {
            [_, .., inputs] => 1.0 / (*inputs).max(1) as f64,
            _ => 0.02 * 0.02,
        }
        .sqrt();
        let norm = dims.len() < 2 && name.contains("norm") && !name.ends_with("bias");
        Filler {
            key: mix(seed.wrapping_add(GOLDEN)) ^ hash,
            dtype,
            mean: if norm { 1.0 } else { 0.0 },
            scale: (deviation / SUM_DEVIATION) as f32,
        }
    }

    /// Fills `bytes` with the elements from index `first` on, little-endian. A rest shorter than an element is left.
    pub fn fill(&self, first: usize, bytes: &mut [u8]) {
        match self.dtype {
            DType::F32 => self.each::<4>(first, bytes, f32::to_le_bytes),
            DType::F16 => self.each::<2>(first, bytes, |v| f16::from_f32(v).to_le_bytes()),
            DType::BF16 => self.each::<2>(first, bytes, |v| bf16::from_f32(v).to_le_bytes()),
            DType::I32 | DType::Bool | DType::Q8 | DType::Block(_) => bytes.fill(0),
        }
    }

    fn each<const N: usize>(&self, first: usize, bytes: &mut [u8], store: impl Fn(f32) -> [u8; N]) {
        let (elements, _) = bytes.as_chunks_mut::<N>();
        for (index, element) in (first as u64..).zip(elements) {
            *element = store(self.value(index));
        }
    }

    /// Four uniform numbers of 16 bits add up to something close to normal, within ±3.46 deviations.
    fn value(&self, index: u64) -> f32 {
        let r = mix(self.key.wrapping_add(index.wrapping_mul(GOLDEN)));
        let sum = (r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48);
        (sum as i32 - SUM_MEAN) as f32 * self.scale + self.mean
    }
}

/// The output function of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
