//! Far transfers: JMP, CALL and RET between segments, software interrupts.

use super::Function;
use crate::Cpu;
use crate::exceptions::Event;
use crate::fault::{Fault, vector};
use crate::segments::{Descriptor, is_null, kind, rpl};
use crate::state::{SegReg, rflags};
use crate::task::Reason;
use egret_isa::emit::Emit;
use egret_isa::insn::{Insn, Operand, Seg};
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// This file's mnemonics. Near JMP and CALL never come here.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Jmp => jmp,
        M::Call => call,
        M::Retf => retf,
        M::Int => int,
        M::Int3 => int3,
        M::Into => into,
        _ => return None,
    })
}

/// The far pointer operand: selector and offset.
fn pointer(cpu: &mut Cpu, i: &Insn) -> Result<(u16, u64), Fault> {
    match i.ops[0] {
        Operand::Far => Ok((i.imm2 as u16, i.imm & i.opsize.mask())),
        Operand::Mem(_) => cpu.load_pointer(i, i.opsize),
        _ => Err(Fault::UD),
    }
}

/// JMP far: SDM Vol. 2, "JMP—Jump".
fn jmp(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (selector, offset) = pointer(cpu, i)?;
    if cpu.real_mode() || cpu.v86() {
        if offset > u64::from(cpu.state.seg[Seg::Cs as usize].limit) {
            return Err(Fault::GP0);
        }
        cpu.load_real(Seg::Cs, selector);
        cpu.state.rip = offset;
        return Ok(());
    }
    let d = cpu.far_descriptor(selector)?;
    if d.code() {
        let cs = cpu.far_code(&d)?;
        let rip = cpu.target(&cs, offset)?;
        cpu.mark_accessed(&d)?;
        cpu.enter_code(cs, rip, cpu.cpl);
        return Ok(());
    }
    match cpu.far_system(d)? {
        System::Gate(gate) => {
            let target = cpu.gate_target(&gate)?;
            if !target.conforming() && target.dpl() != cpu.cpl {
                return Err(Fault::gp(target.selector));
            }
            let cs = target.segment(target.selector & !3 | u16::from(cpu.cpl));
            let rip = cpu.target(&cs, gate.gate_offset())?;
            cpu.mark_accessed(&target)?;
            cpu.enter_code(cs, rip, cpu.cpl);
            Ok(())
        }
        System::Task(tss) => cpu.task_by_instruction(&tss, Reason::Jump),
    }
}

/// CALL far: SDM Vol. 2, "CALL—Call Procedure".
fn call(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (selector, offset) = pointer(cpu, i)?;
    let size = i.opsize.bytes();
    let next = cpu.state.rip;
    let old_cs = cpu.state.seg[Seg::Cs as usize];
    if cpu.real_mode() || cpu.v86() {
        cpu.push(size, old_cs.selector.into())?;
        cpu.push(size, next)?;
        if offset > u64::from(old_cs.limit) {
            return Err(Fault::GP0);
        }
        cpu.load_real(Seg::Cs, selector);
        cpu.state.rip = offset;
        return Ok(());
    }
    let d = cpu.far_descriptor(selector)?;
    if d.code() {
        let cs = cpu.far_code(&d)?;
        cpu.push(size, old_cs.selector.into())?;
        cpu.push(size, next)?;
        let rip = cpu.target(&cs, offset)?;
        cpu.mark_accessed(&d)?;
        cpu.enter_code(cs, rip, cpu.cpl);
        return Ok(());
    }
    match cpu.far_system(d)? {
        System::Gate(gate) => cpu.attempt(|cpu| cpu.call_gate(&gate)),
        System::Task(tss) => cpu.task_by_instruction(&tss, Reason::Nest),
    }
}

/// RET far: SDM Vol. 2, "RET—Return From Procedure".
fn retf(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let size = i.opsize.bytes();
    let release = if i.ops[0] == Operand::Imm { i.imm & 0xffff } else { 0 };
    if !cpu.real_mode() {
        // Where both words fault, Zen 4 reports the selector's.
        let sp = cpu.reg(4).wrapping_add(size.into()) & i.stack().mask();
        cpu.read(Seg::Ss, sp, size)?;
    }
    let rip = cpu.pop(size)?;
    let selector = cpu.pop(size)? as u16;
    if cpu.real_mode() || cpu.v86() {
        if rip > u64::from(cpu.state.seg[Seg::Cs as usize].limit) {
            return Err(Fault::GP0);
        }
        cpu.set_sp(cpu.reg(4).wrapping_add(release));
        cpu.load_real(Seg::Cs, selector);
        cpu.state.rip = rip;
        return Ok(());
    }
    let cs = cpu.return_code(selector)?;
    cpu.set_sp(cpu.reg(4).wrapping_add(release));
    if rpl(selector) == cpu.cpl {
        let rip = cpu.target(&cs, rip)?;
        cpu.enter_code(cs, rip, cpu.cpl);
        return Ok(());
    }
    let rsp = cpu.pop(size)?;
    let ss = cpu.pop(size)? as u16;
    cpu.return_outward(cs, rip, ss, rsp, release)
}

