//! Finite nonzero numbers with a 128-bit significand, their arithmetic, and rounding to a format.

use super::{Env, Flags, Rounding};
use std::cmp::Ordering;

/// `(-1)^sign × sig × 2^(exp - 127)`, with bit 127 of `sig` set. Bit 0 may be a sticky bit that stands for any nonzero rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Num {
    pub sign: bool,
    pub exp: i32,
    pub sig: u128,
}

/// `x >> n`, with the bits shifted out or-ed into bit 0.
#[inline]
pub(crate) fn shift_right_jam(x: u128, n: u32) -> u128 {
    match n {
        0 => x,
        1..=127 => (x >> n) | u128::from(x << (128 - n) != 0),
        _ => u128::from(x != 0),
    }
}

impl Num {
    /// `sig × 2^(exp - 127)` with any nonzero `sig`; `None` for zero.
    #[inline]
    pub fn normalize(sign: bool, exp: i32, sig: u128) -> Option<Num> {
        if sig == 0 {
            return None;
        }
        let shift = sig.leading_zeros();
        Some(Num { sign, exp: exp - shift as i32, sig: sig << shift })
    }

    /// An integer of up to 64 bits.
    #[inline]
    pub fn from_int(sign: bool, magnitude: u64) -> Option<Num> {
        Num::normalize(sign, 63, (magnitude as u128) << 64)
    }

    /// The upper 64 bits of the significand: all of it for a number that came out of a format.
    #[inline]
    fn hi(&self) -> u64 {
        (self.sig >> 64) as u64
    }

    /// Compares magnitudes.
    #[inline]
    pub fn cmp_magnitude(&self, b: &Num) -> Ordering {
        (self.exp, self.sig).cmp(&(b.exp, b.sig))
    }

    /// Product of two numbers with 64-bit significands; exact.
    #[inline]
    pub fn mul(&self, b: &Num) -> Num {
        let p = self.hi() as u128 * b.hi() as u128;
        let shift = p.leading_zeros();
        Num { sign: self.sign ^ b.sign, exp: self.exp + b.exp + 1 - shift as i32, sig: p << shift }
    }

    /// Sum; `None` if it is exactly zero. Exact up to a sticky bit 126 places or more below the leading bit.
    #[inline]
    pub fn add(&self, b: &Num) -> Option<Num> {
        let (big, small) = if self.cmp_magnitude(b) == Ordering::Less { (b, self) } else { (self, b) };
        let aligned = shift_right_jam(small.sig, big.exp.wrapping_sub(small.exp) as u32);
        if big.sign == small.sign {
            let (sum, carry) = big.sig.overflowing_add(aligned);
            return Some(if carry {
                Num { sign: big.sign, exp: big.exp + 1, sig: shift_right_jam(sum, 1) | 1 << 127 }
            } else {
                Num { sign: big.sign, exp: big.exp, sig: sum }
            });
        }
        Num::normalize(big.sign, big.exp, big.sig - aligned)
    }

    /// Quotient of two numbers with 64-bit significands, with guard and sticky bits.
    #[inline]
    pub fn div(&self, b: &Num) -> Num {
        let (n, d) = (self.hi(), b.hi());
        let less = n < d;
        let (q, r) = div_128_by_64((n as u128) << (63 + u32::from(less)), d);
        let twice = (r as u128) << 1;
        let guard = twice >= d as u128;
        let sticky = r != 0 && twice != d as u128;
        let sig = (q as u128) << 64 | u128::from(guard) << 63 | u128::from(sticky);
        Num { sign: self.sign ^ b.sign, exp: self.exp - b.exp - i32::from(less), sig }
    }

    /// Square root of a number with a 64-bit significand, its sign taken as positive, with guard and sticky bits.
    pub fn sqrt(&self) -> Num {
        let odd = self.exp & 1;
        let radicand = (self.hi() as u128) << (63 + odd);
        let root = radicand.isqrt();
        let rest = radicand - root * root;
        // (root + 1/2)^2 = root^2 + root + 1/4: the guard bit is set when rest > root, and a half never occurs exactly.
        let sig = root << 64 | u128::from(rest > root) << 63 | u128::from(rest != 0);
        Num { sign: false, exp: (self.exp - odd) >> 1, sig }
    }

    /// Rounds to an integer: its magnitude, whether it differs from the number, and whether it is larger.
    /// `None` if the magnitude does not fit in 64 bits.
    pub fn to_integer(self, rounding: Rounding) -> Option<Integer> {
        if self.exp > 63 {
            return None;
        }
        let (int, rest) = match self.exp {
            0.. => ((self.sig >> (127 - self.exp)) as u64, self.sig << (self.exp + 1)),
            e => (0, shift_right_jam(self.sig, (-1 - e) as u32)),
        };
        let up = round_up(rounding, self.sign, int & 1 != 0, rest);
        Some(Integer { magnitude: int.checked_add(u64::from(up))?, inexact: rest != 0, up })
    }
}

