//! x87 instructions. Everyday ones are done here, in [`super::x87_fast`], as long as all exceptions are masked and no stack fault
//! can come, which is looked at once for a run of them; the others, and those in any other state, by the CPU's function.
//!
//! A run is the x87 instructions of a block up to the next that is a call. TOP at its beginning is a value; from there on the stack's
//! movements are known.

use super::x87_fast::{Fast, fast};
use super::{Fl, Lower, Lv};
use crate::leaf::Fpu;
use crate::region::{Block, End, Region};
use crate::vm::{CallSite, STATE_BIAS, Vm};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::{FunctionBuilder, Variable};
use egret_cpu::State;
use egret_isa::emit::Emit;
use egret_isa::insn::{Ctx, Insn};
use egret_isa::ir::{Op, Recorder};
use egret_isa::x87::{self, Memory, X87, X87Op};
use std::mem::offset_of;

/// Whether an instruction of a block is done this way.
pub(super) fn quick(block: &Block, n: u32) -> bool {
    let Some((_, i)) = block.insns.get(n as usize) else { return false };
    let last = block.insns.len() == n as usize + 1;
    i.ctx.has(Ctx::X87) && !(last && block.end == End::Dynamic) && x87::decode(i.code).is_some_and(simple)
}

/// It touches no general register but AX, and nothing that decoding depends on.
fn simple(p: x87::X87Insn) -> bool {
    p.op != X87Op::Wait && !matches!(p.memory, Memory::Env | Memory::State)
}

/// The general registers that instruction number `n` of a block needs: those of its address, and RAX if it writes AX.
pub(super) fn registers(block: &Block, n: u32) -> u16 {
    let Some((_, i)) = block.insns.get(n as usize) else { return 0 };
    let ax = x87::decode(i.code).is_some_and(|p| p.memory == Memory::Ax);
    let address = [i.mem.base, i.mem.index].into_iter().filter(|r| i.has_mem() && *r < 16);
    address.fold(u16::from(ax), |all, r| all | 1 << r)
}

fn writes_flags(i: &Insn) -> bool {
    x87::decode(i.code).is_none_or(|p| matches!(p.op, X87Op::CompareFlags { .. }))
}

/// The values that compiled code keeps of the FPU.
pub(super) struct Kept {
    /// Address of the [`X87`].
    pub(super) at: Variable,
    /// Whether the run's conditions still hold.
    pub(super) ok: Variable,
    /// The status word.
    pub(super) sw: Variable,
    /// The tags, turned so that bit 0 is ST(0)'s at the run's beginning.
    tags: Variable,
    run: Option<Run>,
}

impl Kept {
    pub(super) fn new(b: &mut FunctionBuilder<'_>) -> Kept {
        Kept { at: b.declare_var(I64), ok: b.declare_var(I8), sw: b.declare_var(I32), tags: b.declare_var(I8), run: None }
    }
}

/// A run under way.
#[derive(Clone, Copy)]
struct Run {
    /// Its last instruction's number in the block.
    last: u32,
    /// TOP at its beginning, in the status word's place.
    top: Value,
    stack: Stack,
}

/// What is known about the stack, as bits: number n is ST(n) at the beginning of the run.
#[derive(Clone, Copy, Default)]
pub(super) struct Stack {
    /// What must have been valid, and what empty, at the beginning.
    needs_valid: u8,
    needs_empty: u8,
    /// What is so now.
    valid: u8,
    empty: u8,
    /// How far TOP has moved, modulo 8.
    pub(super) moved: u8,
    /// Tags that the last instruction changed.
    set: u8,
    cleared: u8,
}

impl Stack {
    fn bit(&self, i: u8) -> u8 {
        1 << (self.moved.wrapping_add(i) & 7)
    }

    /// ST(i) must be valid; false if it cannot be.
    pub(super) fn want(&mut self, i: u8) -> bool {
        let bit = self.bit(i);
        if (self.valid | self.empty) & bit == 0 {
            self.needs_valid |= bit;
            self.valid |= bit;
        }
        self.valid & bit != 0
    }

