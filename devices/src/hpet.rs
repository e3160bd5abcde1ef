//! High precision event timer (IA-PC HPET Specification 1.0a): a 64-bit counter of 100 MHz and three timers, each of which may be
//! periodic and drives one of the last four I/O APIC inputs. It cannot replace the 8254 and the RTC, nor send messages.
//!
//! Region 0: 1 KiB of registers.

use crate::Chip;
use bitflags::bitflags;
use egret_bus::{Access, Device, IrqLine, Ticks};

/// Nanoseconds a count.
const PERIOD: u64 = 10;
/// Timers.
pub const TIMERS: usize = 3;
/// The first of the four interrupt lines.
pub const FIRST_LINE: u8 = 20;
const LINES: usize = 4;
/// Bytes of registers.
pub const LEN: u64 = 0x400;

/// General capabilities: femtoseconds a count, vendor Intel, a 64-bit counter, the last timer's number, revision 1.
pub const CAPABILITIES: u64 = (PERIOD * 1_000_000) << 32 | 0x8086 << 16 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

mod reg {
    pub const CAPABILITIES: u64 = 0x00;
    pub const CONFIG: u64 = 0x10;
    pub const STATUS: u64 = 0x20;
    pub const COUNTER: u64 = 0xf0;
    pub const TIMER_0: u64 = 0x100;
    pub const TIMER_LEN: u64 = 0x20;
    pub const COMPARATOR: u64 = 0x08;
}

/// General configuration: the counter runs and timers may interrupt.
const ENABLE: u64 = 1;

bitflags! {
    /// Timer configuration, the bits that can be written; the route is a field.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Config: u64 {
        const LEVEL = 1 << 1;
        const INTERRUPT = 1 << 2;
        const PERIODIC = 1 << 3;
        /// The next write to the comparator sets it, not only the period.
        const SET_VALUE = 1 << 6;
        const BITS_32 = 1 << 8;
        const ROUTE = 0x1f << 9;
    }
}

/// Timer capabilities: periodic, 64-bit, and the interrupt lines.
const TIMER_CAPABILITIES: u64 = 1 << 4 | 1 << 5 | (((1 << LINES) - 1) << FIRST_LINE) << 32;

/// One timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timer {
    config: Config,
    comparator: u64,
    period: u64,
}

/// What the chip holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    config: u64,
    /// Level-triggered interrupts that wait to be cleared, by timer.
    status: u64,
    /// The counter at `since`, up to which the timers are right.
    counter: u64,
    since: Ticks,
    timers: [Timer; TIMERS],
}

/// The chip.
pub struct Hpet {
    state: State,
    lines: [IrqLine; LINES],
}

impl Timer {
    const RESET: Timer = Timer { config: Config::empty(), comparator: u64::MAX, period: 0 };

    fn mask(&self) -> u64 {
        if self.config.contains(Config::BITS_32) { u32::MAX.into() } else { u64::MAX }
    }

    /// Counts from `counter` until it matches: at least one, at most a whole round.
    fn distance(&self, counter: u64) -> u128 {
        match self.comparator.wrapping_sub(counter) & self.mask() {
            0 => u128::from(self.mask()) + 1,
            n => n.into(),
        }
    }

    /// The counter went on from `counter` by `gone`; whether it matched on the way.
    fn advance(&mut self, counter: u64, gone: u64) -> bool {
        let first = self.distance(counter);
        if u128::from(gone) < first {
            return false;
        }
        if self.config.contains(Config::PERIODIC) && self.period & self.mask() != 0 {
            let period = u128::from(self.period & self.mask());
            let turns = (u128::from(gone) - first) / period + 1;
            self.comparator = self.comparator.wrapping_add((turns * period) as u64) & self.mask();
        }
        true
    }

    fn line(&self) -> usize {
        let route = (self.config & Config::ROUTE).bits() >> 9;
        usize::try_from(route).unwrap_or(0).wrapping_sub(FIRST_LINE.into())
    }

    fn write_config(&mut self, value: u64) {
        self.config = Config::from_bits_truncate(value);
        self.comparator &= self.mask();
    }

    fn write_comparator(&mut self, value: u64) {
        let value = value & self.mask();
        if self.config.contains(Config::PERIODIC) {
            self.period = value;
            if !self.config.contains(Config::SET_VALUE) {
                return;
            }
            self.config.remove(Config::SET_VALUE);
        }
        self.comparator = value;
    }
}

impl Hpet {
    /// A chip whose timers drive the lines from [`FIRST_LINE`] on.
    #[must_use]
    pub fn new(lines: [IrqLine; LINES]) -> Hpet {
        Hpet { state: Self::power_on(Ticks(0)), lines }
    }

