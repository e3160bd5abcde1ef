//! The ops one by one.

use super::live::Reg;
use super::{Lower, Lv, fp, live, ty};
use crate::region::jumps_by_table;
use crate::vm::exit;
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I16, I64};
use egret_cpu::{SegReg, State};
use egret_isa::emit::Unit;
use egret_isa::insn::Ctx;
use egret_isa::ir::{Op, Val};
use egret_isa::ops::Width;
use iced_x86::Mnemonic;
use std::mem::offset_of;

/// Whether there is a lowering for an op; an instruction with another one is left to the CPU's function.
pub(crate) fn lowerable(op: &Op, ctx: Ctx) -> bool {
    use Op::*;
    match *op {
        Fp { .. } => return fp::has_fp(ctx),
        Fma { .. } => return fp::has_fma(ctx),
        FpCompare { .. } => return fp::has_compare(ctx),
        _ => {}
    }
    matches!(
        op,
        Insn(_)
            | Imm(_)
            | Gpr(..)
            | SetGpr(..)
            | Selector(_)
            | Bin(..)
            | Un(..)
            | Rel(..)
            | Sext(..)
            | Trunc(..)
            | Select(..)
            | When(_)
            | EndWhen
            | RaiseIf(..)
            | Div { .. }
            | Remainder(_)
            | Load { .. }
            | Store { .. }
            | RmwLoad { .. }
            | RmwStore { .. }
            | LoadX { .. }
            | StoreX { .. }
            | LoadY { .. }
            | Upper(_)
            | StoreY { .. }
            | Flags { .. }
            | FlagsWord
            | SetFlagsWord(..)
            | Cond(_)
            | NextIp(_)
            | CheckIp(_)
            | Jump(_)
            | Branch { .. }
            | Xmm(_)
            | SetXmm(..)
            | YmmHi(_)
            | SetYmmHi(..)
            | Vec { .. }
            | Vec3 { .. }
            | XOf(_)
            | VOf(..)
            | Require(_)
            | Call(_)
    )
}

/// Ops that neither leave nor touch memory: under a condition they can be computed in any case, and take effect by selection.
pub(super) fn pure(op: &Op) -> bool {
    use Op::*;
    matches!(
        op,
        Imm(_)
            | Gpr(..)
            | SetGpr(..)
            | Selector(_)
            | Bin(..)
            | Un(..)
            | Rel(..)
            | Sext(..)
            | Trunc(..)
            | Select(..)
            | Flags { .. }
            | NextIp(_)
    )
}

impl Lower<'_, '_> {
    /// Lowers op number `at`: the number of the next one.
    pub(super) fn op(&mut self, ops: &[Op], at: usize) -> usize {
        let op = ops[at];
        self.op_at = at;
        if let Some(next) = self.defer(ops, at) {
            return next;
        }
        match op {
            Op::When(c) => return self.when(ops, at, c),
            Op::Load { .. }
            | Op::Store { .. }
            | Op::RmwLoad { .. }
            | Op::RmwStore { .. }
            | Op::LoadX { .. }
            | Op::StoreX { .. }
            | Op::LoadY { .. }
            | Op::StoreY { .. } => {
                let v = self.memory_op(ops, at);
                self.push(v);
            }
            Op::Insn(_) | Op::CheckIp(_) | Op::Jump(_) | Op::Branch { .. } | Op::Require(_) | Op::Call(_) | Op::RaiseIf(..) => {
                self.control_op(ops, at);
                self.push(Lv::None);
            }
            Op::Flags { .. } | Op::FlagsWord | Op::SetFlagsWord(..) | Op::Cond(_) => {
                let v = self.flags_op(op);
                self.push(v);
            }
            Op::Div { w, signed, hi, lo, d } => {
                let v = self.divide(w, signed, [hi, lo, d]);
                self.push(v);
            }
            Op::Vec { op, a, b, imm } => {
                let v = self.vec_op(ops, op, a, b, imm);
                self.push(v);
            }
            Op::SetYmmHi(r, v) => {
                self.set_ymm_hi(ops, r, v);
                self.push(Lv::None);
            }
            Op::Upper(_) => {
                let v = self.upper.take().unwrap_or(Lv::None);
                self.push(v);
            }
            Op::Remainder(_) => {
                let v = self.remainder.take().unwrap_or(Lv::None);
                self.push(v);
            }
            _ => self.value_op(op),
        }
        at + 1
    }

