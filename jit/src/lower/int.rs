//! Integer arithmetic.

use super::{Lower, Lv, ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use egret_cpu::State;
use egret_isa::ir::Val;
use egret_isa::ops::{Bin, Rel, Un, Width};
use std::mem::offset_of;

use crate::vm::{Stubs, Vm};

impl Lower<'_, '_> {
    /// A value of the IR as a CLIF value of the width's type.
    pub(super) fn int(&mut self, v: Val, w: Width) -> Value {
        let v = self.val(v);
        self.typed(v, w)
    }

    pub(super) fn typed(&mut self, v: Lv, w: Width) -> Value {
        match v {
            Lv::Const(c) => self.b.ins().iconst(ty(w), (c & w.mask()) as i64),
            Lv::Int(v, from) => self.resize(v, from, w),
            Lv::Rip(offset) => {
                let v = self.rip_value(offset);
                self.resize(v, Width::Q, w)
            }
            Lv::None | Lv::Vec(_) => self.b.ins().iconst(ty(w), 0),
        }
    }

    pub(super) fn resize(&mut self, v: Value, from: Width, to: Width) -> Value {
        match from.cmp(&to) {
            std::cmp::Ordering::Less => self.b.ins().uextend(ty(to), v),
            std::cmp::Ordering::Equal => v,
            std::cmp::Ordering::Greater => self.b.ins().ireduce(ty(to), v),
        }
    }

    /// The instruction pointer of an offset in the page.
    pub(super) fn rip_value(&mut self, offset: i64) -> Value {
        if let Some(base) = self.region.base {
            return self.iconst(base.wrapping_add(offset as u64) & 0xffff_ffff);
        }
        let base = self.load_state(I64, offset_of!(State, page));
        let v = self.b.ins().iadd_imm_s(base, offset);
        if self.code64() { v } else { self.b.ins().band_imm_u(v, 0xffff_ffff) }
    }

    pub(super) fn bin(&mut self, op: Bin, w: Width, a: Val, b: Val) {
        let (x, y) = (self.val(a), self.val(b));
        let limit = match (op, x, y) {
            (Bin::And, Lv::Const(c), _) | (Bin::And, _, Lv::Const(c)) => c & w.mask(),
            _ => w.mask(),
        };
        let v = match (op, x, y) {
            (_, Lv::Const(x), Lv::Const(y)) => Lv::Const(op.eval(w, x, y)),
            (Bin::Add, Lv::Rip(at), Lv::Const(c)) if w == Width::Q && self.code64() => Lv::Rip(at.wrapping_add(c as i64)),
            // As TEST does with one register.
            (Bin::And | Bin::Or, Lv::Int(x, from), Lv::Int(y, _)) if x == y && from >= w => Lv::Int(self.resize(x, from, w), w),
            (Bin::Shl | Bin::Shr | Bin::Sar, ..) => self.shift(op, w, a, b),
            (Bin::MulHiU | Bin::MulHiS, ..) if w < Width::Q => self.high_product(op == Bin::MulHiS, w, a, b),
            _ => {
                let (x, y) = (self.int(a, w), self.int(b, w));
                let ins = self.b.ins();
                Lv::Int(
                    match op {
                        Bin::Add => ins.iadd(x, y),
                        Bin::Sub => ins.isub(x, y),
                        Bin::And => ins.band(x, y),
                        Bin::Or => ins.bor(x, y),
                        Bin::Xor => ins.bxor(x, y),
                        Bin::Mul => ins.imul(x, y),
                        Bin::MulHiU => ins.umulhi(x, y),
                        Bin::MulHiS => ins.smulhi(x, y),
                        Bin::Rol => ins.rotl(x, y),
                        _ => ins.rotr(x, y),
                    },
                    w,
                )
            }
        };
        match (op, x, y) {
            (Bin::Add, x, Lv::Const(c)) | (Bin::Add, Lv::Const(c), x) => self.note_sum(v, x, c),
            (Bin::Sub, x, Lv::Const(c)) => self.note_sum(v, x, c.wrapping_neg() & w.mask()),
            _ => {}
        }
        self.push(v);
        if let Some(last) = self.limits.last_mut() {
            *last = limit;
        }
    }

    fn limit(&self, v: Val) -> u64 {
        match self.val(v) {
            Lv::Const(c) => c,
            _ => self.limits.get(v.0 as usize).copied().unwrap_or(u64::MAX),
        }
    }

    /// A shift, the count taken modulo 64 whatever the width.
    fn shift(&mut self, op: Bin, w: Width, a: Val, n: Val) -> Lv {
        if let Lv::Const(n) = self.val(n) {
            return self.shift_const(op, w, a, n & 63);
        }
        // CLIF masks the count by the width of the type shifted.
        let wide = if self.limit(n) < 32 && w <= Width::D { Width::D } else { Width::Q };
        let count = self.int(n, Width::B.max(self.width_of(n)));
        let x = self.int(a, w);
        let r = match op {
            Bin::Shl => {
                let x = self.resize(x, w, wide);
                self.b.ins().ishl(x, count)
            }
            Bin::Shr => {
                let x = self.resize(x, w, wide);
                self.b.ins().ushr(x, count)
            }
            _ => {
                let x = if w == wide { x } else { self.b.ins().sextend(ty(wide), x) };
                self.b.ins().sshr(x, count)
            }
        };
        Lv::Int(self.resize(r, wide, w), w)
    }

    fn shift_const(&mut self, op: Bin, w: Width, a: Val, n: u64) -> Lv {
        let bits = u64::from(w.bits());
        let x = self.int(a, w);
        let ins = self.b.ins();
        match op {
            Bin::Shl | Bin::Shr if n >= bits => Lv::Const(0),
            Bin::Shl => Lv::Int(ins.ishl_imm_u(x, n as i64), w),
            Bin::Shr => Lv::Int(ins.ushr_imm_u(x, n as i64), w),
            _ => Lv::Int(ins.sshr_imm_u(x, n.min(bits - 1) as i64), w),
        }
    }

    fn high_product(&mut self, signed: bool, w: Width, a: Val, b: Val) -> Lv {
        let wide = if w == Width::D { I64 } else { I32 };
        let (x, y) = (self.int(a, w), self.int(b, w));
        let bits = i64::from(w.bits());
        let (x, y) = if signed {
            (self.b.ins().sextend(wide, x), self.b.ins().sextend(wide, y))
        } else {
            (self.b.ins().uextend(wide, x), self.b.ins().uextend(wide, y))
        };
        let product = self.b.ins().imul(x, y);
        let high = self.b.ins().ushr_imm_u(product, bits);
        Lv::Int(self.b.ins().ireduce(ty(w), high), w)
    }

    pub(super) fn un(&mut self, op: Un, w: Width, a: Val) -> Lv {
        if let Lv::Const(c) = self.val(a) {
            return Lv::Const(op.eval(w, c));
        }
        let x = self.int(a, w);
        let ins = self.b.ins();
        Lv::Int(
            match op {
                Un::Not => ins.bnot(x),
                Un::Neg => ins.ineg(x),
                Un::Clz => ins.clz(x),
                Un::Ctz => ins.ctz(x),
                Un::Popcnt => ins.popcnt(x),
                Un::Bswap if w == Width::B => x,
                Un::Bswap => ins.bswap(x),
            },
            w,
        )
    }

    pub(super) fn rel(&mut self, op: Rel, w: Width, a: Val, b: Val) -> Lv {
        if let (Lv::Const(x), Lv::Const(y)) = (self.val(a), self.val(b)) {
            return Lv::Const(op.eval(w, x, y).into());
        }
        let cc = match op {
            Rel::Eq => IntCC::Equal,
            Rel::Ne => IntCC::NotEqual,
            Rel::Ult => IntCC::UnsignedLessThan,
            Rel::Ule => IntCC::UnsignedLessThanOrEqual,
            Rel::Slt => IntCC::SignedLessThan,
            Rel::Sle => IntCC::SignedLessThanOrEqual,
        };
        let (x, y) = (self.int(a, w), self.int(b, w));
        Lv::Int(self.b.ins().icmp(cc, x, y), Width::B)
    }

    pub(super) fn sext(&mut self, from: Width, to: Width, a: Val) -> Lv {
        if let Lv::Const(c) = self.val(a) {
            return Lv::Const(from.sext(c) & to.mask());
        }
        let x = self.int(a, from);
        if to <= from {
            return Lv::Int(self.resize(x, from, to), to);
        }
        Lv::Int(self.b.ins().sextend(ty(to), x), to)
    }

    pub(super) fn trunc(&mut self, w: Width, a: Val) -> Lv {
        match self.val(a) {
            Lv::Const(c) => Lv::Const(c & w.mask()),
            Lv::Int(v, from) if from <= w => Lv::Int(v, from),
            other => Lv::Int(self.typed(other, w), w),
        }
    }

    /// The quotient; the remainder is kept for [`egret_isa::ir::Op::Remainder`]. #DE is the interpreter's.
    pub(super) fn divide(&mut self, w: Width, signed: bool, operands: [Val; 3]) -> Lv {
        if w == Width::Q {
            return self.divide_q(signed, operands);
        }
        // The double-width dividend fits into 64 bits.
        let [hi, lo, d] = operands.map(|v| self.int(v, w));
        let (hi, lo) = (self.b.ins().uextend(I64, hi), self.b.ins().uextend(I64, lo));
        let high = self.b.ins().ishl_imm_u(hi, i64::from(w.bits()));
        let n = self.b.ins().bor(high, lo);
        let (q, r) = if signed { self.divide_signed(w, n, d) } else { self.divide_unsigned(w, n, d) };
        self.remainder = Some(Lv::Int(self.b.ins().ireduce(ty(w), r), w));
        Lv::Int(self.b.ins().ireduce(ty(w), q), w)
    }

    fn divide_unsigned(&mut self, w: Width, n: Value, d: Value) -> (Value, Value) {
        let d = self.b.ins().uextend(I64, d);
        let hi = self.b.ins().ushr_imm_u(n, i64::from(w.bits()));
        // Also when the divisor is zero.
        self.leave_if_cmp(IntCC::UnsignedGreaterThanOrEqual, hi, d);
        let q = self.b.ins().udiv(n, d);
        let back = self.b.ins().imul(q, d);
        (q, self.b.ins().isub(n, back))
    }

    fn divide_signed(&mut self, w: Width, n: Value, d: Value) -> (Value, Value) {
        let unused = 64 - 2 * i64::from(w.bits());
        let n = if unused == 0 {
            n
        } else {
            let up = self.b.ins().ishl_imm_u(n, unused);
            self.b.ins().sshr_imm_u(up, unused)
        };
        let d = self.b.ins().sextend(I64, d);
        let zero = self.b.ins().icmp_imm_s(IntCC::Equal, d, 0);
        self.leave_if(zero);
        let least = self.b.ins().icmp_imm_s(IntCC::Equal, n, i64::MIN);
        self.leave_if(least);
        let q = self.b.ins().sdiv(n, d);
        let cut = self.b.ins().ireduce(ty(w), q);
        let back = self.b.ins().sextend(I64, cut);
        self.leave_if_cmp(IntCC::NotEqual, back, q);
        let back = self.b.ins().imul(q, d);
        (q, self.b.ins().isub(n, back))
    }

    /// 128 by 64 bits: inline when the high half only extends the low one, else by a helper.
    fn divide_q(&mut self, signed: bool, operands: [Val; 3]) -> Lv {
        let [hi, lo, d] = operands.map(|v| self.int(v, Width::Q));
        let (fast, slow, done) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let (q, r) = (self.b.append_block_param(done, I64), self.b.append_block_param(done, I64));
        self.b.set_cold_block(slow);
        let plain = if signed {
            let sign = self.b.ins().sshr_imm_u(lo, 63);
            let extends = self.b.ins().icmp(IntCC::Equal, hi, sign);
            // -1 overflows with the least dividend, 0 always.
            let next = self.b.ins().iadd_imm_s(d, 1);
            let usual = self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, next, 1);
            self.b.ins().band(extends, usual)
        } else {
            let extends = self.b.ins().icmp_imm_s(IntCC::Equal, hi, 0);
            let usual = self.b.ins().icmp_imm_s(IntCC::NotEqual, d, 0);
            self.b.ins().band(extends, usual)
        };
        self.b.ins().brif(plain, fast, &[], slow, &[]);
        self.b.seal_block(fast);
        self.b.seal_block(slow);
        self.b.switch_to_block(fast);
        let fast_q = if signed { self.b.ins().sdiv(lo, d) } else { self.b.ins().udiv(lo, d) };
        let back = self.b.ins().imul(fast_q, d);
        let fast_r = self.b.ins().isub(lo, back);
        self.jump(done, &[fast_q, fast_r]);
        self.b.switch_to_block(slow);
        let vm = self.load_state(I64, offset_of!(State, engine));
        for (n, v) in [hi, lo, d].into_iter().enumerate() {
            self.b.ins().store(self.places.vm, v, vm, (offset_of!(Vm, divide) + 8 * n) as i32);
        }
        let kind = self.iconst(signed.into());
        self.call_stub(offset_of!(Stubs, divide), [kind, kind, kind]);
        let slow_q = self.load_state(I64, offset_of!(State, result));
        let slow_r = self.load_state(I64, offset_of!(State, result) + 8);
        let status = self.load_state(I32, offset_of!(State, status));
        let leave = self.leave_block();
        let code = self.b.ins().uextend(I64, status);
        self.b.ins().brif(status, leave, &[code.into()], done, &[slow_q.into(), slow_r.into()]);
        self.fill_leave();
        self.b.seal_block(done);
        self.b.switch_to_block(done);
        self.remainder = Some(Lv::Int(r, Width::Q));
        Lv::Int(q, Width::Q)
    }
}
