//! What the CPU asks of the machine around it.

use egret_bus::Phys;

/// The machine as the CPU sees it.
pub trait System: Send {
    /// IN.
    fn port_read(&mut self, port: u16, size: u8) -> u32;
    /// OUT.
    fn port_write(&mut self, port: u16, size: u8, value: u32);
    /// A read of physical memory that is not RAM.
    fn mmio_read(&mut self, addr: Phys, size: u8) -> u64;
    /// A write to physical memory that is not RAM.
    fn mmio_write(&mut self, addr: Phys, size: u8, value: u64);
    /// Whether INTR is asserted.
    fn interrupt_pending(&mut self) -> bool;
    /// Acknowledges INTR: the vector.
    fn acknowledge(&mut self) -> Option<u8>;
    /// Takes a pending NMI.
    fn take_nmi(&mut self) -> bool {
        false
    }
    /// The time-stamp counter.
    fn tsc(&mut self) -> u64;
    /// A random number for RDRAND; `None` when there is none to be had.
    fn random(&mut self) -> Option<u64> {
        None
    }
    /// Tells where in the slice the CPU is, as budget left, before it asks for interrupts.
    fn position(&mut self, _budget: i64) {}
    /// Reads an MSR of the local APIC (1Bh, 6E0h, 800h-8FFh); `None` when there is none.
    fn apic_read(&mut self, _msr: u32) -> Option<u64> {
        None
    }
    /// Writes an MSR of the local APIC; false when there is none or the value is refused.
    fn apic_write(&mut self, _msr: u32, _value: u64) -> bool {
        false
    }
    /// The task priority (CR8).
    fn task_priority(&mut self) -> u8 {
        0
    }
    /// Sets the task priority (CR8).
    fn set_task_priority(&mut self, _value: u8) {}
    /// Drives FERR# (high: an unmasked x87 exception with CR0.NE clear).
    fn set_ferr(&mut self, _level: bool) {}
    /// Whether the board asserts IGNNE#: x87 exceptions are to be ignored.
    fn ignne(&mut self) -> bool {
        false
    }
    /// Whether address line 20 is passed (A20M# is not asserted).
    fn a20(&mut self) -> bool {
        true
    }
    /// Whether the device side wants the run loop back after the last access.
    fn wants_attention(&mut self) -> bool {
        false
    }
}
