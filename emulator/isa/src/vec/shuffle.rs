//! Operations that move lanes: unpack, pack, shuffle, insert, extract, blend, extend.

use super::lanes::*;
use super::{Shape, VecOp};

/// The part of [`eval2`](super::eval2) that moves lanes; any other operation gives `b`.
#[inline]
pub(super) fn eval(op: VecOp, a: u128, b: u128, imm: u8) -> u128 {
    use VecOp::*;
    match op {
        UnpackLow(s) => unpack_low(s, a, b),
        UnpackHigh(s) => unpack_low(s, a >> 64, b >> 64),
        PackS(s) => pack_signed(s, a, b),
        PackU(s) => pack_unsigned(s, a, b),
        Shuffle32 => shuffle32(b, b, imm),
        ShuffleLow16 => (b & !Shape::I64.mask()) | u128::from(shuffle16(b as u64, imm)),
        ShuffleHigh16 => (b & Shape::I64.mask()) | (u128::from(shuffle16((b >> 64) as u64, imm)) << 64),
        ShufflePs => shuffle32(a, b, imm),
        ShufflePd => {
            let (a, b) = (split_u64(a), split_u64(b));
            join_u64([a[usize::from(imm & 1)], b[usize::from((imm >> 1) & 1)]])
        }
        Insert(s) => {
            let at = lane_shift(s, imm);
            (a & !(s.mask() << at)) | ((b & s.mask()) << at)
        }
        Extract(s) => (b >> lane_shift(s, imm)) & s.mask(),
        MoveMask(s) => move_mask(s, b),
        DupEven32 => map1_u64(b, |q| (q & 0xffff_ffff) | (q << 32)),
        DupOdd32 => map1_u64(b, |q| (q >> 32) | (q & !0xffff_ffff)),
        DupLow64 => (b & Shape::I64.mask()) | (b << 64),
        ShuffleBytes => {
            let a = split_u8(a);
            map1_u8(b, |i| if i & 0x80 != 0 { 0 } else { a[usize::from(i & 15)] })
        }
        Splat(s) => splat(s, b),
        Permute32 => {
            let (a, b) = (split_u32(a), split_u32(b));
            join_u32(b.map(|n| a[(n & 3) as usize]))
        }
        Permute64 => {
            let (a, b) = (split_u64(a), split_u64(b));
            join_u64(b.map(|n| a[(n >> 1 & 1) as usize]))
        }
        ExtractBits => BitField::new(b as u16).extract(a),
        InsertBits => BitField::new((b >> 64) as u16).insert(a, b),
        AlignRight => align_right(a, b, u32::from(imm)),
        Blend(s) => {
            let mask = spread(s, u32::from(imm));
            (a & !mask) | (b & mask)
        }
        ExtendS(from, to) => extend_s(from, to, b),
        ExtendU(from, to) => extend_u(from, to, b),
        InsertPs => insert_ps(a, b >> (32 * u32::from(imm >> 6)), imm),
        InsertPsMem => insert_ps(a, b, imm),
        _ => b,
    }
}

/// A field of the low quadword, as EXTRQ and INSERTQ name it (APM Vol. 4, "EXTRQ").
#[derive(Clone, Copy, Debug)]
pub struct BitField {
    index: u32,
    length: u32,
}

impl BitField {
    /// From a word: the length in bits 0 to 5 (0 means 64), the number of the lowest bit in bits 8 to 13.
    pub fn new(control: u16) -> BitField {
        let length = u32::from(control & 0x3f);
        BitField { index: u32::from(control >> 8 & 0x3f), length: if length == 0 { 64 } else { length } }
    }

    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.length)
    }

    /// The field of `v`. The upper half of the result is undefined in the manual, and zero.
    fn extract(self, v: u128) -> u128 {
        (v as u64 >> self.index & self.mask()).into()
    }

    /// `v` with the field replaced.
    fn insert(self, v: u128, field: u128) -> u128 {
        let mask = self.mask() << self.index;
        (v as u64 & !mask | (field as u64) << self.index & mask).into()
    }
}

#[inline(always)]
fn splat(s: Shape, b: u128) -> u128 {
    match s {
        Shape::I8 => join_u8([b as u8; 16]),
        Shape::I16 => join_u16([b as u16; 8]),
        Shape::I32 | Shape::F32 => join_u32([b as u32; 4]),
        Shape::I64 | Shape::F64 => join_u64([b as u64; 2]),
    }
}

#[inline(always)]
fn lane_shift(s: Shape, imm: u8) -> u32 {
    (u32::from(imm) & (s.lanes() - 1)) * s.bits()
}

#[inline(always)]
fn unpack_low(s: Shape, a: u128, b: u128) -> u128 {
    match s {
        Shape::I8 => {
            let (a, b) = (split_u8(a), split_u8(b));
            join_u8(core::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] }))
        }
        Shape::I16 => {
            let (a, b) = (split_u16(a), split_u16(b));
            join_u16(core::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] }))
        }
        Shape::I32 | Shape::F32 => {
            let (a, b) = (split_u32(a), split_u32(b));
            join_u32([a[0], b[0], a[1], b[1]])
        }
        Shape::I64 | Shape::F64 => (a & Shape::I64.mask()) | (b << 64),
    }
}

