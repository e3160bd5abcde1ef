//! The score of a run, for people and for programs.

use super::compare::Diff;
use super::failure::Failure;
use super::vector::Vector;
use super::{ParseError, runner::EngineChoice};
use iced_x86::Code;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Counts of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Executed: passed, failed and known ones.
    pub ran: u64,
    /// Ended as expected.
    pub passed: u64,
    /// Did not.
    pub failed: u64,
    /// Not executed.
    pub skipped: u64,
    /// Did not end as expected, for a reason that the list of known exceptions gives.
    #[serde(skip_serializing_if = "is_zero")]
    pub known: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Totals {
    /// Adds other counts.
    pub fn add(&mut self, other: Totals) {
        self.ran += other.ran;
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.known += other.known;
    }
}

/// The score of one mnemonic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Its counts.
    pub totals: Totals,
    /// Counts by encoding, of those that the decoder knows.
    pub codes: BTreeMap<Code, Totals>,
    /// Why vectors were skipped.
    pub skipped: BTreeMap<String, u64>,
    /// Known exceptions: why, by the test's name.
    pub known: BTreeMap<String, String>,
}

impl Row {
    /// CPU features that its encodings belong to, as CPUID knows them.
    #[must_use]
    pub fn features(&self) -> BTreeSet<String> {
        self.codes.keys().filter_map(|c| c.cpuid_features().first()).map(|f| format!("{f:?}")).collect()
    }
}

/// The score of one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineReport {
    /// Which engine.
    pub engine: EngineChoice,
    /// All counts.
    pub totals: Totals,
    /// Counts by mnemonic.
    pub rows: BTreeMap<String, Row>,
    /// The first failures of each mnemonic, in the order of the files.
    pub failures: Vec<Failure>,
    /// Vectors in which compiled code took part, for an engine that compiles.
    pub compiled: Option<u64>,
}

impl EngineReport {
    /// An empty score.
    #[must_use]
    pub fn new(engine: EngineChoice) -> EngineReport {
        EngineReport { engine, totals: Totals::default(), rows: BTreeMap::new(), failures: Vec::new(), compiled: None }
    }

    fn row(&mut self, vector: &Vector, code: Option<Code>, totals: Totals) -> &mut Row {
        self.totals.add(totals);
        let row = self.rows.entry(vector.mnemonic.clone()).or_default();
        row.totals.add(totals);
        if let Some(code) = code {
            row.codes.entry(code).or_default().add(totals);
        }
        row
    }

    /// Counts by encoding.
    #[must_use]
    pub fn codes(&self) -> BTreeMap<Code, Totals> {
        let mut all: BTreeMap<Code, Totals> = BTreeMap::new();
        for (code, totals) in self.rows.values().flat_map(|r| &r.codes) {
            all.entry(*code).or_default().add(*totals);
        }
        all
    }

    /// Counts a vector that ran.
    pub fn ran(&mut self, vector: &Vector, code: Option<Code>, diffs: Vec<Diff>, known: Option<&str>, keep: usize) {
        let wrong = !diffs.is_empty();
        if let (true, Some(reason)) = (wrong, known) {
            let row = self.row(vector, code, Totals { ran: 1, known: 1, ..Totals::default() });
            row.known.insert(vector.name.clone(), reason.to_owned());
            return;
        }
        let failed = u64::from(wrong);
        let row = self.row(vector, code, Totals { ran: 1, passed: 1 - failed, failed, ..Totals::default() });
        if failed == 1 && row.totals.failed <= keep as u64 {
            self.failures.push(Failure::new(vector, diffs));
        }
    }

    /// Counts a vector that did not run.
    pub fn skipped(&mut self, vector: &Vector, code: Option<Code>, reason: String) {
        let row = self.row(vector, code, Totals { skipped: 1, ..Totals::default() });
        *row.skipped.entry(reason).or_default() += 1;
    }

    /// Adds the score of a later part of the same run.
    pub fn merge(&mut self, part: EngineReport, keep: usize) {
        let room = |report: &EngineReport, mnemonic: &str| report.failures.iter().filter(|f| f.mnemonic == mnemonic).count() < keep;
        for failure in part.failures {
            if room(self, &failure.mnemonic) {
                self.failures.push(failure);
            }
        }
        self.totals.add(part.totals);
        self.compiled = self.compiled.map_or(part.compiled, |n| Some(n + part.compiled.unwrap_or(0)));
        for (mnemonic, theirs) in part.rows {
            let row = self.rows.entry(mnemonic).or_default();
            row.totals.add(theirs.totals);
            for (code, totals) in theirs.codes {
                row.codes.entry(code).or_default().add(totals);
            }
            for (reason, n) in theirs.skipped {
                *row.skipped.entry(reason).or_default() += n;
            }
            row.known.extend(theirs.known);
        }
    }

