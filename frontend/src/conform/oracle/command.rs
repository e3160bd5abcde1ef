//! The command line's side of the oracle.

use super::encode::Recipe;
use super::generate::Generator;
use super::rules::{excluded, host_has, model};
use super::shrink::shrink;
use super::worker::{Tally, Worker};
use super::{bench, write};
use crate::cli::ConformArgs;
use crate::conform::runner::EngineChoice;
use crate::console::terminal::say;
use crate::progress::Progress;
use anyhow::Context;
use egret_hypervisor::exit::ExitCode;
use egret_isa::insn::Mode;
use egret_isa::rows::rows;
use iced_x86::Code;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Programs that a worker takes at once.
const CHUNK: u64 = 4096;
/// Failures that are shrunk and shown, for each encoding and engine.
const KEEP: usize = 2;

/// The encodings to test, and why others are not, with their number.
#[derive(Default)]
pub struct Choice {
    /// By mode.
    pub recipes: [Vec<Recipe>; 3],
    /// Reasons.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// The encodings that the host and the model have, of mnemonics that `wanted` accepts.
#[must_use]
pub fn choose(wanted: &dyn Fn(Code) -> bool) -> Choice {
    let mut choice = Choice::default();
    let model = model();
    for row in rows().filter(|r| wanted(r.code)) {
        let reason = if !host_has(row.features) {
            Some("the host does not have it")
        } else if !model.features().allows(row.code) {
            Some("the CPU model does not have it")
        } else {
            excluded(row.code)
        };
        if let Some(reason) = reason {
            *choice.left_out.entry(reason).or_default() += 1;
            continue;
        }
        for mode in [Mode::M16, Mode::M32, Mode::M64] {
            choice.recipes[mode as usize].extend(Recipe::new(row.code, mode));
        }
    }
    choice
}

/// Runs the command.
pub fn oracle(args: &ConformArgs) -> ExitCode {
    match run(args) {
        Ok(code) => code,
        Err(e) => {
            say(&format!("{e:#}"));
            ExitCode::Usage
        }
    }
}

fn modes(args: &ConformArgs) -> Vec<Mode> {
    match args.mode.as_deref() {
        Some("64") => vec![Mode::M64],
        Some("32") => vec![Mode::M32],
        Some("16") => vec![Mode::M16],
        _ => vec![Mode::M64, Mode::M32, Mode::M16],
    }
}

fn run(args: &ConformArgs) -> anyhow::Result<ExitCode> {
    let engines = args.engine.list();
    let mut first = Worker::new(&engines, KEEP)?;
    let mut modes = modes(args);
    if !first.host.has_ldt() {
        say("the host's kernel has no modify_ldt: 16-bit code is not run");
        modes.retain(|m| *m != Mode::M16);
    }
    let name = |code: Code| format!("{:?}", code.mnemonic()).to_lowercase();
    let choice = choose(&|code| args.mnemonic.as_ref().is_none_or(|m| name(code) == m.to_lowercase()));
    let encodings = choice.recipes.iter().map(Vec::len).collect::<Vec<_>>();
    if let Some(folder) = &args.golden {
        let recipes = choice.recipes.map(|list| list.into_iter().filter(|r| modes.contains(&r.mode)).collect());
        print!("{}", super::golden::write(&mut first, &recipes, args.seed.unwrap_or(1), folder)?);
        return Ok(ExitCode::Ok);
    }
    let seed = args.seed.unwrap_or_else(seed_of_now);
    let generator = Generator::new(choice.recipes, &modes, seed);
    anyhow::ensure!(!generator.modes.is_empty(), "no encoding to test");
    let began = Instant::now();
    let tally = all(args, &generator, &engines)?;
    let seconds = began.elapsed().as_secs_f64();
    print!("{}", table(&tally, &engines));
    println!("encodings: {} in 16-bit, {} in 32-bit, {} in 64-bit mode", encodings[0], encodings[1], encodings[2]);
    for (reason, n) in &choice.left_out {
        println!("left out {n} encodings: {reason}");
    }
    for (reason, n) in &tally.not_run {
        println!("not counted {n} programs: {reason}");
    }
    if engines.contains(&EngineChoice::Jit) {
        println!("compiled code executed in {} programs", tally.compiled);
    }
    let failures = failures(args, &mut first, tally.failures)?;
    print!("{failures}");
    let failed: u64 = tally.scores.iter().flat_map(BTreeMap::values).map(|s| s.failed).sum();
    let rate = (tally.programs as f64 / seconds.max(1e-6)) as u64;
    println!("seed {seed:#x}: {} programs, {failed} mismatches, in {seconds:.1} s ({rate} a second)", tally.programs);
    Ok(if failed == 0 { ExitCode::Ok } else { ExitCode::Failed })
}

fn seed_of_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
}

