//! F2XM1, FYL2X, FYL2XP1, FSIN, FCOS, FPTAN, FPATAN.
//!
//! Results are computed with some 120 bits and rounded once, by RC, to 64 bits: an error of 0.5 ulp plus 2^-50 ulp or less. PC is
//! ignored. Special operands follow the tables of SDM Vol. 2, exceptions those of Vol. 1, 8.3.

use super::wide::{LN2, LOG2_E, ONE, PI, Wide, ZERO, constant, reciprocal};
use super::{Env80, F80, Operand, Value, pack, special1, special2, unpack};
use crate::fp::Flags;
use crate::fp::num::Num;

/// Rounds a result that is not representable.
fn inexact(e: &mut Env80, value: Wide) -> F80 {
    match value.irrational() {
        Some(num) => pack(e, &num, 64),
        None => F80::ZERO,
    }
}

/// Σ tⁿ/n! without its first term: e^t - 1, for |t| < 0.7.
fn exp_minus_1(t: Wide) -> Wide {
    const TERMS: usize = 28;
    const RECIPROCALS: [Wide; TERMS] = {
        let mut table = [ONE; TERMS];
        let mut n = 1;
        while n < TERMS {
            table[n] = reciprocal(n as u32);
            n += 1;
        }
        table
    };
    let sum = RECIPROCALS[2..].iter().rev().fold(ONE, |sum, r| ONE.add(t.mul(*r).mul(sum)));
    t.mul(sum)
}

/// F2XM1: 2^x - 1 for -1 <= x <= 1. Other finite operands, for which the SDM leaves the result undefined, come back unchanged.
pub fn exp2_minus_1(e: &mut Env80, a: F80) -> F80 {
    if let Some(nan) = special1(e, a) {
        return nan;
    }
    let x = unpack(a);
    let num = match x.value {
        Value::Zero => return a,
        Value::Inf if x.sign => return F80::ONE.negate(),
        Value::Inf => return a,
        Value::Finite(num) => num,
    };
    if e.denormal(x.denormal) {
        return F80::INDEFINITE;
    }
    if num.exp >= 0 {
        let one = num.exp == 0 && num.sig == ONE.sig;
        return if one && x.sign { F80 { sign_exp: 0xbffe, frac: 1 << 63 } } else { a };
    }
    inexact(e, exp_minus_1(Wide::from(num).mul(LN2)))
}

/// log₂((1 + s)/(1 - s)) for |s| < 0.172, by the series of the inverse hyperbolic tangent.
fn log2_ratio(s: Wide) -> Wide {
    const TERMS: usize = 20;
    const RECIPROCALS: [Wide; TERMS] = {
        let mut table = [ONE; TERMS];
        let mut n = 0;
        while n < TERMS {
            table[n] = reciprocal(2 * n as u32 + 1);
            n += 1;
        }
        table
    };
    let square = s.mul(s);
    let sum = RECIPROCALS.iter().rev().fold(ZERO, |sum, r| r.add(square.mul(sum)));
    s.mul(sum).mul(LOG2_E).scaled(1)
}

/// log₂ of a positive number; exact for powers of two.
fn log2(x: Wide) -> Wide {
    const SQRT_2: u128 = 0xb504_f333_f9de_6484 << 64;
    let up = i32::from(x.sig > SQRT_2);
    let m = constant(-up, x.sig);
    log2_ratio(m.sub(ONE).div(m.add(ONE))).add(Wide::from_int(x.exp.wrapping_add(up)))
}

/// `y × log`, where the logarithm is that of a number which is a power of two or not.
fn times_log(e: &mut Env80, y: &Num, log: Wide, power_of_two: bool) -> F80 {
    let product = Wide::from(*y).mul(log);
    match if power_of_two { product.exact() } else { product.irrational() } {
        Some(num) => pack(e, &num, 64),
        None => F80::ZERO.with_sign(y.sign),
    }
}

