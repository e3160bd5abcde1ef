//! SYSCALL, SYSRET, SYSENTER, SYSEXIT. The model is Intel's: SYSCALL is for 64-bit code only, SYSENTER for all.

use super::Function;
use crate::Cpu;
use crate::fault::Fault;
use crate::state::{SegReg, attention, efer, rflags};
use egret_isa::emit::Emit;
use egret_isa::insn::{Insn, Seg};
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Syscall => syscall,
        M::Sysret | M::Sysretq => sysret,
        M::Sysenter => sysenter,
        M::Sysexit | M::Sysexitq => sysexit,
        _ => return None,
    })
}

const RCX: u8 = 1;
const RDX: u8 = 2;
const RSP: u8 = 4;
const R11: u8 = 11;

/// Flat code: 64-bit or 32-bit.
fn flat_code(selector: u16, dpl: u16, long: bool) -> SegReg {
    let size = if long { SegReg::L } else { SegReg::DB };
    SegReg::new(selector, 0, u32::MAX, 0x9b | dpl << 5 | size | SegReg::G)
}

fn flat_data(selector: u16, dpl: u16) -> SegReg {
    SegReg::new(selector, 0, u32::MAX, 0x93 | dpl << 5 | SegReg::DB | SegReg::G)
}

fn enter(cpu: &mut Cpu, cs: SegReg, ss: SegReg, rip: u64) {
    let cpl = cs.dpl();
    cpu.state.seg[Seg::Ss as usize] = ss;
    cpu.enter_code(cs, rip, cpl);
}

/// SYSCALL: SDM Vol. 2, "SYSCALL—Fast System Call".
fn syscall(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    if !cpu.code64() || cpu.efer & efer::SCE == 0 {
        return Err(Fault::UD);
    }
    let flags = cpu.rflags() & !rflags::RF;
    cpu.set_gpr(RCX, Width::Q, cpu.state.rip);
    cpu.set_gpr(R11, Width::Q, flags);
    cpu.set_rflags(flags & !cpu.msr.sfmask);
    let base = (cpu.msr.star >> 32) as u16 & !3;
    enter(cpu, flat_code(base, 0, true), flat_data(base.wrapping_add(8), 0), cpu.msr.lstar);
    // A single-step trap comes only when the handler itself runs with TF.
    cpu.inhibit.no_trap = !cpu.flag(rflags::TF);
    Ok(())
}

/// SYSRET: SDM Vol. 2, "SYSRET—Return From Fast System Call".
fn sysret(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    if !cpu.code64() || cpu.efer & efer::SCE == 0 {
        return Err(Fault::UD);
    }
    cpu.privileged()?;
    let long = i.mnemonic == M::Sysretq;
    let rip = if long { cpu.canonical_address(cpu.reg(RCX))? } else { cpu.reg(RCX) & 0xffff_ffff };
    cpu.set_rflags(cpu.reg(R11) & 0x003c_7fd7);
    let base = (cpu.msr.star >> 48) as u16;
    let cs = base.wrapping_add(if long { 16 } else { 0 }) | 3;
    enter(cpu, flat_code(cs, 3, long), flat_data(base.wrapping_add(8) | 3, 3), rip);
    Ok(())
}

/// SYSENTER: SDM Vol. 2, "SYSENTER—Fast System Call".
fn sysenter(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    let base = cpu.msr.sysenter_cs as u16 & !3;
    if cpu.real_mode() || base == 0 {
        return Err(Fault::GP0);
    }
    let long = cpu.long_mode();
    cpu.state.system_flags &= !(rflags::VM | rflags::IF | rflags::RF);
    let (rsp, rip) = (cpu.msr.sysenter_esp, cpu.msr.sysenter_eip);
    let cut = if long { u64::MAX } else { 0xffff_ffff };
    cpu.set_gpr(RSP, Width::Q, rsp & cut);
    enter(cpu, flat_code(base, 0, long), flat_data(base.wrapping_add(8), 0), rip & cut);
    Ok(())
}

/// SYSEXIT: SDM Vol. 2, "SYSEXIT—Fast Return from Fast System Call".
fn sysexit(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let base = cpu.msr.sysenter_cs as u16 & !3;
    if base == 0 || cpu.real_mode() || cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    let long = i.mnemonic == M::Sysexitq;
    let cut = if long { u64::MAX } else { Width::D.mask() };
    let (rsp, rip) = (cpu.reg(RCX) & cut, cpu.reg(RDX) & cut);
    if long {
        cpu.canonical_address(rsp)?;
        cpu.canonical_address(rip)?;
    }
    let cs = base.wrapping_add(if long { 32 } else { 16 });
    cpu.set_gpr(RSP, Width::Q, rsp);
    enter(cpu, flat_code(cs | 3, 3, long), flat_data(cs.wrapping_add(8) | 3, 3), rip);
    cpu.state.attention |= attention::INTERRUPT;
    Ok(())
}
