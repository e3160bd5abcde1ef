//! Makes programs, runs them on the host and on the engines, and keeps the score.

use super::bench::{self, Engine};
use super::generate::Generator;
use super::host::{BATCH, Host, HostError};
use super::judge;
use super::program::{End, Outcome, Program};
use crate::conform::runner::EngineChoice;
use std::collections::BTreeMap;

/// Programs have all their memory below this.
const ABOVE_PROGRAMS: u64 = 1 << 32;

/// The score of a mnemonic on an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Programs compared.
    pub ran: u64,
    /// Programs that ended otherwise than on the host.
    pub failed: u64,
}

/// What a worker has found.
#[derive(Default)]
pub struct Tally {
    /// By engine and mnemonic.
    pub scores: Vec<BTreeMap<String, Score>>,
    /// Programs in which compiled code executed.
    pub compiled: u64,
    /// Programs run on the host.
    pub programs: u64,
    /// Programs that did not count, by reason.
    pub not_run: BTreeMap<&'static str, u64>,
    /// Programs that failed, with the engine.
    pub failures: Vec<(EngineChoice, Program)>,
}

impl Tally {
    /// Adds another worker's.
    pub fn merge(&mut self, other: Tally) {
        self.scores.resize_with(self.scores.len().max(other.scores.len()), BTreeMap::new);
        for (mine, theirs) in self.scores.iter_mut().zip(other.scores) {
            for (mnemonic, score) in theirs {
                let mine = mine.entry(mnemonic).or_default();
                (mine.ran, mine.failed) = (mine.ran + score.ran, mine.failed + score.failed);
            }
        }
        self.compiled += other.compiled;
        self.programs += other.programs;
        for (reason, n) in other.not_run {
            *self.not_run.entry(reason).or_default() += n;
        }
        self.failures.extend(other.failures);
    }
}

/// A host process and a set of engines.
pub struct Worker {
    /// The host.
    pub host: Host,
    /// The engines.
    pub engines: Vec<(EngineChoice, Box<dyn Engine>)>,
    theirs: Outcome,
    ours: Outcome,
    /// The score.
    pub tally: Tally,
    /// Failures kept for each encoding and engine.
    pub keep: usize,
}

impl Worker {
    /// A worker with engines of these names.
    pub fn new(engines: &[EngineChoice], keep: usize) -> anyhow::Result<Worker> {
        let make = |e: &EngineChoice| bench::make(*e).map(|made| (*e, made)).map_err(anyhow::Error::msg);
        let engines = engines.iter().map(make).collect::<Result<Vec<_>, _>>()?;
        let tally = Tally { scores: vec![BTreeMap::new(); engines.len()], ..Tally::default() };
        Ok(Worker { host: Host::new()?, engines, theirs: Outcome::default(), ours: Outcome::default(), tally, keep })
    }

    /// Runs the programs of these numbers.
    pub fn numbers(&mut self, generator: &Generator, numbers: std::ops::Range<u64>) -> Result<(), HostError> {
        let mut batch = Vec::with_capacity(BATCH);
        for n in numbers {
            match generator.program(n) {
                Some(program) => batch.push(program),
                None => self.not_run("no such form could be written"),
            }
            if batch.len() == BATCH {
                self.batch(&batch)?;
                batch.clear();
            }
        }
        self.batch(&batch)
    }

    fn not_run(&mut self, reason: &'static str) {
        *self.tally.not_run.entry(reason).or_default() += 1;
    }

    /// Runs some programs, at most [`BATCH`].
    pub fn batch(&mut self, programs: &[Program]) -> Result<(), HostError> {
        for (program, slot) in programs.iter().zip(self.host.slots()) {
            program.store(slot);
        }
        self.host.run(programs.len())?;
        let mut again = Vec::new();
        for (n, program) in programs.iter().enumerate() {
            program.outcome(&self.host.slots()[n], &mut self.theirs);
            self.tally.programs += 1;
            match self.theirs.end {
                End::Runaway => self.not_run("the host did not come to an end"),
                End::Nothing => self.not_run("the host could not run it"),
                End::Fault(..) => self.compare(program, &mut again),
            }
        }
        for (engine, program) in again {
            self.confirm(engine, program)?;
        }
        Ok(())
    }

    /// Runs the engines on a program and compares with `self.theirs`.
    fn compare<'a>(&mut self, program: &'a Program, again: &mut Vec<(usize, &'a Program)>) {
        if !judge::defined(program, self.theirs.regs.rip).results {
            return self.not_run("the result is undefined");
        }
        let mnemonic = format!("{:?}", program.code.mnemonic()).to_lowercase();
        for n in 0..self.engines.len() {
            let engine = &mut self.engines[n].1;
            let result = engine.run(program, &mut self.ours);
            self.tally.compiled += u64::from(engine.compiled());
            let same = result.is_ok() && judge::same(program, &self.theirs, &self.ours);
            match self.tally.scores[n].get_mut(&mnemonic) {
                Some(score) => score.ran += 1,
                None => {
                    self.tally.scores[n].insert(mnemonic.clone(), Score { ran: 1, failed: 0 });
                }
            }
            if same {
                continue;
            }
            match self.ours.end {
                End::Fault(14, _, address) if address >= ABOVE_PROGRAMS && self.host.has_at(address) => {
                    self.not_run("it reached memory of the process that runs it");
                }
                _ => again.push((n, program)),
            }
        }
    }

    /// The differences of a program on engine number `n`; `None` when the host does not say the same twice.
    pub fn differences(&mut self, n: usize, program: &Program) -> Result<Option<Vec<String>>, HostError> {
        let mut first = Outcome::default();
        for turn in 0..3 {
            program.store(&mut self.host.slots()[0]);
            self.host.run(1)?;
            program.outcome(&self.host.slots()[0], &mut self.theirs);
            if turn == 0 {
                first = self.theirs.clone();
            } else if !judge::differences(program, &first, &self.theirs).is_empty() {
                return Ok(None);
            }
        }
        if !matches!(first.end, End::Fault(..)) || !judge::defined(program, first.regs.rip).results {
            return Ok(None);
        }
        self.theirs = first;
        Ok(Some(match self.engines[n].1.run(program, &mut self.ours) {
            Ok(()) => judge::differences(program, &self.theirs, &self.ours),
            Err(panic) => vec![panic],
        }))
    }

    /// The outcome on the host that the last call of [`Worker::differences`] saw.
    #[must_use]
    pub fn host_outcome(&self) -> &Outcome {
        &self.theirs
    }

    /// Counts a difference if it shows again.
    fn confirm(&mut self, n: usize, program: &Program) -> Result<(), HostError> {
        match self.differences(n, program)? {
            None => self.not_run("the host says something else each time"),
            Some(list) if list.is_empty() => self.not_run("it differed once and not again"),
            Some(_) => {
                let mnemonic = format!("{:?}", program.code.mnemonic()).to_lowercase();
                let score = self.tally.scores[n].entry(mnemonic).or_default();
                score.failed += 1;
                let engine = self.engines[n].0;
                let kept = self.tally.failures.iter().filter(|(e, p)| *e == engine && p.code == program.code).count();
                if kept < self.keep {
                    self.tally.failures.push((engine, program.clone()));
                }
            }
        }
        Ok(())
    }
}
