//! The shell's commands, one file each.

use super::asm::{Asm, AsmError};

mod fault;
mod help;
pub(crate) mod mandel;
mod mem;
mod power;
mod prime;
mod tasks;

/// A command: its code is at the label `command NAME`.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    emit: fn(&mut Asm) -> Result<(), AsmError>,
}

/// All commands, in the order in which `help` shows them.
pub(crate) const COMMANDS: &[Command] = &[
    Command { name: "help", help: "this list", emit: help::emit },
    Command { name: "mem", help: "the memory map that the loader gave us", emit: mem::emit },
    Command { name: "tasks", help: "the tasks, their states and their timer ticks", emit: tasks::emit },
    Command { name: "prime", help: "count the primes below N (1000000 if not given)", emit: prime::emit },
    Command { name: "mandel", help: "draw the Mandelbrot set with SSE2 doubles", emit: mandel::emit },
    Command { name: "fault", help: "touch a page that is not there, and see it mapped", emit: fault::emit },
    Command { name: "reboot", help: "reset the machine", emit: power::emit_reboot },
    Command { name: "off", help: "power the machine off", emit: power::emit_off },
];

/// The code of all commands.
pub(crate) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    COMMANDS.iter().try_for_each(|command| {
        a.label(&format!("command {}", command.name))?;
        (command.emit)(a)
    })
}
