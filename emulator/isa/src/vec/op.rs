//! The operations of the vector instruction set as data.

/// How a 128-bit (or 64-bit) value is divided into lanes. Integer operations take `F32` as `I32` and `F64` as `I64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Bytes.
    I8,
    /// Words.
    I16,
    /// Doublewords.
    I32,
    /// Quadwords.
    I64,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl Shape {
    /// Bytes in one lane.
    pub const fn bytes(self) -> u32 {
        match self {
            Shape::I8 => 1,
            Shape::I16 => 2,
            Shape::I32 | Shape::F32 => 4,
            Shape::I64 | Shape::F64 => 8,
        }
    }

    /// Bits in one lane.
    pub const fn bits(self) -> u32 {
        self.bytes() * 8
    }

    /// Lanes in 128 bits.
    pub const fn lanes(self) -> u32 {
        16 / self.bytes()
    }

    /// A mask of one lane in the lowest position.
    pub const fn mask(self) -> u128 {
        (1u128 << self.bits()) - 1
    }
}

/// Integer, bitwise and data-moving operations: `a` is the first source (the old destination), `b` the second.
/// Evaluated by [`eval2`](super::eval2), or by [`eval2_mmx`](super::eval2_mmx) on 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VecOp {
    /// `b`.
    Copy,
    /// The lowest lane of `b`, zero-extended.
    ZextLow(Shape),
    /// `a` with its lowest lane taken from `b` (MOVSS, MOVSD between registers, MOVLPS).
    MergeLow(Shape),
    /// `a` with its low half taken from the high half of `b` (MOVHLPS).
    MoveHighToLow,
    /// The high half of `b`, zero-extended (the store forms of MOVHPS and MOVHPD).
    High64,
    /// `a & b`.
    And,
    /// `!a & b`.
    AndNot,
    /// `a | b`.
    Or,
    /// `a ^ b`.
    Xor,
    /// Lane-wise wrapping sum.
    Add(Shape),
    /// Lane-wise wrapping difference.
    Sub(Shape),
    /// Signed saturating sum.
    AddSatS(Shape),
    /// Unsigned saturating sum.
    AddSatU(Shape),
    /// Signed saturating difference.
    SubSatS(Shape),
    /// Unsigned saturating difference.
    SubSatU(Shape),
    /// Low half of the lane-wise product.
    MulLow(Shape),
    /// High half of the signed 16-bit products.
    MulHighS16,
    /// High half of the unsigned 16-bit products.
    MulHighU16,
    /// Signed 16-bit products, scaled by 2^-15 with rounding (PMULHRSW).
    MulHighRound16,
    /// Unsigned 64-bit products of the even doublewords (PMULUDQ).
    MulWideU32,
    /// Signed 64-bit products of the even doublewords (PMULDQ).
    MulWideS32,
    /// Sums of neighbouring signed 16-bit products (PMADDWD).
    MulAdd16,
    /// Saturated sums of neighbouring products of unsigned (`a`) and signed (`b`) bytes (PMADDUBSW).
    MulAddU8S8,
    /// Sum of absolute differences of each eight bytes (PSADBW).
    SumAbsDiff,
    /// Eight sums of absolute differences at sliding offsets (MPSADBW).
    SlidingAbsDiff,
    /// Unsigned average, rounding up.
    AvgU(Shape),
    /// Signed minimum.
    MinS(Shape),
    /// Unsigned minimum.
    MinU(Shape),
    /// Signed maximum.
    MaxS(Shape),
    /// Unsigned maximum.
    MaxU(Shape),
    /// All ones where equal.
    CmpEq(Shape),
    /// All ones where `a` is greater, signed.
    CmpGt(Shape),
    /// Left shift of each lane by the low 64 bits of `b`.
    ShiftLeft(Shape),
    /// Logical right shift of each lane by the low 64 bits of `b`.
    ShiftRight(Shape),
    /// Arithmetic right shift of each lane by the low 64 bits of `b`.
    ShiftRightArith(Shape),
    /// Left shift of the whole value by `b` bytes (PSLLDQ).
    ByteShiftLeft,
    /// Right shift of the whole value by `b` bytes (PSRLDQ).
    ByteShiftRight,
    /// Interleaves the low halves.
    UnpackLow(Shape),
    /// Interleaves the high halves.
    UnpackHigh(Shape),
    /// Narrows lanes of the given shape with signed saturation, `a` below `b`.
    PackS(Shape),
    /// Narrows signed lanes of the given shape with unsigned saturation, `a` below `b`.
    PackU(Shape),
    /// Doublewords of `b` picked by the immediate (PSHUFD).
    Shuffle32,
    /// Low four words of `b` picked by the immediate (PSHUFLW, PSHUFW).
    ShuffleLow16,
    /// High four words of `b` picked by the immediate (PSHUFHW).
    ShuffleHigh16,
    /// Two doublewords of `a` below two of `b` (SHUFPS).
    ShufflePs,
    /// A quadword of `a` below one of `b` (SHUFPD).
    ShufflePd,
    /// `a` with the lane named by the immediate taken from the lowest lane of `b`.
    Insert(Shape),
    /// The lane of `b` named by the immediate, zero-extended.
    Extract(Shape),
    /// The sign bits of the lanes of `b`, as a number.
    MoveMask(Shape),
    /// Each even doubleword of `b` twice (MOVSLDUP).
    DupEven32,
    /// Each odd doubleword of `b` twice (MOVSHDUP).
    DupOdd32,
    /// The low quadword of `b` twice (MOVDDUP).
    DupLow64,
    /// Bytes of `a` picked by `b`, zero where the index is negative (PSHUFB).
    ShuffleBytes,
    /// `a:b` shifted right by the immediate in bytes (PALIGNR).
    AlignRight,
    /// The lowest lane of `b` in all lanes (VPBROADCAST and the like).
    Splat(Shape),
    /// Doublewords of `a` picked by the low two bits of those of `b` (VPERMILPS).
    Permute32,
    /// Quadwords of `a` picked by bit 1 of those of `b` (VPERMILPD).
    Permute64,
    /// Left shift of each lane by the lane of `b` (VPSLLVD).
    ShiftLeftEach(Shape),
    /// Logical right shift of each lane by the lane of `b` (VPSRLVD).
    ShiftRightEach(Shape),
    /// Arithmetic right shift of each lane by the lane of `b` (VPSRAVD).
    ShiftRightArithEach(Shape),
    /// Bits of `a` moved to the bottom, zeros above, by a [`BitField`](super::BitField) in the low 16 bits of `b` (EXTRQ).
    ExtractBits,
    /// `a` with a field of its low half replaced by the lowest bits of `b`; the field is named by bits 64 to 79 of `b` (INSERTQ).
    InsertBits,
    /// Absolute value of `b`.
    Abs(Shape),
    /// `a` negated, zeroed or kept by the sign of `b` (PSIGN).
    Sign(Shape),
    /// Sums of neighbouring lanes, of `a` below those of `b`.
    AddPairs(Shape),
    /// Differences of neighbouring lanes.
    SubPairs(Shape),
    /// Saturated sums of neighbouring signed words.
    AddPairsSat16,
    /// Saturated differences of neighbouring signed words.
    SubPairsSat16,
    /// Lanes of `b` where the immediate has a one, else of `a`.
    Blend(Shape),
    /// The low lanes of `b`, sign-extended from the first shape to the second.
    ExtendS(Shape, Shape),
    /// The low lanes of `b`, zero-extended from the first shape to the second.
    ExtendU(Shape, Shape),
    /// The smallest word of `b` and its index (PHMINPOSUW).
    MinPosU16,
    /// INSERTPS with a register source.
    InsertPs,
    /// INSERTPS with a memory source: the lane selection of the source is not used.
    InsertPsMem,
    /// Carry-less product of the quadwords named by the immediate (PCLMULQDQ).
    CarrylessMul,
    /// One AES encryption round of `a` with the round key `b`.
    AesEnc,
    /// The last AES encryption round.
    AesEncLast,
    /// One AES decryption round of `a` with the round key `b` (of the equivalent inverse cipher).
    AesDec,
    /// The last AES decryption round.
    AesDecLast,
    /// InvMixColumns of `b`.
    AesImc,
    /// A step of the AES key expansion of `b` with the immediate as round constant.
    AesKeygenAssist,
    /// Four SHA-1 rounds; the immediate's low two bits name the function and constant.
    Sha1Rounds4,
    /// SHA1NEXTE.
    Sha1NextE,
    /// SHA1MSG1.
    Sha1Msg1,
    /// SHA1MSG2.
    Sha1Msg2,
    /// SHA256MSG1.
    Sha256Msg1,
    /// SHA256MSG2.
    Sha256Msg2,
}

