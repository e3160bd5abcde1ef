//! Guest memory: the TLB's fast path inline, everything else through a helper that gives the host address.

use super::nearby::Checked;
use super::paged::Slot;
use super::{Lower, Lv, from_state, ty, vec};
use crate::helpers::describe;
use crate::vm::{Stubs, exit};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F64, I32, I64};
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, MemFlagsData, Value};
use egret_cpu::tlb::{ENTRIES, Entry, StackPage, Tlb};
use egret_cpu::{SegReg, State};
use egret_isa::insn::{Ctx, Seg};
use egret_isa::ir::{Op, Val};
use egret_isa::ops::Width;
use std::mem::offset_of;

/// A read-modify-write under way.
pub(super) struct Locked {
    host: Value,
    w: Width,
    /// Atomic: effects of the ops between load and store wait in `waiting` until the exchange has succeeded.
    lock: Option<Value>,
    /// Numbers of ops, as ranges.
    waiting: Vec<(usize, usize)>,
}

/// What an access is for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Access {
    Read,
    /// Writes; the value, if it fits into a word.
    Write(Option<Value>),
    Modify,
}

impl Lower<'_, '_> {
    pub(super) fn memory_op(&mut self, ops: &[Op], at: usize) -> Lv {
        match ops[at] {
            Op::Load { seg, offset, w } => {
                let host = self.host(seg, offset, w.bytes(), Access::Read, false);
                Lv::Int(self.b.ins().load(ty(w), self.places.ram, host, 0), w)
            }
            Op::Store { seg, offset, w, v } => {
                let v = self.int(v, w);
                let wide = self.resize(v, w, Width::Q);
                let host = self.host(seg, offset, w.bytes(), Access::Write(Some(wide)), false);
                self.b.ins().store(self.places.ram, v, host, 0);
                Lv::None
            }
            Op::RmwLoad { seg, offset, w, lock } => self.rmw_load(seg, offset, w, lock),
            Op::RmwStore { v, .. } => {
                self.rmw_store(ops, v);
                Lv::None
            }
            Op::LoadX { seg, offset, bytes, aligned } => {
                let host = self.host(seg, offset, bytes, Access::Read, aligned);
                let flags = self.places.ram;
                Lv::Vec(match bytes {
                    4 => self.load_low(F32, host),
                    8 => self.load_low(F64, host),
                    _ => self.b.ins().load(vec::X, flags, host, 0),
                })
            }
            Op::LoadY { seg, offset, aligned } => {
                let host = self.host(seg, offset, 32, Access::Read, aligned);
                let high = self.b.ins().load(vec::X, self.places.ram, host, 16);
                self.upper = Some(Lv::Vec(high));
                Lv::Vec(self.b.ins().load(vec::X, self.places.ram, host, 0))
            }
            Op::StoreY { seg, offset, aligned, low, high } => {
                let (low, high) = (self.vec(low), self.vec(high));
                let host = self.host(seg, offset, 32, Access::Write(None), aligned);
                self.b.ins().store(self.places.ram, low, host, 0);
                self.b.ins().store(self.places.ram, high, host, 16);
                Lv::None
            }
            Op::StoreX { seg, offset, bytes, aligned, v } => {
                self.store_x(seg, offset, bytes, aligned, v);
                Lv::None
            }
            _ => Lv::None,
        }
    }

    /// A scalar in the low lane, zeros above.
    fn load_low(&mut self, t: cranelift_codegen::ir::Type, host: Value) -> Value {
        let v = self.b.ins().load(t, self.places.ram, host, 0);
        let lanes = t.by(128 / t.bits()).unwrap_or(vec::X);
        let v = self.b.ins().scalar_to_vector(lanes, v);
        let x = self.bitcast(vec::X, v);
        self.scalars.insert(x, t.bytes() as u8);
        x
    }

    pub(super) fn bitcast(&mut self, to: cranelift_codegen::ir::Type, v: Value) -> Value {
        let flags = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
        self.b.ins().bitcast(to, flags, v)
    }