/// Spreads the programs over workers.
fn all(args: &ConformArgs, generator: &Generator, engines: &[EngineChoice]) -> anyhow::Result<Tally> {
    let jobs = args.jobs.map_or(1, u64::from);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let whole: Mutex<anyhow::Result<Tally>> = Mutex::new(Ok(Tally::default()));
    let work = || -> anyhow::Result<Tally> {
        let mut worker = Worker::new(engines, KEEP)?;
        loop {
            let start = next.fetch_add(CHUNK, Ordering::Relaxed);
            if start >= args.count {
                return Ok(worker.tally);
            }
            let end = (start + CHUNK).min(args.count);
            worker.numbers(generator, start..end)?;
            done.fetch_add(end - start, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                scope.spawn(|| {
                    let result = work();
                    let mut whole = whole.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match (&mut *whole, result) {
                        (Ok(tally), Ok(other)) => tally.merge(other),
                        (Ok(_), Err(e)) => *whole = Err(e),
                        (Err(_), _) => {}
                    }
                })
            })
            .collect();
        let progress = Progress::count("programs");
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            progress.set(done.load(Ordering::Relaxed), args.count);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    whole.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn table(tally: &Tally, engines: &[EngineChoice]) -> String {
    let mut names: Vec<&String> = tally.scores.iter().flat_map(BTreeMap::keys).collect();
    names.sort_unstable();
    names.dedup();
    let mut text = format!("{:18}", "mnemonic");
    for engine in engines {
        let _ = write!(text, "{:>12}{:>12}", format!("{} ran", engine.word()), "mismatches");
    }
    text.push('\n');
    let mut row = |name: &str, scores: Vec<(u64, u64)>| {
        let _ = write!(text, "{name:18}");
        for (ran, failed) in scores {
            let _ = write!(text, "{ran:>12}{failed:>12}");
        }
        text.push('\n');
    };
    for name in names {
        row(name, tally.scores.iter().map(|s| s.get(name).map_or((0, 0), |s| (s.ran, s.failed))).collect());
    }
    let sum = |s: &BTreeMap<String, super::worker::Score>| s.values().fold((0, 0), |(ran, failed), s| (ran + s.ran, failed + s.failed));
    row("total", tally.scores.iter().map(sum).collect());
    text
}

/// Shrinks the failures, writes them as vectors if asked, and describes them.
fn failures(args: &ConformArgs, worker: &mut Worker, list: Vec<(EngineChoice, super::program::Program)>) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut lines = String::new();
    for (count, (choice, program)) in list.into_iter().enumerate() {
        if count >= args.failures {
            let _ = writeln!(text, "more failures are not shown (--failures N)");
            break;
        }
        let Some(n) = worker.engines.iter().position(|(c, _)| *c == choice) else { continue };
        let code = program.code;
        let Some((program, differences)) = shrink(worker, n, program) else { continue };
        let bytes: Vec<String> = program.insns.iter().map(|i| i.iter().map(|b| format!("{b:02x}")).collect()).collect();
        let words: Vec<String> = program.insns.iter().map(|b| super::encode::decoded(b, program.mode).to_string()).collect();
        let _ = writeln!(
            text,
            "\nFAILED on {} {code:?} {:?} at {:#x}: {} [{}]",
            choice.word(),
            program.mode,
            program.at,
            words.join("; "),
            bytes.join(" ")
        );
        for d in differences.iter().take(12) {
            let _ = writeln!(text, "  {d}");
        }
        worker.differences(n, &program)?;
        let host = worker.host_outcome().clone();
        let mut got = super::program::Outcome::default();
        let ran = bench::make(choice).map_err(anyhow::Error::msg)?.run(&program, &mut got);
        if ran.is_err() {
            got = host.clone();
        }
        let name = format!("{}/{code:?}/{count}", format!("{:?}", code.mnemonic()).to_lowercase());
        let line = write::line(&program, &name, &host, &got);
        let _ = writeln!(text, "  {line}");
        lines.push_str(&line);
        lines.push('\n');
    }
    if let Some(folder) = args.out.as_ref().filter(|_| !lines.is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("mismatches.jsonl");
        std::fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))?;
        let _ = writeln!(text, "written to {}", path.display());
    }
    Ok(text)
}
