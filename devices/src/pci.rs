//! PCI: configuration mechanism #1 (ports CF8h-CFFh), bus 0, the host bridge, and the reset control register CF9h.
//! PCI Local Bus Specification 3.0, "Configuration Space".

use crate::Chip;
use egret_bus::{Access, Device, Event, Events, Shared};

/// Configuration space of one function, 256 bytes.
pub trait PciFunction: Send {
    /// Reads the dword at `offset`, a multiple of 4 below 256.
    fn config_read(&mut self, offset: u8) -> u32;
    /// Writes the bytes of the dword at `offset` whose bits are set in `mask`.
    fn config_write(&mut self, offset: u8, value: u32, mask: u32);
    /// Puts the function into its power-on state.
    fn reset(&mut self);
}

/// Where a function is on bus 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// Offsets in configuration space.
pub mod config {
    /// Vendor and device ID.
    pub const ID: u8 = 0x00;
    /// Command and status.
    pub const COMMAND: u8 = 0x04;
    /// Revision and class code.
    pub const CLASS: u8 = 0x08;
    /// Cache line size, latency timer, header type, BIST.
    pub const HEADER: u8 = 0x0c;
    /// Subsystem vendor and device ID.
    pub const SUBSYSTEM: u8 = 0x2c;
}

/// The host bridge as a function of bus 0: identification only. Its ids are the 82441FX's, which every guest knows.
pub struct HostBridge {
    command: u16,
}

impl HostBridge {
    const VENDOR_DEVICE: u32 = 0x1237_8086;
    const CLASS_REVISION: u32 = 0x0600_0002;
    /// Memory space and bus master are always on; SERR may be switched.
    const COMMAND_FIXED: u16 = 0x0006;
    const COMMAND_WRITABLE: u16 = 0x0100;
}

impl Default for HostBridge {
    fn default() -> Self {
        HostBridge { command: Self::COMMAND_FIXED }
    }
}

impl PciFunction for HostBridge {
    fn config_read(&mut self, offset: u8) -> u32 {
        match offset {
            config::ID => Self::VENDOR_DEVICE,
            config::COMMAND => self.command.into(),
            config::CLASS => Self::CLASS_REVISION,
            _ => 0,
        }
    }

    fn config_write(&mut self, offset: u8, value: u32, mask: u32) {
        if offset == config::COMMAND {
            let writable = Self::COMMAND_WRITABLE & mask as u16;
            self.command = self.command & !writable | value as u16 & writable;
        }
    }

    fn reset(&mut self) {
        *self = HostBridge::default();
    }
}

/// Region numbers, as the machine maps them.
pub mod region {
    /// Ports CF8h-CFBh: CONFIG_ADDRESS; CF9h by bytes is the reset control register.
    pub const ADDRESS: u8 = 0;
    /// Ports CFCh-CFFh: CONFIG_DATA.
    pub const DATA: u8 = 1;
}

const ENABLE: u32 = 1 << 31;
const RESET_CONTROL: u64 = 1;
/// CF9h: reset the CPU on a rising edge, by a system reset.
const RESET_CPU: u8 = 1 << 2;

/// What the ports hold; each function holds its own configuration space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    address: u32,
    reset_control: u8,
}

/// Configuration ports of bus 0.
pub struct PciHost {
    state: State,
    functions: Vec<(Slot, Shared<dyn PciFunction>)>,
    events: Events,
}

impl PciHost {
    /// A bus with no functions.
    #[must_use]
    pub fn new(events: Events) -> PciHost {
        PciHost { state: State::default(), functions: Vec::new(), events }
    }

    /// Plugs a function in; it replaces nothing: the first in a slot answers.
    pub fn add(&mut self, slot: Slot, function: Shared<dyn PciFunction>) {
        self.functions.push((slot, function));
    }

    /// The function and register that CONFIG_ADDRESS points to.
    fn target(&self) -> Option<(Shared<dyn PciFunction>, u8)> {
        let bus = self.state.address >> 16 & 0xff;
        let slot = Slot { device: (self.state.address >> 11 & 31) as u8, function: (self.state.address >> 8 & 7) as u8 };
        if self.state.address & ENABLE == 0 || bus != 0 {
            return None;
        }
        let (_, function) = self.functions.iter().find(|(s, _)| *s == slot)?;
        Some((function.clone(), self.state.address as u8 & 0xfc))
    }

