//! 80-bit extended precision: the x87's formats, NaN rules and arithmetic (SDM Vol. 1, chapter 8).
//!
//! Functions take an [`Env80`] made from the control word. If an unmasked IE, DE or ZE is detected they return a meaningless value that
//! must not be stored ([`Env80::pre_fault`]). An unmasked OE or UE gives the result with its exponent wrapped by 24576.

mod arith;
mod convert;
mod step;
mod transcend;
mod wide;

pub use arith::{add, compare, div, mul, sqrt, sub};
pub use convert::{from_bcd, from_f32, from_f64, from_int, to_bcd, to_f32, to_f64, to_int, widen32, widen64};
pub use step::{Remainder, extract, rem, round_integral, scale};
pub use transcend::{atan2, cos, exp2_minus_1, sin, sin_cos, tan, y_log2_x, y_log2_x_plus_1};

use super::num::{Format, Num, Rounded, round};
use super::{Env, Flags, Rounding};

/// A raw 80-bit value. All bit patterns are possible, also those the FPU calls unsupported.
///
/// It lies in memory as an m80fp, on hosts of x86's byte order, and what follows up to 16 bytes is nobody's.
#[repr(C, align(16))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct F80 {
    /// Significand, with its explicit integer bit 63.
    pub frac: u64,
    /// Sign in bit 15, biased exponent below.
    pub sign_exp: u16,
}

pub(super) const INTEGER_BIT: u64 = 1 << 63;
const QUIET_BIT: u64 = 1 << 62;
pub(super) const BIAS: i32 = 16383;
const EXP_ONES: u16 = 0x7fff;

impl F80 {
    /// +0.
    pub const ZERO: F80 = F80 { sign_exp: 0, frac: 0 };
    /// +1.
    pub const ONE: F80 = F80 { sign_exp: BIAS as u16, frac: INTEGER_BIT };
    /// Positive infinity.
    pub const INFINITY: F80 = F80 { sign_exp: EXP_ONES, frac: INTEGER_BIT };
    /// The QNaN floating-point indefinite: the masked response to an invalid operation.
    pub const INDEFINITE: F80 = F80 { sign_exp: 0xffff, frac: INTEGER_BIT | QUIET_BIT };

    /// From the low 80 bits.
    #[inline]
    pub const fn from_bits(bits: u128) -> F80 {
        F80 { sign_exp: (bits >> 64) as u16, frac: bits as u64 }
    }

    /// In the low 80 bits.
    #[inline]
    pub const fn to_bits(self) -> u128 {
        (self.sign_exp as u128) << 64 | self.frac as u128
    }

    /// From the ten bytes in memory.
    pub fn from_le_bytes(b: [u8; 10]) -> F80 {
        F80 { sign_exp: u16::from_le_bytes([b[8], b[9]]), frac: u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) }
    }

    /// The ten bytes in memory.
    pub fn to_le_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.frac.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sign_exp.to_le_bytes());
        bytes
    }

    /// The sign bit.
    #[inline]
    pub const fn sign(self) -> bool {
        self.sign_exp >> 15 != 0
    }

    /// The same with another sign.
    #[inline]
    pub const fn with_sign(self, sign: bool) -> F80 {
        F80 { sign_exp: (self.sign_exp & EXP_ONES) | (sign as u16) << 15, frac: self.frac }
    }

    /// FCHS.
    #[inline]
    pub const fn negate(self) -> F80 {
        F80 { sign_exp: self.sign_exp ^ 0x8000, frac: self.frac }
    }

    #[inline]
    fn field(self) -> u16 {
        self.sign_exp & EXP_ONES
    }

    /// A normal number's value.
    #[inline]
    fn normal(self) -> Option<Num> {
        let field = self.field();
        if field.wrapping_sub(1) < EXP_ONES - 1 && self.frac >> 63 != 0 {
            return Some(Num { sign: self.sign(), exp: field as i32 - BIAS, sig: (self.frac as u128) << 64 });
        }
        None
    }

    /// What the bits stand for.
    pub fn class(self) -> Class {
        let integer = self.frac & INTEGER_BIT != 0;
        match self.field() {
            0 if self.frac == 0 => Class::Zero,
            0 => Class::Denormal,
            _ if !integer => Class::Unsupported,
            EXP_ONES if self.frac == INTEGER_BIT => Class::Infinity,
            EXP_ONES if self.frac & QUIET_BIT != 0 => Class::Quiet,
            EXP_ONES => Class::Signaling,
            _ => Class::Normal,
        }
    }
}

/// The classes of FXAM, with NaNs told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// ±0.
    Zero,
    /// Normal finite.
    Normal,
    /// Denormal or pseudo-denormal.
    Denormal,
    /// ±∞.
    Infinity,
    /// QNaN.
    Quiet,
    /// SNaN.
    Signaling,
    /// Unnormal, pseudo-infinity or pseudo-NaN: an invalid operand since the 387 (SDM Vol. 1, 8.2.2).
    Unsupported,
}

/// The environment of one x87 instruction.
#[derive(Debug, Clone, Copy)]
pub struct Env80 {
    /// Rounding, masks and raised exceptions.
    pub env: Env,
    /// Significand bits of results: 24, 53 or 64 (the PC field).
    pub precision: u32,
    /// The result was rounded up in magnitude: C1.
    pub up: bool,
    /// A memory operand was denormal before it was widened.
    pub denormal_source: bool,
}