/// Operations with a third source, `c`: XMM0 for the legacy encodings. Evaluated by [`eval3`](super::eval3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vec3Op {
    /// Lanes of `b` where the sign bit of `c`'s lane is set, else of `a`.
    BlendVar(Shape),
    /// Two SHA-256 rounds with the message words (plus constants) in `c`.
    Sha256Rounds2,
}

/// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM. Evaluated by [`compare_strings`](super::compare_strings).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StringOp {
    /// Lengths are in EAX (of `a`) and EDX (of `b`); otherwise a null element ends a string.
    pub explicit: bool,
    /// The lengths are in RAX and RDX.
    pub wide: bool,
    /// The result is a mask in XMM0, otherwise an index in ECX.
    pub mask: bool,
}

impl VecOp {
    /// Whether the result depends on `a`, that is whether the instruction reads its destination.
    pub const fn reads_a(self) -> bool {
        use VecOp::*;
        !matches!(
            self,
            Copy | ZextLow(_)
                | High64
                | Shuffle32
                | ShuffleLow16
                | ShuffleHigh16
                | Extract(_)
                | MoveMask(_)
                | DupEven32
                | DupOdd32
                | DupLow64
                | Abs(_)
                | ExtendS(..)
                | ExtendU(..)
                | MinPosU16
                | Splat(_)
                | AesImc
                | AesKeygenAssist
        )
    }

