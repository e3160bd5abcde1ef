//! Evaluation of the integer and bitwise operations.

use super::lanes::*;
use super::{Shape, Vec3Op, VecOp};
use super::{crypto, shuffle};

/// The result of `op` on 128-bit values. Total: every operation is defined for every operand and immediate.
///
/// Shifts take their count from the low 64 bits of `b`; an immediate count is passed as `b`.
#[inline]
pub fn eval2(op: VecOp, a: u128, b: u128, imm: u8) -> u128 {
    use VecOp::*;
    match op {
        Copy => b,
        ZextLow(s) => b & s.mask(),
        MergeLow(s) => (a & !s.mask()) | (b & s.mask()),
        MoveHighToLow => (a & !Shape::I64.mask()) | (b >> 64),
        High64 => b >> 64,
        And => a & b,
        AndNot => !a & b,
        Or => a | b,
        Xor => a ^ b,
        Add(s) => unsigned!(s, a, b, |x, y| x.wrapping_add(y)),
        Sub(s) => unsigned!(s, a, b, |x, y| x.wrapping_sub(y)),
        AddSatS(s) => signed!(s, a, b, |x, y| x.saturating_add(y)),
        AddSatU(s) => unsigned!(s, a, b, |x, y| x.saturating_add(y)),
        SubSatS(s) => signed!(s, a, b, |x, y| x.saturating_sub(y)),
        SubSatU(s) => unsigned!(s, a, b, |x, y| x.saturating_sub(y)),
        AvgU(s) => unsigned!(s, a, b, |x, y| (x | y).wrapping_sub((x ^ y) >> 1)),
        MinS(s) => signed!(s, a, b, |x, y| x.min(y)),
        MinU(s) => unsigned!(s, a, b, |x, y| x.min(y)),
        MaxS(s) => signed!(s, a, b, |x, y| x.max(y)),
        MaxU(s) => unsigned!(s, a, b, |x, y| x.max(y)),
        CmpEq(s) => signed!(s, a, b, |x, y| if x == y { -1 } else { 0 }),
        CmpGt(s) => signed!(s, a, b, |x, y| if x > y { -1 } else { 0 }),
        Abs(s) => signed!(s, a, b, |_x, y| y.wrapping_abs()),
        Sign(s) => signed!(s, a, b, |x, y| x.wrapping_mul(y.signum())),
        ShiftLeft(s) => shift_left(s, a, b as u64),
        ShiftRight(s) => shift_right(s, a, b as u64),
        ShiftRightArith(s) => shift_right_arith(s, a, b as u64),
        ShiftLeftEach(s) => each_lane(s, a, b, shift_left),
        ShiftRightEach(s) => each_lane(s, a, b, shift_right),
        ShiftRightArithEach(s) => each_lane(s, a, b, shift_right_arith),
        ByteShiftLeft => byte_count(b).map_or(0, |n| a << n),
        ByteShiftRight => byte_count(b).map_or(0, |n| a >> n),
        MulLow(_) | MulHighS16 | MulHighU16 | MulHighRound16 | MulWideU32 | MulWideS32 | MulAdd16 | MulAddU8S8 => multiply(op, a, b),
        SumAbsDiff => sum_abs_diff(a, b),
        SlidingAbsDiff => sliding_abs_diff(a, b, imm),
        MinPosU16 => min_pos(b),
        AddPairs(_) | SubPairs(_) | AddPairsSat16 | SubPairsSat16 => pairs(op, a, b),
        CarrylessMul => crypto::carryless_mul(a, b, imm),
        AesEnc | AesEncLast | AesDec | AesDecLast | AesImc | AesKeygenAssist => crypto::aes(op, a, b, imm),
        Sha1Rounds4 | Sha1NextE | Sha1Msg1 | Sha1Msg2 | Sha256Msg1 | Sha256Msg2 => crypto::sha(op, a, b, imm),
        _ => shuffle::eval(op, a, b, imm),
    }
}

/// The result of an operation with three sources.
#[inline]
pub fn eval3(op: Vec3Op, a: u128, b: u128, c: u128) -> u128 {
    match op {
        Vec3Op::BlendVar(s) => {
            let mask = signed!(s, c, c, |x, _y| if x < 0 { -1 } else { 0 });
            (a & !mask) | (b & mask)
        }
        Vec3Op::Sha256Rounds2 => crypto::sha256_rounds2(a, b, c),
    }
}

