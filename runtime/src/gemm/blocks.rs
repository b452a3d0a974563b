//! How the block formats lie in a panel, and how their vectors become integers and f32.

use crate::tiers::{Kernel, Simd};
use llamac_formats::panel::blocks::{FIELDS, PART, VECTOR, group, header_bytes, part_bytes};
use llamac_formats::{BlockFormat, PANEL_WIDTH};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A block format of packed weights.
pub(crate) trait Blocks: Copy {
    /// Which.
    const FORMAT: BlockFormat;
    // Constants, and not calls of the format's functions: those are of another crate, and would be calls in the innermost loops.
    /// Bits of a quant.
    const BITS: u32 = Self::FORMAT.bits();
    /// The quant that stands for zero; 0 where there is a minimum.
    const ZERO: u8 = Self::FORMAT.zero();
    /// Parts of a group.
    const PARTS: usize = group(Self::FORMAT) / PART;
    /// Bytes of a group's header.
    const HEADER: usize = header_bytes(Self::FORMAT);
    /// Bytes of a part's quants.
    const PART_BYTES: usize = part_bytes(Self::FORMAT);
    /// Bytes of a group.
    const GROUP_BYTES: usize = Self::HEADER + Self::PARTS * Self::PART_BYTES;
    /// Scales of a part: 1, or 2 where one is for sixteen inputs.
    const SCALES: usize = PART / Self::FORMAT.part();
    /// Whether a minimum is added, and no quant stands for zero.
    const MINIMUM: bool = Self::ZERO == 0;
    /// Whether scales and minima are small integers that have scales of their own.
    const NESTED: bool = Self::FORMAT.elements() == 256;
}

macro_rules! formats {
    ($($name:ident)*) => {$(
        #[doc = concat!("`BlockFormat::", stringify!($name), "`")]
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Blocks for $name {
            const FORMAT: BlockFormat = BlockFormat::$name;
        }
    )*};
}

formats!(Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4K Q5K Q6K);

/// Runs `$body` with `$name` standing for the marker type of a block format.
macro_rules! with_format {
    ($format:expr, $name:ident => $body:expr) => {{
        use $crate::gemm::blocks as formats;
        match $format {
            llamac_formats::BlockFormat::Q8_0 => {
                type $name = formats::Q8_0;
                $body
            }
            llamac_formats::BlockFormat::Q4_0 => {
                type $name = formats::Q4_0;
                $body
            }
            llamac_formats::BlockFormat::Q4_1 => {
                type $name = formats::Q4_1;
                $body
            }
            llamac_formats::BlockFormat::Q5_0 => {
                type $name = formats::Q5_0;
                $body
            }
            llamac_formats::BlockFormat::Q5_1 => {
                type $name = formats::Q5_1;
                $body
            }
            llamac_formats::BlockFormat::Q4K => {
                type $name = formats::Q4K;
                $body
            }
            llamac_formats::BlockFormat::Q5K => {
                type $name = formats::Q5K;
                $body
            }
            llamac_formats::BlockFormat::Q6K => {
                type $name = formats::Q6K;
                $body
            }
        }
    }};
}
pub(super) use with_format;

