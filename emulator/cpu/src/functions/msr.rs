//! RDMSR and WRMSR (SDM Vol. 4; Vol. 3, "MTRRs" and "Page Attribute Table").

use super::Function;
use crate::Cpu;
use crate::fault::Fault;
use crate::functions::debug::debugctl;
use crate::state::attention;
use egret_isa::Feature;
use egret_isa::emit::Emit;
use egret_isa::insn::{Insn, Seg};
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Rdmsr => rdmsr,
        M::Wrmsr => wrmsr,
        _ => return None,
    })
}

/// MSR numbers, by the names of the manual.
mod number {
    pub const P5_MC_ADDR: u32 = 0x00;
    pub const P5_MC_TYPE: u32 = 0x01;
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const BIOS_UPDT_TRIG: u32 = 0x79;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const MTRRCAP: u32 = 0xfe;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MCG_CTL: u32 = 0x17b;
    pub const MC0_CTL: u32 = 0x400;
    pub const MC_LAST: u32 = MC0_CTL + 4 * super::BANKS - 1;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const MTRR_PHYS_FIRST: u32 = 0x200;
    pub const MTRR_PHYS_LAST: u32 = 0x20f;
    pub const MTRR_FIX64K: u32 = 0x250;
    pub const MTRR_FIX16K: u32 = 0x258;
    pub const MTRR_FIX16K_LAST: u32 = 0x259;
    pub const MTRR_FIX4K: u32 = 0x268;
    pub const MTRR_FIX4K_LAST: u32 = 0x26f;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const X2APIC_FIRST: u32 = 0x800;
    pub const X2APIC_LAST: u32 = 0x8ff;
    pub const XSS: u32 = 0xda0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}

/// IA32_MTRRCAP: eight variable ranges, fixed ranges, write combining.
const MTRRCAP: u64 = 8 | 1 << 8 | 1 << 10;
/// Bits of IA32_MISC_ENABLE that exist: fast strings, thermal control, performance monitoring, BTS and PEBS unavailable, SpeedStep,
/// MONITOR, CPUID limit, xTPR messages, XD disable. What they switch is not there, so they are kept and nothing else.
const MISC_ENABLE_KNOWN: u64 = 1 | 1 << 3 | 1 << 7 | 3 << 11 | 1 << 16 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 34;
/// Of these read-only: BTS and PEBS unavailable.
const MISC_ENABLE_FIXED: u64 = 3 << 11;
/// IA32_FEATURE_CONTROL: locked, with VMX and SMX off.
const FEATURE_CONTROL_LOCK: u64 = 1;
/// The microcode revision reported in IA32_BIOS_SIGN_ID's upper half.
const MICROCODE: u64 = 1 << 32;
/// IA32_ARCH_CAPABILITIES: nothing here executes ahead of itself, so it is immune to what comes of that. RDCL_NO,
/// SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO,
/// RFDS_NO, ITS_NO.
const ARCH_CAPABILITIES: u64 =
    1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 20 | 1 << 24 | 1 << 26 | 1 << 27 | 1 << 62;

/// Banks of machine-check registers. Nothing here ever fails, so they hold what is written.
const BANKS: u32 = 10;
/// IA32_MCG_CAP: the banks, and IA32_MCG_CTL is there.
const MCG_CAP: u64 = BANKS as u64 | 1 << 8;
/// IA32_MCG_STATUS: RIPV, EIPV, MCIP.
const MCG_STATUS_KNOWN: u64 = 7;

/// The feature that an MSR comes with.
fn comes_with(which: u32) -> Option<Feature> {
    Some(match which {
        number::TSC_ADJUST => Feature::TscAdjust,
        number::SYSENTER_CS..=number::SYSENTER_EIP => Feature::Sep,
        number::PAT => Feature::Pat,
        number::MTRRCAP => Feature::Mtrr,
        _ if mtrr(which) => Feature::Mtrr,
        number::P5_MC_ADDR | number::P5_MC_TYPE => Feature::Mce,
        number::MCG_CAP..=number::MCG_CTL | number::MC0_CTL..=number::MC_LAST => Feature::Mca,
        number::XSS => Feature::Xsaves,
        number::ARCH_CAPABILITIES => Feature::ArchCaps,
        number::STAR | number::FMASK => Feature::Syscall,
        number::LSTAR | number::CSTAR | number::FS_BASE..=number::KERNEL_GS_BASE => Feature::Lm,
        _ => return None,
    })
}

