//! The outside's handle on a running machine: console input and the wish to stop.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Default)]
struct Inner {
    input: Mutex<VecDeque<u8>>,
    wake: Condvar,
    stop: AtomicBool,
}

/// A handle that other threads may keep while the machine runs.
#[derive(Clone, Default)]
pub struct Control(Arc<Inner>);

impl Control {
    /// Most console input that waits for the guest; more blocks nobody and is dropped.
    const INPUT_LIMIT: usize = 1 << 20;

    /// Queues bytes for the serial console; how many were taken.
    pub fn push_input(&self, bytes: &[u8]) -> usize {
        let mut input = self.0.input.lock();
        let room = Self::INPUT_LIMIT.saturating_sub(input.len()).min(bytes.len());
        input.extend(&bytes[..room]);
        self.0.wake.notify_all();
        room
    }

    /// Asks the machine to stop; it does within one slice.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.wake.notify_all();
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    /// Offers waiting input to `take`, which says how many bytes it accepted.
    pub(crate) fn deliver(&self, take: impl FnOnce(&[u8]) -> usize) {
        let mut input = self.0.input.lock();
        if !input.is_empty() {
            let taken = take(input.make_contiguous()).min(input.len());
            input.drain(..taken);
        }
    }

    /// Sleeps until input comes, a stop is asked for, or the time is over.
    pub(crate) fn wait(&self, at_most: Duration) {
        let mut input = self.0.input.lock();
        if input.is_empty() && !self.stopped() {
            self.0.wake.wait_for(&mut input, at_most);
        }
    }
}
