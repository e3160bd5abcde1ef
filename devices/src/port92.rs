//! System control port A (port 92h): fast A20 and fast reset, as on the PS/2.

use crate::Chip;
use bitflags::bitflags;
use egret_bus::{Access, Device, Event, Events};

bitflags! {
    /// The register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ControlA: u8 {
        /// A rising edge resets the machine.
        const FAST_RESET = 1;
        /// Address line 20 is passed. Egret always passes it; the bit is kept as written.
        const A20 = 1 << 1;
        /// CMOS password lock.
        const SECURITY_LOCK = 1 << 3;
    }
}

/// System control port A.
pub struct SystemControlA {
    state: ControlA,
    events: Events,
}

impl SystemControlA {
    /// The port, with A20 on.
    #[must_use]
    pub fn new(events: Events) -> SystemControlA {
        SystemControlA { state: ControlA::A20, events }
    }
}

impl Device for SystemControlA {
    fn name(&self) -> &'static str {
        "system control port A"
    }

    fn read(&mut self, _at: Access) -> u64 {
        self.state.bits().into()
    }

    fn write(&mut self, _at: Access, value: u64) {
        let new = ControlA::from_bits_truncate(value as u8);
        if new.contains(ControlA::FAST_RESET) && !self.state.contains(ControlA::FAST_RESET) {
            self.events.raise(Event::Reset);
        }
        self.state = new;
    }

    fn reset(&mut self) {
        self.state = ControlA::A20;
    }
}

impl Chip for SystemControlA {
    type State = ControlA;

    fn state(&self) -> &ControlA {
        &self.state
    }

    fn restore(&mut self, state: ControlA) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_bus::Ticks;

    #[test]
    fn only_a_rising_edge_resets() {
        let events = Events::default();
        let mut port = SystemControlA::new(events.clone());
        let at = Access { region: 0, offset: 0, size: 1, now: Ticks(0) };
        port.write(at, 2);
        assert_eq!((events.take(), port.read(at)), (None, 2));
        port.write(at, 3);
        assert_eq!(events.take(), Some(Event::Reset));
        port.write(at, 3);
        assert_eq!(events.take(), None);
    }
}