    /// Whether the result depends on the immediate.
    pub const fn reads_imm(self) -> bool {
        use VecOp::*;
        matches!(
            self,
            SlidingAbsDiff
                | Shuffle32
                | ShuffleLow16
                | ShuffleHigh16
                | ShufflePs
                | ShufflePd
                | Insert(_)
                | Extract(_)
                | AlignRight
                | Blend(_)
                | InsertPs
                | InsertPsMem
                | CarrylessMul
                | AesKeygenAssist
                | Sha1Rounds4
        )
    }
}

/// A floating-point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fmt {
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

/// Which lanes an operation computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lanes {
    /// All of them.
    Packed,
    /// The lowest; the others are kept from `a`.
    Scalar,
}

/// Lane-wise arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arith {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`.
    Div,
    /// The smaller; `b` when either is a NaN or both are zeros.
    Min,
    /// The larger; `b` when either is a NaN or both are zeros.
    Max,
    /// Square root of `b`.
    Sqrt,
}

/// How a conversion to integer rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ToInt {
    /// By MXCSR.RC.
    Mxcsr,
    /// Toward zero (the CVTT forms).
    Truncate,
}

/// Floating-point operations. They may raise flags in the environment; see [`eval_fp`](super::eval_fp).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FpOp {
    /// Arithmetic.
    Arith(Arith, Fmt, Lanes),
    /// CMPccPS and the like: all ones where the predicate in the immediate's low three bits holds.
    Cmp(Fmt, Lanes),
    /// Approximate reciprocal of `b`, single precision.
    Rcp(Lanes),
    /// Approximate reciprocal of the square root of `b`, single precision.
    Rsqrt(Lanes),
    /// Two singles to two doubles.
    CvtPs2Pd,
    /// Two doubles to two singles, the high half zeroed.
    CvtPd2Ps,
    /// One single to a double, the high half kept.
    CvtSs2Sd,
    /// One double to a single, the upper lanes kept.
    CvtSd2Ss,
    /// Four integers to singles.
    CvtDq2Ps,
    /// Two integers to doubles.
    CvtDq2Pd,
    /// Four singles to integers.
    CvtPs2Dq(ToInt),
    /// Two doubles to integers, the high half zeroed.
    CvtPd2Dq(ToInt),
    /// Four half-precision numbers to singles.
    CvtPh2Ps,
    /// Four singles to half precision, the high half zeroed; the immediate says how to round.
    CvtPs2Ph,
    /// Two integers to singles, the high half kept (CVTPI2PS).
    CvtPi2Ps,
    /// Two singles to integers, a 64-bit result (CVTPS2PI).
    CvtPs2Pi(ToInt),
    /// An integer of 32 bits to the lowest lane.
    CvtSi32(Fmt),
    /// An integer of 64 bits to the lowest lane.
    CvtSi64(Fmt),
    /// The lowest lane to an integer of 32 bits.
    CvtToSi32(Fmt, ToInt),
    /// The lowest lane to an integer of 64 bits.
    CvtToSi64(Fmt, ToInt),
    /// Differences in the even lanes and sums in the odd ones.
    AddSub(Fmt),
    /// Sums of neighbouring lanes, of `a` below those of `b`.
    AddPairs(Fmt),
    /// Differences of neighbouring lanes.
    SubPairs(Fmt),
    /// To an integral value, as the immediate says.
    Round(Fmt, Lanes),
    /// Dot product under the masks in the immediate.
    Dot(Fmt),
}

