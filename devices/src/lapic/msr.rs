//! The local APIC's MSRs: IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC registers.

use super::LocalApic;
use super::registers::*;
use egret_bus::{Device, Ticks};

/// An access to an MSR that is not there or with a value it does not take: #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the local APIC refuses this MSR access")]
pub struct BadMsr;

impl LocalApic {
    /// IA32_APIC_BASE.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.state.base.bits()
    }

    /// Writes IA32_APIC_BASE. Refused: reserved bits, and the changes of mode that SDM Vol. 3, "x2APIC State
    /// Transitions", forbids.
    pub fn set_base(&mut self, value: u64) -> Result<(), BadMsr> {
        let new = ApicBase::from_bits(value).ok_or(BadMsr)?;
        let was = self.state.base;
        let (on, x2) = (new.contains(ApicBase::EN), new.contains(ApicBase::EXTD));
        let (was_on, was_x2) = (was.contains(ApicBase::EN), was.contains(ApicBase::EXTD));
        if x2 && !on || was_x2 && on && !x2 || !was_on && x2 {
            return Err(BadMsr);
        }
        if was_on && !on {
            self.init_reset();
        }
        if x2 && !was_x2 {
            self.state.icr &= u64::from(u32::MAX);
        }
        self.state.base = (new - ApicBase::BSP) | (was & ApicBase::BSP);
        Ok(())
    }

    /// IA32_TSC_DEADLINE: zero unless armed.
    #[must_use]
    pub fn tsc_deadline(&self) -> u64 {
        self.state.timer.tsc_deadline
    }

    /// Writes IA32_TSC_DEADLINE; ignored unless the timer is in TSC-deadline mode. [`Device::deadline`] changes.
    pub fn set_tsc_deadline(&mut self, tsc: u64) {
        if self.lvt(Entry::Timer).contains(Lvt::TSC_DEADLINE) {
            self.state.timer.tsc_deadline = tsc;
        }
    }

    /// Reads an x2APIC MSR, 0x800 to 0x8ff.
    pub fn read_msr(&mut self, msr: u32, now: Ticks) -> Result<u64, BadMsr> {
        let register = msr.wrapping_sub(0x800);
        if !self.x2apic() || matches!(register, reg::EOI | reg::SELF_IPI | reg::DFR | reg::ICR_HIGH | reg::APR | reg::RRD) {
            return Err(BadMsr);
        }
        if register == reg::ICR_LOW {
            return Ok(self.state.icr);
        }
        self.tick(now);
        self.register(register, now).map(u64::from).ok_or(BadMsr)
    }

    /// Writes an x2APIC MSR, 0x800 to 0x8ff.
    pub fn write_msr(&mut self, msr: u32, value: u64, now: Ticks) -> Result<(), BadMsr> {
        let register = msr.wrapping_sub(0x800);
        if !self.x2apic() || matches!(register, reg::LDR | reg::DFR | reg::ICR_HIGH | reg::ID) {
            return Err(BadMsr);
        }
        self.tick(now);
        if register == reg::ICR_LOW {
            let fits = value as u32 & !ICR_LOW_WRITABLE == 0;
            self.state.icr = if fits { value } else { return Err(BadMsr) };
            self.send();
            return Ok(());
        }
        let value = u32::try_from(value).map_err(|_| BadMsr)?;
        let read_only = match register {
            reg::LVT_FIRST..=reg::LVT_LAST => Entry::of(register).read_only().bits(),
            _ => 0,
        };
        match writable(register) {
            Some(mask) if value & !(mask | read_only) == 0 => self.set_register(register, value, now),
            None if register == reg::SELF_IPI && value <= 0xff => self.self_ipi(value as u8),
            _ => return Err(BadMsr),
        }
        Ok(())
    }
}