    fn store_x(&mut self, seg: Seg, offset: Val, bytes: u8, aligned: bool, v: Val) {
        let v = self.vec(v);
        let (v, word) = match bytes {
            4 | 8 => {
                let t = if bytes == 4 { cranelift_codegen::ir::types::I32X4 } else { cranelift_codegen::ir::types::I64X2 };
                let lanes = self.bitcast(t, v);
                let low = self.b.ins().extractlane(lanes, 0);
                let wide = self.resize(low, if bytes == 4 { Width::D } else { Width::Q }, Width::Q);
                (low, Some(wide))
            }
            _ => (v, None),
        };
        let host = self.host(seg, offset, bytes, Access::Write(word), aligned);
        self.b.ins().store(self.places.ram, v, host, 0);
    }

    fn rmw_load(&mut self, seg: Seg, offset: Val, w: Width, lock: bool) -> Lv {
        let host = self.host(seg, offset, w.bytes(), Access::Modify, false);
        if lock && w != Width::B {
            // Not atomic across cache lines, and a fault on some hosts: the interpreter's.
            let low = self.b.ins().band_imm_u(host, i64::from(w.bytes()) - 1);
            self.leave_if(low);
        }
        let old = self.b.ins().load(ty(w), self.places.ram, host, 0);
        self.locked = Some(Locked { host, w, lock: lock.then_some(old), waiting: Vec::new() });
        Lv::Int(old, w)
    }

    fn rmw_store(&mut self, ops: &[Op], v: Val) {
        let Some(rmw) = self.locked.take() else { return };
        let v = self.int(v, rmw.w);
        match rmw.lock {
            None => {
                self.b.ins().store(self.places.ram, v, rmw.host, 0);
            }
            Some(old) => {
                let found = self.b.ins().atomic_cas(self.places.ram, rmw.host, old, v);
                // Somebody else was faster: the interpreter does it again.
                self.leave_if_cmp(IntCC::NotEqual, found, old);
                for (from, to) in rmw.waiting {
                    let (vals, limits) = (self.vals.clone(), self.limits.clone());
                    self.vals.truncate(from);
                    self.limits.truncate(from);
                    let mut n = from;
                    while n < to {
                        n = self.op(ops, n);
                    }
                    (self.vals, self.limits) = (vals, limits);
                }
            }
        }
    }

    /// In an atomic read-modify-write, puts off ops with effects until the exchange is done: the number of the next op.
    pub(super) fn defer(&mut self, ops: &[Op], at: usize) -> Option<usize> {
        let rmw = self.locked.as_mut().filter(|l| l.lock.is_some())?;
        let end = match ops[at] {
            Op::SetGpr(..) | Op::Flags { .. } | Op::SetFlagsWord(..) => at + 1,
            Op::When(_) => ops[at..].iter().position(|o| *o == Op::EndWhen).map_or(ops.len(), |n| at + n + 1),
            _ => return None,
        };
        rmw.waiting.push((at, end));
        for _ in at..end {
            self.push(Lv::None);
        }
        Some(end)
    }

    /// The linear address, and the condition under which the segment needs the full check.
    fn linear(&mut self, seg: Seg, offset: Value, size: u8, write: bool) -> (Value, Option<Value>) {
        let field = |at: usize| offset_of!(State, seg) + seg as usize * size_of::<SegReg>() + at;
        if self.code64() {
            if seg as u8 >= Seg::Fs as u8 {
                let base = self.load_state(I64, field(offset_of!(SegReg, base)));
                return (self.b.ins().iadd(base, offset), None);
            }
            return (offset, None);
        }
        if self.ctx().has(Ctx::FLAT) && (seg as u8) < Seg::Fs as u8 && !(write && seg == Seg::Cs) {
            return (offset, None);
        }
        let base = self.load_state(I64, field(offset_of!(SegReg, base)));
        let end = self.load_state(I64, field(if write { offset_of!(SegReg, write_end) } else { offset_of!(SegReg, read_end) }));
        let last = self.b.ins().iadd_imm_s(offset, i64::from(size));
        let beyond = self.b.ins().icmp(IntCC::UnsignedGreaterThan, last, end);
        let linear = self.b.ins().iadd(base, offset);
        (self.b.ins().band_imm_u(linear, 0xffff_ffff), Some(beyond))
    }