/// The quants of half a part, as stored: vector `v` (outputs `v·LANES..`) of inputs `16·half + 4·i ..` for i = 0..4.
///
/// # Safety
/// The machine must have the instruction set; the part must lie at `part`.
#[inline(always)]
pub(super) unsafe fn quants<S: Simd, B: Blocks>(part: *const u8, half: usize, v: usize) -> [S::I; 4] {
    // SAFETY: the caller vouches for both.
    unsafe {
        let at = part.add(v * 4 * S::LANES);
        if B::BITS == 8 {
            let at = at.add(4 * half * VECTOR);
            return [
                S::load_bytes(at),
                S::load_bytes(at.add(VECTOR)),
                S::load_bytes(at.add(2 * VECTOR)),
                S::load_bytes(at.add(3 * VECTOR)),
            ];
        }
        let low = S::splat_word(0x0f0f_0f0f);
        let (a, b) = (S::load_bytes(at.add(2 * half * VECTOR)), S::load_bytes(at.add((2 * half + 1) * VECTOR)));
        let q = [S::and(a, low), S::and(S::shr(a, 4), low), S::and(b, low), S::and(S::shr(b, 4), low)];
        // What the shifts move from byte to byte is masked away.
        let high = match B::BITS {
            4 => return q,
            5 => {
                let (bit, h) = (S::splat_word(0x1010_1010), S::load_bytes(at.add(4 * VECTOR)));
                let h = match half {
                    0 => [S::shl(h, 4), S::shl(h, 3), S::shl(h, 2), S::shl(h, 1)],
                    _ => [h, S::shr(h, 1), S::shr(h, 2), S::shr(h, 3)],
                };
                [S::and(h[0], bit), S::and(h[1], bit), S::and(h[2], bit), S::and(h[3], bit)]
            }
            _ => {
                let (bits, h) = (S::splat_word(0x3030_3030), S::load_bytes(at.add((4 + half) * VECTOR)));
                let h = [S::shl(h, 4), S::shl(h, 2), h, S::shr(h, 2)];
                [S::and(h[0], bits), S::and(h[1], bits), S::and(h[2], bits), S::and(h[3], bits)]
            }
        };
        [S::or(q[0], high[0]), S::or(q[1], high[1]), S::or(q[2], high[2]), S::or(q[3], high[3])]
    }
}

/// The products of the nested scales of one group of a panel, and its minima, `[16][16 outputs]`; the other formats need no
/// such table.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(super) struct Scales(MaybeUninit<[[f32; PANEL_WIDTH]; 16]>);

impl Scales {
    /// A table of nothing yet.
    pub(super) const EMPTY: Scales = Scales(MaybeUninit::uninit());

    #[inline(always)]
    fn at(&self, field: usize) -> *const f32 {
        self.0.as_ptr().cast::<f32>().wrapping_add(field * PANEL_WIDTH)
    }

    /// Fills the table for a group.
    ///
    /// # Safety
    /// The machine must have the instruction set; the group must lie at `group`.
    #[inline(always)]
    pub(super) unsafe fn fill<S: Simd, B: Blocks>(&mut self, group: *const u8) {
        // SAFETY: the caller vouches for both.
        unsafe { Scales::write::<S, B>(self.0.as_mut_ptr().cast::<f32>(), group) }
    }

