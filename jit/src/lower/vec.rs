//! Vectors: integer operations through CLIF's vector types, floating point through the host's own under the guest's MXCSR.
//!
//! What has no lowering here is left to the CPU's function, the whole instruction: [`has_vec`] and [`has_fp`] say so.
//! Floating-point operations are right on hosts whose scalar and vector arithmetic is x86's and obeys MXCSR (see
//! [`crate::host_fp`]), and while every exception is masked ([`Ctx::FP_MASKED`]).

use super::{Lower, Lv};
use crate::host_fp;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I8, I8X16, I16X8, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value};
use egret_cpu::State;
use egret_isa::insn::Ctx;
use egret_isa::ir::{Op, Val};
use egret_isa::ops::Width;
use egret_isa::vec::{Arith, Fmt, FpOp, Lanes, Shape, ToInt, VecOp};
use std::mem::offset_of;

/// The type that vectors are kept in.
pub(super) const X: Type = I8X16;

/// The vector type of a shape.
fn lanes(s: Shape) -> Type {
    match s {
        Shape::I8 => I8X16,
        Shape::I16 => I16X8,
        Shape::I32 | Shape::F32 => I32X4,
        Shape::I64 | Shape::F64 => I64X2,
    }
}

fn floats(f: Fmt) -> (Type, Type) {
    match f {
        Fmt::F32 => (F32, F32X4),
        Fmt::F64 => (F64, F64X2),
    }
}

/// Whether a vector operation has a lowering.
pub(super) fn has_vec(op: VecOp) -> bool {
    use VecOp::*;
    match op {
        Copy | ZextLow(_) | MergeLow(_) | MoveHighToLow | High64 | And | AndNot | Or | Xor => true,
        Add(_) | Sub(_) | UnpackLow(_) | UnpackHigh(_) | CmpEq(_) | CmpGt(_) => true,
        AddSatS(s) | AddSatU(s) | SubSatS(s) | SubSatU(s) | AvgU(s) => matches!(s, Shape::I8 | Shape::I16),
        MinS(s) | MinU(s) | MaxS(s) | MaxU(s) => matches!(s, Shape::I8 | Shape::I16 | Shape::I32),
        MulLow(s) => matches!(s, Shape::I16 | Shape::I32),
        ShiftLeft(s) | ShiftRight(s) => s != Shape::I8,
        ShiftRightArith(s) => matches!(s, Shape::I16 | Shape::I32),
        MulWideU32 | MulAdd16 | ByteShiftLeft | ByteShiftRight => true,
        PackS(_) | PackU(_) => true,
        Shuffle32 | ShuffleLow16 | ShuffleHigh16 | ShufflePs | ShufflePd | DupEven32 | DupOdd32 | DupLow64 | AlignRight => true,
        Insert(_) | Extract(_) | MoveMask(_) => true,
        _ => false,
    }
}

/// Whether a floating-point operation has a lowering in a context.
pub(super) fn has_fp(op: FpOp, ctx: Ctx) -> bool {
    use FpOp::*;
    host_fp::NATIVE
        && ctx.has(Ctx::FP_MASKED)
        && matches!(
            op,
            Arith(..)
                | Cmp(..)
                | CvtPs2Pd
                | CvtPd2Ps
                | CvtSs2Sd
                | CvtSd2Ss
                | CvtDq2Ps
                | CvtDq2Pd
                | CvtPs2Dq(ToInt::Truncate)
                | CvtSi32(_)
                | CvtSi64(_)
                | CvtToSi32(_, ToInt::Truncate)
                | CvtToSi64(_, ToInt::Truncate)
        )
}

/// Whether comparisons have a lowering in a context.
pub(super) fn has_compare(ctx: Ctx) -> bool {
    host_fp::NATIVE && ctx.has(Ctx::FP_MASKED)
}

impl Lower<'_, '_> {
    pub(super) fn vec(&mut self, v: Val) -> Value {
        match self.val(v) {
            Lv::Vec(v) => v,
            _ => self.zero_x(),
        }
    }

    fn zero_x(&mut self) -> Value {
        let zero = self.b.ins().iconst(I8, 0);
        self.b.ins().splat(X, zero)
    }

