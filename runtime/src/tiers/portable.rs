//! Plain arrays of four, which compilers turn into whatever 128-bit vectors the machine has.

use super::{Kernel, Simd};

/// Nothing beyond the architecture's baseline.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// # Safety
/// What the kernel asks.
pub(super) unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for it.
    unsafe { kernel.run::<Portable>() }
}

/// Four lanes.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(super) struct Four([f32; 4]);

/// Applies a lane-wise expression; a loop over an array, because closures do not inherit `inline(always)`.
macro_rules! lanes {
    ($i:ident => $lane:expr) => {{
        let mut out = [0.0; 4];
        let mut $i = 0;
        while $i < 4 {
            out[$i] = $lane;
            $i += 1;
        }
        Four(out)
    }};
}

/// The same for words.
macro_rules! words {
    ($i:ident => $lane:expr) => {{
        let mut out = [0u32; 4];
        let mut $i = 0;
        while $i < 4 {
            out[$i] = $lane;
            $i += 1;
        }
        out
    }};
}

impl Simd for Portable {
    const LANES: usize = 4;
    type F = Four;
    type I = [u32; 4];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Four {
        Four([x; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Four {
        // SAFETY: the caller vouches for the pointer.
        Four(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Four) {
        // SAFETY: the caller vouches for the pointer.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(x.0) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Four {
        // SAFETY: the caller vouches for the pointer.
        lanes!(i => if i < n { unsafe { *from.add(i) } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: Four, n: usize) {
        for (i, lane) in x.0.iter().enumerate().take(n) {
            // SAFETY: the caller vouches for the pointer.
            unsafe { *to.add(i) = *lane }
        }
    }

    #[inline(always)]
    unsafe fn fma(a: Four, b: Four, c: Four) -> Four {
        // `mul_add` would call the C library where the machine has no such instruction.
        lanes!(i => a.0[i] * b.0[i] + c.0[i])
    }

    #[inline(always)]
    unsafe fn add(a: Four, b: Four) -> Four {
        lanes!(i => a.0[i] + b.0[i])
    }

    #[inline(always)]
    unsafe fn sub(a: Four, b: Four) -> Four {
        lanes!(i => a.0[i] - b.0[i])
    }

    #[inline(always)]
    unsafe fn mul(a: Four, b: Four) -> Four {
        lanes!(i => a.0[i] * b.0[i])
    }

    #[inline(always)]
    unsafe fn div(a: Four, b: Four) -> Four {
        lanes!(i => a.0[i] / b.0[i])
    }

    #[inline(always)]
    unsafe fn max(a: Four, b: Four) -> Four {
        lanes!(i => if a.0[i] > b.0[i] { a.0[i] } else { b.0[i] })
    }

    #[inline(always)]
    unsafe fn min(a: Four, b: Four) -> Four {
        lanes!(i => if a.0[i] < b.0[i] { a.0[i] } else { b.0[i] })
    }

    #[inline(always)]
    unsafe fn where_le(a: Four, b: Four, x: Four, y: Four) -> Four {
        lanes!(i => if a.0[i] <= b.0[i] { x.0[i] } else { y.0[i] })
    }

    #[inline(always)]
    unsafe fn scale(x: Four, n: Four) -> Four {
        lanes!(i => {
            // Two factors, because 2^n itself may be no normal number: the first product is exact, the second rounds once.
            let n = n.0[i] as i32;
            let half = n >> 1;
            x.0[i] * power_of_two(half) * power_of_two(n - half)
        })
    }

    #[inline(always)]
    unsafe fn sum(x: Four) -> f32 {
        (x.0[0] + x.0[2]) + (x.0[1] + x.0[3])
    }

    #[inline(always)]
    unsafe fn sum_four(to: *mut f32, x: [Four; 4]) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: the caller vouches for the pointer.
            unsafe { *to.add(i) = Self::sum(x) }
        }
    }

    #[inline(always)]
    unsafe fn bf16_pairs(from: *const u16) -> (Four, Four) {
        // SAFETY: the caller vouches for the pointer.
        let both = unsafe { from.cast::<[u32; 4]>().read_unaligned() };
        // The first of a pair is the lower half on little-endian machines, the upper half on others.
        if cfg!(target_endian = "little") {
            (lanes!(i => f32::from_bits(both[i] << 16)), lanes!(i => f32::from_bits(both[i] & 0xffff_0000)))
        } else {
            (lanes!(i => f32::from_bits(both[i] & 0xffff_0000)), lanes!(i => f32::from_bits(both[i] << 16)))
        }
    }

    #[inline(always)]
    unsafe fn bf16(from: *const u16) -> Four {
        // SAFETY: the caller vouches for the pointer.
        let four = unsafe { from.cast::<[u16; 4]>().read_unaligned() };
        lanes!(i => f32::from_bits(u32::from(four[i]) << 16))
    }

    #[inline(always)]
    unsafe fn f16(from: *const u16) -> Four {
        // SAFETY: the caller vouches for the pointer.
        let four = unsafe { from.cast::<[u16; 4]>().read_unaligned() };
        lanes!(i => half::f16::from_bits(four[i]).to_f32_const())
    }

    #[inline(always)]
    unsafe fn i8(from: *const i8) -> Four {
        // SAFETY: the caller vouches for the pointer.
        let four = unsafe { from.cast::<[i8; 4]>().read_unaligned() };
        lanes!(i => f32::from(four[i]))
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> [u32; 4] {
        // Lanes are little-endian words, whatever the machine's are.
        // SAFETY: the caller vouches for the pointer.
        words!(i => u32::from_le(unsafe { from.cast::<u32>().add(i).read_unaligned() }))
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, x: [u32; 4]) {
        for (i, word) in x.into_iter().enumerate() {
            // SAFETY: the caller vouches for the pointer.
            unsafe { to.cast::<u32>().add(i).write_unaligned(word.to_le()) }
        }
    }

    #[inline(always)]
    unsafe fn splat_word(x: i32) -> [u32; 4] {
        [x as u32; 4]
    }

    #[inline(always)]
    unsafe fn and(a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
        words!(i => a[i] & b[i])
    }

    #[inline(always)]
    unsafe fn or(a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
        words!(i => a[i] | b[i])
    }

    #[inline(always)]
    unsafe fn shl(a: [u32; 4], n: i32) -> [u32; 4] {
        words!(i => a[i] << n)
    }

    #[inline(always)]
    unsafe fn shr(a: [u32; 4], n: i32) -> [u32; 4] {
        words!(i => a[i] >> n)
    }

    #[inline(always)]
    unsafe fn float(a: [u32; 4]) -> Four {
        lanes!(i => a[i] as i32 as f32)
    }

    #[inline(always)]
    unsafe fn dot(sum: [u32; 4], a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
        words!(i => {
            let mut lane = sum[i];
            let mut byte = 0;
            while byte < 4 {
                let product = (a[i] >> (8 * byte) & 0xff) as i32 * i32::from((b[i] >> (8 * byte)) as u8 as i8);
                lane = lane.wrapping_add(product as u32);
                byte += 1;
            }
            lane
        })
    }

    #[inline(always)]
    unsafe fn dot_small(sum: [u32; 4], a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
        // SAFETY: there is nothing to vouch for: no address, and no instruction that a machine may lack.
        unsafe { Self::dot(sum, a, b) }
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}

    #[inline(always)]
    unsafe fn prefetch_far(_: *const u8) {}
}

/// 2^n for −126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}