#[inline(always)]
fn pack_signed(s: Shape, a: u128, b: u128) -> u128 {
    if s == Shape::I16 {
        let (a, b) = (split_i16(a), split_i16(b));
        let narrow = |v: i16| v.clamp(i16::from(i8::MIN), i16::from(i8::MAX)) as i8;
        join_i8(core::array::from_fn(|i| narrow(if i < 8 { a[i] } else { b[i - 8] })))
    } else {
        let (a, b) = (split_i32(a), split_i32(b));
        let narrow = |v: i32| v.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        join_i16(core::array::from_fn(|i| narrow(if i < 4 { a[i] } else { b[i - 4] })))
    }
}

#[inline(always)]
fn pack_unsigned(s: Shape, a: u128, b: u128) -> u128 {
    if s == Shape::I16 {
        let (a, b) = (split_i16(a), split_i16(b));
        let narrow = |v: i16| v.clamp(0, 0xff) as u8;
        join_u8(core::array::from_fn(|i| narrow(if i < 8 { a[i] } else { b[i - 8] })))
    } else {
        let (a, b) = (split_i32(a), split_i32(b));
        let narrow = |v: i32| v.clamp(0, 0xffff) as u16;
        join_u16(core::array::from_fn(|i| narrow(if i < 4 { a[i] } else { b[i - 4] })))
    }
}

/// The low two results come from `low`, the high two from `high`.
#[inline(always)]
fn shuffle32(low: u128, high: u128, imm: u8) -> u128 {
    let (low, high) = (split_u32(low), split_u32(high));
    let at = |n: u32| usize::from((imm >> (2 * n)) & 3);
    join_u32([low[at(0)], low[at(1)], high[at(2)], high[at(3)]])
}

#[inline(always)]
fn shuffle16(v: u64, imm: u8) -> u64 {
    let word = |n: u32| ((v >> (16 * u32::from((imm >> (2 * n)) & 3))) & 0xffff) << (16 * n);
    word(0) | word(1) | word(2) | word(3)
}

#[inline(always)]
fn move_mask(s: Shape, b: u128) -> u128 {
    let bit = |i: u32| (b >> ((i + 1) * s.bits() - 1) & 1) << i;
    match s {
        Shape::I8 => split_i8(b).iter().enumerate().fold(0u32, |m, (i, &v)| m | (u32::from(v < 0) << i)).into(),
        _ => (0..s.lanes()).fold(0, |m, i| m | bit(i)),
    }
}

#[inline(always)]
fn align_right(a: u128, b: u128, n: u32) -> u128 {
    match n {
        0 => b,
        1..=15 => (b >> (8 * n)) | (a << (128 - 8 * n)),
        16..=31 => a >> (8 * (n - 16)),
        _ => 0,
    }
}

/// A mask of the lanes whose bit is set.
#[inline(always)]
fn spread(s: Shape, bits: u32) -> u128 {
    (0..s.lanes()).filter(|&i| bits >> i & 1 != 0).fold(0, |m, i| m | (s.mask() << (i * s.bits())))
}

/// Widens the low lanes with one `as` per lane.
macro_rules! widen {
    ($split:ident, $join:ident, $wide:ty, $b:expr) => {{
        let lanes = $split($b);
        $join(core::array::from_fn(|i| lanes[i] as $wide))
    }};
}

#[inline]
fn extend_s(from: Shape, to: Shape, b: u128) -> u128 {
    match (from, to) {
        (Shape::I8, Shape::I16) => widen!(split_i8, join_i16, i16, b),
        (Shape::I8, Shape::I32) => widen!(split_i8, join_i32, i32, b),
        (Shape::I8, _) => widen!(split_i8, join_i64, i64, b),
        (Shape::I16, Shape::I32) => widen!(split_i16, join_i32, i32, b),
        (Shape::I16, _) => widen!(split_i16, join_i64, i64, b),
        _ => widen!(split_i32, join_i64, i64, b),
    }
}

#[inline]
fn extend_u(from: Shape, to: Shape, b: u128) -> u128 {
    match (from, to) {
        (Shape::I8, Shape::I16) => widen!(split_u8, join_u16, u16, b),
        (Shape::I8, Shape::I32) => widen!(split_u8, join_u32, u32, b),
        (Shape::I8, _) => widen!(split_u8, join_u64, u64, b),
        (Shape::I16, Shape::I32) => widen!(split_u16, join_u32, u32, b),
        (Shape::I16, _) => widen!(split_u16, join_u64, u64, b),
        _ => widen!(split_u32, join_u64, u64, b),
    }
}

/// SDM Vol. 2, "INSERTPS": `value` is the lowest lane of its argument, imm[5:4] its place, imm[3:0] lanes to zero.
#[inline(always)]
fn insert_ps(a: u128, value: u128, imm: u8) -> u128 {
    let at = 32 * u32::from((imm >> 4) & 3);
    let inserted = (a & !(Shape::F32.mask() << at)) | ((value & Shape::F32.mask()) << at);
    inserted & !spread(Shape::F32, u32::from(imm & 15))
}