    /// ST(i) is written.
    pub(super) fn write(&mut self, i: u8) -> bool {
        let bit = self.bit(i);
        if self.valid & bit == 0 {
            self.set |= bit;
        }
        self.valid |= bit;
        self.empty &= !bit;
        true
    }

    /// Something is pushed; false if there cannot be room.
    pub(super) fn push(&mut self) -> bool {
        let bit = self.bit(7);
        if (self.valid | self.empty) & bit == 0 {
            self.needs_empty |= bit;
            self.empty |= bit;
        }
        if self.empty & bit == 0 {
            return false;
        }
        self.moved = self.moved.wrapping_add(7) & 7;
        self.write(0)
    }

    pub(super) fn pop(&mut self) -> bool {
        let bit = self.bit(0);
        self.cleared |= bit;
        self.set &= !bit;
        self.empty |= bit;
        self.valid &= !bit;
        self.moved = self.moved.wrapping_add(1) & 7;
        true
    }

    /// The stack after an instruction; `None` if that makes a stack fault.
    fn after(self, f: Fast) -> Option<Stack> {
        let mut s = Stack { set: 0, cleared: 0, ..self };
        f.moves(&mut s).then_some(s)
    }
}

impl Lower<'_, '_> {
    /// Where control enters: what stays the same all the time.
    pub(super) fn find_x87(&mut self) {
        let any = |r: &Region| r.blocks.iter().any(|b| (0..b.insns.len() as u32).any(|n| quick(b, n)));
        if any(self.region) {
            let vm = self.load_state(I64, offset_of!(State, engine));
            let at = offset_of!(Vm, fpu) + offset_of!(Fpu, x87);
            let at = self.b.ins().load(I64, self.places.vm, vm, at as i32);
            self.b.def_var(self.x87.at, at);
        }
    }

    /// The CPU was called, or another block begins.
    pub(super) fn end_run(&mut self) {
        self.x87.run = None;
    }

    /// Runs an x87 instruction, number `n` of the block; `ops` are the block's from here on.
    pub(super) fn x87(&mut self, n: u32, ops: &[Op]) {
        let Some((_, insn)) = self.insn else { return };
        // The CPU's function needs it in memory, where it is not up to date for what follows.
        self.budget_value();
        let known = fast(&insn).filter(|_| self.in_run(n, ops));
        let next = known.and_then(|f| self.x87.run.and_then(|r| r.stack.after(f)).map(|next| (f, next)));
        let Some((f, next)) = next else {
            self.end_run();
            self.x87_call(&insn);
            self.after_call(&insn);
            return;
        };
        self.end_insn();
        let address = insn.has_mem().then(|| self.address(&insn));
        let (here, slow, on) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(slow);
        let word = f.sets_flags().then(|| self.b.append_block_param(on, I64));
        if f == Fast::StatusToAx {
            self.gpr_value(0);
        }
        let ok = self.b.use_var(self.x87.ok);
        self.b.ins().brif(ok, here, &[], slow, &[]);
        self.b.seal_block(here);
        self.b.switch_to_block(here);
        let (checked, low, have) = (self.checked.clone(), self.low, self.have);
        let made = self.fast(f, &insn, address, next, slow);
        self.record(n, &insn, address);
        let args: Vec<Value> = made.into_iter().collect();
        self.jump(on, &args);
        self.end_insn();
        (self.checked, self.low, self.have) = (checked, low, have);
        self.b.seal_block(slow);
        self.b.switch_to_block(slow);
        self.x87_call(&insn);
        let no = self.b.ins().iconst(I8, 0);
        self.b.def_var(self.x87.ok, no);
        self.slow_results(f);
        let args = if word.is_some() {
            vec![self.load_state(I64, offset_of!(State, flags) + offset_of!(egret_cpu::state::LazyFlags, r))]
        } else {
            Vec::new()
        };
        self.jump(on, &args);
        self.b.seal_block(on);
        self.b.switch_to_block(on);
        if let Some(word) = word {
            self.flags = Fl::word(word);
        }
        if f == Fast::StatusToAx {
            self.low[0] = None;
            self.dirty.gpr |= 1;
        }
        if let Some(run) = &mut self.x87.run {
            run.stack = next;
        }
    }

