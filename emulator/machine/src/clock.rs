//! Guest time.

use egret_bus::Ticks;
use std::time::Instant;

/// What guest time follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClockSource {
    /// The host's monotonic clock.
    #[default]
    Host,
    /// The number of instructions executed: one a nanosecond. Idle time is skipped. The same inputs give the same run.
    Instructions,
}

/// The time-stamp counter's frequency: one count a nanosecond.
pub const TSC_HZ: u64 = 1_000_000_000;

/// The machine's clock.
pub struct Clock {
    source: ClockSource,
    started: Instant,
    /// Instructions retired.
    retired: u64,
    /// Nanoseconds of idle time skipped (clock by instructions).
    skipped: u64,
    /// The last time given out: the clock never runs backwards.
    last: Ticks,
}

impl Clock {
    /// A clock at zero.
    #[must_use]
    pub fn new(source: ClockSource) -> Clock {
        Clock { source, started: Instant::now(), retired: 0, skipped: 0, last: Ticks(0) }
    }

    /// What it follows.
    #[must_use]
    pub fn source(&self) -> ClockSource {
        self.source
    }

    /// Guest time now.
    pub fn now(&mut self) -> Ticks {
        let now = match self.source {
            ClockSource::Host => u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            ClockSource::Instructions => self.retired.saturating_add(self.skipped),
        };
        self.last = self.last.max(Ticks(now));
        self.last
    }

    /// Counts instructions.
    pub fn retire(&mut self, instructions: u64) {
        self.retired = self.retired.saturating_add(instructions);
    }

    /// Instructions counted.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.retired
    }

    /// Skips idle time up to `until` (clock by instructions only).
    pub fn skip_to(&mut self, until: Ticks) {
        if self.source == ClockSource::Instructions {
            let now = self.now();
            self.skipped = self.skipped.saturating_add(until.since(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_nanoseconds_and_idle_time_is_skipped() {
        let mut clock = Clock::new(ClockSource::Instructions);
        clock.retire(500);
        assert_eq!(clock.now(), Ticks(500));
        clock.skip_to(Ticks(2_000));
        assert_eq!(clock.now(), Ticks(2_000));
        clock.skip_to(Ticks(1_000));
        assert_eq!(clock.now(), Ticks(2_000), "never backwards");
    }
}
