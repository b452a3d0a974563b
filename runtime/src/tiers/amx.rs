//! Tiles of 16 rows of 64 bytes: two-dimensional registers that multiply 16×32 by 32×16 bf16 in one instruction.
//!
//! The intrinsics are not stable, so the instructions are written as assembly with explicit registers. The system grants
//! the registers' state to a process once, on request; a thread configures the tiles before it uses them and releases them
//! afterwards, so that a switch between threads saves nothing more than before.
//!
//! Registers: `tmm0`–`tmm3` hold sums (two row tiles × two panels), `tmm4`, `tmm5` activations, `tmm6`, `tmm7` weights.

use super::Simd;
use super::avx512::Avx512;
use core::arch::asm;
use core::arch::x86_64::*;
use core::mem::offset_of;
use std::sync::OnceLock;

/// Rows of a tile, and outputs of a panel.
pub(crate) const ROWS: usize = 16;

/// Inputs of a tile of bf16.
pub(crate) const INPUTS: usize = 32;

/// Why the tiles cannot be used on a machine that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What `arch_prctl` gave back: minus the error number.
    pub(crate) status: isize,
}

/// What `cpuid` says: tiles and their bf16 products, and a system that saves the tiles' state.
fn present() -> bool {
    let leaf = core::arch::x86_64::__cpuid_count(7, 0);
    let (bf16, tile) = (leaf.edx >> 22 & 1, leaf.edx >> 24 & 1);
    // Bit 27 of leaf 1's ecx: the system has enabled XGETBV.
    let xsave = core::arch::x86_64::__cpuid(1).ecx >> 27 & 1;
    if bf16 & tile & xsave == 0 {
        return false;
    }
    let (low, _high): (u32, u32);
    // SAFETY: the system has enabled the instruction; it reads a register and touches no memory.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _high, options(nomem, nostack)) };
    // Tile configuration and tile data.
    low >> 17 & 3 == 3
}

/// Asks the system for the tiles' state, once in a process. `None` where the machine has no tiles.
pub(crate) fn permission() -> Option<Result<(), Refusal>> {
    static ASKED: OnceLock<Option<Result<(), Refusal>>> = OnceLock::new();
    *ASKED.get_or_init(|| present().then(request))
}

#[cfg(target_os = "linux")]
fn request() -> Result<(), Refusal> {
    const ARCH_REQ_XCOMP_PERM: isize = 0x1023;
    const TILE_DATA: isize = 18;
    let status: isize;
    // SAFETY: the call changes which registers the system saves for this process; it reads and writes no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") libc::SYS_arch_prctl as isize => status,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    if status == 0 { Ok(()) } else { Err(Refusal { status }) }
}

#[cfg(not(target_os = "linux"))]
fn request() -> Result<(), Refusal> {
    Ok(())
}

/// Whether tiles can be used here.
pub(super) fn available() -> bool {
    super::avx512::vnni_available() && is_x86_feature_detected!("avx512bf16") && permission() == Some(Ok(()))
}

/// Vectors that are rounded to bf16 on their way to memory: to nearest even, subnormal results to 0.
///
/// # Safety
/// For every function: the machine must have the tier, and pointers must be valid for the elements named.
#[allow(clippy::missing_safety_doc)] // said once, above
pub(crate) trait Narrow: Simd {
    /// Stores the first and the second of `LANES` pairs.
    unsafe fn store_pairs(to: *mut u16, first: Self::F, second: Self::F);
    /// Stores two vectors, one after the other.
    unsafe fn store_two(to: *mut u16, first: Self::F, second: Self::F);
}

impl Narrow for Avx512<true> {
    #[inline(always)]
    unsafe fn store_pairs(to: *mut u16, first: __m512, second: __m512) {
        // SAFETY: the caller vouches for the instruction set and the room.
        unsafe {
            let pairs = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                17, 1, 16, 0,
            );
            let both = core::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(pairs, both));
        }
    }

    #[inline(always)]
    unsafe fn store_two(to: *mut u16, first: __m512, second: __m512) {
        // SAFETY: the caller vouches for the instruction set and the room.
        unsafe {
            let both = core::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            _mm512_storeu_si512(to.cast(), both);
        }
    }
}

/// Work whose results are bf16 for tiles.
pub(crate) trait NarrowKernel {
    /// The work; must be `#[inline(always)]`.
    ///
    /// # Safety
    /// The machine must have the instruction set of `S`; the rest is each kernel's own.
    unsafe fn run<S: Narrow>(self);
}

/// Runs a kernel compiled for this tier.
///
/// # Safety
/// The machine must have the tier, and what the kernel itself asks must hold.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
pub(crate) unsafe fn enter<K: NarrowKernel>(kernel: K) {
    // SAFETY: the caller vouches for both.
    unsafe { kernel.run::<Avx512<true>>() }
}

/// `ldtilecfg`'s operand.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// A thread's tiles while they are configured.
pub(crate) struct Tiles {
    rows: [usize; 2],
}

