//! Hosts without an oracle.

use super::super::slot::Slot;
use super::HostError;

/// There is none of these.
pub enum Host {}

impl Host {
    /// Says why not.
    pub fn new() -> Result<Host, HostError> {
        Err(HostError::Kind(format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)))
    }

    /// Programs to run.
    pub fn slots(&mut self) -> &mut [Slot] {
        match *self {}
    }

    /// Runs the first `count` slots.
    pub fn run(&mut self, _count: usize) -> Result<(), HostError> {
        match *self {}
    }

    /// Whether there is memory at an address.
    pub fn has_at(&self, _address: u64) -> bool {
        match *self {}
    }

    /// Whether 16-bit and other segments of our own are to be had.
    pub fn has_ldt(&self) -> bool {
        match *self {}
    }
}