    pub(super) fn set_xmm(&mut self, r: u8, v: Val) {
        let n = usize::from(r & 15);
        let v = self.vec(v);
        self.b.def_var(self.xmm[n], v);
        self.store_state(v, offset_of!(State, xmm) + 16 * n);
    }

    /// An integer in the low lane.
    pub(super) fn x_of(&mut self, v: Val) -> Lv {
        if let Lv::Const(0) = self.val(v) {
            return Lv::Vec(self.zero_x());
        }
        let v = self.int(v, Width::Q);
        let x = self.low_lane(I64X2, v);
        self.ints.insert(x, v);
        Lv::Vec(x)
    }

    /// A scalar in the low lane of `t`, zeros above.
    fn low_lane(&mut self, t: Type, v: Value) -> Value {
        let v = self.b.ins().scalar_to_vector(t, v);
        self.bitcast(X, v)
    }

    /// The low bits of a vector.
    pub(super) fn v_of(&mut self, w: Width, x: Val) -> Lv {
        let x = self.vec(x);
        if let Some(v) = self.ints.get(&x).copied() {
            return Lv::Int(self.resize(v, Width::Q, w), w);
        }
        let t = match w {
            Width::B => I8X16,
            Width::W => I16X8,
            Width::D => I32X4,
            Width::Q => I64X2,
        };
        let x = self.bitcast(t, x);
        Lv::Int(self.b.ins().extractlane(x, 0), w)
    }

    /// A known integer behind a vector operand.
    fn known_low(&self, ops: &[Op], v: Val) -> Option<u64> {
        match ops.get(v.0 as usize) {
            Some(Op::XOf(v)) => match self.val(*v) {
                Lv::Const(c) => Some(c),
                _ => None,
            },
            _ => None,
        }
    }

