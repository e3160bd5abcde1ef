//! Conversions among floating-point formats and integers.

use super::ieee::{self, Double, Half, Single};
use super::native::{double, single};
use super::{Env, Rounding};

/// 2^52 + 2^51: adding and subtracting it rounds an `f64` below 2^51 in magnitude to an integer, ties to even.
const INTEGER_SHIFTER: f64 = 6755399441055744.0;

/// CVTSS2SD.
#[inline]
pub fn f32_to_f64(env: &mut Env, a: u32) -> u64 {
    let r = f32::from_bits(a) as f64;
    if single::not_denormal(a) && r.is_finite() {
        return r.to_bits();
    }
    ieee::convert::<Single, Double>(env, a.into())
}

/// CVTSD2SS.
#[inline]
pub fn f64_to_f32(env: &mut Env, a: u64) -> u32 {
    let x = f64::from_bits(a);
    let r = x as f32;
    let exact = r as f64 == x && env.nearest();
    if (env.native() || exact) && (single::safe(r.to_bits()) || double::zero(a)) {
        return r.to_bits();
    }
    ieee::convert::<Double, Single>(env, a) as u32
}

/// VCVTPH2PS: exact, and a denormal half raises nothing whatever MXCSR.DAZ says (SDM Vol. 1, 14.4.1).
pub fn f16_to_f32(env: &mut Env, a: u16) -> u32 {
    let mut plain = Env::default();
    let r = ieee::convert::<Half, Single>(&mut plain, a.into()) as u32;
    env.raise(plain.raised() & super::Flags::IE);
    r
}

/// VCVTPS2PH; `rounding` is imm\[1:0\], or MXCSR.RC if imm\[2\]. FTZ is ignored, DAZ is not (SDM Vol. 1, 14.4.1).
pub fn f32_to_f16(env: &mut Env, a: u32, rounding: Rounding) -> u16 {
    let mut local = *env;
    local.csr &= !super::FTZ;
    local.set_rounding(rounding);
    let r = ieee::convert::<Single, Half>(&mut local, a.into()) as u16;
    env.raise(local.raised());
    r
}

