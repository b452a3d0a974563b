//! Activations to bytes: the routine `Routine::QuantizeQ8`.
//!
//! Every operation is one that all machines round alike, so all tiers equal [`llamac_formats::q8::encode`] to the bit.

use crate::routines::routine;
use crate::tiers::{Kernel, Simd};
use llamac_formats::q8;

/// Added to |x| < 2²² it rounds to a whole number, to even between two, which is then in the lower bits.
const ROUND: f32 = 12_582_912.0;

/// The bits of ∞: those of what is no number are above.
pub(crate) const INFINITE: u32 = 0x7f80_0000;

/// Quantises `blocks` blocks.
struct Quantise {
    out: *mut u8,
    input: *const f32,
    blocks: usize,
}

impl Kernel for Quantise {
    type Output = ();

    /// What the instruction set has no way of its own for goes through plain loops, which compilers turn into its vectors.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller vouches for the instruction set and for the blocks at both addresses.
        let made = unsafe { S::q8(self.out, self.input, self.blocks) };
        for i in made..self.blocks {
            // SAFETY: the caller vouches for the blocks at both addresses.
            let (x, out) = unsafe {
                let x = &*self.input.add(i * q8::ELEMENTS).cast::<[f32; q8::ELEMENTS]>();
                (x, &mut *self.out.add(i * q8::BYTES).cast::<[u8; q8::BYTES]>())
            };
            encode(x, out);
        }
    }
}

/// One block.
#[inline(always)]
fn encode(x: &[f32; q8::ELEMENTS], out: &mut [u8; q8::BYTES]) {
    let mut max = 0u32;
    for v in x {
        max = max.max(v.to_bits() & 0x7fff_ffff);
    }
    let (scale, factor) = if max < INFINITE { q8::factors(f32::from_bits(max)) } else { (f32::NAN, 0.0) };
    let mut q = [0i32; q8::ELEMENTS];
    for (q, v) in q.iter_mut().zip(x) {
        // What is not finite leaves lower bits of some kind, which are cleared.
        *q = (v * factor + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
    }
    if max >= INFINITE {
        q = [0; q8::ELEMENTS];
    }
    let (first, second) = q.split_at(q8::SUM_ELEMENTS);
    let sums = [first.iter().sum::<i32>() as i16, second.iter().sum::<i32>() as i16];
    out[..q8::SUMS].copy_from_slice(&scale.to_le_bytes());
    out[q8::SUMS..q8::SUMS + 2].copy_from_slice(&sums[0].to_le_bytes());
    out[q8::SUMS + 2..q8::QUANTS].copy_from_slice(&sums[1].to_le_bytes());
    for (out, q) in out[q8::QUANTS..].iter_mut().zip(q) {
        *out = q as u8;
    }
}

routine! {
    /// The type of the routine `Routine::QuantizeQ8`.
    QuantiseRoutine(out: *mut u8, input: *const f32, n: u64) => Quantise { out, input, blocks: n as usize / q8::ELEMENTS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Numbers;

    /// Any 32 bits.
    fn bits(numbers: &mut Numbers) -> u32 {
        (numbers.below(1 << 16) << 16 | numbers.below(1 << 16)) as u32
    }

    /// Blocks of every kind: ordinary ones, halves between two steps, almost nothing, the largest, what is not finite.
    fn blocks() -> Vec<[f32; 32]> {
        let mut numbers = Numbers::new(21);
        let mut blocks: Vec<[f32; 32]> = Vec::new();
        for exponent in -149..=127 {
            let size = 2f64.powi(exponent);
            blocks.push(std::array::from_fn(|_| (f64::from(numbers.real()) * size) as f32));
        }
        blocks.push(std::array::from_fn(|i| (i as f32 - 15.5) * if i == 0 { 127.0 / 15.5 } else { 1.0 }));
        blocks.push([0.0; 32]);
        blocks.push([-0.0; 32]);
        blocks.push([f32::MAX; 32]);
        blocks.push([f32::MIN_POSITIVE; 32]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            for at in [0, 13, 31] {
                let mut block = blocks[150];
                block[at] = bad;
                blocks.push(block);
                // Among ordinary ones, at every place of the groups that some tiers make at once.
                blocks.extend_from_within(130..134);
            }
        }
        // The least factors that are finite and the largest that are not, and any bits at all.
        for max in [3.7e-37f32, 3.73e-37, 3.74e-37, 3.8e-37] {
            blocks.push(std::array::from_fn(|i| if i == 20 { -max } else { max * (i as f32 / 32.0) }));
        }
        for _ in 0..256 {
            blocks.push(std::array::from_fn(|_| f32::from_bits(bits(&mut numbers))));
            // Finite, up to any exponent.
            let end = (1 + numbers.below(255) as u32) << 23;
            blocks.push(std::array::from_fn(|_| {
                let bits = bits(&mut numbers);
                f32::from_bits(bits & 0x8000_0000 | ((bits & 0x7fff_ffff) % end))
            }));
        }
        blocks
    }

    #[test]
    fn every_tier_equals_the_codec_to_the_bit() {
        let blocks = blocks();
        let mut want = vec![0; blocks.len() * q8::BYTES];
        for (x, out) in blocks.iter().zip(want.chunks_exact_mut(q8::BYTES)) {
            q8::encode(x, out.try_into().unwrap());
        }
        for tier in crate::tiers::tests::available() {
            for count in [0, 1, 2, 3, 4, 5, 6, 7, blocks.len()] {
                let mut got = vec![0x5a; blocks.len() * q8::BYTES];
                // SAFETY: both have room for `count` blocks and the tier is available.
                unsafe { routine(tier)(got.as_mut_ptr(), blocks.as_ptr().cast(), 32 * count as u64) };
                let end = count * q8::BYTES;
                for (i, (got, want)) in got[..end].chunks(q8::BYTES).zip(want.chunks(q8::BYTES)).enumerate() {
                    assert_eq!(got, want, "{tier}: block {i}, {:?}", blocks[i]);
                }
                assert!(got[end..].iter().all(|b| *b == 0x5a), "{tier}: written past the end");
            }
        }
    }
}
