//! How a PC reports x87 exceptions when CR0.NE is clear: FERR# is latched and raises interrupt line 13; a write to port F0h
//! lowers it and asserts IGNNE# until FERR# ends (SDM Vol. 1, "MS-DOS Compatibility Sub-mode", "Recommended External
//! Hardware to Support the MS-DOS Compatibility Sub-mode").

use crate::Chip;
use egret_bus::{Access, Device, IrqLine};

/// The latches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// FERR#, as the processor drives it.
    pub ferr: bool,
    /// The interrupt line.
    pub irq: bool,
    /// IGNNE#, as it is driven to the processor.
    pub ignne: bool,
}

/// The error latch of the coprocessor.
pub struct FpuError {
    state: State,
    irq: IrqLine,
}

impl FpuError {
    /// A latch that drives `irq`.
    #[must_use]
    pub fn new(irq: IrqLine) -> FpuError {
        FpuError { state: State::default(), irq }
    }

    /// The processor drives FERR#.
    pub fn set_ferr(&mut self, level: bool) {
        if level && !self.state.ferr {
            self.state.irq = true;
        }
        self.state.ferr = level;
        self.state.ignne &= level;
        self.irq.set(self.state.irq);
    }

    /// IGNNE#.
    #[must_use]
    pub fn ignne(&self) -> bool {
        self.state.ignne
    }
}

impl Device for FpuError {
    fn name(&self) -> &'static str {
        "FPU error latch"
    }

    fn read(&mut self, _at: Access) -> u64 {
        0xff
    }

    /// F0h, and F1h, which also resets an 80287: no later coprocessor heeds it.
    fn write(&mut self, _at: Access, _value: u64) {
        self.state.irq = false;
        self.state.ignne = self.state.ferr;
        self.irq.set(false);
    }

    fn reset(&mut self) {
        self.restore(State::default());
    }
}

impl Chip for FpuError {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
        self.irq.set(state.irq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_bus::{Lines, Ticks};

    #[test]
    fn the_latch_follows_the_manual_s_circuit() {
        let lines = Lines::default();
        let mut latch = FpuError::new(lines.line(13));
        let f0 = Access { region: 0, offset: 0, size: 1, now: Ticks(0) };
        let see = |latch: &FpuError| (latch.irq.level(), latch.ignne());
        latch.write(f0, 0);
        assert_eq!(see(&latch), (false, false), "nothing to ignore");
        latch.set_ferr(true);
        assert_eq!(see(&latch), (true, false));
        latch.write(f0, 0);
        assert_eq!(see(&latch), (false, true));
        latch.set_ferr(true);
        assert_eq!(see(&latch), (false, true), "the same exception raises no second interrupt");
        latch.set_ferr(false);
        assert_eq!(see(&latch), (false, false));
        latch.set_ferr(true);
        latch.set_ferr(false);
        assert_eq!(see(&latch), (true, false), "latched until port F0h is written");
    }
}
