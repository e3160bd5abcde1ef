//! The `egret` command.
#![forbid(unsafe_code)]

use clap::Parser;
use egret::cli::Cli;
use egret_hypervisor::exit::ExitCode;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    // A panic is a bug of ours; it has been reported by the time it gets here.
    let code = std::panic::catch_unwind(|| egret::main(cli)).unwrap_or(ExitCode::Internal);
    std::process::ExitCode::from(code as u8)
}