    /// Why vectors were skipped, with counts.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<&str, u64> {
        let mut reasons = BTreeMap::new();
        for (reason, n) in self.rows.values().flat_map(|r| &r.skipped) {
            *reasons.entry(reason.as_str()).or_default() += n;
        }
        reasons
    }

    fn text(&self, shown: usize) -> String {
        let names: Vec<String> = self.rows.values().map(features).collect();
        let name = self.rows.keys().map(|m| m.chars().count()).chain([8]).max().unwrap_or(8);
        let feature = names.iter().map(|f| f.chars().count()).chain([7]).max().unwrap_or(7);
        let head = ["ran", "passed", "failed", "skipped"].map(|h| format!("{h:>9}")).concat();
        let mut text = format!("engine {}\n{:name$}  {:feature$}{head}\n", self.engine.word(), "mnemonic", "feature");
        let mut line = |mnemonic: &str, features: &str, t: Totals| {
            let _ = writeln!(text, "{mnemonic:name$}  {features:feature$}{:>9}{:>9}{:>9}{:>9}", t.ran, t.passed, t.failed, t.skipped);
        };
        for ((mnemonic, row), features) in self.rows.iter().zip(&names) {
            line(mnemonic, features, row.totals);
        }
        line("total", "", self.totals);
        if let Some(n) = self.compiled {
            let _ = writeln!(text, "compiled code took part in {n} of {}", self.totals.ran);
        }
        for (reason, n) in self.reasons() {
            let _ = writeln!(text, "skipped {n}: {reason}");
        }
        for (name, reason) in self.rows.values().flat_map(|r| &r.known) {
            let _ = writeln!(text, "known exception {name}: {reason}");
        }
        for failure in self.failures.iter().take(shown) {
            let _ = writeln!(text, "\nFAILED {}  [{}]  {} at byte {}", failure.name, failure.code, failure.file, failure.offset);
            text += &failure.lines();
        }
        if self.failures.len() > shown {
            let _ = writeln!(text, "\n{} more failures are kept for --json, --junit and --html", self.failures.len() - shown);
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|(mnemonic, row)| {
            serde_json::json!({
                "mnemonic": mnemonic, "features": row.features(), "ran": row.totals.ran, "passed": row.totals.passed,
                "failed": row.totals.failed, "skipped": row.totals.skipped, "skip_reasons": row.skipped, "known": row.known,
            })
        });
        serde_json::json!({
            "engine": self.engine.word(), "totals": self.totals, "mnemonics": rows.collect::<Vec<_>>(),
            "skip_reasons": self.reasons(), "failures": self.failures, "compiled": self.compiled,
        })
    }
}

/// The row's features in few words.
pub(super) fn features(row: &Row) -> String {
    let all = row.features();
    match (all.first(), all.len()) {
        (None, _) => "-".into(),
        (Some(one), 1) => one.clone(),
        (Some(first), n) => format!("{first} +{}", n - 1),
    }
}

/// The score of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// One score an engine.
    pub engines: Vec<EngineReport>,
    /// Files that could not be read to their end.
    pub errors: Vec<ParseError>,
    /// Seconds it took.
    pub seconds: f64,
}

impl Report {
    /// The counts of all engines together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.engines.iter().for_each(|e| totals.add(e.totals));
        totals
    }

    /// Tables, skips with reasons and at most `shown` failures an engine.
    #[must_use]
    pub fn text(&self, shown: usize) -> String {
        let mut text = self.engines.iter().map(|e| e.text(shown)).collect::<Vec<_>>().join("\n");
        let totals = self.totals();
        let rate = (totals.ran as f64 / self.seconds.max(1e-6)) as u64;
        let _ = writeln!(
            text,
            "\nran {}, passed {}, failed {}, {}skipped {} in {:.1} s ({rate} a second)",
            totals.ran,
            totals.passed,
            totals.failed,
            if totals.known > 0 { format!("known {}, ", totals.known) } else { String::new() },
            totals.skipped,
            self.seconds
        );
        text
    }

    /// The same as one JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let errors = self.errors.iter().map(|e| serde_json::json!({"file": &*e.place.file, "offset": e.place.offset, "error": e.what}));
        serde_json::json!({
            "totals": self.totals(), "seconds": self.seconds, "engines": self.engines.iter().map(EngineReport::json).collect::<Vec<_>>(),
            "errors": errors.collect::<Vec<_>>(),
        })
    }
}
