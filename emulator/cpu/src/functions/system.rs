//! Interrupt flag, flags on the stack, HLT, time stamps, caches, TLB invalidation.

use super::Function;
use super::virtual_flag::Flag;
use crate::Cpu;
use crate::fault::Fault;
use crate::state::{attention, cr4, rflags};
use egret_bus::Phys;
use egret_isa::emit::Emit;
use egret_isa::flags::ARITH;
use egret_isa::insn::{Insn, Operand, Seg};
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Sti => sti,
        M::Cli => cli,
        M::Pushf | M::Pushfd | M::Pushfq => pushf,
        M::Popf | M::Popfd | M::Popfq => popf,
        M::Clac => clac,
        M::Stac => stac,
        M::Hlt => hlt,
        M::Pause => pause,
        M::Mfence => mfence,
        M::Rdtsc => rdtsc,
        M::Rdtscp => rdtscp,
        M::Rdpid => rdpid,
        M::Rdpmc => rdpmc,
        M::Monitor => monitor,
        M::Mwait => mwait,
        M::Invlpg => invlpg,
        M::Invpcid => invpcid,
        M::Invd | M::Wbinvd | M::Wbnoinvd => cache_control,
        M::Ud0 | M::Ud1 | M::Ud2 => undefined,
        _ => return None,
    })
}

/// UD0, UD1, UD2: SDM Vol. 2, "UD—Undefined Instruction".
fn undefined(_cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    Err(Fault::UD)
}

/// PAUSE: SDM Vol. 2, "PAUSE—Spin Loop Hint".
fn pause(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.pause();
    Ok(())
}

/// MFENCE: SDM Vol. 2, "MFENCE—Memory Fence".
fn mfence(_cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

/// STI: SDM Vol. 2, "STI—Set Interrupt Flag". Interrupts are let in after the next instruction.
fn sti(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    if cpu.interrupt_flag()? == Flag::Virtual {
        return cpu.set_virtual_flag();
    }
    if !cpu.flag(rflags::IF) {
        cpu.state.system_flags |= rflags::IF;
        if cpu.held || cpu.state.attention != 0 {
            cpu.state.attention |= attention::SHADOW | attention::INTERRUPT;
        } else {
            // Whoever wants to interrupt looks at it.
            cpu.after_sti = Some((cpu.state.rip, cpu.state.budget));
        }
    }
    Ok(())
}

/// CLI: SDM Vol. 2, "CLI—Clear Interrupt Flag".
fn cli(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    match cpu.interrupt_flag()? {
        Flag::Real => cpu.state.system_flags &= !rflags::IF,
        Flag::Virtual => cpu.clear_virtual_flag(),
    }
    Ok(())
}

/// PUSHF: SDM Vol. 2, "PUSHF/PUSHFD/PUSHFQ—Push EFLAGS Register Onto the Stack".
fn pushf(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let flags = match i.opsize {
        Width::W if cpu.virtual_v86() => cpu.virtual_image(),
        _ if cpu.v86() && cpu.iopl() < 3 => return Err(Fault::GP0),
        _ => cpu.rflags() & !(rflags::VM | rflags::RF),
    };
    cpu.push(i.opsize.bytes(), flags)
}

/// POPF: SDM Vol. 2, "POPF/POPFD/POPFQ—Pop Stack Into EFLAGS Register".
fn popf(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    if i.opsize == Width::W && cpu.virtual_v86() {
        let image = cpu.pop(2)?;
        return cpu.set_virtual_image(image);
    }
    if cpu.v86() && cpu.iopl() < 3 {
        return Err(Fault::GP0);
    }
    let new = cpu.pop(i.opsize.bytes())?;
    let mut mask = u64::from(ARITH) | rflags::TF | rflags::DF | rflags::NT;
    if i.opsize != Width::W {
        mask |= rflags::AC | rflags::ID;
    }
    if cpu.real_mode() || cpu.cpl <= cpu.iopl() {
        mask |= rflags::IF;
    }
    if cpu.cpl == 0 {
        mask |= rflags::IOPL;
    }
    let old = cpu.rflags() & !rflags::RF;
    cpu.set_rflags(old & !mask | new & mask);
    Ok(())
}

fn set_ac(cpu: &mut Cpu, on: bool) -> Result<(), Fault> {
    if cpu.cpl != 0 {
        return Err(Fault::UD);
    }
    let flags = &mut cpu.state.system_flags;
    *flags = if on { *flags | rflags::AC } else { *flags & !rflags::AC };
    cpu.update_tlb_key();
    Ok(())
}

/// CLAC: SDM Vol. 2, "CLAC—Clear AC Flag in EFLAGS Register".
fn clac(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    set_ac(cpu, false)
}

/// STAC: SDM Vol. 2, "STAC—Set AC Flag in EFLAGS Register".
fn stac(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    set_ac(cpu, true)
}

/// HLT: SDM Vol. 2, "HLT—Halt".
fn hlt(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.privileged()?;
    cpu.state.attention |= attention::HALTED | attention::INTERRUPT;
    Ok(())
}

impl Cpu {
    /// The time-stamp counter as the guest sees it.
    pub fn time_stamp(&mut self) -> u64 {
        self.system.tsc().wrapping_add(self.msr.tsc_offset)
    }
}

fn read_tsc(cpu: &mut Cpu) -> Result<(), Fault> {
    if cpu.cr4 & cr4::TSD != 0 && cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    let tsc = cpu.time_stamp();
    cpu.set_gpr(0, Width::D, tsc);
    cpu.set_gpr(2, Width::D, tsc >> 32);
    Ok(())
}

/// RDTSC: SDM Vol. 2, "RDTSC—Read Time-Stamp Counter".
fn rdtsc(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    read_tsc(cpu)
}

/// RDTSCP: SDM Vol. 2, "RDTSCP—Read Time-Stamp Counter and Processor ID".
fn rdtscp(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    read_tsc(cpu)?;
    let aux = cpu.msr.tsc_aux;
    cpu.set_gpr(1, Width::D, aux);
    Ok(())
}

/// RDPID: SDM Vol. 2, "RDPID—Read Processor ID".
fn rdpid(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Operand::Reg(r, _) = i.ops[0] else { return Err(Fault::UD) };
    let aux = cpu.msr.tsc_aux;
    cpu.set_gpr(r, Width::Q, aux);
    Ok(())
}

/// What MONITOR watches: a line of memory, and what was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Monitor {
    line: u64,
    contents: [u64; 8],
}

