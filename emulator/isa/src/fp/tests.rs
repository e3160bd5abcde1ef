//! Rows from the SDM's rules; the exhaustive comparison with a host's SSE is in `tests/tests/fp_sse.rs`.

use super::f80::{self, Env80, F80};
use super::*;

const SNAN: u64 = 0x7ff0_0000_0000_0001;
const QNAN: u64 = 0x7ff8_0000_0000_0002;
const INF: u64 = 0x7ff0_0000_0000_0000;
const INDEFINITE: u64 = 0xfff8_0000_0000_0000;
const ZERO: u64 = 0;
const MINUS_ZERO: u64 = 1 << 63;
const ONE: u64 = 0x3ff0_0000_0000_0000;
const MIN_NORMAL: u64 = 0x0010_0000_0000_0000;
const MAX: u64 = 0x7fef_ffff_ffff_ffff;
const DENORMAL: u64 = 1;

type Op = fn(&mut Env, u64, u64) -> u64;

/// (operation, MXCSR, operands, result, MXCSR afterwards).
fn check(rows: &[(&str, Op, u32, u64, u64, u64, u32)]) {
    for &(name, op, mxcsr, a, b, result, after) in rows {
        let mut env = Env::from_mxcsr(mxcsr);
        let got = op(&mut env, a, b);
        assert_eq!((got, env.mxcsr()), (result, after), "{name} {a:x} {b:x} under {mxcsr:x}: got {got:x} {:x}", env.mxcsr());
    }
}

#[test]
fn nans() {
    check(&[
        // SDM Vol. 1, table 4-7: the first operand if it is a NaN, else the second; quieted.
        ("add", add64, 0x1f80, SNAN, QNAN, SNAN | 1 << 51, 0x1f81),
        ("add", add64, 0x1f80, QNAN, SNAN, QNAN, 0x1f81),
        ("add", add64, 0x1f80, ONE, QNAN, QNAN, 0x1f80),
        ("mul", mul64, 0x1f80, QNAN, DENORMAL, QNAN, 0x1f80),
        // Invalid operations give the QNaN indefinite.
        ("sub", sub64, 0x1f80, INF, INF, INDEFINITE, 0x1f81),
        ("mul", mul64, 0x1f80, ZERO, INF, INDEFINITE, 0x1f81),
        ("div", div64, 0x1f80, ZERO, MINUS_ZERO, INDEFINITE, 0x1f81),
        // MIN and MAX: the second operand if either is a NaN or both are zeros (SDM Vol. 2, "MINSD").
        ("min", min64, 0x1f80, QNAN, ONE, ONE, 0x1f81),
        ("min", min64, 0x1f80, ONE, SNAN, SNAN, 0x1f81),
        ("max", max64, 0x1f80, ZERO, MINUS_ZERO, MINUS_ZERO, 0x1f80),
    ]);
}

#[test]
fn exceptions() {
    check(&[
        ("div", div64, 0x1f80, ONE, MINUS_ZERO, INF | 1 << 63, 0x1f84),
        ("add", add64, 0x1f80, ONE, DENORMAL, ONE, 0x1fa2),
        ("add", add64, 0x1fc0, ONE, DENORMAL, ONE, 0x1fc0),
        ("mul", mul64, 0x1f80, MAX, MAX, INF, 0x1fa8),
        ("mul", mul64, 0x7f80, MAX, MAX, MAX, 0x7fa8),
        // A denormal result that is exact underflows only with FTZ.
        ("mul", mul64, 0x1f80, MIN_NORMAL, 0x3fe0_0000_0000_0000, MIN_NORMAL / 2, 0x1f80),
        ("mul", mul64, 0x9f80, MIN_NORMAL, 0x3fe0_0000_0000_0000, 0, 0x9fb0),
        // Tininess is detected after rounding: this rounds up to the least normal number with unbounded exponent too.
        ("mul", mul64, 0x1f80, 0x001f_ffff_ffff_ffff, 0x3fdf_ffff_ffff_ffff, 0x000f_ffff_ffff_ffff, 0x1fb0),
        // x - x is -0 only when rounding down.
        ("sub", sub64, 0x1f80, ONE, ONE, ZERO, 0x1f80),
        ("sub", sub64, 0x3f80, ONE, ONE, MINUS_ZERO, 0x3f80),
    ]);
}

