//! Instruction boundaries, branches, calls to the CPU's functions, and the ways out.

use super::live::{Reg, Regs};
use super::{Fl, Inherited, Lower, Lv, from_state};
use crate::region::{End, PAGE, Target, beyond};
use crate::vm::{CallSite, Entry, JUMPS, Jump, PLACE_SHIFT, PLACES, Stubs, Vm, exit};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{Block as ClifBlock, BlockArg, InstBuilder, Value};
use egret_cpu::tlb::{Entry as TlbEntry, Tlb};
use egret_cpu::{SegReg, State};
use egret_isa::insn::{Ctx, Insn, Seg};
use egret_isa::ir::Val;
use egret_isa::ops::Width;
use iced_x86::Mnemonic;
use std::mem::offset_of;

/// Whether an instruction has an access to memory that may fault. That it has none unknown to this costs only space.
fn reaches_memory(i: &Insn) -> bool {
    i.has_mem() && i.mnemonic != Mnemonic::Lea || matches!(i.mnemonic, Mnemonic::Push | Mnemonic::Pop | Mnemonic::Call | Mnemonic::Ret)
}

impl Lower<'_, '_> {
    pub(super) fn begin_insn(&mut self, n: u32) {
        self.end_insn();
        self.insn = self.region.blocks[self.block].insns.get(n as usize).copied();
        self.executed += 1;
        // Here once, instead of on every cold way out of what follows. In loops and long blocks once at the end is less.
        if self.holding >> self.block & 1 == 0 && self.insn.is_some_and(|(_, i)| reaches_memory(&i)) {
            self.store_dirty();
        }
        self.old_dirty = self.dirty;
        self.old.clear();
        if self.insn.is_some_and(|(at, i)| beyond(at, &i) > 0) {
            self.check_beyond();
        }
    }

    /// Before an instruction that reaches into the next page: leaves it to the interpreter unless the TLB has that page, and it is
    /// the one this was made from.
    fn check_beyond(&mut self) {
        let base = self.load_state(I64, offset_of!(State, page));
        let linear = self.b.ins().iadd_imm_s(base, PAGE as i64);
        let entry = self.tlb_entry(linear);
        let array = offset_of!(State, tlb) + offset_of!(Tlb, fetch);
        let tag = self.b.ins().load(I64, self.places.tlb, entry, from_state(array + offset_of!(TlbEntry, tag)));
        let addend = self.b.ins().load(I64, self.places.tlb, entry, from_state(array + offset_of!(TlbEntry, addend)));
        let key = self.load_state(I64, offset_of!(State, tlb_key));
        let wanted = self.b.ins().bor(linear, key);
        let other = self.b.ins().bxor(tag, wanted);
        let page = self.b.ins().iadd(linear, addend);
        let made_from = self.b.ins().load(I64, self.places.vm, self.entry, offset_of!(Entry, beyond) as i32);
        let moved = self.b.ins().bxor(page, made_from);
        let stale = self.b.ins().bor(other, moved);
        self.leave_if(stale);
    }

    pub(super) fn end_insn(&mut self) {
        if let Some((leave, _)) = self.leave.take() {
            self.b.seal_block(leave);
        }
    }

    /// The offset of the next instruction in the page.
    pub(super) fn next_offset(&self) -> i64 {
        self.insn.map_or(0, |(at, i)| i64::from(at) + i64::from(i.len))
    }

    /// The cold block that leaves before this instruction, with an exit code as parameter.
    pub(super) fn leave_block(&mut self) -> ClifBlock {
        if let Some((block, _)) = self.leave {
            return block;
        }
        let block = self.b.create_block();
        self.b.append_block_param(block, I64);
        self.b.set_cold_block(block);
        self.leave = Some((block, false));
        let old_dirty = self.old_dirty;
        self.leave_with.clear();
        for reg in old_dirty.iter() {
            let v = self.old_value(reg);
            self.leave_with.push((reg, v));
        }
        block
    }

