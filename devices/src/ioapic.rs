//! I/O APIC: Intel 82093AA datasheet, with version 0x20's EOI register. Region 0: the register window, 4 KiB.
//!
//! Its messages wait for [`IoApic::take_messages`]; the machine routes them after each access, line change and EOI.

use crate::Chip;
use crate::message::{Delivery, Destination, Message, Trigger};
use bitflags::bitflags;
use egret_bus::{Access, Device};

/// Pins, and entries of the redirection table.
pub const PINS: usize = 24;

/// Offsets in the window.
mod window {
    pub const IOREGSEL: u64 = 0x00;
    pub const IOWIN: u64 = 0x10;
    pub const EOI: u64 = 0x40;
}

/// Registers behind IOWIN.
mod reg {
    pub const IOAPICID: u8 = 0;
    pub const IOAPICVER: u8 = 1;
    pub const IOAPICARB: u8 = 2;
    pub const IOREDTBL: u8 = 0x10;
}

/// Version 0x20, 24 entries.
const VERSION: u32 = 0x20 | (PINS as u32 - 1) << 16;

bitflags! {
    /// An entry of the redirection table.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Redirection: u64 {
        /// Vector.
        const INTVEC = 0xff;
        /// Delivery mode.
        const DELMOD = 7 << 8;
        /// Logical destination.
        const DESTMOD = 1 << 11;
        /// Delivery status (read-only, always idle here).
        const DELIVS = 1 << 12;
        /// The pin is active low.
        const INTPOL = 1 << 13;
        /// A level interrupt was sent and waits for its EOI (read-only).
        const REMOTE_IRR = 1 << 14;
        /// Level-triggered.
        const LEVEL = 1 << 15;
        /// Masked.
        const MASK = 1 << 16;
        /// Destination.
        const DEST = 0xff << 56;
    }
}

/// What an I/O APIC holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    id: u8,
    select: u8,
    table: [Redirection; PINS],
    /// Electrical level of each pin.
    pins: u32,
    messages: Vec<Message>,
}

/// An I/O APIC.
pub struct IoApic {
    state: State,
    id: u8,
    active_low: u32,
}

impl IoApic {
    /// Most messages kept for the machine. A line change or EOI makes at most one for each pin.
    const LIMIT: usize = 256;

    /// The I/O APIC with `id` (0 to 15). `active_low` has a bit for each pin that is wired active low, as PCI's
    /// lines are: asserting it drives the pin low, and a guest should set INTPOL for it.
    #[must_use]
    pub fn new(id: u8, active_low: u32) -> IoApic {
        IoApic { state: Self::power_on(id, active_low), id, active_low }
    }

    fn power_on(id: u8, active_low: u32) -> State {
        State { id: id & 0xf, select: 0, table: [Redirection::MASK; PINS], pins: active_low, messages: Vec::new() }
    }

    /// Asserts or releases the interrupt line at `pin`; pins from [`PINS`] are not there.
    pub fn set_line(&mut self, pin: u8, asserted: bool) {
        let pin = usize::from(pin);
        if pin >= PINS {
            return;
        }
        let (bit, high) = (1u32 << pin, asserted != (self.active_low >> pin & 1 != 0));
        let was = self.state.pins;
        self.state.pins = if high { was | bit } else { was & !bit };
        self.service(pin, self.state.pins != was);
    }

    /// A local APIC ended the level-triggered interrupt with `vector`: entries that wait for it send again if their
    /// pin is still asserted.
    pub fn eoi(&mut self, vector: u8) {
        for pin in 0..PINS {
            let entry = &mut self.state.table[pin];
            if entry.contains(Redirection::REMOTE_IRR) && (*entry & Redirection::INTVEC).bits() == vector.into() {
                entry.remove(Redirection::REMOTE_IRR);
                self.service(pin, false);
            }
        }
    }