/// FYL2X: `y × log₂(x)`.
pub fn y_log2_x(e: &mut Env80, y: F80, x: F80) -> F80 {
    if let Some(nan) = special2(e, x, y) {
        return nan;
    }
    let (x, y) = (unpack(x), unpack(y));
    let one = matches!(x.value, Value::Finite(Num { exp: 0, sig, .. }) if sig == ONE.sig);
    let negative = x.sign && !x.is_zero();
    if negative || (x.is_zero() && y.is_zero()) || (x.is_inf() && y.is_zero()) || (one && y.is_inf()) {
        return e.invalid();
    }
    // log₂(x) < 0
    let below_one = matches!(x.value, Value::Finite(num) if num.exp < 0) || x.is_zero();
    let sign = y.sign ^ below_one;
    if x.is_zero() && !y.is_inf() {
        e.raise(Flags::ZE);
        return F80::INFINITY.with_sign(sign);
    }
    if e.denormal(x.denormal | y.denormal) {
        return F80::INDEFINITE;
    }
    match (x.value, y.value) {
        (Value::Finite(x), Value::Finite(y)) => times_log(e, &y, log2(Wide::from(x)), x.sig == ONE.sig),
        (_, Value::Zero) => F80::ZERO.with_sign(sign),
        _ => F80::INFINITY.with_sign(sign),
    }
}

/// FYL2XP1: `y × log₂(x + 1)`, meant for |x| < 1 - √½; the SDM leaves the result undefined elsewhere. For finite x <= -1 the operand
/// `y` comes back unchanged.
pub fn y_log2_x_plus_1(e: &mut Env80, y: F80, x: F80) -> F80 {
    if let Some(nan) = special2(e, x, y) {
        return nan;
    }
    let (first, second) = (unpack(x), unpack(y));
    let sign = first.sign ^ second.sign;
    if (first.is_inf() && (first.sign || second.is_zero())) || (first.is_zero() && second.is_inf()) {
        return e.invalid();
    }
    if e.denormal(first.denormal | second.denormal) {
        return F80::INDEFINITE;
    }
    match (first.value, second.value) {
        (Value::Finite(x), _) if x.sign && x.exp >= 0 => y,
        (Value::Finite(x), Value::Finite(y)) => {
            let x = Wide::from(x);
            let sum = x.add(ONE);
            // Near one, 1 + x would lose bits of x.
            let small = x.exp < -2;
            let log = if small { log2_ratio(x.div(x.add(ONE.scaled(1)))) } else { log2(sum) };
            times_log(e, &y, log, !small && sum.sig == ONE.sig)
        }
        (Value::Zero, _) | (_, Value::Zero) => F80::ZERO.with_sign(sign),
        _ => F80::INFINITY.with_sign(sign),
    }
}

/// An angle as a rest of at most π/4 in magnitude and a number of quarter turns.
struct Reduced {
    rest: Wide,
    /// Number of quarter turns taken away, modulo 4.
    quadrant: u8,
}

/// Reduces by the FPU's π of 66 bits (SDM Vol. 1, 8.3.8 "Approximation of Pi"). `None` for |x| >= 2^63.
fn reduce(x: &Num) -> Option<Reduced> {
    /// π/2 in units of 2^-65.
    const HALF_PI: u128 = 0x3_243f_6a88_85a3_08d3;
    if x.exp >= 63 {
        return None;
    }
    if x.exp < -1 {
        return Some(Reduced { rest: Wide::from(*x), quadrant: 0 });
    }
    let magnitude = (x.sig >> 64) << (x.exp + 2);
    let (mut turns, rest) = ((magnitude / HALF_PI) as u8, magnitude % HALF_PI);
    let past = rest > HALF_PI / 2;
    turns = turns.wrapping_add(u8::from(past));
    let distance = if past { HALF_PI - rest } else { rest };
    let rest = Num::normalize(x.sign ^ past, 127 - 65, distance).map_or(ZERO, Wide::from);
    Some(Reduced { rest, quadrant: if x.sign { turns.wrapping_neg() } else { turns } & 3 })
}

/// (π/4)^26 / 27! < 2^-100.
const TRIG_TERMS: usize = 13;

