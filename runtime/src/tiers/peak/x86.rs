//! What only x86-64 has: fused 128-bit vectors, dot products of 16- and 8-bit numbers, tiles.

use super::{Arithmetic, CHAINS};
use crate::tiers::amx;
use core::arch::asm;
use core::arch::x86_64::*;
use std::hint::black_box;
use std::sync::OnceLock;

pub(super) fn available(kind: Arithmetic) -> bool {
    let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    match kind {
        Arithmetic::F32(tier) => tier.available(),
        Arithmetic::F32Fused128 => is_x86_feature_detected!("fma"),
        Arithmetic::Bf16Pairs => wide && is_x86_feature_detected!("avx512bf16"),
        Arithmetic::Int8Fours => wide && is_x86_feature_detected!("avx512vnni"),
        Arithmetic::Bf16Tiles => tiles().0,
        Arithmetic::Int8Tiles => tiles().1,
    }
}

/// Does the rounds; gives the operations of one.
///
/// # Safety
/// The kind must be available.
pub(super) unsafe fn work(kind: Arithmetic, rounds: usize) -> usize {
    // SAFETY: the caller vouches for the features of each.
    unsafe {
        match kind {
            Arithmetic::F32(_) => 0,
            Arithmetic::F32Fused128 => {
                fused128(rounds);
                CHAINS * 4 * 2
            }
            Arithmetic::Bf16Pairs => {
                bf16_pairs(rounds);
                CHAINS * 32 * 2
            }
            Arithmetic::Int8Fours => {
                int8_fours(rounds);
                CHAINS * 64 * 2
            }
            Arithmetic::Bf16Tiles => {
                multiply_tiles::<false>(rounds);
                TILES * 16 * 16 * 32 * 2
            }
            Arithmetic::Int8Tiles => {
                multiply_tiles::<true>(rounds);
                TILES * 16 * 16 * 64 * 2
            }
        }
    }
}

#[target_feature(enable = "fma")]
unsafe fn fused128(rounds: usize) {
    let (a, b) = (_mm_set1_ps(black_box(0.999)), _mm_set1_ps(black_box(0.001)));
    let mut sums = [_mm_set1_ps(black_box(1.0)); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm_fmadd_ps(*sum, a, b);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn bf16_pairs(rounds: usize) {
    // SAFETY: both are 512 bits of any value.
    let a: __m512bh = unsafe { core::mem::transmute(_mm512_set1_epi16(black_box(0x3c00))) };
    let mut sums = [_mm512_set1_ps(black_box(1.0)); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, a, a);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn int8_fours(rounds: usize) {
    let a = _mm512_set1_epi8(black_box(1));
    let mut sums = [_mm512_set1_epi32(black_box(0)); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, a);
        }
    }
    black_box(sums);
}

/// Whether there are tiles of bf16 and of int8, and the system lets this process use them.
fn tiles() -> (bool, bool) {
    static TILES: OnceLock<(bool, bool)> = OnceLock::new();
    *TILES.get_or_init(|| {
        let info = raw_cpuid::CpuId::new().get_extended_feature_info();
        let has = info.map_or((false, false), |f| {
            let tiles = f.has_amx_tile();
            (tiles && f.has_amx_bf16(), tiles && f.has_amx_int8())
        });
        if amx::permission() == Some(Ok(())) { has } else { (false, false) }
    })
}

/// Products of a round: four accumulators of two by two operands.
const TILES: usize = 4;

/// # Safety
/// The tiles must be there and permitted.
unsafe fn multiply_tiles<const INT8: bool>(rounds: usize) {
    #[repr(C, align(64))]
    struct Config([u8; 64]);
    let mut config = Config([0; 64]);
    config.0[0] = 1; // the only palette there is
    for tile in 0..8 {
        config.0[16 + 2 * tile] = 64; // bytes of a row, u16
        config.0[48 + tile] = 16; // rows
    }
    // Small bf16 numbers (1.0), which are numbers of either type.
    let operand: Vec<u8> = [0x80, 0x3f].repeat(512);
    macro_rules! rounds {
        ($product:literal) => {
            // SAFETY: tiles are configured, read 1 KiB from the operand, and are released at the end; every one is
            // declared as changed.
            unsafe {
                asm!(
                    "ldtilecfg [{config}]",
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "tileloadd tmm4, [{operand} + {stride}*1]", "tileloadd tmm5, [{operand} + {stride}*1]",
                    "tileloadd tmm6, [{operand} + {stride}*1]", "tileloadd tmm7, [{operand} + {stride}*1]",
                    "test {left}, {left}",
                    "jz 3f",
                    "2:",
                    concat!($product, " tmm0, tmm4, tmm6"),
                    concat!($product, " tmm1, tmm4, tmm7"),
                    concat!($product, " tmm2, tmm5, tmm6"),
                    concat!($product, " tmm3, tmm5, tmm7"),
                    "dec {left}",
                    "jnz 2b",
                    "3:",
                    "tilerelease",
                    config = in(reg) config.0.as_ptr(),
                    operand = in(reg) operand.as_ptr(),
                    stride = in(reg) 64usize,
                    left = inout(reg) rounds => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly),
                );
            }
        };
    }
    if INT8 {
        rounds!("tdpbssd");
    } else {
        rounds!("tdpbf16ps");
    }
}