    fn value_op(&mut self, op: Op) {
        let v = match op {
            Op::Imm(v) => Lv::Const(v),
            Op::Gpr(r, w) => self.gpr(r, w),
            Op::SetGpr(r, w, v) => {
                self.set_gpr(r, w, v);
                Lv::None
            }
            Op::Selector(seg) => {
                let at = offset_of!(State, seg) + seg as usize * size_of::<SegReg>() + offset_of!(SegReg, selector);
                Lv::Int(self.load_state(I16, at), Width::W)
            }
            Op::Bin(op, w, a, b) => return self.bin(op, w, a, b),
            Op::Un(op, w, a) => self.un(op, w, a),
            Op::Rel(op, w, a, b) => self.rel(op, w, a, b),
            Op::Sext(from, to, a) => self.sext(from, to, a),
            Op::Trunc(w, a) => self.trunc(w, a),
            Op::Select(c, a, b) => self.select(c, a, b),
            Op::NextIp(_) => Lv::Rip(self.next_offset()),
            Op::Xmm(r) => Lv::Vec(self.xmm_value(usize::from(r & 15))),
            Op::SetXmm(r, v) => {
                self.set_xmm(r, v);
                Lv::None
            }
            Op::YmmHi(r) => Lv::Vec(self.ymm_value(usize::from(r & 15))),
            Op::Vec3 { op, a, b, c } => self.vec3_op(op, a, b, c),
            Op::Fma { op, a, b, c } => self.fma_op(op, a, b, c),
            Op::XOf(v) => self.x_of(v),
            Op::VOf(w, x) => self.v_of(w, x),
            Op::Fp { op, a, b, imm } => self.fp_op(op, a, b, imm),
            Op::FpCompare { fmt, signaling, a, b } => self.fp_compare(fmt, signaling, a, b),
            _ => Lv::None,
        };
        self.push(v);
    }

    fn control_op(&mut self, ops: &[Op], at: usize) {
        match ops[at] {
            Op::Insn(n) => {
                let mut own = ops[at + 1..].iter().take_while(|op| !matches!(op, Op::Insn(_)));
                self.floats = own.any(super::plan::floats);
                self.begin_insn(n);
            }
            Op::CheckIp(target) => self.check_ip(target),
            Op::Jump(target) => {
                let target = self.int(target, Width::Q);
                let inside = self.insn.is_some_and(|(_, i)| i.mnemonic == Mnemonic::Ret || jumps_by_table(&i));
                if inside { self.leave_dynamic(target) } else { self.leave_block_to(target) }
            }
            Op::Branch { c, .. } => self.branch(c),
            Op::Require(unit) => self.require(unit),
            Op::Call(n) if super::x87::quick(&self.region.blocks[self.block], n) => self.x87(n, &ops[at..]),
            Op::Call(_) => self.call(),
            Op::RaiseIf(c, _) => {
                let c = self.truth(c);
                self.leave_if(c);
            }
            _ => {}
        }
    }

    /// Units are on or off by context: an instruction of one that is off is left to the interpreter.
    fn require(&mut self, unit: Unit) {
        let bit = match unit {
            Unit::X87 => Ctx::X87,
            Unit::Mmx => Ctx::MMX,
            Unit::Sse => Ctx::SSE,
            Unit::Avx => Ctx::AVX,
        };
        if !self.ctx().has(bit) {
            self.interpret();
        }
    }

    /// Leaves before this instruction, to the interpreter. Nothing comes after it.
    pub(super) fn interpret(&mut self) {
        let leave = self.leave_block();
        let code = self.iconst(exit::INTERPRET);
        self.jump(leave, &[code]);
        self.fill_leave();
        self.ended = true;
    }

    /// A condition's body. One without memory accesses is computed in any case and its effects selected; else it is a branch.
    fn when(&mut self, ops: &[Op], at: usize, c: Val) -> usize {
        let end = ops[at..].iter().position(|o| *o == Op::EndWhen).map_or(ops.len(), |n| at + n);
        self.push(Lv::None);
        let c = self.truth(c);
        if ops[at + 1..end].iter().all(pure) && self.predicate.is_none() {
            self.predicate = Some(c);
            self.body(ops, at + 1, end);
            self.predicate = None;
        } else {
            self.settle_flags();
            // What leaves inside may not share its code with what leaves outside: values differ.
            self.end_insn();
            let calls = ops[at..end].iter().any(|op| matches!(op, Op::Call(_)));
            if calls {
                self.store_dirty();
                self.store_budget();
            }
            // The body may not run: what it sets must have a value before.
            self.load(live::set(&ops[at..end]));
            let (body, after) = (self.b.create_block(), self.b.create_block());
            self.b.ins().brif(c, body, &[], after, &[]);
            self.b.seal_block(body);
            self.b.switch_to_block(body);
            self.low = [None; 16];
            self.end_run();
            let (dirty, have, clear_hi, mut checked) = (self.dirty, self.have, self.clear_hi, self.checked.clone());
            self.body(ops, at + 1, end);
            self.end_insn();
            self.settle_flags();
            if calls {
                self.store_dirty();
                self.forget_registers();
                checked.clear();
            } else {
                (self.dirty, self.have) = (self.dirty.or(dirty), have);
            }
            self.checked = checked;
            self.clear_hi &= clear_hi;
            self.end_run();
            if !self.ended {
                self.b.ins().jump(after, &[]);
            }
            self.ended = false;
            self.b.seal_block(after);
            self.b.switch_to_block(after);
            self.flags = super::Fl::Memory(None);
            self.low = [None; 16];
        }
        self.push(Lv::None);
        end + 1
    }

