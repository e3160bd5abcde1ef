//! IRET (SDM Vol. 2, "IRET/IRETD/IRETQ—Interrupt Return").

use super::Function;
use crate::Cpu;
use crate::fault::Fault;
use crate::segments::rpl;
use crate::state::{attention, rflags};
use crate::task::Reason;
use egret_isa::flags::ARITH;
use egret_isa::insn::{Insn, Seg};
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Iret | M::Iretd | M::Iretq => iret,
        _ => return None,
    })
}

/// What every IRET pops, and its slot size.
struct Frame {
    size: u8,
    rip: u64,
    cs: u16,
    flags: u64,
}

fn iret(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    // Also an IRET that faults ends the blocking of NMIs.
    if std::mem::take(&mut cpu.inhibit.nmi) {
        cpu.state.attention |= attention::INTERRUPT;
    }
    let size = match i.mnemonic {
        M::Iretq => 8,
        M::Iretd => 4,
        _ => 2,
    };
    if cpu.v86() && cpu.iopl() < 3 && !(size == 2 && cpu.virtual_v86()) {
        return Err(Fault::GP0);
    }
    if !cpu.real_mode() && !cpu.v86() && cpu.flag(rflags::NT) {
        if cpu.long_mode() {
            return Err(Fault::GP0);
        }
        let tss = cpu.task_link()?;
        return cpu.task_by_instruction(&tss, Reason::Return);
    }
    if !cpu.real_mode() && !cpu.v86() {
        // Where the whole frame faults, Zen 4 reports the flags' place.
        let sp = cpu.reg(4).wrapping_add(2 * u64::from(size)) & i.stack().mask();
        cpu.read(Seg::Ss, sp, size)?;
    }
    let frame = Frame { size, rip: cpu.pop(size)?, cs: cpu.pop(size)? as u16, flags: cpu.pop(size)? };
    if cpu.real_mode() || cpu.v86() {
        return real(cpu, &frame);
    }
    if !cpu.long_mode() && cpu.cpl == 0 && size == 4 && frame.flags & rflags::VM != 0 {
        to_v86(cpu, &frame)?;
    } else {
        protected(cpu, &frame)?;
    }
    cpu.virtual_interrupt();
    Ok(())
}

fn real(cpu: &mut Cpu, f: &Frame) -> Result<(), Fault> {
    if f.rip > u64::from(cpu.state.seg[Seg::Cs as usize].limit) {
        return Err(Fault::GP0);
    }
    if cpu.virtual_v86() {
        cpu.set_virtual_image(f.flags)?;
        cpu.load_real(Seg::Cs, f.cs);
        cpu.state.rip = f.rip;
        return Ok(());
    }
    cpu.load_real(Seg::Cs, f.cs);
    cpu.state.rip = f.rip;
    cpu.set_flags_from_frame(f, if cpu.v86() { 3 } else { 0 });
    Ok(())
}

fn to_v86(cpu: &mut Cpu, f: &Frame) -> Result<(), Fault> {
    let esp = cpu.pop(4)?;
    let mut selectors = [0u16; 6];
    for seg in [Seg::Ss, Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
        selectors[seg as usize] = cpu.pop(4)? as u16;
    }
    selectors[Seg::Cs as usize] = f.cs;
    if f.rip > 0xffff {
        return Err(Fault::GP0);
    }
    cpu.set_flags_from_frame(f, 0);
    cpu.state.system_flags |= rflags::VM;
    cpu.cpl = 3;
    for seg in Seg::ALL {
        cpu.load_real(seg, selectors[seg as usize]);
    }
    cpu.state.rip = f.rip;
    cpu.state.gpr[4] = esp;
    Ok(())
}

fn protected(cpu: &mut Cpu, f: &Frame) -> Result<(), Fault> {
    let cs = cpu.return_code(f.cs)?;
    let level = rpl(f.cs);
    let old_cpl = cpu.cpl;
    if level == old_cpl && !cpu.code64() {
        let rip = cpu.target(&cs, f.rip)?;
        cpu.set_flags_from_frame(f, old_cpl);
        cpu.enter_code(cs, rip, level);
        return Ok(());
    }
    let rsp = cpu.pop(f.size)?;
    let ss = cpu.pop(f.size)? as u16;
    let stack = cpu.return_stack(&cs, ss)?;
    let rip = cpu.target(&cs, f.rip)?;
    cpu.set_flags_from_frame(f, old_cpl);
    cpu.state.seg[Seg::Ss as usize] = stack;
    cpu.enter_code(cs, rip, level);
    cpu.set_sp(rsp);
    if level > old_cpl {
        cpu.drop_privileged_segments();
    }
    Ok(())
}

impl Cpu {
    /// RFLAGS from a return frame, as far as `cpl` may change it.
    fn set_flags_from_frame(&mut self, f: &Frame, cpl: u8) {
        let mut mask = u64::from(ARITH) | rflags::TF | rflags::DF | rflags::NT;
        if f.size > 2 {
            mask |= rflags::RF | rflags::AC | rflags::ID;
        }
        if cpl <= self.iopl() {
            mask |= rflags::IF;
        }
        if cpl == 0 {
            mask |= rflags::IOPL;
            if f.size > 2 && !self.real_mode() {
                mask |= rflags::VIF | rflags::VIP;
            }
        }
        let flags = self.rflags() & !mask | f.flags & mask;
        self.set_rflags(self.without_idle_rf(flags));
    }

    /// RFLAGS to be loaded. With no breakpoint armed nothing can tell whether RF was set for the one instruction it lasts,
    /// so it is left out, and instructions need not clear it.
    pub(crate) fn without_idle_rf(&self, flags: u64) -> u64 {
        if self.dr[7] & 0xff == 0 { flags & !rflags::RF } else { flags }
    }
}
