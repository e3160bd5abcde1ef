//! Registers of the local APIC: numbers, bits, and which bits can be written.

use crate::message::Delivery;
use bitflags::bitflags;

/// Register numbers: page offset / 16, or MSR number − 0x800.
pub mod reg {
    pub const ID: u32 = 0x02;
    pub const VERSION: u32 = 0x03;
    pub const TPR: u32 = 0x08;
    pub const APR: u32 = 0x09;
    pub const PPR: u32 = 0x0a;
    pub const EOI: u32 = 0x0b;
    pub const RRD: u32 = 0x0c;
    pub const LDR: u32 = 0x0d;
    pub const DFR: u32 = 0x0e;
    pub const SVR: u32 = 0x0f;
    pub const ISR: u32 = 0x10;
    pub const ISR_LAST: u32 = 0x17;
    pub const TMR: u32 = 0x18;
    pub const TMR_LAST: u32 = 0x1f;
    pub const IRR: u32 = 0x20;
    pub const IRR_LAST: u32 = 0x27;
    pub const ESR: u32 = 0x28;
    pub const ICR_LOW: u32 = 0x30;
    pub const ICR_HIGH: u32 = 0x31;
    pub const LVT_FIRST: u32 = 0x32;
    pub const LVT_LAST: u32 = 0x37;
    pub const INITIAL_COUNT: u32 = 0x38;
    pub const CURRENT_COUNT: u32 = 0x39;
    pub const DIVIDE: u32 = 0x3e;
    pub const SELF_IPI: u32 = 0x3f;
}

/// Version 0x14 with six LVT entries and EOI-broadcast suppression.
pub const VERSION: u32 = 0x0105_0014;
/// ICR bits that hold something: vector, delivery, mode, level, trigger, shorthand.
pub const ICR_LOW_WRITABLE: u32 = 0x000c_cfff;

bitflags! {
    /// IA32_APIC_BASE without the address.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ApicBase: u64 {
        /// This is the bootstrap processor.
        const BSP = 1 << 8;
        /// x2APIC mode.
        const EXTD = 1 << 10;
        /// The APIC is on.
        const EN = 1 << 11;
        /// Address of the xAPIC page.
        const ADDRESS = 0x000f_ffff_ffff_f000;
    }

    /// Spurious-Interrupt Vector Register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Svr: u32 {
        /// The spurious vector.
        const VECTOR = 0xff;
        /// APIC software enable.
        const ENABLE = 1 << 8;
        /// Focus processor checking off.
        const FOCUS_OFF = 1 << 9;
        /// No EOI broadcast to I/O APICs.
        const EOI_SUPPRESS = 1 << 12;
    }

    /// An entry of the local vector table.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Lvt: u32 {
        /// Vector of fixed delivery.
        const VECTOR = 0xff;
        /// Delivery mode.
        const DELIVERY = 7 << 8;
        /// Delivery status (read-only, always idle here).
        const STATUS = 1 << 12;
        /// The pin is active low.
        const LOW = 1 << 13;
        /// A level-triggered interrupt was accepted and waits for its EOI (read-only).
        const REMOTE_IRR = 1 << 14;
        /// Level-triggered.
        const LEVEL = 1 << 15;
        /// Masked.
        const MASKED = 1 << 16;
        /// Timer: periodic.
        const PERIODIC = 1 << 17;
        /// Timer: TSC-deadline.
        const TSC_DEADLINE = 1 << 18;
    }

    /// Error Status Register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Esr: u32 {
        /// Sent a vector below 16.
        const SEND_VECTOR = 1 << 5;
        /// Received a vector below 16.
        const RECEIVE_VECTOR = 1 << 6;
        /// Access to a register that is not there.
        const REGISTER = 1 << 7;
    }
}

/// Entries of the local vector table, in register order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Timer,
    Thermal,
    Perf,
    Lint0,
    Lint1,
    Error,
}

impl Entry {
    pub fn of(register: u32) -> Entry {
        [Entry::Timer, Entry::Thermal, Entry::Perf, Entry::Lint0, Entry::Lint1, Entry::Error][(register - reg::LVT_FIRST) as usize % 6]
    }

    pub fn writable(self) -> Lvt {
        let common = Lvt::VECTOR | Lvt::MASKED;
        match self {
            Entry::Timer => common | Lvt::PERIODIC | Lvt::TSC_DEADLINE,
            Entry::Thermal | Entry::Perf => common | Lvt::DELIVERY,
            Entry::Lint0 | Entry::Lint1 => common | Lvt::DELIVERY | Lvt::LOW | Lvt::LEVEL,
            Entry::Error => common,
        }
    }

    /// Bits that a write may carry without effect; only the pins have a remote IRR.
    pub fn read_only(self) -> Lvt {
        if matches!(self, Entry::Lint0 | Entry::Lint1) { Lvt::STATUS | Lvt::REMOTE_IRR } else { Lvt::STATUS }
    }
}

/// The bits of a register that can be written; `None` for read-only registers and holes.
pub fn writable(register: u32) -> Option<u32> {
    Some(match register {
        reg::TPR => 0xff,
        reg::EOI | reg::ESR => 0,
        reg::LDR => 0xff00_0000,
        reg::DFR => 0xf000_0000,
        reg::SVR => Svr::all().bits(),
        reg::ICR_LOW => ICR_LOW_WRITABLE,
        reg::ICR_HIGH => 0xff00_0000,
        reg::LVT_FIRST..=reg::LVT_LAST => Entry::of(register).writable().bits(),
        reg::INITIAL_COUNT => u32::MAX,
        reg::DIVIDE => 0b1011,
        _ => return None,
    })
}

pub fn delivery_of(lvt: Lvt) -> Option<Delivery> {
    Delivery::from_field((lvt & Lvt::DELIVERY).bits() >> 8)
}