    fn body(&mut self, ops: &[Op], from: usize, to: usize) {
        let mut n = from;
        while n < to && !self.ended {
            n = self.op(ops, n);
        }
        while self.vals.len() < to {
            self.push(Lv::None);
        }
    }

    /// Whether a value is not zero, as something to branch on.
    pub(super) fn truth(&mut self, v: Val) -> cranelift_codegen::ir::Value {
        match self.val(v) {
            Lv::Int(v, _) => v,
            Lv::Const(c) => self.typed(Lv::Const(u64::from(c != 0)), Width::B),
            other => self.typed(other, Width::Q),
        }
    }

    fn select(&mut self, c: Val, a: Val, b: Val) -> Lv {
        if let Lv::Const(c) = self.val(c) {
            return self.val(if c != 0 { a } else { b });
        }
        if let (Lv::Vec(x), Lv::Vec(y)) = (self.val(a), self.val(b)) {
            let c = self.truth(c);
            return Lv::Vec(self.b.ins().select(c, x, y));
        }
        let w = self.width_of(a).max(self.width_of(b));
        let (x, y, c) = (self.int(a, w), self.int(b, w), self.truth(c));
        Lv::Int(self.b.ins().select(c, x, y), w)
    }

    /// The narrowest width that holds a value.
    pub(super) fn width_of(&self, v: Val) -> Width {
        match self.val(v) {
            Lv::Int(_, w) => w,
            Lv::Const(c) => [Width::B, Width::W, Width::D].into_iter().find(|w| c <= w.mask()).unwrap_or(Width::Q),
            _ => Width::Q,
        }
    }

    /// A general register's low part.
    fn gpr(&mut self, r: u8, w: Width) -> Lv {
        let r = usize::from(r & 15);
        if w <= Width::D
            && let Some(low) = self.low[r]
        {
            let v = if w == Width::D { low } else { self.b.ins().ireduce(ty(w), low) };
            return Lv::Int(v, w);
        }
        let v = self.gpr_value(r);
        if w == Width::Q {
            return Lv::Int(v, w);
        }
        let v = self.b.ins().ireduce(ty(w), v);
        if w == Width::D {
            self.low[r] = Some(v);
        }
        Lv::Int(v, w)
    }

    fn set_gpr(&mut self, r: u8, w: Width, v: Val) {
        let n = usize::from(r & 15);
        let mut low = None;
        let full = match w {
            Width::Q => self.int(v, w),
            Width::D => {
                let v = self.int(v, w);
                low = Some(v);
                self.b.ins().uextend(I64, v)
            }
            _ => {
                let v = self.int(v, w);
                let v = self.b.ins().uextend(I64, v);
                let old = self.gpr_value(n);
                let keep = self.b.ins().band_imm_s(old, !w.mask() as i64);
                self.b.ins().bor(keep, v)
            }
        };
        let full = match self.predicate {
            Some(c) => {
                low = None;
                let old = self.gpr_value(n);
                self.b.ins().select(c, full, old)
            }
            None => full,
        };
        self.note_old(Reg::Gpr(n));
        self.low[n] = low;
        self.dirty.add(Reg::Gpr(n));
        self.set_gpr_value(n, full);
    }

    /// Leaves before this instruction, to the interpreter, when `c` is not zero.
    pub(super) fn leave_if(&mut self, c: cranelift_codegen::ir::Value) {
        let leave = self.leave_block();
        let go_on = self.b.create_block();
        let code = self.iconst(exit::INTERPRET);
        self.b.ins().brif(c, leave, &[code.into()], go_on, &[]);
        self.b.seal_block(go_on);
        self.fill_leave();
        self.b.switch_to_block(go_on);
    }

    /// As [`Self::leave_if`], when a relation holds.
    pub(super) fn leave_if_cmp(&mut self, cc: IntCC, a: cranelift_codegen::ir::Value, b: cranelift_codegen::ir::Value) {
        let c = self.b.ins().icmp(cc, a, b);
        self.leave_if(c);
    }
}
