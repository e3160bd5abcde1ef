//! 8254 interval timer (Intel datasheet 231164) and system control port B, which holds counter 2's gate and output.
//!
//! Regions: 0 the 8254 (4 ports), 1 port 61h (1 port). Counter 0's OUT is the interrupt line. The clock is exactly
//! 105/88 MHz, and every read is right at its own time.

mod counter;

#[cfg(test)]
mod tests;

use crate::clock::PIT;
use crate::{Chip, wide};
use bitflags::bitflags;
use counter::{Control, Counter};
use egret_bus::{Access, Device, IrqLine, Ticks};

/// The control word's counter select for the read-back command.
const READ_BACK: u8 = 3;

bitflags! {
    /// Read-back command; the counters are bits 1 to 3.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct ReadBack: u8 {
        /// Do not latch the status.
        const NOT_STATUS = 1 << 4;
        /// Do not latch the count.
        const NOT_COUNT = 1 << 5;
    }

    /// System control port B (port 61h).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PortB: u8 {
        /// Counter 2's gate.
        const TIMER2_GATE = 1 << 0;
        /// The speaker is fed by counter 2.
        const SPEAKER = 1 << 1;
        /// Parity check off.
        const PARITY_OFF = 1 << 2;
        /// Channel check off; it also clears the latched check.
        const CHANNEL_OFF = 1 << 3;
        /// Toggles with each refresh, every 15 µs (read-only).
        const REFRESH = 1 << 4;
        /// Counter 2's OUT (read-only).
        const TIMER2_OUT = 1 << 5;
        /// A card on the bus asserted IOCHK# while that was enabled (read-only).
        const CHANNEL_CHECK = 1 << 6;
    }
}

/// Counter clocks between two refreshes: 18, or 15.085 µs.
const REFRESH_CLOCKS: i64 = 18;

/// What the timer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    counters: [Counter; 3],
    port_b: PortB,
    /// The clock up to which counter 0's output was reported.
    seen: i64,
}

/// The 8254 with port 61h.
pub struct Pit {
    state: State,
    irq: IrqLine,
}

impl Pit {
    /// A timer whose counter 0 drives `irq`.
    #[must_use]
    pub fn new(irq: IrqLine) -> Pit {
        Pit { state: Self::power_on(0), irq }
    }

    fn power_on(seen: i64) -> State {
        State { counters: [Counter::new(true), Counter::new(true), Counter::new(false)], port_b: PortB::empty(), seen }
    }

    /// Whether port 61h lets counter 2 drive the speaker, and the level it drives.
    #[must_use]
    pub fn speaker(&self, now: Ticks) -> Option<bool> {
        self.state.port_b.contains(PortB::SPEAKER).then(|| self.state.counters[2].out(clock(now)))
    }

    /// A card on the bus asserts IOCHK#. It is latched unless port 61h has that off.
    pub fn channel_check(&mut self) {
        let enabled = !self.state.port_b.contains(PortB::CHANNEL_OFF);
        self.state.port_b.set(PortB::CHANNEL_CHECK, enabled);
    }

    /// Whether a latched check asks for an NMI. Memory here has no parity to check.
    #[must_use]
    pub fn nmi(&self) -> bool {
        self.state.port_b.contains(PortB::CHANNEL_CHECK)
    }

    /// Brings the counters to `now` and reports counter 0's edges.
    fn sync(&mut self, now: Ticks) -> i64 {
        let now = clock(now).max(self.state.seen);
        while let Some(at) = self.state.counters[0].reload_at().filter(|&at| at <= now) {
            self.report(at);
            self.state.counters[0].advance(at);
        }
        self.report(now);
        self.state.counters.iter_mut().for_each(|c| c.advance(now));
        now
    }

    /// Drives the interrupt line to counter 0's output at `now`, with an edge if there was one (or more) on the way.
    fn report(&mut self, now: i64) {
        let counter = &self.state.counters[0];
        if counter.next_rise(self.state.seen).is_some_and(|at| at <= now) {
            self.irq.set(false);
            self.irq.set(true);
        }
        self.irq.set(counter.out(now));
        self.state.seen = now;
    }

    fn read_port_b(&self, now: i64) -> u8 {
        let mut value = self.state.port_b;
        value.set(PortB::REFRESH, (now / REFRESH_CLOCKS) & 1 != 0);
        value.set(PortB::TIMER2_OUT, self.state.counters[2].out(now));
        value.bits()
    }

    fn write_port_b(&mut self, value: u8, now: i64) {
        let new = PortB::from_bits_truncate(value);
        let check = self.state.port_b & PortB::CHANNEL_CHECK;
        self.state.port_b = new - PortB::REFRESH - PortB::TIMER2_OUT - PortB::CHANNEL_CHECK;
        if !new.contains(PortB::CHANNEL_OFF) {
            self.state.port_b |= check;
        }
        self.state.counters[2].set_gate(self.state.port_b.contains(PortB::TIMER2_GATE), now);
    }

    fn write_control(&mut self, value: u8, now: i64) {
        let select = value >> 6;
        if select == READ_BACK {
            let command = ReadBack::from_bits_truncate(value);
            for (counter, selected) in self.state.counters.iter_mut().zip([1u8 << 1, 1 << 2, 1 << 3]) {
                if value & selected == 0 {
                    continue;
                }
                if !command.contains(ReadBack::NOT_COUNT) {
                    counter.latch_count(now);
                }
                if !command.contains(ReadBack::NOT_STATUS) {
                    counter.latch_status(now);
                }
            }
            return;
        }
        let Some(counter) = self.state.counters.get_mut(usize::from(select)) else { return };
        let control = Control::from_bits_truncate(value);
        if control.intersects(Control::LSB | Control::MSB) {
            counter.set_control(control);
        } else {
            counter.latch_count(now);
        }
    }
}

fn clock(now: Ticks) -> i64 {
    i64::try_from(PIT.count(now)).unwrap_or(i64::MAX)
}

impl Device for Pit {
    fn name(&self) -> &'static str {
        "8254 PIT"
    }

    fn read(&mut self, at: Access) -> u64 {
        let now = self.sync(at.now);
        wide::read(at, |offset| match (at.region, self.state.counters.get_mut(offset as usize)) {
            (0, Some(counter)) => counter.read(now),
            // The control word cannot be read; the bus floats.
            (0, None) => 0xff,
            _ => self.read_port_b(now),
        })
    }

    fn write(&mut self, at: Access, value: u64) {
        let now = self.sync(at.now);
        wide::write(at, value, |offset, byte| match (at.region, self.state.counters.get_mut(offset as usize)) {
            (0, Some(counter)) => counter.write(byte, now),
            (0, None) => self.write_control(byte, now),
            _ => self.write_port_b(byte, now),
        });
        self.report(now);
    }

    fn reset(&mut self) {
        self.state = Self::power_on(self.state.seen);
        self.irq.set(false);
    }

    fn tick(&mut self, now: Ticks) {
        self.sync(now);
    }

    /// Counter 0's next edge; of mode 2's one-clock pulse only the end matters.
    fn deadline(&self) -> Option<Ticks> {
        let (counter, seen) = (&self.state.counters[0], self.state.seen);
        let edges = [counter.next_rise(seen), counter.next_fall(seen)];
        edges.into_iter().flatten().min().map(|at| PIT.time(at as u64))
    }
}

impl Chip for Pit {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.irq.set(state.counters[0].out(state.seen));
        self.state = state;
    }
}