    /// Takes the messages to be routed, oldest first.
    pub fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.state.messages)
    }

    /// Whether messages wait to be routed.
    #[must_use]
    pub fn message_pending(&self) -> bool {
        !self.state.messages.is_empty()
    }

    /// Sends a pin's message if it is due. An edge on a masked pin is lost, as the datasheet has it.
    fn service(&mut self, pin: usize, changed: bool) {
        let entry = self.state.table[pin];
        let active = (self.state.pins >> pin & 1 != 0) != entry.contains(Redirection::INTPOL);
        if !active || entry.contains(Redirection::MASK) {
            return;
        }
        let Some(delivery) = Delivery::from_field(((entry & Redirection::DELMOD).bits() >> 8) as u32) else { return };
        // NMI, SMI, INIT and ExtINT are edges whatever the trigger mode says.
        let level = entry.contains(Redirection::LEVEL) && matches!(delivery, Delivery::Fixed | Delivery::LowestPriority);
        let due = if level { !entry.contains(Redirection::REMOTE_IRR) } else { changed };
        if !due || self.state.messages.len() >= Self::LIMIT {
            return;
        }
        if level {
            self.state.table[pin].insert(Redirection::REMOTE_IRR);
        }
        self.state.messages.push(Message {
            destination: Destination::from_byte(entry.contains(Redirection::DESTMOD), (entry.bits() >> 56) as u8),
            delivery,
            vector: (entry & Redirection::INTVEC).bits() as u8,
            trigger: if level { Trigger::Level } else { Trigger::Edge },
        });
    }

    fn register(&self) -> u32 {
        match self.state.select {
            reg::IOAPICID | reg::IOAPICARB => u32::from(self.state.id) << 24,
            reg::IOAPICVER => VERSION,
            select => {
                let index = select.wrapping_sub(reg::IOREDTBL);
                let entry = self.state.table.get(usize::from(index >> 1)).map_or(0, Redirection::bits);
                (entry >> (32 * (index & 1))) as u32
            }
        }
    }

    fn set_register(&mut self, value: u32) {
        if self.state.select == reg::IOAPICID {
            self.state.id = (value >> 24 & 0xf) as u8;
            return;
        }
        let index = self.state.select.wrapping_sub(reg::IOREDTBL);
        let pin = usize::from(index >> 1);
        let Some(entry) = self.state.table.get_mut(pin) else { return };
        let read_only = Redirection::DELIVS | Redirection::REMOTE_IRR;
        let shift = 32 * (index & 1);
        let written = entry.bits() & !(0xffff_ffff << shift) | u64::from(value) << shift;
        let mut new = Redirection::from_bits_truncate(written) - read_only;
        // Remote IRR means nothing for edges, and software clears it by going through edge mode.
        if new.contains(Redirection::LEVEL) {
            new |= *entry & Redirection::REMOTE_IRR;
        }
        *entry = new;
        self.service(pin, false);
    }
}

impl Device for IoApic {
    fn name(&self) -> &'static str {
        "82093AA I/O APIC"
    }

    fn read(&mut self, at: Access) -> u64 {
        let value = match at.offset & !3 {
            window::IOREGSEL => self.state.select.into(),
            window::IOWIN => self.register(),
            _ => 0,
        };
        u64::from(value) >> (8 * (at.offset & 3))
    }

    fn write(&mut self, at: Access, value: u64) {
        match (at.offset, at.size) {
            (window::IOREGSEL, _) => self.state.select = value as u8,
            (window::IOWIN, 4..) => self.set_register(value as u32),
            (window::EOI, _) => self.eoi(value as u8),
            _ => {}
        }
    }

    /// The pins are released too: the chips that drive them are reset with this one.
    fn reset(&mut self) {
        self.state = Self::power_on(self.id, self.active_low);
    }
}

impl Chip for IoApic {
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
    use egret_bus::Ticks;

    fn put(io: &mut IoApic, select: u8, value: u32) {
        io.write(Access { region: 0, offset: 0, size: 4, now: Ticks(0) }, select.into());
        io.write(Access { region: 0, offset: 0x10, size: 4, now: Ticks(0) }, value.into());
    }

