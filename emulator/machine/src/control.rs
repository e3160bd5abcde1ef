//! The outside's handle on a running machine: console input and the wish to stop. And the sleep of the thread that runs timers.

use egret_bus::Ticks;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

#[derive(Default)]
struct Inner {
    input: Mutex<VecDeque<u8>>,
    wake: Condvar,
    stop: AtomicBool,
    /// Something happened that the sleeper wants to know.
    woken: AtomicBool,
    /// When the sleeper will wake up by itself; 0 when nobody sleeps.
    until: AtomicU64,
}

/// A handle that other threads may keep while the machine runs.
#[derive(Clone, Default)]
pub struct Control(Arc<Inner>);

impl Control {
    /// Most console input that waits for the guest; more blocks nobody and is dropped.
    const INPUT_LIMIT: usize = 1 << 20;
    /// How soon input that the guest did not take is offered again.
    const AGAIN: Duration = Duration::from_millis(1);

    /// Queues bytes for the serial console; how many were taken.
    pub fn push_input(&self, bytes: &[u8]) -> usize {
        let mut input = self.0.input.lock();
        let room = Self::INPUT_LIMIT.saturating_sub(input.len()).min(bytes.len());
        input.extend(&bytes[..room]);
        self.0.woken.store(true, Ordering::SeqCst);
        self.0.wake.notify_all();
        room
    }

    /// Asks the machine to stop; it does within one slice.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.wake();
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

    /// Wakes the sleeper.
    pub(crate) fn wake(&self) {
        self.0.woken.store(true, Ordering::SeqCst);
        drop(self.0.input.lock());
        self.0.wake.notify_all();
    }

    /// Wakes the sleeper if it would sleep beyond a deadline that has just come up.
    pub(crate) fn hurry(&self, at: u64) {
        if at < self.0.until.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Sleeps until input comes, a stop is asked for, the `deadline` comes, or the time is over. The deadline may move while one
    /// sleeps: who moves it calls [`Control::hurry`].
    pub(crate) fn wait(&self, now: Ticks, deadline: impl Fn() -> Option<Ticks>, at_most: Duration) {
        let mut input = self.0.input.lock();
        let at_most = if input.is_empty() { at_most } else { at_most.min(Self::AGAIN) };
        let end = now.after(u64::try_from(at_most.as_nanos()).unwrap_or(u64::MAX));
        let next = || deadline().map_or(end, |at| at.min(end));
        let first = next();
        self.0.until.store(first.0, Ordering::SeqCst);
        let at = next().min(first);
        if !self.0.woken.load(Ordering::SeqCst) && !self.stopped() && at > now {
            self.0.wake.wait_for(&mut input, Duration::from_nanos(at.since(now)));
        }
        self.0.until.store(0, Ordering::SeqCst);
        self.0.woken.store(false, Ordering::SeqCst);
    }
}
