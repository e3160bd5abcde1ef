//! Conversions between extended precision and the memory formats.

use super::{BIAS, Class, Env80, F80, INTEGER_BIT, Value, is_nan, special1, unpack};
use crate::fp::Flags;
use crate::fp::ieee::{self, Double, Ieee, Single};
use crate::fp::num::Num;

/// Widens without raising anything: the value (an SNaN stays one), and whether the source was denormal.
fn widen<F: Ieee>(a: u64) -> (F80, bool) {
    let sign = a & F::SIGN != 0;
    if ieee::is_nan::<F>(a) {
        let frac = INTEGER_BIT | (a & F::FRAC) << (64 - F::P);
        return (F80 { sign_exp: 0x7fff, frac }.with_sign(sign), false);
    }
    let x = ieee::unpack::<F>(a, false);
    let value = match x.value {
        ieee::Value::Zero => F80::ZERO,
        ieee::Value::Inf => F80::INFINITY,
        ieee::Value::Finite(num) => exact(&num),
    };
    (value.with_sign(sign), x.denormal)
}

/// A number known to be a normal extended-precision one.
fn exact(num: &Num) -> F80 {
    F80 { sign_exp: (num.exp + BIAS) as u16, frac: (num.sig >> 64) as u64 }.with_sign(num.sign)
}

/// Widens the memory operand of an arithmetic instruction; a denormal is noted for the operation to raise DE.
#[inline]
pub fn widen32(e: &mut Env80, a: u32) -> F80 {
    let (value, denormal) = widen::<Single>(a.into());
    e.denormal_source = denormal;
    value
}

/// Widens the memory operand of an arithmetic instruction; a denormal is noted for the operation to raise DE.
#[inline]
pub fn widen64(e: &mut Env80, a: u64) -> F80 {
    let (value, denormal) = widen::<Double>(a);
    e.denormal_source = denormal;
    value
}

/// FLD m32fp: a denormal raises DE, an SNaN IE.
pub fn from_f32(e: &mut Env80, a: u32) -> F80 {
    let value = widen32(e, a);
    load(e, value)
}

/// FLD m64fp: a denormal raises DE, an SNaN IE.
pub fn from_f64(e: &mut Env80, a: u64) -> F80 {
    let value = widen64(e, a);
    load(e, value)
}

fn load(e: &mut Env80, value: F80) -> F80 {
    if is_nan(value) {
        return special1(e, value).unwrap_or(value);
    }
    e.denormal(false);
    value
}

/// FILD: always exact.
#[inline]
pub fn from_int(a: i64) -> F80 {
    match Num::from_int(a < 0, a.unsigned_abs()) {
        Some(num) => exact(&num),
        None => F80::ZERO,
    }
}

/// FST m32fp, m64fp. `None` in place of bits if an unmasked OE or UE forbids the store.
fn narrow<F: Ieee>(e: &mut Env80, a: F80) -> Option<u64> {
    let with_sign = |sign: bool, magnitude: u64| if sign { F::SIGN | magnitude } else { magnitude };
    if let Some(nan) = special1(e, a) {
        return Some(with_sign(nan.sign(), F::INF | (nan.frac >> (64 - F::P) & F::FRAC)));
    }
    match unpack(a).value {
        Value::Zero => Some(with_sign(a.sign(), 0)),
        Value::Inf => Some(with_sign(a.sign(), F::INF)),
        Value::Finite(num) => {
            let mut env = e.env;
            let (bits, up) = ieee::pack_up::<F>(&mut env, &num);
            let lost = env.unmasked() & (Flags::OE | Flags::UE);
            if !lost.is_empty() {
                // Nothing was rounded: PE stays clear.
                e.raise(lost);
                return None;
            }
            (e.env, e.up) = (env, up);
            Some(bits)
        }
    }
}

/// FST m32fp; `None` if an unmasked OE or UE forbids the store.
pub fn to_f32(e: &mut Env80, a: F80) -> Option<u32> {
    narrow::<Single>(e, a).map(|bits| bits as u32)
}

/// FST m64fp; `None` if an unmasked OE or UE forbids the store.
pub fn to_f64(e: &mut Env80, a: F80) -> Option<u64> {
    narrow::<Double>(e, a)
}

/// FIST, and with `truncate` FISTTP, to 16, 32 or 64 bits; IE and the integer indefinite if the value does not fit.
pub fn to_int(e: &mut Env80, a: F80, bits: u32, truncate: bool) -> i64 {
    let indefinite = i64::MIN >> (64 - bits);
    let limit = (u64::MAX >> (65 - bits)) + u64::from(a.sign());
    match rounded_magnitude(e, a, truncate, limit) {
        Some(magnitude) if a.sign() => magnitude.wrapping_neg() as i64,
        Some(magnitude) => magnitude as i64,
        None => indefinite,
    }
}

/// Magnitude rounded to an integer of at most `limit`, else IE.
fn rounded_magnitude(e: &mut Env80, a: F80, truncate: bool, limit: u64) -> Option<u64> {
    let rounding = if truncate { crate::fp::Rounding::Zero } else { e.rounding() };
    let int = match a.class() {
        Class::Zero => return Some(0),
        Class::Normal | Class::Denormal => match unpack(a).value {
            Value::Finite(num) => num.to_integer(rounding),
            _ => None,
        },
        _ => None,
    };
    match int {
        Some(int) if int.magnitude <= limit => {
            if int.inexact {
                e.raise(Flags::PE);
                e.up = int.up;
            }
            Some(int.magnitude)
        }
        _ => {
            e.raise(Flags::IE);
            None
        }
    }
}

const BCD_INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;
const BCD_MAX: u64 = 999_999_999_999_999_999;

/// FBLD: exact. Digits above 9 are undefined by the SDM; here they count with their value.
pub fn from_bcd(bits: u128) -> F80 {
    let mut magnitude = 0u64;
    for digit in (0..18).rev() {
        magnitude = magnitude.wrapping_mul(10).wrapping_add((bits >> (4 * digit)) as u64 & 15);
    }
    let value = Num::from_int(false, magnitude).map_or(F80::ZERO, |num| exact(&num));
    value.with_sign(bits >> 79 & 1 != 0)
}

/// FBSTP: rounds to an integer of 18 digits; IE and the BCD indefinite if it does not fit.
pub fn to_bcd(e: &mut Env80, a: F80) -> u128 {
    let Some(mut magnitude) = rounded_magnitude(e, a, false, BCD_MAX) else { return BCD_INDEFINITE };
    let mut bits = u128::from(a.sign()) << 79;
    for digit in 0..18 {
        bits |= u128::from(magnitude % 10) << (4 * digit);
        magnitude /= 10;
    }
    bits
}
