//! `egret conform`: runs suites of instruction tests on the engines and keeps the score.

pub mod command;
pub mod compare;
pub mod coverage;
pub mod engine;
pub mod failure;
pub mod flat;
pub mod html;
pub mod jsonl;
pub mod junit;
pub mod known;
pub mod masks;
pub mod moo;
pub mod moo_parts;
pub mod oracle;
pub mod regs;
pub mod report;
pub mod runner;
pub mod source;
pub mod vector;

use std::sync::Arc;
use vector::Place;

/// What is wrong with a vector file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ParseError {
    /// File and byte offset.
    pub place: Place,
    /// What is wrong.
    pub what: String,
}

/// A [`ParseError`] before its file is known.
#[derive(Debug)]
struct Problem {
    offset: u64,
    what: String,
}

impl Problem {
    fn in_file(self, file: &Arc<str>) -> ParseError {
        ParseError { place: Place { file: Arc::clone(file), offset: self.offset }, what: self.what }
    }
}