/// The result of `op` on MMX registers: as [`eval2`], with the lane counts of 64 bits.
#[inline]
pub fn eval2_mmx(op: VecOp, a: u64, b: u64, imm: u8) -> u64 {
    use VecOp::*;
    let (wa, wb) = (u128::from(a), u128::from(b));
    match op {
        // These make their low half from `a` alone, so both operands go there.
        PackS(_) | PackU(_) | AddPairs(_) | SubPairs(_) | AddPairsSat16 | SubPairsSat16 => eval2(op, wa | (wb << 64), 0, imm) as u64,
        UnpackHigh(s) => (eval2(UnpackLow(s), wa, wb, imm) >> 64) as u64,
        Insert(_) | Extract(_) => eval2(op, wa, wb, imm & 3) as u64,
        ShuffleBytes => eval2(op, wa, wb & 0x8787_8787_8787_8787, imm) as u64,
        AlignRight if imm >= 16 => 0,
        AlignRight => (((wa << 64) | wb) >> (u32::from(imm) * 8)) as u64,
        _ => eval2(op, wa, wb, imm) as u64,
    }
}

/// The count of a whole-register shift in bits, if anything is left.
#[inline(always)]
fn byte_count(b: u128) -> Option<u32> {
    let n = b as u64;
    (n < 16).then(|| n as u32 * 8)
}

#[inline(always)]
fn shift_left(s: Shape, a: u128, n: u64) -> u128 {
    if n >= u64::from(s.bits()) {
        return 0;
    }
    let n = n as u32;
    unsigned!(s, a, a, |x, _y| x.wrapping_shl(n))
}

#[inline(always)]
fn shift_right(s: Shape, a: u128, n: u64) -> u128 {
    if n >= u64::from(s.bits()) {
        return 0;
    }
    let n = n as u32;
    unsigned!(s, a, a, |x, _y| x.wrapping_shr(n))
}

#[inline(always)]
fn shift_right_arith(s: Shape, a: u128, n: u64) -> u128 {
    let n = n.min(u64::from(s.bits()) - 1) as u32;
    signed!(s, a, a, |x, _y| x.wrapping_shr(n))
}

/// Shifts each lane by its own count.
fn each_lane(s: Shape, a: u128, b: u128, shift: impl Fn(Shape, u128, u64) -> u128) -> u128 {
    (0..s.lanes()).fold(0, |r, n| {
        let (at, mask) = (n * s.bits(), s.mask());
        r | (shift(s, a >> at & mask, (b >> at & mask) as u64) & mask) << at
    })
}

#[inline]
fn multiply(op: VecOp, a: u128, b: u128) -> u128 {
    match op {
        VecOp::MulHighS16 => map_i16(a, b, |x, y| ((i32::from(x) * i32::from(y)) >> 16) as i16),
        VecOp::MulHighU16 => map_u16(a, b, |x, y| ((u32::from(x) * u32::from(y)) >> 16) as u16),
        VecOp::MulHighRound16 => map_i16(a, b, |x, y| ((((i32::from(x) * i32::from(y)) >> 14) + 1) >> 1) as i16),
        VecOp::MulWideU32 => map_u64(a, b, |x, y| u64::from(x as u32) * u64::from(y as u32)),
        VecOp::MulWideS32 => map_i64(a, b, |x, y| i64::from(x as i32) * i64::from(y as i32)),
        VecOp::MulAdd16 => {
            // Both pairs 8000h * 8000h wrap to 80000000h (SDM Vol. 2, PMADDWD).
            let (a, b) = (split_i16(a).map(i32::from), split_i16(b).map(i32::from));
            join_i32(core::array::from_fn(|i| (a[2 * i] * b[2 * i]).wrapping_add(a[2 * i + 1] * b[2 * i + 1])))
        }
        VecOp::MulAddU8S8 => {
            let (a, b) = (split_u8(a).map(i32::from), split_i8(b).map(i32::from));
            join_i16(core::array::from_fn(|i| {
                let sum = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
                sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
            }))
        }
        VecOp::MulLow(s) => unsigned!(s, a, b, |x, y| x.wrapping_mul(y)),
        _ => b,
    }
}

#[inline]
fn sum_abs_diff(a: u128, b: u128) -> u128 {
    let (a, b) = (split_u8(a), split_u8(b));
    let diff: [u64; 16] = core::array::from_fn(|i| u64::from(a[i].abs_diff(b[i])));
    let (low, high) = diff.split_at(8);
    join_u64([low.iter().sum(), high.iter().sum()])
}

/// SDM Vol. 2, "MPSADBW—Compute Multiple Packed Sums of Absolute Difference".
#[inline]
fn sliding_abs_diff(a: u128, b: u128, imm: u8) -> u128 {
    // Eleven bytes of `a` from offset 0 or 4 are compared with four of `b`.
    let a = split_u8(a >> (32 * u32::from((imm >> 2) & 1)));
    let b = split_u8(b >> (32 * u32::from(imm & 3)));
    join_u16(core::array::from_fn(|i| (0..4).map(|j| u16::from(a[i + j].abs_diff(b[j]))).sum()))
}

