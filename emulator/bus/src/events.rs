//! What a chip can ask of the machine as a whole.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// A request from a chip to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Turn the machine off (ACPI S5).
    PowerOff,
    /// Reset the whole machine.
    Reset,
    /// The debug-exit port was written with this value.
    DebugExit(u32),
}

/// A queue of [`Event`]s, shared by the chips that raise them and the machine that drains them.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<VecDeque<Event>>>);

impl Events {
    /// Most events kept; a guest that raises more before the machine looks loses the later ones, which say the same.
    const LIMIT: usize = 16;

    /// Queues an event.
    pub fn raise(&self, event: Event) {
        let mut queue = self.0.lock();
        if queue.len() < Self::LIMIT {
            queue.push_back(event);
        }
    }

    /// Takes the oldest event.
    pub fn take(&self) -> Option<Event> {
        self.0.lock().pop_front()
    }
}
