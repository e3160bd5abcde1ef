//! Evaluation of the floating-point operations over [`crate::fp`].

use super::lanes::*;
use super::{Arith, Fmt, FpOp, Lanes, Shape, ToInt};
use crate::fp::{self, Env, Relation};

/// The result of `op` under `env`, which collects the exceptions of all lanes.
///
/// The caller looks at [`Env::unmasked`] before it writes the result. Results of 64 bits and less are zero-extended.
#[inline]
pub fn eval_fp(op: FpOp, env: &mut Env, a: u128, b: u128, imm: u8) -> u128 {
    use FpOp::*;
    match op {
        Arith(arith, Fmt::F32, lanes) => arith32(arith, lanes, env, a, b),
        Arith(arith, Fmt::F64, lanes) => arith64(arith, lanes, env, a, b),
        Cmp(Fmt::F32, lanes) => each32(lanes, env, a, b, |e, x, y| ones32(fp::cmp32(e, x, y, imm))),
        Cmp(Fmt::F64, lanes) => each64(lanes, env, a, b, |e, x, y| ones64(fp::cmp64(e, x, y, imm))),
        Rcp(lanes) => each32(lanes, env, a, b, |_, _, y| fp::rcp32(y)),
        Rsqrt(lanes) => each32(lanes, env, a, b, |_, _, y| fp::rsqrt32(y)),
        Round(Fmt::F32, lanes) => {
            let (rounding, suppress) = fp::round_imm(env, imm);
            each32(lanes, env, a, b, |e, _, y| fp::round32(e, y, rounding, suppress))
        }
        Round(Fmt::F64, lanes) => {
            let (rounding, suppress) = fp::round_imm(env, imm);
            each64(lanes, env, a, b, |e, _, y| fp::round64(e, y, rounding, suppress))
        }
        AddSub(_) | AddPairs(_) | SubPairs(_) => horizontal(op, env, a, b),
        Dot(Fmt::F32) => dot32(env, [a], [b], imm)[0],
        Dot(Fmt::F64) => dot64(env, a, b, imm),
        _ => convert(op, env, a, b, imm),
    }
}

/// The same for both halves of 256 bits: the exceptions of all lanes are detected together.
pub fn eval_fp_wide(op: FpOp, env: &mut Env, a: [u128; 2], b: [u128; 2], imm: u8) -> [u128; 2] {
    match op {
        FpOp::Dot(Fmt::F32) => dot32(env, a, b, imm),
        _ => [eval_fp(op, env, a[0], b[0], imm), eval_fp(op, env, a[1], b[1], imm)],
    }
}

/// COMISS, COMISD (`signaling`), UCOMISS, UCOMISD: how the lowest lanes compare; [`Relation::zf_pf_cf`] gives the flags.
#[inline]
pub fn compare(fmt: Fmt, signaling: bool, env: &mut Env, a: u128, b: u128) -> Relation {
    match fmt {
        Fmt::F32 => fp::compare32(env, a as u32, b as u32, signaling),
        Fmt::F64 => fp::compare64(env, a as u64, b as u64, signaling),
    }
}

#[inline(always)]
fn ones32(condition: bool) -> u32 {
    if condition { u32::MAX } else { 0 }
}

#[inline(always)]
fn ones64(condition: bool) -> u64 {
    if condition { u64::MAX } else { 0 }
}

#[inline(always)]
fn each32(lanes: Lanes, env: &mut Env, a: u128, b: u128, mut f: impl FnMut(&mut Env, u32, u32) -> u32) -> u128 {
    match lanes {
        Lanes::Scalar => (a & !Shape::F32.mask()) | u128::from(f(env, a as u32, b as u32)),
        Lanes::Packed => {
            let (a, b) = (split_u32(a), split_u32(b));
            join_u32(core::array::from_fn(|i| f(env, a[i], b[i])))
        }
    }
}

#[inline(always)]
fn each64(lanes: Lanes, env: &mut Env, a: u128, b: u128, mut f: impl FnMut(&mut Env, u64, u64) -> u64) -> u128 {
    match lanes {
        Lanes::Scalar => (a & !Shape::F64.mask()) | u128::from(f(env, a as u64, b as u64)),
        Lanes::Packed => {
            let (a, b) = (split_u64(a), split_u64(b));
            join_u64(core::array::from_fn(|i| f(env, a[i], b[i])))
        }
    }
}