/// INT n: SDM Vol. 2, "INT n/INTO/INT3/INT1—Call to Interrupt Procedure".
fn int(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let vector = i.imm as u8;
    if cpu.v86() {
        if cpu.redirected(vector)? {
            return cpu.interrupt_8086(vector);
        }
        if cpu.iopl() < 3 {
            return Err(Fault::GP0);
        }
    }
    cpu.deliver(&Event::software(vector))
}

/// INT3. Unlike INT 3 it is not subject to IOPL in V86.
fn int3(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.deliver(&Event::software(vector::BP))
}

fn into(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    if cpu.rflags() & u64::from(egret_isa::flags::OF) == 0 {
        return Ok(());
    }
    cpu.deliver(&Event::software(vector::OF))
}

/// Where a far transfer through a system descriptor leads.
enum System {
    Gate(Descriptor),
    Task(Descriptor),
}

impl Cpu {
    /// The I/O privilege level.
    #[must_use]
    pub fn iopl(&self) -> u8 {
        ((self.state.system_flags & rflags::IOPL) >> 12) as u8
    }

    /// Reads a far pointer from the memory operand: selector, and offset of `w`.
    pub(crate) fn load_pointer(&mut self, i: &Insn, w: Width) -> Result<(u16, u64), Fault> {
        let at = self.offset(i, &i.mem);
        let offset = self.read(i.mem.seg, at, w.bytes())?;
        let at = at.wrapping_add(w.bytes().into()) & i.mem.width.mask();
        Ok((self.read(i.mem.seg, at, 2)? as u16, offset))
    }

    fn far_descriptor(&mut self, selector: u16) -> Result<Descriptor, Fault> {
        if is_null(selector) { Err(Fault::GP0) } else { self.descriptor(selector, Fault::gp) }
    }

    /// CS for a direct far JMP or CALL, with its checks.
    fn far_code(&self, d: &Descriptor) -> Result<SegReg, Fault> {
        let allowed = if d.conforming() { d.dpl() <= self.cpl } else { rpl(d.selector) <= self.cpl && d.dpl() == self.cpl };
        if !allowed || (self.long_mode() && d.reserved_size()) {
            return Err(Fault::gp(d.selector));
        }
        if !d.present() {
            return Err(Fault::np(d.selector));
        }
        Ok(d.segment(d.selector & !3 | u16::from(self.cpl)))
    }

    /// The call gate or TSS behind a system descriptor, with the checks on the descriptor itself.
    fn far_system(&mut self, d: Descriptor) -> Result<System, Fault> {
        let legacy = !self.long_mode();
        let known = match d.kind() {
            kind::CALL => true,
            kind::CALL16 | kind::TASK | kind::TSS | kind::TSS16 => legacy,
            _ => false,
        };
        if !d.system() || !known || d.dpl() < self.cpl || rpl(d.selector) > d.dpl() {
            return Err(Fault::gp(d.selector));
        }
        let d = self.widen(d, Fault::gp)?;
        match d.kind() {
            kind::TSS | kind::TSS16 => Ok(System::Task(self.task_target(d.selector, Fault::gp)?)),
            _ if !d.present() => Err(Fault::np(d.selector)),
            kind::TASK => Ok(System::Task(self.task_target(d.gate_selector(), Fault::gp)?)),
            _ => Ok(System::Gate(d)),
        }
    }

    /// SDM Vol. 2, "CALL", CALL-GATE.
    fn call_gate(&mut self, gate: &Descriptor) -> Result<(), Fault> {
        let target = self.gate_target(gate)?;
        let size = match (self.long_mode(), gate.wide_gate()) {
            (true, _) => 8,
            (false, true) => 4,
            (false, false) => 2,
        };
        let old_cs = self.state.seg[Seg::Cs as usize].selector;
        let next = self.state.rip;
        let inner = !target.conforming() && target.dpl() < self.cpl;
        let cpl = if inner { target.dpl() } else { self.cpl };
        let cs = target.segment(target.selector & !3 | u16::from(cpl));
        let rip = self.target(&cs, gate.gate_offset())?;
        self.mark_accessed(&target)?;
        if !inner {
            self.push_far(size, old_cs, next)?;
        } else if self.long_mode() {
            self.call_inner_long(&target, old_cs, next)?;
        } else {
            self.call_inner(gate, size, cpl, old_cs, next)?;
        }
        self.enter_code(cs, rip, cpl);
        Ok(())
    }