    /// Takes what the CPU's function left in [`State`].
    fn slow_results(&mut self, f: Fast) {
        if f == Fast::StatusToAx {
            let v = self.load_state(I64, offset_of!(State, gpr));
            self.b.def_var(self.gpr[0], v);
        }
    }

    /// The same where there is no other way.
    fn after_call(&mut self, insn: &Insn) {
        if writes_flags(insn) {
            self.flags = Fl::Memory(None);
        }
        if x87::decode(insn.code).is_some_and(|p| p.memory == Memory::Ax) {
            let v = self.load_state(I64, offset_of!(State, gpr));
            self.set_gpr_value(0, v);
            self.low[0] = None;
        }
    }

    /// The offset of the memory operand.
    fn address(&mut self, insn: &Insn) -> Lv {
        let mut r = Recorder::default();
        let at = r.offset(insn, &insn.mem);
        let ops = r.finish().ops;
        let (vals, limits) = (std::mem::take(&mut self.vals), std::mem::take(&mut self.limits));
        let mut n = 0;
        while n < ops.len() {
            n = self.op(&ops, n);
        }
        // No op of the block: it has no slot.
        self.op_at = usize::MAX;
        let at = self.val(at);
        (self.vals, self.limits) = (vals, limits);
        at
    }

    /// Calls the CPU's function, with everything stored; nothing is taken over from it.
    fn x87_call(&mut self, insn: &Insn) {
        let dirty = self.dirty;
        self.store_dirty();
        self.dirty = dirty;
        self.sync_flags();
        let budget = self.budget_less(self.executed);
        self.store_state(budget, offset_of!(State, budget));
        let site = (self.calls.len() * size_of::<CallSite>()) as i64;
        let offset = self.insn.map_or(0, |(at, _)| at);
        self.calls.push((offset, *insn));
        let site = self.call_site(site);
        let rip = self.rip_value(self.next_offset());
        let vm = self.load_state(I64, offset_of!(State, engine));
        let target = self.b.ins().load(I64, self.places.vm, vm, offset_of!(Vm, x87) as i32);
        let state = self.b.ins().iadd_imm_s(self.state, -STATE_BIAS);
        let call = self.b.ins().call_indirect(self.native, target, &[state, site, rip]);
        let status = self.b.inst_results(call)[0];
        let (called, on) = (self.called_to, self.b.create_block());
        self.b.ins().brif(status, called, &[status.into()], on, &[]);
        self.b.seal_block(on);
        self.b.switch_to_block(on);
    }

