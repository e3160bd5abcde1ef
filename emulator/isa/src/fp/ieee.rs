//! Soft arithmetic on the IEEE interchange formats, written once for all widths. Values travel in the low bits of a `u64`.

use super::num::{Format, Num, round};
use super::{Env, Flags, Relation, Rounding};
use std::cmp::Ordering;

/// An interchange format of `P` significand bits and `E` exponent bits.
pub(super) trait Ieee {
    const P: u32;
    const E: u32;
    const EMAX: i32 = (1 << (Self::E - 1)) - 1;
    const EXP_ONES: u64 = (1 << Self::E) - 1;
    const FRAC: u64 = (1 << (Self::P - 1)) - 1;
    const SIGN: u64 = 1 << (Self::P - 1 + Self::E);
    const INF: u64 = Self::EXP_ONES << (Self::P - 1);
    const QUIET: u64 = 1 << (Self::P - 2);
    /// The QNaN floating-point indefinite.
    const INDEFINITE: u64 = Self::SIGN | Self::INF | Self::QUIET;
    const FORMAT: Format = Format { precision: Self::P, emin: 1 - Self::EMAX, emax: Self::EMAX, wrap: 0 };
}

pub(super) struct Half;
pub(super) struct Single;
pub(super) struct Double;

impl Ieee for Half {
    const P: u32 = 11;
    const E: u32 = 5;
}
impl Ieee for Single {
    const P: u32 = 24;
    const E: u32 = 8;
}
impl Ieee for Double {
    const P: u32 = 53;
    const E: u32 = 11;
}

/// A decoded operand that is no NaN.
#[derive(Clone, Copy)]
pub(super) enum Value {
    Zero,
    Finite(Num),
    Inf,
}

#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub sign: bool,
    pub value: Value,
    pub denormal: bool,
}

pub(super) fn is_nan<F: Ieee>(a: u64) -> bool {
    a & !F::SIGN > F::INF
}

pub(super) fn is_snan<F: Ieee>(a: u64) -> bool {
    is_nan::<F>(a) && a & F::QUIET == 0
}

/// Decodes an operand that is no NaN; with `daz`, denormals are zeros of their sign.
pub(super) fn unpack<F: Ieee>(a: u64, daz: bool) -> Operand {
    let sign = a & F::SIGN != 0;
    let frac = a & F::FRAC;
    let field = (a >> (F::P - 1)) & F::EXP_ONES;
    let (value, denormal) = if field == F::EXP_ONES {
        (Value::Inf, false)
    } else if field != 0 {
        let sig = ((frac | (F::FRAC + 1)) as u128) << (128 - F::P);
        (Value::Finite(Num { sign, exp: field as i32 - F::EMAX, sig }), false)
    } else {
        match Num::normalize(sign, 1 - F::EMAX, (frac as u128) << (128 - F::P)) {
            Some(num) if !daz => (Value::Finite(num), true),
            _ => (Value::Zero, false),
        }
    };
    Operand { sign, value, denormal }
}

fn signed<F: Ieee>(sign: bool, magnitude: u64) -> u64 {
    if sign { F::SIGN | magnitude } else { magnitude }
}

/// Rounds to the format.
pub(super) fn pack<F: Ieee>(env: &mut Env, num: &Num) -> u64 {
    pack_up::<F>(env, num).0
}

/// Rounds to the format, and tells whether the magnitude went up.
pub(super) fn pack_up<F: Ieee>(env: &mut Env, num: &Num) -> (u64, bool) {
    let r = round(env, &F::FORMAT, num);
    let magnitude = if r.mant >> (F::P - 1) != 0 {
        ((r.exp.wrapping_add(F::EMAX) as u64 & F::EXP_ONES) << (F::P - 1)) | (r.mant & F::FRAC)
    } else {
        r.mant
    };
    (signed::<F>(num.sign, magnitude), r.up)
}

/// The masked response to an invalid operation.
fn invalid<F: Ieee>(env: &mut Env) -> u64 {
    env.raise(Flags::IE);
    F::INDEFINITE
}

/// The NaN that results if an operand is a NaN: the first operand if it is one, else the second (SDM Vol. 1, table 4-7).
fn propagate<F: Ieee>(env: &mut Env, operands: &[u64]) -> Option<u64> {
    let nan = operands.iter().copied().find(|&a| is_nan::<F>(a))?;
    if operands.iter().any(|&a| is_snan::<F>(a)) {
        env.raise(Flags::IE);
    }
    Some(nan | F::QUIET)
}

/// Decodes both operands under the environment's DAZ. The caller raises DE with [`denormal`] once no exception of higher priority applies.
fn unpack2<F: Ieee>(env: &Env, a: u64, b: u64) -> (Operand, Operand) {
    (unpack::<F>(a, env.daz()), unpack::<F>(b, env.daz()))
}

/// Raises DE if an operand is denormal; true if that faults.
fn denormal(env: &mut Env, any: bool) -> bool {
    if any {
        env.raise(Flags::DE);
    }
    env.pre_fault()
}

