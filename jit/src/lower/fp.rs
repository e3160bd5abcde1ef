//! Floating point on vectors, through the host's own under the guest's MXCSR.
//!
//! It is right on hosts whose scalar and vector arithmetic is x86's and obeys MXCSR (see [`crate::host_fp`]), and while every
//! exception is masked ([`Ctx::FP_MASKED`]). What CLIF has no word for, and everything on other hosts, is computed by a helper. With
//! exceptions unmasked the whole instruction is left to the CPU's function, and so is one that Cranelift might drop or move (see
//! [`super::sticky`]).

use super::vec::X;
use super::{Lower, Lv};
use crate::host_fp;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use egret_cpu::State;
use egret_isa::insn::Ctx;
use egret_isa::ir::Val;
use egret_isa::ops::Width;
use egret_isa::sem::vector::fp_ops;
use egret_isa::vec::{Arith, FmaOp, Fmt, FpOp, Lanes, Shape, ToInt};
use std::mem::offset_of;

fn floats(f: Fmt) -> (Type, Type) {
    match f {
        Fmt::F32 => (F32, F32X4),
        Fmt::F64 => (F64, F64X2),
    }
}

fn shape(f: Fmt) -> Shape {
    if f == Fmt::F32 { Shape::I32 } else { Shape::I64 }
}

/// Whether floating-point operations have a lowering in a context.
pub(super) fn has_fp(ctx: Ctx) -> bool {
    ctx.has(Ctx::FP_MASKED)
}

/// Whether an operation is lowered to CLIF; the others are computed by [`crate::helpers::float`].
fn inline(op: FpOp, imm: u8) -> bool {
    use FpOp::*;
    host_fp::NATIVE
        && match op {
            // Always false, always true: nothing is compared, but NaNs and denormals count.
            Cmp(..) => !matches!(imm & 15, 11 | 15),
            Arith(..) | AddSub(_) | AddPairs(_) | SubPairs(_) => true,
            CvtPs2Pd | CvtPd2Ps | CvtSs2Sd | CvtSd2Ss | CvtDq2Ps | CvtDq2Pd | CvtSi32(_) | CvtSi64(_) => true,
            CvtPs2Dq(ToInt::Truncate) | CvtToSi32(_, ToInt::Truncate) | CvtToSi64(_, ToInt::Truncate) => true,
            _ => false,
        }
}

/// Places for results of comparisons.
pub(super) const COMPARES: usize = 8;

/// Whether fused multiply-adds have a lowering in a context.
pub(super) fn has_fma(ctx: Ctx) -> bool {
    host_fp::fma() && ctx.has(Ctx::FP_MASKED)
}