macro_rules! to_int {
    ($($(#[$doc:meta])* $name:ident $trunc:ident: $from:ident $format:ident => $to:ident $bits:literal $unsigned:literal;)*) => {$(
        $(#[$doc])*
        pub fn $name(env: &mut Env, a: $from) -> $to {
            ieee::to_int::<$format>(env, a.into(), env.rounding(), $bits, $unsigned) as $to
        }

        /// The same with truncation.
        pub fn $trunc(env: &mut Env, a: $from) -> $to {
            ieee::to_int::<$format>(env, a.into(), Rounding::Zero, $bits, $unsigned) as $to
        }
    )*};
}

to_int! {
    /// To unsigned (AVX-512); all ones if out of range.
    f32_to_u32 f32_to_u32_trunc: u32 Single => u32 32 true;
    /// To unsigned (AVX-512); all ones if out of range.
    f32_to_u64 f32_to_u64_trunc: u32 Single => u64 64 true;
    /// To unsigned (AVX-512); all ones if out of range.
    f64_to_u32 f64_to_u32_trunc: u64 Double => u32 32 true;
    /// To unsigned (AVX-512); all ones if out of range.
    f64_to_u64 f64_to_u64_trunc: u64 Double => u64 64 true;
}

/// Rounds to nearest an `f64` of magnitude below 2^51; `None` if larger, NaN, or if PE would have to be raised.
#[inline]
fn nearest_integer(env: &Env, x: f64) -> Option<i64> {
    let r = (x + INTEGER_SHIFTER) - INTEGER_SHIFTER;
    let fine = x.abs() < (1i64 << 51) as f64 && (env.native() || (r == x && env.nearest()));
    fine.then_some(r as i64)
}

/// Truncates an `f64` of magnitude below 2^63; `None` if larger, NaN, or if PE would have to be raised.
#[inline]
fn truncated_integer(env: &Env, x: f64) -> Option<i64> {
    let r = x as i64;
    let fine = x.abs() < 9223372036854775808.0 && (env.inexact_is_silent() || r as f64 == x);
    fine.then_some(r)
}

/// CVTSD2SI, CVTPD2DQ: rounds by MXCSR.RC; 80000000h if out of range.
#[inline]
pub fn f64_to_i32(env: &mut Env, a: u64) -> u32 {
    match nearest_integer(env, f64::from_bits(a)).map(i32::try_from) {
        Some(Ok(r)) => r as u32,
        _ => ieee::to_int::<Double>(env, a, env.rounding(), 32, false) as u32,
    }
}

/// CVTTSD2SI, CVTTPD2DQ.
#[inline]
pub fn f64_to_i32_trunc(env: &mut Env, a: u64) -> u32 {
    match truncated_integer(env, f64::from_bits(a)).map(i32::try_from) {
        Some(Ok(r)) => r as u32,
        _ => ieee::to_int::<Double>(env, a, Rounding::Zero, 32, false) as u32,
    }
}

/// CVTSD2SI r64: rounds by MXCSR.RC; 2^63 if out of range.
#[inline]
pub fn f64_to_i64(env: &mut Env, a: u64) -> u64 {
    match nearest_integer(env, f64::from_bits(a)) {
        Some(r) => r as u64,
        None => ieee::to_int::<Double>(env, a, env.rounding(), 64, false),
    }
}

/// CVTTSD2SI r64.
#[inline]
pub fn f64_to_i64_trunc(env: &mut Env, a: u64) -> u64 {
    match truncated_integer(env, f64::from_bits(a)) {
        Some(r) => r as u64,
        None => ieee::to_int::<Double>(env, a, Rounding::Zero, 64, false),
    }
}

/// CVTSS2SI, CVTPS2DQ, CVTPS2PI.
#[inline]
pub fn f32_to_i32(env: &mut Env, a: u32) -> u32 {
    match nearest_integer(env, f32::from_bits(a) as f64).map(i32::try_from) {
        Some(Ok(r)) if single::not_denormal(a) => r as u32,
        _ => ieee::to_int::<Single>(env, a.into(), env.rounding(), 32, false) as u32,
    }
}

/// CVTTSS2SI, CVTTPS2DQ, CVTTPS2PI.
#[inline]
pub fn f32_to_i32_trunc(env: &mut Env, a: u32) -> u32 {
    match truncated_integer(env, f32::from_bits(a) as f64).map(i32::try_from) {
        Some(Ok(r)) if single::not_denormal(a) => r as u32,
        _ => ieee::to_int::<Single>(env, a.into(), Rounding::Zero, 32, false) as u32,
    }
}

/// CVTSS2SI r64.
#[inline]
pub fn f32_to_i64(env: &mut Env, a: u32) -> u64 {
    match nearest_integer(env, f32::from_bits(a) as f64) {
        Some(r) if single::not_denormal(a) => r as u64,
        _ => ieee::to_int::<Single>(env, a.into(), env.rounding(), 64, false),
    }
}

/// CVTTSS2SI r64.
#[inline]
pub fn f32_to_i64_trunc(env: &mut Env, a: u32) -> u64 {
    match truncated_integer(env, f32::from_bits(a) as f64) {
        Some(r) if single::not_denormal(a) => r as u64,
        _ => ieee::to_int::<Single>(env, a.into(), Rounding::Zero, 64, false),
    }
}

/// CVTSI2SD, CVTDQ2PD from 32 bits: always exact.
#[inline]
pub fn i32_to_f64(a: u32) -> u64 {
    (a as i32 as f64).to_bits()
}

/// From unsigned 32 bits (AVX-512): always exact.
#[inline]
pub fn u32_to_f64(a: u32) -> u64 {
    (a as f64).to_bits()
}

macro_rules! from_int {
    ($($(#[$doc:meta])* $name:ident: $from:ident as $int:ident $wide:ident => $float:ident $to:ident $format:ident;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(env: &mut Env, a: $from) -> $to {
            let int = a as $int;
            let r = int as $float;
            if env.native() || (env.nearest() && r as $wide == int as $wide) {
                return r.to_bits();
            }
            let wide = int as i128;
            ieee::from_int::<$format>(env, wide < 0, wide.unsigned_abs() as u64) as $to
        }
    )*};
}

from_int! {
    /// CVTSI2SS, CVTDQ2PS, CVTPI2PS.
    i32_to_f32: u32 as i32 i64 => f32 u32 Single;
    /// CVTSI2SS from 64 bits.
    i64_to_f32: u64 as i64 i128 => f32 u32 Single;
    /// CVTSI2SD from 64 bits.
    i64_to_f64: u64 as i64 i128 => f64 u64 Double;
    /// From unsigned (AVX-512).
    u32_to_f32: u32 as u32 u64 => f32 u32 Single;
    /// From unsigned (AVX-512).
    u64_to_f32: u64 as u64 u128 => f32 u32 Single;
    /// From unsigned (AVX-512).
    u64_to_f64: u64 as u64 u128 => f64 u64 Double;
}