    /// For a cold way that is about to leave before this instruction or go on: brings [`State`] up to date with what was before it
    /// and gives what the shared way out takes beside the code. `None` when this has to wait until it leaves.
    pub(super) fn prepare_to_leave(&mut self) -> Option<[Value; 2]> {
        if self.leave.is_some() || !matches!(self.flags, Fl::Memory(_) | Fl::Live { .. }) {
            return None;
        }
        let old_dirty = self.old_dirty;
        for reg in old_dirty.iter() {
            let v = self.old_value(reg);
            self.store_reg(reg, v);
        }
        self.sync_flags();
        let at = self.insn.map_or(0, |(at, _)| i64::from(at));
        Some([self.iconst(at as u64), self.budget_less(self.executed - 1)])
    }

    /// Writes the leaving block's code if it has none yet. The current block must be finished; none is current afterwards.
    pub(super) fn fill_leave(&mut self) {
        let Some((block, filled @ false)) = &mut self.leave else { return };
        *filled = true;
        let block = *block;
        let registers = std::mem::take(&mut self.leave_with);
        self.b.switch_to_block(block);
        let code = self.b.block_params(block)[0];
        for (reg, v) in registers {
            self.store_reg(reg, v);
        }
        self.sync_flags();
        let at = self.insn.map_or(0, |(at, _)| i64::from(at));
        let budget = self.budget_less(self.executed - 1);
        let at = self.iconst(at as u64);
        let to = self.leave_to;
        self.jump(to, &[code, at, budget]);
    }

    /// A register's value before this instruction.
    fn old_value(&mut self, reg: Reg) -> Value {
        match self.old.iter().find(|(r, _)| *r == reg) {
            Some((_, v)) => *v,
            None => self.reg_value(reg),
        }
    }

    pub(super) fn budget_less(&mut self, n: i64) -> Value {
        // Not kept: this may be on a cold way.
        let budget = if self.have.budget { self.b.use_var(self.budget) } else { self.load_state(I64, offset_of!(State, budget)) };
        if n == 0 { budget } else { self.b.ins().iadd_imm_s(budget, -n) }
    }

    /// Whether the budget is used up, or another thread wants attention. What it and other CPUs wrote must be seen by the next
    /// turn of a loop: no load before this stands for one after it.
    fn spent(&mut self, budget: Value) -> Value {
        self.b.ins().sequence_point();
        let limit = self.load_state(I64, offset_of!(State, limit));
        self.b.ins().icmp(IntCC::SignedLessThanOrEqual, budget, limit)
    }

    /// The code that ends the function, shared by all blocks.
    pub(super) fn ways_out(&mut self) {
        let leave = self.leave_to;
        self.b.switch_to_block(leave);
        let [code, at, budget] = self.b.block_params(leave)[..] else { return };
        let base = match self.region.base {
            Some(base) => self.iconst(base),
            None => self.load_state(I64, offset_of!(State, page)),
        };
        let rip = self.b.ins().iadd(base, at);
        let rip = if self.code64() { rip } else { self.b.ins().band_imm_u(rip, 0xffff_ffff) };
        self.store_state(rip, offset_of!(State, rip));
        self.store_state(budget, offset_of!(State, budget));
        self.b.ins().return_(&[code]);
        let out = self.return_to;
        self.b.switch_to_block(out);
        let code = self.b.block_params(out)[0];
        self.b.ins().return_(&[code]);
        let chain = self.chain_to;
        self.b.switch_to_block(chain);
        let [rip, budget] = self.b.block_params(chain)[..] else { return };
        self.store_state(rip, offset_of!(State, rip));
        self.store_state(budget, offset_of!(State, budget));
        self.chain(rip, budget);
        if self.calls.is_empty() {
            return;
        }
        let called = self.called_to;
        self.b.switch_to_block(called);
        let status = self.b.block_params(called)[0];
        let moved = self.b.ins().icmp_imm_s(IntCC::Equal, status, exit::MOVED as i64);
        let on = self.b.create_block();
        self.b.ins().brif(moved, on, &[], out, &[status.into()]);
        self.b.seal_block(on);
        self.b.switch_to_block(on);
        let rip = self.load_state(I64, offset_of!(State, rip));
        let budget = self.load_state(I64, offset_of!(State, budget));
        self.chain(rip, budget);
    }