    /// The return address, in slots of the gate's size, not the code's.
    fn push_far(&mut self, size: u8, cs: u16, rip: u64) -> Result<(), Fault> {
        self.push(size, cs.into())?;
        self.push(size, rip)
    }

    /// A 64-bit call gate to an inner level: no parameters, SS becomes null.
    fn call_inner_long(&mut self, target: &Descriptor, cs: u16, rip: u64) -> Result<(), Fault> {
        let cpl = target.dpl();
        let mut sp = self.tss_pointer(4 + 8 * u64::from(cpl))?;
        let (ss, old_rsp) = (self.state.seg[Seg::Ss as usize].selector, self.state.gpr[4]);
        self.cpl = cpl;
        self.update_tlb_key();
        for value in [ss.into(), old_rsp, cs.into(), rip] {
            sp = sp.wrapping_sub(8);
            self.write_linear(Seg::Ss, sp, 8, value)?;
        }
        self.state.gpr[4] = sp;
        self.state.seg[Seg::Ss as usize] = SegReg::null(cpl.into());
        Ok(())
    }

    /// A call gate to an inner level: parameters are copied from the old stack.
    fn call_inner(&mut self, gate: &Descriptor, size: u8, cpl: u8, cs: u16, rip: u64) -> Result<(), Fault> {
        let (ss, esp) = self.tss_stack(cpl)?;
        let stack = self.stack_segment(ss, cpl, Fault::ts)?;
        let old_ss = self.state.seg[Seg::Ss as usize].selector;
        let old_esp = self.state.gpr[4];
        let count = usize::from(gate.gate_count());
        let mut params = [0; 31];
        for (n, slot) in params.iter_mut().take(count).enumerate() {
            let at = old_esp.wrapping_add(n as u64 * u64::from(size)) & self.stack_mask();
            *slot = self.read(Seg::Ss, at, size)?;
        }
        self.enter_stack(stack, esp, cpl);
        let outer = [old_ss.into(), old_esp];
        let frame = outer.into_iter().chain(params.into_iter().take(count).rev()).chain([cs.into(), rip]);
        for value in frame {
            self.push(size, value).map_err(|f| if f == Fault::SS0 { Fault::ss(ss) } else { f })?;
        }
        Ok(())
    }

    /// CS for RET and IRET, with its checks; the return level is the selector's RPL.
    pub(crate) fn return_code(&mut self, selector: u16) -> Result<SegReg, Fault> {
        if is_null(selector) {
            return Err(Fault::GP0);
        }
        let d = self.descriptor(selector, Fault::gp)?;
        let level = rpl(selector);
        let allowed = if d.conforming() { d.dpl() <= level } else { d.dpl() == level };
        if !d.code() || level < self.cpl || !allowed || (self.long_mode() && d.reserved_size()) {
            return Err(Fault::gp(selector));
        }
        if !d.present() {
            return Err(Fault::np(selector));
        }
        self.mark_accessed(&d)?;
        Ok(d.segment(selector))
    }

    /// SS for a return to the level of `cs`: null is allowed for 64-bit code of levels 0 to 2.
    pub(crate) fn return_stack(&mut self, cs: &SegReg, ss: u16) -> Result<SegReg, Fault> {
        let level = rpl(cs.selector);
        let long = self.long_mode() && cs.attr & SegReg::L != 0;
        if is_null(ss) && long && level != 3 {
            return if rpl(ss) == level { Ok(SegReg::null(ss)) } else { Err(Fault::gp(ss)) };
        }
        self.stack_segment(ss, level, Fault::gp)
    }

    /// The last part of RET to an outer level.
    fn return_outward(&mut self, cs: SegReg, rip: u64, ss: u16, rsp: u64, release: u64) -> Result<(), Fault> {
        let stack = self.return_stack(&cs, ss)?;
        let rip = self.target(&cs, rip)?;
        self.enter_code(cs, rip, rpl(cs.selector));
        self.set_segment(Seg::Ss, stack);
        self.set_sp(rsp.wrapping_add(release));
        self.drop_privileged_segments();
        Ok(())
    }

    /// A task switch by JMP, CALL or IRET.
    pub(crate) fn task_by_instruction(&mut self, tss: &Descriptor, reason: Reason) -> Result<(), Fault> {
        let flags = self.rflags();
        match self.task_switch(tss, reason, flags)? {
            Ok(true) => self.take(Event::trap(vector::DB)),
            Ok(false) => {}
            // In the new task: the caller must not put the old one's registers back.
            Err(fault) => self.raise(fault),
        }
        Ok(())
    }
}