    /// Writes a group's table to where it is wanted: the scales of the parts, or of their halves, and from row 8 on the minima.
    ///
    /// # Safety
    /// As [`Scales::fill`]; there must be room for the table.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd, B: Blocks>(table: *mut f32, group: *const u8) {
        if !B::NESTED {
            return;
        }
        let mut v = 0;
        while v < PANEL_WIDTH / S::LANES {
            // SAFETY: the caller vouches for both; the table has sixteen rows.
            unsafe {
                let table = table.add(v * S::LANES);
                let halves = group.cast::<u16>().add(v * S::LANES);
                let d = S::f16(halves);
                if B::MINIMUM {
                    let m = S::sub(S::zero(), S::f16(halves.add(PANEL_WIDTH)));
                    let word = |i: usize| S::load_bytes(group.add(FIELDS + i * VECTOR + v * 4 * S::LANES));
                    let (words, six) = ([word(0), word(1), word(2)], S::splat_word(63));
                    let mut i = 0;
                    while i < 15 {
                        let field = S::float(S::and(S::shr(words[i / 5], (i % 5 * 6) as i32), six));
                        S::store(table.add(i * PANEL_WIDTH), S::mul(if i < 8 { d } else { m }, field));
                        i += 1;
                    }
                    let last = S::or(
                        S::shr(words[0], 30),
                        S::or(S::shl(S::shr(words[1], 30), 2), S::shl(S::shr(words[2], 30), 4)),
                    );
                    S::store(table.add(15 * PANEL_WIDTH), S::mul(m, S::float(last)));
                } else {
                    let mut i = 0;
                    while i < 16 {
                        let scale = S::i8(group.add(FIELDS + i * PANEL_WIDTH + v * S::LANES).cast());
                        S::store(table.add(i * PANEL_WIDTH), S::mul(d, scale));
                        i += 1;
                    }
                }
            }
            v += 1;
        }
    }

    /// The factor of the quants of a part, or of half of it where it has two scales.
    ///
    /// # Safety
    /// As [`Scales::fill`], which must have been done for this group.
    #[inline(always)]
    pub(super) unsafe fn scale<S: Simd, B: Blocks>(
        &self,
        group: *const u8,
        part: usize,
        half: usize,
        v: usize,
    ) -> S::F {
        // SAFETY: the caller vouches for all of it.
        unsafe {
            if B::NESTED {
                S::load(self.at(part * B::SCALES + if B::SCALES == 2 { half } else { 0 }).add(v * S::LANES))
            } else {
                S::f16(group.cast::<u16>().add(part * PANEL_WIDTH + v * S::LANES))
            }
        }
    }

    /// What is added to quants times scale, where the format has a minimum.
    ///
    /// # Safety
    /// As [`Scales::scale`].
    #[inline(always)]
    pub(super) unsafe fn minimum<S: Simd, B: Blocks>(&self, group: *const u8, part: usize, v: usize) -> S::F {
        // SAFETY: the caller vouches for all of it.
        unsafe {
            if B::NESTED {
                S::load(self.at(8 + part).add(v * S::LANES))
            } else {
                S::f16(group.add(VECTOR).cast::<u16>().add(part * PANEL_WIDTH + v * S::LANES))
            }
        }
    }

    /// Scale and offset of half a part: a weight is `quant · scale + offset`, rounded once at most.
    ///
    /// # Safety
    /// As [`Scales::scale`].
    #[inline(always)]
    pub(super) unsafe fn line<S: Simd, B: Blocks>(
        &self,
        group: *const u8,
        part: usize,
        half: usize,
        v: usize,
    ) -> (S::F, S::F) {
        // SAFETY: the caller vouches for all of it.
        unsafe {
            let scale = self.scale::<S, B>(group, part, half, v);
            let offset = if B::MINIMUM {
                self.minimum::<S, B>(group, part, v)
            } else {
                S::mul(scale, S::splat(-f32::from(B::ZERO)))
            };
            (scale, offset)
        }
    }
}

/// Input `i` of the four of a vector of quants, as weights.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub(super) unsafe fn weight<S: Simd>(quants: S::I, i: usize, scale: S::F, offset: S::F) -> S::F {
    // SAFETY: the caller vouches for it.
    unsafe { S::fma(S::float(S::and(S::shr(quants, 8 * i as i32), S::splat_word(0xff))), scale, offset) }
}

/// Unpacks inputs of one panel to f32 `[k][16]`.
pub(crate) struct UnpackBlocks<B> {
    pub(crate) format: PhantomData<B>,
    /// The first group.
    pub(crate) from: *const u8,
    /// Inputs, whole blocks.
    pub(crate) k: usize,
    /// Room for `k · 16`.
    pub(crate) to: *mut f32,
}

impl<B: Blocks> Kernel for UnpackBlocks<B> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut scales = Scales::EMPTY;
        for part in 0..self.k / PART {
            let in_group = part % B::PARTS;
            // SAFETY: the caller vouches for both addresses.
            unsafe {
                let group = self.from.add(part / B::PARTS * B::GROUP_BYTES);
                if in_group == 0 {
                    scales.fill::<S, B>(group);
                }
                let quants_at = group.add(B::HEADER + in_group * B::PART_BYTES);
                let mut half = 0;
                while half < 2 {
                    let mut v = 0;
                    while v < PANEL_WIDTH / S::LANES {
                        let (scale, offset) = scales.line::<S, B>(group, in_group, half, v);
                        let q = quants::<S, B>(quants_at, half, v);
                        let to = self.to.add((part * PART + half * 16) * PANEL_WIDTH + v * S::LANES);
                        let mut i = 0;
                        while i < 16 {
                            S::store(to.add(i * PANEL_WIDTH), weight::<S>(q[i / 4], i % 4, scale, offset));
                            i += 1;
                        }
                        v += 1;
                    }
                    half += 1;
                }
            }
        }
    }
}