    /// Bytes picked from `a` (0-15) and `b` (16-31).
    fn pick(&mut self, a: Value, b: Value, bytes: [u8; 16]) -> Value {
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(&bytes[..]));
        self.b.ins().shuffle(a, b, mask)
    }

    /// Lanes of `s` picked from `a` and, from the number of lanes on, from `b`.
    fn pick_lanes(&mut self, s: Shape, a: Value, b: Value, which: impl Fn(u8) -> u8) -> Value {
        let size = (s.bits() / 8) as u8;
        let bytes = std::array::from_fn(|n| which(n as u8 / size) * size + n as u8 % size);
        self.pick(a, b, bytes)
    }

    /// A lane-wise operation.
    fn each(&mut self, t: Type, a: Value, b: Value, f: impl FnOnce(&mut Self, Value, Value) -> Value) -> Value {
        let (a, b) = (self.bitcast(t, a), self.bitcast(t, b));
        let r = f(self, a, b);
        self.bitcast(X, r)
    }

    pub(super) fn vec_op(&mut self, ops: &[Op], op: VecOp, a: Val, b: Val, imm: u8) -> Lv {
        use VecOp::*;
        if let ShiftLeft(s) | ShiftRight(s) | ShiftRightArith(s) = op {
            return Lv::Vec(self.shift_lanes(ops, op, s, a, b));
        }
        if let ByteShiftLeft | ByteShiftRight = op {
            return Lv::Vec(self.shift_bytes(ops, op, a, b));
        }
        let (a, b) = (self.vec(a), self.vec(b));
        if let Some(v) = self.arithmetic(op, a, b) {
            return Lv::Vec(v);
        }
        Lv::Vec(self.permute(op, a, b, imm))
    }

    fn arithmetic(&mut self, op: VecOp, a: Value, b: Value) -> Option<Value> {
        use VecOp::*;
        let all = |s: Shape| lanes(s);
        Some(match op {
            And => self.b.ins().band(a, b),
            AndNot => {
                let not = self.b.ins().bnot(a);
                self.b.ins().band(not, b)
            }
            Or => self.b.ins().bor(a, b),
            Xor => self.b.ins().bxor(a, b),
            Add(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().iadd(a, b)),
            Sub(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().isub(a, b)),
            AddSatS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().sadd_sat(a, b)),
            AddSatU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().uadd_sat(a, b)),
            SubSatS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().ssub_sat(a, b)),
            SubSatU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().usub_sat(a, b)),
            AvgU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().avg_round(a, b)),
            MinS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().smin(a, b)),
            MinU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().umin(a, b)),
            MaxS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().smax(a, b)),
            MaxU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().umax(a, b)),
            MulLow(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().imul(a, b)),
            CmpEq(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().icmp(IntCC::Equal, a, b)),
            CmpGt(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().icmp(IntCC::SignedGreaterThan, a, b)),
            MulWideU32 => self.each(I64X2, a, b, |l, a, b| {
                let mask = l.b.ins().iconst(I64, 0xffff_ffff);
                let mask = l.b.ins().splat(I64X2, mask);
                let (a, b) = (l.b.ins().band(a, mask), l.b.ins().band(b, mask));
                l.b.ins().imul(a, b)
            }),
            MulAdd16 => {
                let (a, b) = (self.bitcast(I16X8, a), self.bitcast(I16X8, b));
                let (x, y) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
                let low = self.b.ins().imul(x, y);
                let (x, y) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
                let high = self.b.ins().imul(x, y);
                let r = self.b.ins().iadd_pairwise(low, high);
                self.bitcast(X, r)
            }
            PackS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().snarrow(a, b)),
            PackU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().unarrow(a, b)),
            _ => return None,
        })
    }

    fn permute(&mut self, op: VecOp, a: Value, b: Value, imm: u8) -> Value {
        use VecOp::*;
        let at = |n: u8| imm >> (2 * n) & 3;
        match op {
            ZextLow(s) => {
                let zero = self.zero_x();
                self.pick_lanes(s, b, zero, |n| if n == 0 { 0 } else { s.lanes() as u8 + n })
            }
            MergeLow(s) => self.pick_lanes(s, a, b, |n| if n == 0 { s.lanes() as u8 } else { n }),
            MoveHighToLow => self.pick_lanes(Shape::I64, a, b, |n| [3, 1][usize::from(n & 1)]),
            High64 => {
                let zero = self.zero_x();
                self.pick_lanes(Shape::I64, b, zero, |n| [1, 2][usize::from(n & 1)])
            }
            UnpackLow(s) => self.pick_lanes(s, a, b, |n| n / 2 + if n & 1 != 0 { s.lanes() as u8 } else { 0 }),
            UnpackHigh(s) => {
                let half = s.lanes() as u8 / 2;
                self.pick_lanes(s, a, b, |n| half + n / 2 + if n & 1 != 0 { s.lanes() as u8 } else { 0 })
            }
            Shuffle32 => self.pick_lanes(Shape::I32, b, b, at),
            ShuffleLow16 => self.pick_lanes(Shape::I16, b, b, |n| if n < 4 { at(n) } else { n }),
            ShuffleHigh16 => self.pick_lanes(Shape::I16, b, b, |n| if n < 4 { n } else { 4 + at(n - 4) }),
            ShufflePs => self.pick_lanes(Shape::I32, a, b, |n| at(n) + if n < 2 { 0 } else { 4 }),
            ShufflePd => self.pick_lanes(Shape::I64, a, b, |n| (imm >> n & 1) + 2 * n),
            DupEven32 => self.pick_lanes(Shape::I32, b, b, |n| n & !1),
            DupOdd32 => self.pick_lanes(Shape::I32, b, b, |n| n | 1),
            DupLow64 => self.pick_lanes(Shape::I64, b, b, |_| 0),
            AlignRight => self.align_right(a, b, imm),
            Insert(s) => {
                let lane = imm & (s.lanes() as u8 - 1);
                self.pick_lanes(s, a, b, |n| if n == lane { s.lanes() as u8 } else { n })
            }
            Extract(s) => {
                let (zero, lane) = (self.zero_x(), imm & (s.lanes() as u8 - 1));
                self.pick_lanes(s, b, zero, |n| if n == 0 { lane } else { s.lanes() as u8 })
            }
            MoveMask(s) => {
                let v = self.bitcast(lanes(s), b);
                let bits = self.b.ins().vhigh_bits(I32, v);
                let wide = self.b.ins().uextend(I64, bits);
                self.low_lane(I64X2, wide)
            }
            _ => b,
        }
    }

    /// `a:b` shifted right by bytes.
    fn align_right(&mut self, a: Value, b: Value, n: u8) -> Value {
        let zero = self.zero_x();
        match n {
            0..=16 => self.pick(b, a, std::array::from_fn(|i| i as u8 + n)),
            17..=31 => self.pick(a, zero, std::array::from_fn(|i| (i as u8 + n - 16).min(16))),
            _ => zero,
        }
    }

    /// PSLLDQ, PSRLDQ: the count is always an immediate.
    fn shift_bytes(&mut self, ops: &[Op], op: VecOp, a: Val, b: Val) -> Value {
        let n = self.known_low(ops, b).unwrap_or(16).min(16) as u8;
        let (a, zero) = (self.vec(a), self.zero_x());
        let right = op == VecOp::ByteShiftRight;
        let from = |i: u8| if right { (i + n).min(16) } else { i.checked_sub(n).unwrap_or(16) };
        self.pick(a, zero, std::array::from_fn(|i| from(i as u8)))
    }

    /// PSLLW and the like. CLIF takes counts modulo the lane's bits; x86 gives zero, or the sign, beyond.
    fn shift_lanes(&mut self, ops: &[Op], op: VecOp, s: Shape, a: Val, b: Val) -> Value {
        let (t, bits) = (lanes(s), u64::from(s.bits()));
        let arithmetic = matches!(op, VecOp::ShiftRightArith(_));
        let count = match self.known_low(ops, b) {
            Some(n) if n >= bits && !arithmetic => return self.zero_x(),
            Some(n) => Ok(n.min(bits - 1)),
            None => {
                let count = self.vec(b);
                let count = self.bitcast(I64X2, count);
                Err(self.b.ins().extractlane(count, 0))
            }
        };
        let a = self.vec(a);
        let a = self.bitcast(t, a);
        let (amount, beyond) = match count {
            Ok(n) => (self.b.ins().iconst(I32, n as i64), None),
            Err(count) => {
                let beyond = self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, count, bits as i64);
                let last = self.b.ins().iconst(I64, bits as i64 - 1);
                let amount = self.b.ins().select(beyond, last, count);
                (self.b.ins().ireduce(I32, amount), Some(beyond))
            }
        };
        let r = match op {
            VecOp::ShiftLeft(_) => self.b.ins().ishl(a, amount),
            VecOp::ShiftRight(_) => self.b.ins().ushr(a, amount),
            _ => self.b.ins().sshr(a, amount),
        };
        let r = self.bitcast(X, r);
        match beyond {
            Some(beyond) if !arithmetic => {
                let zero = self.zero_x();
                self.b.ins().select(beyond, zero, r)
            }
            _ => r,
        }
    }
}