/// A number rounded to an integer.
pub(crate) struct Integer {
    pub magnitude: u64,
    pub inexact: bool,
    pub up: bool,
}

/// `n / d` and `n % d` for a quotient known to fit in 64 bits.
#[inline]
fn div_128_by_64(n: u128, d: u64) -> (u64, u64) {
    let q = (n / u128::from(d)) as u64;
    (q, (n as u64).wrapping_sub(q.wrapping_mul(d)))
}

/// Does a magnitude with the fraction `rest` (of 2^128) below its last place go up?
#[inline]
pub(crate) fn round_up(rounding: Rounding, sign: bool, odd: bool, rest: u128) -> bool {
    const HALF: u128 = 1 << 127;
    match rounding {
        Rounding::Nearest => rest > HALF || (rest == HALF && odd),
        Rounding::Down => rest != 0 && sign,
        Rounding::Up => rest != 0 && !sign,
        Rounding::Zero => false,
    }
}

/// A target of rounding. A normal number is `1.f × 2^e` with `precision` bits and `emin <= e <= emax`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub precision: u32,
    pub emin: i32,
    pub emax: i32,
    /// Added to (subtracted from) the exponent of an unmasked underflow (overflow): the x87's 24576. Zero where an unmasked
    /// exception leaves no result.
    pub wrap: i32,
}

/// `mant × 2^(exp - precision + 1)`: normal if bit `precision - 1` of `mant` is set, else denormal or zero with `exp == emin`.
/// Infinity is `exp == emax + 1` with only that bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rounded {
    pub exp: i32,
    pub mant: u64,
    /// The magnitude went up: the x87's C1.
    pub up: bool,
}

/// One rounding of a significand to `precision` bits; (mantissa, exponent carry, inexact, up).
#[inline]
fn round_significand(sig: u128, precision: u32, rounding: Rounding, sign: bool) -> (u64, i32, bool, bool) {
    let keep = (sig >> (128 - precision)) as u64;
    let rest = sig << precision;
    let up = round_up(rounding, sign, keep & 1 != 0, rest);
    let (mant, carry) = keep.overflowing_add(u64::from(up));
    if carry || (precision < 64 && mant >> precision != 0) {
        return (1 << (precision - 1), 1, rest != 0, up);
    }
    (mant, 0, rest != 0, up)
}

/// Rounds to a format, raising OE, UE and PE. Tininess is detected after rounding (SDM Vol. 1, 4.9.1.5).
#[inline]
pub(crate) fn round(env: &mut Env, format: &Format, num: &Num) -> Rounded {
    let (mant, carry, inexact, up) = round_significand(num.sig, format.precision, env.rounding(), num.sign);
    let exp = num.exp + carry;
    if exp < format.emin {
        return underflow(env, format, num, Rounded { exp, mant, up }, inexact);
    }
    if exp > format.emax {
        return overflow(env, format, num.sign, Rounded { exp, mant, up }, inexact);
    }
    if inexact {
        env.raise(Flags::PE);
    }
    Rounded { exp, mant, up }
}

#[cold]
fn underflow(env: &mut Env, format: &Format, num: &Num, wide: Rounded, inexact: bool) -> Rounded {
    if !env.masked(Flags::UE) {
        env.raise(if inexact { Flags::UE | Flags::PE } else { Flags::UE });
        return Rounded { exp: wide.exp + format.wrap, ..wide };
    }
    if env.ftz() {
        env.raise(Flags::UE | Flags::PE);
        return Rounded { exp: format.emin, mant: 0, up: false };
    }
    let sig = shift_right_jam(num.sig, format.emin.wrapping_sub(num.exp) as u32);
    let (mant, carry, inexact, up) = round_significand(sig, format.precision, env.rounding(), num.sign);
    debug_assert_eq!(carry, 0);
    if inexact {
        env.raise(Flags::UE | Flags::PE);
    }
    Rounded { exp: format.emin, mant, up }
}

#[cold]
fn overflow(env: &mut Env, format: &Format, sign: bool, wide: Rounded, inexact: bool) -> Rounded {
    if !env.masked(Flags::OE) {
        env.raise(if inexact { Flags::OE | Flags::PE } else { Flags::OE });
        return Rounded { exp: wide.exp - format.wrap, ..wide };
    }
    env.raise(Flags::OE | Flags::PE);
    let infinite = match env.rounding() {
        Rounding::Nearest => true,
        Rounding::Down => sign,
        Rounding::Up => !sign,
        Rounding::Zero => false,
    };
    if infinite {
        return Rounded { exp: format.emax + 1, mant: 1 << (format.precision - 1), up: true };
    }
    Rounded { exp: format.emax, mant: u64::MAX >> (64 - format.precision), up: false }
}