    /// Goes on at an instruction pointer outside: through the jump cache if it knows it and the budget lasts.
    fn chain(&mut self, rip: Value, budget: Value) {
        let next = self.iconst(exit::NEXT);
        let link = self.iconst(exit::LINK);
        let (look, go) = (self.b.create_block(), self.b.create_block());
        let [entry, code] = [0; 2].map(|_| self.b.append_block_param(go, I64));
        let spent = self.spent(budget);
        let out = self.return_to;
        self.b.ins().brif(spent, out, &[next.into()], look, &[]);
        self.b.seal_block(look);
        self.b.switch_to_block(look);
        let vm = self.load_state(I64, offset_of!(State, engine));
        let jumps = self.b.ins().load(I64, self.places.vm, vm, offset_of!(Vm, first_jump) as i32);
        // As `jump_index` does it.
        let low = self.b.ins().band_imm_u(rip, PLACES as i64 - 1);
        let low = self.b.ins().ishl_imm_u(low, i64::from(PLACE_SHIFT));
        let mixed = self.b.ins().bxor(rip, low);
        let first = self.b.ins().band_imm_u(mixed, ((JUMPS - 1) << PLACE_SHIFT) as i64);
        let again = self.b.create_block();
        self.b.set_cold_block(again);
        let key = |l: &mut Self, n: usize| l.b.ins().load(I64, l.places.vm, vm, (offset_of!(Vm, jump_keys) + 8 * n) as i32);
        let shared = key(self, 0);
        self.try_jump(&[shared], jumps, first, rip, go, (again, &[]));
        self.b.seal_block(again);
        self.b.switch_to_block(again);
        let own = key(self, 1);
        let second = self.b.ins().bxor_imm_u(first, 1 << PLACE_SHIFT);
        self.try_jump(&[own, shared], jumps, second, rip, go, (out, &[link.into()]));
        self.b.seal_block(go);
        self.b.switch_to_block(go);
        if self.one_page() {
            let page = self.b.ins().band_imm_s(rip, !(PAGE as i64 - 1));
            self.store_state(page, offset_of!(State, page));
        }
        self.b.ins().return_call_indirect(self.tail, code, &[self.state, entry]);
    }

    /// Goes to `go` with the entry and its code if the jump at a place is for this instruction pointer and one of the keys, else to
    /// `miss`.
    fn try_jump(&mut self, keys: &[Value], jumps: Value, place: Value, rip: Value, go: ClifBlock, miss: (ClifBlock, &[BlockArg])) {
        let offset = self.b.ins().ishl_imm_u(place, i64::from(size_of::<Jump>().trailing_zeros() - PLACE_SHIFT));
        let jump = self.b.ins().iadd(jumps, offset);
        let load = |l: &mut Self, at: usize| l.b.ins().load(I64, l.places.vm, jump, at as i32);
        let tag = load(self, offset_of!(Jump, tag));
        let (entry, code) = (load(self, offset_of!(Jump, entry)), load(self, offset_of!(Jump, code)));
        let found = self.b.ins().bxor(rip, tag);
        let mut same = self.b.ins().icmp(IntCC::Equal, found, keys[0]);
        for key in &keys[1..] {
            let this = self.b.ins().icmp(IntCC::Equal, found, *key);
            same = self.b.ins().bor(same, this);
        }
        self.b.ins().brif(same, go, &[entry.into(), code.into()], miss.0, miss.1);
    }

    /// Ends the block by going to an instruction pointer outside the region.
    pub(super) fn leave_block_to(&mut self, rip: Value) {
        self.store_dirty();
        self.sync_flags();
        let budget = self.budget_less(self.executed);
        let to = self.chain_to;
        self.jump(to, &[rip, budget]);
        self.ended = true;
    }

    /// #GP(0), by the interpreter, when a target is not canonical or beyond CS's limit.
    pub(super) fn check_ip(&mut self, target: Val) {
        // A target near the code that runs is canonical: see `JitEngine`'s check at entry.
        if let Lv::Rip(_) | Lv::Const(_) = self.val(target)
            && self.code64()
        {
            return;
        }
        if !self.only_jumps() {
            let v = self.int(target, Width::Q);
            self.check_ip_value(v);
        }
    }