/// A packed operation with an unmasked IE, DE or ZE in one element records no OE, UE, PE of another (SDM Vol. 1, 4.9.2; seen on
/// Zen 4).
#[test]
fn unmasked_exceptions() {
    let mut mxcsr = 0x1f80 & !0x100;
    let mut env = Env::from_mxcsr(mxcsr);
    add64(&mut env, ONE, 0x3c30_0000_0000_0000);
    assert_eq!(env.raised(), Flags::PE);
    add64(&mut env, ONE, DENORMAL);
    assert_eq!(env.commit(&mut mxcsr), Flags::DE);
    assert_eq!(mxcsr, 0x1e82);
    // FTZ does nothing while underflow is unmasked: no PE for an exact product.
    let mut mxcsr = 0x9f80 & !0x800;
    let mut env = Env::from_mxcsr(mxcsr);
    mul64(&mut env, MIN_NORMAL, MIN_NORMAL);
    assert_eq!(env.commit(&mut mxcsr), Flags::UE);
    assert_eq!(mxcsr, 0x9790);
    // An unmasked PE faults although it is sticky already.
    let mut mxcsr = 0x1fa0 & !0x1000;
    let mut env = Env::from_mxcsr(mxcsr);
    div64(&mut env, ONE, 0x4008_0000_0000_0000);
    assert_eq!(env.commit(&mut mxcsr), Flags::PE);
}

#[test]
fn conversions() {
    let mut env = Env::default();
    for (a, i32, i64) in [
        (2.5f64, 2u32, 2u64),
        (-3.5, -4i32 as u32, -4i64 as u64),
        (2147483647.5, 0x8000_0000, 0x8000_0000),
        (-2147483648.5, 0x8000_0000, -2147483648i64 as u64),
        (1e300, 0x8000_0000, 1 << 63),
        (f64::NAN, 0x8000_0000, 1 << 63),
    ] {
        assert_eq!((f64_to_i32(&mut env, a.to_bits()), f64_to_i64(&mut env, a.to_bits())), (i32, i64), "{a}");
    }
    assert_eq!(env.flags(), Flags::IE | Flags::PE);
    assert_eq!(f64_to_u32_trunc(&mut env, (-1f64).to_bits()), u32::MAX);
    assert_eq!(f64_to_u64(&mut env, (-0.25f64).to_bits()), 0);
    assert_eq!(f16_to_f32(&mut env, 0x3555), 0x3eaa_a000);
    assert_eq!(f32_to_f16(&mut env, 0x477f_f000, Rounding::Nearest), 0x7c00);
    assert_eq!(f32_to_f16(&mut env, 0x477f_f000, Rounding::Zero), 0x7bff);
    // ROUNDSD imm 12: MXCSR.RC, no precision exception.
    let mut env = Env::from_mxcsr(0x5f80);
    let (rounding, suppress) = round_imm(&env, 12);
    assert_eq!(f64::from_bits(round64(&mut env, 1.25f64.to_bits(), rounding, suppress)), 2.0);
    assert_eq!(env.mxcsr(), 0x5f80);
}

fn parse(text: &str) -> F80 {
    let (sign_exp, frac) = text.split_once('_').expect("exponent_significand");
    F80 { sign_exp: u16::from_str_radix(sign_exp, 16).expect("hex"), frac: u64::from_str_radix(frac, 16).expect("hex") }
}