/// Floating point.
impl Lower<'_, '_> {
    /// The low lane as a scalar.
    fn scalar(&mut self, f: Fmt, x: Value) -> Value {
        let (_, t) = floats(f);
        let x = self.bitcast(t, x);
        self.b.ins().extractlane(x, 0)
    }

    /// `x` with its low lane replaced.
    fn with_scalar(&mut self, f: Fmt, x: Value, v: Value) -> Value {
        let (_, t) = floats(f);
        let x = self.bitcast(t, x);
        let r = self.b.ins().insertlane(x, v, 0);
        self.bitcast(X, r)
    }

    /// The low lane alone, zeros above: for operations that exist on vectors only and must raise nothing for other lanes.
    fn alone(&mut self, f: Fmt, x: Value) -> Value {
        let (_, t) = floats(f);
        let v = self.scalar(f, x);
        self.b.ins().scalar_to_vector(t, v)
    }

    pub(super) fn fp_op(&mut self, op: FpOp, a: Val, b: Val, imm: u8) -> Lv {
        use FpOp::*;
        let (a, b) = (self.vec(a), self.vec(b));
        Lv::Vec(match op {
            // Cranelift would see that the result is the operand, and neither flush a denormal nor raise flags.
            Arith(self::Arith::Min | self::Arith::Max, ..) if a == b => {
                self.interpret();
                a
            }
            Arith(op, f, Lanes::Packed) => self.each(floats(f).1, a, b, |l, a, b| l.float(op, a, b)),
            Arith(op @ (self::Arith::Min | self::Arith::Max), f, Lanes::Scalar) => self.on_low_lane(f, a, b, |l, a, b| l.float(op, a, b)),
            Arith(op, f, Lanes::Scalar) => {
                let (x, y) = (self.scalar(f, a), self.scalar(f, b));
                let r = self.float(op, x, y);
                self.with_scalar(f, a, r)
            }
            Cmp(f, Lanes::Packed) => self.each(floats(f).1, a, b, |l, a, b| l.float_mask(f, imm, a, b)),
            Cmp(f, Lanes::Scalar) => self.on_low_lane(f, a, b, |l, a, b| l.float_mask(f, imm, a, b)),
            _ => self.convert(op, a, b),
        })
    }