#[inline]
fn arith32(op: Arith, lanes: Lanes, env: &mut Env, a: u128, b: u128) -> u128 {
    match op {
        Arith::Add => each32(lanes, env, a, b, fp::add32),
        Arith::Sub => each32(lanes, env, a, b, fp::sub32),
        Arith::Mul => each32(lanes, env, a, b, fp::mul32),
        Arith::Div => each32(lanes, env, a, b, fp::div32),
        Arith::Min => each32(lanes, env, a, b, fp::min32),
        Arith::Max => each32(lanes, env, a, b, fp::max32),
        Arith::Sqrt => each32(lanes, env, a, b, |e, _, y| fp::sqrt32(e, y)),
    }
}

#[inline]
fn arith64(op: Arith, lanes: Lanes, env: &mut Env, a: u128, b: u128) -> u128 {
    match op {
        Arith::Add => each64(lanes, env, a, b, fp::add64),
        Arith::Sub => each64(lanes, env, a, b, fp::sub64),
        Arith::Mul => each64(lanes, env, a, b, fp::mul64),
        Arith::Div => each64(lanes, env, a, b, fp::div64),
        Arith::Min => each64(lanes, env, a, b, fp::min64),
        Arith::Max => each64(lanes, env, a, b, fp::max64),
        Arith::Sqrt => each64(lanes, env, a, b, |e, _, y| fp::sqrt64(e, y)),
    }
}

#[inline]
fn convert(op: FpOp, env: &mut Env, a: u128, b: u128, imm: u8) -> u128 {
    use FpOp::*;
    let (singles, doubles) = (split_u32(b), split_u64(b));
    match op {
        CvtPs2Pd => join_u64([singles[0], singles[1]].map(|v| fp::f32_to_f64(env, v))),
        CvtPd2Ps => pair32(doubles.map(|v| fp::f64_to_f32(env, v))),
        CvtSs2Sd => (a & !Shape::F64.mask()) | u128::from(fp::f32_to_f64(env, singles[0])),
        CvtSd2Ss => (a & !Shape::F32.mask()) | u128::from(fp::f64_to_f32(env, doubles[0])),
        CvtDq2Ps => join_u32(singles.map(|v| fp::i32_to_f32(env, v))),
        CvtDq2Pd => join_u64([singles[0], singles[1]].map(fp::i32_to_f64)),
        CvtPi2Ps => (a & !Shape::I64.mask()) | pair32([singles[0], singles[1]].map(|v| fp::i32_to_f32(env, v))),
        CvtPh2Ps => join_u32(core::array::from_fn(|i| fp::f16_to_f32(env, (b >> (16 * i)) as u16))),
        CvtPs2Ph => {
            let (rounding, _) = fp::round_imm(env, imm);
            singles.iter().rev().fold(0, |r, &v| r << 16 | u128::from(fp::f32_to_f16(env, v, rounding)))
        }
        CvtPs2Dq(how) => join_u32(singles.map(|v| to_i32(Fmt::F32, how, env, v.into()))),
        CvtPs2Pi(how) => pair32([singles[0], singles[1]].map(|v| to_i32(Fmt::F32, how, env, v.into()))),
        CvtPd2Dq(how) => pair32(doubles.map(|v| to_i32(Fmt::F64, how, env, v))),
        CvtSi32(Fmt::F32) => (a & !Shape::F32.mask()) | u128::from(fp::i32_to_f32(env, singles[0])),
        CvtSi32(Fmt::F64) => (a & !Shape::F64.mask()) | u128::from(fp::i32_to_f64(singles[0])),
        CvtSi64(Fmt::F32) => (a & !Shape::F32.mask()) | u128::from(fp::i64_to_f32(env, doubles[0])),
        CvtSi64(Fmt::F64) => (a & !Shape::F64.mask()) | u128::from(fp::i64_to_f64(env, doubles[0])),
        CvtToSi32(fmt, how) => to_i32(fmt, how, env, doubles[0]).into(),
        CvtToSi64(fmt, how) => to_i64(fmt, how, env, doubles[0]).into(),
        _ => b,
    }
}

/// Two doublewords in the low half.
#[inline(always)]
fn pair32(v: [u32; 2]) -> u128 {
    u128::from(v[0]) | (u128::from(v[1]) << 32)
}