    /// The host address of an access. Leaves the block that is current when the access has to be interpreted or faults.
    ///
    /// The cold call on one of the ways here keeps Cranelift from taking an earlier load for this one, which x86's order of loads
    /// forbids when there are other CPUs. An access without it needs a `sequence_point`.
    pub(super) fn host(&mut self, seg: Seg, offset: Val, size: u8, access: Access, aligned: bool) -> Value {
        let place = self.place(seg, offset);
        let offset = self.int(offset, Width::Q);
        let write = access != Access::Read;
        let (linear, beyond) = self.linear(seg, offset, size, write);
        let aligned = aligned && size > 1;
        let near = place.filter(|_| beyond.is_none()).and_then(|p| self.near(p, size, write, aligned));
        if aligned && near.is_none() {
            let low = self.b.ins().band_imm_u(linear, i64::from(size) - 1);
            self.leave_if(low);
        }
        let stack = near.is_none() && beyond.is_none() && self.in_stack(seg, size);
        let slot = self.slot().filter(|_| near.is_none() && beyond.is_none() && !stack);
        let (cold, ok) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        let param = slot.is_none().then(|| self.b.append_block_param(ok, I64));
        // What is aligned does not cross.
        let whole = if aligned { 1 } else { size };
        match (near, slot) {
            (Some((beyond, addend)), _) => {
                self.b.ins().brif(beyond, cold, &[], ok, &[addend.into()]);
            }
            (None, Some(slot)) => self.look_in(slot, linear, whole, write, cold, ok),
            (None, None) if stack => self.look_in_stack(linear, whole, write, cold, ok),
            (None, None) => {
                if let Some(beyond) = beyond {
                    let inside = self.b.create_block();
                    self.b.ins().brif(beyond, cold, &[], inside, &[]);
                    self.b.seal_block(inside);
                    self.b.switch_to_block(inside);
                }
                self.look_up(linear, whole, write, cold, ok);
            }
        }
        self.b.seal_block(cold);
        self.b.switch_to_block(cold);
        self.slow_host(seg, offset, linear, size, access, (ok, slot));
        self.b.seal_block(ok);
        self.b.switch_to_block(ok);
        let addend = match (param, slot) {
            (Some(param), _) => param,
            (None, Some(slot)) => self.slot_addend(slot),
            (None, None) => self.iconst(0),
        };
        if let (Some(place), None, None) = (place, near, beyond) {
            self.note_checked(Checked { place, size, write, aligned, linear, addend, in_page: None });
        }
        self.b.ins().iadd(linear, addend)
    }

    /// The state's address, moved by the offset of a linear address's entry in an array of the TLB.
    pub(super) fn tlb_entry(&mut self, linear: Value) -> Value {
        let (shift, scale) = (12, size_of::<Entry>().trailing_zeros());
        let index = self.b.ins().ushr_imm_u(linear, i64::from(shift - scale));
        let index = self.b.ins().band_imm_u(index, ((ENTRIES - 1) << scale) as i64);
        self.b.ins().iadd(self.state, index)
    }

    /// Goes to `ok` with the addend of a linear address if the TLB has it and `size` bytes do not cross into the next page, else
    /// to `cold`.
    pub(super) fn look_up(&mut self, linear: Value, size: u8, write: bool, cold: Block, ok: Block) {
        let array = offset_of!(State, tlb) + if write { offset_of!(Tlb, write) } else { offset_of!(Tlb, read) };
        let entry = self.tlb_entry(linear);
        let addend = self.b.ins().load(I64, self.places.tlb, entry, from_state(array + offset_of!(Entry, addend)));
        let tag = self.b.ins().load(I64, self.places.tlb, entry, from_state(array + offset_of!(Entry, tag)));
        // The last load, to be an operand of what follows.
        let key = self.load_state(I64, offset_of!(State, tlb_key));
        let last = if size > 1 { self.plus(linear, i64::from(size) - 1) } else { linear };
        let page = self.b.ins().band_imm_s(last, !0xfff);
        let wanted = self.b.ins().bor(page, key);
        let hit = self.b.ins().icmp(IntCC::Equal, wanted, tag);
        self.b.ins().brif(hit, ok, &[addend.into()], cold, &[]);
    }

