use super::*;

/// The tiers of this machine; says which it lacks.
pub(crate) fn available() -> impl Iterator<Item = Tier> {
    Tier::ALL.into_iter().filter(|tier| {
        if !tier.available() {
            println!("skipped: this machine lacks the tier {tier}");
        }
        tier.available()
    })
}

#[test]
fn names() {
    for tier in Tier::ALL {
        assert_eq!(Tier::from_name(tier.name()), Some(tier));
        assert_eq!(tier.to_string(), tier.name());
    }
    assert_eq!(Tier::from_name("sse9"), None);
    assert!(Tier::detect().available());
}

/// Every operation of an instruction set against plain arithmetic, lane by lane.
struct Operations;

impl Kernel for Operations {
    type Output = ();
    const BYTES: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let a: Vec<f32> = (0..S::LANES).map(|i| i as f32 * 1.5 - 3.0).collect();
        let b: Vec<f32> = (0..S::LANES).map(|i| 2.0 - i as f32 * 0.25).collect();
        let c: Vec<f32> = (0..S::LANES).map(|i| (i * i) as f32).collect();
        let lanes = |x: S::F| {
            let mut out = vec![0.0; S::LANES];
            // SAFETY: room for `LANES` elements.
            unsafe { S::store(out.as_mut_ptr(), x) };
            out
        };
        let each =
            |f: &dyn Fn(f32, f32, f32) -> f32| -> Vec<f32> { (0..S::LANES).map(|i| f(a[i], b[i], c[i])).collect() };
        // SAFETY: the vectors have `LANES` elements; the caller vouches for the instruction set.
        unsafe {
            let (va, vb, vc) = (S::load(a.as_ptr()), S::load(b.as_ptr()), S::load(c.as_ptr()));
            assert_eq!(lanes(S::fma(va, vb, vc)), each(&|a, b, c| a * b + c));
            assert_eq!(lanes(S::add(va, vb)), each(&|a, b, _| a + b));
            assert_eq!(lanes(S::sub(va, vb)), each(&|a, b, _| a - b));
            assert_eq!(lanes(S::mul(va, vb)), each(&|a, b, _| a * b));
            assert_eq!(lanes(S::max(va, vb)), each(&|a, b, _| a.max(b)));
            assert_eq!(lanes(S::min(va, vb)), each(&|a, b, _| a.min(b)));
            assert_eq!(lanes(S::where_le(va, vb, vc, va)), each(&|a, b, c| if a <= b { c } else { a }));
            assert_eq!(S::sum(va), a.iter().sum::<f32>());
            // Of small whole multiples of a quarter, so in any order.
            let mut four = [0.0; 4];
            S::sum_four(four.as_mut_ptr(), [va, vb, vc, S::sub(va, vb)]);
            assert_eq!(four, [S::sum(va), S::sum(vb), S::sum(vc), S::sum(va) - S::sum(vb)]);
            assert!(lanes(S::max(va, S::splat(f32::NAN))).iter().all(|x| x.is_nan()));
            assert_eq!(lanes(S::min(S::splat(f32::NAN), vb)), b);
            for n in -250..=250 {
                let scaled = lanes(S::scale(va, S::splat(n as f32)));
                let wanted: Vec<f32> = a.iter().map(|a| (f64::from(*a) * 2f64.powi(n)) as f32).collect();
                assert_eq!(scaled, wanted, "2^{n}");
            }
            for n in 0..=S::LANES {
                let mut first = a.clone();
                first[n..].fill(0.0);
                assert_eq!(lanes(S::load_first(a.as_ptr(), n)), first);
                let mut out = vec![9.0; S::LANES];
                S::store_first(out.as_mut_ptr(), va, n);
                first[n..].fill(9.0);
                assert_eq!(out, first);
            }
            let pairs: Vec<u16> = (0..2 * S::LANES as u16).map(|i| 0x3f80 + i * 37).collect();
            let (first, second) = S::bf16_pairs(pairs.as_ptr());
            let wide = |x: &u16| half::bf16::from_bits(*x).to_f32();
            assert_eq!(lanes(first), pairs.iter().step_by(2).map(wide).collect::<Vec<_>>());
            assert_eq!(lanes(second), pairs.iter().skip(1).step_by(2).map(wide).collect::<Vec<_>>());
            assert_eq!(lanes(S::bf16(pairs.as_ptr())), pairs[..S::LANES].iter().map(wide).collect::<Vec<_>>());
            S::prefetch(std::ptr::null());
            let bytes: Vec<u8> = (0..4 * S::LANES).map(|i| (i * 89 + 130) as u8).collect();
            let other: Vec<u8> = (0..4 * S::LANES).map(|i| (i * 151 + 128) as u8).collect();
            let words = |bytes: &[u8]| -> Vec<u32> {
                bytes.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
            };
            // Sixteen bits at a time are exact as f32.
            let each_word = |x: S::I, wanted: &dyn Fn(usize) -> u32| {
                let low = lanes(S::float(S::and(x, S::splat_word(0xffff))));
                let high = lanes(S::float(S::shr(x, 16)));
                for i in 0..S::LANES {
                    assert_eq!(low[i] as u32 | (high[i] as u32) << 16, wanted(i), "lane {i}");
                }
            };
            let (x, y) = (S::load_bytes(bytes.as_ptr()), S::load_bytes(other.as_ptr()));
            let (a, b) = (words(&bytes), words(&other));
            each_word(x, &|i| a[i]);
            each_word(S::and(x, y), &|i| a[i] & b[i]);
            each_word(S::or(x, y), &|i| a[i] | b[i]);
            each_word(S::shl(x, 3), &|i| a[i] << 3);
            each_word(S::shr(x, 5), &|i| a[i] >> 5);
            let product = |mask: u8, i: usize| -> u32 {
                let of = |b: usize| i32::from(bytes[4 * i + b] & mask) * i32::from(other[4 * i + b] as i8);
                (-7 + (0..4).map(of).sum::<i32>()) as u32
            };
            each_word(S::dot(S::splat_word(-7), x, y), &|i| product(0xff, i));
            let small = S::and(x, S::splat_word(0x7f7f_7f7f));
            each_word(S::dot_small(S::splat_word(-7), small, y), &|i| product(0x7f, i));
            // All at their most: nothing saturates.
            let most = S::dot(S::splat_word(0), S::splat_word(-1), S::splat_word(0x8080_8080_u32 as i32));
            each_word(most, &|_| (-4 * 255 * 128i32) as u32);
            let most =
                S::dot_small(S::splat_word(0), S::splat_word(0x7f7f_7f7f), S::splat_word(0x8181_8181_u32 as i32));
            each_word(most, &|_| (-4 * 127 * 127i32) as u32);
            let signed: Vec<f32> = other[..S::LANES].iter().map(|x| f32::from(*x as i8)).collect();
            assert_eq!(lanes(S::i8(other.as_ptr().cast())), signed);
            assert_eq!(lanes(S::float(S::splat_word(-5))), vec![-5.0; S::LANES]);
        }
    }
}

#[test]
fn operations_of_every_tier() {
    for tier in available() {
        // SAFETY: the tier is available.
        unsafe { tier.dispatch(Operations) };
    }
}

/// Widens `LANES` f16 values.
struct Widen<'a> {
    from: &'a [u16],
    to: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (from, to) in self.from.chunks_exact(S::LANES).zip(self.to.chunks_exact_mut(S::LANES)) {
            // SAFETY: both chunks have `LANES` elements.
            unsafe { S::store(to.as_mut_ptr(), S::f16(from.as_ptr())) };
        }
    }
}

#[test]
fn every_f16_widens() {
    let from: Vec<u16> = (0..=u16::MAX).collect();
    for tier in available() {
        let mut to = vec![0.0; from.len()];
        // SAFETY: the tier is available.
        unsafe { tier.dispatch(Widen { from: &from, to: &mut to }) };
        for (from, to) in from.iter().zip(to) {
            let exact = half::f16::from_bits(*from).to_f32_const();
            assert!(to.to_bits() == exact.to_bits() || (to.is_nan() && exact.is_nan()), "{tier}: {from:#x}");
        }
    }
}