impl Tiles {
    /// Configures the tiles for two row tiles of 16 rows.
    ///
    /// # Safety
    /// The machine must have the tier.
    pub(crate) unsafe fn new() -> Tiles {
        let mut tiles = Tiles { rows: [0; 2] };
        // SAFETY: the caller vouches for the machine.
        unsafe { tiles.configure([ROWS; 2]) };
        tiles
    }

    /// Makes the first and the second row tile so many rows tall, 1 to 16 each. What the tiles hold is lost where that is a change.
    ///
    /// # Safety
    /// The machine must have the tier.
    pub(crate) unsafe fn configure(&mut self, rows: [usize; 2]) {
        debug_assert!(rows.iter().all(|r| (1..=ROWS).contains(r)));
        if self.rows == rows {
            return;
        }
        self.rows = rows;
        let (first, second, all) = (rows[0] as u8, rows[1] as u8, ROWS as u8);
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        configuration.row_bytes[..8].fill(64);
        configuration.rows[..8].copy_from_slice(&[first, first, second, second, first, second, all, all]);
        // SAFETY: the machine has the instruction; the configuration is 64 bytes of a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly)) };
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles are configured, so the machine has the instruction.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// The operands of [`multiply`]: up to two row tiles and two panels.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// The row tiles of activations, `[steps][rows][32]` bf16 each.
    pub(crate) a: [*const u8; 2],
    /// How many there are, 1 or 2.
    pub(crate) row_tiles: usize,
    /// The panels of weights, `[steps][16 pairs of inputs][16 outputs][2]` bf16 each.
    pub(crate) b: [*const u8; 2],
    /// How many there are, 1 or 2.
    pub(crate) panels: usize,
    /// Blocks of 32 inputs, at least 1.
    pub(crate) steps: usize,
    /// Sums of the first row tile and each panel.
    pub(crate) sums: [*mut f32; 2],
    /// Bytes from row to row of the sums.
    pub(crate) stride: usize,
    /// Whether the sums start at 0 (and not at what they are).
    pub(crate) fresh: bool,
}

/// Bytes that a product asks for in advance, some cache lines a step. They need not exist.
#[derive(Clone, Copy)]
pub(crate) struct Prefetch {
    /// The first.
    pub(crate) from: *const u8,
    /// Bytes from step to step.
    pub(crate) step: usize,
    /// Cache lines of a step.
    pub(crate) lines: usize,
}

/// What the assembly reads, by offset.
#[repr(C)]
struct Call {
    a: [*const u8; 2],
    b: [*const u8; 2],
    steps: usize,
    /// Bytes from step to step of each row tile.
    a_step: [usize; 2],
    /// By row tile, then panel.
    sums: [*mut f32; 4],
    stride: usize,
    fresh: usize,
    ahead: [*const u8; 2],
    ahead_step: [usize; 2],
    ahead_lines: [usize; 2],
}

/// `sums += a · b`, products and sums in f32, pair by pair of inputs.
///
/// # Safety
/// The machine must have the tier, and this thread the tiles configured for the rows of `a`. The operands must be valid
/// for the sizes given; the second row tile's sums lie 16 rows after the first's.
pub(crate) unsafe fn multiply(tiles: &Tiles, p: &Product) {
    // Nothing but what is at hand.
    let ahead = Prefetch { from: p.a[0], step: 0, lines: 1 };
    // SAFETY: the caller vouches for all of it.
    unsafe { multiply_ahead(tiles, p, [ahead; 2]) };
}

/// The same; `ahead` is fetched into the second-level cache meanwhile: all of it by products of two row tiles and two panels, the
/// second by all others.
///
/// # Safety
/// As [`multiply`].
// As a call of its own, its loop where it happened to lie, the GEMMs of a prefill took 4 to 5% longer.
#[inline(always)]
pub(crate) unsafe fn multiply_ahead(tiles: &Tiles, p: &Product, ahead: [Prefetch; 2]) {
    let second = p.sums.map(|s| s.wrapping_byte_add(ROWS * p.stride));
    let call = Call {
        a: p.a,
        b: p.b,
        steps: p.steps,
        a_step: tiles.rows.map(|rows| rows * 64),
        sums: [p.sums[0], p.sums[1], second[0], second[1]],
        stride: p.stride,
        fresh: p.fresh.into(),
        ahead: ahead.map(|a| a.from),
        ahead_step: ahead.map(|a| a.step),
        ahead_lines: ahead.map(|a| a.lines.max(1)),
    };
    // SAFETY: the caller vouches for the machine, the tiles and the operands.
    unsafe {
        match (p.row_tiles, p.panels) {
            (2, 2) => two_by_two(&call),
            (2, _) => two_by_one(&call),
            (_, 2) => one_by_two(&call),
            _ => one_by_one(&call),
        }
    }
}

/// Asks for the lines of a step, from the last to the first.
macro_rules! prefetch {
    ($from:literal, $which:literal) => {
        concat!(
            "mov {c}, [{call} + {ahead_lines} + ",
            $which,
            "]\n",
            "shl {c}, 6\n",
            "5:\n",
            "prefetcht1 [{",
            $from,
            "} + {c} - 64]\n",
            "sub {c}, 64\n",
            "jnz 5b",
        )
    };
}

/// One product: sums of some row tiles × panels, zeroed or loaded, a loop over the steps, sums stored. The sums live in
/// tile registers from the first instruction to the last, so it is one piece of assembly.
///
/// Weights are loaded with the hint that they are not soon used again: activations stay in the first-level cache beside them.
macro_rules! product {
    ($name:ident, sums: [$(($tmm:literal, $sum:literal)),*], loop: [$($body:expr),* $(,)?]) => {
        /// # Safety
        /// As [`multiply`].
        unsafe fn $name(call: &Call) {
            // SAFETY: the caller vouches for the operands. Every register written is an output.
            unsafe {
                asm!(
                    "mov {s}, [{call} + {stride}]",
                    "cmp qword ptr [{call} + {fresh}], 0",
                    "je 3f",
                    $(concat!("tilezero ", $tmm),)*
                    "jmp 4f",
                    "3:",
                    $(concat!("mov {a0}, [{call} + {sums} + ", $sum, "]"),
                    concat!("tileloadd ", $tmm, ", [{a0} + {s}]"),)*
                    "4:",
                    "mov {a0}, [{call} + {a}]",
                    "mov {a1}, [{call} + {a} + 8]",
                    "mov {b0}, [{call} + {b}]",
                    "mov {b1}, [{call} + {b} + 8]",
                    "mov {p0}, [{call} + {ahead}]",
                    "mov {p1}, [{call} + {ahead} + 8]",
                    "mov {n}, [{call} + {steps}]",
                    "mov {s}, 64",
                    ".p2align 6",
                    "2:",
                    $($body,)*
                    "add {p0}, [{call} + {ahead_step}]",
                    "add {p1}, [{call} + {ahead_step} + 8]",
                    "add {a0}, [{call} + {a_step}]",
                    "add {a1}, [{call} + {a_step} + 8]",
                    "add {b0}, 1024",
                    "add {b1}, 1024",
                    "dec {n}",
                    "jnz 2b",
                    "mov {s}, [{call} + {stride}]",
                    $(concat!("mov {a0}, [{call} + {sums} + ", $sum, "]"),
                    concat!("tilestored [{a0} + {s}], ", $tmm),)*
                    call = in(reg) call,
                    a0 = out(reg) _, a1 = out(reg) _, b0 = out(reg) _, b1 = out(reg) _, n = out(reg) _, s = out(reg) _,
                    p0 = out(reg) _, p1 = out(reg) _, c = out(reg) _,
                    a = const offset_of!(Call, a), b = const offset_of!(Call, b), steps = const offset_of!(Call, steps),
                    a_step = const offset_of!(Call, a_step), sums = const offset_of!(Call, sums),
                    stride = const offset_of!(Call, stride), fresh = const offset_of!(Call, fresh),
                    ahead = const offset_of!(Call, ahead), ahead_step = const offset_of!(Call, ahead_step),
                    ahead_lines = const offset_of!(Call, ahead_lines),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    };
}

product!(two_by_two, sums: [("tmm0", "0"), ("tmm1", "8"), ("tmm2", "16"), ("tmm3", "24")], loop: [
    "tileloaddt1 tmm6, [{b0} + {s}]",
    "tileloaddt1 tmm7, [{b1} + {s}]",
    "tileloadd tmm4, [{a0} + {s}]",
    "tileloadd tmm5, [{a1} + {s}]",
    prefetch!("p0", "0"),
    prefetch!("p1", "8"),
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tdpbf16ps tmm3, tmm5, tmm7",
]);
product!(two_by_one, sums: [("tmm0", "0"), ("tmm2", "16")], loop: [
    "tileloadd tmm4, [{a0} + {s}]",
    "tileloaddt1 tmm6, [{b0} + {s}]",
    "tileloadd tmm5, [{a1} + {s}]",
    prefetch!("p1", "8"),
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tdpbf16ps tmm2, tmm5, tmm6",
]);
product!(one_by_two, sums: [("tmm0", "0"), ("tmm1", "8")], loop: [
    "tileloadd tmm4, [{a0} + {s}]",
    "tileloaddt1 tmm6, [{b0} + {s}]",
    "tileloaddt1 tmm7, [{b1} + {s}]",
    prefetch!("p1", "8"),
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tdpbf16ps tmm1, tmm4, tmm7",
]);
product!(one_by_one, sums: [("tmm0", "0")], loop: [
    "tileloadd tmm4, [{a0} + {s}]",
    "tileloaddt1 tmm6, [{b0} + {s}]",
    prefetch!("p1", "8"),
    "tdpbf16ps tmm0, tmm4, tmm6",
]);