/// RDMSR: SDM Vol. 2, "RDMSR—Read From Model Specific Register".
fn rdmsr(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.privileged()?;
    let which = cpu.reg(1) as u32;
    let value = cpu.read_msr(which)?;
    cpu.set_gpr(0, Width::D, value);
    cpu.set_gpr(2, Width::D, value >> 32);
    Ok(())
}

/// WRMSR: SDM Vol. 2, "WRMSR—Write to Model Specific Register".
fn wrmsr(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.privileged()?;
    let which = cpu.reg(1) as u32;
    let value = cpu.reg(0) & 0xffff_ffff | cpu.reg(2) << 32;
    cpu.write_msr(which, value)
}

impl Cpu {
    /// Reads an MSR; #GP(0) when there is none of that number.
    pub fn read_msr(&mut self, which: u32) -> Result<u64, Fault> {
        self.msr_exists(which)?;
        Ok(match which {
            number::TSC => self.time_stamp(),
            number::TSC_ADJUST => self.msr.tsc_offset,
            number::APIC_BASE | number::TSC_DEADLINE | number::X2APIC_FIRST..=number::X2APIC_LAST => self.read_apic(which)?,
            number::SYSENTER_CS => self.msr.sysenter_cs,
            number::SYSENTER_ESP => self.msr.sysenter_esp,
            number::SYSENTER_EIP => self.msr.sysenter_eip,
            number::PAT => self.msr.pat,
            number::EFER => self.efer,
            number::STAR => self.msr.star,
            number::LSTAR => self.msr.lstar,
            number::CSTAR => self.msr.cstar,
            number::FMASK => self.msr.sfmask,
            number::FS_BASE => self.state.seg[Seg::Fs as usize].base,
            number::GS_BASE => self.state.seg[Seg::Gs as usize].base,
            number::KERNEL_GS_BASE => self.msr.kernel_gs_base,
            number::TSC_AUX => self.msr.tsc_aux,
            number::BIOS_SIGN_ID => MICROCODE,
            number::MTRRCAP => MTRRCAP,
            number::ARCH_CAPABILITIES => ARCH_CAPABILITIES,
            number::PLATFORM_ID | number::P5_MC_ADDR | number::P5_MC_TYPE => 0,
            number::MCG_CAP => MCG_CAP,
            number::MCG_STATUS | number::MCG_CTL | number::MC0_CTL..=number::MC_LAST => self.kept(which),
            number::MISC_ENABLE => self.msr.misc_enable,
            number::DEBUGCTL => self.msr.debugctl,
            number::FEATURE_CONTROL => FEATURE_CONTROL_LOCK,
            // No supervisor state components.
            number::XSS => 0,
            _ if mtrr(which) => self.kept(which),
            _ => return Err(self.unknown_msr(which)),
        })
    }