    /// A vector operation for the low lane only; the other lanes are `a`'s.
    fn on_low_lane(&mut self, f: Fmt, a: Value, b: Value, op: impl FnOnce(&mut Self, Value, Value) -> Value) -> Value {
        let (x, y) = (self.alone(f, a), self.alone(f, b));
        let r = op(self, x, y);
        let r = self.bitcast(X, r);
        let s = if f == Fmt::F32 { Shape::I32 } else { Shape::I64 };
        self.pick_lanes(s, a, r, |n| if n == 0 { s.lanes() as u8 } else { n })
    }

    fn float(&mut self, op: Arith, a: Value, b: Value) -> Value {
        match op {
            Arith::Add => self.b.ins().fadd(a, b),
            Arith::Sub => self.b.ins().fsub(a, b),
            Arith::Mul => self.b.ins().fmul(a, b),
            Arith::Div => self.b.ins().fdiv(a, b),
            Arith::Sqrt => self.b.ins().sqrt(b),
            // MINPS: the second operand unless the first is less; the comparison signals for a NaN, as MINPS does.
            Arith::Min => self.pick_float(FloatCC::LessThan, a, b),
            Arith::Max => self.pick_float(FloatCC::GreaterThan, a, b),
        }
    }

    fn pick_float(&mut self, cc: FloatCC, a: Value, b: Value) -> Value {
        let c = self.b.ins().fcmp(cc, a, b);
        let t = self.b.func.dfg.value_type(a);
        let c = self.bitcast(t, c);
        self.b.ins().bitselect(c, a, b)
    }

    /// CMPPS's predicates (SDM Vol. 2, "CMPPS", table "Comparison Predicate").
    fn float_mask(&mut self, _f: Fmt, imm: u8, a: Value, b: Value) -> Value {
        let cc = match imm & 7 {
            0 => FloatCC::Equal,
            1 => FloatCC::LessThan,
            2 => FloatCC::LessThanOrEqual,
            3 => FloatCC::Unordered,
            4 => FloatCC::NotEqual,
            5 => FloatCC::UnorderedOrGreaterThanOrEqual,
            6 => FloatCC::UnorderedOrGreaterThan,
            _ => FloatCC::Ordered,
        };
        self.b.ins().fcmp(cc, a, b)
    }

    fn convert(&mut self, op: FpOp, a: Value, b: Value) -> Value {
        use FpOp::*;
        match op {
            CvtPs2Pd => {
                let v = self.bitcast(F32X4, b);
                let r = self.b.ins().fvpromote_low(v);
                self.bitcast(X, r)
            }
            CvtPd2Ps => {
                let v = self.bitcast(F64X2, b);
                let r = self.b.ins().fvdemote(v);
                self.bitcast(X, r)
            }
            CvtSs2Sd => {
                let v = self.scalar(Fmt::F32, b);
                let r = self.b.ins().fpromote(F64, v);
                self.with_scalar(Fmt::F64, a, r)
            }
            CvtSd2Ss => {
                let v = self.scalar(Fmt::F64, b);
                let r = self.b.ins().fdemote(F32, v);
                self.with_scalar(Fmt::F32, a, r)
            }
            CvtDq2Ps => {
                let v = self.bitcast(I32X4, b);
                let r = self.b.ins().fcvt_from_sint(F32X4, v);
                self.bitcast(X, r)
            }
            CvtDq2Pd => {
                let v = self.bitcast(I32X4, b);
                let v = self.b.ins().swiden_low(v);
                let r = self.b.ins().fcvt_from_sint(F64X2, v);
                self.bitcast(X, r)
            }
            CvtPs2Dq(_) => {
                let v = self.bitcast(F32X4, b);
                let r = self.b.ins().x86_cvtt2dq(I32X4, v);
                self.bitcast(X, r)
            }
            CvtSi32(f) => self.convert_integer(f, I32X4, a, b),
            CvtSi64(f) => self.convert_integer(f, I64X2, a, b),
            CvtToSi32(f, _) => self.truncate(f, I32, b),
            CvtToSi64(f, _) => self.truncate(f, I64, b),
            _ => b,
        }
    }

