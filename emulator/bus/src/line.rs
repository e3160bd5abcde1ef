//! Interrupt lines: a chip drives a level, the machine routes the changes to the interrupt controllers.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A change of the level of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineChange {
    /// Line number (global system interrupt, as the machine numbers its lines).
    pub line: u8,
    /// The new level.
    pub level: bool,
}

#[derive(Default)]
struct Queue {
    changes: Mutex<VecDeque<LineChange>>,
    pending: AtomicBool,
}

/// The changes of all lines of a machine, in the order in which they happened.
#[derive(Clone, Default)]
pub struct Lines(Arc<Queue>);

impl Lines {
    /// Most changes kept between two drains. A chip changes a line a bounded number of times per access.
    const LIMIT: usize = 4096;

    /// The driver's end of line number `line`, at level low.
    #[must_use]
    pub fn line(&self, line: u8) -> IrqLine {
        IrqLine { line, level: false, lines: self.clone() }
    }

    /// Whether a change waits to be routed.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.0.pending.load(Ordering::Acquire)
    }

    /// Takes the oldest change.
    pub fn take(&self) -> Option<LineChange> {
        let mut changes = self.0.changes.lock();
        let change = changes.pop_front();
        self.0.pending.store(!changes.is_empty(), Ordering::Release);
        change
    }

    fn push(&self, change: LineChange) {
        let mut changes = self.0.changes.lock();
        if changes.len() < Self::LIMIT {
            changes.push_back(change);
        }
        self.0.pending.store(true, Ordering::Release);
    }
}

/// The driver's end of an interrupt line.
pub struct IrqLine {
    line: u8,
    level: bool,
    lines: Lines,
}

impl IrqLine {
    /// Drives the line to `level`; does nothing when it is there already.
    pub fn set(&mut self, level: bool) {
        if level != self.level {
            self.level = level;
            self.lines.push(LineChange { line: self.line, level });
        }
    }

    /// A rising and a falling edge.
    pub fn pulse(&mut self) {
        self.set(false);
        self.set(true);
        self.set(false);
    }

    /// The level the line is driven to.
    #[must_use]
    pub fn level(&self) -> bool {
        self.level
    }
}
