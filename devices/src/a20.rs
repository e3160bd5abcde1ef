//! Address line 20 and the gate in it: with the gate closed the processor's A20M# is asserted and bit 20 of every physical
//! address is 0, as on an 8086, whose addresses wrap at 1 MiB.
//!
//! The 8042's output port and port 92h set one latch, as in chipsets that watch the 8042's commands: the later write counts. The latch is
//! saved by whoever wires it, not with either chip.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The gate's latch, shared by those who set it and those who look at it.
#[derive(Clone, Debug)]
pub struct A20(Arc<AtomicBool>);

impl Default for A20 {
    /// An open gate, as firmware leaves it.
    fn default() -> A20 {
        A20(Arc::new(AtomicBool::new(true)))
    }
}

impl A20 {
    /// Whether the line is passed.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.0.load(SeqCst)
    }

    /// Opens or closes the gate.
    pub fn set(&self, passes: bool) {
        self.0.store(passes, SeqCst);
    }
}