/// 1/((2k + first)(2k + first + 1)): the ratio of successive terms of the series.
const fn trig_ratios(first: u32) -> [Wide; TRIG_TERMS] {
    let mut table = [ONE; TRIG_TERMS];
    let mut k = 0;
    while k < TRIG_TERMS {
        let n = 2 * k as u32 + first;
        table[k] = reciprocal(n * (n + 1));
        k += 1;
    }
    table
}

/// 1 - t·r₀·(1 - t·r₁·(…)).
fn alternating(t: Wide, ratios: &[Wide]) -> Wide {
    ratios.iter().rev().fold(ONE, |sum, r| ONE.sub(t.mul(*r).mul(sum)))
}

impl Reduced {
    /// The sine of the angle plus `ahead` quarter turns.
    fn sine(&self, ahead: u8) -> Wide {
        const SIN: [Wide; TRIG_TERMS] = trig_ratios(2);
        const COS: [Wide; TRIG_TERMS] = trig_ratios(1);
        let square = self.rest.mul(self.rest);
        let quadrant = self.quadrant.wrapping_add(ahead);
        let value = if quadrant & 1 == 0 { self.rest.mul(alternating(square, &SIN)) } else { alternating(square, &COS) };
        if quadrant & 2 == 0 { value } else { value.negate() }
    }

    fn sin(&self) -> Wide {
        self.sine(0)
    }

    fn cos(&self) -> Wide {
        self.sine(1)
    }
}

/// The operand of a trigonometric function after special cases.
enum Angle {
    /// NaN, invalid, or zero.
    Special(F80),
    Finite(Reduced),
}

/// `None` if the operand is out of range: C2 is to be set, and nothing else happens.
fn angle(e: &mut Env80, a: F80) -> Option<Angle> {
    if let Some(nan) = special1(e, a) {
        return Some(Angle::Special(nan));
    }
    let x: Operand = unpack(a);
    let num = match x.value {
        Value::Zero => return Some(Angle::Special(a)),
        Value::Inf => return Some(Angle::Special(e.invalid())),
        Value::Finite(num) => num,
    };
    let reduced = reduce(&num)?;
    if e.denormal(x.denormal) {
        return Some(Angle::Special(F80::INDEFINITE));
    }
    Some(Angle::Finite(reduced))
}

fn is_zero(a: F80) -> bool {
    a.frac == 0 && a.sign_exp & 0x7fff == 0
}

/// FSIN. `None` for |x| >= 2^63.
pub fn sin(e: &mut Env80, a: F80) -> Option<F80> {
    Some(match angle(e, a)? {
        Angle::Special(value) => value,
        Angle::Finite(reduced) => inexact(e, reduced.sin()),
    })
}

/// FCOS. `None` for |x| >= 2^63.
pub fn cos(e: &mut Env80, a: F80) -> Option<F80> {
    Some(match angle(e, a)? {
        Angle::Special(value) if is_zero(value) => F80::ONE,
        Angle::Special(value) => value,
        Angle::Finite(reduced) => inexact(e, reduced.cos()),
    })
}

/// FSINCOS: (sine, cosine). `None` for |x| >= 2^63.
pub fn sin_cos(e: &mut Env80, a: F80) -> Option<(F80, F80)> {
    Some(match angle(e, a)? {
        Angle::Special(value) if is_zero(value) => (value, F80::ONE),
        Angle::Special(value) => (value, value),
        Angle::Finite(reduced) => (inexact(e, reduced.sin()), inexact(e, reduced.cos())),
    })
}

/// FPTAN: (tangent, the 1 that is pushed; a NaN's is the NaN). `None` for |x| >= 2^63.
pub fn tan(e: &mut Env80, a: F80) -> Option<(F80, F80)> {
    Some(match angle(e, a)? {
        Angle::Special(value) if is_zero(value) => (value, F80::ONE),
        Angle::Special(value) => (value, value),
        Angle::Finite(reduced) => (inexact(e, reduced.sin().div(reduced.cos())), F80::ONE),
    })
}