/// A conversion of the low bits of `v`.
#[inline]
fn to_i32(from: Fmt, how: ToInt, env: &mut Env, v: u64) -> u32 {
    match (from, how) {
        (Fmt::F32, ToInt::Mxcsr) => fp::f32_to_i32(env, v as u32),
        (Fmt::F32, ToInt::Truncate) => fp::f32_to_i32_trunc(env, v as u32),
        (Fmt::F64, ToInt::Mxcsr) => fp::f64_to_i32(env, v),
        (Fmt::F64, ToInt::Truncate) => fp::f64_to_i32_trunc(env, v),
    }
}

/// A conversion of the low bits of `v`.
#[inline]
fn to_i64(from: Fmt, how: ToInt, env: &mut Env, v: u64) -> u64 {
    match (from, how) {
        (Fmt::F32, ToInt::Mxcsr) => fp::f32_to_i64(env, v as u32),
        (Fmt::F32, ToInt::Truncate) => fp::f32_to_i64_trunc(env, v as u32),
        (Fmt::F64, ToInt::Mxcsr) => fp::f64_to_i64(env, v),
        (Fmt::F64, ToInt::Truncate) => fp::f64_to_i64_trunc(env, v),
    }
}

/// SSE3: operations within a register.
fn horizontal(op: FpOp, env: &mut Env, a: u128, b: u128) -> u128 {
    use FpOp::*;
    let (a32, b32, a64, b64) = (split_u32(a), split_u32(b), split_u64(a), split_u64(b));
    match op {
        AddPairs(Fmt::F32) => {
            join_u32([(a32[0], a32[1]), (a32[2], a32[3]), (b32[0], b32[1]), (b32[2], b32[3])].map(|(x, y)| fp::add32(env, x, y)))
        }
        SubPairs(Fmt::F32) => {
            join_u32([(a32[0], a32[1]), (a32[2], a32[3]), (b32[0], b32[1]), (b32[2], b32[3])].map(|(x, y)| fp::sub32(env, x, y)))
        }
        AddPairs(Fmt::F64) => join_u64([a64, b64].map(|v| fp::add64(env, v[0], v[1]))),
        SubPairs(Fmt::F64) => join_u64([a64, b64].map(|v| fp::sub64(env, v[0], v[1]))),
        AddSub(Fmt::F32) => join_u32(core::array::from_fn(|i| {
            let f = if i % 2 == 0 { fp::sub32 } else { fp::add32 };
            f(env, a32[i], b32[i])
        })),
        _ => join_u64([fp::sub64(env, a64[0], b64[0]), fp::add64(env, a64[1], b64[1])]),
    }
}

/// Ends a step of a dot product: exceptions of a step before it do not count as detected together with those of the next.
/// False if the step faulted.
fn step(env: &mut Env) -> bool {
    let fine = env.unmasked().is_empty();
    if fine {
        *env = Env::from_mxcsr(env.mxcsr());
    }
    fine
}

/// SDM Vol. 2, "DPPS": products, then their sums in pairs, each step rounded and with its exceptions. A later step is not reached when
/// an earlier one has an unmasked exception.
fn dot32<const N: usize>(env: &mut Env, a: [u128; N], b: [u128; N], imm: u8) -> [u128; N] {
    let (a, b) = (a.map(split_u32), b.map(split_u32));
    let products: [[u32; 4]; N] =
        core::array::from_fn(|h| core::array::from_fn(|i| if imm >> (4 + i) & 1 != 0 { fp::mul32(env, a[h][i], b[h][i]) } else { 0 }));
    if !step(env) {
        return [0; N];
    }
    let pairs = products.map(|p| (fp::add32(env, p[0], p[1]), fp::add32(env, p[2], p[3])));
    if !step(env) {
        return [0; N];
    }
    pairs.map(|(low, high)| {
        let sum = fp::add32(env, low, high);
        join_u32(core::array::from_fn(|i| if imm >> i & 1 != 0 { sum } else { 0 }))
    })
}

/// SDM Vol. 2, "DPPD".
fn dot64(env: &mut Env, a: u128, b: u128, imm: u8) -> u128 {
    let (a, b) = (split_u64(a), split_u64(b));
    let products: [u64; 2] = core::array::from_fn(|i| if imm >> (4 + i) & 1 != 0 { fp::mul64(env, a[i], b[i]) } else { 0 });
    if !step(env) {
        return 0;
    }
    let sum = fp::add64(env, products[0], products[1]);
    join_u64(core::array::from_fn(|i| if imm >> i & 1 != 0 { sum } else { 0 }))
}