    /// Whether an access of the instruction being lowered is likely to the stack: not one by way of RBP, which may point anywhere.
    fn in_stack(&self, seg: Seg, size: u8) -> bool {
        const RBP: u8 = 5;
        seg == Seg::Ss && size <= StackPage::LARGEST && self.insn.is_none_or(|(_, i)| !i.has_mem() || i.mem.base != RBP)
    }

    /// The same as [`Self::look_up`] for an access that is likely in [`State::stack`]; a write makes that its page.
    fn look_in_stack(&mut self, linear: Value, size: u8, write: bool, cold: Block, ok: Block) {
        let field = |at: usize| offset_of!(State, stack) + at;
        let page = self.load_state(I64, field(offset_of!(StackPage, page)));
        let at = self.b.ins().bxor(linear, page);
        let limit = self.load_state(I64, field(offset_of!(StackPage, limit)));
        let addend = self.load_state(I64, field(offset_of!(StackPage, addend)));
        let near = self.b.ins().icmp(IntCC::UnsignedLessThan, at, limit);
        let probe = self.b.create_block();
        self.b.set_cold_block(probe);
        self.b.ins().brif(near, ok, &[addend.into()], probe, &[]);
        self.b.seal_block(probe);
        self.b.switch_to_block(probe);
        if !write {
            return self.look_up(linear, size, write, cold, ok);
        }
        let found = self.b.create_block();
        self.b.set_cold_block(found);
        let addend = self.b.append_block_param(found, I64);
        self.look_up(linear, size, write, cold, found);
        self.b.seal_block(found);
        self.b.switch_to_block(found);
        let page = self.b.ins().band_imm_s(linear, !0xfff);
        self.store_state(page, field(offset_of!(StackPage, page)));
        self.store_state(addend, field(offset_of!(StackPage, addend)));
        let limit = self.iconst(StackPage::REACH);
        self.store_state(limit, field(offset_of!(StackPage, limit)));
        self.b.ins().jump(ok, &[addend.into()]);
    }

    /// Asks a helper for the host address and goes on at `ok` with what leads there from the linear one.
    fn slow_host(&mut self, seg: Seg, offset: Value, linear: Value, size: u8, access: Access, (ok, slot): (Block, Option<Slot>)) {
        let what = self.iconst(describe(seg, size));
        let (stub, value) = match access {
            Access::Read => (offset_of!(Stubs, read), what),
            Access::Write(Some(v)) => (offset_of!(Stubs, write), v),
            Access::Write(None) => (offset_of!(Stubs, write), what),
            Access::Modify => (offset_of!(Stubs, modify), what),
        };
        let ready = self.prepare_to_leave();
        self.call_stub(stub, [what, offset, value]);
        let status = self.load_state(I32, offset_of!(State, status));
        let host = self.load_state(I64, offset_of!(State, result));
        let code = self.b.ins().uextend(I64, status);
        debug_assert_eq!(exit::INTERPRET as u32 as u64, exit::INTERPRET);
        let addend = self.b.ins().isub(host, linear);
        if let Some(slot) = slot {
            self.use_once(slot, addend);
        }
        let on: &[BlockArg] = if slot.is_some() { &[] } else { &[addend.into()] };
        // A way of its own: what has to be moved on it is moved out here.
        let back = self.b.create_block();
        self.b.set_cold_block(back);
        if let Some([at, budget]) = ready {
            self.b.ins().brif(status, self.leave_to, &[code.into(), at.into(), budget.into()], back, &[]);
        } else {
            let leave = self.leave_block();
            self.b.ins().brif(status, leave, &[code.into()], back, &[]);
            self.fill_leave();
        }
        self.b.seal_block(back);
        self.b.switch_to_block(back);
        self.b.ins().jump(ok, on);
    }
}