/// MONITOR: SDM Vol. 2, "MONITOR—Set Up Monitor Address". It has no extensions.
fn monitor(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    if !cpu.real_mode() && cpu.cpl != 0 {
        return Err(Fault::UD);
    }
    if cpu.reg(1) as u32 != 0 {
        return Err(Fault::GP0);
    }
    let at = cpu.gpr_w(0, i.addrsize);
    let linear = cpu.linear(i.mem.seg, at, 1, false)?;
    let line = cpu.translate_data(i.mem.seg, linear, false)? & !63;
    cpu.monitor = Some(Monitor { line, contents: cpu.line(line) });
    Ok(())
}

/// MWAIT: SDM Vol. 2, "MWAIT—Monitor Wait". ECX bit 0 lets masked interrupts end the wait. When the line was written
/// since MONITOR there is no wait; one that comes later is seen when the machine looks again: [`Cpu::monitor_hit`].
fn mwait(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    if !cpu.real_mode() && cpu.cpl != 0 {
        return Err(Fault::UD);
    }
    let extensions = cpu.reg(1) as u32;
    if extensions & !1 != 0 {
        return Err(Fault::GP0);
    }
    if cpu.monitor.is_none() || cpu.monitor_hit() {
        cpu.monitor = None;
        return Ok(());
    }
    cpu.inhibit.masked_wake = extensions & 1 != 0;
    cpu.state.attention |= attention::HALTED | attention::INTERRUPT;
    Ok(())
}

impl Cpu {
    fn line(&self, line: u64) -> [u64; 8] {
        std::array::from_fn(|n| self.ram.load(Phys(line + 8 * n as u64), 8).unwrap_or(0))
    }

    /// Whether the CPU waits in MWAIT for a write, which the machine should look for now and then.
    #[must_use]
    pub fn monitoring(&self) -> bool {
        self.monitor.is_some() && self.state.attention & attention::HALTED != 0
    }

    /// Whether an interrupt that is pending would end the wait of HLT or MWAIT.
    #[must_use]
    pub fn interruptible(&self) -> bool {
        self.flag(rflags::IF) || self.inhibit.masked_wake
    }

    /// Whether the monitored line was written.
    #[must_use]
    pub fn monitor_hit(&self) -> bool {
        self.monitor.is_some_and(|m| self.line(m.line) != m.contents)
    }

    /// Ends the wait of HLT or MWAIT.
    pub fn wake(&mut self) {
        self.state.attention &= !attention::HALTED;
        self.inhibit.masked_wake = false;
        self.monitor = None;
    }
}

/// RDPMC: SDM Vol. 2, "RDPMC—Read Performance-Monitoring Counters". There are none, so every index is invalid.
fn rdpmc(_cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    Err(Fault::GP0)
}

/// INVLPG: SDM Vol. 2, "INVLPG—Invalidate TLB Entries". The address is not accessed, so nothing checks it.
fn invlpg(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    cpu.privileged()?;
    let offset = cpu.offset(i, &i.mem);
    let flat = cpu.code64() && (i.mem.seg as u8) < Seg::Fs as u8;
    let base = if flat { 0 } else { cpu.state.seg[i.mem.seg as usize].base };
    let linear = base.wrapping_add(offset);
    cpu.flush_page(if cpu.code64() { linear } else { linear & 0xffff_ffff });
    Ok(())
}

/// INVPCID: SDM Vol. 2, "INVPCID—Invalidate Process-Context Identifier".
fn invpcid(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    cpu.privileged()?;
    let (Operand::Reg(r, w), Operand::Mem(_)) = (i.ops[0], i.ops[1]) else { return Err(Fault::UD) };
    let at = cpu.offset(i, &i.mem);
    let linear = cpu.linear(i.mem.seg, at, 16, false)?;
    let descriptor = cpu.read_16(i.mem.seg, linear)?;
    let (low, address) = (descriptor as u64, (descriptor >> 64) as u64);
    let pcid = low & 0xfff;
    let kind = cpu.reg(r) & w.mask();
    let bad_pcid = low >> 12 != 0 || (cpu.cr4 & cr4::PCIDE == 0 && pcid != 0);
    match kind {
        0 if bad_pcid || !cpu.is_canonical(address) => return Err(Fault::GP0),
        1 if bad_pcid => return Err(Fault::GP0),
        0 => cpu.flush_page(address),
        1 => cpu.flush_pcid(pcid as u16),
        2 | 3 => cpu.flush_tlb(),
        _ => return Err(Fault::GP0),
    }
    Ok(())
}

/// INVD, WBINVD: SDM Vol. 2. There is no cache to lose.
fn cache_control(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.privileged()
}
