//! The chips of the PC, one a file. A chip sees offsets into its own regions, interrupt lines and time; it never sees
//! a CPU, guest RAM or a port number. `egret-machine` wires them up.
//!
//! | file | chip |
//! |---|---|
//! | `lapic.rs` | local APIC: xAPIC page, x2APIC registers, timer with TSC-deadline |
//! | `ioapic.rs` | 82093AA-compatible I/O APIC, 24 pins, version 0x20 with the EOI register |
//! | `message.rs` | interrupt messages between I/O APIC and local APICs, and their routing |
//! | `pic.rs` | 8259A pair with the ELCR |
//! | `pit.rs` | 8254 interval timer and system control port B (61h) |
//! | `hpet.rs` | high precision event timer |
//! | `rtc.rs` | MC146818 real-time clock with CMOS RAM |
//! | `uart16550.rs` | 16550A UART |
//! | `i8042.rs` | 8042 keyboard controller with a PS/2 keyboard and mouse |
//! | `acpi_pm.rs` | ACPI fixed hardware: PM1a, power-management timer, GPE0, SMI command |
//! | `pci.rs` | PCI configuration mechanism #1, host bridge, reset control register CF9h |
//! | `dma8237.rs` | the two 8237A and their page registers |
//! | `port92.rs` | system control port A |
//! | `a20.rs` | the gate in address line 20 |
//! | `post.rs` | diagnostic port |
//! | `debug_exit.rs` | debug exit port |
//! | `debug_console.rs` | debug console (E9h) |
//! | `fpu_error.rs` | FERR#, IGNNE# and interrupt line 13 |
//! | `fw_cfg.rs` | firmware configuration |
//! | `test_device.rs` | what unit tests for virtual machines use |
#![forbid(unsafe_code)]

pub mod a20;
pub mod acpi_pm;
pub mod debug_console;
pub mod debug_exit;
pub mod dma8237;
pub mod fpu_error;
pub mod fw_cfg;
pub mod hpet;
pub mod pci;
pub mod port92;
pub mod post;
pub mod test_device;
pub mod uart16550;

mod clock;
mod i8042;
mod ioapic;
mod lapic;
mod message;
mod pic;
mod pit;
mod rtc;
mod wide;

pub use i8042::{Buttons, I8042, Key};
pub use ioapic::IoApic;
pub use lapic::{BadMsr, Lint, LocalApic};
pub use message::{Delivery, Destination, Message, Trigger, route, route_each};
pub use pic::Pic;
pub use pit::Pit;
pub use rtc::Rtc;
pub use uart16550::Uart16550;

/// The registers' and latches' types, for those who look inside a chip.
pub mod state {
    pub use crate::acpi_pm::State as AcpiPmState;
    pub use crate::dma8237::State as DmaState;
    pub use crate::i8042::State as I8042State;
    pub use crate::ioapic::State as IoApicState;
    pub use crate::lapic::State as LocalApicState;
    pub use crate::pci::State as PciHostState;
    pub use crate::pic::State as PicState;
    pub use crate::pit::State as PitState;
    pub use crate::rtc::State as RtcState;
    pub use crate::uart16550::State as Uart16550State;
}

/// A chip whose whole guest-visible state is one value, to be saved and put back at once.
pub trait Chip: egret_bus::Device {
    /// Everything the guest can see or cause, without the wiring.
    type State: Clone + PartialEq + std::fmt::Debug;

    /// The state now.
    fn state(&self) -> &Self::State;

    /// Puts a saved state back and drives the chip's lines accordingly.
    fn restore(&mut self, state: Self::State);
}
