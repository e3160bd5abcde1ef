//! `egret conform`.

use super::coverage::Coverage;
use super::html::html;
use super::junit::junit;
use super::known::Known;
use super::report::Report;
use super::runner::{Factory, Filter, Settings, run};
use super::source::SourceError;
use crate::cli::ConformArgs;
use crate::console::terminal::say;
use crate::progress::Progress;
use egret_hypervisor::exit::ExitCode;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Failures kept for each mnemonic.
const KEEP: usize = 3;

/// Known exceptions, seen from a checkout's top.
const OWN_KNOWN: &str = "tests/KNOWN.md";

/// Where the project's own vectors are, seen from a checkout's top.
const OWN_VECTORS: &str = "tests/vectors";

/// Runs the command with the engines that `make` makes.
pub fn conform(args: &ConformArgs, make: Factory<'_>) -> ExitCode {
    if args.oracle.is_some() {
        return super::oracle::command::oracle(args);
    }
    let model = args.cpu.unwrap_or_default();
    let mut paths = args.paths.clone();
    if args.coverage && paths.is_empty() {
        paths.extend(Some(PathBuf::from(OWN_VECTORS)).filter(|p| p.is_dir()));
    }
    if paths.is_empty() && args.coverage {
        return print(args, &Coverage::new(&model, None));
    }
    match go(args, &paths, make) {
        Ok(report) => show(args, &report),
        Err(e) => {
            say(&e.to_string());
            ExitCode::Usage
        }
    }
}

fn go(args: &ConformArgs, paths: &[PathBuf], make: Factory<'_>) -> Result<Report, SourceError> {
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, Into::into), usize::from);
    let settings = Settings {
        engines: args.engine.list(),
        jobs,
        filter: args.filter.as_deref().map(Filter::new),
        shard: args.shard,
        fail_fast: args.fail_fast,
        keep: KEEP,
        known: known(args.known.as_deref())?,
    };
    let done = AtomicU64::new(0);
    let finished = AtomicBool::new(false);
    let finish = Finish(&finished);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let progress = Progress::count("vectors");
            while !finished.load(Ordering::Relaxed) {
                progress.set(done.load(Ordering::Relaxed), 0);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let result = run(paths, &settings, make, &done);
        drop(finish);
        result
    })
}

/// The list of known exceptions: of `path`, or of the checkout that this runs in.
fn known(path: Option<&Path>) -> Result<Known, SourceError> {
    let Some(path) = path.or_else(|| Some(Path::new(OWN_KNOWN)).filter(|p| p.is_file())) else { return Ok(Known::default()) };
    let text = std::fs::read_to_string(path).map_err(|source| SourceError::Read { path: path.to_owned(), source })?;
    Known::parse(&text).map_err(|why| SourceError::Unusable { path: path.to_owned(), why })
}

/// Prints the coverage page.
fn print(args: &ConformArgs, page: &Coverage) -> ExitCode {
    let text = if args.json { format!("{}\n", page.json()) } else { page.text() };
    if io::stdout().write_all(text.as_bytes()).is_err() { ExitCode::Interrupted } else { ExitCode::Ok }
}

/// Writes the files that the options ask for.
fn files(args: &ConformArgs, report: &Report) -> Result<(), String> {
    let put = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
        Some(path) => std::fs::write(path, text()).map_err(|e| format!("{}: {e}", Path::display(path))),
        None => Ok(()),
    };
    put(&args.junit, &|| junit(report))?;
    put(&args.html, &|| html(report, &Coverage::new(&args.cpu.unwrap_or_default(), Some(report))))
}

/// Sets its flag when it goes, also in a panic: the progress thread must end.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn show(args: &ConformArgs, report: &Report) -> ExitCode {
    if args.coverage {
        let shown = print(args, &Coverage::new(&args.cpu.unwrap_or_default(), Some(report)));
        if shown != ExitCode::Ok {
            return shown;
        }
    } else {
        let text = if args.json { format!("{}\n", report.json()) } else { report.text(args.failures) };
        if io::stdout().write_all(text.as_bytes()).is_err() {
            return ExitCode::Interrupted;
        }
    }
    if let Err(e) = files(args, report) {
        say(&e);
        return ExitCode::Usage;
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
