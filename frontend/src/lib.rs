//! Egret's command line, as a library so that tests can reach its parts.
// Only the oracle's process on the host (`conform/oracle/host`) allows it.
#![deny(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod conform;
pub mod console;
pub mod cpus;
pub mod guests;
pub mod progress;
pub mod run;
pub mod up;

use cli::{Cli, Command, RunArgs};
use egret_hypervisor::exit::ExitCode;

/// Runs a command line.
#[must_use]
pub fn main(cli: Cli) -> ExitCode {
    egret_jit::host_x87::install();
    match cli.command {
        None => run::run(&RunArgs::default()),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Guests(args)) => guests::guests(&args),
        Some(Command::Cpus) => cpus::cpus(),
        Some(Command::Up(args)) => up::up(&args),
        Some(Command::Bench(args)) => bench::bench(&args),
        Some(Command::Conform(args)) => conform::command::conform(&args, &conform::engine::make),
    }
}