    pub(super) fn check_ip_value(&mut self, v: Value) {
        if self.code64() {
            let up = self.b.ins().ishl_imm_u(v, 16);
            let back = self.b.ins().sshr_imm_u(up, 16);
            self.leave_if_cmp(IntCC::NotEqual, back, v);
        } else if !self.ctx().has(Ctx::FLAT) {
            let limit = offset_of!(State, seg) + Seg::Cs as usize * size_of::<SegReg>() + offset_of!(SegReg, limit);
            let limit = self.load_state(I32, limit);
            let limit = self.b.ins().uextend(I64, limit);
            self.leave_if_cmp(IntCC::UnsignedGreaterThan, v, limit);
        }
    }

    /// The direct near branch that ends the block.
    pub(super) fn branch(&mut self, c: Option<Val>) {
        let (taken, not) = match self.region.blocks[self.block].end {
            End::Branch(taken, not) => (Some(taken), not),
            End::Fall(t) => (None, Some(t)),
            End::Dynamic => (None, None),
        };
        let not = not.unwrap_or(Target::Out(self.next_offset()));
        let Some(c) = c else {
            self.taken_edge(taken);
            self.ended = true;
            return;
        };
        if let Lv::Const(c) = self.val(c) {
            if c != 0 {
                self.taken_edge(taken)
            } else {
                self.edge(not)
            }
            self.ended = true;
            return;
        }
        let c = self.truth(c);
        let held = self.held_by(taken).or(self.held_by(Some(not)));
        self.store_but(held);
        let direct_yes = taken.filter(|_| !self.checks_targets()).and_then(|t| self.straight(t));
        let direct_no = self.straight(not);
        let yes = direct_yes.unwrap_or_else(|| self.b.create_block());
        let no = direct_no.unwrap_or_else(|| self.b.create_block());
        self.b.ins().brif(c, yes, &[], no, &[]);
        let (flags, executed, dirty, have) = (self.flags, self.executed, self.dirty, self.have);
        if direct_yes.is_none() {
            self.b.seal_block(yes);
            self.b.switch_to_block(yes);
            self.taken_edge(taken);
            (self.flags, self.executed, self.dirty, self.have) = (flags, executed, dirty, have);
        }
        if direct_no.is_none() {
            self.b.seal_block(no);
            self.b.switch_to_block(no);
            self.edge(not);
        }
        self.ended = true;
    }

    /// The registers that memory need not have on the way to a target.
    fn held_by(&self, target: Option<Target>) -> Regs {
        match target {
            Some(Target::Block(n)) if self.plans[n].join => self.held[n],
            Some(Target::Block(_)) => self.dirty,
            _ => Regs::default(),
        }
    }

    /// The block of a target that nothing has to be done for on the way; it takes over what is known here.
    fn straight(&mut self, target: Target) -> Option<ClifBlock> {
        let Target::Block(n) = target else { return None };
        (!self.plans[n].join).then(|| {
            self.hand_over(n);
            self.clif[n]
        })
    }

    /// A block with no other way in goes on with what is known here.
    fn hand_over(&mut self, n: usize) {
        self.inherited[n] = Some(Inherited {
            flags: self.flags,
            executed: self.executed,
            low: self.low,
            have: self.have,
            dirty: self.dirty,
            checked: self.checked.clone(),
        });
    }

    /// Whether direct branches may go beyond the code segment's limit.
    fn checks_targets(&self) -> bool {
        !self.code64() && !self.ctx().has(Ctx::FLAT)
    }

    /// The way to a direct branch's target; `None` when the target is only known at run time.
    fn taken_edge(&mut self, target: Option<Target>) {
        match target {
            Some(t) if !self.checks_targets() => self.edge(t),
            _ => {
                let rip = self.branch_target();
                if !self.code64() {
                    self.check_ip_value(rip);
                    self.finish_leave();
                }
                match target {
                    Some(t @ Target::Block(_)) => self.edge(t),
                    _ => self.leave_block_to(rip),
                }
            }
        }
    }

    /// A check inside a branch leaves before the branch; its block is done with here, for its flags are those of now.
    fn finish_leave(&mut self) {
        self.end_insn();
    }

    /// Where the direct branch of this instruction goes.
    fn branch_target(&mut self) -> Value {
        let Some((at, i)) = self.insn else { return self.iconst(0) };
        let next = i64::from(at) + i64::from(i.len);
        let v = self.rip_value(next.wrapping_add(i.imm as i64));
        if i.opsize == Width::Q || (i.opsize == Width::D && !self.code64()) {
            v
        } else {
            self.b.ins().band_imm_u(v, i.opsize.mask() as i64)
        }
    }