    /// Whether instruction number `n` belongs to a run, which may begin with it.
    fn in_run(&mut self, n: u32, ops: &[Op]) -> bool {
        if self.x87.run.is_some_and(|r| n <= r.last) {
            return true;
        }
        let block = &self.region.blocks[self.block];
        let mut stack = Stack::default();
        let mut last = None;
        for m in ops.iter().filter_map(|op| if let Op::Call(m) = op { Some(*m) } else { None }) {
            let known = block.insns.get(m as usize).filter(|_| quick(block, m)).and_then(|(_, i)| fast(i));
            let Some(next) = known.and_then(|f| stack.after(f)) else { break };
            (stack, last) = (next, Some(m));
        }
        let Some(last) = last else { return false };
        let at = self.b.use_var(self.x87.at);
        let sw = self.b.ins().uload16(I32, self.places.vm, at, offset_of!(X87, sw) as i32);
        let cw = self.b.ins().uload16(I32, self.places.vm, at, offset_of!(X87, cw) as i32);
        let tags = self.b.ins().load(I8, self.places.vm, at, offset_of!(X87, tag) as i32);
        let top = self.b.ins().band_imm_u(sw, 7 << 11);
        let turn = self.b.ins().ushr_imm_u(top, 11);
        let tags = self.b.ins().rotr(tags, turn);
        let masks = self.b.ins().band_imm_u(cw, 0x3f);
        let mut ok = self.b.ins().icmp_imm_u(IntCC::Equal, masks, 0x3f);
        if stack.needs_valid | stack.needs_empty != 0 {
            let looked = self.b.ins().band_imm_u(tags, i64::from(stack.needs_valid | stack.needs_empty));
            let fits = self.b.ins().icmp_imm_u(IntCC::Equal, looked, i64::from(stack.needs_valid));
            ok = self.b.ins().band(ok, fits);
        }
        self.b.def_var(self.x87.ok, ok);
        self.b.def_var(self.x87.sw, sw);
        self.b.def_var(self.x87.tags, tags);
        self.x87.run = Some(Run { last, top, stack: Stack::default() });
        true
    }

    /// The address of ST(i) as it is before this instruction.
    pub(super) fn st(&mut self, i: u8) -> Value {
        let Some(run) = self.x87.run else { return self.state };
        let at = self.b.use_var(self.x87.at);
        let top = self.b.ins().uextend(I64, run.top);
        let top = self.b.ins().ushr_imm_u(top, 7);
        let place = self.b.ins().iadd_imm_s(top, 16 * i64::from(run.stack.moved.wrapping_add(i) & 7));
        let place = self.b.ins().band_imm_u(place, 0x70);
        self.b.ins().iadd(at, place)
    }

    /// Replaces `clear` in the status word by `set`, and moves the stack.
    pub(super) fn commit(&mut self, clear: u16, set: Option<Value>, next: Stack) {
        let Some(run) = self.x87.run else { return };
        let at = self.b.use_var(self.x87.at);
        let mut sw = self.b.use_var(self.x87.sw);
        let moves = next.moved != run.stack.moved;
        let clear = i64::from(clear) | if moves { 7 << 11 } else { 0 };
        if clear != 0 {
            sw = self.b.ins().band_imm_u(sw, 0xffff & !clear);
        }
        if moves {
            let top = self.b.ins().iadd_imm_s(run.top, i64::from(next.moved) << 11);
            let top = self.b.ins().band_imm_u(top, 7 << 11);
            sw = self.b.ins().bor(sw, top);
        }
        if let Some(set) = set {
            sw = self.b.ins().bor(sw, set);
        }
        if clear != 0 || set.is_some() {
            self.b.ins().istore16(self.places.vm, sw, at, offset_of!(X87, sw) as i32);
            self.b.def_var(self.x87.sw, sw);
        }
        if next.set | next.cleared != 0 {
            let mut tags = self.b.use_var(self.x87.tags);
            if next.set != 0 {
                tags = self.b.ins().bor_imm_u(tags, i64::from(next.set));
            }
            if next.cleared != 0 {
                tags = self.b.ins().band_imm_u(tags, i64::from(!next.cleared));
            }
            self.b.def_var(self.x87.tags, tags);
            let turn = self.b.ins().ushr_imm_u(run.top, 11);
            let tags = self.b.ins().rotl(tags, turn);
            self.b.ins().store(self.places.vm, tags, at, offset_of!(X87, tag) as i32);
        }
    }

    /// Whether the next instruction records its pointer before anything can look at this one's.
    pub(super) fn recorded_next(&self, n: u32) -> bool {
        let block = &self.region.blocks[self.block];
        let next = block.insns.get(n as usize + 1);
        let records = |i: &Insn| !i.has_mem() && x87::decode(i.code).is_some_and(|p| p.records());
        self.x87.run.is_some_and(|r| n < r.last) && next.is_some_and(|(_, i)| records(i) && quick(block, n + 1))
    }
}
