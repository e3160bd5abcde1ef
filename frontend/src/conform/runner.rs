//! Runs the vectors of all paths on worker threads.

use super::ParseError;
use super::compare::{Diff, differences};
use super::engine::{Outcome, VectorEngine};
use super::known::Known;
use super::report::{EngineReport, Report};
use super::source::{Batch, Found, SourceError, Walk};
use super::vector::{Model, Vector};
use egret_isa::CpuModel;
use iced_x86::{Code, Decoder, DecoderOptions};
use regex::Regex;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

/// An engine that runs vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineChoice {
    /// The interpreter.
    Interp,
    /// The evaluator of the IR that the semantics record.
    Ir,
    /// Translated code.
    Jit,
}

impl EngineChoice {
    /// All of them.
    pub const ALL: [EngineChoice; 3] = [EngineChoice::Interp, EngineChoice::Ir, EngineChoice::Jit];

    /// Its name on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            EngineChoice::Interp => "interp",
            EngineChoice::Ir => "ir",
            EngineChoice::Jit => "jit",
        }
    }
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engines, each of which runs every vector.
    pub engines: Vec<EngineChoice>,
    /// Worker threads.
    pub jobs: usize,
    /// Only vectors that this selects.
    pub filter: Option<Filter>,
    /// Only one part of all vectors: this one, from 1, of so many.
    pub shard: Option<(u64, u64)>,
    /// Stop at the first failure.
    pub fail_fast: bool,
    /// Failures kept for each mnemonic.
    pub keep: usize,
    /// Vectors that may fail.
    pub known: Known,
}

/// What `--filter` selects by: the mnemonic, a part of the name, or a regular expression that matches in the name.
#[derive(Clone, Debug)]
pub struct Filter {
    text: String,
    regex: Option<Regex>,
}

impl Filter {
    /// The filter of a text. One that is no regular expression is looked for as it stands.
    #[must_use]
    pub fn new(text: &str) -> Filter {
        Filter { text: text.to_owned(), regex: Regex::new(text).ok() }
    }

    /// Whether `vector` is wanted.
    #[must_use]
    pub fn selects(&self, vector: &Vector) -> bool {
        vector.mnemonic == self.text || vector.name.contains(&self.text) || self.regex.as_ref().is_some_and(|r| r.is_match(&vector.name))
    }
}

/// Makes an engine; each worker has its own.
pub type Factory<'a> = &'a (dyn Fn(EngineChoice) -> Result<Box<dyn VectorEngine>, String> + Sync);

struct Part {
    number: usize,
    engines: Vec<EngineReport>,
    error: Option<ParseError>,
}

struct Shared<'a> {
    settings: &'a Settings,
    make: Factory<'a>,
    /// Set when no more work is wanted.
    stop: AtomicBool,
    done: &'a AtomicU64,
}

