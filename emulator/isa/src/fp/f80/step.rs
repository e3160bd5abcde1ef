//! FPREM, FPREM1, FRNDINT, FSCALE, FXTRACT.

use super::{Env80, F80, Value, pack, special1, special2, unpack};
use crate::fp::num::Num;
use crate::fp::{Flags, Rounding};

/// The result of FPREM or FPREM1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remainder {
    /// The (partial) remainder.
    pub value: F80,
    /// C2: the reduction is incomplete.
    pub partial: bool,
    /// The low three bits of the quotient, 0 if the reduction is incomplete; `None` if there is no quotient (NaN or invalid).
    pub quotient: Option<u8>,
}

/// FPREM, and with `nearest` FPREM1.
pub fn rem(e: &mut Env80, a: F80, b: F80, nearest: bool) -> Remainder {
    let none = |value| Remainder { value, partial: false, quotient: None };
    let done = |value| Remainder { value, partial: false, quotient: Some(0) };
    if let Some(nan) = special2(e, a, b) {
        return none(nan);
    }
    let (x, y) = (unpack(a), unpack(b));
    if x.is_inf() || y.is_zero() {
        return none(e.invalid());
    }
    if e.denormal(x.denormal | y.denormal) {
        return none(F80::INDEFINITE);
    }
    match (x.value, y.value) {
        (Value::Finite(p), Value::Finite(q)) => reduce(e, &p, &q, nearest),
        (Value::Finite(p), _) => done(pack(e, &p, 64)),
        _ => done(a),
    }
}

fn reduce(e: &mut Env80, p: &Num, q: &Num, nearest: bool) -> Remainder {
    let (n, d) = (p.sig >> 64, q.sig >> 64);
    let distance = p.exp - q.exp;
    if distance < -1 || (distance == -1 && !nearest) {
        return Remainder { value: pack(e, p, 64), partial: false, quotient: Some(0) };
    }
    if distance >= 64 {
        // "An implementation-dependent number between 32 and 63" of quotient bits is consumed.
        let step = 32 + distance % 32;
        let value = exact(e, p.sign, q.exp + distance - step, (n << step) % d);
        return Remainder { value, partial: true, quotient: Some(0) };
    }
    // Everything in units of the divisor's last place, or half of it if the dividend is below the divisor's binade.
    let (n, d, exp) = if distance < 0 { (n, d << 1, q.exp - 1) } else { (n << distance, d, q.exp) };
    let (mut quotient, mut rest, mut sign) = (n / d, n % d, p.sign);
    let twice = rest << 1;
    if nearest && (twice > d || (twice == d && quotient & 1 != 0)) {
        rest = d - rest;
        quotient += 1;
        sign = !sign;
    }
    let sign = if rest == 0 { p.sign } else { sign };
    Remainder { value: exact(e, sign, exp, rest), partial: false, quotient: Some(quotient as u8 & 7) }
}

/// `sig × 2^(exp - 63)`, exact.
fn exact(e: &mut Env80, sign: bool, exp: i32, sig: u128) -> F80 {
    match Num::normalize(sign, exp + 64, sig) {
        Some(num) => pack(e, &num, 64),
        None => F80::ZERO.with_sign(sign),
    }
}

/// FRNDINT.
pub fn round_integral(e: &mut Env80, a: F80) -> F80 {
    if let Some(nan) = special1(e, a) {
        return nan;
    }
    let x = unpack(a);
    let num = match x.value {
        Value::Finite(num) if num.exp < 63 => num,
        _ => return a,
    };
    if e.denormal(x.denormal) {
        return F80::INDEFINITE;
    }
    let Some(int) = num.to_integer(e.rounding()) else { return a };
    if int.inexact {
        e.raise(Flags::PE);
        e.up = int.up;
    }
    super::from_int(int.magnitude as i64).with_sign(x.sign)
}

/// FSCALE: `a × 2^trunc(b)`.
pub fn scale(e: &mut Env80, a: F80, b: F80) -> F80 {
    if let Some(nan) = special2(e, a, b) {
        return nan;
    }
    let (x, y) = (unpack(a), unpack(b));
    if (x.is_inf() && y.is_inf() && y.sign) || (x.is_zero() && y.is_inf() && !y.sign) {
        return e.invalid();
    }
    if e.denormal(x.denormal | y.denormal) {
        return F80::INDEFINITE;
    }
    let num = match x.value {
        Value::Finite(num) => num,
        _ => return a,
    };
    // More than the whole range of exponents, also of wrapped ones.
    const FAR: u64 = 1 << 17;
    let by = match y.value {
        Value::Zero => 0,
        Value::Inf if y.sign => return F80::ZERO.with_sign(x.sign),
        Value::Inf => return F80::INFINITY.with_sign(x.sign),
        Value::Finite(by) => by.to_integer(Rounding::Zero).map_or(FAR, |int| int.magnitude.min(FAR)) as i32,
    };
    let num = Num { exp: num.exp + if y.sign { -by } else { by }, ..num };
    pack(e, &num, 64)
}

/// FXTRACT: (significand, exponent).
pub fn extract(e: &mut Env80, a: F80) -> (F80, F80) {
    if let Some(nan) = special1(e, a) {
        return (nan, nan);
    }
    let x = unpack(a);
    match x.value {
        Value::Zero => {
            e.raise(Flags::ZE);
            (a, F80::INFINITY.negate())
        }
        Value::Inf => (a, F80::INFINITY),
        Value::Finite(num) => {
            e.denormal(x.denormal);
            (pack(e, &Num { exp: 0, ..num }, 64), super::from_int(num.exp.into()))
        }
    }
}
