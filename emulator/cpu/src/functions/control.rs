//! Control registers and the changes of mode they make (SDM Vol. 3, "Control Registers").

use super::Function;
use super::segment::{read_16, user_mode_prevention, write_16};
use crate::Cpu;
use crate::fault::Fault;
use crate::mmu::PHYS_BITS;
use crate::state::{SegReg, attention, cr0, cr4, efer};
use egret_isa::Feature;
use egret_isa::emit::Emit;
use egret_isa::insn::{Insn, Operand, Seg};
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Mov if matches!(i.ops[0], Operand::Cr(_)) => mov_to_cr,
        M::Mov if matches!(i.ops[1], Operand::Cr(_)) => mov_from_cr,
        M::Lmsw => lmsw,
        M::Smsw => smsw,
        M::Clts => clts,
        _ => return None,
    })
}

/// MOV to a control register: SDM Vol. 2, "MOV—Move to/from Control Registers".
fn mov_to_cr(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (Operand::Cr(n), Operand::Reg(r, w)) = (i.ops[0], i.ops[1]) else { return Err(Fault::UD) };
    exists(cpu, i, n)?;
    cpu.privileged()?;
    let value = cpu.reg(r) & w.mask();
    match n {
        0 => cpu.write_cr0(value),
        2 => {
            cpu.cr2 = value;
            Ok(())
        }
        3 => cpu.write_cr3(value),
        4 => cpu.write_cr4(value),
        _ => cpu.write_cr8(value),
    }
}

fn mov_from_cr(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (Operand::Reg(r, w), Operand::Cr(n)) = (i.ops[0], i.ops[1]) else { return Err(Fault::UD) };
    exists(cpu, i, n)?;
    cpu.privileged()?;
    let value = match n {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        _ => cpu.system.task_priority().into(),
    };
    cpu.set_gpr(r, w, value);
    Ok(())
}

/// LOCK MOV CR0, which other models take for CR8, is not one here.
fn exists(cpu: &Cpu, i: &Insn, n: u8) -> Result<(), Fault> {
    let known = matches!(n, 0 | 2 | 3 | 4) || (n == 8 && cpu.code64());
    if known && !i.lock { Ok(()) } else { Err(Fault::UD) }
}

/// LMSW: SDM Vol. 2, "LMSW—Load Machine Status Word". It can set PE but not clear it.
fn lmsw(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    cpu.privileged()?;
    let value = u64::from(read_16(cpu, i, 0)?);
    let low = cr0::PE | cr0::MP | cr0::EM | cr0::TS;
    let keep_pe = cpu.cr0 & cr0::PE;
    cpu.write_cr0(cpu.cr0 & !low | value & low | keep_pe)
}

/// SMSW: SDM Vol. 2, "SMSW—Store Machine Status Word".
fn smsw(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    user_mode_prevention(cpu)?;
    write_16(cpu, i, cpu.cr0)
}

/// CLTS: SDM Vol. 2, "CLTS—Clear Task-Switched Flag in CR0".
fn clts(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.privileged()?;
    cpu.cr0 &= !cr0::TS;
    cpu.update_context();
    Ok(())
}

/// CR0 bits that exist.
const CR0_KNOWN: u64 = cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::NW | cr0::CD | cr0::PG;

const CR3_KEEP: u64 = 1 << 63;

impl Cpu {
    /// Whether PAE paging (not long mode's) is in force.
    fn pae_paging(&self) -> bool {
        self.cr0 & cr0::PG != 0 && self.cr4 & cr4::PAE != 0 && !self.long_mode()
    }

    /// MOV to CR0 with its checks; switches between real, protected and long mode.
    pub fn write_cr0(&mut self, value: u64) -> Result<(), Fault> {
        let on = |bit: u64| value & bit != 0;
        if value >> 32 != 0 || (on(cr0::PG) && !on(cr0::PE)) || (on(cr0::NW) && !on(cr0::CD)) {
            return Err(Fault::GP0);
        }
        let new = value & CR0_KNOWN | cr0::ET;
        let was = (self.cr0, self.efer);
        let changed = new ^ self.cr0;
        if changed & cr0::PG != 0 {
            self.check_paging_switch(on(cr0::PG))?;
        }
        self.cr0 = new;
        if changed & cr0::PG != 0 && self.efer & efer::LME != 0 {
            self.efer = if on(cr0::PG) { self.efer | efer::LMA } else { self.efer & !efer::LMA };
        }
        if changed & (cr0::PG | cr0::CD | cr0::NW) != 0 && self.pae_paging() && self.load_pdptes().is_err() {
            (self.cr0, self.efer) = was;
            return Err(Fault::GP0);
        }
        if changed & (cr0::PG | cr0::PE | cr0::WP) != 0 {
            self.flush_tlb();
        }
        self.update_context();
        Ok(())
    }

