//! Blocks of q8 in vectors of 512 bits: four blocks at once, so that they share the divisions and most of the shuffles.
//!
//! Compilers turn plain loops over one block into a reduction, two scalar divisions and five shuffles a block; four blocks
//! reduced side by side cost one division of four lanes and half of the shuffles.
//!
//! There are no closures here: they are compiled without the instruction set wherever they are not inlined.

use crate::quantise::INFINITE;
use core::arch::x86_64::*;
use llamac_formats::q8;

/// Blocks at once.
const FOUR: usize = 4;

/// The integers are summed with this added to each, as bytes without a sign.
const OFFSET: i64 = 128;

/// Makes `blocks` blocks, all of them.
///
/// # Safety
/// The machine must have AVX-512 F, BW, DQ and VL; `32·blocks` elements must lie at `input`, and there must be room for the blocks at `out`.
#[inline(always)]
pub(super) unsafe fn blocks(out: *mut u8, input: *const f32, blocks: usize) {
    let whole = blocks / FOUR * FOUR;
    let mut i = 0;
    // SAFETY: the caller vouches for the instruction set; all blocks named are below `blocks`.
    unsafe {
        while i < whole {
            some::<4>(out.add(i * q8::BYTES), input.add(i * q8::ELEMENTS));
            i += FOUR;
        }
        let (out, input) = (out.add(i * q8::BYTES), input.add(i * q8::ELEMENTS));
        match blocks - whole {
            0 => {}
            1 => some::<1>(out, input),
            2 => some::<2>(out, input),
            _ => some::<3>(out, input),
        }
    }
}

/// `N ≤ 4` blocks; those that are missing are computed as zeros and not stored.
///
/// # Safety
/// As [`blocks`], for `N` blocks.
#[inline(always)]
unsafe fn some<const N: usize>(out: *mut u8, input: *const f32) {
    // SAFETY: the caller vouches for the instruction set; memory is touched for blocks below `N` only.
    unsafe {
        let mut x = [[_mm512_setzero_ps(); 2]; FOUR];
        let mut i = 0;
        while i < N {
            let from = input.add(i * q8::ELEMENTS);
            x[i] = [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))];
            i += 1;
        }
        let max = largest(x);
        let finite = _mm_cmplt_epu32_mask(max, _mm_set1_epi32(INFINITE as i32));

        // The quotients of the codec; a factor that overflows means 0 for both.
        let max = _mm_castsi128_ps(max);
        let factor = _mm_div_ps(_mm_set1_ps(127.0), max);
        let normal = _mm_cmp_ps_mask::<_CMP_LT_OQ>(factor, _mm_set1_ps(f32::INFINITY));
        let factor = _mm512_castps128_ps512(_mm_maskz_mov_ps(normal, factor));
        let scale = _mm_maskz_div_ps(normal, max, _mm_set1_ps(127.0));

        let mut q = [[_mm512_setzero_si512(); 2]; FOUR];
        let mut i = 0;
        while i < FOUR {
            let factor = _mm512_permutexvar_ps(_mm512_set1_epi32(i as i32), factor);
            q[i] = [rounded(x[i][0], factor), rounded(x[i][1], factor)];
            i += 1;
        }
        let bytes = [packed(q[0], q[1]), packed(q[2], q[3])];
        let mut heads = [0u64; FOUR];
        _mm256_storeu_si256(heads.as_mut_ptr().cast(), headers(scale, bytes));
        let mut i = 0;
        while i < N {
            let to = out.add(i * q8::BYTES);
            to.cast::<u64>().write_unaligned(heads[i]);
            let two = bytes[i / 2];
            let one = if i % 2 == 0 { _mm512_castsi512_si256(two) } else { _mm512_extracti64x4_epi64::<1>(two) };
            _mm256_storeu_si256(to.add(q8::QUANTS).cast(), one);
            i += 1;
        }
        if finite != 0xf {
            unbounded::<N>(out, finite);
        }
    }
}