    /// Writes an MSR; #GP(0) when there is none of that number or it does not take the value.
    pub fn write_msr(&mut self, which: u32, value: u64) -> Result<(), Fault> {
        self.msr_exists(which)?;
        match which {
            number::TSC => {
                let offset = value.wrapping_sub(self.system.tsc());
                self.set_tsc_offset(offset);
            }
            number::TSC_ADJUST => self.set_tsc_offset(value),
            number::APIC_BASE | number::TSC_DEADLINE | number::X2APIC_FIRST..=number::X2APIC_LAST => self.write_apic(which, value)?,
            number::SYSENTER_CS => self.msr.sysenter_cs = value & 0xffff_ffff,
            number::SYSENTER_ESP => self.msr.sysenter_esp = self.canonical_base(value)?,
            number::SYSENTER_EIP => self.msr.sysenter_eip = self.canonical_base(value)?,
            number::PAT => self.msr.pat = memory_types(value, |t| matches!(t, 0 | 1 | 4..=7))?,
            number::EFER => self.write_efer(value)?,
            number::STAR => self.msr.star = value,
            number::LSTAR => self.msr.lstar = self.canonical_base(value)?,
            number::CSTAR => self.msr.cstar = self.canonical_base(value)?,
            number::FMASK if value >> 32 == 0 => self.msr.sfmask = value,
            number::FS_BASE => self.state.seg[Seg::Fs as usize].base = self.canonical_base(value)?,
            number::GS_BASE => self.state.seg[Seg::Gs as usize].base = self.canonical_base(value)?,
            number::KERNEL_GS_BASE => self.msr.kernel_gs_base = self.canonical_base(value)?,
            number::TSC_AUX if value >> 32 == 0 => self.msr.tsc_aux = value,
            // Loading microcode: there is none that would fit, and chips ignore what does not fit.
            number::BIOS_SIGN_ID | number::BIOS_UPDT_TRIG => {}
            number::MISC_ENABLE if value & !MISC_ENABLE_KNOWN == 0 => {
                self.msr.misc_enable = value & !MISC_ENABLE_FIXED | MISC_ENABLE_FIXED;
            }
            number::DEBUGCTL if value & !debugctl::BTF == 0 => self.msr.debugctl = value,
            number::XSS if value == 0 => {}
            number::MCG_STATUS | number::MCG_CTL | number::MC0_CTL..=number::MC_LAST => self.write_machine_check(which, value)?,
            number::P5_MC_ADDR | number::P5_MC_TYPE => {}
            _ if mtrr(which) => self.write_mtrr(which, value)?,
            number::FMASK | number::TSC_AUX | number::MISC_ENABLE | number::MCG_CAP => return Err(Fault::GP0),
            number::DEBUGCTL | number::XSS | number::FEATURE_CONTROL => return Err(Fault::GP0),
            number::MTRRCAP | number::ARCH_CAPABILITIES | number::PLATFORM_ID => return Err(Fault::GP0),
            _ => return Err(self.unknown_msr(which)),
        }
        Ok(())
    }

    /// #GP(0) for an MSR of a feature that the model does not have.
    fn msr_exists(&mut self, which: u32) -> Result<(), Fault> {
        let model = self.model();
        let either = |a, b| model.has(a) || model.has(b);
        let there = match which {
            number::TSC_AUX => either(Feature::Rdtscp, Feature::Rdpid),
            number::EFER => either(Feature::Lm, Feature::Nx),
            _ => comes_with(which).is_none_or(|f| model.has(f)),
        };
        if there { Ok(()) } else { Err(Fault::GP0) }
    }

    fn unknown_msr(&mut self, which: u32) -> Fault {
        self.count_unknown(&format!("msr {which:#x}"));
        Fault::GP0
    }

    fn read_apic(&mut self, which: u32) -> Result<u64, Fault> {
        let value = self.system.apic_read(which).ok_or(Fault::GP0)?;
        // The timer compares with the counter as the system knows it.
        let shift = if which == number::TSC_DEADLINE && value != 0 { self.msr.tsc_offset } else { 0 };
        Ok(value.wrapping_add(shift))
    }

    fn write_apic(&mut self, which: u32, value: u64) -> Result<(), Fault> {
        let shift = if which == number::TSC_DEADLINE && value != 0 { self.msr.tsc_offset } else { 0 };
        // Zero would disarm the timer; a deadline there is long past.
        let shifted = if value == 0 { 0 } else { value.wrapping_sub(shift).max(1) };
        if !self.system.apic_write(which, shifted) {
            return Err(Fault::GP0);
        }
        self.state.attention |= attention::INTERRUPT;
        Ok(())
    }

    /// Moves the time-stamp counter; an armed deadline keeps its value, so it is armed anew.
    fn set_tsc_offset(&mut self, offset: u64) {
        let deadline = self.read_apic(number::TSC_DEADLINE).unwrap_or(0);
        self.msr.tsc_offset = offset;
        if deadline != 0 {
            // It was armed a moment ago, so the APIC takes it.
            let _ = self.write_apic(number::TSC_DEADLINE, deadline);
        }
    }

