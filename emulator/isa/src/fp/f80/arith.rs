//! FADD, FSUB, FMUL, FDIV, FSQRT and comparisons.

use super::{Class, Env80, F80, Operand, Value, pack, special1, special2, unpack};
use crate::fp::{Flags, Relation, Rounding};
use std::cmp::Ordering;

/// FADD.
#[inline]
pub fn add(e: &mut Env80, a: F80, b: F80) -> F80 {
    if let (Some(x), Some(y), false) = (a.normal(), b.normal(), e.denormal_source) {
        return match x.add(&y) {
            Some(num) => pack(e, &num, e.precision),
            None => exact_zero(e),
        };
    }
    add_special(e, a, b, false)
}

/// FSUB: `a - b`.
#[inline]
pub fn sub(e: &mut Env80, a: F80, b: F80) -> F80 {
    if let (Some(x), Some(y), false) = (a.normal(), b.negate().normal(), e.denormal_source) {
        return match x.add(&y) {
            Some(num) => pack(e, &num, e.precision),
            None => exact_zero(e),
        };
    }
    add_special(e, a, b, true)
}

fn exact_zero(e: &Env80) -> F80 {
    F80::ZERO.with_sign(e.rounding() == Rounding::Down)
}

#[cold]
fn add_special(e: &mut Env80, a: F80, b: F80, subtract: bool) -> F80 {
    if let Some(nan) = special2(e, a, b) {
        return nan;
    }
    let (x, y) = (unpack(a), unpack(if subtract { b.negate() } else { b }));
    if x.is_inf() && y.is_inf() && x.sign != y.sign {
        return e.invalid();
    }
    if e.denormal(x.denormal | y.denormal) {
        return F80::INDEFINITE;
    }
    match (x.value, y.value) {
        (Value::Inf, _) => F80::INFINITY.with_sign(x.sign),
        (_, Value::Inf) => F80::INFINITY.with_sign(y.sign),
        (Value::Finite(p), Value::Finite(q)) => match p.add(&q) {
            Some(num) => pack(e, &num, e.precision),
            None => exact_zero(e),
        },
        (Value::Finite(num), Value::Zero) | (Value::Zero, Value::Finite(num)) => pack(e, &num, e.precision),
        (Value::Zero, Value::Zero) if x.sign == y.sign => F80::ZERO.with_sign(x.sign),
        (Value::Zero, Value::Zero) => exact_zero(e),
    }
}

/// FMUL.
#[inline]
pub fn mul(e: &mut Env80, a: F80, b: F80) -> F80 {
    if let (Some(x), Some(y), false) = (a.normal(), b.normal(), e.denormal_source) {
        return pack(e, &x.mul(&y), e.precision);
    }
    mul_special(e, a, b)
}

#[cold]
fn mul_special(e: &mut Env80, a: F80, b: F80) -> F80 {
    if let Some(nan) = special2(e, a, b) {
        return nan;
    }
    let (x, y) = (unpack(a), unpack(b));
    let sign = x.sign ^ y.sign;
    if (x.is_inf() && y.is_zero()) || (x.is_zero() && y.is_inf()) {
        return e.invalid();
    }
    if e.denormal(x.denormal | y.denormal) {
        return F80::INDEFINITE;
    }
    match (x.value, y.value) {
        (Value::Finite(p), Value::Finite(q)) => pack(e, &p.mul(&q), e.precision),
        (Value::Zero, _) | (_, Value::Zero) => F80::ZERO.with_sign(sign),
        _ => F80::INFINITY.with_sign(sign),
    }
}

/// FDIV: `a / b`.
#[inline]
pub fn div(e: &mut Env80, a: F80, b: F80) -> F80 {
    if let (Some(x), Some(y), false) = (a.normal(), b.normal(), e.denormal_source) {
        return pack(e, &x.div(&y), e.precision);
    }
    div_special(e, a, b)
}

#[cold]
fn div_special(e: &mut Env80, a: F80, b: F80) -> F80 {
    if let Some(nan) = special2(e, a, b) {
        return nan;
    }
    let (x, y) = (unpack(a), unpack(b));
    let sign = x.sign ^ y.sign;
    match (x.value, y.value) {
        (Value::Inf, Value::Inf) | (Value::Zero, Value::Zero) => return e.invalid(),
        (Value::Finite(_), Value::Zero) => {
            e.raise(Flags::ZE);
            return F80::INFINITY.with_sign(sign);
        }
        _ => {}
    }
    if e.denormal(x.denormal | y.denormal) {
        return F80::INDEFINITE;
    }
    match (x.value, y.value) {
        (Value::Finite(p), Value::Finite(q)) => pack(e, &p.div(&q), e.precision),
        (Value::Inf, _) => F80::INFINITY.with_sign(sign),
        _ => F80::ZERO.with_sign(sign),
    }
}

/// FSQRT.
pub fn sqrt(e: &mut Env80, a: F80) -> F80 {
    if let Some(nan) = special1(e, a) {
        return nan;
    }
    let x = unpack(a);
    match x.value {
        Value::Zero => a,
        _ if x.sign => e.invalid(),
        Value::Inf => a,
        Value::Finite(num) => {
            if e.denormal(x.denormal) {
                return F80::INDEFINITE;
            }
            pack(e, &num.sqrt(), e.precision)
        }
    }
}

/// FCOM (`signal_quiet`: any NaN raises IE) and FUCOM (only an SNaN or an unsupported operand does).
pub fn compare(e: &mut Env80, a: F80, b: F80, signal_quiet: bool) -> Relation {
    for class in [a.class(), b.class()] {
        match class {
            Class::Signaling | Class::Unsupported => e.raise(Flags::IE),
            Class::Quiet if signal_quiet => e.raise(Flags::IE),
            _ => {}
        }
    }
    let unordered = |class| matches!(class, Class::Signaling | Class::Unsupported | Class::Quiet);
    if unordered(a.class()) || unordered(b.class()) {
        return Relation::Unordered;
    }
    let (x, y) = (unpack(a), unpack(b));
    e.denormal(x.denormal | y.denormal);
    order(&x, &y)
}

fn order(x: &Operand, y: &Operand) -> Relation {
    if x.is_zero() && y.is_zero() {
        return Relation::Equal;
    }
    if x.sign != y.sign {
        let less = if x.is_zero() { !y.sign } else { x.sign };
        return if less { Relation::Less } else { Relation::Greater };
    }
    let magnitude = match (x.value, y.value) {
        (Value::Finite(p), Value::Finite(q)) => p.cmp_magnitude(&q),
        (Value::Inf, Value::Inf) => Ordering::Equal,
        (Value::Inf, _) | (Value::Finite(_), Value::Zero) => Ordering::Greater,
        _ => Ordering::Less,
    };
    match if x.sign { magnitude.reverse() } else { magnitude } {
        Ordering::Less => Relation::Less,
        Ordering::Equal => Relation::Equal,
        Ordering::Greater => Relation::Greater,
    }
}
