//! Instruction sets: the only folder that names one.
//!
//! A kernel is written once, as a [`Kernel`] generic over [`Simd`], and compiled for each tier by
//! [`Tier::dispatch`], which enters it through a function that has the tier's features enabled. Everything between that
//! function and the intrinsics must be `#[inline(always)]`, or it is compiled without them.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod features;
pub mod peak;
mod portable;

pub use features::Features;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Whatever every machine has.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, and what AVX2 has.
    Avx512,
    /// AVX-512 with dot products of bytes (VNNI).
    Avx512Vnni,
    /// AMX with bf16 for many rows, and AVX-512 with VNNI and BF16 for everything else.
    Amx,
}

impl Tier {
    /// Every tier, slowest first.
    pub const ALL: [Tier; 5] = [Tier::Portable, Tier::Avx2, Tier::Avx512, Tier::Avx512Vnni, Tier::Amx];

    /// The fastest tier that this machine has.
    pub fn detect() -> Tier {
        let mut available = Tier::ALL.into_iter().filter(|t| t.available());
        available.next_back().unwrap_or(Tier::Portable)
    }

    /// What the system withholds: a sentence where the machine has tiles and the system does not let this process use them.
    pub fn withheld() -> Option<String> {
        #[cfg(target_arch = "x86_64")]
        if let Some(Err(refusal)) = amx::permission() {
            return Some(format!(
                "the system refuses the state of AMX tiles (error {}): the tier amx is not used",
                -refusal.status
            ));
        }
        None
    }

    /// Whether this machine has the tier.
    pub fn available(self) -> bool {
        match self {
            Tier::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => avx2::available(),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => avx512::available(),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => avx512::vnni_available(),
            #[cfg(target_arch = "x86_64")]
            Tier::Amx => amx::available(),
            #[cfg(not(target_arch = "x86_64"))]
            Tier::Avx2 | Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => false,
        }
    }

