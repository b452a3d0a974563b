//! 512-bit vectors.

mod q8;

use super::{Kernel, Simd};
use core::arch::x86_64::*;

/// AVX-512 F, BW, DQ and VL, and VNNI where it says so.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const VNNI: bool>;

pub(super) fn available() -> bool {
    super::avx2::available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

pub(super) fn vnni_available() -> bool {
    available() && is_x86_feature_detected!("avx512vnni")
}

/// # Safety
/// The machine must have the features; the rest is the kernel's.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for both.
    unsafe { kernel.run::<Avx512<false>>() }
}

/// # Safety
/// The machine must have the features; the rest is the kernel's.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn enter_vnni<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for both.
    unsafe { kernel.run::<Avx512<true>>() }
}

/// The mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    const LANES: usize = 16;
    type F = __m512;
    type I = __m512i;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> __m512 {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm512_maskz_loadu_ps(first(n), from) }
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: __m512, n: usize) {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm512_mask_storeu_ps(to, first(n), x) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn where_le(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b), y, x) }
    }

    #[inline(always)]
    unsafe fn scale(x: __m512, n: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_scalef_ps(x, n) }
    }

    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_reduce_add_ps(x) }
    }

    #[inline(always)]
    unsafe fn sum_four(to: *mut f32, x: [__m512; 4]) {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            let (low, high) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
            let parts = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            let eight = _mm256_add_ps(_mm512_castps512_ps256(parts), _mm512_extractf32x8_ps::<1>(parts));
            _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight)));
        }
    }

    #[inline(always)]
    unsafe fn bf16_pairs(from: *const u16) -> (__m512, __m512) {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe {
            let both = _mm512_loadu_si512(from.cast());
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)), _mm512_castsi512_ps(_mm512_and_si512(both, upper)))
        }
    }

    #[inline(always)]
    unsafe fn bf16(from: *const u16) -> __m512 {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn f16(from: *const u16) -> __m512 {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn i8(from: *const i8) -> __m512 {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m512i {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, x: __m512i) {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm512_storeu_si512(to.cast(), x) }
    }

    #[inline(always)]
    unsafe fn splat_word(x: i32) -> __m512i {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn shl(a: __m512i, n: i32) -> __m512i {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)) }
    }

    #[inline(always)]
    unsafe fn shr(a: __m512i, n: i32) -> __m512i {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)) }
    }

    #[inline(always)]
    unsafe fn float(a: __m512i) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    unsafe fn dot(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        if VNNI {
            // SAFETY: the caller vouches for the instruction set.
            return unsafe { _mm512_dpbusd_epi32(sum, a, b) };
        }
        // Sums of two products do not fit 16 bits: bytes are widened first, even and odd ones apart.
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let even = _mm512_and_si512(a, _mm512_set1_epi16(0xff));
            let odd = _mm512_srli_epi16::<8>(a);
            let b_even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b));
            let b_odd = _mm512_srai_epi16::<8>(b);
            let products = _mm512_add_epi32(_mm512_madd_epi16(even, b_even), _mm512_madd_epi16(odd, b_odd));
            _mm512_add_epi32(sum, products)
        }
    }

    #[inline(always)]
    unsafe fn dot_small(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        if VNNI {
            // SAFETY: the caller vouches for the instruction set.
            return unsafe { _mm512_dpbusd_epi32(sum, a, b) };
        }
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let pairs = _mm512_maddubs_epi16(a, b);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn q8(out: *mut u8, input: *const f32, blocks: usize) -> usize {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { q8::blocks(out, input, blocks) };
        blocks
    }

    #[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read or written through it
    #[inline(always)]
    unsafe fn opaque(mut at: *const u8) -> *const u8 {
        // An operand with an index is a step of its own beside the product, in the processors that have this instruction set.
        // SAFETY: no instruction is there.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags));
        }
        at
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch_far(at: *const u8) {
        // SAFETY: the caller vouches for the instruction set and the pointer.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}