    fn check_paging_switch(&self, on: bool) -> Result<(), Fault> {
        let cs_long = self.state.seg[Seg::Cs as usize].attr & SegReg::L != 0;
        let refused = if on {
            // Into long mode only with PAE, from a code segment that is not 64-bit, and not on a 286's TSS.
            self.efer & efer::LME != 0 && (self.cr4 & cr4::PAE == 0 || cs_long || self.tr.attr & 8 == 0)
        } else {
            self.cr4 & cr4::PCIDE != 0 || self.code64()
        };
        if refused { Err(Fault::GP0) } else { Ok(()) }
    }

    /// MOV to CR3 with its checks.
    pub fn write_cr3(&mut self, value: u64) -> Result<(), Fault> {
        let pcids = self.cr4 & cr4::PCIDE != 0;
        let keep = pcids && value & CR3_KEEP != 0;
        let value = if pcids { value & !CR3_KEEP } else { value };
        if value >> PHYS_BITS != 0 {
            return Err(Fault::GP0);
        }
        let was = self.cr3;
        self.cr3 = value;
        if self.pae_paging() && self.load_pdptes().is_err() {
            self.cr3 = was;
            return Err(Fault::GP0);
        }
        self.switch_context(keep);
        Ok(())
    }

    /// MOV to CR4 with its checks.
    pub fn write_cr4(&mut self, value: u64) -> Result<(), Fault> {
        let changed = value ^ self.cr4;
        let turned = |bit: u64, on: bool| changed & bit != 0 && (value & bit != 0) == on;
        // The number of paging levels cannot change under way.
        if value & !self.cr4_known() != 0 || (self.long_mode() && (value & cr4::PAE == 0 || changed & cr4::LA57 != 0)) {
            return Err(Fault::GP0);
        }
        if turned(cr4::PCIDE, true) && (!self.long_mode() || self.cr3 & 0xfff != 0) {
            return Err(Fault::GP0);
        }
        let was = self.cr4;
        self.cr4 = value;
        let reload = changed & (cr4::PGE | cr4::PSE | cr4::PAE | cr4::SMEP) != 0;
        if reload && self.pae_paging() && self.load_pdptes().is_err() {
            self.cr4 = was;
            return Err(Fault::GP0);
        }
        if changed & (cr4::PGE | cr4::PSE | cr4::PAE | cr4::SMEP | cr4::SMAP | cr4::PCIDE | cr4::PKE | cr4::LA57) != 0 {
            self.flush_tlb();
        }
        self.update_context();
        Ok(())
    }

    fn write_cr8(&mut self, value: u64) -> Result<(), Fault> {
        if value > 15 {
            return Err(Fault::GP0);
        }
        self.system.set_task_priority(value as u8);
        self.state.attention |= attention::INTERRUPT;
        Ok(())
    }

    /// WRMSR to IA32_EFER with its checks.
    pub fn write_efer(&mut self, value: u64) -> Result<(), Fault> {
        let has = |f: Feature, bit: u64| if self.model().has(f) { bit } else { 0 };
        let writable = has(Feature::Syscall, efer::SCE) | has(Feature::Lm, efer::LME) | has(Feature::Nx, efer::NXE);
        let changed = value ^ self.efer;
        if value & !(writable | efer::LMA) != 0 || (changed & efer::LME != 0 && self.cr0 & cr0::PG != 0) {
            return Err(Fault::GP0);
        }
        self.efer = self.efer & efer::LMA | value & writable;
        if changed & efer::NXE != 0 {
            self.flush_tlb();
        }
        self.update_context();
        Ok(())
    }
}