impl Env80 {
    /// From the x87 control word. The reserved PC encoding 01 acts as 64 bits.
    #[inline]
    pub fn from_control_word(cw: u16) -> Env80 {
        let cw = cw as u32;
        let precision = match cw >> 8 & 3 {
            0 => 24,
            2 => 53,
            _ => 64,
        };
        let csr = (cw & 0x3f) << 7 | (cw >> 10 & 3) << 13;
        Env80 { env: Env::from_mxcsr(csr), precision, up: false, denormal_source: false }
    }

    /// Rounding direction.
    #[inline]
    pub fn rounding(&self) -> Rounding {
        self.env.rounding()
    }

    /// Records exceptions.
    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.env.raise(flags);
    }

    /// An unmasked exception forbids any result.
    #[inline]
    pub fn pre_fault(&self) -> bool {
        self.env.pre_fault()
    }

    fn invalid(&mut self) -> F80 {
        self.raise(Flags::IE);
        F80::INDEFINITE
    }

    /// Raises DE if any operand is denormal; true if that faults.
    fn denormal(&mut self, any: bool) -> bool {
        if any || self.denormal_source {
            self.raise(Flags::DE);
        }
        self.pre_fault()
    }
}

/// An operand that is neither NaN nor unsupported.
#[derive(Clone, Copy)]
enum Value {
    Zero,
    Finite(Num),
    Inf,
}

#[derive(Clone, Copy)]
struct Operand {
    sign: bool,
    value: Value,
    denormal: bool,
}

impl Operand {
    fn is_zero(&self) -> bool {
        matches!(self.value, Value::Zero)
    }

    fn is_inf(&self) -> bool {
        matches!(self.value, Value::Inf)
    }
}

/// Decodes an operand that is neither NaN nor unsupported.
#[inline]
fn unpack(a: F80) -> Operand {
    let sign = a.sign();
    let value = match a.normal() {
        Some(num) => Value::Finite(num),
        None if a.field() != 0 => Value::Inf,
        None => match Num::normalize(sign, 1 - BIAS, (a.frac as u128) << 64) {
            Some(num) => return Operand { sign, value: Value::Finite(num), denormal: true },
            None => Value::Zero,
        },
    };
    Operand { sign, value, denormal: false }
}

const fn format(precision: u32) -> Format {
    Format { precision, emin: 1 - BIAS, emax: BIAS, wrap: 24576 }
}

/// Rounds to `precision` bits.
#[inline]
fn pack(e: &mut Env80, num: &Num, precision: u32) -> F80 {
    let r = if precision == 64 { round(&mut e.env, &const { format(64) }, num) } else { round(&mut e.env, &format(precision), num) };
    e.up = r.up;
    assemble(e, num.sign, &r, precision)
}

#[inline]
fn assemble(e: &mut Env80, sign: bool, r: &Rounded, precision: u32) -> F80 {
    let frac = r.mant << (64 - precision);
    let field = if frac & INTEGER_BIT != 0 { r.exp + BIAS } else { 0 };
    match field {
        // Beyond even the wrapped range (FSCALE): infinity or zero, SDM Vol. 1, 8.5.4 and 8.5.5.
        0x8000.. => {
            e.raise(Flags::PE);
            e.up = true;
            F80::INFINITY.with_sign(sign)
        }
        i32::MIN..0 => {
            e.raise(Flags::PE);
            F80::ZERO.with_sign(sign)
        }
        _ => F80 { sign_exp: field as u16, frac }.with_sign(sign),
    }
}

fn is_nan(a: F80) -> bool {
    matches!(a.class(), Class::Quiet | Class::Signaling)
}

fn quiet(a: F80) -> F80 {
    F80 { frac: a.frac | QUIET_BIT, ..a }
}

/// The result if an operand is unsupported (indefinite) or a NaN (SDM Vol. 1, table 4-7): a QNaN goes before an SNaN, else the larger
/// significand wins, else the positive one.
#[cold]
fn special2(e: &mut Env80, a: F80, b: F80) -> Option<F80> {
    let (x, y) = (a.class(), b.class());
    if x == Class::Unsupported || y == Class::Unsupported {
        return Some(e.invalid());
    }
    if x == Class::Signaling || y == Class::Signaling {
        e.raise(Flags::IE);
    }
    let nan = match (is_nan(a), is_nan(b)) {
        (false, false) => return None,
        (true, false) => a,
        (false, true) => b,
        _ if x == Class::Signaling && y == Class::Quiet => b,
        _ if x == Class::Quiet && y == Class::Signaling => a,
        _ if a.frac != b.frac => {
            if a.frac > b.frac {
                a
            } else {
                b
            }
        }
        _ => {
            if a.sign() {
                b
            } else {
                a
            }
        }
    };
    Some(quiet(nan))
}

/// The same for one operand.
fn special1(e: &mut Env80, a: F80) -> Option<F80> {
    match a.class() {
        Class::Unsupported => Some(e.invalid()),
        Class::Signaling => {
            e.raise(Flags::IE);
            Some(quiet(a))
        }
        Class::Quiet => Some(a),
        _ => None,
    }
}
