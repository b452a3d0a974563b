//! The inline transcendental functions, judged in f64 over all exponents.

use llamac_codegen::emit::probe_unary;
use llamac_codegen::{JitCode, Target};
use llamac_formats::program::KernelArgs;
use llamac_ir::UnaryOp;

/// Runs the probe kernel over the inputs.
fn run(op: UnaryOp, target: Target, lanes: bool, input: &[f32]) -> Vec<f32> {
    assert_eq!(input.len() % 4, 0, "the probe works on rows of four");
    let isa = target.isa().unwrap();
    let machine = probe_unary(&*isa, op, lanes).unwrap();
    let code = JitCode::map([machine.code.as_slice()]).unwrap();
    let mut out = vec![0f32; input.len()];
    let buffers = [input.as_ptr() as *mut u8, out.as_mut_ptr().cast::<u8>()];
    let args = KernelArgs {
        buffers: buffers.as_ptr(),
        scalars: std::ptr::null(),
        routines: std::ptr::null(),
        scratch: std::ptr::null_mut(),
    };
    // SAFETY: the address is a row kernel of two buffers, which hold as many rows of four as it is told to do.
    unsafe {
        let kernel: extern "C" fn(*const KernelArgs, u64, u64) = std::mem::transmute(code.addresses()[0]);
        kernel(&args, 0, input.len() as u64 / 4);
    }
    out
}

/// Floats of both signs and every exponent, subnormals included: some thousand to each.
fn all_exponents() -> Vec<f32> {
    let mut values = vec![];
    for exponent in 0..=254u32 {
        for i in 0..2048u32 {
            let mantissa = (i * 4096 + i.wrapping_mul(2_654_435_761) % 4096) & 0x7f_ffff;
            let bits = exponent << 23 | mantissa;
            values.push(f32::from_bits(bits));
            values.push(f32::from_bits(bits | 1 << 31));
        }
    }
    values
}

/// Distance of `found` from the exact value, in units of the last place of the rounded exact value.
fn ulps(found: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if rounded.is_infinite() || found.is_infinite() {
        // Past the largest float by less than the rounding error, either answer will do.
        let limit = f64::from(f32::MAX) * (1.0 + 2.0 * f64::from(f32::EPSILON));
        return if found == rounded || exact.abs() <= limit && exact.abs() >= f64::from(f32::MAX) * (1.0 - 1e-6) {
            0.0
        } else {
            f64::INFINITY
        };
    }
    let exponent = if rounded == 0.0 { -126 } else { (rounded.abs().to_bits() >> 23).max(1) as i32 - 127 };
    let ulp = 2f64.powi(exponent - 23);
    (f64::from(found) - exact).abs() / ulp
}

fn targets() -> Vec<Target> {
    let mut all = vec![Target::X86V2, Target::Native];
    if std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx2") {
        all.push(Target::X86V3);
    }
    all
}

fn worst(op: UnaryOp, exact: fn(f64) -> f64, limit: f64) {
    let input = all_exponents();
    for target in targets() {
        for lanes in [true, false] {
            let out = run(op, target, lanes, &input);
            let mut worst = (0.0, 0.0);
            for (&x, &y) in input.iter().zip(&out) {
                let error = ulps(y, exact(f64::from(x)));
                if error.is_nan() || error > worst.0 {
                    worst = (error, x);
                }
            }
            eprintln!("{op} {target} lanes={lanes}: {:.3} ulp at {:e}", worst.0, worst.1);
            assert!(worst.0 <= limit, "{op} on {target}, lanes={lanes}: {} ulp at {:e}", worst.0, worst.1);
        }
    }
}

#[test]
fn exp_is_within_one_ulp_and_never_subnormal() {
    // The float next to ln of the smallest normal number: below it the result is 0.
    let exact = |x: f64| if x < f64::from(-87.336_54_f32) { 0.0 } else { x.exp() };
    worst(UnaryOp::Exp, exact, 1.0);
}

#[test]
fn tanh_is_within_two_ulps_everywhere() {
    worst(UnaryOp::Tanh, f64::tanh, 2.0);
}

#[test]
fn rsqrt_and_recip_round_each_operation() {
    for (op, exact) in [(UnaryOp::Rsqrt, (|x| 1.0 / x.sqrt()) as fn(f32) -> f32), (UnaryOp::Recip, |x| 1.0 / x)] {
        let input = all_exponents();
        let out = run(op, Target::Native, true, &input);
        for (&x, &y) in input.iter().zip(&out) {
            let want = exact(x);
            assert!(
                y.to_bits() == want.to_bits() || y.is_nan() && want.is_nan(),
                "{op} {x:e}: {y:e}, expected {want:e}"
            );
        }
    }
}

#[test]
fn special_values() {
    let input = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -0.0, 0.0, -f32::NAN, 200.0, -200.0];
    for lanes in [true, false] {
        let exp = run(UnaryOp::Exp, Target::Native, lanes, &input);
        assert_eq!(exp[0], 0.0);
        assert_eq!(exp[1], f32::INFINITY);
        assert!(exp[2].is_nan() && exp[5].is_nan());
        assert_eq!(exp[3..5], [1.0, 1.0]);
        assert_eq!(exp[6..8], [f32::INFINITY, 0.0]);
        let tanh = run(UnaryOp::Tanh, Target::Native, lanes, &input);
        assert_eq!(tanh[0..2], [-1.0, 1.0]);
        assert!(tanh[2].is_nan() && tanh[5].is_nan());
        assert_eq!(tanh[3].to_bits(), (-0.0f32).to_bits());
        assert_eq!(tanh[6..8], [1.0, -1.0]);
    }
}
