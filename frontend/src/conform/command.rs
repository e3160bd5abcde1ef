//! `egret conform`.

use super::report::Report;
use super::runner::{Factory, Settings, run};
use crate::cli::ConformArgs;
use crate::console::terminal::say;
use crate::progress::Progress;
use egret_hypervisor::exit::ExitCode;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Failures kept for each mnemonic.
const KEEP: usize = 3;

/// Runs the command with the engines that `make` makes.
pub fn conform(args: &ConformArgs, make: Factory<'_>) -> ExitCode {
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, Into::into), usize::from);
    let settings = Settings { engines: args.engine.list(), jobs, filter: args.filter.clone(), fail_fast: args.fail_fast, keep: KEEP };
    let done = AtomicU64::new(0);
    let finished = AtomicBool::new(false);
    let finish = Finish(&finished);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let progress = Progress::count("vectors");
            while !finished.load(Ordering::Relaxed) {
                progress.set(done.load(Ordering::Relaxed), 0);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let result = run(&args.paths, &settings, make, &done);
        drop(finish);
        result
    });
    match result {
        Ok(report) => show(args, &report),
        Err(e) => {
            say(&e.to_string());
            ExitCode::Usage
        }
    }
}

/// Sets its flag when it goes, also in a panic: the progress thread must end.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn show(args: &ConformArgs, report: &Report) -> ExitCode {
    let text = if args.json { format!("{}\n", report.json()) } else { report.text(args.failures) };
    if io::stdout().write_all(text.as_bytes()).is_err() {
        return ExitCode::Interrupted;
    }
    for error in &report.errors {
        say(&error.to_string());
    }
    let totals = report.totals();
    if totals.ran + totals.skipped == 0 && report.errors.is_empty() {
        say("no test matches");
        return ExitCode::Usage;
    }
    if !report.errors.is_empty() {
        ExitCode::Usage
    } else if totals.failed > 0 {
        ExitCode::Failed
    } else {
        ExitCode::Ok
    }
}