    /// The end of a block whose last instruction is no branch.
    pub(super) fn end_of_block(&mut self) {
        match self.region.blocks[self.block].end {
            End::Fall(t) | End::Branch(t, None) => self.edge(t),
            End::Branch(_, Some(t)) => self.edge(t),
            End::Dynamic => {
                let at = self.next_offset();
                self.edge(Target::Out(at));
            }
        }
        self.ended = true;
    }

    /// Goes to a target.
    fn edge(&mut self, target: Target) {
        match target {
            Target::Out(at) => {
                let rip = self.rip_value(at);
                self.leave_block_to(rip);
            }
            Target::Block(n) if self.plans[n].join => self.join(n),
            Target::Block(n) => {
                self.hand_over(n);
                self.b.ins().jump(self.clif[n], &[]);
            }
        }
    }

    /// Goes to a block that others go to as well: what is kept per path is brought up to date. The way back in a loop
    /// looks at the budget.
    fn join(&mut self, n: usize) {
        self.store_but(self.held[n]);
        let budget = self.budget_less(self.executed);
        if n <= self.block {
            let (out, on) = (self.b.create_block(), self.b.create_block());
            self.b.set_cold_block(out);
            let spent = self.spent(budget);
            self.b.ins().brif(spent, out, &[], on, &[]);
            self.b.seal_block(out);
            self.b.seal_block(on);
            self.b.switch_to_block(out);
            for reg in self.dirty.iter() {
                let v = self.reg_value(reg);
                self.store_reg(reg, v);
            }
            self.sync_flags();
            let code = self.iconst(exit::NEXT);
            let at = self.iconst(self.region.blocks[n].start.into());
            let leave = self.leave_to;
            self.jump(leave, &[code, at, budget]);
            self.b.switch_to_block(on);
        }
        if self.keeps[n].budget {
            self.b.def_var(self.budget, budget);
            self.have.budget = true;
        } else {
            self.store_state(budget, offset_of!(State, budget));
        }
        if self.plans[n].flags_live {
            self.sync_flags();
        }
        self.load(self.keeps[n]);
        self.b.ins().jump(self.clif[n], &[]);
    }

    /// Runs the instruction's function on the CPU.
    pub(super) fn call(&mut self) {
        let Some((offset, insn)) = self.insn else { return };
        self.store_dirty();
        self.settle_flags();
        self.checked.clear();
        self.empty_slots();
        self.end_run();
        let rip = self.rip_value(self.next_offset());
        self.store_state(rip, offset_of!(State, rip));
        self.store_budget();
        let site = (self.calls.len() * size_of::<CallSite>()) as i64;
        self.calls.push((offset, insn));
        let site = self.call_site(site);
        self.call_stub(offset_of!(Stubs, call), [site, site, site]);
        let status = self.load_state(I32, offset_of!(State, status));
        let code = self.b.ins().uextend(I64, status);
        if self.region.blocks[self.block].end == End::Dynamic && self.is_last() {
            let moved = self.iconst(exit::MOVED);
            let code = self.b.ins().select(status, code, moved);
            let called = self.called_to;
            self.jump(called, &[code]);
            self.ended = true;
            return;
        }
        let on = self.b.create_block();
        let called = self.called_to;
        self.b.ins().brif(status, called, &[code.into()], on, &[]);
        self.b.seal_block(on);
        self.b.switch_to_block(on);
        self.forget_registers();
        self.flags = Fl::Memory(None);
    }

    /// Brings the budget in [`State`] up to date.
    pub(super) fn store_budget(&mut self) {
        let budget = self.budget_less(self.executed);
        self.store_state(budget, offset_of!(State, budget));
        self.executed = 0;
        self.have.budget = false;
    }

    /// The address of the call site at an offset among the region's.
    pub(super) fn call_site(&mut self, offset: i64) -> Value {
        let sites = self.b.ins().load(I64, self.places.vm, self.entry, offset_of!(Entry, calls) as i32);
        self.b.ins().iadd_imm_s(sites, offset)
    }

    fn is_last(&self) -> bool {
        let insns = &self.region.blocks[self.block].insns;
        insns.last().map(|(at, _)| *at) == self.insn.map(|(at, _)| at)
    }
}