    fn write_address(&mut self, at: Access, value: u64) {
        if at.size == 4 && at.offset == 0 {
            self.state.address = value as u32 & 0x80ff_fffc;
        } else if at.size == 1 && at.offset == RESET_CONTROL {
            let rising = value as u8 & !self.state.reset_control & RESET_CPU != 0;
            self.state.reset_control = value as u8 & 0x0e;
            if rising {
                self.events.raise(Event::Reset);
            }
        }
    }
}

impl Device for PciHost {
    fn name(&self) -> &'static str {
        "PCI host bridge"
    }

    fn read(&mut self, at: Access) -> u64 {
        if at.region == region::ADDRESS {
            return match (at.size, at.offset) {
                (4, 0) => self.state.address.into(),
                (1, RESET_CONTROL) => self.state.reset_control.into(),
                _ => u64::MAX,
            };
        }
        match self.target() {
            Some((function, register)) => u64::from(function.lock().config_read(register)) >> (8 * (at.offset & 3)),
            None => u64::MAX,
        }
    }

    fn write(&mut self, at: Access, value: u64) {
        if at.region == region::ADDRESS {
            return self.write_address(at, value);
        }
        if let Some((function, register)) = self.target() {
            let shift = 8 * (at.offset as u32 & 3);
            let ones = if at.size >= 4 { u32::MAX } else { (1u32 << (8 * u32::from(at.size))) - 1 };
            function.lock().config_write(register, (value as u32) << shift, ones << shift);
        }
    }

    fn reset(&mut self) {
        self.state = State::default();
        for (_, function) in &self.functions {
            function.lock().reset();
        }
    }
}

impl Chip for PciHost {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_bus::{Ticks, shared};

    fn at(region: u8, offset: u64, size: u8) -> Access {
        Access { region, offset, size, now: Ticks(0) }
    }

    #[test]
    fn configuration_mechanism_1() {
        let mut host = PciHost::new(Events::default());
        host.add(Slot { device: 0, function: 0 }, shared(HostBridge::default()));
        let mut read = |address: u32, offset, size| {
            host.write(at(region::ADDRESS, 0, 4), address.into());
            host.read(at(region::DATA, offset, size)) & ((1u64 << (8 * size)) - 1)
        };
        assert_eq!(read(0x8000_0000, 0, 4), 0x1237_8086);
        assert_eq!(read(0x8000_0000, 2, 2), 0x1237);
        assert_eq!(read(0x8000_0008, 3, 1), 0x06, "class: bridge");
        assert_eq!(read(0x8000_0800, 0, 4), 0xffff_ffff, "no device 1");
        assert_eq!(read(0x8001_0000, 0, 4), 0xffff_ffff, "no bus 1");
        assert_eq!(read(0x0000_0000, 0, 4), 0xffff_ffff, "not enabled");
    }

    #[test]
    fn writes_touch_only_the_bytes_written() {
        let mut host = PciHost::new(Events::default());
        host.add(Slot { device: 0, function: 0 }, shared(HostBridge::default()));
        host.write(at(region::ADDRESS, 0, 4), 0x8000_0004);
        host.write(at(region::DATA, 0, 1), 0xff);
        assert_eq!(host.read(at(region::DATA, 0, 2)) & 0xffff, 0x0006);
        host.write(at(region::DATA, 1, 1), 0xff);
        assert_eq!(host.read(at(region::DATA, 0, 2)) & 0xffff, 0x0106);
    }

    #[test]
    fn reset_control_needs_an_edge() {
        let events = Events::default();
        let mut host = PciHost::new(events.clone());
        for (value, want) in [(2, None), (6, Some(Event::Reset)), (6, None), (0, None), (4, Some(Event::Reset))] {
            host.write(at(region::ADDRESS, 1, 1), value);
            assert_eq!(events.take(), want, "write of {value}");
        }
    }
}