pub(super) fn add<F: Ieee>(env: &mut Env, a: u64, b: u64, subtract: bool) -> u64 {
    if let Some(nan) = propagate::<F>(env, &[a, b]) {
        return nan;
    }
    let (x, y) = unpack2::<F>(env, a, b ^ if subtract { F::SIGN } else { 0 });
    if matches!((x.value, y.value), (Value::Inf, Value::Inf)) && x.sign != y.sign {
        return invalid::<F>(env);
    }
    if denormal(env, x.denormal | y.denormal) {
        return 0;
    }
    sum::<F>(env, x, y)
}

/// Sum of operands that are not infinities of opposite signs.
fn sum<F: Ieee>(env: &mut Env, x: Operand, y: Operand) -> u64 {
    let exact_zero = signed::<F>(env.rounding() == Rounding::Down, 0);
    match (x.value, y.value) {
        (Value::Inf, _) => signed::<F>(x.sign, F::INF),
        (_, Value::Inf) => signed::<F>(y.sign, F::INF),
        (Value::Finite(p), Value::Finite(q)) => match p.add(&q) {
            Some(num) => pack::<F>(env, &num),
            None => exact_zero,
        },
        (Value::Finite(num), Value::Zero) | (Value::Zero, Value::Finite(num)) => pack::<F>(env, &num),
        (Value::Zero, Value::Zero) if x.sign == y.sign => signed::<F>(x.sign, 0),
        (Value::Zero, Value::Zero) => exact_zero,
    }
}

pub(super) fn mul<F: Ieee>(env: &mut Env, a: u64, b: u64) -> u64 {
    if let Some(nan) = propagate::<F>(env, &[a, b]) {
        return nan;
    }
    let (x, y) = unpack2::<F>(env, a, b);
    let sign = x.sign ^ y.sign;
    if matches!((x.value, y.value), (Value::Inf, Value::Zero) | (Value::Zero, Value::Inf)) {
        return invalid::<F>(env);
    }
    if denormal(env, x.denormal | y.denormal) {
        return 0;
    }
    match (x.value, y.value) {
        (Value::Finite(p), Value::Finite(q)) => pack::<F>(env, &p.mul(&q)),
        (Value::Zero, _) | (_, Value::Zero) => signed::<F>(sign, 0),
        _ => signed::<F>(sign, F::INF),
    }
}

pub(super) fn div<F: Ieee>(env: &mut Env, a: u64, b: u64) -> u64 {
    if let Some(nan) = propagate::<F>(env, &[a, b]) {
        return nan;
    }
    let (x, y) = unpack2::<F>(env, a, b);
    let sign = x.sign ^ y.sign;
    match (x.value, y.value) {
        (Value::Inf, Value::Inf) | (Value::Zero, Value::Zero) => return invalid::<F>(env),
        (Value::Finite(_), Value::Zero) => {
            env.raise(Flags::ZE);
            return signed::<F>(sign, F::INF);
        }
        _ => {}
    }
    if denormal(env, x.denormal | y.denormal) {
        return 0;
    }
    match (x.value, y.value) {
        (Value::Finite(p), Value::Finite(q)) => pack::<F>(env, &p.div(&q)),
        (Value::Inf, _) => signed::<F>(sign, F::INF),
        _ => signed::<F>(sign, 0),
    }
}

pub(super) fn sqrt<F: Ieee>(env: &mut Env, a: u64) -> u64 {
    if let Some(nan) = propagate::<F>(env, &[a]) {
        return nan;
    }
    let x = unpack::<F>(a, env.daz());
    match x.value {
        Value::Zero => signed::<F>(x.sign, 0),
        _ if x.sign => invalid::<F>(env),
        Value::Inf => F::INF,
        Value::Finite(num) => {
            if denormal(env, x.denormal) {
                return 0;
            }
            pack::<F>(env, &num.sqrt())
        }
    }
}

/// `±(a × b) ± c`, rounded once. A negated term is negated after NaN handling.
pub(super) fn fma<F: Ieee>(env: &mut Env, a: u64, b: u64, c: u64, negate_product: bool, negate_addend: bool) -> u64 {
    if let Some(nan) = propagate::<F>(env, &[a, b, c]) {
        return nan;
    }
    let (x, y) = unpack2::<F>(env, a, b);
    let z = unpack::<F>(c ^ if negate_addend { F::SIGN } else { 0 }, env.daz());
    let sign = x.sign ^ y.sign ^ negate_product;
    let product = match (x.value, y.value) {
        (Value::Inf, Value::Zero) | (Value::Zero, Value::Inf) => return invalid::<F>(env),
        (Value::Inf, _) | (_, Value::Inf) => Value::Inf,
        (Value::Zero, _) | (_, Value::Zero) => Value::Zero,
        (Value::Finite(p), Value::Finite(q)) => Value::Finite(Num { sign, ..p.mul(&q) }),
    };
    if matches!((product, z.value), (Value::Inf, Value::Inf)) && sign != z.sign {
        return invalid::<F>(env);
    }
    if denormal(env, x.denormal | y.denormal | z.denormal) {
        return 0;
    }
    sum::<F>(env, Operand { sign, value: product, denormal: false }, z)
}

