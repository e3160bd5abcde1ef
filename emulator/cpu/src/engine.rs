//! What executes instructions.

use crate::Cpu;

/// Why an engine came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The instruction budget is used up.
    Budget,
    /// HLT with no interrupt to wake it.
    Halt,
    /// Triple fault.
    Shutdown,
    /// A device raised an event.
    Yield,
    /// Lockstep found a difference: see [`Engine::report`].
    Diverged,
}

/// An executor of a CPU's instructions.
pub trait Engine: Send {
    /// The engine's name on the command line.
    fn name(&self) -> &'static str;

    /// Runs until `cpu.state.budget` is used up or something needs the machine. Instructions retired are what the
    /// budget went down by.
    fn run(&mut self, cpu: &mut Cpu) -> Exit;

    /// Forgets everything derived from guest memory, after it was changed other than by the CPU.
    fn flush(&mut self, cpu: &mut Cpu);

    /// What [`Exit::Diverged`] was about.
    fn report(&self) -> Option<String> {
        None
    }

    /// Counters by name, for `--stats`.
    fn stats(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