    /// The MTRRs as firmware leaves them: everything is write-back, but the video hole and the `hole` that is a power of two
    /// bytes long and ends at 4 GiB are uncacheable.
    pub fn firmware_mtrrs(&mut self, hole: u64) {
        const FIXED_ENABLE_WRITE_BACK: u64 = 0xc06;
        const VALID: u64 = 1 << 11;
        const WRITE_BACK: u64 = 0x0606_0606_0606_0606;
        let mask = ((1u64 << crate::mmu::PHYS_BITS) - 1) & !hole.wrapping_sub(1);
        let rows = [
            (number::MTRR_PHYS_FIRST, (1u64 << 32).wrapping_sub(hole)),
            (number::MTRR_PHYS_FIRST + 1, mask | VALID),
            (number::MTRR_FIX64K, WRITE_BACK),
            (number::MTRR_FIX16K, WRITE_BACK),
            (number::MTRR_DEF_TYPE, FIXED_ENABLE_WRITE_BACK),
        ];
        self.msr.plain.extend(rows);
        self.msr.plain.extend((number::MTRR_FIX4K..=number::MTRR_FIX4K_LAST).map(|n| (n, WRITE_BACK)));
    }

    /// An MSR that only holds what was written.
    fn kept(&self, which: u32) -> u64 {
        self.msr.plain.get(&which).copied().unwrap_or(0)
    }

    /// SDM Vol. 3, "Machine-Check MSRs": control registers take all zeros or all ones, MCi_STATUS only zero.
    fn write_machine_check(&mut self, which: u32, value: u64) -> Result<(), Fault> {
        const CTL: u32 = 0;
        const STATUS: u32 = 1;
        let ok = match which {
            number::MCG_STATUS => value & !MCG_STATUS_KNOWN == 0,
            number::MCG_CTL => value == 0 || value == u64::MAX,
            _ if which & 3 == CTL => value == 0 || value == u64::MAX,
            _ if which & 3 == STATUS => value == 0,
            _ => true,
        };
        if !ok {
            return Err(Fault::GP0);
        }
        self.msr.plain.insert(which, value);
        Ok(())
    }

    fn write_mtrr(&mut self, which: u32, value: u64) -> Result<(), Fault> {
        let address = (1u64 << crate::mmu::PHYS_BITS) - 0x1000;
        let valid_type = |t: u64| matches!(t, 0 | 1 | 4..=6);
        let ok = match which {
            // Type, fixed-range enable, enable.
            number::MTRR_DEF_TYPE => value & !0xcff == 0 && valid_type(value & 0xff),
            number::MTRR_PHYS_FIRST..=number::MTRR_PHYS_LAST if which & 1 == 0 => {
                value & !(address | 0xff) == 0 && valid_type(value & 0xff)
            }
            number::MTRR_PHYS_FIRST..=number::MTRR_PHYS_LAST => value & !(address | 1 << 11) == 0,
            _ => memory_types(value, valid_type).is_ok(),
        };
        if !ok {
            return Err(Fault::GP0);
        }
        self.msr.plain.insert(which, value);
        Ok(())
    }
}

/// Whether a number is an MTRR's. They are kept as written; there are no caches to type.
fn mtrr(which: u32) -> bool {
    matches!(
        which,
        number::MTRR_DEF_TYPE
            | number::MTRR_PHYS_FIRST..=number::MTRR_PHYS_LAST
            | number::MTRR_FIX64K
            | number::MTRR_FIX16K..=number::MTRR_FIX16K_LAST
            | number::MTRR_FIX4K..=number::MTRR_FIX4K_LAST
    )
}

/// The value, when each of its eight bytes is a memory type that `valid` takes.
fn memory_types(value: u64, valid: impl Fn(u64) -> bool) -> Result<u64, Fault> {
    if value.to_le_bytes().into_iter().all(|t| valid(t.into())) { Ok(value) } else { Err(Fault::GP0) }
}
