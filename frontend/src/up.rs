//! `egret up`.

use crate::cli::UpArgs;
use crate::console::terminal::say;
use egret_hypervisor::exit::ExitCode;
use egret_hypervisor::supervisor::{Job, Patience, Stop, Summary, summary_table, supervise};
use egret_hypervisor::{config, config::MachineConfig};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// Runs the command.
pub fn up(args: &UpArgs) -> ExitCode {
    let machines = match config::load(&args.file) {
        Ok(machines) => machines,
        Err(e) => {
            say(&e.to_string());
            return ExitCode::Usage;
        }
    };
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => {
            say(&format!("cannot find my own program: {e}"));
            return ExitCode::Internal;
        }
    };
    let jobs: Vec<Job> = machines.iter().map(|m| job(&program, m)).collect();
    let stop = Stop::default();
    let on_signal = stop.clone();
    if let Err(e) = ctrlc::set_handler(move || on_signal.request()) {
        say(&format!("Ctrl-C will not be handled: {e}"));
    }
    let (out, err) = (io::stdout(), io::stderr());
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match supervise(&jobs, Patience::default(), &stop, out.lock(), err.lock(), colour) {
        Ok(summaries) => {
            let _ = write!(io::stderr(), "\n{}", summary_table(&summaries));
            if summaries.iter().all(Summary::good) { ExitCode::Ok } else { ExitCode::Failed }
        }
        // Whoever read our output has gone.
        Err(_) => ExitCode::Interrupted,
    }
}

fn job(program: &Path, machine: &MachineConfig) -> Job {
    let mut args = machine.options.to_args();
    // Directly behind `run`: a guest's name ends the options.
    args.insert(1, OsString::from("--stop-on-eof"));
    Job { name: machine.name.clone(), program: program.to_owned(), args, env: Vec::new() }
}