    fn power_on(since: Ticks) -> State {
        State { config: 0, status: 0, counter: 0, since, timers: [Timer::RESET; TIMERS] }
    }

    /// Brings counter and timers to `now`.
    fn sync(&mut self, now: Ticks) {
        let gone = now.since(self.state.since) / PERIOD;
        let s = &mut self.state;
        if s.config & ENABLE == 0 {
            s.since = now;
            return;
        }
        let from = s.counter;
        s.counter = from.wrapping_add(gone);
        s.since = s.since.after(gone.saturating_mul(PERIOD));
        for n in 0..TIMERS {
            if self.state.timers[n].advance(from, gone) {
                self.fire(n);
            }
        }
        self.drive();
    }

    fn fire(&mut self, n: usize) {
        let timer = self.state.timers[n];
        if timer.config.contains(Config::LEVEL) {
            self.state.status |= 1 << n;
        } else if timer.config.contains(Config::INTERRUPT)
            && let Some(line) = self.lines.get_mut(timer.line())
        {
            line.pulse();
        }
    }

    /// Drives the lines of level-triggered timers.
    fn drive(&mut self) {
        let s = &self.state;
        for (n, line) in self.lines.iter_mut().enumerate() {
            let wants = |(t, timer): (usize, &Timer)| {
                let level = timer.config.contains(Config::LEVEL | Config::INTERRUPT) && timer.line() == n;
                level && s.status >> t & 1 != 0 && s.config & ENABLE != 0
            };
            line.set(s.timers.iter().enumerate().any(wants));
        }
    }

    fn register(&self, offset: u64) -> u64 {
        let s = &self.state;
        let timer = offset.checked_sub(reg::TIMER_0).and_then(|at| s.timers.get((at / reg::TIMER_LEN) as usize));
        match (offset, timer) {
            (reg::CAPABILITIES, _) => CAPABILITIES,
            (reg::CONFIG, _) => s.config,
            (reg::STATUS, _) => s.status,
            (reg::COUNTER, _) => s.counter,
            (_, Some(t)) if offset.is_multiple_of(reg::TIMER_LEN) => t.config.bits() | TIMER_CAPABILITIES,
            (_, Some(t)) if offset % reg::TIMER_LEN == reg::COMPARATOR => t.comparator,
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u64, value: u64) {
        let s = &mut self.state;
        let timer = offset.checked_sub(reg::TIMER_0).and_then(|at| s.timers.get_mut((at / reg::TIMER_LEN) as usize));
        match (offset, timer) {
            (reg::CONFIG, _) => s.config = value & ENABLE,
            (reg::STATUS, _) => s.status &= !value,
            // Only a stopped counter can be written.
            (reg::COUNTER, _) if s.config & ENABLE == 0 => s.counter = value,
            (_, Some(t)) if offset.is_multiple_of(reg::TIMER_LEN) => t.write_config(value),
            (_, Some(t)) if offset % reg::TIMER_LEN == reg::COMPARATOR => t.write_comparator(value),
            _ => {}
        }
        self.drive();
    }
}

impl Device for Hpet {
    fn name(&self) -> &'static str {
        "HPET"
    }

    /// Registers are 64 bits; halves of them can be accessed too.
    fn read(&mut self, at: Access) -> u64 {
        self.sync(at.now);
        self.register(at.offset & !7) >> (8 * (at.offset & 7))
    }

    fn write(&mut self, at: Access, value: u64) {
        self.sync(at.now);
        let offset = at.offset & !7;
        match (at.size, at.offset & 7) {
            (8, 0) => self.set_register(offset, value),
            (4, half @ (0 | 4)) => {
                let shift = 8 * half;
                // What is written to clear bits must not clear those of the other half.
                let old = if offset == reg::STATUS { 0 } else { self.register(offset) };
                self.set_register(offset, old & !(0xffff_ffff << shift) | (value & 0xffff_ffff) << shift);
            }
            // The specification knows no other accesses.
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.state = Self::power_on(self.state.since);
        self.drive();
    }

    fn tick(&mut self, now: Ticks) {
        self.sync(now);
    }

    fn deadline(&self) -> Option<Ticks> {
        let s = &self.state;
        if s.config & ENABLE == 0 {
            return None;
        }
        let waits = s.timers.iter().filter(|t| t.config.contains(Config::INTERRUPT));
        // A match after some centuries is none.
        let counts = waits.map(|t| t.distance(s.counter)).min()?;
        u64::try_from(counts).ok()?.checked_mul(PERIOD).map(|ns| s.since.after(ns))
    }
}

impl Chip for Hpet {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
        self.drive();
    }
}

#[cfg(test)]
mod tests;
