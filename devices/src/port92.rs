//! System control port A (port 92h): fast A20 and fast reset, as on the PS/2.

use crate::Chip;
use crate::a20::A20;
use bitflags::bitflags;
use egret_bus::{Access, Device, Event, Events};

bitflags! {
    /// The register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ControlA: u8 {
        /// A rising edge resets the machine.
        const FAST_RESET = 1;
        /// Address line 20 is passed.
        const A20 = 1 << 1;
        /// CMOS password lock.
        const SECURITY_LOCK = 1 << 3;
    }
}

/// System control port A.
pub struct SystemControlA {
    state: ControlA,
    a20: A20,
    events: Events,
}

impl SystemControlA {
    /// The port, which sets `a20`.
    #[must_use]
    pub fn new(a20: A20, events: Events) -> SystemControlA {
        SystemControlA { state: ControlA::A20, a20, events }
    }
}

impl Device for SystemControlA {
    fn name(&self) -> &'static str {
        "system control port A"
    }

    fn read(&mut self, _at: Access) -> u64 {
        let mut value = self.state;
        value.set(ControlA::A20, self.a20.passes());
        value.bits().into()
    }

    fn write(&mut self, _at: Access, value: u64) {
        let new = ControlA::from_bits_truncate(value as u8);
        if new.contains(ControlA::FAST_RESET) && !self.state.contains(ControlA::FAST_RESET) {
            self.events.raise(Event::Reset);
        }
        self.a20.set(new.contains(ControlA::A20));
        self.state = new;
    }

    fn reset(&mut self) {
        self.a20.set(true);
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
        let mut port = SystemControlA::new(A20::default(), events.clone());
        let at = Access { region: 0, offset: 0, size: 1, now: Ticks(0) };
        port.write(at, 2);
        assert_eq!((events.take(), port.read(at)), (None, 2));
        port.write(at, 3);
        assert_eq!(events.take(), Some(Event::Reset));
        port.write(at, 3);
        assert_eq!(events.take(), None);
    }

    #[test]
    fn the_gate_is_read_back_whoever_set_it() {
        let a20 = A20::default();
        let mut port = SystemControlA::new(a20.clone(), Events::default());
        let at = Access { region: 0, offset: 0, size: 1, now: Ticks(0) };
        assert_eq!((port.read(at), a20.passes()), (2, true));
        port.write(at, 0);
        assert_eq!((port.read(at), a20.passes()), (0, false));
        a20.set(true);
        assert_eq!(port.read(at), 2);
        port.write(at, 0);
        port.reset();
        assert!(a20.passes());
    }
}