/// Runs everything under `paths`; `done` counts the vectors while it runs.
pub fn run(paths: &[PathBuf], settings: &Settings, make: Factory<'_>, done: &AtomicU64) -> Result<Report, SourceError> {
    let began = Instant::now();
    let shared = Shared { settings, make, stop: AtomicBool::new(false), done };
    let jobs = settings.jobs.max(1);
    let (work_in, work) = sync_channel::<(usize, Batch)>(jobs);
    let work = Mutex::new(work);
    let parts: Mutex<Vec<Part>> = Mutex::new(Vec::new());
    let walked = std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| worker(&shared, &work, &parts));
        }
        let mut number = 0;
        let mut give = |found: Found| {
            number += 1;
            match found {
                Found::Batch(batch) => drop(work_in.send((number, batch))),
                Found::Bad(error) => push(&parts, Part { number, engines: Vec::new(), error: Some(error) }),
            }
            !shared.stop.load(Ordering::Relaxed)
        };
        let mut walk = Walk { give: &mut give };
        let result = paths.iter().try_for_each(|path| walk.path(path).map(drop));
        // Closing the channel ends the workers.
        drop(work_in);
        result
    });
    walked?;
    let mut parts = parts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    parts.sort_by_key(|p| p.number);
    let mut report = Report { engines: settings.engines.iter().map(|e| EngineReport::new(*e)).collect(), errors: Vec::new(), seconds: 0.0 };
    for part in parts {
        report.errors.extend(part.error);
        for (whole, part) in report.engines.iter_mut().zip(part.engines) {
            whole.merge(part, settings.keep);
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

fn push(parts: &Mutex<Vec<Part>>, part: Part) {
    parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(part);
}

fn worker(shared: &Shared<'_>, work: &Mutex<Receiver<(usize, Batch)>>, parts: &Mutex<Vec<Part>>) {
    let mut bench = Bench::new(shared);
    loop {
        let next = work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok((number, batch)) = next else { return };
        if shared.stop.load(Ordering::Relaxed) {
            continue;
        }
        let mut engines: Vec<_> = shared.settings.engines.iter().map(|e| EngineReport::new(*e)).collect();
        // Batches are cut in the same way on every machine, so shards are the same everywhere, too.
        let mut index = number as u64;
        let result = batch.for_each(|vector| {
            index = index.wrapping_add(1);
            match shared.settings.shard {
                Some((k, n)) if index % n.max(1) != k % n.max(1) => ControlFlow::Continue(()),
                _ => bench.vector(&vector, &mut engines),
            }
        });
        push(parts, Part { number, engines, error: result.err() });
    }
}

/// The engines of one worker.
struct Bench<'a> {
    shared: &'a Shared<'a>,
    engines: Vec<Result<Box<dyn VectorEngine>, String>>,
}

impl<'a> Bench<'a> {
    fn new(shared: &'a Shared<'a>) -> Bench<'a> {
        Bench { shared, engines: shared.settings.engines.iter().map(|e| (shared.make)(*e)).collect() }
    }

    fn vector(&mut self, vector: &Vector, reports: &mut [EngineReport]) -> ControlFlow<()> {
        let settings = self.shared.settings;
        if settings.filter.as_ref().is_some_and(|f| !f.selects(vector)) {
            return ControlFlow::Continue(());
        }
        let code = encoding(vector);
        let known = settings.known.reason(vector);
        for (n, report) in reports.iter_mut().enumerate() {
            match self.one(n, vector) {
                Ok(Outcome::Skipped(reason)) => report.skipped(vector, code, reason),
                Ok(Outcome::Ran(end)) => {
                    let diffs = differences(vector, &end);
                    self.fail_fast(!diffs.is_empty() && known.is_none());
                    if let Some(compiled) = end.compiled {
                        *report.compiled.get_or_insert(0) += u64::from(compiled);
                    }
                    report.ran(vector, code, diffs, known, settings.keep);
                }
                Err(panic) => {
                    let got = format!("a panic: {panic}");
                    let diff = Diff { what: "end".into(), want: "the stop condition".into(), got, note: String::new() };
                    self.fail_fast(true);
                    report.ran(vector, code, vec![diff], None, settings.keep);
                }
            }
        }
        self.shared.done.fetch_add(1, Ordering::Relaxed);
        if self.shared.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn fail_fast(&self, failed: bool) {
        if failed && self.shared.settings.fail_fast {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Runs a vector on engine number `n`. A panic is a bug of ours and costs this vector, not the run.
    fn one(&mut self, n: usize, vector: &Vector) -> Result<Outcome, String> {
        let engine = match &mut self.engines[n] {
            Ok(engine) => engine,
            Err(reason) => return Ok(Outcome::Skipped(reason.clone())),
        };
        catch_unwind(AssertUnwindSafe(|| engine.run(vector))).map_err(|payload| {
            self.engines[n] = (self.shared.make)(self.shared.settings.engines[n]);
            let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
            text.unwrap_or("without a message").to_owned()
        })
    }
}

/// Most instructions of a vector that are looked at for the one it is about.
const LOOK: usize = 64;

/// The encoding that the vector is about: of the first instruction with its mnemonic, or else of the first one. None when the
/// vector's processor has no such encoding: the oldest ones decode otherwise than iced does.
fn encoding(vector: &Vector) -> Option<Code> {
    let old = match vector.model {
        Model::I8086 | Model::V30 => return None,
        Model::I80286 => CpuModel::named("286"),
        Model::I80386 => CpuModel::named("386"),
        Model::X8664V3 | Model::Other(_) => None,
    };
    looked_up(vector).filter(|code| old.is_none_or(|model| model.features().allows(*code)))
}

fn looked_up(vector: &Vector) -> Option<Code> {
    let mut decoder = Decoder::with_ip(vector.mode.bits(), &vector.code, vector.at, DecoderOptions::NONE);
    let first = decoder.decode();
    if first.is_invalid() {
        return None;
    }
    let named = |code: Code| format!("{:?}", code.mnemonic()).eq_ignore_ascii_case(&vector.mnemonic);
    let mut code = first.code();
    for _ in 0..LOOK {
        if named(code) {
            return Some(code);
        }
        if !decoder.can_decode() {
            break;
        }
        code = decoder.decode().code();
    }
    Some(first.code())
}