/// (function, y, x, correctly rounded result), computed with mpmath at 800 bits; trigonometry with π of 66 bits.
const TRANSCENDENTALS: &[(&str, &str, &str, &str)] = &[
    ("sin", "0000_0000000000000000", "3fff_8000000000000000", "3ffe_d76aa47848677021"),
    // π rounded to 64 bits differs from the FPU's π by 2^-64.
    ("sin", "0000_0000000000000000", "4000_c90fdaa22168c235", "bfbf_8000000000000000"),
    ("sin", "0000_0000000000000000", "3ffe_c90fdaa22168c235", "3ffe_b504f333f9de6485"),
    ("sin", "0000_0000000000000000", "403d_ffffffffffffffff", "3ffe_e0ab9300da6d2684"),
    ("sin", "0000_0000000000000000", "3fbd_8000000000000001", "3fbd_8000000000000001"),
    ("sin", "0000_0000000000000000", "c002_a000000000000000", "3ffe_8b44f7af9a7a92cf"),
    ("cos", "0000_0000000000000000", "3fff_8000000000000000", "3ffe_8a51407da8345c92"),
    ("cos", "0000_0000000000000000", "4000_c90fdaa22168c235", "bfff_8000000000000000"),
    ("cos", "0000_0000000000000000", "3ffe_c90fdaa22168c235", "3ffe_b504f333f9de6484"),
    ("cos", "0000_0000000000000000", "403d_ffffffffffffffff", "3ffd_f56ec1e0a37c4176"),
    ("cos", "0000_0000000000000000", "c002_a000000000000000", "bffe_d6cd64486358f905"),
    ("tan", "0000_0000000000000000", "3fff_8000000000000000", "3fff_c75922e5f71d2dc5"),
    ("tan", "0000_0000000000000000", "3ffe_c90fdaa22168c235", "3fff_8000000000000000"),
    ("tan", "0000_0000000000000000", "403d_ffffffffffffffff", "3fff_ea57f75b8bfebb70"),
    ("tan", "0000_0000000000000000", "c002_a000000000000000", "bffe_a5faf9a5f1bc12f0"),
    ("f2xm1", "0000_0000000000000000", "3ffe_8000000000000000", "3ffd_d413cccfe7799211"),
    ("f2xm1", "0000_0000000000000000", "bffe_ffffffffffffffff", "bffd_ffffffffffffffff"),
    ("f2xm1", "0000_0000000000000000", "3fb0_c000000000000000", "3fb0_851591f9dd5b9b41"),
    ("fyl2x", "3fff_8000000000000000", "4000_c000000000000000", "3fff_cae00d1cfdeb43d0"),
    ("fyl2x", "c000_c90fdaa22168c235", "3fff_8000000000000001", "bfc2_91091822daef5ce2"),
    ("fyl2x", "3fff_8000000000000000", "7ffe_ffffffffffffffff", "400d_8000000000000000"),
    ("fyl2xp1", "3fff_8000000000000000", "3fb0_c000000000000000", "3fb1_8a7fac5f0511f48d"),
    ("fyl2xp1", "c000_c90fdaa22168c235", "bffc_8000000000000001", "3ffe_9aef3284446fcc48"),
    ("fpatan", "3fff_8000000000000000", "3fff_8000000000000000", "3ffe_c90fdaa22168c235"),
    ("fpatan", "3fff_8000000000000000", "bfff_8000000000000000", "4000_96cbe3f9990e91a8"),
    ("fpatan", "bfff_c000000000000000", "4002_a000000000000000", "bffc_98769b3ebe681f53"),
    ("fpatan", "4010_ffffffffffffffff", "bff0_8000000000000000", "3fff_c90fdaa26168c235"),
];

#[test]
fn transcendentals() {
    for &(name, y, x, result) in TRANSCENDENTALS {
        let mut e = Env80::from_control_word(0x37f);
        let (first, second) = (parse(x), parse(y));
        let got = match name {
            "sin" => f80::sin(&mut e, first),
            "cos" => f80::cos(&mut e, first),
            "tan" => f80::tan(&mut e, first).map(|(tan, _)| tan),
            "f2xm1" => Some(f80::exp2_minus_1(&mut e, first)),
            "fyl2x" => Some(f80::y_log2_x(&mut e, second, first)),
            "fyl2xp1" => Some(f80::y_log2_x_plus_1(&mut e, second, first)),
            _ => Some(f80::atan2(&mut e, second, first)),
        };
        assert_eq!(got, Some(parse(result)), "{name} {y} {x}: {got:x?}");
        assert_eq!(e.env.raised(), Flags::PE, "{name} {y} {x}");
    }
    let mut e = Env80::from_control_word(0x37f);
    assert_eq!(f80::sin(&mut e, parse("403e_8000000000000000")), None);
}
