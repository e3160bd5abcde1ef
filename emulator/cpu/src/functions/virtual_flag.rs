//! The virtual interrupt flag: CR4.VME in V86, CR4.PVI at CPL 3 (SDM Vol. 3, "Interrupt and Exception Handling in
//! Virtual-8086 Mode" and "Protected-Mode Virtual Interrupts").

use crate::Cpu;
use crate::fault::Fault;
use crate::state::{cr4, rflags};
use egret_isa::insn::Seg;
use egret_isa::ops::Width;

/// Whose flag an instruction that means IF changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    /// IF itself.
    Real,
    /// VIF in its place.
    Virtual,
}

const IF_TF: u64 = rflags::IF | rflags::TF;

impl Cpu {
    /// V86 with IOPL below 3 under CR4.VME.
    pub(super) fn virtual_v86(&self) -> bool {
        self.v86() && self.iopl() < 3 && self.cr4 & cr4::VME != 0
    }

    /// The flag that CLI and STI change, or #GP(0).
    pub(super) fn interrupt_flag(&self) -> Result<Flag, Fault> {
        if self.real_mode() || self.cpl <= self.iopl() {
            return Ok(Flag::Real);
        }
        let enabled = if self.v86() { cr4::VME } else { cr4::PVI };
        if self.cpl == 3 && self.cr4 & enabled != 0 { Ok(Flag::Virtual) } else { Err(Fault::GP0) }
    }

    /// STI with the virtual flag: a virtual interrupt that waits comes in through #GP.
    pub(super) fn set_virtual_flag(&mut self) -> Result<(), Fault> {
        if self.flag(rflags::VIP) {
            return Err(Fault::GP0);
        }
        self.state.system_flags |= rflags::VIF;
        Ok(())
    }

    pub(super) fn clear_virtual_flag(&mut self) {
        self.state.system_flags &= !rflags::VIF;
    }

    /// FLAGS as V86 code with a virtual flag sees them: VIF in IF's place, IOPL 3.
    pub(super) fn virtual_image(&self) -> u64 {
        let flag = if self.flag(rflags::VIF) { rflags::IF } else { 0 };
        self.rflags() & 0xffff & !rflags::IF | flag | rflags::IOPL
    }

    /// POPF and IRET of 16 bits in V86 with a virtual flag: FLAGS from `image`, or #GP(0) for what the monitor must see.
    pub(super) fn set_virtual_image(&mut self, image: u64) -> Result<(), Fault> {
        if image & rflags::TF != 0 || (image & rflags::IF != 0 && self.flag(rflags::VIP)) {
            return Err(Fault::GP0);
        }
        let mask = 0xffff & !(rflags::IF | rflags::IOPL);
        let flag = if image & rflags::IF != 0 { rflags::VIF } else { 0 };
        let old = self.rflags() & !(rflags::VIF | rflags::RF);
        self.set_rflags(old & !mask | image & mask | flag);
        Ok(())
    }

    /// Whether INT `vector` in V86 goes to the 8086 program's own handler: its bit in the software interrupt redirection bit
    /// map, which ends where the I/O permission bit map begins, is clear.
    pub(super) fn redirected(&mut self, vector: u8) -> Result<bool, Fault> {
        const MAP_BASE: u64 = 0x66;
        const BYTES: u64 = 32;
        if self.cr4 & cr4::VME == 0 {
            return Ok(false);
        }
        let limit = u64::from(self.tr.limit);
        if !self.tr.present() || self.tr.attr & 8 == 0 || limit < MAP_BASE + 1 {
            return Err(Fault::GP0);
        }
        let map = self.read_system(self.tr.base.wrapping_add(MAP_BASE), 2)?;
        let at = map.wrapping_sub(BYTES).wrapping_add(u64::from(vector >> 3));
        if map < BYTES || at > limit {
            return Err(Fault::GP0);
        }
        let bits = self.read_system(self.tr.base.wrapping_add(at), 1)?;
        Ok(bits >> (vector & 7) & 1 == 0)
    }

    /// INT n through the 8086 program's interrupt table at linear address 0.
    pub(super) fn interrupt_8086(&mut self, vector: u8) -> Result<(), Fault> {
        let virtual_flag = self.virtual_v86();
        let far = self.read_linear(Seg::Ds, u64::from(vector) * 4, 4)?;
        let image = if virtual_flag { self.virtual_image() } else { self.rflags() & 0xffff };
        self.push(2, image)?;
        self.push(2, self.state.seg[Seg::Cs as usize].selector.into())?;
        self.push(2, self.state.rip & Width::W.mask())?;
        let cleared = if virtual_flag { rflags::VIF | rflags::TF } else { IF_TF };
        self.set_rflags(self.rflags() & !(cleared | rflags::NT));
        self.load_real(Seg::Cs, (far >> 16) as u16);
        self.state.rip = far & 0xffff;
        self.inhibit.no_trap = true;
        Ok(())
    }

    /// After a return to V86 or CPL 3: a virtual interrupt that waits and may come in raises #GP(0) before the next instruction.
    pub(super) fn virtual_interrupt(&mut self) {
        const BOTH: u64 = rflags::VIF | rflags::VIP;
        let watched = self.virtual_v86() || (!self.v86() && self.cpl == 3 && self.cr4 & cr4::PVI != 0);
        if watched && self.state.system_flags & BOTH == BOTH {
            self.raise(Fault::GP0);
        }
    }
}
