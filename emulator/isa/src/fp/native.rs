//! `f32` and `f64` arithmetic: native where that is exact in bits and flags, soft otherwise.
//!
//! Native arithmetic rounds to nearest, which no operation here changes, and keeps no flags. It is used when
//! - rounding is to nearest, and PE is sticky and masked, or the result is shown to be exact;
//! - no operand is denormal (DE, DAZ): NaN and infinite operands never give a normal result, so they need no check;
//! - the result is zero because of a zero operand or exact cancellation, or normal and at least twice the least normal number (just
//!   below that, a tiny result may have been rounded up to a normal one, which is an underflow).

use super::ieee::{self, Double, Ieee, Single};
use super::{Env, Relation, Rounding};
use std::cmp::Ordering;

/// The relations under which a CMPPS predicate holds (bit n: the `Relation` of that number), and whether a QNaN raises IE.
#[inline]
fn predicate(predicate: u8) -> (u8, bool) {
    const LT: u8 = 1 << Relation::Less as u8;
    const EQ: u8 = 1 << Relation::Equal as u8;
    const GT: u8 = 1 << Relation::Greater as u8;
    const UN: u8 = 1 << Relation::Unordered as u8;
    let (holds, signals) = match predicate & 15 {
        0 => (EQ, false),
        1 => (LT, true),
        2 => (LT | EQ, true),
        3 => (UN, false),
        4 => (LT | GT | UN, false),
        5 => (EQ | GT | UN, true),
        6 => (GT | UN, true),
        7 => (LT | EQ | GT, false),
        8 => (EQ | UN, false),
        9 => (LT | UN, true),
        10 => (LT | EQ | UN, true),
        11 => (0, false),
        12 => (LT | GT, false),
        13 => (EQ | GT, true),
        14 => (GT, true),
        _ => (LT | EQ | GT | UN, false),
    };
    (holds, signals ^ (predicate & 16 != 0))
}