impl FpOp {
    /// Whether the result depends on `a`.
    pub const fn reads_a(self) -> bool {
        use FpOp::*;
        match self {
            Arith(self::Arith::Sqrt, _, lanes) | Rcp(lanes) | Rsqrt(lanes) | Round(_, lanes) => matches!(lanes, Lanes::Scalar),
            CvtPs2Pd | CvtPd2Ps | CvtDq2Ps | CvtDq2Pd | CvtPs2Dq(_) | CvtPd2Dq(_) | CvtPs2Pi(_) | CvtPh2Ps | CvtPs2Ph => false,
            CvtToSi32(..) | CvtToSi64(..) => false,
            Arith(..) | Cmp(..) | CvtSs2Sd | CvtSd2Ss | CvtPi2Ps | CvtSi32(_) | CvtSi64(_) => true,
            AddSub(_) | AddPairs(_) | SubPairs(_) | Dot(_) => true,
        }
    }

    /// Whether the result depends on the immediate.
    pub const fn reads_imm(self) -> bool {
        matches!(self, FpOp::Cmp(..) | FpOp::Round(..) | FpOp::Dot(_) | FpOp::CvtPs2Ph)
    }
}

/// Which operands of a fused multiply-add are multiplied, and which is added: the number in the mnemonic, by operands 1, 2 and 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FmaOrder {
    /// First times third plus second.
    O132,
    /// Second times first plus third.
    O213,
    /// Second times third plus first.
    O231,
}

/// The signs of product and addend of a fused multiply-add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FmaKind {
    /// `x * y + z`.
    Add,
    /// `x * y - z`.
    Sub,
    /// `-(x * y) + z`.
    NegAdd,
    /// `-(x * y) - z`.
    NegSub,
    /// `x * y - z` in the even lanes, `x * y + z` in the odd ones.
    AddSub,
    /// `x * y + z` in the even lanes, `x * y - z` in the odd ones.
    SubAdd,
}

impl FmaKind {
    /// Whether product and addend are negated in a lane.
    pub const fn negates(self, lane: usize) -> (bool, bool) {
        let odd = lane & 1 != 0;
        match self {
            FmaKind::Add => (false, false),
            FmaKind::Sub => (false, true),
            FmaKind::NegAdd => (true, false),
            FmaKind::NegSub => (true, true),
            FmaKind::AddSub => (false, !odd),
            FmaKind::SubAdd => (false, odd),
        }
    }
}

/// A fused multiply-add of operands 1, 2 and 3; the result has one rounding. Evaluated by [`eval_fma`](super::eval_fma).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FmaOp {
    /// Format of the lanes.
    pub fmt: Fmt,
    /// The lanes that are computed; the others are kept from operand 1.
    pub lanes: Lanes,
    /// What is multiplied with what.
    pub order: FmaOrder,
    /// The signs.
    pub kind: FmaKind,
}

impl FmaOp {
    /// The factors and the addend, out of operands 1, 2 and 3. The order of the factors is that in which NaNs take precedence.
    pub fn arrange<T>(self, a: T, b: T, c: T) -> (T, T, T) {
        match self.order {
            FmaOrder::O132 => (a, c, b),
            FmaOrder::O213 => (b, a, c),
            FmaOrder::O231 => (b, c, a),
        }
    }
}