#[inline]
fn min_pos(b: u128) -> u128 {
    let mut best = (u16::MAX, 0u128);
    for (i, v) in split_u16(b).into_iter().enumerate() {
        if v < best.0 {
            best = (v, i as u128);
        }
    }
    u128::from(best.0) | (best.1 << 16)
}

/// PHADD and PHSUB: even lanes against their odd neighbours.
#[inline]
fn pairs(op: VecOp, a: u128, b: u128) -> u128 {
    use VecOp::*;
    match op {
        AddPairs(Shape::I16) => pairs_i16(a, b, i16::wrapping_add),
        SubPairs(Shape::I16) => pairs_i16(a, b, i16::wrapping_sub),
        AddPairsSat16 => pairs_i16(a, b, i16::saturating_add),
        SubPairsSat16 => pairs_i16(a, b, i16::saturating_sub),
        SubPairs(_) => pairs_i32(a, b, i32::wrapping_sub),
        _ => pairs_i32(a, b, i32::wrapping_add),
    }
}

#[inline(always)]
fn pairs_i16(a: u128, b: u128, f: impl Fn(i16, i16) -> i16) -> u128 {
    let (a, b) = (split_i16(a), split_i16(b));
    join_i16(core::array::from_fn(|i| {
        let (v, j) = if i < 4 { (&a, 2 * i) } else { (&b, 2 * i - 8) };
        f(v[j], v[j + 1])
    }))
}

#[inline(always)]
fn pairs_i32(a: u128, b: u128, f: impl Fn(i32, i32) -> i32) -> u128 {
    let (a, b) = (split_i32(a), split_i32(b));
    join_i32([f(a[0], a[1]), f(a[2], a[3]), f(b[0], b[1]), f(b[2], b[3])])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: VecOp, a: u128, b: u128, imm: u8, want: u128) {
        assert_eq!(eval2(op, a, b, imm), want, "{op:?} {a:032x} {b:032x} {imm:02x}: {:032x}", eval2(op, a, b, imm));
    }

    #[test]
    fn edges() {
        use VecOp::*;
        check(MulAdd16, 0x8000_8000, 0x8000_8000, 0, 0x8000_0000);
        check(ShiftLeft(Shape::I16), u128::MAX, 15, 0, 0x8000_8000_8000_8000_8000_8000_8000_8000);
        check(ShiftLeft(Shape::I16), u128::MAX, 16, 0, 0);
        check(ShiftLeft(Shape::I16), u128::MAX, 1 << 32, 0, 0);
        check(ShiftLeft(Shape::I64), 1, (1 << 64) | 1, 0, 2);
        check(ShiftRightArith(Shape::I32), 0x8000_0000, 1 << 40, 0, 0xffff_ffff);
        check(ByteShiftLeft, 1, 15, 0, 1 << 120);
        check(ByteShiftLeft, u128::MAX, 16, 0, 0);
        check(PackU(Shape::I16), 0x8000_7fff_00ff_0100, 0, 0, 0x00ff_ffff);
        check(Abs(Shape::I8), 0, 0x80, 0, 0x80);
        check(Sign(Shape::I8), 0x80, 0xff, 0, 0x80);
        check(MinPosU16, 0, u128::MAX, 0, 0xffff);
    }

    #[test]
    fn mmx_lane_counts() {
        assert_eq!(eval2_mmx(VecOp::PackS(Shape::I16), 0x0001_0002_0003_0004, 0x7fff_8000_0005_0006, 0), 0x7f80_0506_0102_0304);
        assert_eq!(eval2_mmx(VecOp::UnpackHigh(Shape::I8), 0x8877_6655_4433_2211, 0x18_17_16_15_14_13_12_11, 0), 0x1888_1777_1666_1555);
        assert_eq!(eval2_mmx(VecOp::UnpackLow(Shape::I32), 0x2_0000_0001, 0x4_0000_0003, 0), 0x3_0000_0001);
        assert_eq!(eval2_mmx(VecOp::AlignRight, 0x1111_1111_1111_1111, 0x2222_2222_2222_2222, 15), 0x11);
        assert_eq!(eval2_mmx(VecOp::AlignRight, u64::MAX, u64::MAX, 16), 0);
        assert_eq!(eval2_mmx(VecOp::Extract(Shape::I16), 0, 0x4444_3333_2222_1111, 6), 0x3333);
    }
}