/// Compares; IE for an SNaN, and for a QNaN too if `signal_quiet`.
pub(super) fn compare<F: Ieee>(env: &mut Env, a: u64, b: u64, signal_quiet: bool) -> Relation {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        if signal_quiet || is_snan::<F>(a) || is_snan::<F>(b) {
            env.raise(Flags::IE);
        }
        return Relation::Unordered;
    }
    let (x, y) = unpack2::<F>(env, a, b);
    denormal(env, x.denormal | y.denormal);
    order(&x, &y)
}

fn order(x: &Operand, y: &Operand) -> Relation {
    if matches!((x.value, y.value), (Value::Zero, Value::Zero)) {
        return Relation::Equal;
    }
    if x.sign != y.sign {
        let negative_first = if matches!(x.value, Value::Zero) { !y.sign } else { x.sign };
        return if negative_first { Relation::Less } else { Relation::Greater };
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

/// MIN (`Less`) and MAX (`Greater`): the first operand if the relation holds strictly, else the second; any NaN raises IE.
pub(super) fn select<F: Ieee>(env: &mut Env, a: u64, b: u64, wanted: Relation) -> u64 {
    if compare::<F>(env, a, b, true) == wanted { flush::<F>(env, a) } else { flush::<F>(env, b) }
}

/// A denormal becomes a zero of its sign under DAZ.
fn flush<F: Ieee>(env: &Env, a: u64) -> u64 {
    if env.daz() && a & F::INF == 0 { a & F::SIGN } else { a }
}

/// Rounds to an integral value in the same format. Denormal operands do not raise DE.
pub(super) fn round_integral<F: Ieee>(env: &mut Env, a: u64, rounding: Rounding, suppress_pe: bool) -> u64 {
    if let Some(nan) = propagate::<F>(env, &[a]) {
        return nan;
    }
    let x = unpack::<F>(a, env.daz());
    let num = match x.value {
        Value::Zero => return signed::<F>(x.sign, 0),
        Value::Finite(num) if num.exp < F::P as i32 - 1 => num,
        _ => return a,
    };
    let Some(int) = num.to_integer(rounding) else { return a };
    if int.inexact && !suppress_pe {
        env.raise(Flags::PE);
    }
    match Num::from_int(x.sign, int.magnitude) {
        Some(num) => pack::<F>(env, &num),
        None => signed::<F>(x.sign, 0),
    }
}

/// Converts between formats; a NaN keeps the upper bits of its payload.
pub(super) fn convert<From: Ieee, To: Ieee>(env: &mut Env, a: u64) -> u64 {
    let sign = a & From::SIGN != 0;
    if let Some(nan) = propagate::<From>(env, &[a]) {
        let frac = ((nan & From::FRAC) << (64 - (From::P - 1))) >> (64 - (To::P - 1));
        return signed::<To>(sign, To::INF | frac);
    }
    let x = unpack::<From>(a, env.daz());
    if denormal(env, x.denormal) {
        return 0;
    }
    match x.value {
        Value::Zero => signed::<To>(sign, 0),
        Value::Inf => signed::<To>(sign, To::INF),
        Value::Finite(num) => pack::<To>(env, &num),
    }
}

/// Converts to an integer of `bits` bits. NaNs and values out of range raise IE and give the integer indefinite: the sign bit
/// alone, or all ones for an unsigned target. Denormal operands do not raise DE.
pub(super) fn to_int<F: Ieee>(env: &mut Env, a: u64, rounding: Rounding, bits: u32, unsigned: bool) -> u64 {
    let ones = u64::MAX >> (64 - bits);
    let indefinite = if unsigned { ones } else { 1 << (bits - 1) };
    if is_nan::<F>(a) {
        env.raise(Flags::IE);
        return indefinite;
    }
    let x = unpack::<F>(a, env.daz());
    let num = match x.value {
        Value::Zero => return 0,
        Value::Inf => None,
        Value::Finite(num) => num.to_integer(rounding),
    };
    let limit = match (unsigned, x.sign) {
        (true, false) => ones,
        (true, true) => 0,
        (false, sign) => (ones >> 1) + u64::from(sign),
    };
    match num {
        Some(int) if int.magnitude <= limit => {
            if int.inexact {
                env.raise(Flags::PE);
            }
            if x.sign { int.magnitude.wrapping_neg() & ones } else { int.magnitude }
        }
        _ => {
            env.raise(Flags::IE);
            indefinite
        }
    }
}

/// Converts from an integer.
pub(super) fn from_int<F: Ieee>(env: &mut Env, sign: bool, magnitude: u64) -> u64 {
    match Num::from_int(sign, magnitude) {
        Some(num) => pack::<F>(env, &num),
        None => 0,
    }
}
