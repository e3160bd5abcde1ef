//! Debug exit: a write ends the run with the written value, for test kernels.

use egret_bus::{Access, Device, Event, Events};

/// The debug-exit port. Reads give 0.
pub struct DebugExit {
    events: Events,
}

impl DebugExit {
    /// A port that raises [`Event::DebugExit`].
    #[must_use]
    pub fn new(events: Events) -> DebugExit {
        DebugExit { events }
    }
}

impl Device for DebugExit {
    fn name(&self) -> &'static str {
        "debug exit"
    }

    fn read(&mut self, _at: Access) -> u64 {
        0
    }

    fn write(&mut self, _at: Access, value: u64) {
        self.events.raise(Event::DebugExit(value as u32));
    }

    fn reset(&mut self) {}
}
