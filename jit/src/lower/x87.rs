//! x87 instructions: a call of the CPU's function as for any other, but one that returns at once what it did, without leaving
//! registers and flags to it, when nothing can fault.

use super::{Fl, Lower};
use crate::region::{Block, End};
use crate::vm::{CallSite, Vm};
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::types::I64;
use egret_cpu::State;
use egret_isa::insn::{Ctx, Insn};
use egret_isa::x87::{self, Memory, X87Op};
use std::mem::offset_of;

/// Whether an instruction of a block is done this way.
pub(super) fn quick(block: &Block, n: u32) -> bool {
    let Some((_, i)) = block.insns.get(n as usize) else { return false };
    let last = block.insns.len() == n as usize + 1;
    i.ctx.has(Ctx::X87) && !(last && block.end == End::Dynamic) && x87::decode(i.code).is_some_and(simple)
}

/// It touches no general register and nothing that decoding depends on.
fn simple(p: x87::X87Insn) -> bool {
    p.op != X87Op::Wait && !matches!(p.memory, Memory::Ax | Memory::Env | Memory::State)
}

fn writes_flags(i: &Insn) -> bool {
    x87::decode(i.code).is_none_or(|p| matches!(p.op, X87Op::CompareFlags { .. }))
}

impl Lower<'_, '_> {
    /// Runs an x87 instruction's function, the quick way if it can be.
    pub(super) fn x87(&mut self) {
        let Some((_, insn)) = self.insn else { return };
        self.store_dirty();
        self.settle_flags();
        let budget = self.budget_less(self.executed);
        self.b.def_var(self.budget, budget);
        self.executed = 0;
        let site = (self.calls.len() * size_of::<CallSite>()) as i64;
        let sites = self.b.use_var(self.calls_at);
        let site = self.b.ins().iadd_imm_s(sites, site);
        let rip = self.rip_value(self.next_offset());
        let vm = self.load_state(I64, offset_of!(State, engine));
        let target = self.b.ins().load(I64, self.places.vm, vm, offset_of!(Vm, x87) as i32);
        let call = self.b.ins().call_indirect(self.native, target, &[self.state, site, rip]);
        let left = self.b.inst_results(call)[0];
        let (slow, on) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(slow);
        self.b.ins().brif(left, slow, &[], on, &[]);
        self.b.seal_block(slow);
        self.b.switch_to_block(slow);
        let flags = self.flags;
        self.call();
        self.b.ins().jump(on, &[]);
        self.b.seal_block(on);
        self.b.switch_to_block(on);
        self.flags = if writes_flags(&insn) { Fl::Memory(None) } else { flags };
    }
}
