//! Guest time.

use egret_bus::Ticks;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
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

/// The machine's clock. Clones show the same time, and any thread may look.
#[derive(Clone)]
pub struct Clock {
    source: ClockSource,
    started: Instant,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Instructions retired.
    retired: AtomicU64,
    /// Nanoseconds of idle time skipped (clock by instructions).
    skipped: AtomicU64,
}

impl Clock {
    /// A clock at zero.
    #[must_use]
    pub fn new(source: ClockSource) -> Clock {
        Clock { source, started: Instant::now(), counts: Arc::default() }
    }

    /// What it follows.
    #[must_use]
    pub fn source(&self) -> ClockSource {
        self.source
    }

    /// Guest time now; it never runs backwards.
    #[must_use]
    pub fn now(&self) -> Ticks {
        Ticks(match self.source {
            ClockSource::Host => u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            ClockSource::Instructions => self.retired().saturating_add(self.counts.skipped.load(Relaxed)),
        })
    }

    /// Counts instructions. Under the clock by instructions only one thread does.
    pub fn retire(&self, instructions: u64) {
        self.counts.retired.fetch_add(instructions, Relaxed);
    }

    /// Instructions counted.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.counts.retired.load(Relaxed)
    }

    /// Skips idle time up to `until` (clock by instructions only).
    pub fn skip_to(&self, until: Ticks) {
        if self.source == ClockSource::Instructions {
            let skip = until.since(self.now()).min(u64::MAX / 2 - self.counts.skipped.load(Relaxed).min(u64::MAX / 2));
            self.counts.skipped.fetch_add(skip, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_nanoseconds_and_idle_time_is_skipped() {
        let clock = Clock::new(ClockSource::Instructions);
        clock.retire(500);
        assert_eq!(clock.now(), Ticks(500));
        clock.skip_to(Ticks(2_000));
        assert_eq!(clock.now(), Ticks(2_000));
        clock.skip_to(Ticks(1_000));
        assert_eq!(clock.now(), Ticks(2_000), "never backwards");
    }
}