    /// `portable`, `avx2`, `avx512`, `avx512vnni`, `amx`.
    pub const fn name(self) -> &'static str {
        match self {
            Tier::Portable => "portable",
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
            Tier::Avx512Vnni => "avx512vnni",
            Tier::Amx => "amx",
        }
    }

    /// The inverse of [`Tier::name`].
    pub fn from_name(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|t| t.name() == name)
    }

    /// f32 lanes of a vector.
    pub(crate) const fn lanes(self) -> usize {
        match self {
            Tier::Portable => 4,
            Tier::Avx2 => 8,
            Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => 16,
        }
    }

    /// Runs a kernel compiled for this tier.
    ///
    /// # Safety
    /// The machine must have the tier, and what the kernel itself asks must hold.
    #[inline]
    pub(crate) unsafe fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        debug_assert!(self.available());
        match self {
            // SAFETY: every machine has this tier; the caller vouches for the kernel.
            Tier::Portable => unsafe { portable::enter(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller vouches for the tier and the kernel.
            Tier::Avx2 => unsafe { avx2::enter(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller vouches for the tier and the kernel.
            Tier::Avx512Vnni | Tier::Amx if K::BYTES => unsafe { avx512::enter_vnni(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above; what multiplies no bytes is the same in both.
            Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => unsafe { avx512::enter(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            Tier::Avx2 | Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => {
                unreachable!("the tier {} exists on x86-64 only", self.name())
            }
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Work that is compiled once for each tier.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// Whether it uses [`Simd::dot`]: only then is it compiled apart for tiers that differ in nothing else.
    const BYTES: bool = false;

    /// The work; must be `#[inline(always)]`.
    ///
    /// # Safety
    /// The machine must have the instruction set of `S`; the rest is each kernel's own.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// The vectors of an instruction set. Multiplications and additions are contracted only where `fma` says so.
///
/// # Safety
/// For every function: the machine must have the instruction set, and pointers must be valid for the elements named.
#[allow(clippy::missing_safety_doc)] // said once, above
pub(crate) trait Simd: Copy {
    /// f32 lanes of a vector: 4, 8 or 16.
    const LANES: usize;
    /// A vector of f32.
    type F: Copy;
    /// A vector of `LANES` 32-bit integers, or of four times as many bytes.
    type I: Copy;

    /// All lanes alike.
    unsafe fn splat(x: f32) -> Self::F;
    /// `LANES` elements, of any alignment.
    unsafe fn load(from: *const f32) -> Self::F;
    /// Stores `LANES` elements, of any alignment.
    unsafe fn store(to: *mut f32, x: Self::F);
    /// The first `n ≤ LANES` elements; the other lanes are 0 and their memory is not touched.
    unsafe fn load_first(from: *const f32, n: usize) -> Self::F;
    /// Stores the first `n ≤ LANES` lanes only.
    unsafe fn store_first(to: *mut f32, x: Self::F, n: usize);
    /// `a·b + c`, rounded once where the machine can.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a + b`.
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// `a − b`.
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`.
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a > b ? a : b` in each lane: `b` where either is no number.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b` in each lane: `b` where either is no number.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// `a ≤ b ? x : y` in each lane.
    unsafe fn where_le(a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// `x · 2^n` for whole n in −252..=254, rounded once where the result is subnormal.
    unsafe fn scale(x: Self::F, n: Self::F) -> Self::F;
    /// The sum of the lanes, in a fixed order.
    unsafe fn sum(x: Self::F) -> f32;
    /// Stores the sums of the lanes of four vectors, each in a fixed order: cheaper than four sums.
    unsafe fn sum_four(to: *mut f32, x: [Self::F; 4]);
    /// `LANES` pairs of bf16: the first and the second of every pair.
    unsafe fn bf16_pairs(from: *const u16) -> (Self::F, Self::F);
    /// `LANES` bf16.
    unsafe fn bf16(from: *const u16) -> Self::F;
    /// `LANES` f16.
    unsafe fn f16(from: *const u16) -> Self::F;
    /// `LANES` i8.
    unsafe fn i8(from: *const i8) -> Self::F;
    /// `4·LANES` bytes, of any alignment.
    unsafe fn load_bytes(from: *const u8) -> Self::I;
    /// Stores `4·LANES` bytes, of any alignment.
    unsafe fn store_bytes(to: *mut u8, x: Self::I);
    /// All 32-bit lanes alike.
    unsafe fn splat_word(x: i32) -> Self::I;
    /// `a & b`.
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    /// `a | b`.
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// 32-bit lanes shifted to the left by `n < 32` bits.
    unsafe fn shl(a: Self::I, n: i32) -> Self::I;
    /// 32-bit lanes shifted to the right by `n < 32` bits; zeros come in.
    unsafe fn shr(a: Self::I, n: i32) -> Self::I;
    /// 32-bit signed integers as f32.
    unsafe fn float(a: Self::I) -> Self::F;
    /// In each 32-bit lane: `sum` + the four products of the unsigned bytes of `a` with the signed bytes of `b`, exact.
    unsafe fn dot(sum: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// The same where no byte of `a` exceeds 127, which may be faster.
    unsafe fn dot_small(sum: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// Makes blocks of [`llamac_formats::q8`] of f32 in a way of the instruction set's own, and returns how many: the first
    /// of `blocks`, or none. The others are left to plain loops.
    #[inline(always)]
    unsafe fn q8(_out: *mut u8, _input: *const f32, _blocks: usize) -> usize {
        0
    }
    /// The same address, of which the compiler knows no more than that: what lies at constant distances of it is then addressed by one
    /// register and a constant.
    #[inline(always)]
    unsafe fn opaque(at: *const u8) -> *const u8 {
        at
    }
    /// Asks for the cache line at an address, which need not be valid.
    unsafe fn prefetch(at: *const u8);
    /// The same, but no nearer than the second-level cache.
    unsafe fn prefetch_far(at: *const u8);

    /// All lanes 0.
    #[inline(always)]
    unsafe fn zero() -> Self::F {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { Self::splat(0.0) }
    }
}

#[cfg(test)]
pub(crate) mod tests;