/// Whether comparisons have a lowering in a context.
pub(super) fn has_compare(ctx: Ctx) -> bool {
    host_fp::NATIVE && ctx.has(Ctx::FP_MASKED)
}

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
        if !inline(op, imm) {
            let number = fp_ops().iter().position(|o| *o == op).unwrap_or(0) as u64;
            return Lv::Vec(self.ask_float(number | u64::from(imm) << 16, a, b));
        }
        Lv::Vec(match op {
            // Cranelift would see that the result is the operand, and neither flush a denormal nor raise flags.
            Arith(self::Arith::Min | self::Arith::Max, ..) if a == b => {
                self.interpret();
                a
            }
            Arith(op, f, Lanes::Packed) => self.each(floats(f).1, a, b, |l, a, b| l.float(op, a, b)),
            Arith(op, f, Lanes::Scalar) => {
                let (x, y) = (self.scalar(f, a), self.scalar(f, b));
                let r = self.float(op, x, y);
                self.with_scalar(f, a, r)
            }
            Cmp(f, Lanes::Packed) => self.each(floats(f).1, a, b, |l, a, b| l.float_mask(imm, a, b)),
            Cmp(f, Lanes::Scalar) => self.on_low_lane(f, a, b, |l, a, b| l.float_mask(imm, a, b)),
            AddSub(f) => {
                // Each operation on its own lanes twice, for the others must raise nothing.
                let s = shape(f);
                let (low, high) = self.pairwise(s, [(a, b, 0), (a, b, 1)], |l, x, y, odd| {
                    let t = floats(f).1;
                    if odd { l.each(t, x, y, |l, x, y| l.b.ins().fadd(x, y)) } else { l.each(t, x, y, |l, x, y| l.b.ins().fsub(x, y)) }
                });
                let half = s.lanes() as u8 / 2;
                self.pick_lanes(s, low, high, |n| n / 2 + if n & 1 != 0 { 2 * half } else { 0 })
            }
            FpOp::AddPairs(f) | FpOp::SubPairs(f) => {
                let (s, t) = (shape(f), floats(f).1);
                let (even, odd) = (self.pick_lanes(s, a, b, |n| 2 * n), self.pick_lanes(s, a, b, |n| 2 * n + 1));
                let adds = matches!(op, FpOp::AddPairs(_));
                self.each(t, even, odd, |l, x, y| if adds { l.b.ins().fadd(x, y) } else { l.b.ins().fsub(x, y) })
            }
            _ => self.convert(op, a, b),
        })
    }

    /// `f` on the even lanes of two operands, and on the odd ones, each given twice.
    fn pairwise(
        &mut self,
        s: Shape,
        operands: [(Value, Value, u8); 2],
        f: impl Fn(&mut Self, Value, Value, bool) -> Value,
    ) -> (Value, Value) {
        let half = s.lanes() as u8 / 2;
        let [low, high] = operands.map(|(a, b, odd)| {
            let (x, y) = (self.pick_lanes(s, a, a, |n| 2 * (n % half) + odd), self.pick_lanes(s, b, b, |n| 2 * (n % half) + odd));
            f(self, x, y, odd != 0)
        });
        (low, high)
    }

    /// Operands 1, 2 and 3 multiplied and added. A NaN is left to the interpreter: which of several operands it comes from depends
    /// on their order, and Cranelift chooses that.
    pub(super) fn fma_op(&mut self, op: FmaOp, a: Val, b: Val, c: Val) -> Lv {
        let old = self.vec(a);
        let (x, y, z) = op.arrange(old, self.vec(b), self.vec(c));
        let (x, y, z) = match op.lanes {
            Lanes::Packed => {
                let t = floats(op.fmt).1;
                (self.bitcast(t, x), self.bitcast(t, y), self.bitcast(t, z))
            }
            Lanes::Scalar => (self.scalar(op.fmt, x), self.scalar(op.fmt, y), self.scalar(op.fmt, z)),
        };
        let ((product, addend), (odd_product, odd_addend)) = (op.kind.negates(0), op.kind.negates(1));
        debug_assert_eq!(product, odd_product);
        let x = if product { self.b.ins().fneg(x) } else { x };
        let z = match (addend, odd_addend) {
            (false, false) => z,
            (true, true) => self.b.ins().fneg(z),
            _ => self.negate_some(op.fmt, z, addend),
        };
        let r = self.b.ins().fma(x, y, z);
        self.leave_if_nan(op.fmt, op.lanes, r);
        Lv::Vec(match op.lanes {
            Lanes::Packed => self.bitcast(X, r),
            Lanes::Scalar => self.with_scalar(op.fmt, old, r),
        })
    }

    /// Negates the even lanes, or the odd ones.
    fn negate_some(&mut self, f: Fmt, v: Value, even: bool) -> Value {
        let t = floats(f).1;
        let negated = self.b.ins().fneg(v);
        let (v, negated) = (self.bitcast(X, v), self.bitcast(X, negated));
        let s = shape(f);
        let r = self.pick_lanes(s, v, negated, |n| if (n & 1 == 0) == even { s.lanes() as u8 + n } else { n });
        self.bitcast(t, r)
    }

    /// Compared as integers, for a floating-point comparison raises DE for denormals.
    fn leave_if_nan(&mut self, f: Fmt, lanes: Lanes, v: Value) {
        let (int, packed, infinity) = match f {
            Fmt::F32 => (I32, I32X4, i64::from(f32::INFINITY.to_bits())),
            Fmt::F64 => (I64, I64X2, f64::INFINITY.to_bits() as i64),
        };
        let outside = if lanes == Lanes::Scalar {
            let bits = self.bitcast(int, v);
            let twice = self.b.ins().ishl_imm_u(bits, 1);
            let limit = self.b.ins().iconst(int, if f == Fmt::F32 { infinity << 1 & 0xffff_ffff } else { infinity << 1 });
            self.b.ins().icmp(IntCC::UnsignedGreaterThan, twice, limit)
        } else {
            let bits = self.bitcast(packed, v);
            let one = self.b.ins().iconst(I32, 1);
            let twice = self.b.ins().ishl(bits, one);
            let magnitude = self.b.ins().ushr(twice, one);
            let limit = self.b.ins().iconst(int, infinity);
            let limit = self.b.ins().splat(packed, limit);
            let nan = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, limit);
            self.b.ins().vany_true(nan)
        };
        self.leave_if(outside);
    }

    /// A vector operation for the low lane only; the other lanes are `a`'s.
    fn on_low_lane(&mut self, f: Fmt, a: Value, b: Value, op: impl FnOnce(&mut Self, Value, Value) -> Value) -> Value {
        let (x, y) = (self.alone(f, a), self.alone(f, b));
        let r = op(self, x, y);
        let r = self.bitcast(X, r);
        let s = shape(f);
        self.pick_lanes(s, a, r, |n| if n == 0 { s.lanes() as u8 } else { n })
    }

    fn float(&mut self, op: Arith, a: Value, b: Value) -> Value {
        match op {
            Arith::Add => self.b.ins().fadd(a, b),
            Arith::Sub => self.b.ins().fsub(a, b),
            Arith::Mul => self.b.ins().fmul(a, b),
            Arith::Div => self.b.ins().fdiv(a, b),
            Arith::Sqrt => self.b.ins().sqrt(b),
            // MINPS: the second operand unless the first is less. Cranelift makes MINPS and MAXPS of these very patterns, which matters:
            // they flush denormals under DAZ.
            Arith::Min => self.pick_float(a, b, a, b),
            Arith::Max => self.pick_float(b, a, a, b),
        }
    }

    /// `a` where `x < y`, else `b`.
    fn pick_float(&mut self, x: Value, y: Value, a: Value, b: Value) -> Value {
        let c = self.b.ins().fcmp(FloatCC::LessThan, x, y);
        if !self.b.func.dfg.value_type(a).is_vector() {
            return self.b.ins().select(c, a, b);
        }
        let t = self.b.func.dfg.value_type(a);
        let c = self.bitcast(t, c);
        self.b.ins().bitselect(c, a, b)
    }

    /// CMPPS's predicates (SDM Vol. 2, "CMPPS", table "Comparison Predicate"). From 16 on they are the first ones with the other
    /// answer to the question whether a quiet NaN signals: with a NaN they are the interpreter's.
    fn float_mask(&mut self, imm: u8, a: Value, b: Value) -> Value {
        if imm & 16 != 0 {
            let nan = self.b.ins().fcmp(FloatCC::Unordered, a, b);
            let any = self.b.ins().vany_true(nan);
            self.leave_if(any);
        }
        let cc = match imm & 15 {
            0 => FloatCC::Equal,
            1 => FloatCC::LessThan,
            2 => FloatCC::LessThanOrEqual,
            3 => FloatCC::Unordered,
            4 => FloatCC::NotEqual,
            5 => FloatCC::UnorderedOrGreaterThanOrEqual,
            6 => FloatCC::UnorderedOrGreaterThan,
            7 => FloatCC::Ordered,
            8 => FloatCC::UnorderedOrEqual,
            9 => FloatCC::UnorderedOrLessThan,
            10 => FloatCC::UnorderedOrLessThanOrEqual,
            12 => FloatCC::OrderedNotEqual,
            13 => FloatCC::GreaterThanOrEqual,
            _ => FloatCC::GreaterThan,
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
        // MXCSR keeps the flags of a comparison that nobody looks at, too, so something of its result is stored: each time at
        // another place, for of two stores to one place Cranelift keeps the second only.
        let slot = self.compares % COMPARES;
        self.compares = self.compares.wrapping_add(1);
        if signaling {
            // UCOMISD, which CLIF compares scalars with, is quiet. This comparison signals for a NaN.
            let (x, y) = (self.alone(f, a), self.alone(f, b));
            let mask = self.b.ins().fcmp(FloatCC::LessThan, x, y);
            let mask = self.bitcast(X, mask);
            let byte = self.b.ins().extractlane(mask, 0);
            self.store_state(byte, offset_of!(State, result) + 8 + slot);
        }
        let (x, y) = (self.scalar(f, a), self.scalar(f, b));
        let unordered = self.b.ins().fcmp(FloatCC::Unordered, x, y);
        self.store_state(unordered, offset_of!(State, result) + slot);
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
