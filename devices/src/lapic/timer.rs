//! The counter of the local APIC timer. Its input clock runs at 1 GHz: one count a nanosecond before division.

use egret_bus::Ticks;

/// The timer's registers and where it is in its count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// Initial Count Register.
    pub initial: u32,
    /// Divide Configuration Register: bits 0, 1 and 3.
    pub divide: u32,
    /// IA32_TSC_DEADLINE; zero is disarmed.
    pub tsc_deadline: u64,
    /// The count at `since`; zero is stopped.
    count: u32,
    since: Ticks,
}

impl Timer {
    fn divisor(&self) -> u64 {
        match self.divide & 3 | self.divide >> 1 & 4 {
            7 => 1,
            shift => 2 << shift,
        }
    }

    /// When the count reaches zero.
    pub fn expiry(&self) -> Option<Ticks> {
        (self.count != 0).then(|| self.since.after(u64::from(self.count) * self.divisor()))
    }

    /// Current Count Register; the timer has been brought to `now` with [`Timer::expire`].
    pub fn current(&self, now: Ticks) -> u32 {
        let gone = now.since(self.since) / self.divisor();
        u64::from(self.count).saturating_sub(gone) as u32
    }

    /// A write to the Initial Count Register starts the count; zero stops it.
    pub fn start(&mut self, initial: u32, now: Ticks) {
        (self.initial, self.count, self.since) = (initial, initial, now);
    }

    /// Stops the count, as a change to or from TSC-deadline mode does.
    pub fn disarm(&mut self) {
        self.count = 0;
        self.tsc_deadline = 0;
    }

    /// A write to the Divide Configuration Register: the rest of the count runs at the new rate.
    pub fn set_divide(&mut self, divide: u32, now: Ticks) {
        (self.count, self.since, self.divide) = (self.current(now), now, divide & 0b1011);
    }

    /// Brings the count to `now`; whether it reached zero (once or more often) on the way.
    pub fn expire(&mut self, periodic: bool, now: Ticks) -> bool {
        let Some(at) = self.expiry().filter(|&at| at <= now) else { return false };
        if periodic && self.initial != 0 {
            let period = u64::from(self.initial) * self.divisor();
            self.since = at.after(now.since(at) / period * period);
            self.count = self.initial;
        } else {
            self.count = 0;
        }
        true
    }
}