/// The bits of the largest magnitude of each block; those of what is no number exceed ∞'s.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn largest(x: [[__m512; 2]; FOUR]) -> __m128i {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        // Halves of two blocks, then a quarter of each of the four, then one element of each.
        let (a, b) = (of_two(x[0], x[1]), of_two(x[2], x[3]));
        let m = _mm512_max_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let m = _mm512_max_epi32(m, _mm512_shuffle_epi32::<0x4e>(m));
        let m = _mm512_max_epi32(m, _mm512_shuffle_epi32::<0xb1>(m));
        let firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        _mm512_castsi512_si128(_mm512_permutexvar_epi32(firsts, m))
    }
}

/// The largest magnitudes of two blocks: eight of each, one block after the other.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn of_two(a: [__m512; 2], b: [__m512; 2]) -> __m512i {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let a = _mm512_max_epi32(magnitudes(a[0]), magnitudes(a[1]));
        let b = _mm512_max_epi32(magnitudes(b[0]), magnitudes(b[1]));
        _mm512_max_epi32(_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b))
    }
}

/// The bits without the sign.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn magnitudes(x: __m512) -> __m512i {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(i32::MAX)) }
}

/// The products as integers, rounded to nearest even.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn rounded(x: __m512, factor: __m512) -> __m512i {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    // SAFETY: the caller vouches for the instruction set.
    unsafe { _mm512_cvt_roundps_epi32::<NEAREST>(_mm512_mul_ps(x, factor)) }
}

/// The integers of two blocks as bytes, in their order.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn packed(a: [__m512i; 2], b: [__m512i; 2]) -> __m512i {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let words = [_mm512_packs_epi32(a[0], a[1]), _mm512_packs_epi32(b[0], b[1])];
        let bytes = _mm512_packs_epi16(words[0], words[1]);
        // Packing interleaves the quarters of its operands: four bytes of each vector in turn.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, bytes)
    }
}

/// What stands before the integers of each block: the scale and the two sums, of sixteen integers each.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn headers(scale: __m128, bytes: [__m512i; 2]) -> __m256i {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let sign = _mm512_set1_epi8(i8::MIN);
        let zero = _mm512_setzero_si512();
        let a = _mm512_sad_epu8(_mm512_xor_si512(bytes[0], sign), zero);
        let b = _mm512_sad_epu8(_mm512_xor_si512(bytes[1], sign), zero);
        // 64-bit lanes: first half of block 0, of 2, second half of 0, of 2; then the same of 1 and 3.
        let sums = _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        let sums = _mm512_sub_epi64(sums, _mm512_set1_epi64(q8::SUM_ELEMENTS as i64 * OFFSET));
        // The lowest words of two lanes become the upper words of the block's header.
        let first = _mm512_castsi512_si256(_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 0, 0, 0, 0), sums));
        let second = _mm512_castsi512_si256(_mm512_permutexvar_epi64(_mm512_setr_epi64(2, 6, 3, 7, 0, 0, 0, 0), sums));
        let first = _mm256_srli_epi64::<16>(_mm256_slli_epi64::<48>(first));
        let sums = _mm256_or_si256(first, _mm256_slli_epi64::<48>(second));
        _mm256_or_si256(sums, _mm256_cvtepu32_epi64(_mm_castps_si128(scale)))
    }
}

/// Writes the blocks whose largest magnitude is not finite: those whose bit is not in `finite`.
///
/// # Safety
/// There must be room for `N` blocks at `out`.
#[cold]
unsafe fn unbounded<const N: usize>(out: *mut u8, finite: u8) {
    for i in (0..N).filter(|i| finite >> i & 1 == 0) {
        let mut block = [0; q8::BYTES];
        block[..q8::SUMS].copy_from_slice(&f32::NAN.to_le_bytes());
        // SAFETY: the caller vouches for the room.
        unsafe { out.add(i * q8::BYTES).cast::<[u8; q8::BYTES]>().write(block) };
    }
}