macro_rules! width {
    ($module:ident, $float:ident, $bits:ident, $format:ident) => {
        pub(super) mod $module {
            use super::*;
            const SHIFT: u32 = $format::P - 1;
            const ONES: $bits = $format::EXP_ONES as $bits;
            const SIGN: $bits = $format::SIGN as $bits;

            #[inline]
            fn float(a: $bits) -> $float {
                $float::from_bits(a)
            }

            #[inline]
            pub fn not_denormal(a: $bits) -> bool {
                a & (ONES << SHIFT) != 0 || a << 1 == 0
            }

            /// Normal, neither next to the least nor overflowing.
            #[inline]
            pub fn safe(a: $bits) -> bool {
                ((a >> SHIFT) & ONES).wrapping_sub(2) < ONES - 2
            }

            #[inline]
            pub fn zero(a: $bits) -> bool {
                a << 1 == 0
            }

            /// Zeros below the last one of the significand of a normal number.
            fn trailing_zeros(a: $bits) -> u32 {
                (a | 1 << SHIFT).trailing_zeros()
            }

            /// The error of a sum that did not overflow is itself a float (Knuth's TwoSum): compare it with zero.
            fn exact_sum(x: $float, y: $float, r: $float) -> bool {
                let z = r - x;
                (x - (r - z)) + (y - z) == 0.0
            }

            /// Sufficient for the product of two normal numbers to be exact: its significand has at most P bits.
            fn exact_product(a: $bits, b: $bits) -> bool {
                trailing_zeros(a) + trailing_zeros(b) >= $format::P
            }

            /// Addition: ADDSS, ADDSD.
            #[inline]
            pub fn add(env: &mut Env, a: $bits, b: $bits) -> $bits {
                let r = (float(a) + float(b)).to_bits();
                if env.native() && (safe(r) || zero(r)) && not_denormal(a) && not_denormal(b) {
                    return r;
                }
                add_slow(env, a, b, r, false)
            }

            /// Subtraction: SUBSS, SUBSD.
            #[inline]
            pub fn sub(env: &mut Env, a: $bits, b: $bits) -> $bits {
                let r = (float(a) - float(b)).to_bits();
                if env.native() && (safe(r) || zero(r)) && not_denormal(a) && not_denormal(b) {
                    return r;
                }
                add_slow(env, a, b, r, true)
            }

            #[inline(never)]
            fn add_slow(env: &mut Env, a: $bits, b: $bits, r: $bits, subtract: bool) -> $bits {
                if env.nearest() && (safe(r) || zero(r)) && not_denormal(a) && not_denormal(b) {
                    let y = if subtract { -float(b) } else { float(b) };
                    if exact_sum(float(a), y, float(r)) {
                        return r;
                    }
                }
                ieee::add::<$format>(env, a.into(), b.into(), subtract) as $bits
            }

            /// Multiplication: MULSS, MULSD.
            #[inline]
            pub fn mul(env: &mut Env, a: $bits, b: $bits) -> $bits {
                let r = (float(a) * float(b)).to_bits();
                if env.native() && (safe(r) || (zero(r) && (zero(a) || zero(b)))) && not_denormal(a) && not_denormal(b) {
                    return r;
                }
                mul_slow(env, a, b, r)
            }

            #[inline(never)]
            fn mul_slow(env: &mut Env, a: $bits, b: $bits, r: $bits) -> $bits {
                if env.nearest() && safe(r) && not_denormal(a) && not_denormal(b) && exact_product(a, b) {
                    return r;
                }
                ieee::mul::<$format>(env, a.into(), b.into()) as $bits
            }

            /// Division: DIVSS, DIVSD.
            #[inline]
            pub fn div(env: &mut Env, a: $bits, b: $bits) -> $bits {
                let r = (float(a) / float(b)).to_bits();
                if env.native() && (safe(r) || (zero(r) && zero(a))) && not_denormal(a) && not_denormal(b) {
                    return r;
                }
                div_slow(env, a, b, r)
            }

            #[inline(never)]
            fn div_slow(env: &mut Env, a: $bits, b: $bits, r: $bits) -> $bits {
                let plain = env.nearest() && safe(r) && safe(a) && not_denormal(b);
                if plain && exact_product(r, b) && float(r) * float(b) == float(a) {
                    return r;
                }
                ieee::div::<$format>(env, a.into(), b.into()) as $bits
            }

            /// Square root: SQRTSS, SQRTSD.
            #[inline]
            pub fn sqrt(env: &mut Env, a: $bits) -> $bits {
                let r = float(a).sqrt().to_bits();
                if env.native() && (safe(r) || zero(r)) && not_denormal(a) {
                    return r;
                }
                sqrt_slow(env, a, r)
            }

            #[inline(never)]
            fn sqrt_slow(env: &mut Env, a: $bits, r: $bits) -> $bits {
                if env.nearest() && safe(r) && safe(a) && exact_product(r, r) && float(r) * float(r) == float(a) {
                    return r;
                }
                ieee::sqrt::<$format>(env, a.into()) as $bits
            }

            /// Minimum: MINSS, MINSD. The second operand if either is a NaN or both are zero.
            #[inline]
            pub fn min(env: &mut Env, a: $bits, b: $bits) -> $bits {
                match ordered(a, b) {
                    Some(order) => {
                        if order == Ordering::Less {
                            a
                        } else {
                            b
                        }
                    }
                    None => ieee::select::<$format>(env, a.into(), b.into(), Relation::Less) as $bits,
                }
            }

            /// Maximum: MAXSS, MAXSD. The second operand if either is a NaN or both are zero.
            #[inline]
            pub fn max(env: &mut Env, a: $bits, b: $bits) -> $bits {
                match ordered(a, b) {
                    Some(order) => {
                        if order == Ordering::Greater {
                            a
                        } else {
                            b
                        }
                    }
                    None => ieee::select::<$format>(env, a.into(), b.into(), Relation::Greater) as $bits,
                }
            }

            /// The order of operands whose comparison raises nothing.
            #[inline]
            fn ordered(a: $bits, b: $bits) -> Option<Ordering> {
                if not_denormal(a) && not_denormal(b) { float(a).partial_cmp(&float(b)) } else { None }
            }

            /// `±(a × b) ± c` with one rounding: the FMA3 family. `negate_product` is FNM…, `negate_addend` is …SUB. If several
            /// operands are NaNs, the result is the first of `a`, `b`, `c`, never negated. With the operands of the instruction numbered from
            /// 1: 132 is (1, 3, 2), 213 is (2, 1, 3), 231 is (2, 3, 1).
            #[inline]
            pub fn fma(env: &mut Env, a: $bits, b: $bits, c: $bits, negate_product: bool, negate_addend: bool) -> $bits {
                if env.native() && not_denormal(a) && not_denormal(b) && not_denormal(c) {
                    let (x, z) = (if negate_product { a ^ SIGN } else { a }, if negate_addend { c ^ SIGN } else { c });
                    let r = float(x).mul_add(float(b), float(z)).to_bits();
                    if safe(r) {
                        return r;
                    }
                }
                ieee::fma::<$format>(env, a.into(), b.into(), c.into(), negate_product, negate_addend) as $bits
            }

            /// Comparison: COMISS/COMISD with `signal_quiet` (any NaN raises IE), UCOMISS/UCOMISD without (only an SNaN does).
            #[inline]
            pub fn compare(env: &mut Env, a: $bits, b: $bits, signal_quiet: bool) -> Relation {
                match ordered(a, b) {
                    Some(Ordering::Less) => Relation::Less,
                    Some(Ordering::Equal) => Relation::Equal,
                    Some(Ordering::Greater) => Relation::Greater,
                    None => ieee::compare::<$format>(env, a.into(), b.into(), signal_quiet),
                }
            }

            /// CMPPS/CMPPD with predicate number `imm & 31` (the legacy SSE encodings have only 0 to 7).
            #[inline]
            pub fn cmp(env: &mut Env, a: $bits, b: $bits, imm: u8) -> bool {
                let (holds, signal_quiet) = predicate(imm);
                holds & (1 << compare(env, a, b, signal_quiet) as u8) != 0
            }

            /// Rounds to an integral value: ROUNDSS, ROUNDSD; the arguments come from [`round_imm`](crate::fp::round_imm).
            #[inline]
            pub fn round(env: &mut Env, a: $bits, rounding: Rounding, suppress_pe: bool) -> $bits {
                ieee::round_integral::<$format>(env, a.into(), rounding, suppress_pe) as $bits
            }
        }
    };
}

width!(single, f32, u32, Single);
width!(double, f64, u64, Double);

pub use double::{
    add as add64, cmp as cmp64, compare as compare64, div as div64, fma as fma64, max as max64, min as min64, mul as mul64,
    round as round64, sqrt as sqrt64, sub as sub64,
};
pub use single::{
    add as add32, cmp as cmp32, compare as compare32, div as div32, fma as fma32, max as max32, min as min32, mul as mul32,
    round as round32, sqrt as sqrt32, sub as sub32,
};