    fn get(io: &mut IoApic, select: u8) -> u32 {
        io.write(Access { region: 0, offset: 0, size: 4, now: Ticks(0) }, select.into());
        io.read(Access { region: 0, offset: 0x10, size: 4, now: Ticks(0) }) as u32
    }

    #[test]
    fn registers() {
        // (select, written, read)
        let rows = [
            (0x00, 0xff00_0000, 0x0f00_0000),
            (0x01, 0, 0x0017_0020),
            (0x02, 0xff00_0000, 0x0100_0000),
            (0x10, 0xffff_ffff, 0x0001_afff),
            (0x11, 0xffff_ffff, 0xff00_0000),
            (0x3e, 0x0001_0042, 0x0001_0042),
            (0x3f, 0x0300_0000, 0x0300_0000),
            (0x40, 0xffff_ffff, 0),
            (0xff, 0xffff_ffff, 0),
        ];
        for (select, value, expect) in rows {
            let mut io = IoApic::new(1, 0);
            put(&mut io, select, value);
            assert_eq!(get(&mut io, select), expect, "{select:#x}");
        }
    }

    /// Runs a script on pin 3: `+`/`-` assert and release, `e` EOI of 0x41 and `E` by the EOI register, `m`/`u` mask
    /// and unmask. Returns the number of messages after each step.
    fn run(low: u32, script: &str) -> String {
        let mut io = IoApic::new(0, 0xff << 16);
        let pin = if low & 1 << 31 != 0 { 17 } else { 3 };
        let (low, select) = (low & !(1 << 31), reg::IOREDTBL + 2 * pin);
        put(&mut io, select, low);
        let mut out = String::new();
        for step in script.chars() {
            match step {
                '+' => io.set_line(pin, true),
                '-' => io.set_line(pin, false),
                'e' => io.eoi(0x41),
                'x' => io.eoi(0x42),
                'E' => io.write(Access { region: 0, offset: 0x40, size: 4, now: Ticks(0) }, 0x41),
                'm' => put(&mut io, select, low | 1 << 16),
                'u' => put(&mut io, select, low & !(1 << 16)),
                'g' => put(&mut io, select, low & !(1 << 15) | 1 << 16),
                _ => unreachable!(),
            }
            out += &io.take_messages().len().to_string();
        }
        out
    }

    #[test]
    fn edges_and_levels() {
        let pci = 1 << 31;
        let rows = [
            ("edge", 0x0041, "+-+-", "1010"),
            ("edge, held", 0x0041, "++e", "100"),
            ("edge lost while masked", 0x1_0041, "+u-+", "0001"),
            ("edge, active low on an active-high pin", 0x2041, "+-", "01"),
            ("level", 0x8041, "++e-e", "10100"),
            ("level, EOI register", 0x8041, "+E-E", "1100"),
            ("level, other vector", 0x8041, "+xe", "101"),
            ("level, released before the EOI", 0x8041, "+-e+", "1001"),
            ("level kept while masked", 0x1_8041, "+u", "01"),
            ("remote IRR cleared by way of edge mode", 0x8041, "+gu", "101"),
            ("PCI pin, active low as wired", pci | 0xa041, "+-e+", "1001"),
            ("PCI pin, wrong polarity", pci | 0x8041, "-+", "10"),
            ("NMI is an edge in level mode", 0x8441, "+e-+", "1001"),
            ("reserved delivery mode", 0x0341, "+", "0"),
        ];
        for (name, low, script, expect) in rows {
            assert_eq!(run(low, script), expect, "{name}");
        }
    }

    #[test]
    fn message_fields() {
        let mut io = IoApic::new(0, 0);
        put(&mut io, 0x15, 0x0600_0000);
        put(&mut io, 0x14, 0x8955);
        io.set_line(2, true);
        io.set_line(24, true);
        io.set_line(255, true);
        let expect =
            Message { destination: Destination::Logical(6), delivery: Delivery::LowestPriority, vector: 0x55, trigger: Trigger::Level };
        assert_eq!(io.take_messages(), [expect]);
        assert_eq!(get(&mut io, 0x14), 0xc955);
    }
}