    fn convert_integer(&mut self, f: Fmt, from: Type, a: Value, b: Value) -> Value {
        let v = self.bitcast(from, b);
        let v = self.b.ins().extractlane(v, 0);
        let r = self.b.ins().fcvt_from_sint(floats(f).0, v);
        self.with_scalar(f, a, r)
    }

    /// Truncation. Out of range, which x86 answers with the integer indefinite, is the interpreter's.
    fn truncate(&mut self, f: Fmt, to: Type, b: Value) -> Value {
        let v = self.scalar(f, b);
        // Compared as an integer: a floating-point comparison raises DE for a denormal, which CVTTSD2SI does not.
        let (whole, limit) = match f {
            Fmt::F32 => (I32, u64::from(((1u64 << (to.bits() - 1)) as f32).to_bits())),
            Fmt::F64 => (I64, ((1u64 << (to.bits() - 1)) as f64).to_bits()),
        };
        let bits = self.bitcast(whole, v);
        let twice = self.b.ins().ishl_imm_u(bits, 1);
        let magnitude = self.b.ins().ushr_imm_u(twice, 1);
        let outside = self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, magnitude, limit as i64);
        self.leave_if(outside);
        let r = self.b.ins().fcvt_to_sint_sat(to, v);
        let wide = if to == I64 { r } else { self.b.ins().uextend(I64, r) };
        self.low_lane(I64X2, wide)
    }

    /// ZF, PF, CF of a comparison as a flags word.
    pub(super) fn fp_compare(&mut self, f: Fmt, signaling: bool, a: Val, b: Val) -> Lv {
        let (a, b) = (self.vec(a), self.vec(b));
        if signaling {
            // UCOMISD, which CLIF compares scalars with, is quiet. This comparison signals for a NaN; its result is stored
            // so that it happens.
            let (x, y) = (self.alone(f, a), self.alone(f, b));
            let mask = self.b.ins().fcmp(FloatCC::LessThan, x, y);
            let mask = self.bitcast(I64X2, mask);
            let word = self.b.ins().extractlane(mask, 0);
            self.store_state(word, offset_of!(State, result) + 8);
        }
        let (x, y) = (self.scalar(f, a), self.scalar(f, b));
        // MXCSR keeps the flags of a comparison that nobody looks at, too, so its result is stored: at another place than the one
        // before, for of two stores to one place Cranelift keeps the second only.
        let unordered = self.b.ins().fcmp(FloatCC::Unordered, x, y);
        self.store_state(unordered, offset_of!(State, result) + if self.executed & 1 == 0 { 0 } else { 4 });
        let mut word = None;
        for (cc, shift) in [(FloatCC::UnorderedOrLessThan, 0), (FloatCC::Unordered, 2), (FloatCC::UnorderedOrEqual, 6)] {
            let bit = self.b.ins().fcmp(cc, x, y);
            let bit = self.b.ins().uextend(I32, bit);
            let bit = if shift == 0 { bit } else { self.b.ins().ishl_imm_u(bit, shift) };
            word = Some(match word {
                Some(word) => self.b.ins().bor(word, bit),
                None => bit,
            });
        }
        word.map_or(Lv::Const(0), |word| Lv::Int(word, Width::D))
    }
}