/// atan(k/16) for k = 1 to 16.
const ATAN_SIXTEENTHS: [Wide; 16] = [
    constant(-5, 0xffaa_ddb9_67ef_4e36_cb27_92dc_0e2e_0d51),
    constant(-4, 0xfead_d4d5_617b_6e32_c897_989f_3e88_8ef8),
    constant(-3, 0xbdcb_da5e_72d8_1134_7b0b_4f88_1c9c_7488),
    constant(-3, 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e6),
    constant(-2, 0x9b13_b9b8_3f5e_5e69_c5ab_b498_d27a_f328),
    constant(-2, 0xb7b0_ca0f_26f7_8473_8aa3_2122_dcfe_4483),
    constant(-2, 0xd327_761e_611f_e5b6_427c_95e9_001e_7136),
    constant(-2, 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03),
    constant(-1, 0x832b_f4a6_d986_7e2a_4b6a_09cb_61a5_15c1),
    constant(-1, 0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3748),
    constant(-1, 0x9a2f_80e6_71bd_da20_4226_f8e2_204f_f3bd),
    constant(-1, 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9f),
    constant(-1, 0xaeac_4c38_b4d8_c080_1472_5e2f_3e52_070a),
    constant(-1, 0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d),
    constant(-1, 0xc0ce_85b8_ac52_6640_89dd_62c4_6e92_fa25),
    constant(-1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1),
];

/// atan(a/b) for 0 < a <= b: atan(c) + atan((a - cb)/(b + ca)) with c the sixteenth next to a/b.
fn atan_ratio(a: Wide, b: Wide) -> Wide {
    const TERMS: u32 = 12;
    let distance = b.exp.wrapping_sub(a.exp);
    let sixteenth = if distance > 6 { 0 } else { ((((a.sig >> 64) << 8) / (b.sig >> 64)) >> distance) as u32 };
    // Rounded from 256ths.
    let k = ((sixteenth + 8) >> 4).min(16);
    let c = Wide::from_int(k as i32).scaled(-4);
    let t = if k == 0 { a.div(b) } else { a.sub(c.mul(b)).div(b.add(c.mul(a))) };
    let square = t.mul(t);
    let sum = (0..TERMS).rev().fold(ZERO, |sum, n| reciprocal(2 * n + 1).sub(square.mul(sum)));
    let base = if k == 0 { ZERO } else { ATAN_SIXTEENTHS[k as usize - 1] };
    base.add(t.mul(sum))
}

/// FPATAN: the angle of the point (`x`, `y`).
pub fn atan2(e: &mut Env80, y: F80, x: F80) -> F80 {
    if let Some(nan) = special2(e, x, y) {
        return nan;
    }
    let (first, second) = (unpack(x), unpack(y));
    if e.denormal(first.denormal | second.denormal) {
        return F80::INDEFINITE;
    }
    let quarters = |n: i32| PI.mul(Wide::from_int(n)).scaled(-2);
    let angle = match (second.value, first.value) {
        (Value::Zero, _) if !first.sign => return y,
        (Value::Finite(_), Value::Inf) if !first.sign => return F80::ZERO.with_sign(second.sign),
        (Value::Zero, _) | (Value::Finite(_), Value::Inf) => PI,
        (Value::Inf, Value::Inf) => quarters(if first.sign { 3 } else { 1 }),
        (Value::Inf, _) | (_, Value::Zero) => quarters(2),
        (Value::Finite(q), Value::Finite(p)) => {
            let (b, a) = (Wide::from(p), Wide::from(q).abs());
            let steep = b.less_magnitude(&a);
            let acute = if steep { atan_ratio(b.abs(), a) } else { atan_ratio(a, b.abs()) };
            match (steep, first.sign) {
                (false, false) => acute,
                (false, true) => PI.sub(acute),
                (true, false) => quarters(2).sub(acute),
                (true, true) => quarters(2).add(acute),
            }
        }
    };
    inexact(e, Wide { sign: second.sign, ..angle })
}
